"""How Winograd's algorithm cuts the taps and outputs of a problem, along either axis, and its tiles into blocks."""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.winograd_transforms import Sizes
from fastconv.algorithms.costs import ceil_div
from fastconv.problem import ConvProblem


class Axis(NamedTuple):
    """Tiles of `n` numbers, as the transforms take them, for `pieces` of `taps` taps each.

    The last piece may reach beyond the kernel, where taps are zero. An axis with a single tap is left as it is: n = 1.
    """

    pieces: int
    taps: int
    n: int

    @property
    def outputs(self) -> int:
        """Numbers that a tile gives."""
        return self.n - self.taps + 1

    @property
    def products(self) -> float:
        """Products for each output, where a plain sum needs one per tap."""
        return self.pieces * self.n / self.outputs


class Axes(NamedTuple):
    down: Axis
    across: Axis

    def sizes(self, name: str) -> Sizes:
        """That attribute of both axes."""
        return Sizes(getattr(self.down, name), getattr(self.across, name))


def _cut(taps: int, n: int) -> Axis:
    """The pieces that need the fewest products; of several such, those whose tiles give the most outputs.

    >>> _cut(3, 4), _cut(7, 6)
    (Axis(pieces=1, taps=3, n=4), Axis(pieces=2, taps=4, n=6))
    """
    if taps == 1:
        return Axis(1, 1, 1)
    axes = (Axis(ceil_div(taps, length), length, n) for length in range(2, n))
    return min(axes, key=lambda axis: (axis.products, -axis.outputs))


def axes_of(problem: ConvProblem, fewer: int, more: int) -> Axes:
    """Tiles of `fewer` x `more` numbers, the greater one on the axis of more taps."""
    kh, kw = problem.KH, problem.KW
    return Axes(_cut(kh, more if kh > kw else fewer), _cut(kw, fewer if kh > kw else more))


CYCLES_PER_PLACE = 1.0  # finding where a number of a tile lies

# Channels-first planes of so many pixels are transposed where tiles are made of them, window by window, smaller ones
# before that: dw of 64 channels of 224x224 took 13.9 and 11.9 ms, of 512 of 14x14 14.7 and 15.8. A window serves one
# piece; undilated, rows of tiles follow each other. Planes of one pixel are channels-last as well, and read as such.
WINDOW_PIXELS = 1024


def by_windows(problem: ConvProblem, axes: Axes) -> bool:
    whole = axes.sizes("pieces").numbers == 1 and problem.dilation == (1, 1)
    return whole and not problem.channels_last and min(problem.H * problem.W, problem.OH * problem.OW) >= WINDOW_PIXELS


class Blocks(NamedTuple):
    """Tiles are taken `size` at a time, such that none reaches from one line of `line` tiles into the next."""

    size: int
    line: int


def whole_rows(wanted: int, most: int, cols: int, tiles: int) -> Blocks:
    """Blocks of about `wanted` tiles, at most `most`, of whole rows of `cols` tiles, or of parts of one row.

    The windows of pixels that such blocks meet overlap least.
    """
    if cols > most:
        return Blocks(ceil_div(cols, ceil_div(cols, wanted)), cols)
    return Blocks(min(max(wanted // cols, 1) * cols, tiles), tiles)


def window_pixels(
    blocks: Blocks, outputs: Sizes, numbers: Sizes, rows: int, cols: int, height: int, width: int, top: int
) -> int:
    """Pixels of a window at most: images of height x width, with `top` zeros before them, of rows x cols tiles.

    A tile takes `numbers` pixels, and begins `outputs` behind the one before it.
    """
    if blocks.line == cols:
        return numbers.down * min((blocks.size - 1) * outputs.across + numbers.across, width)
    tile_rows = ceil_div(blocks.size, cols)
    images = (tile_rows + rows - 2) // rows + 1
    more = numbers.down + abs(top) + max(height - rows * outputs.down, 0)  # rows of each image beyond its tiles'
    return min(tile_rows * outputs.down + images * more, images * height) * width
