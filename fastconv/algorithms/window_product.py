"""Forward of channels-last layers with few pixels and many weights: windows become rows of a matrix product.

Weights are packed while they are used (see `product`), not written and read once more: one image of 512x7x7, 512
filters of 3x3.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastconv import runtime
from fastconv.algorithms import costs
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.product import ProductPass
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_MOST_BYTES = 2 * 2**20  # of all windows: NumPy copies them, on one thread


class WindowProductPass:
    """`run(x, w, bias, out)`; see `base`."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        windows = p.N * p.OH * p.OW * p.taps * p.C * p.dtype.itemsize
        return not p.channels_last or p.groups > 1 or windows > _MOST_BYTES

    def __init__(self, problem: ConvProblem, threads: int, *, relu: bool = False):
        self.problem, self.threads, p = problem, threads, problem
        self.source = Operand(True, True, p.C, p.H, p.W, p.pads[0][0], p.pads[1][0], *p.padded)
        rows = replace(
            p, N=p.N * p.OH * p.OW, C=p.taps * p.C, H=1, W=1, KH=1, KW=1, stride=(1, 1), pads=((0, 0), (0, 0)),
            dilation=(1, 1),
        )  # fmt: skip
        self.product = ProductPass(rows, threads, gradient=False, relu=relu)
        padded, windows = self.source.scratch_bytes(p.dtype.itemsize) * p.N, rows.N * rows.C * p.dtype.itemsize
        self.workspace = padded + windows + self.product.workspace
        copied = 2 * (padded + windows * threads)
        self.cycles = self.product.cycles + copied * costs.CYCLES_PER_BYTE_MOVED + 2 * costs.CYCLES_PER_LAUNCH

    def prepare(self, w: np.ndarray) -> np.ndarray:
        """The weights as panels of the product."""
        return self.product.prepare(w)

    def run(
        self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        p, slots = self.problem, min(runtime.slots_for(self.problem.multiply_adds), self.threads)
        with Scratch(self.workspace) as scratch:
            padded = self.source.prepare(x, slots, scratch).reshape(p.N, *p.padded, p.C)
            windows = scratch.take((p.N, p.OH, p.OW, p.KH, p.KW, p.C), p.dtype)
            image, row, col, channel = padded.strides
            (down, across), (below, beside) = p.stride, p.dilation
            steps = image, row * down, col * across, row * below, col * beside, channel
            windows[...] = np.lib.stride_tricks.as_strided(padded, windows.shape, steps, writeable=False)
            self.product.run(windows, w, bias, out, prepared)
