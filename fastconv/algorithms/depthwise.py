"""Depthwise convolution, one channel per group: reads and writes each number in place, about once.

Channels-first arrays go to `depthwise_planes`, channels-last ones to `depthwise_pixels`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.depthwise_pixels import PixelsGradient, PixelsPass
from fastconv.algorithms.depthwise_planes import PlanesGradient, PlanesPass
from fastconv.problem import ConvProblem

_CYCLES_PER_REPEATED = 8.0  # one number repeated or summed by NumPy, on one core while the others wait


class _Repeated:
    """Channels-last with several filters per channel: every channel is laid out once per filter first.

    Then there is one filter per channel; the gradient of x is summed over the filters of a channel.
    """

    def __init__(self, problem: ConvProblem, work: Any, threads: int):
        self.problem, self.inner, p = problem, work, problem
        self.cycles = work.cycles + p.N * p.H * p.W * p.F * _CYCLES_PER_REPEATED * threads
        self.workspace = work.workspace + p.N * p.H * p.W * p.F * p.dtype.itemsize


class _RepeatedForward(_Repeated):
    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        self.inner.run(np.repeat(x, self.problem.group_filters, axis=3), w, bias, out)


class _RepeatedGradientX(_Repeated):
    def run(self, dout: np.ndarray, w: np.ndarray, bias: np.ndarray, dx: np.ndarray) -> None:
        p = self.problem
        per_filter = np.empty((p.N, p.H, p.W, p.F), p.dtype)
        self.inner.run(dout, w, bias, per_filter)
        np.sum(per_filter.reshape(*dx.shape, p.group_filters), axis=4, out=dx)


class _RepeatedGradientW(_Repeated):
    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        self.inner.run(np.repeat(x, self.problem.group_filters, axis=3), dout, dw)


def _declines(problem: ConvProblem, direction: str) -> str | None:
    if problem.group_channels != 1:
        return f"it needs one channel per group, not {problem.group_channels}"
    return None


def _repeated(problem: ConvProblem) -> ConvProblem:
    return replace(problem, C=problem.F, groups=problem.F)


def _forward(problem: ConvProblem, threads: int, relu: bool) -> Any:
    if not problem.channels_last:
        return PlanesPass(problem, threads, gradient=False, relu=relu)
    work = PixelsPass(_repeated(problem), threads, gradient=False, relu=relu)
    return work if problem.group_filters == 1 else _RepeatedForward(problem, work, threads)


def _gradient_x(problem: ConvProblem, threads: int) -> Any:
    if not problem.channels_last:
        return PlanesPass(problem, threads, gradient=True)
    work = PixelsPass(_repeated(problem), threads, gradient=True)
    return work if problem.group_filters == 1 else _RepeatedGradientX(problem, work, threads)


def _gradient_w(problem: ConvProblem, threads: int) -> Any:
    if not problem.channels_last:
        return PlanesGradient(problem, threads)
    work = PixelsGradient(_repeated(problem), threads)
    return work if problem.group_filters == 1 else _RepeatedGradientW(problem, work, threads)


ALGORITHM = Algorithm(
    "depthwise", "one channel per group, read in place", _forward, _gradient_x, _gradient_w, _declines
)
