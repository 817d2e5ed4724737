"""Gradient of the weights of channels-first planes that keep their size, with one channel per group: tables, sizes."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.depthwise_plane_gradient import PlaneGradient, PlaneSums, plane_gradient, plane_sums
from fastconv._kernels.dot_tile import fold_lanes
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.filter_rows import add_up
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_MOST_TAPS = 16  # whose sums stay in registers; with 25 `grouped_gradient` took 0.4 to 1.05 times as long
_SUM_VECTORS = 256  # summed in registers: short sums keep float32 accurate
_SUM_BYTES = 16 * 1024  # of the sums of a task's channels: in the first-level cache
# Beside `grouped_gradient`: 0.6 to 0.75 of its time for 24x24 to 112x112, 0.9 for 14x14, 1.05 for 7x7.
_CYCLES_PER_TAP, _CYCLES_PER_TAP_AT_END, _CYCLES_PER_VECTOR, _CYCLES_PER_PLANE = 0.7, 1.0, 3.0, 30.0
_CYCLES_PER_SUM = 3.0


class PlaneGradientPass:
    """`run(x, dout, dw)` fills dw; both operands C-contiguous."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        """Whether planes do not keep their size, have too many taps, or masks are no registers."""
        keeps_size = p.stride == (1, 1) and (p.OH, p.OW) == (p.H, p.W)
        return MACHINE.vector_bits != 512 or p.channels_last or not keeps_size or p.taps > _MOST_TAPS

    def __init__(self, problem: ConvProblem, threads: int):
        self.problem, self.threads, p, itemsize = problem, threads, problem, problem.dtype.itemsize
        lanes, numbers = MACHINE.lanes(itemsize), p.H * p.W
        vectors = ceil_div(numbers, lanes)
        (top, _), (left, _) = p.pads
        down, across = np.arange(p.KH) * p.dilation[0] - top, np.arange(p.KW) * p.dilation[1] - left
        row, col = np.divmod(np.arange(vectors * lanes), p.W)
        row_meets, col_meets = row + down[:, None], col + across[:, None]
        rows_inside = (row < p.H) & (row_meets >= 0) & (row_meets < p.H)
        cols_inside = (col_meets >= 0) & (col_meets < p.W)
        whole = np.flatnonzero(rows_inside.all(0).reshape(vectors, lanes).all(1))
        first, behind = (int(whole[0]), int(whole[-1]) + 1) if whole.size else (vectors, vectors)
        ends = np.r_[0:first, behind:vectors]
        taps_inside = (rows_inside[:, None] & cols_inside).reshape(p.taps, vectors, lanes)
        inner_masks = _bits(cols_inside.reshape(p.KW, vectors, lanes)[:, first:behind])
        self.masks = np.concatenate([inner_masks, _bits(taps_inside[:, ends])])
        sizes = PlaneSums(
            numbers=numbers, vectors=vectors, inner_first=first, inner_end=behind,
            start=int(down[0] * p.W + across[0]), row_step=p.dilation[0] * p.W, col_step=p.dilation[1],
            sum_vectors=_SUM_VECTORS,
        )  # fmt: skip
        self.sizes = np.array(sizes)
        split_images = ceil_div(p.N, threads)
        splits = ceil_div(p.N, split_images)
        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        share = min(ceil_div(p.C, ceil_div(tasks, splits)), max(_SUM_BYTES // (p.taps * lanes * itemsize), 1))
        self.geometry = PlaneGradient(
            images=p.N, split_images=split_images, channels=p.C, share=share, numbers=numbers, taps=p.taps, lanes=lanes
        )
        self.partial_shape, self.sums = (splits, p.C * p.taps), share * p.taps * lanes
        self.workspace = (splits * p.C * p.taps + threads * self.sums) * itemsize
        each = p.taps * (ends.size * _CYCLES_PER_TAP_AT_END + (behind - first) * _CYCLES_PER_TAP + _CYCLES_PER_SUM)
        self.cycles = p.N * p.C * (each + vectors * _CYCLES_PER_VECTOR + _CYCLES_PER_PLANE) + costs.CYCLES_PER_LAUNCH

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p = self.problem
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        with Scratch(self.workspace) as scratch:
            partial = scratch.take(self.partial_shape, p.dtype)
            runtime.run_tasks(
                plane_gradient, slots, *self._callbacks, self.sizes, self.masks, x.reshape(-1), dout.reshape(-1),
                partial, scratch.take((slots, self.sums), p.dtype), self.geometry,
            )  # fmt: skip
            add_up(partial, dw)

    @cached_property
    def _callbacks(self) -> tuple[int, int]:
        p, itemsize = self.problem, self.problem.dtype.itemsize
        return plane_sums(p.KH, p.KW, itemsize).address, fold_lanes(itemsize).address


def _bits(inside: np.ndarray) -> np.ndarray:
    """(taps, vectors, lanes) -> the bytes of (vectors, taps) integers of a bit per lane."""
    return np.packbits(inside.swapaxes(0, 1), axis=2, bitorder="little").reshape(-1)
