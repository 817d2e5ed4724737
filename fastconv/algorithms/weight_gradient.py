"""Gradient of the weights: which operand gives rows, which gives vectors; tables and sizes, made once per problem.

Two arrangements of  dw[f, k] = sum over pixels of dout[f, pixel] * x[window(pixel) + k]:

* `taps_by_filters`: rows are taps, vectors run over filters. Needs `dout` channels-last; x only padded.
* `filters_by_taps`: rows are filters, vectors run over (kw, c). Needs x channels-last; `dout` as it is.
"""

from __future__ import annotations

import numpy as np

from fastconv import runtime
from fastconv._kernels.isa import best_tile
from fastconv._kernels.register_tile import register_tile
from fastconv._kernels.weight_gradient import WeightGradient, weight_gradient
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.filter_rows import add_up, from_filter_rows, total_of, transpose
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.tables import changed, offsets
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

# With AVX-512 (Emerald Rapids) 5x5 to 11x11 took 0.7 to 0.9 of the time that the slowdowns of others predict.
_TAP_ROWS_SLOWDOWN = 1.0 if costs.WIDE else 1.1  # 3x3: rows that walk taps touch more cache lines than rows of dout
# Pixels far apart compete for few lines of the first-level cache: `gradient_panels` ran 0.9 to 1.6 times as fast from
# 32 channels on (1x1, 1x2, 3x3, channels-last), 0.8 to 0.9 times with 16.
_PIXEL_SLOWDOWNS = (1024, 1.35), (128, 1.25), (0, 1.0)  # from how many bytes a pixel on
# Many taps walk far: 7x7 of 3 channels took 1.7 to 1.8 times as long as "few_channels", 5x20 of 1 1.5; channels-last,
# 5x5 of 32 and 48 channels 1.6 to 1.9 times as long as "im2col"; with a stride 1.1 to 1.3 times.
_MANY_TAPS = 9
_TAPS_SLOWDOWN, _STRIDED_TAPS_SLOWDOWN = (1.0, 1.0) if costs.WIDE else (1.35, 1.2)
_FAR_TAPS, _FAR_TAPS_SLOWDOWN = 121, 1.35  # AVX-512 as others: 15x15 1.05 to 1.1, 21x21 1.9 to 2.4 times "im2col"
_ROWS_PER_TASK = 96
_SPLIT_BYTES = 2**21  # all partial results of the splits together
_DEPTH_BLOCK = 256  # pixels summed in registers before they are added to dw: short sums keep float32 accurate


class WeightGradientPass:
    """`run(x, dout, dw)` fills dw; both operands C-contiguous in the problem's layout."""

    def __init__(self, problem: ConvProblem, threads: int, *, rows_are_taps: bool):
        self.problem, self.threads, self.rows_are_taps = problem, threads, rows_are_taps
        p, itemsize = problem, problem.dtype.itemsize
        # x as planes only where rows walk taps of a channels-first input; everywhere else as pixels.
        planes, last = rows_are_taps and not p.channels_last, p.channels_last
        plane = p.OH * p.OW
        self.x = Operand(last, not planes, p.C, p.H, p.W, p.pads[0][0], p.pads[1][0], *p.padded)
        self.dout = Operand(last, rows_are_taps or last, p.F, 1, plane, 0, 0, 1, plane)
        window = (
            np.arange(p.KH) * p.dilation[0] * self.x.row_step,
            np.arange(p.KW) * p.dilation[1] * self.x.col_step,
        )
        channels = np.arange(p.group_channels) * self.x.channel_step
        filters = np.arange(p.group_filters) * self.dout.channel_step
        pixel_x = (
            self.x.image, p.stride[0] * self.x.row_step, p.stride[1] * self.x.col_step,
            p.group_channels * self.x.channel_step,
        )  # fmt: skip
        pixel_dout = (
            self.dout.image,
            p.OW * self.dout.col_step,
            self.dout.col_step,
            p.group_filters * self.dout.channel_step,
        )
        depth = p.taps * p.group_channels
        if rows_are_taps:
            self.arow = offsets(channels, *window) if planes else offsets(*window, channels)
            a_pixel, b_pixel = pixel_x, pixel_dout
            run_starts, run_length = np.zeros(1, np.int64), p.group_filters
        else:
            self.arow = filters
            a_pixel, b_pixel = pixel_dout, pixel_x
            joined = p.groups == 1 and p.dilation[1] == 1  # then taps (kw, c) of one kh lie side by side
            run_starts = offsets(window[0]) if joined else offsets(*window)
            run_length = p.KW * p.C if joined else p.group_channels
        self.tile = best_tile(self.arow.size, run_length, itemsize)
        columns = [
            (start + first, index * run_length + first, min(self.tile.cols, run_length - first))
            for index, start in enumerate(run_starts)
            for first in range(0, run_length, self.tile.cols)
        ]
        self.column_b, self.column_out, self.column_width = np.array(columns, np.int64).reshape(-1, 3).T.copy()
        # The result as the kernel writes it: (groups, rows, columns), except straight into a channels-last dw.
        self.direct = rows_are_taps and p.channels_last
        self.out_columns = p.F if self.direct else p.group_filters if rows_are_taps else depth
        self.crow = np.arange(self.arow.size) * self.out_columns
        out_group = p.group_filters if self.direct else self.arow.size * self.out_columns
        self.dw_size = p.F * depth
        self._size(a_pixel, b_pixel, out_group)

    def _size(self, a_pixel: tuple[int, ...], b_pixel: tuple[int, ...], out_group: int) -> None:
        p, itemsize = self.problem, self.problem.dtype.itemsize
        self.image_bytes = self.x.scratch_bytes(itemsize) + self.dout.scratch_bytes(itemsize)
        self.images = costs.images_at_once(self.image_bytes, p.N)
        pixels = self.images * p.OH * p.OW
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        rows = self.arow.size
        band = min(rows, _ROWS_PER_TASK)  # a task numbers its pixels once for all of its rows, so it takes many
        band = ceil_div(ceil_div(rows, ceil_div(rows, band)), self.tile.rows) * self.tile.rows
        bands = ceil_div(rows, band) * p.groups
        # Few tasks: cut the pixels too, each part into a result of its own, where results are small.
        splits = 1
        if bands < tasks and self.dw_size * itemsize * ceil_div(tasks, bands) <= _SPLIT_BYTES:
            splits = max(min(ceil_div(tasks, bands), pixels // (4 * _DEPTH_BLOCK)), 1)
            splits = costs.even_splits(splits, bands, self.threads)
        self.geometry = WeightGradient(
            images=self.images, groups=p.groups, rows=p.OH, cols=p.OW,
            a_image=a_pixel[0], a_row=a_pixel[1], a_col=a_pixel[2], a_group=a_pixel[3],
            b_image=b_pixel[0], b_row=b_pixel[1], b_col=b_pixel[2], b_group=b_pixel[3],
            out_group=out_group, out_split=self.dw_size, tile_rows=self.tile.rows, band=band, splits=splits,
            depth_block=_DEPTH_BLOCK, add=0,
        )  # fmt: skip
        scratch_dw = 0 if self.direct and splits == 1 else self.dw_size * itemsize * (splits + 1)
        self.workspace = self.images * self.image_bytes + scratch_dw + self.threads * 2 * 8 * _DEPTH_BLOCK
        self.cycles = self._cycles()

    def _cycles(self) -> float:
        p, itemsize = self.problem, self.problem.dtype.itemsize
        pixels = p.N * p.OH * p.OW
        width = int(self.column_width.sum())
        widths = map(int, self.column_width)
        arithmetic = sum(self.tile.cycles_for(self.arow.size, w, pixels, _DEPTH_BLOCK) for w in widths) * p.groups
        if self.rows_are_taps:
            arithmetic *= _TAP_ROWS_SLOWDOWN
        pitch = (self.dout if self.rows_are_taps else self.x).col_step * itemsize
        arithmetic *= next(slowdown for least, slowdown in _PIXEL_SLOWDOWNS if pitch >= least)
        if p.taps > _MANY_TAPS:
            strided = p.channels_last and p.stride != (1, 1)
            far = max(_TAPS_SLOWDOWN, _FAR_TAPS_SLOWDOWN if p.taps > _FAR_TAPS else 1.0)
            arithmetic *= _STRIDED_TAPS_SLOWDOWN if strided else far
        # Each block visits its results once: a load, an add and a store of every vector.
        visits = self.arow.size * width * itemsize / 64 * 2 / _DEPTH_BLOCK
        moved = 2 * self.image_bytes * p.N + (0 if self.direct else 2 * self.dw_size * itemsize)
        copied = pixels * p.groups * visits + moved * costs.CYCLES_PER_BYTE_MOVED
        return arithmetic + copied + costs.CYCLES_PER_LAUNCH * (3 + p.N / self.images)

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p, g = self.problem, self.geometry
        with Scratch(self.workspace) as scratch:
            straight = self.direct and g.splits == 1
            partial = dw.reshape(1, -1) if straight else scratch.take((g.splits, self.dw_size), p.dtype)
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                self._run_images(x[images], dout[images], partial, first > 0, scratch)
            if not straight:
                self._store(partial, dw)

    def _store(self, partial: np.ndarray, dw: np.ndarray) -> None:
        """Bring the sum of the parts, each (groups, rows, columns), into the layout of dw."""
        p = self.problem
        if self.direct:
            add_up(partial, dw)
        elif self.rows_are_taps:  # (G, C KH KW, F) -> (G, F, C KH KW)
            transpose(total_of(partial).reshape(p.groups, -1, p.group_filters), dw)
        else:
            from_filter_rows(p, partial, dw)

    def _run_images(self, x: np.ndarray, dout: np.ndarray, partial: np.ndarray, add: bool, scratch: Scratch) -> None:
        p, g, images = self.problem, self.geometry, len(x)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with scratch:
            x, dout = self.x.prepare(x, slots, scratch), self.dout.prepare(dout, slots, scratch)
            a, b = (x, dout) if self.rows_are_taps else (dout, x)
            tables = scratch.take((slots, 2 * g.depth_block), INDEX)
            tile = register_tile(self.tile.rows, self.tile.vectors, p.dtype.itemsize)
            runtime.run_tasks(
                weight_gradient, slots, tile.address, a, self.arow, b, self.column_b,
                self.column_out, self.column_width, partial, self.crow, tables, changed(g, images=images, add=int(add)),
            )  # fmt: skip
