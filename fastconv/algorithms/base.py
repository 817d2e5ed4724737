"""What an algorithm is: three passes, each offered or declined for a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastconv.problem import ConvProblem

PASSES = ("forward", "gradient_x", "gradient_w")


def supports_everything(problem: ConvProblem, direction: str) -> str | None:
    return None


@dataclass(frozen=True)
class Algorithm:
    """A named way to compute the three passes.

    Attributes
    ----------
    forward : (problem, threads, relu) -> pass with run(x, w, bias, out).
    gradient_x : (problem, threads) -> pass with run(dout, w, no bias, dx).
    gradient_w : (problem, threads) -> pass with run(x, dout, dw).
    declines : (problem, direction) -> why it cannot, or None.
    exact : accuracy of a plain sum, so that "auto" may choose it; others are for "fast".
    """

    name: str
    description: str
    forward: Callable[[ConvProblem, int, bool], Any]
    gradient_x: Callable[[ConvProblem, int], Any]
    gradient_w: Callable[[ConvProblem, int], Any]
    declines: Callable[[ConvProblem, str], str | None] = supports_everything
    exact: bool = True
