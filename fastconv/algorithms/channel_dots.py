"""Gradient of x of few channels, channels-last, as dot products along filters: tables and sizes, once per problem."""

from __future__ import annotations

import numpy as np

from fastconv import runtime
from fastconv._kernels.channel_dots import ChannelDots, Part, channel_dots
from fastconv._kernels.dot_tile import dot_tile, fold_lanes
from fastconv._kernels.isa import MACHINE, DotShape, best_dots
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import axis_outputs
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.sweeps import MOST_STEPS
from fastconv.algorithms.tables import changed, offsets, repeated
from fastconv.algorithms.tap_grids import Grid, grids_of, padding, spans
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

_CYCLES_PER_SUM = 10.0 if costs.WIDE else 4.0  # adding the lanes of one number of a tile, and storing it


class ChannelDotsPass:
    """`run(dout, w, bias, dx)`; see `base`."""

    @staticmethod
    def declines(p: ConvProblem) -> bool:
        """Where channels fill a vector, vectors run along them; each lane makes its sum in one go, as sweeps do."""
        lanes = MACHINE.lanes(p.dtype.itemsize)
        return not p.channels_last or p.groups > 1 or p.C >= lanes or ceil_div(p.F, lanes) * p.taps > MOST_STEPS

    def __init__(self, problem: ConvProblem, threads: int):
        self.problem, self.threads = problem, threads
        p, itemsize = problem, problem.dtype.itemsize
        down, across = axis_outputs(p, 0, True), axis_outputs(p, 1, True)
        rows, cols = ([spans(outputs, size) for outputs in axis] for axis, size in ((down, p.OH), (across, p.OW)))
        grids = grids_of(down, across, rows, cols, p.F)
        # Joined spans meet some taps outside dout, which is padded for them.
        top, height = padding([grid.rows.reach(grid.down) for grid in grids], p.OH)
        left, width = padding([grid.cols.reach(grid.across) for grid in grids], p.OW)
        self.source = Operand(True, True, p.F, p.OH, p.OW, top, left, height, width)
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, p.N)
        self.tile: DotShape = best_dots(p.N * p.H * p.W, p.C)
        self.brow = repeated(np.arange(p.C), self.tile.cols) * p.F
        self._make_tables(grids)
        lanes, numbers = MACHINE.lanes(itemsize), self.tile.rows * self.tile.cols
        self.geometry = ChannelDots(
            images=self.images, channels=p.C, dout_image=self.source.image, dout_row=self.source.row_step,
            dout_col=p.F, out_image=p.H * p.W * p.C, tail=p.F % lanes, tile_rows=self.tile.rows,
            tile_cols=self.tile.cols,
        )  # fmt: skip
        self.scratch = numbers * lanes, numbers
        own = sum(self.scratch) * itemsize + 2 * self.tile.rows * INDEX.itemsize
        self.workspace = self.images * image_bytes + threads * own
        beside = self.tile.call + numbers * _CYCLES_PER_SUM
        multiplying = sum(
            ceil_div(grid.pixels, self.tile.rows) * (part.steps * self.tile.cycles + beside)
            for grid, part in zip(grids, self.of_grids, strict=True)
        )
        copying = 2 * image_bytes * costs.CYCLES_PER_BYTE_MOVED
        self.cycles = float(p.N * (multiplying * ceil_div(p.C, self.tile.cols) + copying) + 2 * costs.CYCLES_PER_LAUNCH)

    def _make_tables(self, grids: list[Grid]) -> None:
        """The parts with their steps, and how their rows are shared out."""
        p, source, lanes = self.problem, self.source, MACHINE.lanes(self.problem.dtype.itemsize)
        vectors, tails = (np.arange(0, p.F // lanes) * lanes, np.arange(p.F - p.F % lanes, p.F, lanes))
        acol, bcol, self.of_grids, steps = [], [], [], 0
        for grid in grids:
            (kernel_h, at_h), (kernel_w, at_w) = (
                np.array(axis.taps[span.first : span.first + span.taps], np.int64).reshape(-1, 2).T
                for axis, span in ((grid.down, grid.rows), (grid.across, grid.cols))
            )
            windows = offsets((at_h + source.top) * source.row_step, (at_w + source.left) * p.F)
            weights = offsets(kernel_h * p.KW, kernel_w) * p.C * p.F
            acol += [offsets(windows, vectors), offsets(windows, tails)]
            bcol += [offsets(weights, vectors), offsets(weights, tails)]
            full, count = windows.size * vectors.size, windows.size * (vectors.size + tails.size)
            top, left = (
                axis.first + span.begin * axis.step for axis, span in ((grid.down, grid.rows), (grid.across, grid.cols))
            )
            self.of_grids.append(
                Part(
                    cols=grid.cols.count, dout_start=grid.rows.begin * source.row_step + grid.cols.begin * p.F,
                    out_start=(top * p.W + left) * p.C, out_row=grid.down.step * p.W * p.C,
                    out_col=grid.across.step * p.C, step=steps, steps=count, full=full,
                )
            )  # fmt: skip
            steps += count
        self.acol, self.bcol, self.parts = np.concatenate(acol), np.concatenate(bcol), np.array(self.of_grids, np.int64)
        work = p.N * sum(grid.pixels * max(grid.taps, 1) for grid in grids)
        each = work / (self.threads * costs.TASKS_PER_THREAD) if self.threads > 1 else work
        tasks = []
        for i, grid in enumerate(grids):
            rows = min(max(int(each / (grid.cols.count * max(grid.taps, 1))), 1), grid.rows.count)
            tasks += [(i, row, min(rows, grid.rows.count - row)) for row in range(0, grid.rows.count, rows)]
        self.tasks = np.array(tasks, np.int64)

    def run(self, dout: np.ndarray, w: np.ndarray, bias: np.ndarray, dx: np.ndarray) -> None:
        p, itemsize = self.problem, self.problem.dtype.itemsize
        tile, fold = dot_tile(self.tile.rows, self.tile.cols, itemsize).address, fold_lanes(itemsize).address
        for first in range(0, p.N, self.images):
            images = min(self.images, p.N - first)
            slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
            with Scratch(self.workspace) as scratch:
                runtime.run_tasks(
                    channel_dots, slots, tile, fold,
                    self.source.prepare(dout[first : first + images], slots, scratch), self.acol, w.reshape(-1),
                    self.brow, self.bcol, self.parts, self.tasks, dx[first : first + images].reshape(-1),
                    scratch.take((slots, 2, self.tile.rows), INDEX),
                    *(scratch.take((slots, numbers), p.dtype) for numbers in self.scratch),
                    changed(self.geometry, images=images),
                )  # fmt: skip
