"""How Winograd's algorithm cuts the taps and outputs of a problem, along either axis."""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.winograd_transforms import Sizes
from fastconv.algorithms.costs import ceil_div
from fastconv.problem import ConvProblem


class Axis(NamedTuple):
    """Tiles of `n` numbers, as the transforms take them, for `pieces` of `taps` taps each.

    The last piece may reach beyond the kernel, where taps are zero. An axis with a single tap is left as it is: n = 1.
    """

    pieces: int
    taps: int
    n: int

    @property
    def outputs(self) -> int:
        """Numbers that a tile gives."""
        return self.n - self.taps + 1

    @property
    def products(self) -> float:
        """Products for each output, where a plain sum needs one per tap."""
        return self.pieces * self.n / self.outputs


class Axes(NamedTuple):
    down: Axis
    across: Axis

    def sizes(self, name: str) -> Sizes:
        """That attribute of both axes."""
        return Sizes(getattr(self.down, name), getattr(self.across, name))


def _cut(taps: int, n: int) -> Axis:
    """The pieces that need the fewest products; of several such, those whose tiles give the most outputs.

    >>> _cut(3, 4), _cut(7, 6)
    (Axis(pieces=1, taps=3, n=4), Axis(pieces=2, taps=4, n=6))
    """
    if taps == 1:
        return Axis(1, 1, 1)
    axes = (Axis(ceil_div(taps, length), length, n) for length in range(2, n))
    return min(axes, key=lambda axis: (axis.products, -axis.outputs))


def axes_of(problem: ConvProblem, fewer: int, more: int) -> Axes:
    """Tiles of `fewer` x `more` numbers, the greater one on the axis of more taps."""
    kh, kw = problem.KH, problem.KW
    return Axes(_cut(kh, more if kh > kw else fewer), _cut(kw, fewer if kh > kw else more))
