"""Output pixels as the lanes of vectors: where the taps of a pixel, its weights and its results lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastconv.algorithms.axes import ForwardAxis, GradientAxis
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.tables import offsets
from fastconv.problem import ConvProblem


@dataclass(frozen=True)
class PixelGrid:
    """A grid of `rows` x `cols` output pixels that see the same taps: tables and strides, in numbers.

    Depth step k of filter f multiplies w[arow[f] + acol[k]], which is step `steps[k]` of its panel (see
    `weight_panels`), with x[brow[k] + pixel]. Results lie `out_filter`, `out_row` and `out_col` apart.
    """

    arow: np.ndarray
    acol: np.ndarray
    steps: np.ndarray
    brow: np.ndarray
    rows: int
    cols: int
    out_start: int
    out_image: int
    out_filter: int
    out_row: int
    out_col: int

    @property
    def filters(self) -> int:
        """Filters of one group (channels, for the gradient)."""
        return self.arow.size

    @property
    def crow(self) -> np.ndarray:
        return np.arange(self.filters) * self.out_filter


def forward_grids(p: ConvProblem) -> tuple[Operand, list[PixelGrid]]:
    vertical = ForwardAxis.of(p.KH, p.stride[0], p.dilation[0], p.OH)
    horizontal = ForwardAxis.of(p.KW, p.stride[1], p.dilation[1], p.OW)
    plain = p.no_padding and p.stride == (1, 1)
    rows, cols = (p.H, p.W) if plain else (vertical.length, horizontal.length)
    source = Operand(
        p.channels_last, False, p.C, p.H, p.W, p.pads[0][0], p.pads[1][0], rows, cols, p.stride, vertical.phases,
        horizontal.phases,
    )  # fmt: skip
    brow = offsets(
        np.arange(p.group_channels) * source.plane,
        np.array([(phase * len(horizontal.phases) * rows + at) * cols for phase, at in vertical.tap]),
        np.array([phase * rows * cols + at for phase, at in horizontal.tap]),
    )
    filters, depth = np.arange(p.group_filters), p.group_channels * p.taps
    if p.channels_last:
        steps = offsets(np.arange(p.group_channels), np.arange(p.taps) * p.group_channels)
        arow, acol = filters, steps * p.F
    else:
        steps = np.arange(depth)
        arow, acol = filters * depth, steps
    step, col = (1, p.F) if p.channels_last else (p.OH * p.OW, 1)
    image = p.F * p.OH * p.OW
    return source, [PixelGrid(arow, acol, steps, brow, p.OH, p.OW, 0, image, step, p.OW * col, col)]


def gradient_grids(p: ConvProblem) -> tuple[Operand, list[PixelGrid]]:
    """dx[c, i] = sum over f, taps of w[f, c, tap] * dout[f, o]: one grid per stride phase, channels for filters."""
    vertical = GradientAxis.of(p.H, p.KH, p.stride[0], p.dilation[0], p.pads[0][0], p.OH)
    horizontal = GradientAxis.of(p.W, p.KW, p.stride[1], p.dilation[1], p.pads[1][0], p.OW)
    source = Operand(
        p.channels_last, False, p.F, p.OH, p.OW, vertical.front, horizontal.front, vertical.length, horizontal.length
    )
    channels, filters = np.arange(p.group_channels), np.arange(p.group_filters)
    step, col = (1, p.C) if p.channels_last else (p.H * p.W, 1)
    grids = []
    for down in vertical.phases:
        for across in horizontal.phases:
            kernel_h, at_h = np.array(down.taps, np.int64).reshape(-1, 2).T
            kernel_w, at_w = np.array(across.taps, np.int64).reshape(-1, 2).T
            taps = offsets(kernel_h * p.KW, kernel_w)
            if p.channels_last:
                arow, acol = channels * p.F, offsets(filters, taps * p.group_channels * p.F)
                steps = offsets(filters, taps * p.group_filters)
            else:
                arow, acol = channels * p.taps, offsets(filters * p.group_channels * p.taps, taps)
                steps = offsets(filters * p.taps, taps)
            brow = offsets(filters * source.plane, at_h * source.cols, at_w)
            start = (down.first * p.W + across.first) * col
            places = start, p.C * p.H * p.W, step, p.stride[0] * p.W * col, p.stride[1] * col
            grids.append(PixelGrid(arow, acol, steps, brow, down.count, across.count, *places))
    return source, grids
