"""Gradient of the weights as products of packed panels: what gives rows, what gives columns; tables and sizes.

Three arrangements of  dw[f, k] = sum over pixels of dout[f, pixel] * x[window(pixel) + k]:

* `filters_by_pixels`: rows are filters, columns run over the numbers (kw, c) of a kernel row that lie side by side in
  channels-last x. Little is packed (rows of dout once, not once per tap), but dw is made filter by filter and brought
  into its layout afterwards.
* `taps_by_filters`: rows are taps, columns are filters. Taps of few channels lie near each other and are read in place;
  others, channels-last, are packed, once per tap.
* `filters_by_planes`, channels-first: rows are filters, columns are taps, transposed from planes of x.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_rows
from fastconv._kernels.isa import LINE_BYTES, MACHINE, TileShape, tile_shapes
from fastconv._kernels.panel_products import PanelProducts, panel_products
from fastconv._kernels.pixel_panels import fill_panels
from fastconv._kernels.register_tile import RUN
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.filter_rows import add_up, from_filter_rows, total_of
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.product import PanelPieces
from fastconv.algorithms.sweep_callbacks import sweep_callbacks
from fastconv.algorithms.tables import changed, offsets, repeated, steps
from fastconv.algorithms.tap_planes import tap_planes
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

# Pixels summed in registers before they are added to dw: short sums keep float32 accurate. With AVX-512, 256 took 0.96
# to 1.2 times as long as 512 (1x1 to 5x5, 16 to 1024 channels).
_DEPTH_BLOCK = 512 if MACHINE.vector_bits == 512 else 256
# Steps of b up to so many bytes apart are read where they lie: 0.85 to 1 of the time (32 to 128 channels of AVX-512).
# Further apart they compete for few lines of the first-level cache: 1 to 1.15 times (192 to 256), 1.1 to 1.7 (1024).
_IN_PLACE_BYTES = 512
_AHEAD = 4  # steps further apart are asked for so many before their turn: 0.95 to 1 of the time
_MOST_REORDERED_BYTES = 16 * 2**20  # of a dw that is made filter by filter, in scratch of its size
_TABLES = 7
_SPLIT_BYTES = 2**21  # all partial results of the splits together
_CYCLES_PER_TRANSPOSED = 0.55 if costs.WIDE else 0.4
_BAND_BYTES = 192 * 1024  # of rows that are packed at a time, to be read once per panel of columns: in L2
# Of results that a band writes once, in its only block of pixels; all of its columns' lines wait in L2 for each other
# (linear, 16 images, 4096 x 4096: 10.2 ms with bands of 96 rows, 16 KB apart, 5.4 with 36).
_RESULT_BYTES = 512 * 1024
_CYCLES_PER_COPY, _CYCLES_PER_CUT = 4.0, 20.0  # a step of a panel that is copied; more where it has two pieces
_BOTH_IN_PLACE = 1.1  # vectors that straddle cache lines beside broadcasts of windows
_CYCLES_PER_RUN = 30.0  # starting the transposition of one run of a tile's taps

_Steps = tuple[int, int, int, int]  # from an image to the next, an output row, a column, a group


@dataclass(frozen=True)
class Arrangement:
    """Where rows and columns of the product lie; offsets count numbers.

    `runs` are the columns that lie side by side: (where they begin in a step of b, in a row of the result, how many).
    For planes they begin at an entry of `brow`.
    """

    x: Operand
    arow: np.ndarray
    a: _Steps
    rows_packed: bool  # a tile's rows are some numbers of pixels far apart
    brow: np.ndarray
    b: _Steps
    planes: bool
    runs: list[tuple[int, int, int]]
    row_length: int  # of the result
    out_group: int
    order: str  # of the result: "FKKC", "KKCF" or "FCKK"

    @property
    def rows_are_filters(self) -> bool:
        """And numbers of `dout`; otherwise columns are."""
        return self.order[0] == "F"


def _pixels(p: ConvProblem) -> tuple[Operand, _Steps]:
    x = Operand(p.channels_last, True, p.C, p.H, p.W, p.pads[0][0], p.pads[1][0], *p.padded)
    return x, (x.image, p.stride[0] * x.row_step, p.stride[1] * p.C, p.group_channels)


def _rows_of_filters(p: ConvProblem) -> tuple[np.ndarray, _Steps]:
    plane = p.OH * p.OW
    if p.channels_last:
        return np.arange(p.group_filters), (p.F * plane, p.OW * p.F, p.F, p.group_filters)
    return np.arange(p.group_filters) * plane, (p.F * plane, p.OW, 1, p.group_filters * plane)


def taps_by_filters(p: ConvProblem, rows_packed: bool) -> Arrangement:
    x, a = _pixels(p)
    down, across = np.arange(p.KH) * p.dilation[0], np.arange(p.KW) * p.dilation[1]
    arow = offsets(down * x.row_step, across * p.C, np.arange(p.group_channels))
    brow, b = _rows_of_filters(p)
    planes, runs = not p.channels_last, [(0, 0, p.group_filters)]
    return Arrangement(x, arow, a, rows_packed, brow, b, planes, runs, p.F, p.group_filters, "KKCF")


def filters_by_planes(p: ConvProblem) -> Arrangement:
    x, brow = tap_planes(p)
    arow, a = _rows_of_filters(p)
    b = x.image, x.cols, 1, p.group_channels * x.plane
    taps = brow.size
    return Arrangement(x, arow, a, False, brow, b, True, [(0, 0, taps)], taps, p.group_filters * taps, "FCKK")


def filters_by_pixels(p: ConvProblem) -> Arrangement:
    x, b = _pixels(p)
    arow, a = _rows_of_filters(p)
    joined = p.KW if p.dilation[1] == 1 else 1  # taps of a kernel row that lie side by side
    length = joined * p.C
    starts = offsets(np.arange(p.KH) * p.dilation[0] * x.row_step, np.arange(0, p.KW, joined) * p.dilation[1] * p.C)
    runs = [(int(start), i * length, length) for i, start in enumerate(starts)]
    row_length = p.taps * p.C
    return Arrangement(x, arow, a, p.channels_last, np.empty(0, np.int64), b, False, runs, row_length, 0, "FKKC")


def arrangements(p: ConvProblem) -> Iterable[Arrangement]:
    """Those that serve a problem."""
    yield taps_by_filters(p, True) if p.channels_last else filters_by_planes(p)
    if p.groups == 1 and p.stride[1] * p.C * p.dtype.itemsize < LINE_BYTES:
        yield taps_by_filters(p, False)
    if p.groups == 1 and p.F * p.C * p.taps * p.dtype.itemsize <= _MOST_REORDERED_BYTES:
        yield filters_by_pixels(p)


class GradientPanelsPass:
    """`run(x, dout, dw)` fills dw; both operands C-contiguous in the problem's layout."""

    def __init__(self, problem: ConvProblem, threads: int, arrangement: Arrangement):
        self.problem, self.threads, self.arrangement = problem, threads, arrangement
        p, itemsize, how = problem, problem.dtype.itemsize, arrangement
        self.sums = how.arow.size
        self.in_place = not how.planes and how.b[2] * itemsize <= _IN_PLACE_BYTES

        def arithmetic(shape: TileShape) -> float:
            return sum(shape.cycles_for(self.sums, length, 256) for _, _, length in how.runs)

        self.tile = min(tile_shapes(itemsize), key=arithmetic)
        tile = self.tile
        columns = [
            (start + first, out + first, min(tile.cols, length - first))
            for start, out, length in how.runs
            for first in range(0, length, tile.cols)
        ]
        self.b_columns, self.out_columns, widths = np.array(columns, np.int64).reshape(-1, 3).T.copy()
        self.narrow = bool((widths < tile.cols).any())
        self.arow, self.crow = (repeated(t, tile.rows) for t in (how.arow, np.arange(self.sums) * how.row_length))
        self.qrow, self.prow = steps(tile.rows, _DEPTH_BLOCK), steps(tile.cols, _DEPTH_BLOCK)
        self.vectors = steps(MACHINE.lanes(itemsize), tile.vectors)
        self.no_bias, self.zeros = np.empty(0, p.dtype), np.zeros(tile.cols, p.dtype)
        self.dw_size = p.F * p.group_channels * p.taps
        self.image_bytes = how.x.scratch_bytes(itemsize)
        self.images = costs.images_at_once(self.image_bytes, p.N)
        self.pieces = PanelPieces.of(tile, widths, 0, _DEPTH_BLOCK)  # several at once: 0 to 2 % gained, 9 % lost
        self.panels = self.pieces.together * _DEPTH_BLOCK * tile.cols
        bands, share, splits = self._shares(len(widths))
        band = costs.split(self.arow.size, bands, tile.rows)
        self.packed_rows = offsets(np.arange(band // tile.rows) * _DEPTH_BLOCK * tile.rows, np.arange(tile.rows))
        a, b = how.a, how.b
        self.geometry = PanelProducts(
            images=self.images, groups=p.groups, rows=p.OH, cols=p.OW, a_image=a[0], a_row=a[1], a_col=a[2],
            a_group=a[3], b_image=b[0], b_row=b[1], b_col=b[2], b_group=b[3], planes=int(how.planes),
            out_group=how.out_group, out_split=self.dw_size, tile_rows=tile.rows, tile_cols=tile.cols, sums=self.sums,
            band=band, packed=int(how.rows_packed), share=share, together=self.pieces.together,
            in_place=int(self.in_place), filled=0, splits=splits, depth_block=_DEPTH_BLOCK, add=0, relu=0,
        )  # fmt: skip
        self.fill = transpose_rows(itemsize) if how.planes else fill_panels(tile.cols, itemsize, _AHEAD)
        self.pack = fill_panels(tile.rows, itemsize)
        self.pack_numbers = _DEPTH_BLOCK * band + MACHINE.lanes(itemsize) if how.rows_packed else 0
        scratch = (self.panels + self.pack_numbers) * itemsize + _TABLES * _DEPTH_BLOCK * 8
        self.straight = splits == 1 and how.order == ("KKCF" if p.channels_last else "FCKK")
        partial = 0 if self.straight else self.dw_size * itemsize * splits
        self.workspace = self.images * self.image_bytes + partial + threads * scratch
        self.cycles = self._cycles()

    def _shares(self, tiles: int) -> tuple[int, int, int]:
        """Bands of rows, tiles of columns of one task, splits of the pixels."""
        p, how, itemsize = self.problem, self.arrangement, self.problem.dtype.itemsize
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        tasks, pixels = ceil_div(tasks, p.groups), self.images * p.OH * p.OW
        # Few tasks: cut the pixels too, each part into a result of its own, where results are small.
        most = max(_SPLIT_BYTES // (self.dw_size * itemsize), 1)
        longest = max(pixels // (4 * _DEPTH_BLOCK), min(pixels // (_DEPTH_BLOCK // 2), self.threads), 1)
        if how.rows_packed:  # in few shares
            bands = ceil_div(self.arow.size * _DEPTH_BLOCK * itemsize, _BAND_BYTES)
            if p.N * p.OH * p.OW <= _DEPTH_BLOCK:
                bands = max(bands, ceil_div(self.arow.size * how.row_length * itemsize, _RESULT_BYTES))
            splits = max(min(ceil_div(tasks, bands), most, longest), 1)
            splits = costs.even_splits(splits, bands * p.groups, self.threads)
            return bands, costs.split(tiles, ceil_div(tasks, bands * splits), 1), splits
        share = costs.split(tiles, tasks, 1)
        shares = ceil_div(tiles, share)
        splits = costs.even_splits(min(ceil_div(tasks, shares), longest), shares * p.groups, self.threads)
        return 1, share, splits if splits <= most else 1

    def _cycles(self) -> float:
        p, g, how, itemsize = self.problem, self.geometry, self.arrangement, self.problem.dtype.itemsize
        pixels = p.N * p.OH * p.OW
        arithmetic = sum(self.tile.cycles_for(self.sums, length, pixels, _DEPTH_BLOCK) for _, _, length in how.runs)
        if self.in_place and not how.rows_packed:
            arithmetic *= _BOTH_IN_PLACE
        elif self._apart:
            arithmetic *= costs.IN_RUNS
        tiles = self.out_columns.size
        columns = sum(length for _, _, length in how.runs)
        filling = 0.0
        if how.rows_packed:
            shares = ceil_div(tiles, g.share)
            cuts = np.flatnonzero(np.diff(self.arow) != 1) + 1
            filling += pixels * ceil_div(self.arow.size, g.tile_rows) * shares * _CYCLES_PER_COPY
            filling += pixels * shares * np.count_nonzero(cuts % g.tile_rows) * _CYCLES_PER_CUT
        if how.planes:
            joined = g.rows * g.cols if g.b_row == g.cols else g.cols
            runs = pixels / min(joined, _DEPTH_BLOCK) * tiles
            filling += pixels * columns * _CYCLES_PER_TRANSPOSED + runs * _CYCLES_PER_RUN
        else:
            filling += pixels * tiles * ceil_div(self.arow.size, g.band) * _CYCLES_PER_COPY
        # Each block visits its results once: a load, an add and a store of every vector.
        visits = pixels * self.sums * columns * itemsize / 64 * 2 / _DEPTH_BLOCK
        moved = 2.0 * self.image_bytes * p.N
        if not how.x.same_order:
            each = costs.cycles_per_transposed(how.x.height * how.x.width * itemsize)
            moved += p.N * how.x.image * each / costs.CYCLES_PER_BYTE_MOVED
        if not self.straight:
            moved += 2 * self.dw_size * itemsize * (g.splits + 1)
        split = p.N * how.x.image * costs.cycles_per_split(how.x.stride[1])
        return (
            (arithmetic + filling + visits) * p.groups
            + split
            + (moved * costs.CYCLES_PER_BYTE_MOVED + costs.CYCLES_PER_LAUNCH * (1 + p.N / self.images))
        )

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p, g, how = self.problem, self.geometry, self.arrangement
        with Scratch(self.workspace) as scratch:
            partial = dw.reshape(1, -1) if self.straight else scratch.take((g.splits, self.dw_size), p.dtype)
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                self._run_images(x[images], dout[images], partial, first > 0, scratch)
            if how.order == "FKKC":
                from_filter_rows(p, partial, dw)
            elif how.order == "KKCF" and not p.channels_last:
                dw.reshape(p.F, p.C, p.taps)[:] = total_of(partial).reshape(p.taps, p.C, p.F).T
            elif g.splits > 1:
                add_up(partial, dw)

    def _run_images(self, x: np.ndarray, dout: np.ndarray, partial: np.ndarray, add: bool, scratch: Scratch) -> None:
        p, how, images = self.problem, self.arrangement, len(x)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with scratch:
            x, dout = how.x.prepare(x, slots, scratch), dout.reshape(-1)
            a, b = (dout, x) if how.rows_are_filters else (x, dout)
            runtime.run_tasks(
                panel_products, slots, *self._callbacks, a, self.arow, self.packed_rows, b,
                how.brow, *self.pieces.tables, self.b_columns, self.out_columns, self.qrow, self.prow, self.vectors,
                self.no_bias, self.zeros, partial.reshape(-1), self.crow,
                scratch.take((slots, _TABLES, _DEPTH_BLOCK), INDEX),
                scratch.take((slots, self.panels), p.dtype),
                scratch.take((slots, self.pack_numbers), p.dtype),
                changed(self.geometry, images=images, add=int(add)),
            )  # fmt: skip

    @property
    def _apart(self) -> int:
        """Of a row's numbers, see `tile_sweep`: packed, or in place, where no run may end in another image."""
        p = self.problem
        if self.arrangement.rows_packed:
            return self.tile.rows
        _, row, col, _ = self.arrangement.a
        joined = row == p.OW * col
        even = (self.images == 1 or p.OH * p.OW % RUN == 0) if joined else p.OW % RUN == 0
        return col * even

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        p = self.problem
        several = p.N * p.OH * p.OW > _DEPTH_BLOCK
        tiles = sweep_callbacks(
            self.tile, p.dtype.itemsize, narrow=self.narrow, several_blocks=several, apart=self._apart,
            follow=not self.in_place,
        )  # fmt: skip
        return *tiles, self.fill.address, self.pack.address
