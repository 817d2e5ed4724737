"""How a convolution is cut into tiles for Fourier transforms, and what transforming them costs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from fastconv._kernels import fourier_transforms as transforms
from fastconv._kernels.blocks import copy_block
from fastconv._kernels.fourier import Calls, Tiles, Weights
from fastconv._kernels.fourier_products import spectral_products, spectral_tile
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms.costs import ceil_div
from fastconv.problem import ConvProblem

# Cycles of a vector of complex numbers, measured on a Zen 3 with AVX2: transforming columns of each length (longer
# ones have more steps, and lie in L2), turning a tile round, loading and storing it.
_CYCLES_OF_LENGTH = {16: 12.0, 32: 15.0, 64: 22.0, 128: 34.0, 256: 46.0}
_CYCLES_TURNED, _CYCLES_MOVED = 8.0, 6.0
_CYCLES_PER_TILE = 300.0  # calls and tables, beside the numbers
_CYCLES_PER_KERNEL, _CYCLES_PER_TAP = 500.0, 3.0
# Products of spectra: a step of depth of one tile of sums, operands from L2, and setting out and storing it.
_CYCLES_PER_PRODUCT, _LEAST_CYCLES, _CYCLES_PER_SUM = 2.6, 7.0, 8.0
_CYCLES_SCATTERED = 12.0  # more, where spectra of all tiles are kept, a vector in every place
_CACHED_BYTES, _CYCLES_PER_BYTE_BEYOND = 4 * 2**20, 0.7  # spectra of weights: written once, read by every task
CYCLES_PER_RUN = 100_000.0  # of each core, while Python prepares the launches


@dataclass(frozen=True, eq=False)
class Cut:
    """Tiles of one image, and cycles of one tile (see `cut`)."""

    tiles: Tiles
    loaded: float  # two tiles of a channel into their spectrum
    stored: float  # the spectrum of a result into two tiles
    scattered: float  # more, for spectra that are kept for all tiles
    weights: float  # one kernel into its spectrum

    def all_weights(self, kernels: int, itemsize: int) -> float:
        """So many kernels into their spectra."""
        numbers = kernels * 2 * self.tiles.high * self.tiles.wide
        return kernels * self.weights + max(numbers * itemsize - _CACHED_BYTES, 0) * _CYCLES_PER_BYTE_BEYOND

    def products(self, rows: int, cols: int, depth: int, shape: tuple[int, int]) -> float:
        """rows x cols spectra, each the sum of `depth` products, in tiles of `shape` sums."""
        t, sums = self.tiles, shape[0] * shape[1]
        step = max(_CYCLES_PER_PRODUCT * sums, _LEAST_CYCLES)
        tiles = ceil_div(rows, shape[0]) * ceil_div(cols, shape[1]) * t.high * t.wide / t.lanes
        return tiles * (depth * step + _CYCLES_PER_SUM * (1 + sums))

    @property
    def scratch(self) -> int:
        """Numbers of a slot's tile and its transposed."""
        t = self.tiles
        return 2 * (t.high * t.a_stride + t.wide * t.b_stride)

    def calls(self, dtype: np.dtype, shape: tuple[int, int]) -> Calls:
        """The compiled callbacks, for products of `shape` sums at a time."""
        t, size = self.tiles, dtype.itemsize
        return Calls(
            copy_block(size).address, transforms.transpose_whole(size).address,
            transforms.to_frequencies(t.high, size).address, transforms.to_frequencies(t.wide, size).address,
            transforms.from_frequencies(t.high, size).address, transforms.from_frequencies(t.wide, size).address,
            spectral_products(*shape, size).address, transforms.finish_rows(size).address,
        )  # fmt: skip

    def turns(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Tables of both transforms."""
        t = self.tiles
        return transforms.twiddles(t.high, dtype).reshape(-1), transforms.twiddles(t.wide, dtype).reshape(-1)


def reach(p: ConvProblem) -> tuple[int, int]:
    """Rows and columns that a dilated kernel spans."""
    return (p.KH - 1) * p.dilation[0] + 1, (p.KW - 1) * p.dilation[1] + 1


def _cut(p: ConvProblem, made: tuple[int, int], high: int, wide: int) -> Cut:
    lanes, line = MACHINE.lanes(p.dtype.itemsize), 64 // p.dtype.itemsize
    over_h, over_w = reach(p)
    step_h, step_w = min(high - over_h + 1, made[0]), min(wide - over_w + 1, made[1])
    rows, cols = ceil_div(made[0], step_h), ceil_div(made[1], step_w)
    # Rows of powers of two would compete for few lines of the first-level cache.
    tiles = Tiles(lanes, high, wide, wide + line, high + line, rows, cols, step_h, step_w, ceil_div(rows * cols, 2))
    vectors = high * wide / lanes
    along, across = _CYCLES_OF_LENGTH[high], _CYCLES_OF_LENGTH[wide]

    def used(columns: int) -> float:
        return ceil_div(columns, lanes) * lanes / wide

    return Cut(
        tiles,
        vectors * (along + across + _CYCLES_TURNED + _CYCLES_MOVED) + _CYCLES_PER_TILE,
        vectors * (across + used(step_w) * (along + _CYCLES_TURNED + _CYCLES_MOVED)) + _CYCLES_PER_TILE,
        vectors * _CYCLES_SCATTERED,
        vectors * (across + _CYCLES_TURNED + used(over_w) * (along + _CYCLES_MOVED))
        + _CYCLES_PER_KERNEL + _CYCLES_PER_TAP * p.taps,
    )  # fmt: skip


def _lengths(made: int, over: int) -> list[int]:
    """Lengths that hold the kernel, up to the first that takes all in one tile."""
    holding = [length for length in transforms.RADICES if length >= over]
    return [length for i, length in enumerate(holding) if i == 0 or holding[i - 1] < made + over - 1]


def cut(p: ConvProblem, made: tuple[int, int], *, gradient_w: bool = False) -> Cut:
    """The cheapest tiles for `made` rows and columns: of results, or of dout for the gradient of w."""
    over_h, over_w = reach(p)
    best, fewest = None, float("inf")
    channels, filters = p.group_channels, p.group_filters
    tile = spectral_tile()
    for high, wide in product(_lengths(made[0], over_h), _lengths(made[1], over_w)):
        tried = _cut(p, made, high, wide)
        pairs = p.N * tried.tiles.pairs
        if gradient_w:
            cycles = pairs * (p.C + p.F) * (tried.loaded + tried.scattered) + p.F * channels * tried.stored
            cycles += p.groups * tried.products(channels, filters, pairs, tile)
        else:
            cycles = pairs * (p.C * tried.loaded + p.F * tried.stored)
            cycles += tried.all_weights(p.F * channels, p.dtype.itemsize)
            cycles += p.groups * tried.products(pairs, filters, channels, tile)
        if cycles < fewest:
            best, fewest = tried, cycles
    assert best is not None  # otherwise the algorithm declines
    return best


def where(p: ConvProblem, gradient: bool) -> Weights:
    """How w is walked; the gradient of x takes the flipped kernel, and filters for channels."""
    if p.channels_last:
        group, filters, channels = p.group_filters, 1, p.F
        row, col = p.KW * p.group_channels * p.F, p.group_channels * p.F
    else:
        group, filters, channels = p.group_filters * p.group_channels * p.taps, p.group_channels * p.taps, p.taps
        row, col = p.KW, 1
    if gradient:
        first = (p.KH - 1) * row + (p.KW - 1) * col
        return Weights(first, group, channels, filters, -row, -col, p.KH, p.KW, *p.dilation)
    return Weights(0, group, filters, channels, row, col, p.KH, p.KW, *p.dilation)


def declines(p: ConvProblem, direction: str) -> str | None:
    longest = max(transforms.RADICES)
    if p.stride != (1, 1):
        return f"the stride is {p.stride}, not 1"
    if 1 in (p.KH, p.KW):
        return f"a kernel of {p.KH}x{p.KW} has a single row or column"
    if max(reach(p)) > longest:
        return f"the kernel spans {reach(p)[0]}x{reach(p)[1]} numbers, more than the longest transform, {longest}"
    return None
