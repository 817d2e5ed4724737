"""One pass of a pooling over one or two neighbouring axes: which kernel runs it, with which tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastconv import runtime, workspace
from fastconv._kernels import pooling as any_columns
from fastconv._kernels.isa import MACHINE
from fastconv._kernels.pool_channels import channels_kernel
from fastconv._kernels.pool_planes import mean_of_planes, spread_over_planes
from fastconv._kernels.pool_row_blocks import CODE_BITS, pixels_of_block, vectors_of_window
from fastconv._kernels.pool_rows import rows_kernel
from fastconv._kernels.pool_vectors import (
    CHOSEN,
    FIRST_LARGEST,
    KINDS_WITH_MASK,
    LARGEST,
    LISTS,
    MASK_ROOM,
    MEAN,
    SPREAD,
    pool,
)
from fastconv.pooling.windows import Axis, Lists, cells_of_windows, runs_of_columns, windows_of_cells

NOTHING = np.empty(0, np.uint8)  # for passes without mask and factors

# Limits of the kernels of `pool_rows`: shuffles grow with the square of the stride, registers with the window. Larger
# windows along a row of numbers are left to `pooling.py`.
MOST_STRIDE, MOST_TAPS, MOST_VECTORS = 4, 16, 16
# Rows of several blocks are taken a few at a time, so that what a block needs is found once for all. On 8x64x112x112,
# one core, a 2x2 gradient took 0.94 ms row by row, 0.72 to 0.80 with 1.4 to 2.8 KB, and 1.10 with 5.6 KB.
BAND_BYTES = 2048
MOST_WIDTH = 2**30  # places in a row are 32-bit numbers in the masks of float32


class VectorPass(NamedTuple):
    """A compiled kernel's address and its table."""

    callback: int
    table: np.ndarray


@dataclass(frozen=True)
class Stage:
    """Pooling along one or two neighbouring axes, as the kernels see it: x is (planes, rows, columns * lanes)."""

    planes: int
    vertical: Axis
    horizontal: Axis
    lanes: int
    dtype: np.dtype

    @cached_property
    def x_shape(self) -> tuple[int, int, int]:
        return self.planes, self.vertical.size, self.horizontal.size * self.lanes

    @cached_property
    def out_shape(self) -> tuple[int, int, int]:
        return self.planes, self.vertical.count, self.horizontal.count * self.lanes

    @property
    def cells(self) -> int:
        """How many cells the largest window has."""
        return self.vertical.kernel * self.horizontal.kernel

    @cached_property
    def work(self) -> int:
        """What `runtime.launch` weighs: a number moved takes as long as six multiply-adds."""
        rows = self.vertical.size * self.horizontal.size + self.vertical.count * self.horizontal.count
        return 6 * self.planes * self.lanes * rows

    @cached_property
    def mask_dtype(self) -> np.dtype:
        """Codes fit into a byte where windows have at most 256 cells."""
        return np.dtype(np.uint8 if self.cells <= 256 else np.int32)

    def new_mask(self) -> np.ndarray:
        """Memory for the code of each window, with the room that the kernels need on both sides."""
        return workspace.empty((math.prod(self.out_shape) + 2 * MASK_ROOM,), self.mask_dtype)

    def codes(self, mask: np.ndarray) -> np.ndarray:
        """The codes that lie in what `new_mask` gave, of the output's shape."""
        return mask[MASK_ROOM:-MASK_ROOM].reshape(self.out_shape)

    @cached_property
    def _passes(self) -> dict[int, VectorPass | None]:
        return {}

    def run(self, kind: int, source: np.ndarray, target: np.ndarray, extra: np.ndarray = NOTHING) -> None:
        """Run a pass (see `pool_vectors`) from x to out, or from dout to dx; the target must not be empty.

        `extra` holds the factors, or is a `new_mask`.
        """
        if kind not in self._passes:
            self._passes[kind] = self._vector_pass(kind)
        chosen = self._passes[kind]
        if chosen is None and self._of_planes and kind == MEAN:
            runtime.launch(mean_of_planes, self.work, source.reshape(self.planes, -1), target.reshape(-1), extra)
        elif chosen is None and self._of_planes and kind == SPREAD:
            runtime.launch(spread_over_planes, self.work, source.reshape(-1), target.reshape(self.planes, -1), extra)
        elif chosen is None:
            self._run_any_columns(kind, source, target, extra)
        else:
            source, target = source.reshape(-1), target.reshape(-1)
            runtime.launch(pool, self.work, chosen.callback, source, target, extra, chosen.table)

    @cached_property
    def _steps(self) -> tuple[int, int]:
        """Stride and dilation of the columns; those of a single window or cell mean nothing."""
        axis = self.horizontal
        return axis.stride if axis.count > 1 else 1, axis.dilation if axis.kernel > 1 else 1

    @cached_property
    def _of_rows(self) -> bool:
        """Whether `pool_rows` has code for the windows."""
        axis = self.horizontal
        return (
            not axis.adaptive
            and self._steps[0] <= MOST_STRIDE
            and axis.kernel <= MOST_TAPS
            and vectors_of_window(axis.kernel, *self._steps) <= MOST_VECTORS
            and pixels_of_block(self.dtype.itemsize, self.lanes) > 0
            and max(self.x_shape[2], self.out_shape[2]) < MOST_WIDTH
        )

    @property
    def factors_per_column(self) -> int:
        """How often the factor of a column must be repeated for the kernels of MEAN and SPREAD."""
        return self.lanes if self._of_rows else 1

    @cached_property
    def _of_planes(self) -> bool:
        """Whether there is one window, and it is the plane."""
        return self.lanes == 1 and all(
            (axis.count, axis.kernel, axis.pads) == (1, axis.size, (0, 0)) for axis in (self.vertical, self.horizontal)
        )

    def _vector_pass(self, kind: int) -> VectorPass | None:
        """The vector kernel for the pass; None where another one is better or has to do."""
        if self._of_planes and kind in (MEAN, SPREAD):
            return None
        itemsize, code_bits = self.dtype.itemsize, 8 * self.mask_dtype.itemsize
        lists = windows_of_cells if kind in (CHOSEN, SPREAD) else cells_of_windows
        rows, cols = lists(self.vertical), lists(self.horizontal)
        axis, vector = self.horizontal, MACHINE.lanes(itemsize)
        if self._of_rows and (code_bits == CODE_BITS or kind not in KINDS_WITH_MASK):
            stride = self._steps[0]
            pixels = pixels_of_block(itemsize, self.lanes)
            blocks, left = (
                divmod(axis.size, stride * pixels) if lists is windows_of_cells else divmod(axis.count, pixels)
            )
            whole = pixels * self.lanes == vector and blocks > 0 and (lists is cells_of_windows or left % stride == 0)
            kernel = rows_kernel(
                kind, itemsize, rows.usual, axis.kernel, *self._steps, self.lanes, axis.pads[0], whole
            )  # fmt: skip
            return VectorPass(kernel.address, self._table(kind, rows, cols, blocks + (left > 0)))
        if self.lanes > 1:
            kernel = channels_kernel(kind, itemsize, code_bits, rows.usual, cols.usual, self.lanes < vector)
            return VectorPass(kernel.address, self._table(kind, rows, cols, 0))
        return None

    def _table(self, kind: int, rows: Lists, cols: Lists, blocks: int) -> np.ndarray:
        """The table of `pool_rows` for so many blocks in a row, or with 0 of `pool_channels`; see `pool_vectors`."""
        backward = kind in (CHOSEN, SPREAD)
        (_, out_rows, out_width), (_, x_rows, x_width) = self.out_shape, self.x_shape
        item, plane_of_out, plane_of_x = self.dtype.itemsize, out_rows * out_width, x_rows * x_width
        source_width, target_width = (out_width, x_width) if backward else (x_width, out_width)
        source_plane, target_plane = (plane_of_out, plane_of_x) if backward else (plane_of_x, plane_of_out)
        axis = self.horizontal
        columns = axis.size if backward else axis.count
        code_bytes = self.mask_dtype.itemsize if kind in KINDS_WITH_MASK else 0
        rows_of_target = x_rows if backward else out_rows
        band = max(BAND_BYTES // (item * (source_width + target_width)), 1) if blocks > 1 else rows_of_target
        fields = [
            self.planes, rows_of_target, source_plane * item, target_plane * item,
            plane_of_out * code_bytes,
            source_width, target_width, self.lanes, blocks or columns, out_rows, band, MASK_ROOM * code_bytes,
        ]  # fmt: skip
        assert len(fields) == LISTS
        parts = [*_in_numbers(rows, source_width, kind, axis.kernel), *_in_numbers(cols, self.lanes, kind, 1)]
        ends = np.cumsum([LISTS + len(parts), *(part.size for part in parts)])
        return np.concatenate([fields, ends[:-1], *parts]).astype(np.int64)

    def _run_any_columns(self, kind: int, source: np.ndarray, target: np.ndarray, extra: np.ndarray) -> None:
        """The pass by `pooling.py`."""
        forward = kind in (LARGEST, FIRST_LARGEST, MEAN)
        shapes = (self.x_shape, self.out_shape) if forward else (self.out_shape, self.x_shape)
        source, target = source.reshape(shapes[0]), target.reshape(shapes[1])
        if kind in KINDS_WITH_MASK:
            extra = self.codes(extra)
        kernel: Any
        arguments: tuple[Any, ...]
        if kind == CHOSEN:
            kernel, (row_base, col_base, offset) = any_columns.scatter, self._places()
            planes = self.planes, self.vertical.size * self.horizontal.size
            arguments = (source, extra, target.reshape(planes), row_base, col_base, offset)
        else:
            runs = runs_of_columns(self.horizontal)
            rows = (cells_of_windows if forward else windows_of_cells)(self.vertical)
            lists = (rows.starts, rows.members)
            taps = rows.taps * self.horizontal.kernel
            factors = extra[: self.vertical.count], extra[self.vertical.count :]
            kernel, arguments = {
                LARGEST: (any_columns.largest, (source, target, *lists, taps, *runs)),
                FIRST_LARGEST: (
                    any_columns.first_largest, (source, target, extra, *lists, taps, *runs),
                ),
                MEAN: (any_columns.sum_windows, (source, target, *lists, *runs, *factors)),
                SPREAD: (any_columns.spread, (source, target, *lists, *runs, *factors)),
            }[kind]  # fmt: skip
        runtime.launch(kernel, self.work, *arguments)

    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the cells of windows lie in a plane: the sum of one number per row, column and code."""
        vertical, horizontal = self.vertical, self.horizontal
        taps = vertical.dilation * horizontal.size * np.arange(vertical.kernel)[:, None]
        offsets = (taps + horizontal.dilation * np.arange(horizontal.kernel)).ravel()
        return vertical.starts * horizontal.size, horizontal.starts, offsets


def _in_numbers(lists: Lists, pitch: int, kind: int, tap_pitch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists as the kernels take them: offsets of members, and taps as parts of codes; SPREAD takes factors' places."""
    taps = lists.members if kind == SPREAD else lists.taps * tap_pitch
    return lists.starts, lists.members * pitch, taps
