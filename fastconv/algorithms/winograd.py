"""Winograd convolution for 3x3 kernels of stride 1: F(2x2), as accurate as a direct sum, and F(4x4), which is not."""

from __future__ import annotations

from functools import partial

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_block
from fastconv._kernels.isa import MACHINE, best_tile
from fastconv._kernels.register_tile import register_tile
from fastconv._kernels.winograd import Winograd, transform_weights, winograd
from fastconv._kernels.winograd_transforms import TAPS, input_transform, output_transform, weight_transform
from fastconv.algorithms import costs, direct
from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.panels import Weights
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

# Tiles of one task. Between 16 and 112 it makes no difference that can be measured, with 64 to 512 channels: the
# register tile reads transformed tiles slowly enough to find them in L2 or L3.
BLOCK = 64
# Cycles of transforming one vector of a tile, beside the products: input, output, weights. Writing 36 vectors a cache
# line each to 36 places costs more than the arithmetic.
_CYCLES = {2: (58.0, 50.0, 77.0), 4: (250.0, 112.0, 235.0)}


class WinogradPass:
    """Forward, or the gradient of x, which is the same convolution of dout by the flipped kernel."""

    def __init__(self, problem: ConvProblem, threads: int, *, m: int, gradient: bool, relu: bool = False):
        p, itemsize, lanes = problem, problem.dtype.itemsize, MACHINE.lanes(problem.dtype.itemsize)
        self.problem, self.threads, self.m = problem, threads, m
        self.positions = (m + TAPS - 1) ** 2
        (top, _), (left, _) = p.pads
        if gradient:
            self.weights = Weights.gradient(p)
            channels, filters, height, width, out_height, out_width = p.F, p.C, p.OH, p.OW, p.H, p.W
            top, left = TAPS - 1 - top, TAPS - 1 - left
        else:
            self.weights = Weights.forward(p)
            channels, filters, height, width, out_height, out_width = p.C, p.F, p.H, p.W, p.OH, p.OW
        self.source = Operand(p.channels_last, True, channels, height, width, 0, 0, height, width)
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = max(min(costs.CHUNK_BYTES // max(image_bytes, 1), p.N), 1)
        rows, cols = ceil_div(out_height, m), ceil_div(out_width, m)
        tiles = self.images * rows * cols
        self.tile = best_tile(tiles, filters, itemsize)
        tile_stride = ceil_div(channels, lanes) * lanes
        # One cache line more keeps positions out of each other's way: powers of two apart, they compete for few lines.
        line = 64 // itemsize
        block = ceil_div(min(BLOCK, ceil_div(tiles, threads)), self.tile.rows) * self.tile.rows
        panels = self.weights.panels(self.tile.cols)
        blocks = ceil_div(tiles, block)
        share = costs.split(panels, threads * costs.TASKS_PER_THREAD // blocks if threads > 1 else 1, 1)
        depth_block = min(channels, costs.DEPTH_BLOCK)
        self.geometry = Winograd(
            images=0, m=m, rows=rows, cols=cols, height=height, width=width, top=top, left=left, channels=channels,
            filters=filters, out_height=out_height, out_width=out_width,
            out_filter=1 if p.channels_last else out_height * out_width, tile_rows=self.tile.rows,
            tile_cols=self.tile.cols, block=block, share=share, depth_block=depth_block, tile_stride=tile_stride,
            tiles_stride=block * tile_stride + line, sums_stride=block * self.tile.cols + line,
            w_stride=channels * self.tile.cols + line, relu=int(relu),
        )  # fmt: skip
        g = self.geometry
        kernel = np.arange(TAPS * TAPS)
        kernel = kernel[::-1] if gradient else kernel
        steps_outside = p.channels_last  # depth (tap, channel), otherwise (channel, tap)
        self.taps = kernel * (channels if steps_outside else 1) * g.tile_cols
        self.step = (1 if steps_outside else TAPS * TAPS) * g.tile_cols
        self.trow, self.srow = np.arange(block) * tile_stride, np.arange(block) * g.tile_cols
        self.acol, self.brow = np.arange(channels), np.arange(channels) * g.tile_cols
        self.zeros = np.zeros(max(channels, filters) + g.tile_cols, p.dtype)
        spare = filters + g.tile_cols if p.channels_last else m * block * m * g.tile_cols
        self.slot_numbers = self.positions * (g.tiles_stride + g.sums_stride) + spare
        self.w_numbers = panels * self.positions * g.w_stride
        self.workspace = (
            self.images * image_bytes + self.w_numbers * itemsize + self.weights.panel_bytes(g.tile_cols, itemsize)
            + threads * (self.slot_numbers * itemsize + block * (self.positions + m * m) * 8)
        )  # fmt: skip
        self.cycles = self._cycles(image_bytes)

    def _cycles(self, image_bytes: int) -> float:
        p, g, lanes = self.problem, self.geometry, MACHINE.lanes(self.problem.dtype.itemsize)
        tiles, panels = p.N * g.rows * g.cols, self.weights.panels(g.tile_cols)
        to_tiles, from_tiles, to_positions = _CYCLES[self.m]
        products = self.positions * self.tile.cycles_for(tiles, g.filters, g.channels, g.depth_block)
        shares = ceil_div(panels, g.share)
        inputs = tiles * shares * ceil_div(g.channels, lanes) * to_tiles
        outputs = tiles * ceil_div(g.filters, lanes) * from_tiles
        weights = g.channels * ceil_div(g.filters, lanes) * to_positions
        cycles = products + inputs + outputs + weights + 3 * costs.CYCLES_PER_LAUNCH
        if not p.channels_last:
            each = costs.cycles_per_transposed(g.out_filter * p.dtype.itemsize)
            cycles += p.N * (g.out_filter * g.filters * each + image_bytes * 2 * costs.CYCLES_PER_BYTE_MOVED)
        return cycles

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, in the problem's layout; bias (F,) or empty."""
        p, g, itemsize = self.problem, self.geometry, self.problem.dtype.itemsize
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        with Scratch() as scratch:
            transformed = self.transform(w, scratch)
            own = scratch.take((slots, self.slot_numbers), p.dtype)
            addresses = scratch.take((slots, g.block * (self.positions + g.m * g.m)), np.dtype(np.int64))
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                with Scratch() as chunk:
                    x = self.source.prepare(operand[images], slots, chunk)
                    runtime.run_on(
                        winograd, slots, np.zeros(1, np.int64), input_transform(self.m, itemsize).address,
                        register_tile(self.tile.rows, self.tile.vectors, itemsize).address,
                        output_transform(self.m, itemsize).address, transpose_block(itemsize).address, x, transformed,
                        bias, self.zeros, out[images].reshape(-1), self.trow, self.acol, self.brow, self.srow,
                        addresses, own, g._replace(images=len(operand[images])),
                    )  # fmt: skip

    def transform(self, w: np.ndarray, scratch: Scratch) -> np.ndarray:
        """G w G^T of every filter and channel, as panels: (panels, positions, w_stride)."""
        g, itemsize = self.geometry, self.problem.dtype.itemsize
        transformed = scratch.take((self.weights.panels(g.tile_cols), self.positions, g.w_stride), w.dtype)
        with Scratch() as own:
            panels = self.weights.pack(w, g.tile_cols, own)[0]
            runtime.launch(
                transform_weights, w.size * 16, weight_transform(self.m, itemsize).address, panels, self.taps,
                transformed, g.channels, self.step,
            )  # fmt: skip
        return transformed.reshape(-1)


def _declines(problem: ConvProblem, direction: str) -> str | None:
    if (problem.KH, problem.KW) != (TAPS, TAPS):
        return f"the kernel is {problem.KH}x{problem.KW}, not 3x3"
    if problem.stride != (1, 1) or problem.dilation != (1, 1):
        return "stride and dilation must be 1"
    if problem.groups > 1:
        return "groups are not split"
    if direction == "gradient_w":
        return "it has no gradient of w"
    return None


def _algorithm(m: int, description: str, exact: bool) -> Algorithm:
    return Algorithm(
        f"winograd{m}x{m}",
        description,
        lambda problem, threads, relu: WinogradPass(problem, threads, m=m, gradient=False, relu=relu),
        partial(WinogradPass, m=m, gradient=True),
        direct.ALGORITHM.gradient_w,
        _declines,
        exact,
    )


ALGORITHMS = (
    _algorithm(2, "F(2x2, 3x3): 2.25 times fewer products", True),
    _algorithm(4, "F(4x4, 3x3): 4 times fewer products, about ten times the rounding error", False),
)
