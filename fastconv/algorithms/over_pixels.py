"""Forward and gradient of x with vectors over output pixels: tables and sizes, made once per problem."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block
from fastconv._kernels.isa import TileShape, best_tile
from fastconv._kernels.over_pixels import OverPixels, over_pixels_direct, over_pixels_packed
from fastconv._kernels.register_tile import register_tile
from fastconv.algorithms import costs
from fastconv.algorithms.axes import ForwardAxis, GradientAxis
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.tables import offsets
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

# Tiles of few rows pass many planes of dout in short pieces: beyond the first-level cache they wait for them
# (3 channels, 64 filters: 2 to 3 times the arithmetic; 1 channel, 16 filters: 1.1 times).
_FEW_ROWS, _PIECES_BYTES, _PIECES_SLOWDOWN = 4, 16 * 1024, 1.5


@dataclass(frozen=True)
class Grid:
    """The tables of one launch. `geometry` lacks task sizes until `_sized` chose them."""

    arow: np.ndarray
    acol: np.ndarray
    brow: np.ndarray
    crow: np.ndarray
    geometry: OverPixels


def _geometry(p: ConvProblem, filters: int, rows: int, cols: int, source: Operand, **places: int) -> OverPixels:
    return OverPixels(
        images=0, groups=p.groups, filters=filters, rows=rows, cols=cols, pitch=source.cols, x_start=0,
        x_image=source.image, x_group=source.channels // p.groups * source.plane,
        w_group=p.group_filters * (1 if p.channels_last else p.group_channels * p.taps),
        tile_rows=0, tile_cols=0, tiles=0, band=0, share=0, depth_block=0, relu=0, **places,
    )  # fmt: skip


def _forward(p: ConvProblem) -> tuple[Operand, list[Grid]]:
    vertical = ForwardAxis.of(p.KH, p.stride[0], p.dilation[0], p.OH)
    horizontal = ForwardAxis.of(p.KW, p.stride[1], p.dilation[1], p.OW)
    plain = p.no_padding and p.stride == (1, 1)
    rows, cols = (p.H, p.W) if plain else (vertical.length, horizontal.length)
    source = Operand(
        p.channels_last, False, p.C, p.H, p.W, p.pads[0][0], p.pads[1][0], rows, cols, p.stride, vertical.phases,
        horizontal.phases,
    )  # fmt: skip
    brow = offsets(
        np.arange(p.group_channels) * source.plane,
        np.array([(phase * len(horizontal.phases) * rows + at) * cols for phase, at in vertical.tap]),
        np.array([phase * rows * cols + at for phase, at in horizontal.tap]),
    )
    filters, depth = np.arange(p.group_filters), p.group_channels * p.taps
    if p.channels_last:
        arow, acol = filters, offsets(np.arange(p.group_channels) * p.F, np.arange(p.taps) * p.group_channels * p.F)
    else:
        arow, acol = filters * depth, np.arange(depth)
    step, col = (1, p.F) if p.channels_last else (p.OH * p.OW, 1)
    geometry = _geometry(
        p, p.group_filters, p.OH, p.OW, source, out_start=0, out_image=p.F * p.OH * p.OW,
        out_group=p.group_filters * step, out_row=p.OW * col, out_col=col,
    )  # fmt: skip
    return source, [Grid(arow, acol, brow, filters * step, geometry)]


def _gradient(p: ConvProblem) -> tuple[Operand, list[Grid]]:
    """dx[c, i] = sum over f, taps of w[f, c, tap] * dout[f, o]: weights are walked by filters, no transposed copy."""
    vertical = GradientAxis.of(p.H, p.KH, p.stride[0], p.dilation[0], p.pads[0][0], p.OH)
    horizontal = GradientAxis.of(p.W, p.KW, p.stride[1], p.dilation[1], p.pads[1][0], p.OW)
    source = Operand(
        p.channels_last, False, p.F, p.OH, p.OW, vertical.front, horizontal.front, vertical.length, horizontal.length
    )
    channels, filters = np.arange(p.group_channels), np.arange(p.group_filters)
    per_filter = p.group_channels * p.taps
    step, col = (1, p.C) if p.channels_last else (p.H * p.W, 1)
    grids = []
    for down in vertical.phases:
        for across in horizontal.phases:
            kernel_h, at_h = np.array(down.taps, np.int64).reshape(-1, 2).T
            kernel_w, at_w = np.array(across.taps, np.int64).reshape(-1, 2).T
            taps = offsets(kernel_h * p.KW, kernel_w)
            if p.channels_last:
                arow, acol = channels * p.F, offsets(filters, taps * p.group_channels * p.F)
            else:
                arow, acol = channels * p.taps, offsets(filters * per_filter, taps)
            geometry = _geometry(
                p, p.group_channels, down.count, across.count, source,
                out_start=(down.first * p.W + across.first) * col, out_image=p.C * p.H * p.W,
                out_group=p.group_channels * step, out_row=p.stride[0] * p.W * col, out_col=p.stride[1] * col,
            )  # fmt: skip
            brow = offsets(filters * source.plane, at_h * source.cols, at_w)
            grids.append(Grid(arow, acol, brow, channels * step, geometry))
    return source, grids


@dataclass(frozen=True)
class Launch:
    """A grid with tile shape and task sizes. `panel` and `results` count numbers of scratch per slot."""

    grid: Grid
    tile: TileShape
    trow: np.ndarray  # offsets of the rows of `results`
    prow: np.ndarray  # offsets of the rows of a packed panel
    panel: int
    results: int

    @property
    def scratch(self) -> int:
        return self.panel + self.results


class OverPixelsPass:
    """One pass: `run(operand, w, bias, out)` with operand x, or dout for the gradient of x."""

    @staticmethod
    def declines(problem: ConvProblem, gradient: bool) -> bool:
        """Planes are split by stride only where they come from planes."""
        return problem.channels_last and problem.stride != (1, 1) and not gradient

    def __init__(self, problem: ConvProblem, threads: int, *, packed: bool, gradient: bool, relu: bool = False):
        self.problem, self.threads, self.packed = problem, threads, packed
        self.source, grids = (_gradient if gradient else _forward)(problem)
        itemsize = problem.dtype.itemsize
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, problem.N)
        self.launches = [self._sized(grid, int(relu)) for grid in grids]
        self.copy = copy_block(itemsize)
        scratch = threads * max((launch.scratch for launch in self.launches), default=0)
        self.workspace = self.images * image_bytes + scratch * itemsize
        moved = 2 * image_bytes * problem.N
        split = problem.N * self.source.image * costs.cycles_per_split(self.source.stride[1])
        self.cycles = sum(map(self._cycles, self.launches)) + (
            moved * costs.CYCLES_PER_BYTE_MOVED + split + costs.CYCLES_PER_LAUNCH
        )

    def _sized(self, grid: Grid, relu: int) -> Launch:
        """Choose the tile's shape and how many pixels and filters one task takes."""
        g, itemsize = grid.geometry, self.problem.dtype.itemsize
        depth = max(grid.acol.size, 1)
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        if self.packed:
            pixels = self.images * g.rows * g.cols
            tile = best_tile(g.filters, pixels, itemsize)
            block, band = min(depth, costs.DEPTH_BLOCK), 0
            tiles = max(costs.L2_BYTES // (block * tile.cols * itemsize), 1)
            tiles = max(min(tiles, ceil_div(pixels, tile.cols) * g.groups // tasks), 1)
            share = costs.split(g.filters, tasks // (ceil_div(pixels, tiles * tile.cols) * g.groups), tile.rows)
            panel, results = tiles * block * tile.cols, tiles * share * tile.cols
        else:
            tile = best_tile(g.filters, (g.rows - 1) * g.pitch + g.cols, itemsize)
            block = min(depth, costs.DEPTH_BLOCK)
            tiles = max(min(costs.L2_BYTES // (depth * tile.cols * itemsize), 8), 1)
            band = _band(g, tile, ceil_div(tasks, self.images * g.groups))
            share = costs.split(g.filters, tasks // (self.images * g.groups * ceil_div(g.rows, band)), tile.rows)
            panel, results = 0, tile.rows * tile.cols
        geometry = g._replace(
            tile_rows=tile.rows, tile_cols=tile.cols, tiles=tiles, band=band, share=share, depth_block=block, relu=relu
        )
        trow = np.arange(share) * (tiles if self.packed else 1) * tile.cols
        prow = np.arange(block) * tile.cols
        return Launch(replace(grid, geometry=geometry), tile, trow, prow, panel, results)

    def _cycles(self, launch: Launch) -> float:
        """Predicted cycles of one core."""
        p, g, tile, depth = self.problem, launch.grid.geometry, launch.tile, launch.grid.acol.size
        item = p.dtype.itemsize
        results = g.rows * g.cols * g.filters * p.N * g.groups
        if self.packed:
            pixels = p.N * g.rows * g.cols
            runs = pixels / g.cols + pixels / g.tile_cols
            passes = ceil_div(g.filters, g.share)
            packing = g.groups * passes * depth * (runs * costs.CYCLES_PER_RUN + pixels * item * 2 / 64)
            storing = results * (costs.CYCLES_PER_RUN / g.cols + item * 2 / 64)
            return tile.cycles_for(g.filters, pixels, depth, g.depth_block) * g.groups + packing + storing
        tiles = g.rows // g.band * _tiles_of(g, tile, g.band) + _tiles_of(g, tile, g.rows % g.band)
        storing = 0.0
        if g.pitch != g.cols or g.out_col != 1:
            # Results leave for memory: 0.7 to 1.4 cycles each measured with 64 filters of 3x3x3 and 7x7x3.
            storing = results * (costs.CYCLES_PER_RUN / min(g.cols, g.tile_cols) + g.out_col * item * 6 / 64)
        pieces = self.source.channels // g.groups * tile.cols * item
        slowdown = _PIECES_SLOWDOWN if tile.rows <= _FEW_ROWS and pieces >= _PIECES_BYTES else 1.0
        return tile.cycles_for(g.filters, tiles * tile.cols, depth, g.depth_block) * g.groups * p.N * slowdown + storing

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, in the problem's layout; bias (F,) or empty."""
        for first in range(0, self.problem.N, self.images):
            images = slice(first, min(first + self.images, self.problem.N))
            self._run_images(operand[images], w.reshape(-1), bias, out[images].reshape(-1))

    def _run_images(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        p, source, images = self.problem, self.source, len(operand)
        slots = runtime.slots_for(p.multiply_adds * images // p.N)
        slots = min(slots, self.threads)
        dtype = p.dtype
        with Scratch() as scratch:
            x = source.prepare(operand, slots, scratch)
            for launch in self.launches:
                grid = launch.grid
                geometry = grid.geometry._replace(images=images)
                tile = register_tile(launch.tile.rows, launch.tile.vectors, dtype.itemsize)
                common = (
                    np.zeros(1, np.int64), tile.address, self.copy.address, w, grid.arow, grid.acol, x, grid.brow,
                    bias, out, grid.crow, launch.trow,
                )  # fmt: skip
                with Scratch() as own:
                    results = own.take((slots, launch.results), dtype)
                    if self.packed:
                        panels = own.take((slots, launch.panel), dtype)
                        runtime.run_on(over_pixels_packed, slots, *common, launch.prow, panels, results, geometry)
                    else:
                        starts = np.empty((slots, geometry.tiles), np.int64)
                        runtime.run_on(over_pixels_direct, slots, *common, results, starts, geometry)


def _tiles_of(g: OverPixels, tile: TileShape, rows: int) -> int:
    """Tiles that cover `rows` output rows, numbered through the padded ones."""
    return ceil_div((rows - 1) * g.pitch + g.cols, tile.cols) if rows else 0


def _band(g: OverPixels, tile: TileShape, bands: int) -> int:
    """Output rows of one task: about 1 / bands of them, such that the last tile of a band is well filled."""
    bands = min(bands, _tiles_of(g, tile, g.rows))  # small planes fill a tile or two: their filters are shared out
    if bands <= 1:
        return g.rows
    most = ceil_div(g.rows, bands)
    candidates = range(max(most // 2, 1), most + 1)
    return min(
        candidates,
        key=lambda band: (g.rows // band * _tiles_of(g, tile, band) + _tiles_of(g, tile, g.rows % band), -band),
    )
