"""Sizes of a convolution along one, two or three axes: loose arguments checked against each other and normalised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.arguments import Pair, times
from fastconv.problem import ConvProblem
from fastconv.volume import Axis, Problem, VolumeProblem

_HEIGHT_1 = Axis(1, 1, 1, (0, 0), 1)


@dataclass(frozen=True)
class Sizes:
    """x of N x C images (lines, volumes), w of F filters for C / groups channels, and the axes."""

    N: int
    C: int
    F: int
    groups: int
    channels_last: bool
    axes: tuple[Axis, ...]

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self._images(self.C, tuple(axis.size for axis in self.axes))

    @property
    def w_shape(self) -> tuple[int, ...]:
        kernel, channels = tuple(axis.taps for axis in self.axes), self.C // self.groups
        return (*kernel, channels, self.F) if self.channels_last else (self.F, channels, *kernel)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self._images(self.F, tuple(axis.count for axis in self.axes))

    def _images(self, channels: int, size: tuple[int, ...]) -> tuple[int, ...]:
        return (self.N, *size, channels) if self.channels_last else (self.N, channels, *size)

    @property
    def pads(self) -> tuple[Pair, ...]:
        return tuple(axis.pads for axis in self.axes)

    def laid_out(self) -> Sizes:
        """The same convolution of an input that holds its padding."""
        return replace(self, axes=tuple(replace(axis, size=axis.padded, pads=(0, 0)) for axis in self.axes))

    def problem(self, dtype: np.dtype) -> Problem:
        """The problem whose arrays have the same numbers in the same order: one axis is two, of which one is 1 long.

        Three axes are two where that is possible: neighbours that are untouched are one axis of as many cells,
        untouched depth with channels last is more images, and one output plane that sees all input planes just once
        sees them as channels. Other problems remain three-dimensional.
        """
        N, C, axes = self.N, self.C, self.axes
        if len(axes) == 1:
            axes = (_HEIGHT_1, *axes)
        elif len(axes) == 3:
            depth, vertical, horizontal = axes
            whole = (depth.count, depth.taps, depth.pads) == (1, depth.size, (0, 0))
            if vertical.untouched and horizontal.untouched:
                axes = depth, replace(horizontal, size=vertical.size * horizontal.size)
            elif depth.untouched and vertical.untouched:
                axes = replace(vertical, size=depth.size * vertical.size), horizontal
            elif depth.untouched and self.channels_last:
                N, axes = N * depth.size, (vertical, horizontal)
            elif whole and not self.channels_last:
                C, axes = C * depth.size, (vertical, horizontal)
        *depths, vertical, horizontal = axes
        for depth in depths:
            C *= depth.taps
        plane = ConvProblem(
            1 if depths else N, C, vertical.size, horizontal.size, self.F, vertical.taps, horizontal.taps,
            (vertical.stride, horizontal.stride), (vertical.pads, horizontal.pads),
            (vertical.dilation, horizontal.dilation), self.groups, "NHWC" if self.channels_last else "NCHW", dtype,
        )  # fmt: skip
        return VolumeProblem(N, depths[0], plane) if depths else plane


def sizes_of(
    function: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Any, pads: Any, dilation: Any,
    groups: Any, layout: str,
) -> Sizes:  # fmt: skip
    """Check the sizes and options of a convolution against each other.

    Raises
    ------
    ValueError, TypeError : see `conv2d`.
    """
    count = len(x_shape) - 2
    steps = arguments.per_axis(function, "stride", stride, count, 1)
    gaps = arguments.per_axis(function, "dilation", dilation, count, 1)
    groups = arguments.integer(function, "groups", groups, 1)
    named = arguments.pads_per_axis(function, pads, count)
    N, C, size, last = arguments.image_sizes(function, x_shape, layout, count)
    kernel, channels, F = filter_sizes(function, w_shape, last)
    if C % groups or F % groups:
        raise ValueError(f"{function}: groups must divide channels and filters, got {groups} for {C} and {F}")
    if channels * groups != C:
        raise ValueError(
            f"{function}: w has {channels} input channels per group, expected x's channels / groups = {C} / {groups} "
            f"= {C // groups}"
        )
    sides = arguments.resolve_pads(named, size, kernel, steps, gaps)
    axes = tuple(map(axis_of, size, kernel, steps, sides, gaps))
    if min(axis.count for axis in axes) < 1:
        raise ValueError(
            f"{function}: the dilated kernel must not be larger than the padded input, got "
            f"{times([axis.reach for axis in axes])} for padded input {times([axis.padded for axis in axes])}"
        )
    return Sizes(N, C, F, groups, last, axes)


def filter_sizes(function: str, w_shape: tuple[int, ...], last: bool) -> tuple[tuple[int, ...], int, int]:
    """(kernel, second to last size, last size) of channels-last weights, with those two of the others in that order."""
    if last:
        kernel, inner, outer = w_shape[:-2], w_shape[-2], w_shape[-1]
    else:
        kernel, inner, outer = w_shape[2:], w_shape[1], w_shape[0]
    if min(kernel) < 1:
        ones = (1,) * len(kernel)
        raise ValueError(f"{function}: w must have a kernel of at least {times(ones)}, got {times(kernel)}")
    return kernel, inner, outer


def axis_of(size: int, taps: int, stride: int, pads: Pair, dilation: int) -> Axis:
    """Strides past the end and the dilation of a single tap mean nothing, but tables grow with them."""
    return Axis(size, taps, min(stride, max(size + sum(pads), 1)), pads, dilation if taps > 1 else 1)
