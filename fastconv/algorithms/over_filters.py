"""Forward and gradient of x with vectors over filters (or channels): tables and sizes, made once per problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, transpose_block
from fastconv._kernels.isa import best_tile
from fastconv._kernels.over_filters import OverFilters, over_filters, pack_panels
from fastconv._kernels.register_tile import register_tile
from fastconv.algorithms import costs
from fastconv.algorithms.axes import GradientAxis
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.tables import offsets
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

# Rows of tiles up to which weights are read where they lie: packing them costs as much as using them.
_UNPACKED_TILES = 2


@dataclass(frozen=True)
class Weights:
    """Where depth step (batch, row) of a filter lies in w; see `pack_panels`."""

    filters: int  # of one group: columns of the panels
    group_stride: int
    batches: int
    batch_stride: int
    rows: int
    stride: int
    transposed: bool

    @property
    def depth(self) -> int:
        return self.batches * self.rows


@dataclass(frozen=True)
class Launch:
    """Tables and geometry of one grid of output pixels; `steps` numbers its depth steps within the panels."""

    acol: np.ndarray
    steps: np.ndarray
    runs: np.ndarray
    geometry: OverFilters


def _forward(p: ConvProblem) -> tuple[Operand, Weights, list[Launch]]:
    (top, _), (left, _) = p.pads
    last = p.channels_last
    source = Operand(last, last, p.C, p.H, p.W, top, left, *p.padded)
    down, across = np.arange(p.KH) * p.dilation[0] * source.row_step, np.arange(p.KW) * p.dilation[1] * source.col_step
    channels = np.arange(p.group_channels) * source.channel_step
    depth = p.taps * p.group_channels
    if last:
        weights = Weights(
            p.group_filters, p.group_filters, p.taps, p.group_channels * p.F, p.group_channels, p.F, False
        )
        acol = offsets(down, across, channels)
    else:
        weights = Weights(p.group_filters, p.group_filters * depth, 1, 0, depth, depth, True)
        acol = offsets(channels, down, across)
    places = {
        "rows": p.OH, "cols": p.OW, "x_row": p.stride[0] * source.row_step, "x_col": p.stride[1] * source.col_step,
        "x_group": p.group_channels * source.channel_step, "out_start": 0, "out_image": p.OH * p.OW * p.F,
        "out_row": p.OW * (p.F if last else 1), "out_col": p.F if last else 1, "out_filter": 1 if last else p.OH * p.OW,
    }  # fmt: skip
    return source, weights, [_launch(p, acol, np.arange(depth), offsets(down, across), source, weights, places)]


def _gradient(p: ConvProblem) -> tuple[Operand, Weights, list[Launch]]:
    """dx[i, c] = sum over f, taps of dout[o, f] * w[f, c, tap]: filters and channels change roles."""
    vertical = GradientAxis.of(p.H, p.KH, p.stride[0], p.dilation[0], p.pads[0][0], p.OH)
    horizontal = GradientAxis.of(p.W, p.KW, p.stride[1], p.dilation[1], p.pads[1][0], p.OW)
    last = p.channels_last
    source = Operand(last, last, p.F, p.OH, p.OW, vertical.front, horizontal.front, vertical.length, horizontal.length)
    filters = np.arange(p.group_filters)
    per_filter = p.group_channels * p.taps
    if last:
        weights = Weights(p.group_channels, p.group_filters, p.taps, p.group_channels * p.F, p.group_filters, p.F, True)
    elif p.taps == 1:  # the channels of a filter lie side by side
        weights = Weights(
            p.group_channels, p.group_filters * per_filter, 1, 0, p.group_filters, p.group_channels, False
        )
    else:
        weights = Weights(
            p.group_channels, p.group_filters * per_filter, p.group_filters, per_filter, p.taps, p.taps, True
        )
    col = p.C if last else 1
    launches = []
    for rows in vertical.phases:
        for cols in horizontal.phases:
            kernel_h, at_h = np.array(rows.taps, np.int64).reshape(-1, 2).T
            kernel_w, at_w = np.array(cols.taps, np.int64).reshape(-1, 2).T
            window = offsets(at_h * source.row_step, at_w * source.col_step)
            taps = offsets(kernel_h * p.KW, kernel_w)
            if last:
                acol, steps = offsets(window, filters), offsets(taps * p.group_filters, filters)
            else:
                acol, steps = offsets(filters * source.plane, window), offsets(filters * p.taps, taps)
            places = {
                "rows": rows.count, "cols": cols.count, "x_row": source.row_step, "x_col": source.col_step,
                "x_group": p.group_filters * source.channel_step,
                "out_start": (rows.first * p.W + cols.first) * col, "out_image": p.H * p.W * p.C,
                "out_row": p.stride[0] * p.W * col, "out_col": p.stride[1] * col,
                "out_filter": 1 if last else p.H * p.W,
            }  # fmt: skip
            launches.append(_launch(p, acol, steps, window, source, weights, places))
    return source, weights, launches


def _launch(
    p: ConvProblem, acol: np.ndarray, steps: np.ndarray, runs: np.ndarray, source: Operand, weights: Weights,
    places: dict[str, int],
) -> Launch:  # fmt: skip
    geometry = OverFilters(
        images=0, groups=p.groups, filters=weights.filters, x_image=source.image, w_panel=0, tile_rows=0, tile_cols=0,
        chunk=0, share=0, depth_block=0, run_length=0, relu=0, **places,
    )  # fmt: skip
    return Launch(acol, steps, runs, geometry)


class OverFiltersPass:
    """One pass: `run(operand, w, bias, out)` with operand x, or dout for the gradient of x."""

    def __init__(self, problem: ConvProblem, threads: int, *, packed: bool, gradient: bool, relu: bool = False):
        assert problem.channels_last or not packed  # windows of planes are not made of runs
        self.problem, self.threads, self.packed = problem, threads, packed
        self.source, self.weights, launches = (_gradient if gradient else _forward)(problem)
        itemsize = problem.dtype.itemsize
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, problem.N)
        pixels = self.images * max(launch.geometry.rows * launch.geometry.cols for launch in launches)
        self.tile = best_tile(max(pixels, 1), self.weights.filters, itemsize)
        self.panels = ceil_div(self.weights.filters, self.tile.cols)
        self.in_place = (
            problem.channels_last
            and not gradient
            and problem.groups == 1
            and pixels <= _UNPACKED_TILES * self.tile.rows
        )
        self.launches = [self._sized(launch, int(relu)) for launch in launches]
        self.copy, self.transpose = copy_block(itemsize), transpose_block(itemsize)
        self.drow = np.arange(self.weights.rows) * self.tile.cols
        self.srow = np.arange(self.weights.rows) * self.weights.stride
        self.result_rows = np.arange(self.tile.rows) * self.tile.cols
        self.panels_shape = problem.groups, self.panels, self.weights.depth, self.tile.cols
        panel_bytes = 0 if self.in_place else math.prod(self.panels_shape) * itemsize
        self.workspace = (
            self.images * image_bytes + panel_bytes + threads * max(self._slot_bytes(g.geometry) for g in self.launches)
        )
        self.cycles = sum(map(self._cycles, self.launches)) + costs.CYCLES_PER_LAUNCH * 2 + (
            2 * (image_bytes * problem.N + panel_bytes) * costs.CYCLES_PER_BYTE_MOVED
        )  # fmt: skip

    def _sized(self, launch: Launch, relu: int) -> Launch:
        """Choose how many pixels and panels one task takes."""
        g, tile, itemsize = launch.geometry, self.tile, self.problem.dtype.itemsize
        pixels, depth = self.images * g.rows * g.cols, max(launch.acol.size, 1)
        tasks = ceil_div(self.threads * costs.TASKS_PER_THREAD, g.groups) if self.threads > 1 else 1
        chunk = costs.PIXELS_PER_TASK
        if self.packed:
            chunk = min(chunk, costs.L2_BYTES // (depth * itemsize))
        # Few pixels: split the panels first, since each task passes over all weights of its panels.
        least = min(chunk, costs.PIXELS_PER_TASK // 4)
        chunk = max(min(chunk, ceil_div(pixels, tasks)), least, tile.rows)
        chunk = min(ceil_div(chunk, tile.rows), ceil_div(max(pixels, 1), tile.rows)) * tile.rows
        share = costs.split(self.panels, tasks // max(ceil_div(pixels, chunk), 1), 1)
        run = 0
        if self.packed:
            run = launch.acol.size // max(launch.runs.size, 1)
        geometry = g._replace(
            images=self.images, w_panel=(1 if self.in_place else self.weights.depth) * tile.cols,
            tile_rows=tile.rows, tile_cols=tile.cols,
            chunk=chunk, share=share, depth_block=min(depth, costs.DEPTH_BLOCK), run_length=run, relu=relu,
        )  # fmt: skip
        acol = np.arange(launch.acol.size) if self.packed else launch.acol
        steps = launch.steps * (self.weights.stride if self.in_place else tile.cols)
        return Launch(acol, steps, launch.runs, geometry)

    def _slot_bytes(self, g: OverFilters) -> int:
        numbers = (self.launches[0].acol.size if self.packed else 0) + (g.tile_cols if g.out_filter != 1 else 0)
        return g.chunk * (numbers * self.problem.dtype.itemsize + 3 * 8)

    def _cycles(self, launch: Launch) -> float:
        p, g, depth = self.problem, launch.geometry, launch.acol.size
        pixels, item = p.N * g.rows * g.cols, p.dtype.itemsize
        cycles = self.tile.cycles_for(pixels, g.filters, depth, g.depth_block) * p.groups
        if self.packed:
            copied = launch.runs.size * (costs.CYCLES_PER_RUN + g.run_length * item * 2 / 64)
            cycles += pixels * p.groups * ceil_div(self.panels, g.share) * copied
        if g.out_filter != 1:
            each = costs.cycles_per_transposed(g.out_filter * item) if g.out_col == 1 else costs.CYCLES_PER_SCATTERED
            cycles += pixels * g.filters * p.groups * each
        return cycles

    def prepare(self, w: np.ndarray) -> np.ndarray | None:
        """Weights as panels, in the order in which the tile reads them."""
        if self.in_place:
            return None
        panels = np.zeros(self.panels_shape, self.problem.dtype)
        self._pack(w, panels)
        return panels

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        p = self.problem
        with Scratch() as scratch:
            panels = w if self.in_place else prepared
            if panels is None:
                panels = scratch.take(self.panels_shape, p.dtype)
                self._pack(w, panels)
            panels = panels.reshape(-1)
            for first in range(0, p.N, self.images):
                end = min(first + self.images, p.N)
                self._run_images(operand[first:end], panels, bias, out[first:end].reshape(-1))

    def _pack(self, w: np.ndarray, panels: np.ndarray) -> None:
        f = self.weights
        block = self.transpose if f.transposed else self.copy
        runtime.launch(
            pack_panels, w.size * 4, block.address, f.transposed, w.reshape(-1), panels, self.drow, self.srow,
            self.problem.groups, 1, f.filters, f.group_stride, f.batches, f.batch_stride, f.rows, f.stride,
        )  # fmt: skip

    def _run_images(self, operand: np.ndarray, panels: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        p, images = self.problem, len(operand)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        tile = register_tile(self.tile.rows, self.tile.vectors, p.dtype.itemsize)
        with Scratch() as scratch:
            x = self.source.prepare(operand, slots, scratch)
            for launch in self.launches:
                g = launch.geometry if images == self.images else launch.geometry._replace(images=images)
                tables = np.empty((slots, 3 * g.chunk), np.int64)
                with Scratch() as own:
                    patches = results = np.empty((slots, 0), p.dtype)
                    if self.packed:
                        patches = own.take((slots, g.chunk * launch.acol.size), p.dtype)
                    if g.out_filter != 1:
                        results = own.take((slots, g.chunk * g.tile_cols), p.dtype)
                    runtime.run_on(
                        over_filters, slots, np.zeros(1, np.int64), tile.address, self.copy.address,
                        self.transpose.address, x, launch.acol, launch.runs, panels, launch.steps, bias, out,
                        self.result_rows, tables, patches, results, g,
                    )  # fmt: skip
