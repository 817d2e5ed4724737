"""What an algorithm is: three passes, each offered or declined for a problem.

A pass is an object made once per problem and kept with the plan. It holds tables and sizes, never operands, and may
be run by several Python threads at once. Every pass has

* `cycles`: predicted cycles of one core, by which algorithms are compared;
* `workspace`: bytes of scratch that a run takes at most, beside its operands and results;
* optionally `spared`: cycles that it spares, compared with the others, outside of what `cycles` counts (in Python).

Passes of the directions "forward" and "gradient_x" have

* `run(operand, w, bias, out)`: operand is x, or dout for the gradient of x; all arrays C-contiguous in the problem's
  layout and dtype, bias (F,) or empty. `out` may be uninitialised and overlaps no operand.
* optionally `prepare(w)`: the weights packed or transformed as `run` would do it in every call, or None where that
  saves nothing. Given back as `run(operand, w, bias, out, prepared)`, it makes `run` skip that work; the results are
  bit-identical, and w is not read. It is an opaque object, owned by the caller and only read by `run`; it serves
  every pass made with the same arguments. It must not alias w, which the caller may change, nor memory of the scratch
  pool.

Passes of the direction "gradient_w" have

* `run(x, dout, dw)`: as above; `dw` may be uninitialised.
"""

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
    forward : (problem, threads, relu) -> pass from x to out.
    gradient_x : (problem, threads) -> pass from dout to dx, run without a bias.
    gradient_w : (problem, threads) -> pass from x and dout to dw; None where `declines` says so for every problem.
    declines : (problem, direction) -> why it cannot, or None.
    exact : accuracy of a plain sum, so that "auto" may choose it; others are for "fast".
    """

    name: str
    description: str
    forward: Callable[[ConvProblem, int, bool], Any]
    gradient_x: Callable[[ConvProblem, int], Any]
    gradient_w: Callable[[ConvProblem, int], Any] | None
    declines: Callable[[ConvProblem, str], str | None] = supports_everything
    exact: bool = True
