"""How the input of a pass lies in memory, and how it is zero-padded: tables of offsets follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, separate_pairs, transpose_block
from fastconv._kernels.prepare import pad_planes, pad_rows, pixels_to_planes, planes_to_pixels, transpose_matrices
from fastconv.algorithms.tables import steps
from fastconv.workspace import Scratch

_BAND_BYTES = 4 * 1024  # of padded rows that are zeroed and filled at once
_LONG_ROW_BYTES = 1024  # such a row is a band of its own


@lru_cache(maxsize=1024)
def _band(itemsize: int, width: int, cols: int, rows: int) -> tuple[int, np.ndarray, np.ndarray]:
    """What copies a band of padded rows, and where they begin in it and in the image."""
    row_bytes = cols * itemsize
    band = 1 if row_bytes > _LONG_ROW_BYTES else min(_BAND_BYTES // row_bytes, rows)
    return copy_block(itemsize).address, steps(cols, band), steps(width, band)


@dataclass(frozen=True)
class Operand:
    """An image batch of `channels` channels, given in one layout and padded into the same or the other one.

    Padding surrounds the given height x width with `top` rows and `left` columns of zeros, up to `rows` x `cols`.
    Planes may be split by stride (`phases_h`, `phases_w`: the phases kept): see `prepare.pad_planes`.
    """

    given_channels_last: bool
    channels_last: bool
    channels: int
    height: int
    width: int
    top: int
    left: int
    rows: int
    cols: int
    stride: tuple[int, int] = (1, 1)
    phases_h: tuple[int, ...] = (0,)
    phases_w: tuple[int, ...] = (0,)

    @property
    def same_order(self) -> bool:
        """Whether numbers keep their order; an image of one channel is the same in both layouts."""
        return self.given_channels_last == self.channels_last or self.channels == 1

    @cached_property
    def in_place(self) -> bool:
        """Whether the kernel can read the given array itself."""
        return self.same_order and (self.rows, self.cols) == (self.height, self.width) and self.stride == (1, 1)

    @cached_property
    def plane(self) -> int:
        """Numbers of one channel of one image."""
        return len(self.phases_h) * len(self.phases_w) * self.rows * self.cols

    @cached_property
    def image(self) -> int:
        return self.channels * self.plane

    # Offsets from one number to its neighbour along each axis.

    @property
    def channel_step(self) -> int:
        return 1 if self.channels_last else self.plane

    @cached_property
    def col_step(self) -> int:
        return self.channels if self.channels_last else 1

    @property
    def row_step(self) -> int:
        return self.cols * self.col_step

    def scratch_bytes(self, itemsize: int) -> int:
        """Scratch memory per image."""
        return 0 if self.in_place else self.image * itemsize

    @cached_property
    def _phase_tables(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.phases_h), np.array(self.phases_w)

    def prepare(self, given: np.ndarray, slots: int, scratch: Scratch) -> np.ndarray:
        """The padded numbers of some images as a flat array; `given` itself where that will do."""
        if self.in_place:
            return given.reshape(-1)
        images = len(given)
        padded = scratch.take((images * self.image,), given.dtype)
        place = self.top, self.left
        shape: tuple[int, ...]
        if self.same_order and self.stride == (1, 1):
            step = self.col_step
            width, cols = self.width * step, self.cols * step
            copy, to_rows, from_rows = _band(given.dtype.itemsize, width, cols, self.rows)
            runtime.run_on(
                pad_rows, slots, copy, given.reshape(-1, self.height, width), padded, self.rows, cols, self.top,
                self.left * step, to_rows, from_rows,
            )  # fmt: skip
        elif self.same_order:
            planes = given.reshape(-1, self.height, self.width)
            shape = (len(planes), len(self.phases_h), len(self.phases_w), self.rows, self.cols)
            separate = separate_pairs(given.dtype.itemsize).address
            runtime.run_on(
                pad_planes, slots, separate, planes, padded.reshape(shape), *place, *self.stride, *self._phase_tables
            )
        else:
            transpose = transpose_block(given.dtype.itemsize).address
            if (self.rows, self.cols, self.stride) == (self.height, self.width, (1, 1)):  # runs of pixels pass row ends
                pixels = self.height * self.width
                matrix, transposed = (self.channels, pixels), (pixels, self.channels)
                if not self.channels_last:
                    matrix, transposed = transposed, matrix
                matrices = given.reshape(images, *matrix)
                runtime.run_on(transpose_matrices, slots, transpose, matrices, padded.reshape(images, *transposed))
            elif self.channels_last:
                source = given.reshape(images, self.channels, self.height, self.width)
                shape = (images, self.rows, self.cols, self.channels)
                runtime.run_on(planes_to_pixels, slots, transpose, source, padded.reshape(shape), *place)
            else:
                source = given.reshape(images, self.height, self.width, self.channels)
                shape = (images, self.channels, self.rows, self.cols)
                runtime.run_on(pixels_to_planes, slots, transpose, source, padded.reshape(shape), *place)
        return padded
