"""The problem object: every size of one 2-D convolution, normalised once; nothing downstream sees a loose form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv.arguments import Pads, Pair, output_length

LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class ConvProblem:
    """Sizes of a convolution of x with F filters of C / groups x KH x KW; all passes of it share one object."""

    N: int
    C: int
    H: int
    W: int
    F: int
    KH: int
    KW: int
    stride: Pair
    pads: Pads
    dilation: Pair
    groups: int
    layout: str
    dtype: np.dtype

    # Plans are looked up by their problem in every call; computing this anew costs as much as the rest of the look-up.
    @cached_property
    def _hash(self) -> int:
        sizes = self.N, self.C, self.H, self.W, self.F, self.KH, self.KW
        return hash((sizes, self.stride, self.pads, self.dilation, self.groups))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def OH(self) -> int:
        return output_length(self.padded[0], self.KH, self.stride[0], self.dilation[0])

    @cached_property
    def OW(self) -> int:
        return output_length(self.padded[1], self.KW, self.stride[1], self.dilation[1])

    @property
    def padded(self) -> Pair:
        """Height and width of the zero-padded input."""
        (top, bottom), (left, right) = self.pads
        return self.H + top + bottom, self.W + left + right

    @property
    def channels_last(self) -> bool:
        return self.layout == "NHWC"

    @property
    def group_channels(self) -> int:
        return self.C // self.groups

    @property
    def group_filters(self) -> int:
        return self.F // self.groups

    @property
    def taps(self) -> int:
        return self.KH * self.KW

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of one pass, padding counted."""
        return self.N * self.OH * self.OW * self.F * self.group_channels * self.taps

    @cached_property
    def empty(self) -> bool:
        """Whether no number of x meets one of w: no images, channels, filters or pixels."""
        return self.multiply_adds == 0 or self.H * self.W == 0

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        return (self.N, self.H, self.W, self.C) if self.channels_last else (self.N, self.C, self.H, self.W)

    @cached_property
    def w_shape(self) -> tuple[int, ...]:
        if self.channels_last:
            return self.KH, self.KW, self.group_channels, self.F
        return self.F, self.group_channels, self.KH, self.KW

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        return (self.N, self.OH, self.OW, self.F) if self.channels_last else (self.N, self.F, self.OH, self.OW)

    @property
    def no_padding(self) -> bool:
        return self.pads == ((0, 0), (0, 0))

    def __str__(self) -> str:
        groups = f", groups {self.groups}" if self.groups > 1 else ""
        return (
            f"{self.N}x{self.C}x{self.H}x{self.W}, {self.F} filters {self.KH}x{self.KW}, stride {self.stride}, "
            f"pads {self.pads}, dilation {self.dilation}{groups}, {self.layout}, {self.dtype}"
        )
