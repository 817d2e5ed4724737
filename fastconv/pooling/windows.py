"""Pooling windows along axes, and the tables that the kernels walk instead of padding, stride and dilation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastconv.arguments import Pair, output_length


@dataclass(frozen=True)
class Axis:
    """The windows along one axis.

    Window o has the cells start(o) + tap * dilation, tap from 0 to kernel - 1, as far as they lie in the image;
    start(o) = o * stride - pads[0]. With `adaptive`, window o is [floor(o * size / count),
    ceil((o + 1) * size / count)) and `kernel` is the largest of their lengths.
    """

    size: int
    count: int
    kernel: int
    stride: int = 1
    pads: Pair = (0, 0)
    dilation: int = 1
    adaptive: bool = False

    @property
    def starts(self) -> np.ndarray:
        """(count,): the first cell of each window, negative where it lies in the padding."""
        o = np.arange(self.count)
        return o * self.size // self.count if self.adaptive else o * self.stride - self.pads[0]

    @property
    def places(self) -> np.ndarray:
        """(count, kernel): the place of every tap, inside the image or not; `size` for taps that a window lacks."""
        places = self.starts[:, None] + np.arange(self.kernel) * self.dilation
        if self.adaptive:
            ends = -(-(np.arange(1, self.count + 1) * self.size) // self.count)
            places[places >= ends[:, None]] = self.size
        return places

    @property
    def inside(self) -> np.ndarray:
        """(count, kernel): whether a tap lies inside the image."""
        places = self.places
        return (places >= 0) & (places < self.size)

    def divisors(self, include_pad: bool) -> np.ndarray:
        """(count,): cells per window; the padding counts as cells if asked to, what lies beyond it never does."""
        if not include_pad or self.adaptive:
            return self.inside.sum(axis=1)
        return (self.places < self.size + self.pads[1]).sum(axis=1)


def window_count(size: int, kernel: int, stride: int, pads: Pair, dilation: int, ceil_mode: bool) -> int:
    """How many windows there are; with ceil_mode also the last, partial one if it starts in the image or before it."""
    padded = size + sum(pads)
    if not ceil_mode:
        return output_length(padded, kernel, stride, dilation)
    count = output_length(padded + stride - 1, kernel, stride, dilation)
    return count - 1 if (count - 1) * stride >= size + pads[0] else count


def adaptive_axis(size: int, count: int) -> Axis:
    """`count` windows that cover an axis as evenly as integers allow."""
    if size % count == 0:
        return Axis(size, count, size // count, size // count)
    o = np.arange(count)
    longest = (-(-(o + 1) * size // count) - o * size // count).max()
    return Axis(size, count, int(longest), adaptive=True)


@lru_cache(maxsize=256)
def all_see_a_cell(axis: Axis) -> bool:
    """Whether every window contains a cell of the image."""
    return bool(axis.inside.any(axis=1).all())


MOST_STRAIGHT = 3  # vector kernels have code without a loop for windows of up to as many rows


class Lists(NamedTuple):
    """For each entry of an axis (a window, or a cell) what belongs to it, one after the other.

    `members[starts[i] : starts[i + 1]]` are the cells of window i, or the windows that cell i lies in, and `taps` the
    places of these cells in their windows.
    """

    starts: np.ndarray
    members: np.ndarray
    taps: np.ndarray

    @property
    def usual(self) -> int:
        """How many members most entries have, 0 if that is more than MOST_STRAIGHT."""
        counts = np.bincount(np.diff(self.starts))
        usual = int(counts.argmax())
        return usual if usual <= MOST_STRAIGHT else 0


@lru_cache(maxsize=256)
def cells_of_windows(axis: Axis) -> Lists:
    """The cells of every window that lie inside the image."""
    windows, taps = np.nonzero(axis.inside)  # sorted by window
    return Lists(np.searchsorted(windows, np.arange(axis.count + 1)), axis.places[windows, taps], taps)


@lru_cache(maxsize=256)
def windows_of_cells(axis: Axis) -> Lists:
    """The windows that every cell lies in."""
    windows, taps = np.nonzero(axis.inside)
    cells = axis.places[windows, taps]
    order = np.argsort(cells, kind="stable")
    return Lists(np.searchsorted(cells[order], np.arange(axis.size + 1)), windows[order], taps[order])


@lru_cache(maxsize=256)
def runs_of_columns(axis: Axis) -> tuple[np.ndarray, int]:
    """(runs, step): columns of out and x that belong together, in runs as long as possible.

    A run is (tap, first column of out, first column of x, length); its columns of x are `step` apart, and if that is
    above 1 they are counted phase by phase.
    """
    places, inside = axis.places, axis.inside
    if axis.adaptive:
        windows, taps = np.nonzero(inside)
        return np.stack((taps, windows, places[windows, taps], np.ones_like(taps)), axis=1), 1
    step = axis.stride if axis.count > 1 else 1
    result = []
    for tap in np.flatnonzero(inside.any(axis=0)):  # all windows at once
        windows = np.flatnonzero(inside[:, tap])
        phase, column = places[windows[0], tap] % step, places[windows[0], tap] // step
        result.append((tap, windows[0], phase * -(-axis.size // step) + column, windows.size))
    return np.array(result), step
