"""Direct convolution: the register tile reads the padded input in place, through offset tables. Accepts everything.

Vectors run over filters or over output pixels, whichever is predicted to waste fewer lanes and copies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastconv.algorithms import small
from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.over_filters import OverFiltersPass
from fastconv.algorithms.over_pixels import OverPixelsPass
from fastconv.algorithms.product import ProductPass
from fastconv.algorithms.weight_gradient import WeightGradientPass
from fastconv.problem import ConvProblem


def _as_product(p: ConvProblem) -> ConvProblem:
    """A kernel as large as its input sums over one window, so all of it is one 1x1 layer over the same numbers.

    Its gradient of x then multiplies nothing by the zeros around a single pixel (16 channels of 5x5: 15 times faster).
    """
    if not (p.groups == 1 and p.no_padding and (p.KH, p.KW) == (p.H, p.W)):
        return p
    return replace(p, C=p.C * p.taps, H=1, W=1, KH=1, KW=1, stride=(1, 1), dilation=(1, 1))


def _pixels_as_images(p: ConvProblem) -> ConvProblem:
    """A 1x1 layer over channels-last pixels multiplies the same numbers as one over as many images of one pixel."""
    if not (p.channels_last and p.groups == 1 and p.no_padding and p.taps == 1 and p.stride == (1, 1)):
        return p
    return replace(p, N=p.N * p.H * p.W, H=1, W=1)


def _cheapest(problem: ConvProblem, threads: int, gradient: bool, relu: bool) -> Any:
    passes: list[Any] = [OverFiltersPass(problem, threads, packed=False, gradient=gradient, relu=relu)]
    if not OverPixelsPass.declines(problem, gradient):
        passes.append(OverPixelsPass(problem, threads, gradient=gradient, relu=relu))
    product = _pixels_as_images(problem)
    if not ProductPass.declines(product):
        passes.append(ProductPass(product, threads, gradient=gradient, relu=relu))
    return min(passes, key=lambda each: each.cycles)


def _forward(problem: ConvProblem, threads: int, relu: bool) -> Any:
    whole = _cheapest(_as_product(problem), threads, False, relu)
    return small.faster(whole, problem, "forward", threads, relu)


def _gradient_x(problem: ConvProblem, threads: int) -> Any:
    return small.faster(_cheapest(_as_product(problem), threads, True, False), problem, "gradient_x", threads)


def _gradient_w(problem: ConvProblem, threads: int) -> Any:
    product = _as_product(problem)
    arrangements = [WeightGradientPass(product, threads, rows_are_taps=rows) for rows in (True, False)]
    cheapest = min(arrangements, key=lambda arrangement: arrangement.cycles)
    return small.faster(cheapest, problem, "gradient_w", threads)


ALGORITHM = Algorithm("direct", "reads the padded input in place", _forward, _gradient_x, _gradient_w)
