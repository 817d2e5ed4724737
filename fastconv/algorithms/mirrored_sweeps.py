"""Gradient of x of few channels, stride 1: a convolution of dout by the flipped kernel, swept over the pixels of x."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastconv.algorithms.sweeps import SweepsPass
from fastconv.problem import ConvProblem

_CYCLES_PER_WEIGHT = 3.0  # flipped and transposed by NumPy


def mirrored(p: ConvProblem) -> ConvProblem:
    """The convolution of dout that gives dx; its pads are negative where x is padded by more than the kernel."""
    down, across = (p.KH - 1) * p.dilation[0], (p.KW - 1) * p.dilation[1]
    (top, bottom), (left, right) = p.pads
    pads = (down - top, down - bottom), (across - left, across - right)
    return replace(p, C=p.F, H=p.OH, W=p.OW, F=p.C, pads=pads)


class MirroredSweepsPass:
    """`run(dout, w, bias, dx)`; see `base`."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        if p.stride != (1, 1):
            return True
        mirror = mirrored(p)
        return min(min(pads) for pads in mirror.pads) < 0 or SweepsPass.declines(mirror)

    def __init__(self, problem: ConvProblem, threads: int):
        self.problem = problem
        self.sweeps = SweepsPass(mirrored(problem), threads)
        weights = problem.group_channels * problem.F * problem.taps
        self.workspace = self.sweeps.workspace + weights * problem.dtype.itemsize
        self.cycles = self.sweeps.cycles + weights * _CYCLES_PER_WEIGHT

    def run(self, dout: np.ndarray, w: np.ndarray, bias: np.ndarray, dx: np.ndarray) -> None:
        p = self.problem
        taps, groups = (p.KH, p.KW), (p.groups, p.group_filters)
        if p.channels_last:  # (KH, KW, C / groups, F) -> (KH, KW, F / groups, C)
            grouped = w.reshape(*taps, p.group_channels, *groups)[::-1, ::-1].transpose(0, 1, 4, 3, 2)
            flipped = grouped.reshape(*taps, p.group_filters, p.C)
        else:  # (F, C / groups, KH, KW) -> (C, F / groups, KH, KW)
            grouped = w.reshape(*groups, p.group_channels, *taps)[:, :, :, ::-1, ::-1].swapaxes(1, 2)
            flipped = grouped.reshape(p.C, p.group_filters, *taps)
        self.sweeps.run(dout, np.ascontiguousarray(flipped), bias, dx)
