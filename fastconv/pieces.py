"""Passes over a large batch some images at a time, so that their scratch memory stays within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.workspace import Scratch


class _InPieces:
    """`whole` takes `images` images; `rest`, if any remain at the end, takes those."""

    def __init__(self, batch: int, images: int, whole: Any, rest: Any):
        self.batch, self.images = batch, images
        self.whole, self.rest = whole, rest
        self.workspace = max(work.workspace for work in (whole, rest) if work is not None)
        self.cycles = whole.cycles * (batch // images) + (rest.cycles if rest is not None else 0)

    def _pieces(self) -> Iterator[tuple[slice, bool]]:
        """(images, whether they are a whole piece)."""
        for first in range(0, self.batch, self.images):
            end = min(first + self.images, self.batch)
            yield slice(first, end), end - first == self.images


class ImagesInPieces(_InPieces):
    """The forward pass or the gradient of x: every piece computes the results of its own images."""

    def prepare(self, w: np.ndarray) -> tuple[Any, Any]:
        """What both passes make of the weights."""
        return prepare(self.whole, w), prepare(self.rest, w)

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: Any = None) -> None:
        """See `fastconv.algorithms.base`."""
        for_whole, for_rest = prepared or (None, None)
        for images, whole in self._pieces():
            work, weights = (self.whole, for_whole) if whole else (self.rest, for_rest)
            work.run(operand[images], w, bias, out[images], *(() if weights is None else (weights,)))


class SumInPieces(_InPieces):
    """The gradient of w: the pieces' sums are added up, in a scratch array of its size."""

    def __init__(self, batch: int, images: int, whole: Any, rest: Any, dw_bytes: int):
        super().__init__(batch, images, whole, rest)
        self.workspace += dw_bytes

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """See `fastconv.algorithms.base`."""
        with Scratch() as scratch:
            part = scratch.take(dw.shape, dw.dtype)
            for images, whole in self._pieces():
                target = dw if images.start == 0 else part
                (self.whole if whole else self.rest).run(x[images], dout[images], target)
                if target is part:
                    dw += part


def prepare(work: Any, w: np.ndarray) -> Any:
    """What a pass makes of the weights beforehand; None where it offers nothing of the kind."""
    return work.prepare(w) if hasattr(work, "prepare") else None
