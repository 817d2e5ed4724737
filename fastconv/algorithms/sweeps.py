"""Forward of few channels with a tile that sweeps over pixels: tables and sizes, made once per problem."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_block
from fastconv._kernels.isa import MACHINE, TileShape, tile_shapes
from fastconv._kernels.prepare import transpose_matrices
from fastconv._kernels.sweeps import Sweeps, sweeps
from fastconv._kernels.tile_sweep import tile_sweep
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import axis_outputs
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.tables import changed, offsets, repeated
from fastconv.algorithms.tap_grids import padding, spans, whole
from fastconv.algorithms.tap_planes import tap_planes
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_PIECES_BYTES = 32 * 1024  # of x, while all filters pass by; 16 KB took 1.06 times as long with 16 channels, 8 KB 1.2
MOST_STEPS = 2048  # of a sum that is made in one go
_BAND_ENTRIES = 1024  # places of one task, in tables of some ten kilobytes
_CYCLES_PER_TILE = 35.0  # beside its steps: 12 to 40 measured (3x3 to 7x7, one and three channels)
# Operands of a tile that overflow the first-level cache: 32 channels of 5x10 took 1.4 times as long as 16 of 5x5.
# With AVX-512 (48 KB) 32 channels of 5x10 took 1.15 times as long as packed weights, 3 channels of 7x7 0.85.
_L1_BYTES, _BEYOND_L1 = (48 * 1024, 1.15) if costs.WIDE else (32 * 1024, 1.35)
# Channels-last, a panel's weights lie F numbers apart, in few lines of that cache: from its size on `direct`, which
# packs them, was 1.05 (5x5x16, 32 filters) to 1.19 times as fast (7x7x3, 64 filters).
_FAR_WEIGHTS = 1.12
# Fewer columns for each stretch of them are padded: their last tiles would be filled up with pixels computed twice.
_COLUMNS_PER_STRETCH = 8
# Channels-last, a group's channels of a pixel are few bytes of it, which lie apart and are fetched for each group anew:
# 32 groups of 8 channels, 56x56 pixels took 5 times as long as predicted without this, 28x28 3 times.
_CYCLES_PER_PART_OF_PIXEL = 20.0
_CYCLES_PER_NUMBER_IN_ORDER = 1.5  # from planes to fewer filters than a vector has


class _Stretch(NamedTuple):
    """Neighbours in an output row that meet the same taps: pixels, or first pixels of vectors."""

    columns: np.ndarray
    first: int  # of their taps in the tables
    steps: int  # taps of a kernel row


@dataclass(frozen=True)
class _Places:
    """Where numbers lie in x, w and out: what a tile's vectors begin with, and what its rows are.

    An entry of a stretch is a pixel of an output row, or a vector of them; one of `filters` is a vector, or a filter.
    A stretch's taps are ordered by the kernel's rows. Places in x count from where the first pixel's window begins,
    `x_start`.
    """

    source: Operand
    x_start: int
    x_taps: np.ndarray
    w_taps: np.ndarray
    stretches: list[_Stretch]
    x_row: int  # from an output row to the next, and from a column to the next
    x_col: int
    out_col: int
    filters: np.ndarray  # of one group
    w_filter: int
    out_filter: int


def _vectors(numbers: int, lanes: int) -> np.ndarray:
    """The first numbers of the vectors that cover a row; the last one overlaps the one before."""
    return np.minimum(np.arange(ceil_div(numbers, lanes)) * lanes, numbers - lanes)


def _pixels_in_vectors(p: ConvProblem, lanes: int) -> _Places:
    source, x_taps = tap_planes(p)
    w_taps, w_filter = np.arange(x_taps.size), x_taps.size
    if p.channels_last:
        w_taps, w_filter = w_taps * p.F, 1
    else:
        shape = p.group_channels, p.KH, p.KW
        x_taps, w_taps = (taps.reshape(shape).swapaxes(0, 1).ravel() for taps in (x_taps, w_taps))
    stretches = [_Stretch(_vectors(p.OW, lanes), 0, x_taps.size // p.KH)]
    return _Places(
        source, 0, x_taps, w_taps, stretches, source.cols, 1, 1, np.arange(p.group_filters), w_filter,
        p.OH * p.OW,
    )  # fmt: skip


def _filters_in_vectors(p: ConvProblem, lanes: int) -> _Places:
    """Taps outside the image are left out, and nothing is padded, unless columns are few or many spans were joined."""
    across, channels = axis_outputs(p, 1, False)[0], p.group_channels
    cut = spans(across, p.W)
    if p.OW < _COLUMNS_PER_STRETCH * len(cut):
        cut = whole(across)
    left, cols = padding([span.reach(across) for span in cut], p.W)
    source = Operand(True, True, p.C, p.H, p.W, 0, left, p.H, cols)
    down, right = np.arange(p.KH) * p.dilation[0] * source.row_step, np.arange(p.KW) * p.dilation[1] * p.C
    kernel = p.KH, p.KW, channels
    x_taps = offsets(down, right, np.arange(channels)).reshape(kernel)
    w_taps = (np.arange(x_taps.size) * p.F).reshape(kernel)
    met = [slice(span.first, span.first + span.taps) for span in cut]
    first = np.cumsum([0, *(x_taps[:, taps].size for taps in met)])
    stretches = [
        _Stretch(np.arange(span.begin, span.begin + span.count), first[i], span.taps * channels)
        for i, span in enumerate(cut)
    ]
    x_taps, w_taps = (np.concatenate([table[:, taps].ravel() for taps in met]) for table in (x_taps, w_taps))
    start = (left - p.pads[1][0]) * p.C - p.pads[0][0] * source.row_step
    return _Places(
        source, start, x_taps, w_taps, stretches, p.stride[0] * source.row_step, p.stride[1] * p.C, p.F,
        _vectors(p.group_filters, lanes), 1, 1,
    )  # fmt: skip


def _fill_vectors(p: ConvProblem) -> bool:
    """Whether vectors run over filters."""
    return p.channels_last and p.group_filters >= MACHINE.lanes(p.dtype.itemsize)


def _kernel_rows(p: ConvProblem) -> tuple[np.ndarray, np.ndarray]:
    """First kernel row that meets the image, and the one behind the last, of each output row: neither ever grows."""
    to_image = p.pads[0][0] - np.arange(p.OH) * p.stride[0]
    begin, end = (np.clip(-(-(edge + to_image) // p.dilation[0]), 0, p.KH) for edge in (0, p.H))
    return begin, end


def _changes(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Where neighbours differ."""
    return np.flatnonzero(np.diff(begin) | np.diff(end)) + 1


def _tables(
    kinds: Iterable[tuple[int, ...]], stretches: list[_Stretch], entries: int, start: int, row: int, col: int
) -> np.ndarray:
    """For each kind of band, the offsets of its entries: stretch by stretch and run by run, each filled to whole tiles.

    `start` is the offset of its first pixel; rows and columns are `row` and `col` apart.
    """
    tables = [
        np.concatenate(
            [
                repeated(offsets(start + np.arange(first, behind) * row, stretch.columns * col), entries)
                for stretch in stretches
                for first, behind in pairwise(rows)
            ]
        )
        for rows in kinds
    ]
    longest = max(table.size for table in tables)
    return np.array([np.pad(table, (0, longest - table.size)) for table in tables])


def _pieces(
    runs: tuple[int, ...], stretches: list[_Stretch], begin: np.ndarray, end: np.ndarray, entries: int, most: int
) -> list[list[int]]:
    """[first tile, tiles, first step, steps] of neighbours in a band that meet the same kernel rows.

    `begin` and `end` are kernel rows of the band's output rows, of which `runs` have tiles of their own.
    """
    pieces, before = [], 0
    for stretch in stretches:
        columns = stretch.columns.size
        for top, bottom in pairwise(runs):
            first = np.arange(0, (bottom - top) * columns, entries)  # of the tiles' entries
            from_row = begin[top + np.minimum((first + entries - 1) // columns, bottom - top - 1)]
            to_row = end[top + first // columns]
            pieces += [
                [
                    before + tile,
                    min(most, behind - tile),
                    stretch.first + from_row[tile] * stretch.steps,
                    (to_row[tile] - from_row[tile]) * stretch.steps,
                ]
                for start, behind in pairwise([0, *_changes(from_row, to_row), first.size])
                for tile in range(start, behind, most)
            ]
            before += first.size
    return pieces


class SweepsPass:
    """`run(x, w, bias, out)`; all arrays C-contiguous."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        """Neighbours in a row of `out` must fill a vector; channels-last planes are not split by stride.

        Sums are made in one go: 4,608 products had an error of 1.2e-6, sums of blocks have 3e-7 to 6e-7.
        """
        if p.group_channels * p.taps > MOST_STEPS:
            return True
        if _fill_vectors(p):
            return False
        return p.OW < MACHINE.lanes(p.dtype.itemsize) or (p.channels_last and p.C > 1 and p.stride != (1, 1))

    def __init__(self, problem: ConvProblem, threads: int, *, relu: bool = False):
        self.problem, self.threads = problem, threads
        p, itemsize = problem, problem.dtype.itemsize
        lanes = MACHINE.lanes(itemsize)
        self.pixels_are_rows = _fill_vectors(p)
        places = (_filters_in_vectors if self.pixels_are_rows else _pixels_in_vectors)(p, lanes)
        self.source, self.x_taps, self.w_taps = places.source, places.x_taps, places.w_taps
        depth, columns = p.group_channels * p.taps, sum(stretch.columns.size for stretch in places.stretches)

        def arithmetic(shape: TileShape) -> float:
            rows, vectors = p.OH * columns, places.filters.size
            if not self.pixels_are_rows:
                rows, vectors = vectors, rows
            return shape.cycles_for(rows, vectors * lanes, depth)

        self.tile = min(tile_shapes(itemsize), key=arithmetic)
        pixel_entries, filter_entries = self.tile.vectors, self.tile.rows
        if self.pixels_are_rows:
            pixel_entries, filter_entries = filter_entries, pixel_entries
        # Channels-last results of too few filters are made as planes, and put into order afterwards.
        self.planes = p.channels_last and not self.pixels_are_rows and p.F > 1
        image_bytes = self.source.scratch_bytes(itemsize) + self.planes * p.F * p.OH * p.OW * itemsize
        self.images = costs.images_at_once(image_bytes, p.N)

        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        band = ceil_div(p.OH, ceil_div(tasks, self.images * p.groups))
        band = max(min(band, _BAND_ENTRIES // columns), 1)
        bands = ceil_div(p.OH, band)
        begin, end = _kernel_rows(p)
        # Of each band: where rows begin a run of their own, in tiles of their own, since nothing is padded above them.
        runs = [
            (
                0,
                *(_changes(begin[i : i + band], end[i : i + band]) if self.pixels_are_rows else ()),
                min(band, p.OH - i),
            )
            for i in range(0, p.OH, band)
        ]
        kinds = {rows: kind for kind, rows in enumerate(dict.fromkeys(runs))}
        self.band_kinds = np.array([kinds[rows] for rows in runs])
        x_steps, out_steps = (places.x_start, places.x_row, places.x_col), (0, p.OW * places.out_col, places.out_col)
        self.x_places, self.pixels_to = (
            _tables(kinds, places.stretches, pixel_entries, *steps) for steps in (x_steps, out_steps)
        )
        panels = ceil_div(places.filters.size, filter_entries)
        filters = repeated(places.filters, filter_entries)
        self.w_places, self.filters_to = filters * places.w_filter, filters * places.out_filter
        first_of_groups = np.arange(p.groups) * p.group_filters
        self.biases = offsets(first_of_groups, filters, np.arange(lanes if self.pixels_are_rows else 1))
        self.biases_in_order = np.array_equal(self.biases, np.arange(p.F))
        self.no_bias = np.zeros(self.biases.size, p.dtype)

        step = p.stride[1] if self.pixels_are_rows else lanes  # numbers of x's row that an entry adds, of each channel
        piece_bytes = p.group_channels * p.KH * pixel_entries * step * itemsize
        most = max(_PIECES_BYTES // piece_bytes, 1)
        pieces = [
            _pieces(rows, places.stretches, begin[i : i + band], end[i : i + band], pixel_entries, most)
            for i, rows in zip(range(0, p.OH, band), runs, strict=True)
        ]
        self.pieces = np.concatenate(pieces)
        self.band_pieces = np.cumsum([0, *map(len, pieces)])
        plane, out_filter = p.OH * p.OW, places.out_filter
        self.geometry = Sweeps(
            images=self.images, groups=p.groups, bands=bands, panels=panels,
            share=costs.split(panels, tasks // (self.images * p.groups * bands), 1),
            pixels_are_rows=int(self.pixels_are_rows), pixel_entries=pixel_entries, filter_entries=filter_entries,
            x_image=self.source.image, x_group=p.group_channels * self.source.channel_step, x_band=band * places.x_row,
            w_group=p.group_filters * places.w_filter, out_image=p.F * plane, out_group=p.group_filters * out_filter,
            out_band=band * p.OW * places.out_col, bias_panel=self.biases.size // (p.groups * panels), relu=int(relu),
        )  # fmt: skip
        self.workspace = self.images * image_bytes
        tiles, steps = self.pieces[:, 1].sum(), self.pieces[:, 1] @ self.pieces[:, 3] * self.tile.cycles
        weights = filter_entries * (lanes if self.pixels_are_rows else 1)
        if piece_bytes + weights * depth * itemsize > _L1_BYTES:
            steps *= _BEYOND_L1
        elif self.pixels_are_rows and p.group_filters * depth * itemsize >= _L1_BYTES:
            steps *= _FAR_WEIGHTS
        turns = 0.0 if self.pixels_are_rows else costs.cycles_per_turns(p.group_channels, self.source.image * itemsize)
        multiplying = panels * p.groups * (steps + tiles * (_CYCLES_PER_TILE + turns))
        copying = 2 * image_bytes * costs.CYCLES_PER_BYTE_MOVED
        if self.pixels_are_rows and p.groups > 1:
            copying += p.groups * p.H * p.W * _CYCLES_PER_PART_OF_PIXEL
        if self.planes:
            copying += p.F * plane * _CYCLES_PER_NUMBER_IN_ORDER
        if self.source.stride != (1, 1):
            copying += self.source.image * costs.cycles_per_split(self.source.stride[1])
        self.cycles = float(p.N * (multiplying + copying) + costs.CYCLES_PER_LAUNCH)

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, in the problem's layout; bias (F,) or empty."""
        biases = self.no_bias
        if bias.size:
            biases = bias if self.biases_in_order else bias[self.biases]
        for first in range(0, self.problem.N, self.images):
            images = slice(first, min(first + self.images, self.problem.N))
            self._run_images(x[images], w.reshape(-1), biases, out[images].reshape(-1))

    @cached_property
    def _sweep(self) -> int:
        shape = self.tile.rows, self.tile.vectors, self.problem.dtype.itemsize
        return tile_sweep(*shape, lane_bias=self.pixels_are_rows).address

    def _run_images(self, x: np.ndarray, w: np.ndarray, biases: np.ndarray, out: np.ndarray) -> None:
        p, images = self.problem, len(x)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with Scratch(self.workspace) as scratch:
            padded = self.source.prepare(x, slots, scratch)
            results = scratch.take(out.shape, p.dtype) if self.planes else out
            runtime.run_tasks(
                sweeps, slots, self._sweep, w, self.w_places, self.w_taps, padded,
                self.x_places, self.x_taps, self.band_kinds, self.pieces, self.band_pieces, biases, results,
                self.filters_to, self.pixels_to, changed(self.geometry, images=images),
            )  # fmt: skip
            if self.planes:
                transpose, shape = transpose_block(p.dtype.itemsize).address, (images, p.F, p.OH * p.OW)
                pixels = out.reshape(images, p.OH * p.OW, p.F)
                runtime.run_on(transpose_matrices, slots, transpose, results.reshape(shape), pixels)
