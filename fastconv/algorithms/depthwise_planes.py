"""Depthwise convolution of channels-first arrays, forward and gradient of x: sizes, made once per problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastconv import runtime
from fastconv._kernels.depthwise import PlaneWork, correlate_planes
from fastconv._kernels.depthwise_plane_tile import (
    MASKED,
    NARROW,
    SCATTERED,
    WHOLE,
    PlaneShape,
    PlaneSizes,
    plane_tile,
)  # fmt: skip
from fastconv._kernels.depthwise_rows import Rows
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import MOST_TAPS, Outputs, axis_outputs, best_cells, most_cells, tile_rows
from fastconv.problem import ConvProblem

_MOST_WEIGHTS = 9  # that stay in registers: 3x3
# Long rows are read and written 4 at a time: each is a stream of its own. On a 2-core Zen 3, 7 rows take 1.07 times as
# long for 32x112x112 and 1.18 times for 128x56x56, but 0.72 times for 5x5 on 28x28 and 0.85 times for 14x14.
_LONG_ROW_BYTES, _FEW_CELLS = 192, 4
_FEW_ROWS = 3  # planes of so few rows are cut into segments of a row instead
_CYCLES_PER_VECTOR = 4.0 if costs.WIDE else 6.0  # storing, setting out, waiting for memory: 3x3 and 5x5 layers
# Per tap: in tiles whose rows share their loads; in others (more than 7 rows of taps), 9x9 to 31x31 on 56x56 and 14x14.
_CYCLES_PER_TAP, _CYCLES_PER_LONE_TAP = 0.9, 1.6
_CYCLES_PER_LOAD = 2.0  # more, per input vector of a strided row


@dataclass(frozen=True)
class Grid:
    """How the outputs of one phase of rows and its column phases (two are interleaved) are cut into tiles."""

    shape: PlaneShape
    sizes: PlaneSizes
    table: np.ndarray


def _stores(columns: int, lanes: int, outputs: Outputs, phases: int, *, segments: bool, contiguous: bool) -> int:
    """How `columns` results of a row are stored, in vectors of `phases` times as many lanes."""
    if outputs.step > 1 and phases == 1:
        return SCATTERED
    if segments:
        return MASKED
    if columns >= lanes * phases and columns % phases == 0:
        return WHOLE
    return NARROW if contiguous and lanes // 2 <= columns < lanes else MASKED


def _grid(p: ConvProblem, rows: Outputs, columns: list[Outputs], gradient: bool) -> Grid:
    given, made = ((p.OH, p.OW), (p.H, p.W)) if gradient else ((p.H, p.W), (p.OH, p.OW))
    (height, width), lanes, outputs = given, MACHINE.lanes(p.dtype.itemsize), columns[0]
    phases, vectors, sources = len(columns), ceil_div(outputs.count, lanes), p.group_filters if gradient else 1
    segments = rows.count <= _FEW_ROWS < vectors
    most = _FEW_CELLS if width * p.dtype.itemsize >= _LONG_ROW_BYTES else most_cells(rows)
    cells = best_cells(vectors) if segments else best_cells(rows.count, min(most, most_cells(rows), rows.count))
    if segments:
        vectors = ceil_div(vectors, cells)
    total = made[1] if phases == 2 else outputs.count
    contiguous = phases == 1 and rows.step * made[1] == total
    stores = _stores(total, lanes, outputs, phases, segments=segments, contiguous=contiguous)
    vector_step = lanes * outputs.stride
    cell_outputs = vectors * lanes * phases if segments else 0
    cell_column = vectors * vector_step if segments else 0
    out_row = rows.step * made[1]
    # Vectors whose lanes all exist, in the output and at every tap.
    offsets = [offset for phase in columns for _, offset in phase.taps] or [0]
    reach = 2 * lanes - 1 if outputs.stride == 2 else (lanes - 1) * outputs.stride
    last = width - 1 - max(offsets) - reach - (cells - 1) * cell_column
    inside_end = min(last // vector_step + 1, (total - (cells - 1) * cell_outputs) // (lanes * phases))
    tile = Rows(cells, 1, 1, 1) if segments else tile_rows(cells, rows)
    taps = len(outputs.taps), len(columns[-1].taps) if phases == 2 else 0
    unrolled = tile.taps > 1 and sources == 1 and tile.taps * sum(taps) <= _MOST_WEIGHTS and min(taps[:phases]) > 0
    load_step = outputs.stride if outputs.stride <= 2 else 0
    shape = PlaneShape(tile, load_step, phases, taps if unrolled else (0, 0), segments, sources > 1, stores)
    sizes = PlaneSizes(
        height=height, width=width, x_plane=sources * height * width, out_plane=made[0] * made[1],
        w_plane=sources * p.taps, sources=sources, source_plane=height * width, source_w=p.taps,
        out_cell=cell_outputs * (outputs.step if stores == SCATTERED else 1) if segments else out_row,
        cell_row=0 if segments else rows.stride, cell_column=cell_column, groups=len(rows.taps),
        group_row=rows.offset_step, w_row=rows.kernel_step * p.KW, cell_outputs=cell_outputs, vectors=vectors,
        last=total // phases - lanes if stores == WHOLE else (vectors - 1) * lanes,
        inside_first=ceil_div(max(-min(offsets), 0), vector_step), inside_end=inside_end,
        columns=total, load_step=outputs.stride, store_step=outputs.step, taps_0=taps[0], taps_1=taps[1],
        block=1 if segments else cells, out_row=out_row, row_step=rows.stride,
    )  # fmt: skip
    table = [(offset, rows.kernel_start * p.KW + k) for phase in columns for k, offset in phase.taps]
    return Grid(shape, sizes, np.array(table, np.int64).reshape(-1))


def _cycles(p: ConvProblem, grid: Grid, rows: int) -> float:
    """Predicted cycles of the tiles over `rows` rows of all planes."""
    s, tile, lanes = grid.sizes, grid.shape.rows, MACHINE.lanes(p.dtype.itemsize)
    vectors = ceil_div(rows, s.block) * tile.cells * s.vectors * grid.shape.phases * p.N * p.F
    loads = len(tile.reads) / tile.cells * max(s.groups if tile.taps == 1 else 1, 1) * s.taps_0
    strided = _CYCLES_PER_LOAD * loads * (s.load_step > 1) * (1 if grid.shape.load_step else lanes)
    taps = s.groups * (s.taps_0 + s.taps_1) / grid.shape.phases
    each = _CYCLES_PER_TAP if tile.taps > 1 or s.groups <= MOST_TAPS else _CYCLES_PER_LONE_TAP
    return vectors * (_CYCLES_PER_VECTOR + each * taps + strided)


class PlanesPass:
    """Forward, or gradient of x: `run(operand, w, bias, out)` with operand x or dout."""

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        self.problem, self.threads, p = problem, threads, problem
        self.planes, self.repeat = (p.C, 1) if gradient else (p.F, p.group_filters)
        self.width = p.W if gradient else p.OW
        columns = axis_outputs(p, 1, gradient)
        sets = [columns] if len(columns) == 2 else [[phase] for phase in columns]
        self.launches = []
        self.cycles = 0.0
        for rows in axis_outputs(p, 0, gradient):
            for phases in sets:
                grid = _grid(p, rows, phases, gradient)
                work = self._work(grid, rows, phases[0], relu)
                self.launches.append((grid.shape, np.array(grid.sizes), grid.table, work))
                self.cycles += costs.CYCLES_PER_LAUNCH + _cycles(p, grid, rows.count)
        self.zeros = np.zeros(p.OW if gradient else p.W, p.dtype)
        self.workspace = 0

    def _work(self, grid: Grid, rows: Outputs, columns: Outputs, relu: bool) -> PlaneWork:
        p, sizes = self.problem, grid.sizes
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        band = costs.split(rows.count, ceil_div(tasks, p.N * self.planes), sizes.block)
        pieces = p.N * self.planes * max(rows.count // band, 1)
        return PlaneWork(
            images=p.N, planes=self.planes, repeat=self.repeat, x_plane=sizes.x_plane, out_plane=sizes.out_plane,
            w_plane=sizes.w_plane, rows=rows.count, band=band, row_start=rows.offset_start, row_step=rows.stride,
            out_start=rows.first * self.width + (columns.first if grid.shape.stores == SCATTERED else 0),
            out_row=sizes.out_row, run=ceil_div(pieces, tasks), relu=int(relu),
        )  # fmt: skip

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, in the problem's layout; bias (F,) or empty."""
        slots = min(runtime.slots_for(self.problem.multiply_adds), self.threads)
        for shape, sizes, table, work in self.launches:
            runtime.run_tasks(
                correlate_planes, slots, plane_tile(shape, self.problem.dtype.itemsize).address,
                sizes, table, operand, self.zeros, w, bias, out, work,
            )  # fmt: skip
