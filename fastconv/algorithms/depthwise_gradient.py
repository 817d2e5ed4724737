"""Gradient of the weights of channels-last images with one channel per group: tables and sizes."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block
from fastconv._kernels.depthwise_gradient import DepthwiseGradient, depthwise_gradient, tap_sums
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.tables import steps
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_MOST_SUMS = 25 if MACHINE.vector_bits == 512 else 12  # in registers, beside a vector of dout
_KEPT_BYTES = 512 * 1024  # padded rows of x of one task
_VECTORS = 8  # of channels of one task: lines that lie side by side in memory
_SUM_PIXELS = 256  # summed in registers: short sums keep float32 accurate
_MOST_SPLITS = 64
_CYCLES_PER_TAP, _CYCLES_PER_VECTOR, _CYCLES_PER_COPIED, _CYCLES_PER_CALL = 0.55, 5.0, 4.0, 40.0


class DepthwiseGradientPass:
    """`run(x, dout, dw)` fills dw; both operands C-contiguous, channels-last."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        return not p.channels_last or p.KW > _MOST_SUMS  # kernel rows beyond the registers are left to others

    def __init__(self, problem: ConvProblem, threads: int):
        p, self.problem, self.threads, itemsize = problem, problem, threads, problem.dtype.itemsize
        lanes = MACHINE.lanes(itemsize)
        row_taps = p.KH if p.taps <= _MOST_SUMS else 1
        abreast = 2 if 2 * row_taps * p.KW <= _MOST_SUMS and p.C > lanes else 1
        vectors = min(ceil_div(ceil_div(p.C, lanes), abreast) * abreast, _VECTORS)
        self.together = vectors * lanes
        shares = ceil_div(p.C, self.together)
        padded = max(p.padded[1], (p.OW - 1) * p.stride[1] + (p.KW - 1) * p.dilation[1] + 1)
        reach = (p.KH - 1) * p.dilation[0] + 1
        most = max((_KEPT_BYTES // (padded * self.together * itemsize) - reach) // p.stride[0] + 1, 1)
        bands = ceil_div(p.OH, most)
        band = ceil_div(p.OH, bands)
        bands = ceil_div(p.OH, band)
        split_images = ceil_div(p.N, max(_MOST_SPLITS // bands, 1))
        splits = ceil_div(p.N, split_images) * bands
        self.geometry = DepthwiseGradient(
            images=p.N, split_images=split_images, band=band, rows=p.OH, cols=p.OW, channels=p.C, lanes=lanes,
            vectors=vectors, abreast=abreast, height=p.H, width=p.W, stride=p.stride[0], col_stride=p.stride[1],
            top=p.pads[0][0], left=p.pads[1][0], padded=padded, tap_rows=p.KH, tap_cols=p.KW, row_taps=row_taps,
            down=p.dilation[0], across=p.dilation[1], sum_rows=max(_SUM_PIXELS // p.OW, 1),
        )  # fmt: skip
        kept_rows = (band - 1) * p.stride[0] + reach
        self.kept = kept_rows * padded * self.together
        self.sums_shape = splits, shares, vectors * p.taps * lanes
        self.workspace = ((splits + 1) * shares * vectors * p.taps * lanes + threads * self.kept) * itemsize
        products, lines = p.N * p.OH * p.OW, ceil_div(p.OH, self.geometry.sum_rows) * ceil_div(p.KH, row_taps)
        self.cycles = shares * vectors * (
            products * (p.taps * _CYCLES_PER_TAP + _CYCLES_PER_VECTOR)
            + p.N * (bands * kept_rows * p.W * _CYCLES_PER_COPIED + lines * _CYCLES_PER_CALL)
        ) + costs.CYCLES_PER_LAUNCH  # fmt: skip

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p, g = self.problem, self.geometry
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        to_places, from_places = steps(self.together, p.W), steps(p.C, p.W)
        with Scratch(self.workspace) as scratch:
            sums = scratch.take(self.sums_shape, p.dtype)
            runtime.run_tasks(
                depthwise_gradient, slots, *self._callbacks, x.reshape(-1), dout.reshape(-1),
                sums, scratch.take((slots, self.kept), p.dtype), to_places, from_places, g,
            )  # fmt: skip
            total = np.add.reduce(sums, axis=0, out=scratch.take(self.sums_shape[1:], p.dtype))
            total = total.reshape(-1, p.taps, g.lanes).swapaxes(0, 1).reshape(p.taps, -1)
            dw.reshape(p.taps, p.C)[:] = total[:, : p.C]

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        g, itemsize = self.geometry, self.problem.dtype.itemsize
        return tap_sums(g.row_taps, g.tap_cols, g.abreast, itemsize).address, copy_block(itemsize).address
