"""Forward and gradient of x as a product of weights and packed pixels: sizes, made once per problem."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block
from fastconv._kernels.isa import MACHINE, TileShape, tile_shapes
from fastconv._kernels.pixel_panels import PixelPanels, fill_panels, pixel_panels
from fastconv._kernels.register_tile import register_tile
from fastconv._kernels.tile_sweep import tile_sweep
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.pixel_grids import PixelGrid, forward_grids, gradient_grids
from fastconv.algorithms.sweep_callbacks import apart_in_runs
from fastconv.algorithms.tables import changed, steps
from fastconv.algorithms.weight_panels import WeightPanels
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

# Steps of a sum between two visits to the results: their panel of pixels stays in the first-level cache, beside the
# weights that stream past it, or passes by from the second: with AVX-512 64 took 1.1 to 1.25 times as long as 1024
# (256 to 1024 channels 1x1, 192 channels 7x1).
_DEPTH_BLOCK = costs.DEPTH_BLOCK if MACHINE.vector_bits == 512 else 256
# Of pixels at most in one task: panels of few steps are small, their results are not. With AVX-512 128 took 1 to 1.1
# times as long (1x1, 32 to 256 channels).
_TILES = 24 if costs.WIDE else 128
# Tiles of 8 x 2 and 8 x 3 beside 6 x 4, which loads less: 0.93 to 1.2 and 0.96 to 1.1 times as long, 1.05 and 1.04 in
# the mean (30 layers of 1x1 to 1x3).
_NARROW_SLOWDOWN, _WIDE_TILE = (1.05, 4) if costs.WIDE else (1.0, 0)
# Steps before its turn at which a plane is asked for: 1x1 took 0.82 to 1.03 times as long. Several taps meet the same
# numbers again, which are in the caches (5x5: 1.0 to 1.04 times).
_AHEAD = 2
_CYCLES_PER_PIECE = 4.0  # finding one piece of a run, beside copying its numbers
_CYCLES_PER_WEIGHT = (
    3.0  # bringing one into its panel, for the gradient of x: the taps of a filter and channel at a time
)


@dataclass(frozen=True)
class Launch:
    """A grid of output pixels with the sizes of its tasks and the tables of its tiles."""

    grid: PixelGrid
    arow: np.ndarray
    acol: np.ndarray
    crow: np.ndarray
    trow: np.ndarray  # offsets of the rows of results in scratch
    geometry: PixelPanels

    @property
    def chunk(self) -> int:
        """Pixels of one task."""
        return self.geometry.tiles * self.geometry.tile_cols

    @property
    def straight(self) -> bool:
        """Whether every tile is stored from registers."""
        g = self.geometry
        return g.out_col == 1 and (g.out_row, g.rows * g.cols % g.tile_cols) == (g.cols, 0)

    @property
    def several_blocks(self) -> bool:
        """Whether sums are made of several blocks of steps."""
        return self.acol.size > self.geometry.depth_block

    @cached_property
    def apart(self) -> int:
        """Of the weights of neighbouring steps, see `tile_sweep`."""
        g, depth = self.geometry, self.acol.size
        blocks = [(first, min(g.depth_block, depth - first)) for first in range(0, depth, g.depth_block)]
        return apart_in_runs(self.acol, steps(g.tile_cols, depth), g.tile_rows, g.tile_cols, blocks)

    @property
    def few_filters(self) -> bool:
        """Whether some task ends in fewer filters than a tile has rows, and cannot compute some twice."""
        g = self.geometry
        return g.filters % g.tile_rows > 0 and (self.several_blocks or g.filters % g.share < g.tile_rows)

    @property
    def slot_numbers(self) -> tuple[int, int]:
        """Numbers of panels and of results per slot."""
        return self.chunk * (self.geometry.depth_block + 1), 0 if self.straight else self.chunk * self.geometry.share


class PixelPanelsPass:
    """One pass: `run(operand, w, bias, out)` with operand x, or dout for the gradient of x."""

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        assert not problem.channels_last
        self.problem, self.threads = problem, threads
        self.source, grids = (gradient_grids if gradient else forward_grids)(problem)
        itemsize = problem.dtype.itemsize
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, problem.N)
        pixels = self.images * max(grid.rows * grid.cols for grid in grids)
        self.tile = min(tile_shapes(itemsize), key=lambda shape: _arithmetic(shape, grids[0].filters, pixels, 256))
        # Forward, a filter's weights lie side by side: packed, they are written and read once more (512 to 2048
        # channels, 7x7 pixels: 1.8 times as long for one image, 1.2 times for eight; never faster).
        self.weights = WeightPanels.of(problem, gradient, self.tile.rows) if gradient else None
        self.launches = [self._sized(grid, int(relu)) for grid in grids if grid.rows * grid.cols]
        self.prow = steps(self.tile.cols, _DEPTH_BLOCK)
        self.zeros = np.zeros(self.tile.rows, problem.dtype)
        self.copy = copy_block(itemsize)
        self.fill = fill_panels(self.tile.cols, itemsize, _AHEAD if problem.taps == 1 else 0)
        numbers = max((sum(launch.slot_numbers) for launch in self.launches), default=0)
        vectors = 2 * self.tile.vectors
        tables = INDEX.itemsize * max((3 * of.chunk + of.geometry.tiles * vectors for of in self.launches), default=0)
        packed = self.weights.nbytes if self.weights else 0
        self.workspace = self.images * image_bytes + packed + threads * (numbers * itemsize + tables)
        moved = 2 * (image_bytes * problem.N + packed)
        split = problem.N * self.source.image * costs.cycles_per_split(self.source.stride[1])
        self.cycles = sum(map(self._cycles, self.launches)) + split + moved * costs.CYCLES_PER_BYTE_MOVED
        self.cycles += costs.CYCLES_PER_LAUNCH * 2 + (_CYCLES_PER_WEIGHT * packed / itemsize)

    def _sized(self, grid: PixelGrid, relu: int) -> Launch:
        """Choose how many pixels and filters one task takes."""
        p, tile, source, itemsize = self.problem, self.tile, self.source, self.problem.dtype.itemsize
        pixels = self.images * grid.rows * grid.cols
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        block = min(_DEPTH_BLOCK, max(grid.steps.size, 1))
        # Long runs of pixels: 32 channels of 112x112 in chunks of 192 took 1.3 times as long as in chunks of 1536.
        most = max(min(costs.L2_BYTES // 2 // (block * tile.cols * itemsize), _TILES), 1)
        columns = ceil_div(pixels, tile.cols)
        chunks = ceil_div(columns, most)
        if pixels >= grid.filters:  # a chunk reads all weights, a share of the filters packs all pixels of its chunk
            chunks = max(chunks, min(ceil_div(tasks, p.groups), columns))
        tiles = ceil_div(columns, chunks)
        share = costs.split(grid.filters, tasks // (chunks * p.groups), tile.rows)
        if self.weights:
            panels, lanes = np.divmod(np.arange(grid.filters), tile.rows)
            arow, acol = panels * self.weights.depth * tile.rows + lanes, grid.steps * tile.rows
            w_group = self.weights.panels * self.weights.depth * tile.rows
        else:
            arow, acol, w_group = grid.arow, grid.acol, grid.filters * p.group_channels * p.taps
        geometry = PixelPanels(
            images=self.images, groups=p.groups, filters=grid.filters, rows=grid.rows, cols=grid.cols,
            pitch=source.cols, x_image=source.image, x_group=source.channels // p.groups * source.plane,
            w_group=w_group, out_start=grid.out_start, out_image=grid.out_image,
            out_group=grid.filters * grid.out_filter, out_row=grid.out_row, out_col=grid.out_col,
            tile_rows=tile.rows, tile_cols=tile.cols, vectors=tile.vectors, tiles=tiles, share=share,
            depth_block=block, relu=relu,
        )  # fmt: skip
        return Launch(grid, arow, acol, grid.crow, np.arange(share) * tiles * tile.cols, geometry)

    def _cycles(self, launch: Launch) -> float:
        """Predicted cycles of one core."""
        p, g, depth, itemsize = self.problem, launch.geometry, launch.acol.size, self.problem.dtype.itemsize
        pixels = p.N * g.rows * g.cols
        pieces = pixels / g.cols + pixels / g.tile_cols
        passes = ceil_div(g.filters, g.share) * g.groups
        filling = passes * depth * (pieces * _CYCLES_PER_PIECE + pixels * itemsize * 2 / 64)
        storing = 0.0
        if not launch.straight:
            each = itemsize * 2 / 64 if g.out_col == 1 else costs.CYCLES_PER_SCATTERED
            storing = pixels * g.filters * g.groups * (costs.CYCLES_PER_RUN / g.cols + each)
        arithmetic = _arithmetic(self.tile, g.filters, pixels, depth, g.depth_block) * costs.IN_RUNS
        return arithmetic * g.groups + filling + storing

    def prepare(self, w: np.ndarray) -> np.ndarray | None:
        """Weights as panels, in the order in which the tile reads them; None where it reads them in place."""
        return self.weights.packed(w) if self.weights else None

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        with Scratch(self.workspace) as scratch:
            panels = w if prepared is None else prepared
            if self.weights and prepared is None:
                panels = scratch.take(self.weights.shape, self.problem.dtype)
                self.weights.pack(w, panels)
            panels = panels.reshape(-1)
            for first in range(0, self.problem.N, self.images):
                images = slice(first, min(first + self.images, self.problem.N))
                self._run_images(operand[images], panels, bias, out[images].reshape(-1), scratch)

    def _run_images(
        self, operand: np.ndarray, weights: np.ndarray, bias: np.ndarray, out: np.ndarray, scratch: Scratch
    ) -> None:
        p, tile, images = self.problem, self.tile, len(operand)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        shape = tile.rows, tile.vectors, p.dtype.itemsize
        with scratch:
            x = self.source.prepare(operand, slots, scratch)
            for launch in self.launches:
                panel, results = launch.slot_numbers
                apart, adding_sweep = launch.apart, 0
                sweep = tile_sweep(*shape, lane_bias=False, apart=apart).address
                if launch.several_blocks:
                    adding_sweep = tile_sweep(*shape, lane_bias=False, add=True, apart=apart).address
                few_filters = register_tile(*shape).address if launch.few_filters else 0
                with scratch:
                    runtime.run_tasks(
                        pixel_panels, slots, sweep, adding_sweep, few_filters,
                        self.fill.address, self.copy.address, weights, launch.arow, launch.acol, x, launch.grid.brow,
                        self.prow, bias, self.zeros, out, launch.crow, launch.trow,
                        scratch.take((slots, 3, launch.chunk), INDEX),
                        scratch.take((slots, 2, launch.geometry.tiles * tile.vectors), INDEX),
                        scratch.take((slots, panel), p.dtype), scratch.take((slots, results), p.dtype),
                        changed(launch.geometry, images=images),
                    )  # fmt: skip


def _arithmetic(shape: TileShape, filters: int, pixels: int, depth: int, block: int | None = None) -> float:
    """Cycles of the sums alone."""
    return shape.cycles_for(filters, pixels, depth, block) * (_NARROW_SLOWDOWN if shape.vectors < _WIDE_TILE else 1.0)
