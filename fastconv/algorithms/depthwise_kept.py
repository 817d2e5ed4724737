"""Channels-first depthwise convolution over planes kept with zeros around them: tables and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.depthwise_kept import KeptWork, correlate_planes_kept, sum_planes_kept
from fastconv._kernels.depthwise_kept_tile import KeptShape, KeptSizes, correlate_kept, keep_planes, sum_kept
from fastconv._kernels.dot_tile import fold_lanes
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import best_cells
from fastconv.algorithms.filter_rows import add_up
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_KEPT_BYTES = 16 * 1024  # of one task, beside its results in the first-level cache; 256 vectors: short sums
_LEAST_RUN = 8  # planes of an image that lie side by side: 1.5 KB of 7x7
_MOST_TAPS, _MOST_ROW_TAPS = 49, 7
_PAGE_BYTES = 4096
_MOST_SUMS, _MANY_SUMS = 25, 9  # in registers; beyond 9 for tiles of 4 rows
_CYCLES_PER_TAP, _CYCLES_PER_LOAD, _CYCLES_PER_VECTOR, _CYCLES_PER_PLANE = 0.5, 0.3, 3.5, 10.0
# Per vector of a kept row; beside results that are written it waits. Against planes read where they lie, forward:
# 0.7 of the time for 7x7, 1.0 for 14x14, 1.2 for 28x28, 1.8 for 112x112; gradient of w 0.7, 1.0, 1.1, 1.3, and 0.7
# with a stride of 2.
_CYCLES_PER_KEPT, _CYCLES_PER_KEPT_ONLY = 6.0, 3.0


@dataclass(frozen=True)
class Correlation:
    """One correlation of planes, columns in phases of their stride: a forward pass, or the gradient of x."""

    height: int
    width: int
    rows: int  # of an output plane
    cols: int
    stride: tuple[int, int]
    above: int
    left: int
    reverse: bool  # taps from the last to the first

    @staticmethod
    def of(p: ConvProblem, *, gradient: bool) -> Correlation:
        (top, _), (left, _) = p.pads
        if gradient:
            return Correlation(p.OH, p.OW, p.H, p.W, (1, 1), p.KH - 1 - top, p.KW - 1 - left, True)
        return Correlation(p.H, p.W, p.OH, p.OW, p.stride, top, left, False)

    def taps(self, axis: int, count: int) -> tuple[tuple[int, int], ...]:
        """The phase and shift of each kernel row, counted from the zeros above, or column, from the first of x."""
        first, step = (0, -self.left)[axis], self.stride[axis]
        return tuple((place % step, place // step) for place in range(first, first + count))


def _declines(p: ConvProblem, *, gradient: bool) -> bool:
    """Whether columns are too far apart, taps or filters too many, or masks are no registers."""
    c = Correlation.of(p, gradient=gradient)
    apart = max(c.stride) > 2 or p.dilation != (1, 1) or (gradient and p.stride != (1, 1))
    many = p.taps > _MOST_TAPS or p.KH > _MOST_ROW_TAPS or p.group_filters != 1
    return MACHINE.vector_bits != 512 or p.channels_last or apart or many or c.above < 0 or c.left < 0


class _Kept:
    """What forward and gradients share: how planes are kept."""

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool = False):
        self.problem, self.threads, p, self.itemsize = problem, threads, problem, problem.dtype.itemsize
        self.lanes = lanes = MACHINE.lanes(self.itemsize)
        self.correlation = c = Correlation.of(p, gradient=gradient)
        self.rows, self.columns = c.taps(0, p.KH), c.taps(1, p.KW)
        down, across = c.stride
        shifts = [shift for _, shift in self.columns]
        need = max(ceil_div(c.width, across) - min(*shifts, 0), c.cols + max(*shifts, 0))
        self.abreast = max(many for many in (4, 2, 1) if many == 1 or (lanes // many >= need and c.rows > 1))
        self.row = lanes // self.abreast if self.abreast > 1 else ceil_div(need, lanes) * lanes
        most = max((_KEPT_BYTES // (self.row * across * self.itemsize) - p.KH) // down + 1, 1)
        # No band has fewer rows than a tile.
        self.bands = max(min(ceil_div(c.rows, most), c.rows // (self._cells() * self.abreast)), 1)
        rows = ceil_div((ceil_div(c.rows, self.bands) - 1) * down + p.KH, down)
        self.column_phase = ceil_div(rows * self.row, lanes) * lanes
        self.plane = self.column_phase * down * across
        lead = -c.above * self.row % lanes
        self.lead = lead if lead >= -min(*shifts, 0) else lead + lanes
        self.fitting = max(_KEPT_BYTES // (self.plane * self.itemsize), 1) if self.bands == 1 else 1

    def _cells(self, most: int = 7) -> int:
        rows = ceil_div(self.correlation.rows, self.abreast)
        return best_cells(rows, min(most, rows))

    def shape(self, cells: int) -> KeptShape:
        return KeptShape(cells, self.abreast, self.rows, self.columns)

    def kept(self, planes: int) -> int:
        """Numbers of scratch of a slot for some planes: what lies before and behind them, and lanes beyond rows."""
        numbers = self.lead + planes * self.plane + self.abreast * self.row + 2 * self.lanes
        return self._apart(numbers)

    def _apart(self, numbers: int) -> int:
        """Enough numbers that what follows begins a page later.

        Processors prefetch on to the end of a page: where another slot's sums began a few lines behind, two threads
        took lines from each other and were no faster than one (gradient of w, 7x7 planes).
        """
        page = _PAGE_BYTES // self.itemsize
        return (ceil_div(numbers, page) + 1) * page

    @cached_property
    def sizes(self) -> np.ndarray:
        p, c = self.problem, self.correlation
        sizes = KeptSizes(
            width=c.width, x_plane=c.height * c.width, row=self.row, column_phase=self.column_phase,
            row_phase=self.column_phase * c.stride[1], plane=self.plane, columns=c.cols, out_plane=c.rows * c.cols,
            w_start=p.taps - 1 if c.reverse else 0, w_row=-p.KW if c.reverse else p.KW, w_col=-1 if c.reverse else 1,
        )  # fmt: skip
        return np.array(sizes)

    def work(self, run: int, *, relu: bool = False, split_images: int = 1, together: int = 1) -> KeptWork:
        p, c = self.problem, self.correlation
        return KeptWork(
            images=p.N, planes=p.C, run=run, rows=c.rows, bands=self.bands, height=c.height, width=c.width,
            columns=c.cols, stride=c.stride[0], above=c.above, reach=p.KH, taps=p.taps, row=self.row,
            row_phase=self.column_phase * c.stride[1], phases=c.stride[1], column_phase=self.column_phase,
            plane=self.plane, lead=self.lead, lanes=self.lanes, split_images=split_images, together=together,
            relu=int(relu),
        )  # fmt: skip

    def tile_cycles(self, cells: int, per_kept: float) -> float:
        """Predicted cycles of all planes."""
        p, c = self.problem, self.correlation
        loads = len(self.shape(cells).reads) / cells * p.KW
        vectors = ceil_div(c.rows, cells * self.abreast) * cells * ceil_div(c.cols, self.lanes)
        kept = ceil_div(c.height, self.abreast) * ceil_div(c.width, self.lanes)
        each = p.taps * _CYCLES_PER_TAP + loads * _CYCLES_PER_LOAD + _CYCLES_PER_VECTOR
        return p.N * p.C * (vectors * each + kept * per_kept + _CYCLES_PER_PLANE)


class KeptPass(_Kept):
    """Forward, or gradient of x: `run(operand, w, bias, out)` with operand x or dout."""

    declines = staticmethod(_declines)

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        super().__init__(problem, threads, gradient=gradient)
        p = problem
        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        run = min(self.fitting, ceil_div(p.C, ceil_div(tasks, p.N * self.bands)))
        self.geometry = self.work(run, relu=relu)
        self.workspace = threads * self.kept(run) * self.itemsize
        self.cycles = self.tile_cycles(self._cells(), _CYCLES_PER_KEPT) + costs.CYCLES_PER_LAUNCH

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, in the problem's layout; bias (F,) or empty."""
        p, g = self.problem, self.geometry
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        with Scratch(self.workspace) as scratch:
            runtime.run_tasks(
                correlate_planes_kept, slots, *self._callbacks, self.sizes, operand.reshape(-1), w.reshape(-1), bias,
                out.reshape(-1), scratch.take((slots, self.kept(g.run)), p.dtype), g,
            )  # fmt: skip

    @cached_property
    def _callbacks(self) -> tuple[int, int]:
        keep = keep_planes(self.abreast, *self.correlation.stride, self.itemsize)
        return keep.address, correlate_kept(self.shape(self._cells()), self.itemsize).address


class KeptGradientPass(_Kept):
    """`run(x, dout, dw)` fills dw; both operands C-contiguous."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        return p.taps > _MOST_SUMS or _declines(p, gradient=False)

    def __init__(self, problem: ConvProblem, threads: int):
        super().__init__(problem, threads)
        p = problem
        tasks = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        run = min(p.C, self.fitting, max(self.fitting // p.N, _LEAST_RUN))
        most = self.fitting // run
        together = ceil_div(p.N, ceil_div(p.N, most))
        runs = ceil_div(p.C, run)
        splits = costs.even_splits(min(ceil_div(p.N, together), ceil_div(tasks, runs)), runs, threads)
        split_images = ceil_div(p.N, splits)
        self.geometry = self.work(run, split_images=split_images, together=min(together, split_images))
        self.partial_shape = ceil_div(p.N, split_images), p.C * p.taps
        self.sums = self._apart(run * p.taps * self.lanes)
        self.kept_numbers = self.kept(run * self.geometry.together)
        partial = self.partial_shape[0] * self.partial_shape[1]
        self.workspace = (partial + threads * (self.sums + self.kept_numbers)) * self.itemsize
        self.cells = self._cells(7 if p.taps <= _MANY_SUMS else 4)
        self.cycles = self.tile_cycles(self.cells, _CYCLES_PER_KEPT_ONLY) + costs.CYCLES_PER_LAUNCH

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p, g = self.problem, self.geometry
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        with Scratch(self.workspace) as scratch:
            partial = scratch.take(self.partial_shape, p.dtype)
            runtime.run_tasks(
                sum_planes_kept, slots, *self._callbacks, self.sizes, x.reshape(-1), dout.reshape(-1), partial,
                scratch.take((slots, self.kept_numbers), p.dtype), scratch.take((slots, self.sums), p.dtype), g,
            )  # fmt: skip
            add_up(partial, dw)

    @cached_property
    def _callbacks(self) -> tuple[int, int, int]:
        keep = keep_planes(self.abreast, *self.correlation.stride, self.itemsize)
        add = sum_kept(self.shape(self.cells), self.itemsize)
        return keep.address, add.address, fold_lanes(self.itemsize).address
