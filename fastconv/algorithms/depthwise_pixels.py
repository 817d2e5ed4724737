"""Depthwise convolution of channels-last arrays, one filter per channel: tables and sizes, made once per problem."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import runtime
from fastconv._kernels.depthwise import PixelWork, correlate_pixels
from fastconv._kernels.depthwise_pixel_tile import PixelSizes, pixel_tile
from fastconv._kernels.depthwise_rows import Rows
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import MOST_TAPS, Outputs, axis_outputs, best_cells, most_cells, tile_rows
from fastconv.problem import ConvProblem

_MOST_UNROLLED = 9  # products of one sum
_CYCLES_PER_VECTOR = 11.0  # as for planes
_CYCLES_PER_TAP, _CYCLES_PER_LONE_TAP = 1.1, 3.0


class _Axes:
    """What rows and columns are. They are alike here: tiles take several cells of the axis that leaves fewer empty."""

    def __init__(self, p: ConvProblem, gradient: bool):
        inputs, outputs = (p.H, p.W), (p.OH, p.OW)
        if gradient:
            inputs, outputs = outputs, inputs
        self.x_steps, self.out_steps = (p.F * inputs[1], p.F), (p.F * outputs[1], p.F)
        computed = [best_cells(count) * ceil_div(count, best_cells(count)) / count for count in outputs]
        self.down, self.across = (0, 1) if computed[0] <= 1.5 * computed[1] else (1, 0)
        self.inputs, self.outputs = inputs, outputs
        self.w_steps = p.F * p.KW, p.F
        self.x_image, self.out_image = inputs[0] * inputs[1] * p.F, outputs[0] * outputs[1] * p.F
        self.rows, self.columns = axis_outputs(p, self.down, gradient), axis_outputs(p, self.across, gradient)

    def sizes(self, rows: Outputs) -> np.ndarray:
        across = max(self.columns, key=lambda phase: len(phase.taps))
        sizes = PixelSizes(
            height=self.inputs[self.down], x_row=self.x_steps[self.down],
            x_tap=across.offset_step * self.x_steps[self.across],
            w_tap=across.kernel_step * self.w_steps[self.across], w_row=rows.kernel_step * self.w_steps[self.down],
            out_cell=rows.step * self.out_steps[self.down], out_column=self.out_steps[self.across],
            columns=self.outputs[self.across], cell_row=rows.stride, groups=len(rows.taps),
            group_row=rows.offset_step,
        )  # fmt: skip
        return np.array(sizes)


def _cycles(p: ConvProblem, rows: Outputs, cells: int, columns: int, taps: float) -> float:
    vectors = p.N * ceil_div(rows.count, cells) * cells * columns * ceil_div(p.F, MACHINE.lanes(p.dtype.itemsize))
    each = _CYCLES_PER_TAP if len(rows.taps) <= MOST_TAPS else _CYCLES_PER_LONE_TAP
    return costs.CYCLES_PER_LAUNCH + vectors * (_CYCLES_PER_VECTOR + each * len(rows.taps) * taps)


class PixelsPass:
    """Forward, or gradient of x: `run(operand, w, bias, out)` with operand x or dout."""

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        self.problem, self.threads, p = problem, threads, problem
        self.axes = axes = _Axes(p, gradient)
        self.launches = [self._launch(rows, relu) for rows in axes.rows]
        reach = max(phase.offset_step * max(len(phase.taps) - 1, 0) for phase in axes.columns)
        self.zeros = np.zeros(reach * axes.x_steps[axes.across] + p.F, p.dtype)
        self.workspace = 0
        stride = p.stride[axes.across] if gradient else 1
        self.cycles = sum(
            _cycles(p, rows, best_cells(rows.count, most_cells(rows)), axes.outputs[axes.across],
                    (p.KH, p.KW)[axes.across] / stride)
            for rows in axes.rows
        )  # fmt: skip

    def _launch(self, rows: Outputs, relu: bool) -> tuple[Any, ...]:
        p, axes = self.problem, self.axes
        cells, across = best_cells(rows.count, most_cells(rows)), axes.across
        table = np.zeros((axes.outputs[across], 3), np.int64)
        for phase in axes.columns:
            for m in range(phase.count):
                tap, count = phase.inside(m, axes.inputs[across])
                place = m * phase.stride + phase.offset_start + tap * phase.offset_step
                kernel = phase.kernel_start + tap * phase.kernel_step
                weight = rows.kernel_start * axes.w_steps[axes.down] + kernel * axes.w_steps[across]
                table[phase.first + m * phase.step] = place * axes.x_steps[across] if count else 0, weight, count
        tiles = p.N * ceil_div(rows.count, cells)
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        work = PixelWork(
            images=p.N, channels=p.F, share=costs.split(p.F, ceil_div(tasks, tiles), MACHINE.lanes(p.dtype.itemsize)),
            x_image=axes.x_image, out_image=axes.out_image, rows=rows.count, block=cells,
            row_start=rows.offset_start, row_step=rows.stride, out_start=rows.first * axes.out_steps[axes.down],
            out_row=rows.step * axes.out_steps[axes.down], relu=int(relu),
        )  # fmt: skip
        return tile_rows(cells, rows), axes.sizes(rows), table.reshape(-1), work

    def _unrolled(self, rows: Rows) -> int:
        taps = max(len(phase.taps) for phase in self.axes.columns)
        return taps if rows.taps > 1 and rows.taps * taps <= _MOST_UNROLLED else 0

    def run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """All arrays C-contiguous, in the problem's layout; bias (F,) or empty."""
        slots = min(runtime.slots_for(self.problem.multiply_adds), self.threads)
        for rows, sizes, table, work in self.launches:
            tile = pixel_tile(rows, self._unrolled(rows), self.problem.dtype.itemsize)
            runtime.run_tasks(
                correlate_pixels, slots, tile.address, sizes, table, operand,
                self.zeros, w, bias, out, work,
            )  # fmt: skip
