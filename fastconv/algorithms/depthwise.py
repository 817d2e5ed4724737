"""Depthwise convolution, one channel per group: reads and writes each number in place, about once.

Channels-first arrays go to `depthwise_planes`, or with small planes to `depthwise_kept`, channels-last ones to
`depthwise_pixels`; for the gradient of w to `depthwise_plane_gradient`, `depthwise_kept` and `depthwise_gradient`,
where it is not made as that of groups of one channel, of which a vector holds several.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.depthwise_gradient import DepthwiseGradientPass
from fastconv.algorithms.depthwise_kept import KeptGradientPass, KeptPass
from fastconv.algorithms.depthwise_pixels import PixelsPass
from fastconv.algorithms.depthwise_plane_gradient import PlaneGradientPass
from fastconv.algorithms.depthwise_planes import PlanesPass
from fastconv.algorithms.grouped_gradient import GroupedGradient
from fastconv.problem import ConvProblem

_CYCLES_PER_REPEATED = 8.0  # one number repeated or summed by NumPy, on one core while the others wait


class _Repeated:
    """Channels-last with several filters per channel: every channel is laid out once per filter first.

    Then there is one filter per channel; the gradient of x is summed over the filters of a channel.
    """

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        self.problem, self.gradient, p = problem, gradient, problem
        repeated = replace(p, C=p.F, groups=p.F)
        self.inner = PixelsPass(repeated, threads, gradient=gradient, relu=relu)
        self.cycles = self.inner.cycles + p.N * p.H * p.W * p.F * _CYCLES_PER_REPEATED * threads
        self.workspace = self.inner.workspace + p.N * p.H * p.W * p.F * p.dtype.itemsize

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """See `base`."""
        p = self.problem
        if not self.gradient:
            self.inner.run(np.repeat(operand, p.group_filters, axis=3), w, bias, out)
            return
        per_filter = np.empty((p.N, p.H, p.W, p.F), p.dtype)
        self.inner.run(operand, w, bias, per_filter)
        np.sum(per_filter.reshape(*out.shape, p.group_filters), axis=4, out=out)


def _declines(problem: ConvProblem, direction: str) -> str | None:
    if problem.group_channels != 1:
        return f"it needs one channel per group, not {problem.group_channels}"
    if direction == "gradient_w" and problem.group_filters != 1:
        return f"it needs one filter per channel for the gradient of w, not {problem.group_filters}"
    return None


def _correlation(problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False) -> Any:
    if not problem.channels_last:
        kinds: list[Any] = [PlanesPass]
        if not KeptPass.declines(problem, gradient=gradient):
            kinds.append(KeptPass)
        offers = [kind(problem, threads, gradient=gradient, relu=relu) for kind in kinds]
        return min(offers, key=lambda offer: offer.cycles)
    kind = PixelsPass if problem.group_filters == 1 else _Repeated
    return kind(problem, threads, gradient=gradient, relu=relu)


def _forward(problem: ConvProblem, threads: int, relu: bool) -> Any:
    return _correlation(problem, threads, gradient=False, relu=relu)


def _gradient_x(problem: ConvProblem, threads: int) -> Any:
    return _correlation(problem, threads, gradient=True)


def _gradient_w(problem: ConvProblem, threads: int) -> Any:
    offers: list[Any] = [GroupedGradient(problem, threads)]
    for kind in (DepthwiseGradientPass, PlaneGradientPass, KeptGradientPass):
        if not kind.declines(problem):
            offers.append(kind(problem, threads))
    return min(offers, key=lambda offer: offer.cycles)


ALGORITHM = Algorithm(
    "depthwise", "one channel per group, read in place", _forward, _gradient_x, _gradient_w, _declines
)
