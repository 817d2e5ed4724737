"""Depthwise convolution of channels-first arrays: tables and sizes, made once per problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import runtime
from fastconv._kernels.depthwise import PlaneWork, correlate_planes
from fastconv._kernels.depthwise_gradient import PlaneGradientWork, gradient_planes, plane_gradient_tile
from fastconv._kernels.depthwise_tiles import PlaneSizes, Rows, plane_tile
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import Outputs, axis_outputs, best_cells, tile_rows, whole_cells
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_MOST_WEIGHTS = 9  # that stay in registers: 3x3
_FEW_ROWS = 3  # planes of so few rows are cut into segments of a row instead
_CYCLES_PER_VECTOR = 6.0  # storing, setting out, waiting for memory: measured over 3x3 and 5x5 layers
_CYCLES_PER_TAP = 0.9
_CYCLES_PER_LOAD = 2.0  # more, per input vector of a strided row


@dataclass(frozen=True)
class Grid:
    """How the outputs of one phase of rows and its column phases (two are interleaved) are cut into tiles."""

    shape: Rows
    segments: bool
    load_step: int  # 0: any
    phases: int  # column phases; 0: one, which is stored alone
    sizes: PlaneSizes
    table: np.ndarray


def _grid(
    p: ConvProblem, rows: Outputs, columns: list[Outputs], cells: int, given: tuple[int, int], made: tuple[int, int]
) -> Grid:
    """`given` and `made` are the sizes of an input and of an output plane; `cells` rows, or segments of few rows."""
    (height, width), lanes, outputs = given, MACHINE.lanes(p.dtype.itemsize), columns[0]
    phases = len(columns)
    alone = outputs.step > 1 and phases == 1
    segments = in_segments(p, rows, outputs)
    vectors = ceil_div(outputs.count, lanes)
    if segments:
        vectors = ceil_div(vectors, cells)
    vector_step = lanes * outputs.stride
    cell_outputs = vectors * lanes * phases if segments else 0
    cell_column = vectors * vector_step if segments else 0
    out_row = rows.step * made[1]
    total = made[1] if phases == 2 else outputs.count
    # Vectors whose lanes all exist, in the output and at every tap.
    offsets = [offset for phase in columns for _, offset in phase.taps] or [0]
    reach = 2 * lanes - 1 if outputs.stride == 2 else (lanes - 1) * outputs.stride
    last = width - 1 - max(offsets) - reach - (cells - 1) * cell_column
    inside_end = min(last // vector_step + 1, (total - (cells - 1) * cell_outputs) // (lanes * phases))
    shape = Rows(cells, 1, 1, 1) if segments else tile_rows(cells, rows)
    sizes = PlaneSizes(
        height=height, width=width, x_plane=height * width, out_plane=made[0] * made[1], w_plane=p.taps,
        out_cell=cell_outputs * (outputs.step if alone else 1) if segments else out_row,
        cell_row=0 if segments else rows.stride, cell_column=cell_column, groups=len(rows.taps),
        group_row=rows.offset_step, w_row=rows.kernel_step * p.KW, cell_outputs=cell_outputs, vectors=vectors,
        inside_first=ceil_div(max(-min(offsets), 0), vector_step), inside_end=inside_end, vector_step=vector_step,
        columns=total, load_step=outputs.stride, store_step=outputs.step, taps_0=len(outputs.taps),
        taps_1=len(columns[-1].taps) if phases == 2 else 0, block=1 if segments else cells, out_row=out_row,
        row_step=rows.stride,
    )  # fmt: skip
    table = [(offset, rows.kernel_start * p.KW + k) for phase in columns for k, offset in phase.taps]
    load_step = outputs.stride if outputs.stride <= 2 else 0
    return Grid(shape, segments, load_step, 0 if alone else phases, sizes, np.array(table, np.int64).reshape(-1))


def in_segments(p: ConvProblem, rows: Outputs, columns: Outputs) -> bool:
    return rows.count <= _FEW_ROWS < ceil_div(columns.count, MACHINE.lanes(p.dtype.itemsize))


def _cycles(p: ConvProblem, grid: Grid, rows: int, planes: int) -> float:
    """Predicted cycles of the tiles over `rows` rows of `planes` planes."""
    s = grid.sizes
    vectors = ceil_div(rows, s.block) * grid.shape.cells * s.vectors * max(grid.phases, 1) * planes
    loads = len(grid.shape.reads) / grid.shape.cells * max(s.groups if grid.shape.taps == 1 else 1, 1) * s.taps_0
    strided = _CYCLES_PER_LOAD * loads * (s.load_step > 1) * (1 if grid.load_step else MACHINE.lanes(p.dtype.itemsize))
    taps = s.groups * (s.taps_0 + s.taps_1) / max(grid.phases, 1)
    return vectors * (_CYCLES_PER_VECTOR + _CYCLES_PER_TAP * taps + strided)


class PlanesPass:
    """Forward, or gradient of x: `run(operand, w, bias, out)` with operand x or dout."""

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        self.problem, self.threads, p = problem, threads, problem
        sizes = (p.H, p.W), (p.OH, p.OW)
        self.given, self.made = reversed(sizes) if gradient else sizes
        self.planes, self.sources, self.repeat = (p.C, p.group_filters, 1) if gradient else (p.F, 1, p.group_filters)
        columns = axis_outputs(p, 1, gradient)
        sets = [columns] if len(columns) == 2 else [[phase] for phase in columns]
        self.launches = []
        self.cycles = 0.0
        for rows in axis_outputs(p, 0, gradient):
            for phases in sets:
                vectors = ceil_div(phases[0].count, MACHINE.lanes(p.dtype.itemsize))
                cells = best_cells(vectors if in_segments(p, rows, phases[0]) else rows.count)
                grid = _grid(p, rows, phases, cells, self.given, self.made)
                self.launches.append(
                    (self._tile(grid), np.array(grid.sizes), grid.table, self._work(grid, rows, phases[0], relu))
                )
                self.cycles += costs.CYCLES_PER_LAUNCH + _cycles(p, grid, rows.count, p.N * p.C * p.group_filters)
        self.zeros = np.zeros(self.given[1], p.dtype)
        self.workspace = 0

    def _tile(self, grid: Grid) -> tuple[Any, ...]:
        unrolled = grid.sizes.taps_0, grid.sizes.taps_1
        if grid.shape.taps == 1 or grid.shape.taps * sum(unrolled) > _MOST_WEIGHTS:
            unrolled = -1, -1
        return grid.shape, grid.load_step, grid.phases, unrolled, grid.segments, self.problem.dtype.itemsize

    def _work(self, grid: Grid, rows: Outputs, columns: Outputs, relu: bool) -> PlaneWork:
        p, sizes = self.problem, grid.sizes
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        band = costs.split(rows.count, ceil_div(tasks, p.N * self.planes), sizes.block)
        return PlaneWork(
            images=p.N, planes=self.planes, sources=self.sources, repeat=self.repeat, x_plane=sizes.x_plane,
            out_plane=sizes.out_plane, w_plane=p.taps, rows=rows.count, band=band, row_start=rows.offset_start,
            row_step=rows.stride, out_start=rows.first * self.made[1] + (0 if grid.phases else columns.first),
            out_row=sizes.out_row, run=ceil_div(p.N * self.planes * ceil_div(rows.count, band), tasks), relu=int(relu),
        )  # fmt: skip

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, in the problem's layout; bias (F,) or empty."""
        slots = min(runtime.slots_for(self.problem.multiply_adds), self.threads)
        for tile, sizes, table, work in self.launches:
            runtime.run_on(
                correlate_planes, slots, np.zeros(1, np.int64), plane_tile(*tile).address, sizes, table, operand,
                self.zeros, w, bias, out, work,
            )  # fmt: skip


class PlanesGradient:
    """Gradient of the weights: `run(x, dout, dw)`."""

    def __init__(self, problem: ConvProblem, threads: int):
        self.problem, self.threads, p = problem, threads, problem
        (rows,), columns = axis_outputs(p, 0, False), axis_outputs(p, 1, False)
        self.lanes = MACHINE.lanes(p.dtype.itemsize)
        segments = in_segments(p, rows, columns[0])
        cells = best_cells(ceil_div(p.OW, self.lanes)) if segments else whole_cells(rows.count)
        rest = 0 if segments else rows.count % cells
        self.grids = [_grid(p, rows, columns, c, (p.H, p.W), (p.OH, p.OW)) for c in (cells, rest or cells)]
        # A call covers one filter: from plane to plane, x and dout move by images.
        self.sizes = [
            np.array(g.sizes._replace(x_plane=p.C * p.H * p.W, out_plane=p.F * p.OH * p.OW)) for g in self.grids
        ]
        self.zeros = np.zeros(p.W, p.dtype)
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        self.work = PlaneGradientWork(
            images=p.N, filters=p.F, repeat=p.group_filters, splits=min(ceil_div(tasks, p.F), p.N), taps=p.taps,
            lanes=self.lanes, x_image=p.C * p.H * p.W, x_plane=p.H * p.W, dout_plane=p.OH * p.OW,
            whole=rows.count - rest, rows=rows.count, row_start=rows.offset_start, row_step=rows.stride,
            dout_row=p.OW,
        )  # fmt: skip
        itemsize = p.dtype.itemsize
        self.workspace = (threads * p.taps * self.lanes + self.work.splits * p.F * p.taps) * itemsize
        planes = p.N * p.F
        self.cycles = (
            costs.CYCLES_PER_LAUNCH + _cycles(p, self.grids[0], rows.count - rest, planes)
            + _cycles(p, self.grids[1], rest, planes)
        )  # fmt: skip

    def _tile(self, grid: Grid) -> Any:
        # All column taps at once if their sums fit the registers: then dout is loaded once.
        column_taps = self.problem.KW if grid.shape.taps * self.problem.KW <= _MOST_WEIGHTS else 1
        itemsize = self.problem.dtype.itemsize
        return plane_gradient_tile(grid.shape, grid.load_step, column_taps, grid.segments, itemsize).address

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p, work = self.problem, self.work
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        with Scratch() as scratch:
            sums = scratch.take((slots, p.taps * self.lanes), p.dtype)
            partial = dw.reshape(1, p.F, p.taps)
            if work.splits > 1:
                partial = scratch.take((work.splits, p.F, p.taps), p.dtype)
            runtime.run_on(
                gradient_planes, slots, np.zeros(1, np.int64), *map(self._tile, self.grids), *self.sizes,
                self.grids[0].table, x, self.zeros, dout, sums, partial, work,
            )  # fmt: skip
            if work.splits > 1:
                np.sum(partial, axis=0, out=dw.reshape(p.F, p.taps))
