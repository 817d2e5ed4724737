"""Winograd convolution of stride 1: tiles of 4x4 and 4x6 numbers are as accurate as a direct sum, 6x6 are not."""

from __future__ import annotations

import math
from functools import cached_property, partial

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, transpose_block
from fastconv._kernels.isa import LINE_BYTES, MACHINE, best_tile
from fastconv._kernels.tile_sweep import tile_sweep
from fastconv._kernels.winograd import Winograd, winograd
from fastconv._kernels.winograd_tiles import Tiling
from fastconv._kernels.winograd_transforms import input_transform, output_transform, weight_transform
from fastconv._kernels.winograd_weights import BAND, WinogradWeights, transform_weights
from fastconv.algorithms import costs
from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.tables import changed
from fastconv.algorithms.winograd_axes import CYCLES_PER_PLACE, Blocks, axes_of, by_windows, whole_rows, window_pixels
from fastconv.algorithms.winograd_gradient import WinogradGradientPass
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

# Tiles of one task. Between 16 and 112 it makes no difference that can be measured, with 64 to 512 channels: the
# register tile reads transformed tiles slowly enough to find them in L2 or L3.
BLOCK, LEAST_BLOCK = 64, 48
# Few tiles: weights beyond these bytes are transformed by the tasks that use them. (One image of 28x28, 128 channels:
# half of 1.7 MB came from the other thread's cache; with weights of their own 0.77 to 0.88 of the time.)
OWN_WEIGHTS_TILES, OWN_WEIGHTS_BYTES = 160, 2**20
_MOST_PIECES = 9
# Steps of depth that are summed before they are added to the sums of the steps before them. Sums of 512 at once lose
# as much by rounding as the transforms: rms errors over 512 channels, of the output's size, 6.9e-7 by tiles of 4x4,
# 1.2e-6 of 4x6, 2.1e-6 of 6x6; of 128, 3.6e-7, 6.5e-7 and 1.1e-6, of 64 2.7e-7, 5.0e-7, 8.5e-7.
_DEPTH_BLOCK = 128
# Cycles of transforming one vector of a tile, beside the products: input, output, weights. Writing 36 vectors a cache
# line each to 36 places costs more than the arithmetic.
_CYCLES = {
    4: (22.0, 25.0, 20.0), 6: (30.0, 38.0, 30.0), 16: (48.0, 42.0, 77.0), 24: (110.0, 80.0, 120.0),
    36: (250.0, 150.0, 235.0),
}  # fmt: skip
if costs.WIDE:  # vectors of twice as many numbers to store (3x3, 16 to 32 channels: 1.2 to 1.4 times the prediction)
    _CYCLES = {p: (1.4 * to_tiles, 1.4 * from_tiles, weights) for p, (to_tiles, from_tiles, weights) in _CYCLES.items()}
_PIECES_SLOWDOWN = 1.6  # of the input's, since the tiles of several pieces hardly stay in L2
_CYCLES_PER_WINDOW_NUMBER = 0.5  # transposing it, some twice as windows overlap
_SLOWDOWN = 1.08  # of the products, whose operands come from L2
# Bringing a number of w beside its neighbours, when filters lie side by side and when they do not.
_CYCLES_PER_WEIGHT, _CYCLES_PER_WEIGHT_TRANSPOSED = 1.5, 2.0
# Transformed weights beyond what the caches hold: written once, read by every block of tiles.
_CACHED_WEIGHTS_BYTES, _CYCLES_PER_BYTE_BEYOND = 4 * 2**20, 0.7
# Transformed tiles of a task beyond what its part of the caches holds: 128 tiles of 4096 channels took 18.1 ms, by
# "direct" 10.4, of 1024 channels 1.75 and 2.5.
_CACHED_TILES_BYTES = 8 * 2**20
# Tasks with weights of their own walk through all of w: 512 filters of 512x3x3 for one image of 7x7 took 2.5 to 4.5 ms,
# by "direct" 2.6 to 2.9.
_CYCLES_PER_BYTE_OWN = 0.06 if costs.WIDE else 0.15  # Emerald Rapids: 1.6 ms by "direct", 1.3


def _weights(p: ConvProblem, gradient: bool, pieces: int, piece_taps: int, tile_cols: int) -> WinogradWeights:
    taps = p.KH * p.KW
    cut = taps, pieces, piece_taps, tile_cols
    if p.channels_last and gradient:
        return WinogradWeights(p.C, p.F, *cut, taps, p.C * p.F, 1, p.F, 1)
    if p.channels_last:
        return WinogradWeights(p.F, p.C, *cut, taps, p.C * p.F, p.F, 1, 0)
    if gradient:
        return WinogradWeights(p.C, p.F, *cut, 0, p.C * taps, p.C * taps, taps, 1)
    return WinogradWeights(p.F, p.C, *cut, 1, 0, taps, p.C * taps, 1)


class WinogradPass:
    """Forward, or the gradient of x, which is the same convolution of dout by the flipped kernel."""

    def __init__(self, problem: ConvProblem, threads: int, *, n: tuple[int, int], gradient: bool, relu: bool = False):
        p, itemsize, lanes = problem, problem.dtype.itemsize, MACHINE.lanes(problem.dtype.itemsize)
        self.problem, self.threads, self.axes = problem, threads, axes_of(problem, *n)
        self.n, self.taps, self.outputs = (self.axes.sizes(name) for name in ("n", "taps", "outputs"))
        self.positions, pieces = self.n.numbers, self.axes.sizes("pieces")
        (top, _), (left, _) = p.pads
        down, across = p.dilation
        if gradient:
            channels, filters, height, width, out_height, out_width = p.F, p.C, p.OH, p.OW, p.H, p.W
            top, left = (p.KH - 1) * down - top, (p.KW - 1) * across - left
        else:
            channels, filters, height, width, out_height, out_width = p.C, p.F, p.H, p.W, p.OH, p.OW
        windows = by_windows(p, self.axes)
        self.source = Operand(p.channels_last, not windows, channels, height, width, 0, 0, height, width)
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, p.N)
        rows = ceil_div(ceil_div(out_height, down), self.outputs.down)
        cols = ceil_div(ceil_div(out_width, across), self.outputs.across)
        self.tiles = down * across * rows * cols  # of one image
        tiles = self.images * self.tiles
        self.depth = pieces.numbers * channels
        tile_stride = self.depth - channels + ceil_div(channels, lanes) * lanes
        blocks = self._blocks(tiles, cols, filters, windows)
        room = ceil_div(blocks.size, self.tile.rows) * self.tile.rows
        window = 0
        if windows:
            window = lanes * window_pixels(blocks, self.outputs, self.n, rows, cols, height, width, top)
        panels = ceil_div(filters, self.tile.cols)
        blocks_count = ceil_div(tiles, blocks.line) * ceil_div(blocks.line, blocks.size)
        share = costs.split(panels, self._tasks // blocks_count, 1)
        # One cache line more keeps positions out of each other's way: powers of two apart, they compete for few lines.
        line = LINE_BYTES // itemsize
        w_stride = self.depth * self.tile.cols + line
        self.tiling = Tiling(*self.outputs, down, across, rows, cols, *blocks, lanes)
        self.geometry = Winograd(
            images=self.images, n_down=self.n.down, n_across=self.n.across,
            pieces_down=pieces.down, pieces_across=pieces.across, piece_height=self.taps.down * down,
            piece_width=self.taps.across * across, height=height, width=width, top=top, left=left,
            channels=channels, filters=filters, out_height=out_height, out_width=out_width,
            out_filter=1 if p.channels_last else out_height * out_width, tile_rows=self.tile.rows,
            tile_cols=self.tile.cols, window=window, share=share,
            depth_block=min(self.depth, _DEPTH_BLOCK), tile_stride=tile_stride,
            tiles_stride=room * tile_stride + line, sums_stride=room * self.tile.cols + line, w_stride=w_stride,
            w_scratch=self.positions * w_stride if self.own_weights else 0, relu=int(relu),
        )  # fmt: skip
        g = self.geometry
        self.weights = _weights(p, gradient, pieces.numbers, self.taps.numbers, g.tile_cols)
        self.tap_places = self._tap_places(gradient)
        # Addresses of a slot.
        self.places = blocks.size * (self.positions + self.outputs.numbers) + self.tap_places.size
        self.band_rows, self.w_rows = np.arange(BAND) * g.tile_cols, np.arange(BAND) * self.weights.channel_step
        self.trow = np.minimum(np.arange(room), blocks.size - 1) * tile_stride  # rows beyond the tiles repeat the last
        self.srow = np.arange(room) * g.tile_cols
        self.acol, self.brow = np.arange(self.depth), np.arange(self.depth) * g.tile_cols
        self.vectors = np.arange(self.tile.vectors) * lanes
        self.zeros = np.zeros(max(channels, filters) + g.tile_cols, p.dtype)
        spare = self.outputs.numbers * blocks.size * g.tile_cols  # for results on their way into planes
        if g.out_filter == 1:
            spare = filters + g.tile_cols
        elif windows:
            pixels = window_pixels(blocks, self.outputs, self.outputs, rows, cols, out_height, out_width, 0)
            spare = (pixels + 1) * g.tile_cols
        self.slot_numbers = self.positions * (g.tiles_stride + g.sums_stride) + g.w_scratch + g.window + spare
        self.w_shape = panels, self.positions, g.w_stride
        self.band_numbers = p.KH * p.KW * BAND * g.tile_cols
        if pieces.numbers * self.taps.numbers > p.KH * p.KW:
            self.band_numbers *= 2  # zeros for the taps that w does not have
        self.workspace = (
            self.images * image_bytes
            + ((0 if self.own_weights else math.prod(self.w_shape)) + threads * self.band_numbers) * itemsize
            + threads * (self.slot_numbers * itemsize + (self.places + self.tap_places.size) * INDEX.itemsize)
        )  # fmt: skip
        self.cycles = self._cycles(image_bytes)

    def _blocks(self, tiles: int, cols: int, filters: int, windows: bool) -> Blocks:
        """How tiles are shared out: also sets the register tile, and whether tasks transform weights of their own."""
        itemsize, threads = self.problem.dtype.itemsize, self.threads
        self.tile = best_tile(tiles, filters, itemsize)
        panels = ceil_div(filters, self.tile.cols)
        w_bytes = self.positions * self.depth * panels * self.tile.cols * itemsize
        # Few tiles and many weights: tasks share out the filters and transform the weights that they use.
        self.own_weights = w_bytes > OWN_WEIGHTS_BYTES and tiles <= OWN_WEIGHTS_TILES and panels >= threads
        # A task transforms all its tiles of x: sharing out the filters repeats that.
        self._tasks = threads if self.own_weights or threads == 1 else threads * costs.TASKS_PER_THREAD
        wanted = tiles if self.own_weights else min(BLOCK, max(ceil_div(tiles, self._tasks), LEAST_BLOCK), tiles)
        if windows and not self.own_weights:
            blocks = whole_rows(wanted, BLOCK, cols, tiles)
            self.tile = best_tile(blocks.size, filters, itemsize)
            return blocks
        return Blocks(min(ceil_div(wanted, self.tile.rows) * self.tile.rows, tiles), tiles)

    def _tap_places(self, gradient: bool) -> np.ndarray:
        """Where `transform_channels` finds the taps of each piece."""
        p, pieces = self.problem, self.axes.sizes("pieces")
        places = np.full((pieces.down * self.taps.down, pieces.across * self.taps.across), p.KH * p.KW * BAND)
        taps = np.arange(p.KH * p.KW)[:: -1 if gradient else 1].reshape(p.KH, p.KW)
        places[: p.KH, : p.KW] = taps * (BAND if p.channels_last else 1)
        by_piece = places.reshape(pieces.down, self.taps.down, pieces.across, self.taps.across).swapaxes(1, 2)
        return by_piece.reshape(-1) * self.geometry.tile_cols

    def _cycles(self, image_bytes: int) -> float:
        p, g, lanes = self.problem, self.geometry, MACHINE.lanes(self.problem.dtype.itemsize)
        tiles = p.N * self.tiles
        to_tiles, from_tiles, to_positions = _CYCLES[self.positions]
        products = self.positions * self.tile.cycles_for(tiles, g.filters, self.depth, g.depth_block)
        products *= _SLOWDOWN * costs.IN_RUNS
        shares = ceil_div(self.w_shape[0], g.share)
        pieces = self.axes.sizes("pieces").numbers
        inputs = ceil_div(g.channels, lanes) * to_tiles * (1.0 if pieces == 1 else _PIECES_SLOWDOWN)
        inputs = tiles * shares * pieces * (inputs + self.positions * CYCLES_PER_PLACE)
        tile_bytes = self.positions * self.depth * p.dtype.itemsize
        beyond = max(1 - _CACHED_TILES_BYTES / (self.tiling.block * max(tile_bytes, 1)), 0.0)
        inputs += tiles * shares * tile_bytes * beyond * _CYCLES_PER_BYTE_BEYOND
        outputs = tiles * (ceil_div(g.filters, lanes) * from_tiles + self.outputs.numbers * CYCLES_PER_PLACE)
        weights = self.depth * ceil_div(g.filters, lanes) * to_positions
        each = _CYCLES_PER_WEIGHT_TRANSPOSED if self.weights.transposed else _CYCLES_PER_WEIGHT
        weights += g.channels * g.filters * p.KH * p.KW * each
        weight_bytes = math.prod(self.w_shape) * p.dtype.itemsize
        if self.own_weights:
            weights += weight_bytes * _CYCLES_PER_BYTE_OWN
        else:
            weights += max(weight_bytes - _CACHED_WEIGHTS_BYTES, 0) * _CYCLES_PER_BYTE_BEYOND
        cycles = products + inputs + outputs + weights + 3 * costs.CYCLES_PER_LAUNCH
        if not p.channels_last:
            each = costs.cycles_per_transposed(g.out_filter * p.dtype.itemsize)
            if self.tiling.across > 1:
                each = costs.CYCLES_PER_SCATTERED
            cycles += p.N * (g.out_filter * g.filters * each + image_bytes * 2 * costs.CYCLES_PER_BYTE_MOVED)
            if g.window:
                cycles += p.N * g.channels * g.height * g.width * _CYCLES_PER_WINDOW_NUMBER
        return cycles

    def prepare(self, w: np.ndarray) -> np.ndarray:
        """G w G^T of every filter and channel, as panels: (panels, positions, w_stride)."""
        transformed = np.zeros(self.w_shape, w.dtype)
        self._transform(w, transformed)
        return transformed

    def _transform(self, w: np.ndarray, transformed: np.ndarray) -> None:
        slots = runtime.slots_for(w.size * 16)
        with Scratch() as scratch:
            runtime.run_on(
                transform_weights, slots, *self._weight_callbacks, w.reshape(-1), self.band_rows, self.w_rows,
                self.tap_places, scratch.take((slots, self.tap_places.size), INDEX), self._bands(slots, scratch),
                transformed, self.weights,
            )  # fmt: skip

    @cached_property
    def _weight_callbacks(self) -> tuple[int, ...]:
        itemsize = self.problem.dtype.itemsize
        callbacks = weight_transform(self.n, self.taps, itemsize), copy_block(itemsize), transpose_block(itemsize)
        return tuple(callback.address for callback in callbacks)

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        """Addresses of the transforms and the sweeps."""
        g, itemsize = self.geometry, self.problem.dtype.itemsize
        shape = self.tile.rows, self.tile.vectors, itemsize
        return (
            input_transform(self.n, itemsize).address,
            tile_sweep(*shape, lane_bias=True, apart=1).address,
            tile_sweep(*shape, lane_bias=True, add=True, apart=1).address if self.depth > g.depth_block else 0,
            output_transform(self.n, self.outputs, itemsize).address, *self._weight_callbacks,
        )  # fmt: skip

    def _bands(self, slots: int, scratch: Scratch) -> np.ndarray:
        return scratch.take((slots, self.band_numbers), self.problem.dtype)

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        p, g = self.problem, self.geometry
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        with Scratch(self.workspace) as scratch:
            if prepared is not None:
                g, w = g._replace(w_scratch=0), prepared
            elif not self.own_weights:
                transformed = scratch.take(self.w_shape, p.dtype)
                self._transform(w, transformed)
                w = transformed
            own, bands = scratch.take((slots, self.slot_numbers), p.dtype), self._bands(slots, scratch)
            addresses = scratch.take((slots, self.places), INDEX)
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                with scratch:
                    x = self.source.prepare(operand[images], slots, scratch)
                    runtime.run_tasks(
                        winograd, slots, *self._callbacks, x, w.reshape(-1), self.band_rows,
                        self.w_rows, self.tap_places, bias, self.zeros, out[images].reshape(-1), self.trow,
                        self.acol, self.brow, self.vectors, self.srow, addresses, bands, own,
                        self.tiling, changed(g, images=len(operand[images])), self.weights,
                    )  # fmt: skip


def _declines(problem: ConvProblem, direction: str, *, n: tuple[int, int]) -> str | None:
    kernel = f"the kernel is {problem.KH}x{problem.KW}"
    if problem.KH == problem.KW == 1:
        return f"{kernel}: there is nothing to save"
    if min(problem.KH, problem.KW) == 1 and n == (6, 6):
        return f"{kernel}, which winograd2x4 computes with as few products"
    if axes_of(problem, *n).sizes("pieces").numbers > _MOST_PIECES:
        return f"{kernel}, more than {_MOST_PIECES} of its pieces"
    if problem.stride != (1, 1):
        return f"the stride is {problem.stride}, not 1"
    if problem.groups > 1:
        return "groups are not split"
    return None


def _algorithm(name: str, n: tuple[int, int], description: str, exact: bool) -> Algorithm:
    return Algorithm(
        name,
        description,
        lambda problem, threads, relu: WinogradPass(problem, threads, n=n, gradient=False, relu=relu),
        partial(WinogradPass, n=n, gradient=True),
        partial(WinogradGradientPass, n=n),
        partial(_declines, n=n),
        exact,
    )


ALGORITHMS = (
    _algorithm("winograd2x2", (4, 4), "F(2x2, 3x3) and the like: 2.25 times fewer products", True),
    _algorithm(
        "winograd2x4", (4, 6), "F(2x4, 3x3) and the like: 3 times fewer products, twice the rounding error", True
    ),
    _algorithm("winograd4x4", (6, 6), "F(4x4, 3x3) and the like: 4 times fewer, four times the rounding error", False),
)
