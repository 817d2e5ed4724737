"""Forward and gradient of x with vectors over output pixels, read in place: sizes, made once per problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block
from fastconv._kernels.isa import TileShape, best_tile
from fastconv._kernels.over_pixels import OverPixels, over_pixels
from fastconv._kernels.register_tile import register_tile
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.pixel_grids import PixelGrid, forward_grids, gradient_grids
from fastconv.algorithms.tables import changed
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

# Tiles of few rows wait for what they pass, a row of each plane of dout after another: 5 to 20 cycles each measured
# (gradients of 3x3 to 11x11, one and three channels, 16 to 64 filters, both layouts).
_FEW_ROWS, _CYCLES_PER_PIECE = 4, 10.0


@dataclass(frozen=True)
class Launch:
    """A grid of output pixels with its tile's shape, the sizes of its tasks and the tables of its results."""

    grid: PixelGrid
    tile: TileShape
    crow: np.ndarray
    trow: np.ndarray  # offsets of the rows of results in scratch
    geometry: OverPixels

    @property
    def results(self) -> int:
        """Numbers of scratch per slot."""
        return self.tile.rows * self.tile.cols


class OverPixelsPass:
    """One pass: `run(operand, w, bias, out)` with operand x, or dout for the gradient of x."""

    @staticmethod
    def declines(problem: ConvProblem, gradient: bool) -> bool:
        """Planes are split by stride only where they come from planes."""
        return problem.channels_last and problem.stride != (1, 1) and not gradient

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        self.problem, self.threads = problem, threads
        self.source, grids = (gradient_grids if gradient else forward_grids)(problem)
        itemsize = problem.dtype.itemsize
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, problem.N)
        self.launches = [self._sized(grid, int(relu)) for grid in grids]
        self.copy = copy_block(itemsize)
        own = max((of.results * itemsize + of.geometry.tiles * INDEX.itemsize for of in self.launches), default=0)
        self.workspace = self.images * image_bytes + threads * own
        moved = 2 * image_bytes * problem.N
        split = problem.N * self.source.image * costs.cycles_per_split(self.source.stride[1])
        self.cycles = sum(map(self._cycles, self.launches)) + (
            moved * costs.CYCLES_PER_BYTE_MOVED + split + costs.CYCLES_PER_LAUNCH
        )

    def _sized(self, grid: PixelGrid, relu: int) -> Launch:
        """Choose the tile's shape and how many pixels and filters one task takes."""
        p, source, itemsize = self.problem, self.source, self.problem.dtype.itemsize
        depth = max(grid.acol.size, 1)
        w_group = p.group_filters * (1 if p.channels_last else p.group_channels * p.taps)
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        tile = best_tile(grid.filters, (grid.rows - 1) * source.cols + grid.cols, itemsize)
        band = _band(grid, source.cols, tile, ceil_div(tasks, self.images * p.groups))
        bands = ceil_div(grid.rows, band)
        geometry = OverPixels(
            images=self.images, groups=p.groups, filters=grid.filters, rows=grid.rows, cols=grid.cols,
            pitch=source.cols, x_image=source.image, x_group=source.channels // p.groups * source.plane,
            w_group=w_group, out_start=grid.out_start, out_image=grid.out_image,
            out_group=grid.filters * grid.out_filter, out_row=grid.out_row, out_col=grid.out_col,
            tile_rows=tile.rows, tile_cols=tile.cols,
            tiles=max(min(costs.L2_BYTES // (depth * tile.cols * itemsize), 8), 1), band=band,
            share=costs.split(grid.filters, tasks // (self.images * p.groups * bands), tile.rows),
            depth_block=min(depth, costs.DEPTH_BLOCK), relu=relu,
        )  # fmt: skip
        return Launch(grid, tile, grid.crow, np.arange(tile.rows) * tile.cols, geometry)

    def _cycles(self, launch: Launch) -> float:
        """Predicted cycles of one core."""
        p, g, tile, depth = self.problem, launch.geometry, launch.tile, launch.grid.acol.size
        item = p.dtype.itemsize
        tiles = g.rows // g.band * _tiles_of(g, tile, g.band, g.pitch) + _tiles_of(g, tile, g.rows % g.band, g.pitch)
        storing = 0.0
        if g.pitch != g.cols or g.out_col != 1:
            # Results leave for memory: 0.7 to 1.4 cycles each measured with 64 filters of 3x3x3 and 7x7x3.
            results = g.rows * g.cols * g.filters * p.N * g.groups
            storing = results * (costs.CYCLES_PER_RUN / min(g.cols, g.tile_cols) + g.out_col * item * 6 / 64)
        cycles = tile.cycles_for(g.filters, tiles * tile.cols, depth, g.depth_block)
        if tile.rows <= _FEW_ROWS:
            pieces = depth / max(p.KW / p.stride[1], 1)  # rows of planes that a tile passes
            cycles += ceil_div(g.filters, tile.rows) * tiles * pieces * _CYCLES_PER_PIECE
        image_bytes = self.source.image * p.dtype.itemsize
        turns = costs.cycles_per_turns(self.source.channels // g.groups, image_bytes)
        return (cycles + ceil_div(g.filters, tile.rows) * tiles * turns) * g.groups * p.N + storing

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, in the problem's layout; bias (F,) or empty."""
        for first in range(0, self.problem.N, self.images):
            images = slice(first, min(first + self.images, self.problem.N))
            self._run_images(operand[images], w.reshape(-1), bias, out[images].reshape(-1))

    def _run_images(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        p, images = self.problem, len(operand)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with Scratch(self.workspace) as scratch:
            x = self.source.prepare(operand, slots, scratch)
            for launch in self.launches:
                grid, geometry = launch.grid, changed(launch.geometry, images=images)
                tile = register_tile(launch.tile.rows, launch.tile.vectors, p.dtype.itemsize)
                with scratch:
                    runtime.run_tasks(
                        over_pixels, slots, tile.address, self.copy.address, w, grid.arow,
                        grid.acol, x, grid.brow, bias, out, launch.crow, launch.trow,
                        scratch.take((slots, launch.results), p.dtype), scratch.take((slots, geometry.tiles), INDEX),
                        geometry,
                    )  # fmt: skip


def _tiles_of(g: PixelGrid | OverPixels, tile: TileShape, rows: int, pitch: int) -> int:
    """Tiles that cover `rows` output rows, numbered through the padded ones."""
    return ceil_div((rows - 1) * pitch + g.cols, tile.cols) if rows else 0


def _band(grid: PixelGrid, pitch: int, tile: TileShape, bands: int) -> int:
    """Output rows of one task: about 1 / bands of them, such that the last tile of a band is well filled."""
    bands = min(bands, _tiles_of(grid, tile, grid.rows, pitch))  # small planes fill a tile or two: filters are shared
    if bands <= 1:
        return grid.rows
    most = ceil_div(grid.rows, bands)

    def tiles(band: int) -> int:
        whole, rest = divmod(grid.rows, band)
        return whole * _tiles_of(grid, tile, band, pitch) + _tiles_of(grid, tile, rest, pitch)

    return min(range(max(most // 2, 1), most + 1), key=lambda band: (tiles(band), -band))
