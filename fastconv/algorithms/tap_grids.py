"""Stretches of output rows and columns that meet the same taps, so that taps outside the image are not multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product

from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import Outputs

_MOST = 7  # spans of one axis: what 7 taps around a row of pixels make


@dataclass(frozen=True)
class Span:
    """`count` outputs of an axis, from output `begin` on; they meet `taps` of its taps, from tap `first` on."""

    begin: int
    count: int
    first: int
    taps: int

    def reach(self, outputs: Outputs) -> tuple[int, int]:
        """First input cell that is met, and the one behind the last; below 0 or beyond the image there are zeros."""
        if not self.taps:
            return 0, 0
        lowest, highest = (outputs.taps[tap][1] for tap in (self.first, self.first + self.taps - 1))
        end = self.begin + self.count - 1
        return self.begin * outputs.stride + lowest, end * outputs.stride + highest + 1


def padding(reach: list[tuple[int, int]], size: int) -> tuple[int, int]:
    """Zeros before `size` input cells, and the length with those before and behind, that cover what spans reach."""
    before = max(-min(first for first, _ in reach), 0)
    return before, max(before + max(size, *(end for _, end in reach)), 0)


def whole(outputs: Outputs) -> list[Span]:
    """All outputs and all taps."""
    return [Span(0, outputs.count, 0, len(outputs.taps))]


def spans(outputs: Outputs, size: int) -> list[Span]:
    """Outputs cut where the taps change that meet one of `size` input cells.

    Tap at `offset` meets a cell from output ceil(-offset / stride) to ceil((size - offset) / stride), exclusively.
    Beyond some spans, neighbours are joined: their outputs see all taps that one of them meets.
    """

    def within(output: int) -> int:
        return min(max(output, 0), outputs.count)

    met = [
        (within(ceil_div(-offset, outputs.stride)), within(ceil_div(size - offset, outputs.stride)))
        for _, offset in outputs.taps
    ]
    ends = sorted({end for pair in met for end in pair} - {0, outputs.count})
    ends = [0, *ends[:: ceil_div(len(ends) + 1, _MOST)], outputs.count]
    found = []
    for begin, end in pairwise(ends):
        inside = [tap for tap, (first, last) in enumerate(met) if first < end and begin < last]
        first, taps = (inside[0], inside[-1] + 1 - inside[0]) if inside else (0, 0)
        found.append(Span(begin, end - begin, first, taps))
    return found


@dataclass(frozen=True)
class Grid:
    """Output pixels that meet the same taps: spans of the rows `down` and of the columns `across`.

    `phase` numbers the pair (down, across), before whose taps the sums of other pairs have `depth_start` steps.
    """

    phase: int
    depth_start: int
    down: Outputs
    across: Outputs
    rows: Span
    cols: Span

    @property
    def pixels(self) -> int:
        """Of one image."""
        return self.rows.count * self.cols.count

    @property
    def taps(self) -> int:
        return self.rows.taps * self.cols.taps

    def segments(self, channels: int, most: int, pixels: bool) -> list[tuple[int, int]]:
        """(first step, steps) of the sum, at most `most` at a time; at least one, which may be empty.

        Steps run over (row of taps, column of taps, channel) where the input is `pixels`. Where it is planes, channels
        come first, and all taps are met.
        """
        across = len(self.across.taps)
        if not pixels:
            stretches = [(0, self.taps * channels)]
        elif self.cols.taps == across:
            stretches = [(self.rows.first * across * channels, self.taps * channels)]
        else:
            stretches = [
                ((row * across + self.cols.first) * channels, self.cols.taps * channels)
                for row in range(self.rows.first, self.rows.first + self.rows.taps)
            ]
        cut = [
            (self.depth_start + first + step, min(most, steps - step))
            for first, steps in stretches
            for step in range(0, steps, most)
        ]
        return cut or [(self.depth_start, 0)]


def grids_of(
    down: list[Outputs], across: list[Outputs], rows: list[list[Span]], cols: list[list[Span]], channels: int
) -> list[Grid]:
    """All grids, those of the longest sums first: what a thread is left with at the end is little.

    `rows` and `cols` are the spans of each entry of `down` and `across`; a sum runs over `channels` for each tap.
    """
    grids, depth = [], 0
    for (v, above), (h, beside) in product(enumerate(down), enumerate(across)):
        phase = v * len(across) + h
        grids += [Grid(phase, depth, above, beside, *pair) for pair in product(rows[v], cols[h])]
        depth += len(above.taps) * len(beside.taps) * channels
    return sorted((grid for grid in grids if grid.pixels), key=lambda grid: -grid.taps)
