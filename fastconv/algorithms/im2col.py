"""im2col, one cache-sized block at a time: windows are copied side by side before they are multiplied.

Channels-first data is packed by tap (vectors run over output pixels), channels-last by window (over filters).
"""

from __future__ import annotations

from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.over_filters import OverFiltersPass
from fastconv.algorithms.over_pixels import OverPixelsPass
from fastconv.algorithms.weight_gradient import WeightGradientPass
from fastconv.problem import ConvProblem


def _forward(problem: ConvProblem, threads: int, relu: bool) -> OverFiltersPass | OverPixelsPass:
    kind = OverFiltersPass if problem.channels_last else OverPixelsPass
    return kind(problem, threads, packed=True, gradient=False, relu=relu)


def _gradient_x(problem: ConvProblem, threads: int) -> OverFiltersPass | OverPixelsPass:
    kind = OverFiltersPass if problem.channels_last else OverPixelsPass
    return kind(problem, threads, packed=True, gradient=True)


def _gradient_w(problem: ConvProblem, threads: int) -> WeightGradientPass:
    return WeightGradientPass(problem, threads, rows_are_taps=False, packed=True)


ALGORITHM = Algorithm("im2col", "copies windows into a block first", _forward, _gradient_x, _gradient_w)
