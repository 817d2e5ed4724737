"""Gradient of the weights with one operand in packed panels: tables and sizes, made once per problem."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_rows
from fastconv._kernels.isa import MACHINE, best_tile
from fastconv._kernels.panel_products import PanelProducts, panel_products
from fastconv._kernels.pixel_panels import fill_panels
from fastconv._kernels.register_tile import RUN
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.product import PanelPieces
from fastconv.algorithms.sweep_callbacks import sweep_callbacks
from fastconv.algorithms.tables import changed, offsets, repeated
from fastconv.algorithms.tap_planes import tap_planes
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

_DEPTH_BLOCK = 256  # pixels summed in registers before they are added to dw: short sums keep float32 accurate
_TABLES = 7
_SPLIT_BYTES = 2**21  # all partial results of the splits together
_CYCLES_PER_TRANSPOSED = 0.4
_BAND_BYTES = 192 * 1024  # of rows that are packed at a time, to be read once per panel of columns: in L2
_CYCLES_PER_COPY, _CYCLES_PER_CUT = 4.0, 20.0  # a step of a panel that is copied; more where it has two pieces
_CYCLES_PER_RUN = 30.0  # starting the transposition of one run of a tile's taps


class GradientPanelsPass:
    """`run(x, dout, dw)` fills dw; both operands C-contiguous in the problem's layout."""

    def __init__(self, problem: ConvProblem, threads: int):
        self.problem, self.threads = problem, threads
        p, itemsize, plane = problem, problem.dtype.itemsize, problem.OH * problem.OW
        taps = p.group_channels * p.taps
        nothing = np.empty(0, np.int64)
        if p.channels_last:
            self.x = Operand(True, True, p.C, p.H, p.W, p.pads[0][0], p.pads[1][0], *p.padded)
            down, across = np.arange(p.KH) * p.dilation[0], np.arange(p.KW) * p.dilation[1]
            self.arow = offsets(down * self.x.row_step, across * p.C, np.arange(p.group_channels))
            self.brow, columns, row_length, out_group = nothing, p.group_filters, p.F, p.group_filters
            a = self.x.image, p.stride[0] * self.x.row_step, p.stride[1] * p.C, p.group_channels
            b = p.F * plane, p.OW * p.F, p.F, p.group_filters
        else:
            self.x, self.brow = tap_planes(p)
            self.arow = np.arange(p.group_filters) * plane
            columns, row_length, out_group = taps, taps, p.group_filters * taps
            a = p.F * plane, p.OW, 1, p.group_filters * plane
            b = self.x.image, self.x.cols, 1, p.group_channels * self.x.plane
        sums = self.arow.size
        self.tile = best_tile(sums, columns, itemsize)
        self.arow, self.crow = (repeated(table, self.tile.rows) for table in (self.arow, np.arange(sums) * row_length))
        steps = np.arange(_DEPTH_BLOCK)
        self.qrow, self.prow = steps * self.tile.rows, steps * self.tile.cols
        self.vectors = np.arange(self.tile.vectors) * MACHINE.lanes(itemsize)
        self.no_bias, self.zeros = np.empty(0, p.dtype), np.zeros(self.tile.cols, p.dtype)
        self.dw_size = p.F * taps
        self.image_bytes = self.x.scratch_bytes(itemsize)
        self.images = costs.images_at_once(self.image_bytes, p.N)
        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        tiles = ceil_div(columns, self.tile.cols)
        tasks, pixels = ceil_div(tasks, p.groups), self.images * plane
        # Few tasks: cut the pixels too, each part into a result of its own, where results are small.
        most = max(_SPLIT_BYTES // (self.dw_size * itemsize), 1)
        if p.channels_last:  # a tile's rows are some channels of pixels far apart: they are packed, in few shares
            bands = ceil_div(self.arow.size * _DEPTH_BLOCK * itemsize, _BAND_BYTES)
            splits = max(min(ceil_div(tasks, bands), most, pixels // (4 * _DEPTH_BLOCK)), 1)
            share = costs.split(tiles, ceil_div(tasks, bands * splits), 1)
        else:
            bands, share = 1, costs.split(tiles, tasks, 1)
            splits = ceil_div(tasks, ceil_div(tiles, share))
            splits = max(min(splits, pixels // (4 * _DEPTH_BLOCK)), 1) if splits <= most else 1
        band = costs.split(self.arow.size, bands, self.tile.rows)
        self.packed_rows = offsets(
            np.arange(band // self.tile.rows) * _DEPTH_BLOCK * self.tile.rows, steps[: self.tile.rows]
        )
        self.pieces = PanelPieces.of(self.tile, columns, 0, _DEPTH_BLOCK)  # several at once: 0 to 2 % gained, 9 % lost
        self.panels = self.pieces.together * _DEPTH_BLOCK * self.tile.cols
        self.geometry = PanelProducts(
            images=self.images, groups=p.groups, rows=p.OH, cols=p.OW, a_image=a[0], a_row=a[1], a_col=a[2],
            a_group=a[3], b_image=b[0], b_row=b[1], b_col=b[2], b_group=b[3], planes=int(not p.channels_last),
            columns=columns, out_group=out_group, out_split=self.dw_size, tile_rows=self.tile.rows,
            tile_cols=self.tile.cols, sums=sums, band=band, packed=int(p.channels_last), share=share,
            together=self.pieces.together, filled=0, splits=splits, depth_block=_DEPTH_BLOCK, add=0, relu=0,
        )  # fmt: skip
        self.fill = fill_panels(self.tile.vectors, itemsize) if p.channels_last else transpose_rows(itemsize)
        self.pack = fill_panels(ceil_div(self.tile.rows, MACHINE.lanes(itemsize)), itemsize, self.tile.rows)
        self.pack_numbers = _DEPTH_BLOCK * band + MACHINE.lanes(itemsize) if p.channels_last else 0
        scratch = (self.panels + self.pack_numbers) * itemsize + _TABLES * _DEPTH_BLOCK * 8
        partial = self.dw_size * itemsize * splits if splits > 1 else 0
        self.workspace = self.images * self.image_bytes + partial + threads * scratch
        self.cycles = self._cycles()

    def _cycles(self) -> float:
        p, g, itemsize = self.problem, self.geometry, self.problem.dtype.itemsize
        pixels = p.N * p.OH * p.OW
        arithmetic = self.tile.cycles_for(self.arow.size, g.columns, pixels, _DEPTH_BLOCK)
        if self._apart:
            arithmetic *= costs.IN_RUNS
        tiles = ceil_div(g.columns, g.tile_cols)
        if p.channels_last:
            shares = ceil_div(tiles, g.share)
            row_tiles = ceil_div(self.arow.size, g.tile_rows)
            cuts = np.flatnonzero(np.diff(self.arow) != 1) + 1
            filling = pixels * (tiles * ceil_div(self.arow.size, g.band) + row_tiles * shares) * _CYCLES_PER_COPY
            filling += pixels * shares * np.count_nonzero(cuts % g.tile_rows) * _CYCLES_PER_CUT
        else:
            joined = g.rows * g.cols if g.b_row == g.cols else g.cols
            runs = pixels / min(joined, _DEPTH_BLOCK) * tiles
            filling = pixels * g.columns * _CYCLES_PER_TRANSPOSED + runs * _CYCLES_PER_RUN
        # Each block visits its results once: a load, an add and a store of every vector.
        visits = pixels * self.arow.size * g.columns * itemsize / 64 * 2 / _DEPTH_BLOCK
        split = p.N * self.x.image * costs.cycles_per_split(self.x.stride[1])
        moved = 2 * self.image_bytes * p.N + 2 * self.dw_size * itemsize * (g.splits - 1)
        return (
            (arithmetic + filling + visits) * p.groups
            + split
            + (moved * costs.CYCLES_PER_BYTE_MOVED + costs.CYCLES_PER_LAUNCH * (1 + p.N / self.images))
        )

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p, g = self.problem, self.geometry
        with Scratch(self.workspace) as scratch:
            partial = dw.reshape(1, -1) if g.splits == 1 else scratch.take((g.splits, self.dw_size), p.dtype)
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                self._run_images(x[images], dout[images], partial, first > 0, scratch)
            if g.splits > 1:
                np.add.reduce(partial, axis=0, out=dw.reshape(-1))

    def _run_images(self, x: np.ndarray, dout: np.ndarray, partial: np.ndarray, add: bool, scratch: Scratch) -> None:
        p, images = self.problem, len(x)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with scratch:
            x, dout = self.x.prepare(x, slots, scratch), dout.reshape(-1)
            a, b = (x, dout) if p.channels_last else (dout, x)
            runtime.run_on(
                panel_products, slots, np.zeros(1, np.int64), *self._callbacks, a, self.arow, self.packed_rows, b,
                self.brow, *self.pieces.tables, self.qrow, self.prow, self.vectors, self.no_bias, self.zeros,
                partial.reshape(-1), self.crow,
                scratch.take((slots, _TABLES, _DEPTH_BLOCK), INDEX),
                scratch.take((slots, self.panels), p.dtype),
                scratch.take((slots, self.pack_numbers), p.dtype),
                changed(self.geometry, images=images, add=int(add)),
            )  # fmt: skip

    @property
    def _apart(self) -> int:
        """Of a row's numbers, see `tile_sweep`: packed, or in place, where no run may end in another image."""
        p = self.problem
        if p.channels_last:
            return self.tile.rows
        return int(self.images == 1 or p.OH * p.OW % RUN == 0)

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        p, columns = self.problem, self.geometry.columns
        several = p.N * p.OH * p.OW > _DEPTH_BLOCK
        tiles = sweep_callbacks(self.tile, columns, p.dtype.itemsize, several_blocks=several, apart=self._apart)
        return *tiles, self.fill.address, self.pack.address
