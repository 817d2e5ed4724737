"""Forward with vectors along output rows: tables and sizes, made once per problem."""

from __future__ import annotations

import numpy as np

from fastconv import runtime
from fastconv._kernels.isa import MACHINE, tile_shapes
from fastconv._kernels.over_rows import OverRows, over_rows
from fastconv._kernels.row_tile import row_tile
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.tap_planes import tap_planes
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_TILES = 8  # tiles that share a pass over the weights; one alone reads them too often: 700 instead of 570 us
_BAND_VECTORS = 1024  # vectors of one task, whose places are tables of some ten kilobytes
_SLOWDOWN = 1.1  # beside the plain tile, with a pointer of each vector and results that go straight to memory


class OverRowsPass:
    """`run(x, w, bias, out)`; all arrays C-contiguous, channels-first or with a single filter."""

    def __init__(self, problem: ConvProblem, threads: int, *, relu: bool = False):
        self.problem, self.threads = problem, threads
        p, itemsize = problem, problem.dtype.itemsize
        self.source, self.brow = tap_planes(p)
        lanes, depth = MACHINE.lanes(itemsize), self.brow.size
        self.vectors = ceil_div(p.OW, lanes)
        # Rows of the output count as if they were made of whole vectors.
        self.tile = min(
            tile_shapes(itemsize),
            key=lambda shape: shape.cycles_for(p.group_filters, p.OH * self.vectors * lanes, depth),
        )
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, p.N)
        filters = np.arange(p.group_filters)
        self.arow, self.acol = filters * depth, np.arange(depth)  # a single filter lies the same in both layouts
        self.crow = filters * p.OH * p.OW
        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        band = ceil_div(p.OH, ceil_div(tasks, self.images * p.groups))
        band = max(min(band, _BAND_VECTORS // self.vectors), 1)
        share = costs.split(p.group_filters, tasks // (self.images * p.groups * ceil_div(p.OH, band)), self.tile.rows)
        self.table = ceil_div(band * self.vectors, self.tile.vectors) * self.tile.vectors
        self.geometry = OverRows(
            images=self.images, groups=p.groups, filters=p.group_filters, rows=p.OH, cols=p.OW,
            pitch=self.source.cols, lanes=lanes, x_image=self.source.image,
            x_group=p.group_channels * self.source.plane, w_group=p.group_filters * depth,
            tile_rows=self.tile.rows, tile_vectors=self.tile.vectors, tiles=_TILES, band=band, share=share,
            relu=int(relu),
        )  # fmt: skip
        self.workspace = self.images * image_bytes
        pixels = p.N * ceil_div(p.OH, band) * self.table * lanes
        tiles = ceil_div(p.group_filters, self.tile.rows) * ceil_div(pixels, self.tile.cols)
        arithmetic = self.tile.cycles_for(p.group_filters, pixels, depth) * _SLOWDOWN
        self.cycles = (arithmetic + tiles * p.group_channels * costs.CYCLES_PER_PLANE) * p.groups + (
            2 * image_bytes * p.N * costs.CYCLES_PER_BYTE_MOVED + costs.CYCLES_PER_LAUNCH
        )

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        for first in range(0, self.problem.N, self.images):
            images = slice(first, min(first + self.images, self.problem.N))
            self._run_images(x[images], w.reshape(-1), bias, out[images].reshape(-1))

    def _run_images(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        p, images = self.problem, len(x)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with Scratch() as scratch:
            planes = self.source.prepare(x, slots, scratch)
            tables = np.empty((slots, 3, self.table), np.int64)
            tile = row_tile(self.tile.rows, self.tile.vectors, p.dtype.itemsize)
            runtime.run_on(
                over_rows, slots, np.zeros(1, np.int64), tile.address, w, self.arow, self.acol, planes, self.brow,
                bias, out, self.crow, tables, self.geometry._replace(images=images),
            )  # fmt: skip
