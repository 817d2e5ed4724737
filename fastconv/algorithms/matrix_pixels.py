"""Forward and gradient of x on the matrix unit: tables and sizes, made once per problem."""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np

from fastconv import runtime
from fastconv._kernels.bfloat_parts import PART_BYTES, SPREAD, split_channels, split_planes, split_row
from fastconv._kernels.blocks import transpose_block
from fastconv._kernels.isa import LINE_BYTES
from fastconv._kernels.matrix_pixels import MatrixPixels, PixelGrid, matrix_pixels, store_pixels
from fastconv._kernels.matrix_tile import (
    MOST_DEPTH,
    ROW_BYTES,
    SIDE,
    TILE_NUMBERS,
    Products,
    configuration,
    matrix_tile,
)
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import Outputs, axis_outputs
from fastconv.algorithms.matrix_steps import matrix_steps
from fastconv.algorithms.matrix_weights import MatrixWeights
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_PART = np.dtype(np.uint16)  # NumPy knows no bfloat16
_KEPT_BYTES = costs.L2_BYTES * 3 // 4  # of the parts of x that a task keeps, and of what it makes
_WEIGHT_BYTES = costs.L2_BYTES // 6  # of a block of weights beside them
_PIXELS = 512  # that pass by a block of weights
# Fitted to the times of 55 layers, forward and dx, in turns with the other algorithms, in quiet and in contended runs.
# Where another thread of the core is busy, the unit takes twice as long, and loads of tiles do not overlap with it: a
# step of three parts took 180 ns where the core was alone and 580 elsewhere; as many multiply-adds took 390 and 550.
# Its price lies between and leans towards the contended, where they lose more (512-512 1x1 of 14x14 by three parts: 2.1
# and 5.3 ms, by "direct" 2.8 and 3.9; 3x3 of 512 channels of 28x28 by two: 6.0 and 13.0, by "winograd4x4" 6.5 and 8.1)
# than they gain where the core is alone.
_CYCLES_PER_STEP, _CYCLES_PER_PRODUCT = {2: 340.0, 3: 630.0}, 360.0
_JOINED_SLOWDOWN = 1.5  # rows of tiles straddle cache lines
_CYCLES_PER_NUMBER_READ, _CYCLES_PER_NUMBER_CUT = 0.2, {True: 0.28, False: 0.56}  # channels-last or not
_CYCLES_PER_RESULT = {True: 0.55, False: 0.9}


class MatrixPixelsPass:
    """`run(operand, w, bias, out)` with operand x, or dout for the gradient of x; numbers are cut into `parts`."""

    def __init__(self, problem: ConvProblem, threads: int, *, parts: int, gradient: bool, relu: bool = False):
        p, self.problem, self.threads, self.parts = problem, problem, threads, parts
        self.channels, self.filters = (p.F, p.C) if gradient else (p.C, p.F)
        size, out_size = ((p.OH, p.OW), (p.H, p.W)) if gradient else ((p.H, p.W), (p.OH, p.OW))
        images, kernel_cols = p.N, p.KW
        self.down, self.across = axis_outputs(p, 0, gradient), axis_outputs(p, 1, gradient)
        if p.channels_last and p.taps == 1 and p.no_padding and p.stride == (1, 1):  # one tall image
            images, size, out_size = 1, (p.N * p.H, p.W), (p.N * p.H, p.W)
            self.down = [Outputs(0, size[0], 1, 1, ((0, 0),))]
        elif size[0] == out_size[0] == p.KH == 1:  # a line is a column, of which a task takes some
            self.down, self.across, kernel_cols = self.across, self.down, 1
            size, out_size = size[::-1], out_size[::-1]
        # Two tiles each way load the least, four of pixels serve up to 16 filters.
        self.shape = min(((2, 2), (4, 1)), key=lambda shape: ceil_div(self.filters, shape[1] * SIDE) * shape[1])
        self.steps = matrix_steps(self.channels, kernel_cols, self.down, self.across, p.channels_last)
        self.weights = MatrixWeights.of(
            p, gradient, self.shape[1], self.steps.depth, parts, np.concatenate(self.steps.weights)
        )
        self.blocks = [
            max(ceil_div(len(places) * self.weights.step_bytes, _WEIGHT_BYTES), 1) for places in self.steps.places
        ]
        self.geometry = self._sized(images, size, out_size, int(relu))
        self._make_tables(out_size[1])
        self.config = configuration(self.shape, self.steps.depth)
        self.zeros = np.zeros(self.weights.panels * self.shape[1] * SIDE, p.dtype)
        kept, sums = self.slot_numbers
        self.workspace = self.weights.workspace + self.zeros.nbytes + threads * (
            kept * PART_BYTES + sums * p.dtype.itemsize
        )  # fmt: skip
        self.cycles = self._cycles()

    def _sized(self, images: int, size: tuple[int, int], out_size: tuple[int, int], relu: int) -> MatrixPixels:
        """Choose how many pixels, panels and steps go together."""
        (height, width), steps, last = size, self.steps, self.problem.channels_last
        stride, col_stride = self.down[0].stride, self.across[0].stride
        outputs, rows = (max(grid.count for grid in axis) for axis in (self.across, self.down))
        lowest, highest = _reach(self.down)
        left, right = _reach(self.across)
        behind = right + (outputs - 1) * col_stride + 1 - width  # columns met past the last one
        pitch = max(ceil_div(width + max(-left, behind, 0), col_stride), outputs)  # output pixels of a kept row
        reach, front, cols = highest - lowest + 1, max(-left, 0), pitch * col_stride
        row_bytes = cols * steps.planes * steps.pitch * self.parts * PART_BYTES
        out_bytes = len(self.down) * out_size[1] * self.filters * self.problem.dtype.itemsize
        most = max((_KEPT_BYTES - reach * row_bytes) // (stride * row_bytes + out_bytes), 1)
        block_rows = self._block_rows(rows, pitch, most, images)
        kept_rows = ceil_div((block_rows - 1) * stride + reach, stride)
        block_images = 1
        if block_rows == rows:
            most = _KEPT_BYTES // (stride * kept_rows * row_bytes)
            block_images = max(min(ceil_div(_PIXELS, pitch * rows), most, ceil_div(images, 2 * self.threads)), 1)
        plane = (front + block_images * stride * kept_rows * cols) * steps.pitch * PART_BYTES
        plane += -plane % LINE_BYTES
        (down, right), panels = self.shape, self.weights.panels
        slack = (down * SIDE * col_stride * steps.pitch + MOST_DEPTH) * PART_BYTES  # tiles pass the end of the last row
        part = steps.planes * plane + slack + -slack % LINE_BYTES
        share = costs.split(
            panels, ceil_div(2 * self.threads, ceil_div(images, block_images) * ceil_div(rows, block_rows)), 1
        )
        products, numbers = ceil_div(block_rows * pitch, down * SIDE), down * right * TILE_NUMBERS
        collected = max(self.blocks) > 1 or not last
        self.slot_numbers = self.parts * part // PART_BYTES, numbers * (block_images * products if collected else 1)
        plain = 1 if last else out_size[0] * out_size[1]  # numbers from a filter to the next
        out_col = self.filters if last else 1
        return MatrixPixels(
            images=images, block_images=block_images, block_rows=block_rows, height=height, width=width,
            x_image=height * width * self.channels, x_row=width * (self.channels if last else 1),
            x_channel=1 if last else height * width, channels=self.channels, parts=self.parts, depth=steps.depth,
            pitch=steps.pitch, planes=steps.planes, plane=plane, part=part, stride=stride, col_stride=col_stride,
            reach=reach, lowest=lowest, kept_rows=kept_rows, cols=cols, front=front, filters=self.filters,
            out_image=out_size[0] * out_size[1] * self.filters, out_row=self.down[0].step * out_size[1] * out_col,
            out_col=out_col, out_filter=plain, down=down, right=right, panel_bytes=self.weights.shape[1],
            sums_step=numbers * collected, share=share,
            chunk=1 if last and share * self.weights.shape[1] <= _WEIGHT_BYTES else products, relu=relu,
        )  # fmt: skip

    def _block_rows(self, rows: int, pitch: int, most: int, images: int) -> int:
        """Output rows of a task, of `pitch` pixels: at most `most`, and enough tasks for all threads."""
        wanted = ceil_div(rows, max(ceil_div(4 * self.threads, images), 1)) if self.threads > 1 else rows
        least = ceil_div(_PIXELS // 2, pitch)
        count = min(max(min(most, wanted), min(least, most)), rows)
        return ceil_div(rows, ceil_div(rows, count))

    def _make_tables(self, out_width: int) -> None:
        """Where tiles of x begin, step by step, and where pixels go."""
        g, steps, pitch = self.geometry, self.steps, self.geometry.cols // self.geometry.col_stride
        row, col = np.divmod(np.arange(g.block_rows * pitch), pitch)
        grids, out_places, self.x_places = [], [], []
        first = 0
        for (down, across), places, blocks in zip(
            product(self.down, self.across), steps.places, self.blocks, strict=True
        ):
            plane, line, column, part = places.T
            line = line - g.lowest
            pixel = (line % g.stride * g.kept_rows + line // g.stride) * g.cols + column
            self.x_places.append(plane * g.plane + (pixel * steps.pitch + part) * PART_BYTES)
            step = across.step * g.out_col
            place = np.where(col < across.count, row * g.out_row + col * step, -1)
            even = g.out_filter == 1 and not g.relu and bool((np.diff(place) == step).all())
            out_places.append(np.pad(place, (0, g.down * SIDE), constant_values=-1))
            start = (down.first * out_width + across.first) * g.out_col
            grids.append(PixelGrid(down.count, across.count, start, blocks, first, int(even), across.step))
            first += out_places[-1].size
        self.grids, self.out_places = np.array(grids, np.int64), np.concatenate(out_places)
        self.w_places = np.arange(self.weights.steps) * self.weights.step_bytes
        self.sizes = self._sizes()

    def _sizes(self) -> np.ndarray:
        """`Products` of (sums collected, or stored in `out`; grid; block of steps)."""
        g, pixel, weights = self.geometry, self.geometry.col_stride * self.steps.pitch * PART_BYTES, self.weights
        sizes = np.zeros((2, len(self.blocks), max(self.blocks), len(Products._fields)), np.int64)
        grid_step = 0
        for grid, (places, blocks) in enumerate(zip(self.x_places, self.blocks, strict=True)):
            steps = ceil_div(places.size, blocks)
            for block, stored in product(range(blocks), range(2)):
                step = block * steps
                pixel_bytes = int(self.grids[grid, -1]) * g.out_col * 4 if stored else g.right * ROW_BYTES
                start = pixel_bytes * (block > 0)  # the bias is the same for all pixels
                sizes[stored, grid, block] = Products(
                    steps=max(min(steps, places.size - step), 0), a_places=places.ctypes.data + 8 * step,
                    b_places=self.w_places.ctypes.data + 8 * (grid_step + step), a_row=pixel, b_row=ROW_BYTES,
                    a_part=g.part, b_part=weights.part_bytes, a_tile=SIDE * pixel, b_tile=weights.tile_bytes,
                    start_row=start, start_down=SIDE * start, start_right=ROW_BYTES, c_row=pixel_bytes,
                    c_down=SIDE * pixel_bytes, c_right=ROW_BYTES,
                )  # fmt: skip
            grid_step += places.size
        return sizes

    def _cycles(self) -> float:
        g, last = self.geometry, self.problem.channels_last
        steps, products = 0.0, 0
        for (rows, cols, *_), places in zip(self.grids.tolist(), self.x_places, strict=True):
            count = self._products(rows, cols) * g.images * self.weights.panels
            products += count
            steps += count * places.size
        tasks = ceil_div(g.images, g.block_images) * ceil_div(int(self.grids[:, 0].max()), g.block_rows)
        tasks *= ceil_div(self.weights.panels, g.share)
        cut = tasks * g.block_images * g.stride * g.kept_rows * g.cols * g.planes * g.pitch
        if self.steps.joined:
            steps *= _JOINED_SLOWDOWN
        return (
            steps * _CYCLES_PER_STEP[self.parts] + products * _CYCLES_PER_PRODUCT + self.weights.cycles
            + cut * _CYCLES_PER_NUMBER_CUT[last] + g.images * g.x_image * _CYCLES_PER_NUMBER_READ
            + g.images * g.out_image * _CYCLES_PER_RESULT[last]
            + 2 * costs.CYCLES_PER_LAUNCH
        )  # fmt: skip

    def _products(self, rows: int, cols: int) -> int:
        """Of one panel and image, for a grid of rows x cols outputs."""
        g = self.geometry
        blocks = [g.block_rows] * (rows // g.block_rows) + [rows % g.block_rows] * (rows % g.block_rows > 0)
        return sum(ceil_div((count - 1) * (g.cols // g.col_stride) + cols, g.down * SIDE) for count in blocks)

    def prepare(self, w: np.ndarray) -> np.ndarray:
        """The parts of the weights, as panels."""
        return self.weights.packed(w)

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        p, slots = self.problem, min(runtime.slots_for(self.problem.multiply_adds), self.threads)
        with Scratch(self.workspace) as scratch:
            panels = self.weights.pack(w, scratch) if prepared is None else prepared
            start = self.zeros
            if bias.size:
                start = scratch.take(self.zeros.shape, p.dtype)
                start[: bias.size], start[bias.size :] = bias, 0
            kept, sums = self.slot_numbers
            runtime.run_tasks(
                matrix_pixels, slots, *self._callbacks, self.config, operand.reshape(-1),
                self.sizes, self.grids, self.out_places, panels.reshape(-1), start, out.reshape(-1),
                scratch.take((slots, kept), _PART), scratch.take((slots, sums), p.dtype), self.geometry,
            )  # fmt: skip

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        """Addresses of what multiplies, cuts, stores and transposes."""
        if not self.problem.channels_last:
            cut = split_channels(self.parts)
        elif self.steps.joined:
            cut = split_row(self.parts, self.channels if self.channels in SPREAD else 0)
        else:
            cut = split_planes(self.parts)
        multiply, store = matrix_tile(self.shape, self.parts), store_pixels(self.shape[1])
        return tuple(callback.address for callback in (multiply, cut, store, transpose_block(4)))


def _reach(axis: list[Outputs]) -> tuple[int, int]:
    """The lowest and the highest offset of any tap."""
    places = [place for outputs in axis for _, place in outputs.taps] or [0]
    return min(places), max(places)
