"""Forward and gradient of x of channels-last images on the matrix unit: tables and sizes, made once per problem."""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np

from fastconv import runtime
from fastconv._kernels.matrix_pixels import MatrixPixels, PixelGrid, matrix_pixels, store_pixels
from fastconv._kernels.matrix_tile import MOST_DEPTH, SIDE, TILE_NUMBERS, Products, configuration, matrix_tile
from fastconv._kernels.simd import LINE_BYTES
from fastconv._kernels.blocks import transpose_block
from fastconv._kernels.bfloat_parts import SPREAD, split_channels, split_planes, split_row
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import Outputs, axis_outputs
from fastconv.algorithms.matrix_weights import MatrixWeights
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

PART = np.dtype(np.uint16)  # NumPy knows no bfloat16
_KEPT_BYTES = costs.L2_BYTES * 3 // 4  # of the parts of x that a task keeps, beside a block of weights
_WEIGHT_BYTES = costs.L2_BYTES // 6  # of such a block
_PIXELS = 512  # that pass by a block of weights while it is in the second-level cache
# Fitted to the times of 55 layers, forward and dx, in turns with the algorithms that "auto" takes otherwise. Where another
# thread of the core is busy, the unit takes twice as long and the loads of its tiles do not overlap with it: a step of
# three parts took 180 ns where the core was alone and 580 elsewhere, as many multiply-adds 390 and 550.
_CYCLES_PER_STEP, _CYCLES_PER_PRODUCT = {2: 350.0, 3: 720.0}, 770.0
_CYCLES_PER_NUMBER_CUT, _CYCLES_PER_RESULT = {True: 0.5, False: 0.6}, {True: 0.31, False: 0.21}  # whether channels-last
_JOINED_CHANNELS = 16  # up to so many, taps of a kernel row make one step


def chunks_of(length: int) -> tuple[int, list[int]]:
    """Cut a run of parts into steps of one even depth: the depth, and where they begin; the last may overlap."""
    count = ceil_div(length, MOST_DEPTH)
    depth = ceil_div(length, 2 * count) * 2
    return depth, [min(i * depth, length - depth) for i in range(count)]


class MatrixPixelsPass:
    """One pass: `run(operand, w, bias, out)` with operand x, or dout for the gradient of x."""

    def __init__(self, problem: ConvProblem, threads: int, *, parts: int, gradient: bool, relu: bool = False):
        p, self.problem, self.threads, self.parts = problem, problem, threads, parts
        self.channels, self.filters = (p.F, p.C) if gradient else (p.C, p.F)
        size, out_size = (p.H, p.W), (p.OH, p.OW)
        images, self.down, self.across = p.N, axis_outputs(p, 0, gradient), axis_outputs(p, 1, gradient)
        if gradient:
            size, out_size = out_size, size
        kernel_cols = p.KW
        if p.channels_last and p.taps == 1 and p.no_padding and p.stride == (1, 1):  # one tall image
            images, size, out_size = 1, (p.N * p.H, p.W), (p.N * p.H, p.W)
            self.down = [Outputs(0, size[0], 1, 1, ((0, 0),))]
        elif size[0] == out_size[0] == p.KH == 1:  # a line is a column, of which a task takes some
            self.down, self.across, kernel_cols = self.across, self.down, 1
            size, out_size = size[::-1], out_size[::-1]
        self.shape = min(((2, 2), (4, 1)), key=lambda shape: ceil_div(self.filters, shape[1] * SIDE) * shape[1])
        self._make_steps(kernel_cols)
        self.weights = MatrixWeights.of(p, gradient, self.shape[1], self.depth, parts, np.concatenate(self.depth_rows))
        self.geometry = self._sized(images, size, out_size, int(relu))
        self._make_tables()
        g = self.geometry
        self.zeros = np.zeros(self.weights.panels * g.right * SIDE, p.dtype)
        slot_bytes = sum(self._slot_numbers[:1]) * PART.itemsize + self._slot_numbers[1] * p.dtype.itemsize
        self.workspace = self.weights.workspace + threads * slot_bytes
        self.cycles = self._cycles()

    def _make_steps(self, kernel_cols: int) -> None:
        """The steps of each grid: where their tiles lie in x (plane, tap), and which rows of weights they meet."""
        channels = self.channels
        joined = self.problem.channels_last and channels <= _JOINED_CHANNELS and (channels % 2 == 0 or channels in SPREAD)
        joined = joined and kernel_cols > 1 and len(self.across) == 1 and self.across[0].offset_step == 1
        self.pitch, self.joined = MOST_DEPTH, joined
        if joined:
            self.pitch = channels + channels % 2
            self.depth, chunks = chunks_of(kernel_cols * self.pitch)
            planes = [(0, chunk) for chunk in chunks]
        else:
            self.depth, _ = chunks_of(channels)
            planes = [(plane, 0) for plane in range(ceil_div(channels, self.depth))]
        self.planes = 1 if joined else len(planes)
        self.step_places, self.depth_rows = [], []
        for down, across in product(self.down, self.across):
            runs = [across.taps] if joined else [(tap,) for tap in across.taps]
            places, rows = [], []
            done = 0
            for plane, first in planes:
                for kernel_row, row in down.taps:
                    for run in runs:
                        places.append((plane, row, run[0][1], first))
                        for i in range(first, first + self.depth):
                            tap, channel = divmod(i, self.pitch) if joined else (0, plane * self.depth + i)
                            # Parts that the step before has met, and those that fill up, meet zeros.
                            met = channel < channels and not (joined and i < done)
                            kernel = kernel_row * kernel_cols + run[tap][0]
                            rows.append(kernel * channels + channel if met else -1)
                done = first + self.depth
            self.step_places.append(np.array(places, np.int64).reshape(-1, 4))
            self.depth_rows.append(np.array(rows, np.int64))

    def _sized(self, images: int, size: tuple[int, int], out_size: tuple[int, int], relu: int) -> MatrixPixels:
        """Choose how many pixels, panels and steps go together."""
        height, width = size
        lowest, highest = _reach(self.down)
        left, right = _reach(self.across)
        stride, col_stride = self.down[0].stride, self.across[0].stride
        outputs, rows = (max(grid.count for grid in axis) for axis in (self.across, self.down))
        right += (outputs - 1) * col_stride + 1 - width  # columns met behind the last
        cols = ceil_div(max(width + max(-left, right, 0), outputs * col_stride), col_stride) * col_stride
        reach, front = highest - lowest + 1, max(-left, 0)
        row_bytes = cols * self.planes * self.pitch * self.parts * PART.itemsize
        out_bytes = len(self.down) * out_size[1] * self.filters * 4
        block_rows = self._block_rows(rows, cols // col_stride, stride, reach, row_bytes, out_bytes, images)
        kept_rows = ceil_div((block_rows - 1) * stride + reach, stride)
        block_images = 1
        if block_rows == rows:
            most = _KEPT_BYTES // (stride * kept_rows * row_bytes)
            wanted = ceil_div(_PIXELS, cols // col_stride * rows)
            block_images = max(min(wanted, most, ceil_div(images, 2 * self.threads)), 1)
        plane = (front + block_images * stride * kept_rows * cols) * self.pitch * PART.itemsize
        plane += -plane % LINE_BYTES
        slack = self.shape[0] * SIDE * col_stride * self.pitch + MOST_DEPTH  # tiles pass the end of the last row
        part = self.planes * plane + slack * PART.itemsize
        tasks = ceil_div(images, block_images) * ceil_div(rows, block_rows)
        share = costs.split(self.weights.panels, ceil_div(2 * self.threads, tasks), 1)
        self.blocks = [
            max(ceil_div(len(places) * self.weights.step_bytes, _WEIGHT_BYTES), 1) for places in self.step_places
        ]
        down, right = self.shape
        last = self.problem.channels_last
        sums_step = down * right * TILE_NUMBERS if max(self.blocks) > 1 or not last else 0
        col, out_col = (self.channels, self.filters) if last else (1, 1)
        products = ceil_div(block_rows * (cols // col_stride), down * SIDE)
        self._slot_numbers = self.parts * part // PART.itemsize, max(block_images * products * sums_step, down * right * TILE_NUMBERS)
        return MatrixPixels(
            images=images, block_images=block_images, block_rows=block_rows, height=height, width=width,
            x_image=height * width * self.channels, x_row=width * col, x_channel=1 if last else height * width,
            channels=self.channels, parts=self.parts, depth=self.depth, pitch=self.pitch, planes=self.planes, plane=plane,
            part=part + -part % LINE_BYTES, stride=stride, col_stride=col_stride, reach=reach, lowest=lowest,
            kept_rows=kept_rows, cols=cols, front=front, filters=self.filters,
            out_image=out_size[0] * out_size[1] * self.filters,
            out_row=self.down[0].step * out_size[1] * out_col, out_col=out_col,
            out_filter=1 if last else out_size[0] * out_size[1], down=down, right=right,
            panel_bytes=self.weights.shape[1], sums_step=sums_step, share=share, relu=relu,
            chunk=1 if last and share * self.weights.shape[1] <= _WEIGHT_BYTES else products,
        )  # fmt: skip

    def _block_rows(
        self, rows: int, pitch: int, stride: int, reach: int, row_bytes: int, out_bytes: int, images: int
    ) -> int:
        """Output rows of a task: as the second-level cache holds with what they meet, and enough for all threads."""
        most = max((_KEPT_BYTES - reach * row_bytes) // (stride * row_bytes + out_bytes), 1)
        wanted = ceil_div(rows, max(ceil_div(4 * self.threads, images), 1)) if self.threads > 1 else rows
        least = ceil_div(_PIXELS // 2, pitch)
        count = min(max(min(most, wanted), min(least, most)), rows)
        return ceil_div(rows, ceil_div(rows, count))

    def _make_tables(self) -> None:
        """Where tiles of x begin by step, and where pixels go."""
        g, weights = self.geometry, self.weights
        pixel, pitch, pixels = g.pitch * PART.itemsize, g.cols // g.col_stride, g.down * SIDE
        out_col = g.out_col
        out_width = g.out_row // (out_col * self.down[0].step)
        grids, places, first_place, step = [], [], 0, 0
        self.step_tables, side = [], SIDE * 4
        sizes = np.zeros((2, len(self.blocks), max(self.blocks), len(Products._fields)), np.int64)
        total = sum(map(len, self.step_places))
        self.weight_steps = np.arange(total) * weights.step_bytes
        for number, (down, across) in enumerate(product(self.down, self.across)):
            plane, row, col, first = self.step_places[number].T
            row = row - g.lowest
            line = (row % g.stride * g.kept_rows + row // g.stride) * g.cols + col
            table = np.ascontiguousarray(plane * g.plane + line * pixel + first * PART.itemsize)
            self.step_tables.append(table)
            out_row, out_col_at = np.divmod(np.arange(g.block_rows * pitch), pitch)
            at = out_row * g.out_row + out_col_at * across.step * out_col
            at[out_col_at >= across.count] = -1
            even = self.problem.channels_last and not g.relu and bool((np.diff(at, append=at[-1:]) [:-1] == across.step * out_col).all())
            places.append(np.pad(at, (0, pixels), constant_values=-1))
            start = (down.first * out_width + across.first) * out_col
            grids.append(PixelGrid(down.count, across.count, start, self.blocks[number], first_place, int(even), across.step))
            first_place += places[-1].size
            steps = ceil_div(table.size, self.blocks[number])
            for block, direct in product(range(self.blocks[number]), (0, 1)):
                begin = block * steps
                row_bytes = across.step * out_col * 4 if direct else g.right * side
                again = block > 0
                sizes[direct, number, block] = Products(
                    steps=max(min(steps, table.size - begin), 0), a_places=table.ctypes.data + 8 * begin,
                    b_places=self.weight_steps.ctypes.data + 8 * (step + begin), a_row=g.col_stride * pixel, b_row=side,
                    a_part=g.part, b_part=weights.part_bytes, a_tile=SIDE * g.col_stride * pixel,
                    b_tile=weights.tile_bytes, start_row=row_bytes * again, start_down=SIDE * row_bytes * again,
                    start_right=side, c_row=row_bytes, c_down=SIDE * row_bytes, c_right=side,
                )  # fmt: skip
            step += table.size
        self.grids, self.places, self.sizes = np.array(grids, np.int64), np.concatenate(places), sizes

    def _cycles(self) -> float:
        g, last = self.geometry, self.problem.channels_last
        products = [self._products(rows, cols) * g.images * self.weights.panels for rows, cols, *_ in self.grids.tolist()]
        steps = sum(count * len(places) for count, places in zip(products, self.step_places, strict=True))
        tasks = ceil_div(g.images, g.block_images) * ceil_div(int(self.grids[:, 0].max()), g.block_rows)
        tasks *= ceil_div(self.weights.panels, g.share)
        cut = tasks * g.block_images * g.stride * g.kept_rows * g.cols * g.planes * g.pitch
        return (
            steps * _CYCLES_PER_STEP[self.parts] + sum(products) * _CYCLES_PER_PRODUCT + self.weights.cycles
            + cut * _CYCLES_PER_NUMBER_CUT[last] + g.images * g.out_image * _CYCLES_PER_RESULT[last]
            + 2 * costs.CYCLES_PER_LAUNCH
        )  # fmt: skip

    def _products(self, rows: int, cols: int) -> int:
        """Of one panel and image, for a grid of rows x cols outputs."""
        g = self.geometry
        last = rows % g.block_rows
        counts = [g.block_rows] * (rows // g.block_rows) + [last] * (last > 0)
        return sum(ceil_div((count - 1) * (g.cols // g.col_stride) + cols, g.down * SIDE) for count in counts)

    def prepare(self, w: np.ndarray) -> np.ndarray:
        """The parts of the weights, as panels."""
        return self.weights.packed(w)

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        p, g = self.problem, self.geometry
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        with Scratch(self.workspace) as scratch:
            panels = self.weights.pack(w, scratch) if prepared is None else prepared
            start = self.zeros
            if bias.size:
                start = scratch.take(self.zeros.shape, p.dtype)
                start[: bias.size], start[bias.size :] = bias, 0
            kept, sums = self._slot_numbers
            runtime.run_on(
                matrix_pixels, slots, np.zeros(1, np.int64), *self._callbacks, self.config, operand.reshape(-1),
                self.sizes, self.grids, self.places, panels.reshape(-1), start, out.reshape(-1),
                scratch.take((slots, kept), PART), scratch.take((slots, sums), p.dtype), g,
            )  # fmt: skip

    @cached_property
    def config(self) -> np.ndarray:
        return configuration(self.shape, self.depth)

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        cut = split_planes(self.parts)
        if self.joined:
            cut = split_row(self.parts, self.channels if self.channels in SPREAD else 0)
        if not self.problem.channels_last:
            cut = split_channels(self.parts)
        return (
            matrix_tile(self.shape, self.parts).address, cut.address, store_pixels(self.shape[1]).address,
            transpose_block(4).address,
        )  # fmt: skip


def _reach(axis: list[Outputs]) -> tuple[int, int]:
    """The lowest and the highest offset of any tap."""
    places = [place for outputs in axis for _, place in outputs.taps] or [0]
    return min(places), max(places)
