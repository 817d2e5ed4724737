"""Gradient of x through columns: tables and sizes, made once per problem."""

from __future__ import annotations

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, interleave_pairs, transpose_block
from fastconv._kernels.gradient_columns import GradientColumns, gradient_columns
from fastconv._kernels.isa import MACHINE, TileShape, tile_shapes
from fastconv._kernels.register_tile import register_tile
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.tables import changed, offsets
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_COLUMNS_BYTES = 576 * 1024  # columns of one block: they and the rows of dout share the second-level cache


# Channels-first, steps of depth walk from filter to filter: each in a page of its own took 4 times as long (512 3x3).
_PAGE_BYTES, _FAR_WEIGHTS = 4096, 4.0
# One channel, stride 1, few columns for all that is moved: "depthwise" adds up planes in place in 0.7 to 0.85 of the
# time (MNIST's first layers of 3x3 and 5x5, speech), where 1.1 was predicted.
_FEW_COLUMNS = 1.25
_BEYOND_L2 = 1.3  # arithmetic on planes of dout that the second-level cache does not hold (512 filters, 1x1)


class _Axis:
    """How taps move along one axis: input cell j * stride + phase[k] gets tap k of output j - shift[k]."""

    def __init__(self, size: int, kernel: int, stride: int, dilation: int, before: int, outputs: int):
        cells = np.arange(kernel) * dilation - before
        self.shift, self.phase = cells // stride, cells % stride
        self.lowest, self.highest = int(self.shift.min()), int(self.shift.max())
        self.cells = ceil_div(size, stride)
        self.front = max(self.highest, 0)
        self.back = max(self.cells - self.lowest - outputs, 0)  # zeros after the outputs


def _aligned(numbers: int, itemsize: int) -> int:
    """Length of a scratch row: whole vectors, and not a multiple of 2 KB, where rows compete for the same lines."""
    lanes = MACHINE.lanes(itemsize)
    length = ceil_div(max(numbers, 1), lanes) * lanes
    return length + lanes if length * itemsize % 2048 == 0 else length


class GradientColumnsPass:
    """`run(dout, w, no bias, dx)` fills dx; all arrays C-contiguous in the problem's layout."""

    def __init__(self, problem: ConvProblem, threads: int):
        self.problem, self.threads = problem, threads
        p, itemsize, last = problem, problem.dtype.itemsize, problem.channels_last
        vertical = _Axis(p.H, p.KH, p.stride[0], p.dilation[0], p.pads[0][0], p.OH)
        horizontal = _Axis(p.W, p.KW, p.stride[1], p.dilation[1], p.pads[1][0], p.OW)
        span = vertical.highest - vertical.lowest
        front = horizontal.front
        pitch = p.OW + max(front, horizontal.back)
        rows = p.group_channels * p.taps
        block, bands, band = self._blocks(vertical.cells, span, rows, pitch)
        columns = (block + span) * pitch
        plane_length = _aligned(columns, itemsize)
        column_length = _aligned(front + columns, itemsize)
        sum_length = _aligned((block - 1) * pitch + horizontal.cells, itemsize)
        self.tile: TileShape = min(
            tile_shapes(itemsize), key=lambda shape: shape.cycles_for(rows, block * pitch, p.group_filters)
        )
        self.sum_tile = min(tile_shapes(itemsize), key=lambda shape: shape.cycles_for(1, block * pitch, p.taps))
        filters, channels, taps = np.arange(p.group_filters), np.arange(p.group_channels), np.arange(p.taps)
        self.prow = filters * plane_length
        self.srow = filters * p.OH * p.OW
        lines = np.arange(block + span)
        self.line_from, self.line_to = lines * p.OW, lines * pitch
        if last:
            self.arow, self.acol = offsets(channels * p.F, taps * p.group_channels * p.F), filters
        else:
            self.arow, self.acol = np.arange(rows), filters * rows
        self.crow = np.arange(rows) * column_length
        kernel_h, kernel_w = np.divmod(taps, p.KW)
        reach = (
            taps * column_length + (vertical.highest - vertical.shift[kernel_h]) * pitch
            + front - horizontal.shift[kernel_w]
        )  # fmt: skip
        phase = vertical.phase[kernel_h] * p.stride[1] + horizontal.phase[kernel_w]
        self.terms = reach[np.argsort(phase, kind="stable")]
        self.term_ends = np.cumsum(np.bincount(phase, minlength=p.stride[0] * p.stride[1]))
        self.ones, self.zeros = np.ones(1, p.dtype), np.zeros(p.taps, np.int64)
        per_image, col = p.group_channels * p.H * p.W, p.C if last else 1
        self.geometry = GradientColumns(
            images=p.N, groups=p.groups, channels=p.group_channels, taps=p.taps, out_rows=p.OH, out_cols=p.OW,
            height=p.H, width=p.W, stride_h=p.stride[0], stride_w=p.stride[1], bands=bands, band=band, block=block,
            span=span, highest=vertical.highest, front=front, pitch=pitch, plane_length=plane_length,
            column_length=column_length, sum_length=sum_length, sum_cols=self.sum_tile.cols,
            dout_image=p.F * p.OH * p.OW, dout_group=p.group_filters * (1 if last else p.OH * p.OW),
            dout_row=p.OW * (p.F if last else 1), dout_pixel=p.F if last else 1,
            w_group=p.group_filters * (1 if last else rows), dx_image=p.C * p.H * p.W,
            dx_group=p.group_channels if last else per_image, dx_channel=1 if last else p.H * p.W, dx_row=p.W * col,
            dx_pixel=col, tile_rows=self.tile.rows, tile_cols=self.tile.cols,
        )  # fmt: skip
        self.copy, self.transpose = copy_block(itemsize), transpose_block(itemsize)
        self.interleave = interleave_pairs(itemsize)
        phases = p.stride[0] * p.stride[1] * p.group_channels
        self.scratch = p.group_filters * plane_length, rows * column_length, phases * sum_length
        self.workspace = threads * sum(self.scratch) * itemsize
        self.cycles = self._cycles()

    def _blocks(self, rows: int, span: int, columns: int, pitch: int) -> tuple[int, int, int]:
        """Rows of a block; bands of an image, and rows of each."""
        p, itemsize = self.problem, self.problem.dtype.itemsize
        tasks = self.threads * costs.TASKS_PER_THREAD if self.threads > 1 else 1
        bands = max(min(ceil_div(tasks, p.N * p.groups), rows // (4 * (span + 1))), 1)
        band = ceil_div(rows, bands)
        # The rows of columns that are kept move by a block, onto themselves: by a vector at least.
        least = ceil_div(MACHINE.lanes(itemsize), pitch)
        most = max(_COLUMNS_BYTES // (columns * pitch * itemsize) - span, span // 2, least)

        shapes = tile_shapes(itemsize)
        kept = columns * (costs.CYCLES_PER_RUN + span * pitch * itemsize * 2 / 64)

        def cycles(block: int) -> float:
            blocks = ceil_div(band, block)
            tiles = min(shape.cycles_for(columns, block * pitch, p.group_filters) for shape in shapes)
            return blocks * tiles + (blocks - 1) * kept

        block = min(range(max(ceil_div(min(most, band), 2), min(least, band)), min(most, band) + 1), key=cycles)
        return block, ceil_div(rows, band), band

    def _cycles(self) -> float:
        p, g, item = self.problem, self.geometry, self.problem.dtype.itemsize
        images = p.N * p.groups
        blocks = g.bands * ceil_div(g.band, g.block)
        rows = min(p.OH, blocks * g.block) + (g.bands - 1) * g.span
        arithmetic = rows / g.block * self.tile.cycles_for(self.crow.size, g.block * g.pitch, p.group_filters)
        if self.scratch[0] * item > costs.L2_BYTES:
            arithmetic *= _BEYOND_L2
        if not p.channels_last and self.crow.size * item > _PAGE_BYTES:
            arithmetic *= _FAR_WEIGHTS
        phases = p.stride[0] * p.stride[1]
        adding = blocks * g.channels * phases * self.sum_tile.cycles_for(1, g.block * g.pitch, p.taps / phases)
        kept = blocks * self.crow.size * (costs.CYCLES_PER_RUN + g.span * g.pitch * item * 2 / 64)
        numbers = rows * p.OW * p.group_filters
        if g.dout_pixel == 1:
            copying = numbers * (costs.CYCLES_PER_RUN / p.OW + item * 2 / 64)
        else:
            copying = numbers * costs.cycles_per_transposed(g.plane_length * item)
        storing = g.channels * p.H * p.W * (1.0 if g.dx_pixel != 1 or p.stride[1] > 2 else 0.3)
        uneven = costs.unevenness(images * g.bands, self.threads)
        if p.group_channels == 1 and p.stride == (1, 1):
            uneven *= _FEW_COLUMNS
        return images * (arithmetic + adding + kept + copying + storing) * uneven + costs.CYCLES_PER_LAUNCH

    def run(self, dout: np.ndarray, w: np.ndarray, bias: np.ndarray, dx: np.ndarray) -> None:
        p, g, itemsize = self.problem, changed(self.geometry, images=len(dout)), self.problem.dtype.itemsize
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        tile, sum_tile = (register_tile(t.rows, t.vectors, itemsize) for t in (self.tile, self.sum_tile))
        with Scratch(self.workspace) as scratch:
            planes, columns, sums = (scratch.take((slots, size), p.dtype) for size in self.scratch)
            runtime.run_tasks(
                gradient_columns, slots, tile.address, sum_tile.address, self.copy.address,
                self.transpose.address, self.interleave.address, dout.reshape(-1), self.prow, self.srow, self.line_from,
                self.line_to, w.reshape(-1), self.arow, self.acol, self.crow, self.terms, self.term_ends, self.ones,
                self.zeros, planes, columns, sums, dx.reshape(-1), g,
            )  # fmt: skip
