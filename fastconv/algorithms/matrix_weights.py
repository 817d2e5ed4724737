"""Weights in the form in which the matrix unit reads them: tables and sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastconv import runtime
from fastconv._kernels.bfloat_parts import split_pairs, split_pairs_by_lane
from fastconv._kernels.matrix_tile import ROW_BYTES, SIDE
from fastconv._kernels.matrix_weights import cut_panels
from fastconv.algorithms.weight_panels import WeightPanels
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_CYCLES_PER_PART, _CYCLES_PER_PACKED = 0.8, 1.5  # of a weight: written, and read again; as a float before that


@dataclass(frozen=True)
class MatrixWeights:
    """Panels of the filters of `right` tiles, group by group.

    `rows` are the places of a group's weights, `depth` for each step, -1 for zeros: offsets in w where filters lie side
    by side there, otherwise in a panel of `floats`, packed beforehand.
    """

    floats: WeightPanels
    right: int
    depth: int
    parts: int
    planes: bool  # whether filters are a tile's rows
    rows: np.ndarray

    @classmethod
    def of(cls, p: ConvProblem, gradient: bool, right: int, depth: int, parts: int, rows: np.ndarray) -> MatrixWeights:
        floats = WeightPanels.of(p, gradient, right * SIDE, taps_first=True)
        stride = floats.width if floats.transposed else floats.stride
        return cls(floats, right, depth, parts, not p.channels_last, np.where(rows < 0, -1, rows * stride))

    @property
    def panels(self) -> int:
        """Of one group."""
        return self.floats.panels

    @property
    def steps(self) -> int:
        return self.rows.size // self.depth

    @property
    def tile_bytes(self) -> int:
        return (SIDE if self.planes else self.depth // 2) * ROW_BYTES

    @property
    def part_bytes(self) -> int:
        return self.right * self.tile_bytes

    @property
    def step_bytes(self) -> int:
        return self.parts * self.part_bytes

    @property
    def shape(self) -> tuple[int, int]:
        """Panels of all groups, and bytes of each."""
        return self.floats.groups * self.panels, self.steps * self.step_bytes

    @property
    def workspace(self) -> int:
        return self.floats.nbytes * self.floats.transposed + self.shape[0] * self.shape[1]

    @property
    def cycles(self) -> float:
        weights = self.shape[0] * self.floats.depth * self.right * SIDE
        return weights * (_CYCLES_PER_PART * self.parts + _CYCLES_PER_PACKED * self.floats.transposed)

    def pack(self, w: np.ndarray, scratch: Scratch) -> np.ndarray:
        out = scratch.take(self.shape, np.dtype(np.uint8))
        self._cut(w, out)
        return out

    def packed(self, w: np.ndarray) -> np.ndarray:
        """The same, the caller's own."""
        out = np.empty(self.shape, np.uint8)
        self._cut(w, out)
        return out

    def _cut(self, w: np.ndarray, out: np.ndarray) -> None:
        floats = self.floats
        cut = (split_pairs_by_lane if self.planes else split_pairs)(self.parts)
        with Scratch() as scratch:
            group, panel = floats.group_stride, floats.width
            if floats.transposed:
                panels = scratch.take(floats.shape, w.dtype)
                floats.pack(w, panels)
                w, panel = panels, floats.depth * floats.width
                group = floats.panels * panel
            runtime.launch(
                cut_panels, w.size * 8, cut.address, w.reshape(-1), floats.groups, group,
                panel, self.rows, out, floats.filters, self.depth, self.right, self.part_bytes, self.tile_bytes,
            )  # fmt: skip
