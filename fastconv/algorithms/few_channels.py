"""Few channels on either side: arrangements in which neither a vector nor a tile's rows run along them.

Forward has vectors over filters, where they fill one (channels-last), or along output rows. The gradient of x is such a
pass over dout with the flipped kernel, or multiplies by columns, rows being all C * KH * KW of them, or takes dot
products along filters (channels-last). The gradient of w takes dot products along output pixels.
"""

from __future__ import annotations

from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.channel_dots import ChannelDotsPass
from fastconv.algorithms.gradient_columns import GradientColumnsPass
from fastconv.algorithms.mirrored_sweeps import MirroredSweepsPass
from fastconv.algorithms.over_filters import OverFiltersPass
from fastconv.algorithms.sweeps import SweepsPass
from fastconv.algorithms.weight_dots import WeightDotsPass
from fastconv.problem import ConvProblem


def _declines(problem: ConvProblem, direction: str) -> str | None:
    return WeightDotsPass.declines(problem) if direction == "gradient_w" else None


def _forward(problem: ConvProblem, threads: int, relu: bool) -> SweepsPass | OverFiltersPass:
    if SweepsPass.declines(problem):
        return OverFiltersPass(problem, threads, packed=False, gradient=False, relu=relu)
    return SweepsPass(problem, threads, relu=relu)


def _gradient_x(problem: ConvProblem, threads: int) -> GradientColumnsPass | MirroredSweepsPass | ChannelDotsPass:
    ways = [way for way in (MirroredSweepsPass, ChannelDotsPass) if not way.declines(problem)]
    # For one thread, so that results do not depend on how many there are.
    fastest = min((GradientColumnsPass, *ways), key=lambda way: way(problem, 1).cycles)
    return fastest(problem, threads)


def _gradient_w(problem: ConvProblem, threads: int) -> WeightDotsPass:
    return WeightDotsPass(problem, threads)


ALGORITHM = Algorithm(
    "few_channels", "multiplies by columns and by pixels", _forward, _gradient_x, _gradient_w, _declines
)
