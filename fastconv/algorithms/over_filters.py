"""Forward and gradient of x with vectors over filters (or channels): tables and sizes, made once per problem."""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, transpose_block
from fastconv._kernels.isa import CALL_CYCLES, MACHINE, best_tile
from fastconv._kernels.over_filters import TABLES, OverFilters, Part, over_filters
from fastconv._kernels.register_tile import RUN
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import axis_outputs
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.sweep_callbacks import apart_in_runs, sweep_callbacks
from fastconv.algorithms.tables import offsets
from fastconv.algorithms.tap_grids import Grid, grids_of, padding, spans, whole
from fastconv.algorithms.weight_panels import WeightPanels
from fastconv.problem import ConvProblem
from fastconv.workspace import INDEX, Scratch

# Rows of tiles up to which weights are read where they lie: packing them costs as much as using them.
_UNPACKED_TILES = 2
# Bringing a weight into its panel; channels-first, the gradient of x takes the taps of a filter and channel at a time.
# 3 and 5 to 11 cycles of a Zen 3 that multiplies at about half of the speed that is predicted here.
_CYCLES_PER_WEIGHT, _CYCLES_PER_SCATTERED_WEIGHT = 1.5, 3.0
# A cache line of weights that are read in place from rows a page apart: 16 images, 4096 x 4096 features took 21 ms,
# packed on the way (`product`) 6.5.
_PAGE_BYTES, _CYCLES_PER_FAR_LINE = 4096, 100.0
_CYCLES_PER_PLACE = 5.0  # entering a pixel into the tables of a task, unless pixels are evenly spaced
_NARROW_SLOWDOWN = 2.0  # fewer filters than lanes: tiles are called one by one and wait for their few sums


class OverFiltersPass:
    """One pass: `run(operand, w, bias, out)` with operand x, or dout for the gradient of x.

    The gradient is dx[i, c] = sum over f, taps of dout[o, f] * w[f, c, tap]: filters and channels change roles.
    `pixels` brings a channels-first operand into channels-last order on the way.
    """

    def __init__(
        self, problem: ConvProblem, threads: int, *, packed: bool, gradient: bool, relu: bool = False,
        pixels: bool = False,
    ):  # fmt: skip
        assert problem.channels_last or not packed  # windows of planes are not made of runs
        p, self.problem, self.threads, self.packed, self.gradient = problem, problem, threads, packed, gradient
        self.pixels = pixels or p.channels_last
        self.channels, self.filters = p.group_channels, p.group_filters
        total, size, out_size = p.C, (p.H, p.W), (p.OH, p.OW)
        if gradient:
            self.channels, self.filters = self.filters, self.channels
            total, size, out_size = p.F, out_size, size
        self.out_size, itemsize = out_size, p.dtype.itemsize
        self.tile = best_tile(p.N * out_size[0] * out_size[1], self.filters, itemsize)
        self.down, self.across = axis_outputs(p, 0, gradient), axis_outputs(p, 1, gradient)
        self.grids = self._cut(size)
        top, rows = padding([grid.rows.reach(grid.down) for grid in self.grids], size[0])
        left, cols = padding([grid.cols.reach(grid.across) for grid in self.grids], size[1])
        self.source = Operand(p.channels_last, self.pixels, total, *size, top, left, rows, cols)
        image_bytes = self.source.scratch_bytes(itemsize)
        self.images = costs.images_at_once(image_bytes, p.N)
        self.weights = WeightPanels.of(p, gradient, self.tile.cols, taps_first=self.pixels)
        self.in_place = (
            p.channels_last and not gradient and p.groups == 1
            and self.images * out_size[0] * out_size[1] <= _UNPACKED_TILES * self.tile.rows
        )  # fmt: skip
        self._make_tables()
        self.geometry = self._sized(int(relu))
        self.copy, self.transpose = copy_block(itemsize), transpose_block(itemsize)
        self.result_rows = np.arange(self.geometry.chunk * self.tile.rows) * self.tile.cols
        self.vectors = np.arange(self.tile.vectors) * MACHINE.lanes(itemsize)
        self.zeros = np.zeros(self.tile.cols, p.dtype)
        panel_bytes = 0 if self.in_place or self.geometry.own_panels else self.weights.nbytes
        self.workspace = self.images * image_bytes + panel_bytes + threads * self._slot_bytes()
        moved = 2 * image_bytes * p.N * costs.CYCLES_PER_BYTE_MOVED
        self.cycles = self._cycles() + moved + costs.CYCLES_PER_LAUNCH * 2

    def _cut(self, size: tuple[int, int]) -> list[Grid]:
        """The grids of output pixels, cut where taps leave the image along the axes on which that pays."""
        uncut = [[whole(outputs) for outputs in axis] for axis in (self.down, self.across)]
        if not self.pixels or self.packed:
            return grids_of(self.down, self.across, uncut[0], uncut[1], self.channels)
        cut = [
            [spans(outputs, length) for outputs in axis]
            for axis, length in zip((self.down, self.across), size, strict=True)
        ]
        ways = [
            grids_of(self.down, self.across, rows, cols, self.channels)
            for rows, cols in product((uncut[0], cut[0]), (uncut[1], cut[1]))
        ]
        return min(ways, key=lambda grids: sum(map(self._grid_cycles, grids)))

    def _grid_cycles(self, grid: Grid) -> float:
        """Multiplying for one panel of one group, and storing a channels-first output a row at a time."""
        p = self.problem
        calls = len(grid.segments(self.channels, costs.DEPTH_BLOCK, self.pixels))
        tiles = ceil_div(p.N * grid.pixels, self.tile.rows)
        stored = 0 if p.channels_last else p.N * grid.rows.count * self.tile.cols * costs.CYCLES_PER_RUN
        step = self.tile.cycles
        if self.packed or (self.pixels and self.channels % RUN == 0):
            step *= costs.IN_RUNS
        if self.filters < MACHINE.lanes(p.dtype.itemsize):
            step *= _NARROW_SLOWDOWN
        return tiles * (step * grid.taps * self.channels + CALL_CYCLES * calls) + stored

    def _make_tables(self) -> None:
        """Where the steps of the sums lie in x and in a panel of weights, phase by phase."""
        p, source, channels = self.problem, self.source, np.arange(self.channels)
        acol, steps, windows = [], [], []
        for down, across in product(self.down, self.across):
            kernel_h, at_h = np.array(down.taps, np.int64).reshape(-1, 2).T
            kernel_w, at_w = np.array(across.taps, np.int64).reshape(-1, 2).T
            window = offsets((at_h + source.top) * source.row_step, (at_w + source.left) * source.col_step)
            taps = offsets(kernel_h * p.KW, kernel_w)
            if self.packed:
                acol.append(np.arange(window.size * self.channels))
            elif self.pixels:
                acol.append(offsets(window, channels))
            else:
                acol.append(offsets(channels * source.plane, window))
            if self.pixels:
                steps.append(offsets(taps * self.channels, channels))
            else:
                steps.append(offsets(channels * p.taps, taps))
            windows.append(window)
        self.acol, self.runs = np.concatenate(acol), np.concatenate(windows)
        self.steps = np.concatenate(steps) * (self.weights.stride if self.in_place else self.tile.cols)
        self.run_ends = np.cumsum([window.size for window in windows])
        cut = [grid.segments(self.channels, costs.DEPTH_BLOCK, self.pixels) for grid in self.grids]
        self.segments = np.array([segment for of_grid in cut for segment in of_grid], np.int64)
        self.segment_ends = np.cumsum([len(of_grid) for of_grid in cut])
        self.several_segments = max(map(len, cut)) > 1

    def _parts(self, images: int) -> tuple[np.ndarray, int]:
        """The table of the grids, for some images at a time, and the number of their tiles."""
        p, source = self.problem, self.source
        col = self.filters * p.groups if p.channels_last else 1
        parts: list[Part] = []
        tiles = segment = 0
        for grid, segments_end in zip(self.grids, self.segment_ends, strict=True):
            down, across, rows, cols = grid.down, grid.across, grid.rows, grid.cols
            out_row, out_col = down.first + rows.begin * down.step, across.first + cols.begin * across.step
            parts.append(
                Part(
                    first=tiles, pixels=images * grid.pixels, rows=rows.count, cols=cols.count,
                    x_start=rows.begin * down.stride * source.row_step + cols.begin * across.stride * source.col_step,
                    out_start=(out_row * self.out_size[1] + out_col) * col, segment=segment, segments_end=segments_end,
                    run=self.run_ends[grid.phase] - len(down.taps) * len(across.taps),
                    runs_end=self.run_ends[grid.phase],
                )
            )  # fmt: skip
            tiles += ceil_div(images * grid.pixels, self.tile.rows)
            segment = segments_end
        return np.array(parts, np.int64), tiles

    def _sized(self, relu: int) -> OverFilters:
        """Choose how many pixels and panels one task takes."""
        p, tile, source = self.problem, self.tile, self.source
        depth = (
            max(len(down.taps) * len(across.taps) for down, across in product(self.down, self.across)) * self.channels
        )
        self.parts, tiles = self._parts(self.images)
        pixels = tiles * tile.rows
        tasks = ceil_div(self.threads * costs.TASKS_PER_THREAD, p.groups) if self.threads > 1 else 1
        chunk = costs.PIXELS_PER_TASK
        if self.packed:
            chunk = min(chunk, costs.L2_BYTES // (max(depth, 1) * p.dtype.itemsize))
        # Few pixels: split the panels first, since each task passes over all weights of its panels.
        least = min(chunk, costs.PIXELS_PER_TASK // 4)
        chunk = ceil_div(max(min(chunk, ceil_div(pixels, tasks)), least, tile.rows), tile.rows)
        chunk = min(chunk, tiles)
        if pixels <= costs.PIXELS_PER_TASK and self.weights.panels >= tasks:
            chunk = tiles
        # A panel's rows may lie far apart: 512 filters of 512x3x3 took 4.4 ms, packed beforehand 2.9.
        apart = not self.weights.transposed and self.weights.nbytes > costs.L2_BYTES
        own_panels = chunk == tiles and self.images == p.N and not self.in_place and not apart
        share = costs.split(self.weights.panels, tasks // max(ceil_div(tiles, chunk), 1), 1)
        # 1x1 over 56x56: 256 to 64 channels took 0.89 times as long, 128 to 128 0.89, 128 to 512 0.92, 64 to 256 0.96.
        strides = self.down[0].stride, self.across[0].stride
        ahead = self.pixels and not self.packed and p.groups == len(self.grids) == 1 and strides == (1, 1)
        last, (height, width) = p.channels_last, self.out_size
        even = last and not self.packed and len(self.grids) == 1 and strides == (1, 1) and self.source.in_place
        even = even and (height, width) == (self.source.height, self.source.width) and self.across[0].step == 1
        filters = self.filters * p.groups
        col = filters if last else 1
        return OverFilters(
            groups=p.groups, filters=self.filters, x_image=source.image, x_row=self.down[0].stride * source.row_step,
            x_col=self.across[0].stride * source.col_step, x_group=self.channels * source.channel_step,
            w_panel=(1 if self.in_place else self.weights.depth) * tile.cols, out_image=height * width * filters,
            out_row=self.down[0].step * width * col, out_col=self.across[0].step * col,
            out_filter=1 if last else height * width, tile_rows=tile.rows, tile_cols=tile.cols, tiles=tiles,
            chunk=chunk, share=share, own_panels=int(own_panels), patch=depth if self.packed else 0,
            run_length=self.channels, even=int(even), ahead=int(ahead), relu=relu,
        )  # fmt: skip

    @cached_property
    def _slot_numbers(self) -> tuple[int, int, int]:
        """Numbers of patches, of results and of a task's own panel per slot."""
        g = self.geometry
        pixels = g.chunk * g.tile_rows
        return pixels * g.patch, pixels * g.tile_cols * (g.out_filter != 1), g.w_panel * g.own_panels

    def _slot_bytes(self) -> int:
        g = self.geometry
        return sum(self._slot_numbers) * self.problem.dtype.itemsize + g.chunk * g.tile_rows * TABLES * 8

    def _cycles(self) -> float:
        p, g, item = self.problem, self.geometry, self.problem.dtype.itemsize
        panels = self.weights.panels
        cycles = sum(map(self._grid_cycles, self.grids)) * panels * p.groups
        if self.in_place:
            if p.F * item >= _PAGE_BYTES:
                cycles += p.F * p.C * p.taps * item / 64 * _CYCLES_PER_FAR_LINE
        else:
            scattered = self.weights.transposed and self.weights.batches > 1 and not p.channels_last
            each = _CYCLES_PER_SCATTERED_WEIGHT if scattered else _CYCLES_PER_WEIGHT
            cycles += p.F * p.group_channels * p.taps * each
        if not self.pixels:
            tiles = sum(ceil_div(p.N * grid.pixels, self.tile.rows) for grid in self.grids) * panels
            cycles += tiles * costs.cycles_per_turns(self.source.channels, self.source.image * item)
        pixels = p.N * self.out_size[0] * self.out_size[1]
        if self.packed:
            copied = self.runs.size / len(self.run_ends) * (costs.CYCLES_PER_RUN + g.run_length * item * 2 / 64)
            cycles += pixels * p.groups * ceil_div(panels, g.share) * copied
        if not g.even:
            cycles += pixels * p.groups * ceil_div(panels, g.share) * _CYCLES_PER_PLACE
        if g.out_filter != 1:
            each = costs.cycles_per_transposed(g.out_filter * item) if g.out_col == 1 else costs.CYCLES_PER_SCATTERED
            cycles += pixels * self.filters * p.groups * each
        if self.pixels and not p.channels_last:
            cycles += p.N * self.source.channels * self.source.height * self.source.width * (
                costs.cycles_per_transposed(self.source.height * self.source.width * item)
            )  # fmt: skip
        return cycles

    def prepare(self, w: np.ndarray) -> np.ndarray | None:
        """Weights as panels, in the order in which the tile reads them."""
        if self.in_place:
            return None
        return self.weights.packed(w)

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        p, g = self.problem, self.geometry
        with Scratch(self.workspace) as scratch:
            panels = w if self.in_place or g.own_panels else prepared
            if prepared is not None:
                panels, g = prepared, g._replace(own_panels=0)
            if panels is None:
                panels = scratch.take(self.weights.shape, p.dtype)
                self.weights.pack(w, panels)
            panels = panels.reshape(-1)
            for first in range(0, p.N, self.images):
                end = min(first + self.images, p.N)
                self._run_images(operand[first:end], panels, bias, out[first:end].reshape(-1), g, scratch)

    def _run_images(
        self, operand: np.ndarray, panels: np.ndarray, bias: np.ndarray, out: np.ndarray, g: OverFilters,
        scratch: Scratch,
    ) -> None:  # fmt: skip
        p, images, parts = self.problem, len(operand), self.parts
        if images != self.images:
            parts, tiles = self._parts(images)
            g = g._replace(tiles=tiles)
        slots = min(runtime.slots_for(p.multiply_adds * images // p.N), self.threads)
        with scratch:
            x = self.source.prepare(operand, slots, scratch)
            own = (scratch.take((slots, numbers), p.dtype) for numbers in self._slot_numbers)
            runtime.run_tasks(
                over_filters, slots, *self._callbacks, x, self.acol, self.runs, parts,
                self.segments, panels, *self.weights.row_offsets, self.steps, self.vectors, bias, self.zeros, out,
                self.result_rows, scratch.take((slots, TABLES, g.chunk * g.tile_rows), INDEX), *own, g,
                self.weights.packing,
            )  # fmt: skip

    @cached_property
    def _callbacks(self) -> tuple[int, ...]:
        """Addresses of the sweeps, of the tile, and of what copies, transposes and packs."""
        itemsize = self.problem.dtype.itemsize
        apart = apart_in_runs(self.acol, self.steps, self.tile.rows, self.tile.cols, self.segments)
        tiles = sweep_callbacks(
            self.tile, itemsize, narrow=self.filters % self.tile.cols > 0, several_blocks=self.several_segments,
            apart=apart,
        )  # fmt: skip
        return *tiles, self.copy.address, self.transpose.address, self.weights.block
