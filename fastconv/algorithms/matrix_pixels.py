"""Forward and gradient of x on the matrix unit: tables and sizes, made once per problem."""

from __future__ import annotations

from functools import cached_property, reduce
from itertools import product
from operator import or_

import numpy as np

from fastconv import runtime
from fastconv._kernels.bfloat_parts import PART_BYTES, SPREAD, split_channels, split_planes, split_row
from fastconv._kernels.isa import LINE_BYTES
from fastconv._kernels.matrix_pixels import MatrixPixels, PixelGrid, matrix_pixels, store_pixels, store_planes
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
_KEPT_BYTES = costs.L2_BYTES // 2  # of the parts of x that a task keeps, and of what it makes
_WEIGHT_BYTES = 24 * 1024  # of a block of weights: half of the first-level cache
_PIXELS = 256  # that pass by a block of weights
# Tiles of filters that a tile of pixels meets one after the other. Channels-first, each is stored in 16 planes: of
# many at once nothing fetches lines ahead (9 layers of 1x1 to 3x3: 1, 2 and 4 tiles 1.0, 1.0 and 1.5 times as long).
_TILES, _TILES_OF_PLANES = 4, 1
_LANES_WASTED = 1.15  # by which rows of channels-first pixels may grow to begin with a cache line
# Fitted to the times of 66 layers, forward and dx, in turns with other algorithms, whose predictions set the scale. As
# many multiply-adds as a step of 16 x 16 sums have cost 256 to 300 cycles there, on quiet cores and on contended ones.
_CYCLES_PER_STEP = {2: 68.0, 3: 130.0}  # by number of parts
_CYCLES_MORE_ASKEW = {2: 75.0, 3: 47.0}  # rows of channels-first pixels straddle cache lines
_CYCLES_MORE_FAR = {2: 40.0, 3: 100.0}  # x is kept in more than the second-level cache
_JOINED_SLOWDOWN = 1.1  # rows of tiles straddle cache lines
_GROUPS_SLOWDOWN = {2: 1.0, 3: 1.12}  # 16 and 32 channels a group, beside "grouped" and "direct"
_CYCLES_PER_VISIT = 50.0  # of a block of weights to sums
_CYCLES_PER_NUMBER_READ, _CYCLES_PER_NUMBER_CUT = 0.25, {True: 0.25, False: 0.4}  # channels-last or not
_CYCLES_PER_RESULT, _CYCLES_PER_RESULT_APART = {True: 0.38, False: 0.25}, 1.0


class MatrixPixelsPass:
    """`run(operand, w, bias, out)` with operand x, or dout for the gradient of x; numbers are cut into `parts`."""

    def __init__(self, problem: ConvProblem, threads: int, *, parts: int, gradient: bool, relu: bool = False):
        p, self.problem, self.threads, self.parts = problem, problem, threads, parts
        self.channels, self.filters = p.group_channels, p.group_filters
        if gradient:
            self.channels, self.filters = self.filters, self.channels
        size, out_size = ((p.OH, p.OW), (p.H, p.W)) if gradient else ((p.H, p.W), (p.OH, p.OW))
        images, kernel_cols = p.N, p.KW
        self.down, self.across = axis_outputs(p, 0, gradient), axis_outputs(p, 1, gradient)
        if p.taps == 1 and p.no_padding and p.stride == (1, 1):  # pixels are a column, channels-last of all images
            images, pixels = (1, p.N * p.H * p.W) if p.channels_last else (p.N, p.H * p.W)
            size = out_size = pixels, 1
            self.down, self.across = [Outputs(0, pixels, 1, 1, ((0, 0),))], [Outputs(0, 1, 1, 1, ((0, 0),))]
        elif size[0] == out_size[0] == p.KH == 1:  # a line is a column, of which a task takes some
            self.down, self.across, kernel_cols = self.across, self.down, 1
            size, out_size = size[::-1], out_size[::-1]
        self.right = min(ceil_div(self.filters, SIDE), _TILES if p.channels_last else _TILES_OF_PLANES)
        self.steps = matrix_steps(self.channels, kernel_cols, self.down, self.across, p.channels_last)
        self.weights = MatrixWeights.of(
            p, gradient, self.right, self.steps.depth, parts, np.concatenate(self.steps.weights)
        )
        self.blocks = [
            max(ceil_div(len(places) * self.weights.step_bytes, _WEIGHT_BYTES), 1) for places in self.steps.places
        ]
        self.geometry = self._sized(images, size, out_size, int(relu))
        self._make_tables(out_size[1])
        self.config = configuration(self.steps.depth)
        self.zeros = np.zeros(p.groups * self.weights.panels * self.right * SIDE * self.geometry.bias_step, p.dtype)
        kept, sums = self.slot_numbers
        self.workspace = self.weights.workspace + self.zeros.nbytes + threads * (
            kept * PART_BYTES + sums * p.dtype.itemsize
        )  # fmt: skip
        self.cycles = self._cycles()

    def _sized(self, images: int, size: tuple[int, int], out_size: tuple[int, int], relu: int) -> MatrixPixels:
        """Choose how many pixels, panels and steps go together."""
        (height, width), steps, planes = size, self.steps, not self.problem.channels_last
        groups, pixels, results = self.problem.groups, height * width, out_size[0] * out_size[1]
        channels, filters = groups * self.channels, groups * self.filters
        stride, col_stride = self.down[0].stride, self.across[0].stride
        outputs, rows = (max(grid.count for grid in axis) for axis in (self.across, self.down))
        lowest, highest = _reach(self.down)
        left, right = _reach(self.across)
        # Of a kept row, in output pixels: behind its own there are as many zeros as taps reach past either side.
        last_met = (right + (outputs - 1) * col_stride) // col_stride
        pitch = max(ceil_div(width, col_stride) + max(-(left // col_stride), 0), last_met + 1, outputs)
        reach, front = highest - lowest + 1, max(-left, 0)
        if planes:
            front += -front % SIDE
            aligned = pitch + -pitch % SIDE
            pitch = aligned if reach > 1 and aligned <= _LANES_WASTED * pitch else pitch
        cols, splits = pitch * col_stride, col_stride if planes else 1
        lines, parts_apart = (steps.planes * steps.depth // 2, 2) if planes else (steps.planes, steps.pitch)
        row_bytes = cols * lines * parts_apart * self.parts * PART_BYTES
        out_bytes = len(self.down) * out_size[1] * self.filters * self.problem.dtype.itemsize
        most = max((_KEPT_BYTES - reach * row_bytes) // (stride * row_bytes + out_bytes), 1)
        block_rows = self._block_rows(rows, pitch, most, images)
        kept_rows = ceil_div((block_rows - 1) * stride + reach, stride)
        block_images = 1
        if block_rows == rows:
            most = _KEPT_BYTES // (stride * kept_rows * row_bytes)
            block_images = max(min(ceil_div(_PIXELS, pitch * rows), most, ceil_div(images, 2 * self.threads)), 1)
        pixel = (1 if planes else col_stride) * parts_apart * PART_BYTES
        slack = SIDE * pixel + ROW_BYTES  # tiles pass the end of the last row
        line = (front + block_images * stride * kept_rows * cols) * parts_apart * PART_BYTES + slack
        line += -line % LINE_BYTES
        if planes:  # 16 lines at once, which must not meet in one set of the first-level cache
            line += (1 - line // LINE_BYTES % 2) * LINE_BYTES
        panels = self.weights.panels
        share = costs.split(
            panels, ceil_div(2 * self.threads, ceil_div(images, block_images) * ceil_div(rows, block_rows) * groups), 1
        )
        merged = stride == reach == splits == 1 and block_images > 1
        products = ceil_div(block_rows * pitch * (block_images if merged else 1), SIDE)
        sums = self.right * TILE_NUMBERS * products * (1 if merged else block_images)
        self.slot_numbers = self.parts * lines * line // PART_BYTES, sums
        out_col = 1 if planes else filters
        all_met = left < 0  # what precedes a row must be zeros
        return MatrixPixels(
            images=images, groups=groups, block_images=block_images, planes=int(planes), merged=int(merged),
            block_rows=block_rows, height=height, width=width, x_image=pixels * channels,
            x_row=width * (1 if planes else channels),
            x_group=self.channels * (pixels if planes else 1), x_step=pixels if planes else channels,
            channels=self.channels, parts=self.parts, pitch=parts_apart, lines=lines, line=line,
            per_line=lines if planes else self.channels if steps.joined else steps.depth,
            part=lines * line, stride=stride, col_stride=col_stride,
            rows_met=-1 if all_met else _remainders(self.down, lowest, stride),
            cols_met=-1 if all_met else _remainders(self.across, 0, splits), splits=splits,
            reach=reach, lowest=lowest, kept_rows=kept_rows, cols=cols, front=front, pixel=pixel, filters=self.filters,
            out_image=results * filters, out_group=self.filters * (results if planes else 1),
            out_row=self.down[0].step * out_size[1] * out_col, out_col=out_col, out_filter=results if planes else 1,
            right=self.right, panel_bytes=self.weights.shape[1], group_bytes=panels * self.weights.shape[1],
            bias_step=SIDE if planes else 1, share=share, relu=relu,
        )  # fmt: skip

    def _block_rows(self, rows: int, pitch: int, most: int, images: int) -> int:
        """Output rows of a task, of `pitch` pixels: at most `most`, and enough tasks for all threads."""
        wanted = ceil_div(rows, max(ceil_div(4 * self.threads, images), 1)) if self.threads > 1 else rows
        least = ceil_div(_PIXELS // 2, pitch)
        count = min(max(min(most, wanted), min(least, most)), rows)
        count = ceil_div(rows, ceil_div(rows, count))

        def tiles(count: int) -> int:
            return rows // count * ceil_div(count * pitch, SIDE) + ceil_div(rows % count * pitch, SIDE)

        # Any SIDE counts in a row have one whose pixels fill their tiles.
        return min(range(count, max(count // 2, count - SIDE), -1), key=tiles)

    def _make_tables(self, out_width: int) -> None:
        """Where tiles of x begin, step by step, and where pixels go."""
        g, steps, pitch = self.geometry, self.steps, self.geometry.cols // self.geometry.col_stride
        numbered = np.arange((g.block_images if g.merged else 1) * g.stride * g.kept_rows * pitch)
        image, inside = np.divmod(numbered, g.stride * g.kept_rows * pitch)
        row, col = np.divmod(inside, pitch)
        grids, out_places, even, self.x_places = [], [], [], []
        first = 0
        for (down, across), places, blocks in zip(
            product(self.down, self.across), steps.places, self.blocks, strict=True
        ):
            plane, line, column, part = places.T
            line = line - g.lowest
            split, column = column % g.splits, column // g.splits
            row_met = (split * g.stride + line % g.stride) * g.kept_rows + line // g.stride
            pixel = row_met * (g.cols // g.splits) + column
            self.x_places.append(plane * (g.lines // steps.planes) * g.line + (pixel * g.pitch + part) * PART_BYTES)
            step = across.step * g.out_col
            outside = (col >= across.count) | (row >= min(down.count, g.block_rows))
            place = np.where(outside, -1, image * g.out_image + row * g.out_row + col * step)
            out_places.append(np.pad(place, (0, SIDE), constant_values=-1))
            stored = step == 1 or not g.planes
            even.append(_evenly_spaced(out_places[-1], step) & stored)
            start = (down.first * out_width + across.first) * g.out_col
            grids.append(PixelGrid(down.count, across.count, start, blocks, first, step))
            first += out_places[-1].size
        self.grids, self.out_places = np.array(grids, np.int64), np.concatenate(out_places)
        self.even = np.concatenate(even)
        self.w_places = np.arange(self.weights.steps) * self.weights.step_bytes
        self.sizes = self._sizes()

    def _sizes(self) -> np.ndarray:
        """`Products` of (sums collected, or stored in `out`; grid; block of steps)."""
        g, weights = self.geometry, self.weights
        sizes = np.zeros((2, len(self.blocks), max(self.blocks), len(Products._fields)), np.int64)
        row, tile = (ROW_BYTES, SIDE * ROW_BYTES) if g.planes else (g.right * ROW_BYTES, ROW_BYTES)
        grid_step = 0
        for grid, (places, blocks) in enumerate(zip(self.x_places, self.blocks, strict=True)):
            steps = ceil_div(places.size, blocks)
            plane = g.out_filter * 4
            far = (plane, SIDE * plane) if g.planes else (int(self.grids[grid, -1]) * 4, ROW_BYTES)
            for block, stored in product(range(blocks), range(2)):
                step = block * steps
                c_row, c_tile = far if stored else (row, tile)
                sizes[stored, grid, block] = Products(
                    steps=max(min(steps, places.size - step), 0), x_places=places.ctypes.data + 8 * step,
                    w_places=self.w_places.ctypes.data + 8 * (grid_step + step),
                    x_row=g.line if g.planes else g.pixel, x_part=g.part, w_part=weights.part_bytes,
                    w_tile=weights.tile_bytes, start_row=row if block or g.planes else 0, start_tile=tile,
                    c_row=c_row, c_tile=c_tile,
                )  # fmt: skip
            grid_step += places.size
        return sizes

    def _cycles(self) -> float:
        g, parts, last = self.geometry, self.parts, self.problem.channels_last
        filter_tiles = ceil_div(g.filters, SIDE)
        arithmetic = 0.0
        for (rows, cols, *_), places, blocks in zip(self.grids.tolist(), self.x_places, self.blocks, strict=True):
            step = np.full(places.size, _CYCLES_PER_STEP[parts] * (_JOINED_SLOWDOWN if self.steps.joined else 1.0))
            if g.planes:  # a step of fewer channels loads fewer lines
                step *= (1 + self.steps.depth / MOST_DEPTH) / 2
                step[(places + g.front * g.pitch * PART_BYTES) % LINE_BYTES > 0] += (
                    _CYCLES_MORE_ASKEW[parts] * self.steps.depth / MOST_DEPTH
                )
            if self.slot_numbers[0] * PART_BYTES > costs.L2_BYTES:
                step += _CYCLES_MORE_FAR[parts]
            tiles = self._products(rows, cols) * g.images * filter_tiles
            arithmetic += g.groups * tiles * (step.sum() + blocks * _CYCLES_PER_VISIT)
        arithmetic *= _GROUPS_SLOWDOWN[parts] if g.groups > 1 else 1.0
        tasks = ceil_div(g.images, g.block_images) * ceil_div(int(self.grids[:, 0].max()), g.block_rows)
        tasks *= g.groups * ceil_div(self.weights.panels, g.share)
        cut = tasks * g.block_images * g.stride * g.kept_rows * g.cols * g.lines * g.pitch
        result = _CYCLES_PER_RESULT_APART if g.planes and self.across[0].step > 1 else _CYCLES_PER_RESULT[last]
        return (
            arithmetic + self.weights.cycles + cut * _CYCLES_PER_NUMBER_CUT[last]
            + g.images * g.x_image * _CYCLES_PER_NUMBER_READ + g.images * g.out_image * result
            + 2 * costs.CYCLES_PER_LAUNCH
        )  # fmt: skip

    def _products(self, rows: int, cols: int) -> int:
        """Of one panel and image, for a grid of rows x cols outputs."""
        g = self.geometry
        blocks = [g.block_rows] * (rows // g.block_rows) + [rows % g.block_rows] * (rows % g.block_rows > 0)
        return sum(ceil_div((count - 1) * (g.cols // g.col_stride) + cols, SIDE) for count in blocks)

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
                start = scratch.take(self.zeros.shape, p.dtype).reshape(p.groups, -1, self.geometry.bias_step)
                start[:, : self.filters], start[:, self.filters :] = bias.reshape(p.groups, -1, 1), 0
                start = start.reshape(-1)
            kept, sums = self.slot_numbers
            runtime.run_tasks(
                matrix_pixels, slots, *self._callbacks, self.config, operand.reshape(-1),
                self.sizes, self.grids, self.out_places, self.even, panels.reshape(-1), start, out.reshape(-1),
                scratch.take((slots, kept), _PART), scratch.take((slots, sums), p.dtype), self.geometry,
            )  # fmt: skip

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        """Addresses of what multiplies, cuts and stores."""
        planes = not self.problem.channels_last
        if planes:
            cut = split_channels(self.parts)
        elif self.steps.joined and self.problem.groups == 1:
            cut = split_row(self.parts, self.channels if self.channels in SPREAD else 0)
        else:
            cut = split_planes(self.parts)
        store = store_planes() if planes else store_pixels(self.right)
        return tuple(callback.address for callback in (matrix_tile(self.parts, planes), cut, store))


def _reach(axis: list[Outputs]) -> tuple[int, int]:
    """The lowest and the highest offset of any tap."""
    places = [place for outputs in axis for _, place in outputs.taps] or [0]
    return min(places), max(places)


def _remainders(axis: list[Outputs], lowest: int, stride: int) -> int:
    """Bit r: whether some tap lies r cells, or r and some strides, behind the lowest; all bits for long strides."""
    if stride > 32:
        return -1
    return reduce(or_, (1 << (place - lowest) % stride for of in axis for _, place in of.taps), 0)


def _evenly_spaced(places: np.ndarray, step: int) -> np.ndarray:
    """Whether a tile's places from each entry on are `step` apart, none of them below 0; False behind the last tile."""
    follows = np.zeros(places.size, np.int64)
    follows[:-1] = (np.diff(places) == step) & (places[:-1] >= 0)
    counted = np.concatenate([[0], np.cumsum(follows)])
    even = np.zeros(places.size, np.bool_)
    last = places.size - SIDE + 1
    even[:last] = counted[SIDE - 1 : SIDE - 1 + last] - counted[:last] == SIDE - 1
    return even
