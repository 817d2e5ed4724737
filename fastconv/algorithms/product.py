"""1x1 convolutions of 1x1 images (linear layers; also channels-last pixels) as products that pack weights on the way.

Packed beforehand, weights are written and read once more: with few images that costs more than the multiplications
(16 images, 4096 x 4096 features: 4 times as long; 49 pixels, 512 x 2048: 1.3 times; 392 pixels: 1.1 to 1.2 times).
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_rows
from fastconv._kernels.isa import MACHINE, TileShape, best_tile
from fastconv._kernels.panel_products import PanelProducts, panel_products
from fastconv._kernels.pixel_panels import fill_panels
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.sweep_callbacks import sweep_callbacks
from fastconv.algorithms.tables import repeated, steps
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

_DEPTH_BLOCK = 256
# Rows that every panel meets, beyond L2 (512 channels: 1568 pixels as fast as `over_filters`).
_ROWS_SLOWDOWN = 1.8 if costs.WIDE else 1.2
# Panels filled at once, from rows that lie so far apart: 16 images, 4096 x 4096 features 10.5 -> 9.4 ms, 392 pixels,
# 512 x 2048 7.3 -> 7.1, 1024 x 1024 7.6 -> 7.4; nothing with rows of 4,000 bytes, 1.1 times as long with 2,048.
_FAR_PANELS, _FAR_BYTES = 4, 4096
_FAR_AHEAD = (
    4  # steps before its turn at which such a row is asked for: 10.4 -> 9.8, 7.5 -> 7.3 ms; nearer rows 1.05 times
)
# Few panels do not occupy all threads alike: the sum is split, each part into results of its own, so large at most
# (50 images, 8192 x 100 features, two panels on two threads: 0.78 -> 0.83 of the fastest peer's speed).
_LEAST_DEPTH, _SPLIT_BYTES = 2 * _DEPTH_BLOCK, 2**20
_CYCLES_PER_COPIED = 0.3  # a weight on its way into a panel
_CYCLES_PER_TRANSPOSED = 0.5


class PanelPieces(NamedTuple):
    """What the panels that are filled at once, from rows of `row_bytes`, take of a row: see the kernel."""

    together: int
    sources: np.ndarray
    targets: np.ndarray
    widths: np.ndarray

    @classmethod
    def of(cls, tile: TileShape, widths: np.ndarray, row_bytes: int, depth_block: int) -> PanelPieces:
        together = _FAR_PANELS if row_bytes >= _FAR_BYTES else 1
        return cls(together, steps(tile.cols, together), steps(depth_block * tile.cols, together), widths)

    @property
    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.sources, self.targets, self.widths


class ProductPass:
    """Forward, or gradient of x: `run(operand, w, bias, out)` with operand x or dout, a row per image."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        return not (p.groups == 1 and p.x_shape[1:] in ((1, 1, p.C), (p.C, 1, 1)) and p.taps == 1 and p.no_padding)

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        self.problem, self.threads = problem, threads
        p, itemsize = problem, problem.dtype.itemsize
        depth, columns = (p.F, p.C) if gradient else (p.C, p.F)
        # The weights are (C, F) channels-last, (F, C) channels-first; the sum runs over rows, or along them.
        along_rows = gradient == p.channels_last
        pitch = p.F if p.channels_last else p.C
        self.tile = best_tile(p.N, columns, itemsize)
        images = repeated(np.arange(p.N), self.tile.rows)
        self.arow, self.crow = images * depth, images * columns
        self.brow = np.arange(columns) * pitch if along_rows else np.empty(0, np.int64)
        self.nothing = np.empty(0, np.int64)  # rows are read in place
        self.prow = np.arange(_DEPTH_BLOCK) * self.tile.cols
        self.vectors = np.arange(self.tile.vectors) * MACHINE.lanes(itemsize)
        self.zeros, self.no_bias = np.zeros(self.tile.cols, p.dtype), np.empty(0, p.dtype)
        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        self.columns, self.out_size = columns, p.N * columns
        self.firsts = np.arange(0, columns, self.tile.cols)  # of the tiles, in w and in a row of results
        widths = np.minimum(columns - self.firsts, self.tile.cols)
        self.pieces = PanelPieces.of(self.tile, widths, 0 if along_rows else pitch * itemsize, _DEPTH_BLOCK)
        most = min(depth // _LEAST_DEPTH, _SPLIT_BYTES // (self.out_size * itemsize))
        splits = max(min(tasks // self.firsts.size, most), 1)
        self.relu = relu
        self.geometry = PanelProducts(
            images=1, groups=1, rows=1, cols=depth, a_image=0, a_row=0, a_col=1, a_group=0, b_image=0,
            b_row=depth if along_rows else 0, b_col=1 if along_rows else pitch, b_group=0, planes=int(along_rows),
            out_group=0, out_split=self.out_size, tile_rows=self.tile.rows, tile_cols=self.tile.cols,
            sums=p.N, band=self.arow.size, packed=0, share=costs.split(len(widths), tasks, 1),
            together=self.pieces.together, in_place=0, filled=0, splits=splits,
            depth_block=_DEPTH_BLOCK, add=0, relu=int(relu and splits == 1),
        )  # fmt: skip
        self.panels = self.geometry.together * _DEPTH_BLOCK * self.tile.cols
        ahead = _FAR_AHEAD if self.pieces.together > 1 else 0
        self.fill = transpose_rows(itemsize) if along_rows else fill_panels(self.tile.cols, itemsize, ahead)
        self.workspace = threads * (self.panels * itemsize + _DEPTH_BLOCK * 4 * INDEX.itemsize)
        self.workspace += splits * self.out_size * itemsize if splits > 1 else 0
        filling = depth * columns * (_CYCLES_PER_TRANSPOSED if along_rows else _CYCLES_PER_COPIED)
        arithmetic = self.tile.cycles_for(p.N, columns, depth, _DEPTH_BLOCK) * costs.IN_RUNS
        if p.N * min(depth, _DEPTH_BLOCK) * itemsize > costs.L2_BYTES:
            arithmetic *= _ROWS_SLOWDOWN
        self.cycles = arithmetic + filling + costs.CYCLES_PER_LAUNCH

    def prepare(self, w: np.ndarray) -> np.ndarray:
        """The panels of all blocks of the depth; zeros past its last step and the last column."""
        g = self.geometry
        blocks, tiles = ceil_div(g.cols, _DEPTH_BLOCK), self.firsts.size
        whole = np.zeros((blocks * _DEPTH_BLOCK, tiles * g.tile_cols), w.dtype)
        given = w.reshape(self.columns, g.cols).T if g.planes else w.reshape(g.cols, self.columns)
        whole[: g.cols, : self.columns] = given
        return np.ascontiguousarray(whole.reshape(blocks, _DEPTH_BLOCK, tiles, g.tile_cols).swapaxes(1, 2))

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        g, weights = self.geometry, w
        if prepared is not None:
            g, weights = g._replace(filled=1, splits=1, relu=int(self.relu)), prepared
        with Scratch(self.workspace) as scratch:
            if g.splits == 1:
                self._multiply(operand, weights, bias, out.reshape(-1), g, scratch)
                return
            partial = scratch.take((g.splits, self.out_size), out.dtype)
            self._multiply(operand, weights, self.no_bias, partial.reshape(-1), g, scratch)
            total = np.add.reduce(partial, axis=0, out=out.reshape(-1)).reshape(-1, self.columns)
            if bias.size:
                total += bias
            if self.relu:
                np.maximum(total, 0, out=total)

    def _multiply(
        self, operand: np.ndarray, weights: np.ndarray, bias: np.ndarray, out: np.ndarray, g: PanelProducts,
        scratch: Scratch,
    ) -> None:  # fmt: skip
        p = self.problem
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        runtime.run_tasks(
            panel_products, slots, *self._callbacks, operand.reshape(-1), self.arow, self.nothing,
            weights.reshape(-1), self.brow, *self.pieces.tables, self.firsts, self.firsts, self.nothing, self.prow,
            self.vectors, bias, self.zeros, out, self.crow, scratch.take((slots, 4, _DEPTH_BLOCK), INDEX),
            scratch.take((slots, self.panels), p.dtype), scratch.take((slots, 0), p.dtype), g,
        )  # fmt: skip

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        g, itemsize = self.geometry, self.problem.dtype.itemsize
        narrow, several = self.columns % self.tile.cols > 0, g.cols > _DEPTH_BLOCK
        tiles = sweep_callbacks(self.tile, itemsize, narrow=narrow, several_blocks=several, apart=1)
        return *tiles, self.fill.address, 0
