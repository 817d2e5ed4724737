"""im2col, one cache-sized block at a time: windows are copied side by side before they are multiplied.

Channels-first data is packed by tap, a tile of pixels at a time, channels-last by window.
"""

from __future__ import annotations

from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.gradient_panels import GradientPanelsPass, arrangements
from fastconv.algorithms.over_filters import OverFiltersPass
from fastconv.algorithms.pixel_panels import PixelPanelsPass
from fastconv.problem import ConvProblem


def _forward(problem: ConvProblem, threads: int, relu: bool) -> OverFiltersPass | PixelPanelsPass:
    if problem.channels_last:
        return OverFiltersPass(problem, threads, packed=True, gradient=False, relu=relu)
    return PixelPanelsPass(problem, threads, gradient=False, relu=relu)


def _gradient_x(problem: ConvProblem, threads: int) -> OverFiltersPass | PixelPanelsPass:
    if problem.channels_last:
        return OverFiltersPass(problem, threads, packed=True, gradient=True)
    return PixelPanelsPass(problem, threads, gradient=True)


def _gradient_w(problem: ConvProblem, threads: int) -> GradientPanelsPass:
    ways = [GradientPanelsPass(problem, threads, arrangement) for arrangement in arrangements(problem)]
    return min(ways, key=lambda each: each.cycles)


ALGORITHM = Algorithm("im2col", "copies windows into a block first", _forward, _gradient_x, _gradient_w)
