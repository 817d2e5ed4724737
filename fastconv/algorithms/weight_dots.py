"""Gradient of the weights by dot products along output pixels: tables and sizes, made once per problem."""

from __future__ import annotations

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_block
from fastconv._kernels.dot_tile import dot_tile, fold_lanes
from fastconv._kernels.isa import MACHINE, DotShape, best_dots
from fastconv._kernels.weight_dots import WeightDots, weight_dots
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.filter_rows import add_up
from fastconv.algorithms.tables import changed, repeated
from fastconv.algorithms.tap_planes import tap_planes
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

_STEPS = 64  # vectors of pixels of one block: a tile's rows of dout and the block of x stay in the first-level cache
_SUMS_BYTES = 2**20  # one vector per result of a task
_FAR_PLANES = (
    1.4 if costs.WIDE else 1.0
)  # a group's planes beyond the second-level cache (1x2, 32 channels of 16,000 numbers)
_SCALE = 0.9 if costs.WIDE else 1.0  # beside packed panels, of what tiles predict (3x3 of 3 channels, 64 filters)
_CYCLES_PER_FOLD = 20.0  # adding up the lanes of one result
# Channels-last rows of 8,000 and 16,000 pixels, whose planes begin in other pages: 1.2 to 1.5 times as long as others.
_LONG_ROW_BYTES, _CYCLES_PER_FAR_TRANSPOSED = 16 * 1024, 2.0


class WeightDotsPass:
    """`run(x, dout, dw)` fills dw; both operands C-contiguous in the problem's layout."""

    @staticmethod
    def declines(problem: ConvProblem) -> str | None:
        """Why it cannot, or None."""
        if problem.channels_last and problem.stride[0] > 1 and problem.stride[1] == 1 and problem.C > 1:
            return "it brings channels-last rows into planes with equal strides or a horizontal one only"
        return None

    def __init__(self, problem: ConvProblem, threads: int):
        self.problem, self.threads = problem, threads
        p, itemsize = problem, problem.dtype.itemsize
        self.lanes = MACHINE.lanes(itemsize)
        self.source, brow = tap_planes(p)
        self.tile: DotShape = best_dots(p.group_filters, brow.size)
        plane, taps = p.OH * p.OW, brow.size
        last = p.channels_last and p.F > 1
        self.brow = repeated(brow, self.tile.cols)
        self.columns = self.brow.size // self.tile.cols
        self.vectors = ceil_div(p.OW, self.lanes)
        block = max(_STEPS // self.vectors, 1)
        self.image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(self.image_bytes, p.N)
        lines = self.images * p.OH
        block = min(block, lines)
        band = max(_SUMS_BYTES // (self.brow.size * self.lanes * itemsize * self.tile.rows), 1)
        band = min(band, ceil_div(p.group_filters, self.tile.rows)) * self.tile.rows
        bands = ceil_div(p.group_filters, band) * p.groups
        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        splits = costs.even_splits(max(min(ceil_div(tasks, bands), lines // (2 * block)), 1), bands, threads)
        pitch = self.vectors * self.lanes if last else 0
        self.arow = repeated(
            np.arange(band) * block * pitch if last else np.arange(p.group_filters) * plane, self.tile.rows
        )
        weights = p.group_filters * taps
        self.geometry = WeightDots(
            images=self.images, groups=p.groups, filters=p.group_filters, taps=taps, rows=p.OH, cols=p.OW,
            lanes=self.lanes, dout_image=p.F * plane, dout_row=p.OW * (p.F if last else 1),
            dout_group=p.group_filters * (1 if last else plane), dout_pixel=p.F if last else 1,
            x_image=self.source.image, x_row=self.source.cols,
            x_group=p.group_channels * self._channel_step(),
            out_group=p.group_filters if p.channels_last else weights,
            out_filter=1 if p.channels_last else taps, out_tap=p.F if p.channels_last else 1,
            tile_rows=self.tile.rows, tile_cols=self.tile.cols, band=band, splits=splits, block=block, pitch=pitch,
            add=0,
        )  # fmt: skip
        self.transpose, self.fold = transpose_block(itemsize), fold_lanes(itemsize)
        self.sums = band * self.brow.size * self.lanes
        self.planes = band * block * pitch
        self.dw_size = p.F * taps
        self.workspace = (
            self.images * self.image_bytes
            + itemsize * (threads * (self.sums + self.planes) + (splits * self.dw_size if splits > 1 else 0))
            + INDEX.itemsize * threads * 2 * block * self.vectors
        )
        self.cycles = self._cycles()

    def _channel_step(self) -> int:
        """From one channel of a group to the next in the planes of x."""
        return self.source.plane if self.source.channels > 1 else self.source.rows * self.source.cols

    def _cycles(self) -> float:
        p, g, itemsize = self.problem, self.geometry, self.problem.dtype.itemsize
        lines = p.N * p.OH
        tiles = ceil_div(p.group_filters, g.tile_rows) * self.columns * p.groups
        arithmetic = tiles * lines * self.vectors * self.tile.cycles + tiles * lines / g.block * self.tile.call
        arithmetic *= _SCALE
        folds = g.splits * p.N / self.images * self.dw_size * _CYCLES_PER_FOLD
        row_bytes = g.block * g.pitch * itemsize
        each = _CYCLES_PER_FAR_TRANSPOSED if row_bytes > _LONG_ROW_BYTES else costs.cycles_per_transposed(row_bytes)
        transposing = lines * p.OW * p.F * each if g.pitch else 0.0
        split = p.N * self.source.image * costs.cycles_per_split(self.source.stride[1])
        moved = 2 * self.image_bytes * p.N * costs.CYCLES_PER_BYTE_MOVED + split
        if self.source.image // p.groups * itemsize > costs.L2_BYTES:
            arithmetic *= _FAR_PLANES
        return arithmetic + folds + transposing + moved + costs.CYCLES_PER_LAUNCH * (p.N / self.images)

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p, g = self.problem, self.geometry
        with Scratch(self.workspace) as scratch:
            single = g.splits == 1
            partial = dw.reshape(1, -1) if single else scratch.take((g.splits, self.dw_size), p.dtype)
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                self._run_images(x[images], dout[images], partial, first > 0, scratch)
            if not single:
                add_up(partial, dw)

    def _run_images(self, x: np.ndarray, dout: np.ndarray, partial: np.ndarray, add: bool, scratch: Scratch) -> None:
        p, g, images = self.problem, self.geometry, len(x)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with scratch:
            planes = self.source.prepare(x, slots, scratch)
            tables = scratch.take((slots, 2, g.block * self.vectors), INDEX)
            sums, transposed = (scratch.take((slots, size), p.dtype) for size in (self.sums, self.planes))
            tile = dot_tile(self.tile.rows, self.tile.cols, p.dtype.itemsize)
            runtime.run_tasks(
                weight_dots, slots, tile.address, self.transpose.address,
                self.fold.address, dout.reshape(-1), self.arow, planes, self.brow, tables, sums, transposed, partial,
                changed(g, images=images, add=int(add)),
            )  # fmt: skip
