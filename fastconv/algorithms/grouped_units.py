"""Grouped convolution: how groups share vectors, and where the numbers of packed rows lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastconv._kernels.grouped_packing import Packing
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import Outputs
from fastconv.algorithms.tables import offsets
from fastconv.problem import ConvProblem

TASK_BYTES = 192 * 1024  # packed rows of one task, which pass from L2 once per panel of filters
_LINE_BYTES = 256  # of each channels-last pixel are read together

# Measured on a 2-core Zen 3 (AVX2), whose clock of 2.9 GHz the predictions meet within 20 %.
SLOWDOWN = 1.02  # of the inner loops, beyond what limits them
CYCLES_PER_PACKED = 6.0  # a vector of a pixel on its way into scratch memory or out of it, from beyond L2
CYCLES_PER_WEIGHT = 1.0
# The others read windows of one group in place, whose numbers lie far apart and compete for the same lines of the
# first-level cache; their predictions leave that out. ResNeXt's layers take them 1.2 to 4 times as long as predicted,
# but for the widest groups (32 channels of 7x7: "direct" 0.85 to 1.3 ms, "grouped" 1.4).
SPARED = 0.25


@dataclass(frozen=True)
class Units:
    """What is computed together: `together` groups in one vector of `width` channels each, or one group (width 0).

    `channels` and `filters` are those of a unit, which fill `blocks` and `panels` vectors.
    """

    width: int
    together: int
    count: int
    channels: int
    filters: int
    blocks: int
    panels: int

    @classmethod
    def of(cls, groups: int, channels: int, filters: int, lanes: int) -> Units:
        if channels == filters < lanes and lanes % channels == 0:
            together = lanes // channels
            return cls(channels, together, ceil_div(groups, together), lanes, lanes, 1, 1)
        return cls(0, 1, groups, channels, filters, ceil_div(channels, lanes), ceil_div(filters, lanes))


@dataclass(frozen=True)
class Rows:
    """Padded rows and columns of the operand that the output rows and columns of all phases meet."""

    rows: list[Outputs]
    columns: list[Outputs]

    @property
    def above(self) -> int:
        return max(0, *(-offset for rows in self.rows for _, offset in rows.taps), 0)

    @property
    def left(self) -> int:
        return max(0, *(-offset for columns in self.columns for _, offset in columns.taps), 0)

    def height(self, band: int) -> int:
        """Rows that `band` output rows meet."""
        reach = [
            (ceil_div(band - rows.first, rows.step) - 1) * rows.stride + offset
            for rows in self.rows
            if rows.first < band
            for _, offset in rows.taps
        ]
        return self.above + max(reach, default=0) + 1

    def width(self, given: int) -> int:
        reach = [(c.count - 1) * c.stride + offset for c in self.columns for _, offset in c.taps]
        return self.left + max(max(reach, default=0) + 1, given)


def packing_of(
    p: ConvProblem, height: int, width: int, total: int, channels: int, blocks: int, rows: int, cols: int,
    above: int, step: int,
) -> Packing:  # fmt: skip
    """An operand of `total` channels, of which a unit has `channels`, in blocks of rows x cols pixels."""
    lanes = MACHINE.lanes(p.dtype.itemsize)
    line = 64 // p.dtype.itemsize  # keeps blocks from competing for the same cache lines
    return Packing(
        height=height, width=width, image=height * width * total, pixel=total if p.channels_last else 1,
        channel=1 if p.channels_last else height * width, channels=total, unit_channels=channels, blocks=blocks,
        lanes=lanes, joined=int(channels % lanes == 0), above=above, step=step, rows=rows, row=cols * lanes,
        block=rows * cols * lanes + line,
    )  # fmt: skip


def places_in(packing: Packing, left: int) -> np.ndarray:
    """Where the pixels of the given rows go within a block."""
    return offsets(np.arange(packing.rows) * packing.row, (left + np.arange(packing.width)) * packing.lanes)


def _run_lengths(columns: Outputs, units: Units) -> tuple[int, ...]:
    """How many taps of a row may be taken together, where they lie side by side.

    One channel leaves registers for the sums of 5 (7 spill some, which still is faster than one by one).
    """
    if columns.offset_step != 1:
        return (1,)
    return (7, 5, 3, 2, 1) if units.width == 1 else (3, 2, 1)


def run_length(columns: Outputs, units: Units) -> int:
    """The most taps that divide a row's."""
    return next(t for t in _run_lengths(columns, units) if len(columns.taps) % t == 0)


def fewest_runs(columns: Outputs, units: Units) -> int:
    """The fewest taps that make the fewest runs of a row, the last of which may be longer than the row.

    A run costs about the same whatever its length: one by one, 31x31 taps took 14.5 ms, in runs of 7 4.5. With groups
    of 4 to 32 channels, 5x5 and 7x7 taps took 0.7 to 1.04 times as long in runs of 3.
    """
    return min(_run_lengths(columns, units), key=lambda taps: (ceil_div(len(columns.taps), taps), taps))


def tap_entries(
    rows: Outputs, columns: Outputs, around: Rows, packing: Packing, channels: int, together: int, w_channel: int,
    w_row: int, w_tap: int,
) -> list[tuple[int, int, int]]:  # fmt: skip
    """See `grouped_tiles`: for every vector of channels, row tap and run of `together` column taps."""
    lanes = packing.lanes
    return [
        (
            block * packing.block + (down + around.above) * packing.row + (across + around.left) * lanes,
            block * lanes * w_channel + kh * w_row + kw * w_tap,
            min(lanes, channels - block * lanes),
        )
        for block in range(packing.blocks)
        for kh, down in rows.taps
        for kw, across in columns.taps[::together]
    ]


def units_at_once(p: ConvProblem, units: Units) -> int:
    """Units of one task: enough to read channels-last pixels by whole cache lines, but one of channels-first planes."""
    unit_bytes = max(units.blocks, units.panels) * MACHINE.lanes(p.dtype.itemsize) * p.dtype.itemsize
    return min(ceil_div(_LINE_BYTES, unit_bytes), units.count) if p.channels_last else 1
