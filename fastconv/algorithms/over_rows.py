"""Forward with vectors along output rows: tables and sizes, made once per problem."""

from __future__ import annotations

import numpy as np

from fastconv import runtime
from fastconv._kernels.isa import MACHINE, tile_shapes
from fastconv._kernels.over_rows import OverRows, over_rows
from fastconv._kernels.tile_sweep import tile_sweep
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.tables import offsets
from fastconv.algorithms.tap_planes import tap_planes
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_PIECES_BYTES = 32 * 1024  # of x, while all filters pass by; 16 KB took 1.06 times as long with 16 channels, 8 KB 1.2
_BAND_VECTORS = 1024  # vectors of one task, whose places are tables of some ten kilobytes
_CYCLES_PER_TILE = 35.0  # beside its steps: 12 to 40 measured (3x3 to 7x7, one and three channels)
# Operands of a tile that overflow the first-level cache: 32 channels of 5x10 took 1.4 times as long as 16 of 5x5.
_L1_BYTES, _BEYOND_L1 = 32 * 1024, 1.35


class OverRowsPass:
    """`run(x, w, bias, out)`; all arrays C-contiguous, channels-first or with a single filter."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        """Neighbours in a row of `out` must lie side by side and fill a vector; pixels are not split by stride."""
        last = p.channels_last and (p.F > 1 or (p.C > 1 and p.stride != (1, 1)))
        return last or p.OW < MACHINE.lanes(p.dtype.itemsize)

    def __init__(self, problem: ConvProblem, threads: int, *, relu: bool = False):
        self.problem, self.threads = problem, threads
        p, itemsize = problem, problem.dtype.itemsize
        self.source, self.brow = tap_planes(p)
        lanes, depth = MACHINE.lanes(itemsize), self.brow.size
        vectors = ceil_div(p.OW, lanes)
        # Rows of the output count as if they were made of whole vectors.
        self.tile = min(
            tile_shapes(itemsize), key=lambda shape: shape.cycles_for(p.group_filters, p.OH * vectors * lanes, depth)
        )
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, p.N)
        filled = ceil_div(p.group_filters, self.tile.rows) * self.tile.rows
        filters = np.minimum(np.arange(filled), p.group_filters - 1)
        self.arow, self.acol = filters * depth, np.arange(depth)  # a single filter lies the same in both layouts
        self.crow = filters * p.OH * p.OW
        self.biases = np.add.outer(np.arange(p.groups) * p.group_filters, filters).reshape(-1)
        self.no_bias = np.zeros(self.biases.size, p.dtype)
        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        band = ceil_div(p.OH, ceil_div(tasks, self.images * p.groups))
        band = max(min(band, _BAND_VECTORS // vectors), 1)
        share = costs.split(p.group_filters, tasks // (self.images * p.groups * ceil_div(p.OH, band)), self.tile.rows)
        bands = ceil_div(p.OH, band)
        in_band = band, p.OH - (bands - 1) * band
        band_tiles, last_tiles = (ceil_div(rows * vectors, self.tile.vectors) for rows in in_band)
        columns = np.minimum(np.arange(vectors) * lanes, p.OW - lanes)

        def places(pitch: int) -> np.ndarray:
            return np.array(
                [_filled(offsets(np.arange(n) * pitch, columns), band_tiles * self.tile.vectors) for n in in_band]
            )

        self.bcol, self.ccol = places(self.source.cols), places(p.OW)
        tiles_bytes = p.group_channels * p.KH * self.tile.cols * itemsize
        self.geometry = OverRows(
            images=self.images, groups=p.groups, filters=p.group_filters, filters_filled=filled, rows=p.OH, cols=p.OW,
            pitch=self.source.cols, x_image=self.source.image, x_group=p.group_channels * self.source.plane,
            w_group=p.group_filters * depth, tile_rows=self.tile.rows, tile_vectors=self.tile.vectors,
            tiles=max(_PIECES_BYTES // tiles_bytes, 1), band=band, band_tiles=band_tiles, last_tiles=last_tiles,
            share=share, relu=int(relu),
        )  # fmt: skip
        self.workspace = self.images * image_bytes
        tiles = ceil_div(p.group_filters, self.tile.rows) * p.N * ((bands - 1) * band_tiles + last_tiles)
        steps = depth * self.tile.cycles
        if p.group_channels * p.KH * self.tile.cols * itemsize + self.tile.rows * depth * itemsize > _L1_BYTES:
            steps *= _BEYOND_L1
        copying = p.N * (
            2 * image_bytes * costs.CYCLES_PER_BYTE_MOVED + self.source.image * costs.cycles_per_split(p.stride[1])
        )
        each = steps + _CYCLES_PER_TILE + p.group_channels * costs.CYCLES_PER_PLANE
        self.cycles = tiles * each * p.groups + copying + costs.CYCLES_PER_LAUNCH

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, channels-first or with a single filter; bias (F,) or empty."""
        biases = bias[self.biases] if bias.size else self.no_bias
        for first in range(0, self.problem.N, self.images):
            images = slice(first, min(first + self.images, self.problem.N))
            self._run_images(x[images], w.reshape(-1), biases, out[images].reshape(-1))

    def _run_images(self, x: np.ndarray, w: np.ndarray, biases: np.ndarray, out: np.ndarray) -> None:
        p, images = self.problem, len(x)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with Scratch() as scratch:
            planes = self.source.prepare(x, slots, scratch)
            sweep = tile_sweep(self.tile.rows, self.tile.vectors, p.dtype.itemsize)
            runtime.run_on(
                over_rows, slots, np.zeros(1, np.int64), sweep.address, w, self.arow, self.acol, planes, self.brow,
                self.bcol, biases, out, self.crow, self.ccol, self.geometry._replace(images=images),
            )  # fmt: skip


def _filled(table: np.ndarray, length: int) -> np.ndarray:
    """A table with its last entry repeated up to `length` entries."""
    return np.pad(table, (0, length - table.size), mode="edge")
