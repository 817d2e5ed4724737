"""Winograd's gradient of w, for the problems whose forward pass Winograd computes."""

from __future__ import annotations

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_block
from fastconv._kernels.isa import LINE_BYTES, MACHINE, best_tile
from fastconv._kernels.tile_sweep import tile_sweep
from fastconv._kernels.winograd_gradient import WinogradGradient, winograd_gradient
from fastconv._kernels.winograd_tiles import Tiling
from fastconv._kernels.winograd_transforms import dout_transform, gradient_transform, input_transform
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.filter_rows import add_up, transpose
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.tables import changed
from fastconv.algorithms.winograd_axes import CYCLES_PER_PLACE, Blocks, axes_of, by_windows, whole_rows, window_pixels
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

BLOCK, LEAST_BLOCK = 64, 32  # tiles transformed at a time: the depth of one call of the register tile
SPLIT = 128  # tiles of one split at least, where there are threads enough without: each makes a dw of its own
# Sums of one task: larger ones transform dout less often. With 2 MB of L2, F(4x4) of 512 channels of 14x14 took 11.5 ms
# with 2 MB of sums, 8.5 with 4; 64 and 256 channels 1 to 1.15 times as long.
SUMS_BYTES = max(2**20, costs.L2_BYTES * 4 // 3), max(2 * 2**20, costs.L2_BYTES * 8 // 3)
_CYCLES_PER_BYTE_MOVED = 0.25  # both operands' way through memory into pixels of all channels, or through windows
_SLOWDOWN = 1.15  # of the products, whose operands come from L2
# Cycles of transforming one vector of a tile of x, of dout, and one of the results.
_CYCLES = {
    4: (22.0, 17.0, 15.0), 6: (30.0, 25.0, 25.0), 16: (48.0, 38.0, 60.0), 24: (110.0, 80.0, 90.0),
    36: (250.0, 180.0, 150.0),
}  # fmt: skip
# Beside other algorithms, of what the above predicts (AVX-512, 61 layers in both layouts; 1x7 to 7x1 kernels of 192
# channels then took 0.65 to 0.87 of the time of "im2col", which was chosen).
_SCALE = 0.87 if costs.WIDE else 1.0
if costs.WIDE:  # as in `winograd`
    _CYCLES = {p: (1.5 * of_x, 1.5 * of_dout, back) for p, (of_x, of_dout, back) in _CYCLES.items()}


class WinogradGradientPass:
    """The gradient of w: F(taps, numbers of dout), with the tiles and pieces of the forward pass."""

    def __init__(self, problem: ConvProblem, threads: int, *, n: tuple[int, int]):
        p, itemsize, lanes = problem, problem.dtype.itemsize, MACHINE.lanes(problem.dtype.itemsize)
        self.problem, self.threads, axes = problem, threads, axes_of(problem, *n)
        self.n, self.taps, self.outputs, pieces = (axes.sizes(name) for name in ("n", "taps", "outputs", "pieces"))
        self.positions = self.n.numbers
        windows = by_windows(p, axes)
        self.x = Operand(p.channels_last, not windows, p.C, p.H, p.W, 0, 0, p.H, p.W)
        self.dout = Operand(p.channels_last, not windows, p.F, p.OH, p.OW, 0, 0, p.OH, p.OW)
        image_bytes = self.x.scratch_bytes(itemsize) + self.dout.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, p.N, chunks=2)
        down, across = p.dilation
        rows = ceil_div(ceil_div(p.OH, down), self.outputs.down)
        cols = ceil_div(ceil_div(p.OW, across), self.outputs.across)
        self.tiles = down * across * rows * cols  # of one image
        self.tile = best_tile(p.C, p.F, itemsize)
        dout_stride = ceil_div(p.F, self.tile.cols) * self.tile.cols
        tiles = self.images * self.tiles
        sums = SUMS_BYTES[self.positions > 16] // (self.positions * dout_stride * itemsize)
        fitting = sums // self.tile.rows * self.tile.rows
        bands = ceil_div(p.C, max(fitting, self.tile.rows))  # of about equal size, whole rows of register tiles
        if tiles < p.C:  # less is transformed twice by bands than by splits (one image of 28x28, 128 channels: 0.8)
            bands = max(bands, ceil_div(threads, pieces.numbers))
        band = ceil_div(ceil_div(p.C, bands), self.tile.rows) * self.tile.rows
        bands = ceil_div(p.C, band)
        splits = 1
        if threads > 1:
            parts = bands * pieces.numbers
            least = ceil_div(threads, parts)  # gives each thread a task; more splits must be worth their sums
            splits = min(ceil_div(threads * costs.TASKS_PER_THREAD, parts), max(tiles // SPLIT, least))
            splits = costs.even_splits(min(splits, ceil_div(tiles, LEAST_BLOCK)), parts, threads)
        part = ceil_div(tiles, splits)
        wanted = ceil_div(part, ceil_div(part, BLOCK))  # splits of equal size, of blocks of equal size
        blocks, x_window, dout_window = Blocks(wanted, tiles), 0, 0
        if windows:
            blocks = whole_rows(wanted, BLOCK, cols, tiles)
            x_window = lanes * window_pixels(blocks, self.outputs, self.n, rows, cols, p.H, p.W, p.pads[0][0])
            dout_window = lanes * window_pixels(blocks, self.outputs, self.outputs, rows, cols, p.OH, p.OW, 0)
        block = blocks.size
        x_stride = ceil_div(band, lanes) * lanes
        line = LINE_BYTES // itemsize  # see `winograd`
        self.dw_size = p.C * p.KH * p.KW * p.F
        self.tiling = Tiling(*self.outputs, down, across, rows, cols, *blocks, lanes)
        self.geometry = WinogradGradient(
            images=self.images, n_down=self.n.down, n_across=self.n.across, kernel_height=p.KH, kernel_width=p.KW,
            taps_down=self.taps.down, taps_across=self.taps.across, pieces_across=pieces.across,
            pieces=pieces.numbers, height=p.H, width=p.W, top=p.pads[0][0], left=p.pads[1][0],
            channels=p.C, filters=p.F, out_height=p.OH, out_width=p.OW,
            tile_rows=self.tile.rows, tile_cols=self.tile.cols, x_window=x_window,
            ragged=int(band * bands != p.C or dout_stride != p.F),
            dout_window=dout_window, band=band, splits=splits,
            x_stride=x_stride, dout_stride=dout_stride, x_position=block * x_stride + line,
            dout_position=block * dout_stride + line,
            sums_position=band * dout_stride + line, out_split=self.dw_size,
            out_channel=p.F if p.channels_last else p.KH * p.KW * p.F, out_tap=p.C * p.F if p.channels_last else p.F,
        )  # fmt: skip
        g = self.geometry
        self.arow, self.acol = np.arange(band), np.arange(block) * g.x_stride
        self.brow, self.crow = np.arange(block) * g.dout_stride, np.arange(band) * g.dout_stride
        self.vectors = np.arange(self.tile.vectors) * lanes
        self.zeros = np.zeros(max(p.C, p.F, self.tile.cols), p.dtype)
        self.slot_numbers = self.positions * (g.x_position + g.dout_position + g.sums_position) + x_window + dout_window
        self.straight = p.channels_last and splits == 1 and self.images == p.N
        self.workspace = (
            self.images * image_bytes + (0 if self.straight else (splits + 1) * self.dw_size * itemsize)
            + threads * (self.slot_numbers * itemsize + block * (self.positions + self.outputs.numbers) * 8)
        )  # fmt: skip
        self.cycles = self._cycles(image_bytes)

    def _cycles(self, image_bytes: int) -> float:
        p, g, lanes = self.problem, self.geometry, MACHINE.lanes(self.problem.dtype.itemsize)
        tiles, bands = p.N * self.tiles, ceil_div(p.C, g.band)
        of_x, of_dout, back = _CYCLES[self.positions]
        products = self.positions * self.tile.cycles_for(p.C, p.F, tiles, self.tiling.block) * _SLOWDOWN
        vectors = tiles * (ceil_div(p.C, lanes) * of_x + bands * ceil_div(p.F, lanes) * of_dout)
        results = g.splits * p.C * ceil_div(p.F, lanes) * back
        moved = 2 * image_bytes * p.N + (0 if self.straight else 2 * (g.splits + 1) * self.dw_size * p.dtype.itemsize)
        if g.x_window:
            moved += p.N * (p.C * p.H * p.W + bands * p.F * p.OH * p.OW) * p.dtype.itemsize
        places = tiles * bands * (self.positions + self.outputs.numbers) * CYCLES_PER_PLACE
        computed = g.pieces * (products + vectors + places + results)
        return _SCALE * (computed + moved * _CYCLES_PER_BYTE_MOVED) + 3 * costs.CYCLES_PER_LAUNCH

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """See `base`."""
        p, g = self.problem, self.geometry
        with Scratch(self.workspace) as scratch:
            if self.straight:
                self._run_images(x, dout, dw.reshape(1, -1), scratch)
                return
            partial = scratch.take((g.splits, self.dw_size), p.dtype)
            single = g.splits == 1 and self.images == p.N
            total = partial[0] if single else scratch.take((self.dw_size,), p.dtype)
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                self._run_images(x[images], dout[images], partial, scratch)
                if not single:
                    add_up(partial, total, add=first > 0)
            if p.channels_last:
                dw.reshape(-1)[:] = total
            else:  # (C KH KW, F) -> (F, C KH KW)
                transpose(total.reshape(1, -1, p.F), dw)

    def _run_images(self, x: np.ndarray, dout: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        p, g, itemsize = self.problem, self.geometry, self.problem.dtype.itemsize
        slots = min(runtime.slots_for(p.multiply_adds * len(x) // p.N), self.threads)
        sweep, adding_sweep = (
            tile_sweep(self.tile.rows, self.tile.vectors, itemsize, lane_bias=True, add=add) for add in (False, True)
        )
        with scratch:
            addresses = scratch.take((slots, self.tiling.block * (self.positions + self.outputs.numbers)), INDEX)
            runtime.run_tasks(
                winograd_gradient, slots, input_transform(self.n, itemsize).address,
                dout_transform(self.n, self.outputs, itemsize).address, transpose_block(itemsize).address,
                sweep.address, adding_sweep.address, gradient_transform(self.n, self.taps, itemsize).address,
                self.x.prepare(x, slots, scratch), self.dout.prepare(dout, slots, scratch), self.zeros,
                out.reshape(-1), self.arow, self.acol, self.brow, self.vectors, self.crow, addresses,
                scratch.take((slots, self.slot_numbers), p.dtype), self.tiling, changed(g, images=len(x)),
            )  # fmt: skip
