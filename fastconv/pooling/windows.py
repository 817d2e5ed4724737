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


class Tables(NamedTuple):
    """What the kernels of `src_kernels/pooling.py` walk."""

    starts: np.ndarray  # (OH + 1,): where each output row's part of cells and taps begins
    cells: np.ndarray  # rows of x that output rows are made of
    taps: np.ndarray  # for each of them, kh * KW
    runs: np.ndarray  # (R, 4): tap kw, first column of out, first column of x, length
    step: int  # distance of a run's columns in x; above 1, x's columns are counted phase by phase
    cover_starts: np.ndarray  # (H + 1,), like starts
    covering: np.ndarray  # output rows whose windows contain each row of x


def _runs(axis: Axis, lanes: int) -> tuple[np.ndarray, int]:
    """Columns (w, lane) of out and x that belong together, in runs as long as possible."""
    places, inside = axis.places, axis.inside
    if axis.adaptive or (lanes > 1 and axis.stride > 1):
        windows, taps = np.nonzero(inside)
        columns = taps, windows * lanes, places[windows, taps] * lanes, np.full(taps.size, lanes)
        return np.stack(columns, axis=1), 1
    step = axis.stride if axis.count > 1 else 1
    result = []
    for tap in np.flatnonzero(inside.any(axis=0)):  # all windows at once
        windows = np.flatnonzero(inside[:, tap])
        phase, column = places[windows[0], tap] % step, places[windows[0], tap] // step
        source = (phase * -(-axis.size // step) + column) * lanes
        result.append((tap, windows[0] * lanes, source, windows.size * lanes))
    return np.array(result), step


@lru_cache(maxsize=256)
def _tables(vertical: Axis, horizontal: Axis, lanes: int) -> Tables:
    windows, taps = np.nonzero(vertical.inside)  # sorted by window
    cells = vertical.places[windows, taps]
    by_cell = np.argsort(cells, kind="stable")
    runs, step = _runs(horizontal, lanes)
    return Tables(
        starts=np.searchsorted(windows, np.arange(vertical.count + 1)),
        cells=cells,
        taps=taps * horizontal.kernel,
        runs=runs,
        step=step,
        cover_starts=np.searchsorted(cells[by_cell], np.arange(vertical.size + 1)),
        covering=windows[by_cell],
    )


@dataclass(frozen=True)
class Stage:
    """Pooling along one or two neighbouring axes, as the kernels see it: x is (planes, rows, columns * lanes)."""

    planes: int
    vertical: Axis
    horizontal: Axis
    lanes: int

    @property
    def x_shape(self) -> tuple[int, int, int]:
        return self.planes, self.vertical.size, self.horizontal.size * self.lanes

    @property
    def out_shape(self) -> tuple[int, int, int]:
        return self.planes, self.vertical.count, self.horizontal.count * self.lanes

    @property
    def cells(self) -> int:
        """How many cells the largest window has."""
        return self.vertical.kernel * self.horizontal.kernel

    @property
    def work(self) -> int:
        """Numbers moved, times 8, for `runtime.launch`."""
        rows = self.vertical.size * self.horizontal.size + self.vertical.count * self.horizontal.count
        return 8 * self.planes * self.lanes * rows

    @property
    def tables(self) -> Tables:
        return _tables(self.vertical, self.horizontal, self.lanes)
