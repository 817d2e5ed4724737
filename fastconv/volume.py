"""The problem object of 3-D convolutions that fold depth into channels.

Output plane od of a volume sees KD input planes. Laid side by side they are one image of C * KD channels, and a 2-D
convolution with F filters of C / groups * KD x KH x KW makes the plane: `VolumeProblem` is that 2-D problem and what
happens along depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fastconv.arguments import Pair, output_length
from fastconv.problem import ConvProblem


@dataclass(frozen=True)
class Axis:
    """What happens along one axis."""

    size: int
    taps: int
    stride: int
    pads: Pair
    dilation: int

    @property
    def padded(self) -> int:
        return self.size + sum(self.pads)

    @property
    def reach(self) -> int:
        """Cells from the first tap to the last."""
        return self.dilation * (self.taps - 1) + 1

    @property
    def count(self) -> int:
        """Length of the axis in the output."""
        return output_length(self.padded, self.taps, self.stride, self.dilation)

    @property
    def untouched(self) -> bool:
        """Whether each output sees the input at its own place and nothing else."""
        return (self.taps, self.stride, self.pads) == (1, 1, (0, 0))


@dataclass(frozen=True)
class VolumeProblem:
    """Sizes of a 3-D convolution.

    Attributes
    ----------
    N : volumes.
    depth : what happens along the first axis.
    plane : the 2-D problem of one output plane, an image of C * KD channels.
    """

    N: int
    depth: Axis
    plane: ConvProblem

    def of_images(self, images: int, taps: int) -> ConvProblem:
        """The 2-D problem of so many output planes and so many of the depth taps."""
        return replace(self.plane, N=images, C=self.C * taps)

    @property
    def C(self) -> int:
        return self.plane.C // self.depth.taps

    @property
    def F(self) -> int:
        return self.plane.F

    @property
    def groups(self) -> int:
        return self.plane.groups

    @property
    def dtype(self) -> np.dtype:
        return self.plane.dtype

    @property
    def channels_last(self) -> bool:
        return self.plane.channels_last

    @cached_property
    def images(self) -> int:
        """Output planes of all volumes."""
        return self.N * self.depth.count

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of one pass, padding counted."""
        return self.images * self.plane.multiply_adds

    @cached_property
    def empty(self) -> bool:
        """Whether no number of x meets one of w."""
        return self.images * self.depth.size == 0 or self.plane.empty

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        return self._volumes(self.C, self.depth.size, self.plane.H, self.plane.W)

    @cached_property
    def w_shape(self) -> tuple[int, ...]:
        kernel, channels = (self.depth.taps, self.plane.KH, self.plane.KW), self.C // self.groups
        return (*kernel, channels, self.F) if self.channels_last else (self.F, channels, *kernel)

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        return self._volumes(self.F, self.depth.count, self.plane.OH, self.plane.OW)

    def _volumes(self, channels: int, *size: int) -> tuple[int, ...]:
        return (self.N, *size, channels) if self.channels_last else (self.N, channels, *size)

    def __str__(self) -> str:
        depth = self.depth
        return f"{self.N} volumes of {depth.size} planes, {depth.taps} seen by each output plane: {self.plane}"


Problem = ConvProblem | VolumeProblem
