"""Weights in the order in which the register tile reads them: panels of filters (or channels), depth step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, transpose_to_rows
from fastconv._kernels.weight_panels import Packing, pack_panels
from fastconv.algorithms.tables import steps
from fastconv.problem import ConvProblem

_ROWS = 64  # of weights that are packed at a time: far apart, they would leave the caches before the next panel's turn


def _batches(depth: int) -> tuple[int, int]:
    """Steps of depth as (batches, rows of each), at most `_ROWS` rows unless depth has no such divisor above 7."""
    rows = next((rows for rows in range(min(_ROWS, depth), 7, -1) if depth % rows == 0), depth)
    return depth // rows, rows


@dataclass(frozen=True)
class WeightPanels:
    """Panels (groups / together, panel, depth, `width`) of a problem's weights, for its forward pass or gradient of x.

    Depth runs over (c, kh, kw) forward and (f, kh, kw) for the gradient; channels-last, and with `taps_first`, over
    (kh, kw, c) and (kh, kw, f). Depth step (batch, row) of a filter lies as `Packing` says.
    """

    width: int
    itemsize: int
    groups: int
    together: int  # groups whose filters share a panel
    filters: int  # of one group
    group_stride: int
    batches: int
    batch_stride: int
    rows: int
    stride: int
    transposed: bool
    taps: int  # by which rows of channels-first weights are put in order of taps; else 1

    @classmethod
    def of(
        cls, p: ConvProblem, gradient: bool, width: int, together: int = 1, *, taps_first: bool = False
    ) -> WeightPanels:
        filters, channels, taps = p.group_filters, p.group_channels, p.taps
        per_filter = channels * taps
        if not gradient:
            if p.channels_last:
                batches, rows = _batches(channels * taps)
                source = filters, filters, batches, rows * p.F, rows, p.F, False
            else:
                source = filters, filters * per_filter, 1, 0, per_filter, per_filter, True
        elif p.channels_last:
            source = channels, filters, taps, channels * p.F, filters, p.F, True
        elif taps == 1:  # the channels of a filter lie side by side
            batches, rows = _batches(filters)
            source = channels, filters * per_filter, batches, rows * channels, rows, channels, False
        else:
            source = channels, filters * per_filter, filters, per_filter, taps, taps, True
        ordered = taps if taps_first and not p.channels_last else 1
        return cls(width, p.dtype.itemsize, p.groups, together, *source, ordered)

    @property
    def depth(self) -> int:
        return self.batches * self.rows

    @property
    def panels(self) -> int:
        """Panels of one group, or of the groups that share one."""
        return -(-self.filters // self.width)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return -(-self.groups // self.together), self.panels, self.depth, self.width

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.itemsize

    @cached_property
    def row_offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows of one batch, in a panel and in w."""
        channel, tap = np.divmod(np.arange(self.rows), self.taps)
        return (tap * (self.depth // self.taps) + channel) * self.width, np.arange(self.rows) * self.stride

    @cached_property
    def block(self) -> int:
        """Address of what moves a batch into a panel."""
        return (transpose_to_rows if self.transposed else copy_block)(self.itemsize).address

    @cached_property
    def packing(self) -> Packing:
        return Packing(
            transposed=int(self.transposed), filters=self.filters, group_stride=self.group_stride, batches=self.batches,
            batch_stride=self.batch_stride, batch_place=self.rows // self.taps * self.width, rows=self.rows,
            stride=self.stride,
        )  # fmt: skip

    def pack(self, w: np.ndarray, panels: np.ndarray) -> None:
        """Fill `panels`; numbers past the last filter stay as they are."""
        runtime.launch(
            pack_panels, w.size * 4, self.block, w.reshape(-1), panels, *self.row_offsets,
            steps(self.depth * self.width, self.panels), steps(self.width, self.panels), self.groups, self.together,
            self.packing,
        )  # fmt: skip

    def packed(self, w: np.ndarray) -> np.ndarray:
        """New panels of w; zeros past the last filter."""
        panels = np.zeros(self.shape, w.dtype)
        self.pack(w, panels)
        return panels
