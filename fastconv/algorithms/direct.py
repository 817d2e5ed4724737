"""Direct convolution: the register tile reads the padded input in place, through offset tables. Accepts everything.

Vectors run over filters or over output pixels, whichever is predicted to waste fewer lanes and copies.
"""

from __future__ import annotations

from typing import Any

from fastconv.algorithms import small
from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.over_filters import OverFiltersPass
from fastconv.algorithms.over_pixels import OverPixelsPass
from fastconv.algorithms.weight_gradient import WeightGradientPass
from fastconv.problem import ConvProblem


def _cheaper(problem: ConvProblem, threads: int, gradient: bool, relu: bool) -> OverFiltersPass | OverPixelsPass:
    over_filters = OverFiltersPass(problem, threads, packed=False, gradient=gradient, relu=relu)
    if OverPixelsPass.declines(problem, gradient):
        return over_filters
    over_pixels = OverPixelsPass(problem, threads, packed=False, gradient=gradient, relu=relu)
    return over_filters if over_filters.cycles <= over_pixels.cycles else over_pixels


def _forward(problem: ConvProblem, threads: int, relu: bool) -> Any:
    return small.faster(_cheaper(problem, threads, False, relu), problem, "forward", threads, relu)


def _gradient_x(problem: ConvProblem, threads: int) -> Any:
    return small.faster(_cheaper(problem, threads, True, False), problem, "gradient_x", threads)


def _gradient_w(problem: ConvProblem, threads: int) -> Any:
    arrangements = [WeightGradientPass(problem, threads, rows_are_taps=rows, packed=False) for rows in (True, False)]
    cheapest = min(arrangements, key=lambda arrangement: arrangement.cycles)
    return small.faster(cheapest, problem, "gradient_w", threads)


ALGORITHM = Algorithm("direct", "reads the padded input in place", _forward, _gradient_x, _gradient_w)
