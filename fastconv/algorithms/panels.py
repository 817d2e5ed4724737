"""Weights as panels: a few filters side by side, in the order in which the register tile reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, transpose_block
from fastconv._kernels.over_filters import pack_panels
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch


@dataclass(frozen=True)
class Weights:
    """Where the number of a filter for depth step (batch, row) lies in w; see `pack_panels`.

    For the gradient of x the "filters" are the channels of x, and the depth walks the problem's filters.
    """

    groups: int
    filters: int  # of one group: columns of the panels
    group_stride: int
    batches: int
    batch_stride: int
    rows: int
    stride: int
    transposed: bool

    @classmethod
    def forward(cls, p: ConvProblem) -> Weights:
        channels, filters = p.group_channels, p.group_filters
        if p.channels_last:
            return cls(p.groups, filters, filters, p.taps, channels * p.F, channels, p.F, False)
        depth = channels * p.taps
        return cls(p.groups, filters, filters * depth, 1, 0, depth, depth, True)

    @classmethod
    def gradient(cls, p: ConvProblem) -> Weights:
        channels, filters = p.group_channels, p.group_filters
        if p.channels_last:
            return cls(p.groups, channels, filters, p.taps, channels * p.F, filters, p.F, True)
        per_filter = channels * p.taps
        return cls(p.groups, channels, filters * per_filter, filters, per_filter, p.taps, p.taps, True)

    @property
    def depth(self) -> int:
        return self.batches * self.rows

    def panels(self, tile_cols: int) -> int:
        return -(-self.filters // tile_cols)

    def panel_bytes(self, tile_cols: int, itemsize: int) -> int:
        return self.groups * self.panels(tile_cols) * self.depth * tile_cols * itemsize

    @cached_property
    def _source_rows(self) -> np.ndarray:
        return np.arange(self.rows) * self.stride

    def pack(self, w: np.ndarray, tile_cols: int, scratch: Scratch) -> np.ndarray:
        """(groups, panels, depth, tile_cols); columns past the last filter hold anything."""
        panels = scratch.take((self.groups, self.panels(tile_cols), self.depth, tile_cols), w.dtype)
        block = (transpose_block if self.transposed else copy_block)(w.dtype.itemsize)
        runtime.launch(
            pack_panels, w.size * 4, block.address, self.transposed, w.reshape(-1), panels,
            np.arange(self.rows) * tile_cols, self._source_rows, self.filters, self.group_stride, self.batches,
            self.batch_stride, self.rows, self.stride,
        )  # fmt: skip
        return panels
