"""Groups of few channels: vectors of filters hold several groups, or one group fills vectors of its own.

Whatever the layout, a task brings the rows that it needs into blocks of one vector of channels per pixel.
"""

from __future__ import annotations

from fastconv.algorithms import costs
from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.grouped_gradient import GroupedGradient
from fastconv.algorithms.grouped_pass import GroupedPass
from fastconv.problem import ConvProblem


def _declines(problem: ConvProblem, direction: str) -> str | None:
    if problem.groups == 1 or problem.group_channels == 1:
        return f"it needs several groups of several channels, not {problem.groups} of {problem.group_channels}"
    largest = problem.taps * max(problem.group_channels, problem.group_filters)
    if direction != "gradient_w" and largest > costs.DEPTH_BLOCK:
        return f"it sums up to {costs.DEPTH_BLOCK} products of a group, not {largest}"
    return None


def _forward(problem: ConvProblem, threads: int, relu: bool) -> GroupedPass:
    return GroupedPass(problem, threads, gradient=False, relu=relu)


def _gradient_x(problem: ConvProblem, threads: int) -> GroupedPass:
    return GroupedPass(problem, threads, gradient=True)


ALGORITHM = Algorithm(
    "grouped", "vectors over the filters of one or several groups", _forward, _gradient_x, GroupedGradient, _declines
)
