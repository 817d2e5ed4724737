"""Grouped convolution, forward and gradient of x: tables and sizes, made once per problem."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_block
from fastconv._kernels.grouped import Work, correlate
from fastconv._kernels.grouped_packing import pack_pixels, pack_planes, unpack_pixels
from fastconv._kernels.grouped_tiles import GroupedShape, GroupedSizes, grouped_tile
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms import costs, grouped_units
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import axis_outputs
from fastconv.algorithms.grouped_units import (
    CYCLES_PER_PACKED,
    CYCLES_PER_WEIGHT,
    SLOWDOWN,
    SPARED,
    Rows,
    Units,
    packing_of,
    places_in,
    run_length,
    tap_entries,
    units_at_once,
)  # fmt: skip
from fastconv.algorithms.weight_panels import WeightPanels
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

# Pixels of one tile: few sizes, as each is compiled. Sums wait 4 cycles for the one before, so 7 run at 7/8 of the
# speed; 11 and more, beside the weights of 3 taps, or 8 with stride 2, spill registers where there are 16.
_PIXELS, _PIXELS_STRIDED = (8, 7, 10), (7,)
_CYCLES_PER_TILE, _CYCLES_PER_PIXEL = 20.0, 3.0  # clearing and storing the sums of a tile
_CYCLES_PER_STORED = 3.0  # a vector that goes straight into a channels-last result


def _pixels(columns: int, stride: int) -> int:
    """Output pixels of a tile: the fewest steps, of which one takes as long as 8 multiply-adds at least."""
    sizes = _PIXELS if stride == 1 else _PIXELS_STRIDED
    return min(sizes, key=lambda size: ceil_div(columns, size) * max(size, 8))


def _step_cycles(shape: GroupedShape) -> float:
    """One channel of one run of taps, in a tile.

    What limits it is one of: two multiply-adds a cycle, each of whose sums waits 4 cycles for the one before; two loads
    a cycle; three vector instructions a cycle where channels are spread by shuffles.
    """
    reads, products = len(shape.reads), shape.pixels * shape.taps
    limits = [max(shape.pixels, 8) * shape.taps / 2, (reads + shape.taps) / 2]
    if shape.width:
        limits.append((products + reads) / 3)
    return max(limits) * SLOWDOWN


class GroupedPass:
    """Forward, or gradient of x: `run(operand, w, bias, out)` with operand x or dout."""

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        self.problem, self.threads, p = problem, threads, problem
        itemsize, lanes = p.dtype.itemsize, MACHINE.lanes(p.dtype.itemsize)
        channels, filters, total, results = p.group_channels, p.group_filters, p.C, p.F
        height, width, out_height, out_width = p.H, p.W, p.OH, p.OW
        if gradient:
            channels, filters, total, results = filters, channels, results, total
            height, width, out_height, out_width = out_height, out_width, height, width
        self.units = units = Units.of(p.groups, channels, filters, lanes)
        self.around = around = Rows(axis_outputs(p, 0, gradient), axis_outputs(p, 1, gradient))
        out_step, step = around.rows[0].step, around.rows[0].stride
        cols = around.width(width)
        share = units_at_once(p, units)
        self.collects = not p.channels_last or around.columns[0].step > 1
        # As many rows as fit; fewer where there would be too few tasks.
        wanted = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        bands = ceil_div(wanted, p.N * ceil_div(units.count, share))
        row_bytes = share * units.blocks * cols * lanes * itemsize
        most = grouped_units.TASK_BYTES // row_bytes - around.height(out_step) + 1
        most = min(max(most // step * out_step, 1), ceil_div(out_height, bands))
        band = ceil_div(ceil_div(out_height, ceil_div(out_height, most)), out_step) * out_step
        self.packing = packing = packing_of(
            p, height, width, total, units.channels, units.blocks, around.height(band), cols, around.above, step
        )
        self.places = places_in(packing, around.left)
        per_channel, per_tap = (lanes, channels * lanes) if p.channels_last else (p.taps * lanes, lanes)
        self.weights = WeightPanels.of(p, gradient, lanes, units.together)
        self.work = Work(
            images=p.N, rows=out_height, band=band, units=units.count, share=share, filters=results,
            unit_filters=units.filters, panels=units.panels, lanes=lanes, w_panel=p.taps * channels * lanes,
            out_step=out_step, out_image=out_height * out_width * results,
            out_row=out_width * (results if p.channels_last else 1),
            out_pixel=results if p.channels_last else 1, out_filter=1 if p.channels_last else out_height * out_width,
            cols=out_width, collected=band * out_width * lanes if self.collects else 0, relu=int(relu),
        )  # fmt: skip
        out_pixel = lanes if self.collects else results
        entries: list[tuple[int, int, int]] = []
        sizes: list[GroupedSizes] = []
        self.phases: list[tuple[int, int, int, int]] = []  # tile (found in `run`), first entry, first row, place in out
        self.shapes: list[GroupedShape] = []
        slack = 0
        panels = p.N * units.count * units.panels
        packed = p.N * units.count * units.blocks * height * width
        self.cycles = costs.CYCLES_PER_LAUNCH * 2 + CYCLES_PER_PACKED * packed
        self.cycles += (CYCLES_PER_PACKED if self.collects else _CYCLES_PER_STORED) * panels * out_height * out_width
        self.cycles += CYCLES_PER_WEIGHT * p.F * p.group_channels * p.taps
        for rows in around.rows:
            for columns in around.columns:
                taps = run_length(columns, units)
                shape = GroupedShape(_pixels(columns.count, columns.stride), taps, columns.stride, units.width)
                own = tap_entries(rows, columns, around, packing, channels, taps, per_channel, p.KW * per_tap, per_tap)
                place = (rows.first * out_width + columns.first) * out_pixel
                self.phases.append((0, 3 * len(entries), rows.first, place))
                sizes.append(
                    GroupedSizes(
                        len(own), columns.count, rows.stride * packing.row, rows.step * out_width * out_pixel,
                        columns.step * out_pixel, per_channel, columns.kernel_step * per_tap,
                    )
                )  # fmt: skip
                entries += own
                self.shapes.append(shape)
                steps = sum(units.width or count for _, _, count in own)
                tile = _CYCLES_PER_TILE + _CYCLES_PER_PIXEL * shape.pixels + steps * _step_cycles(shape)
                self.cycles += panels * rows.count * ceil_div(columns.count, shape.pixels) * tile
                slack = max(slack, shape.pixels * shape.stride + shape.taps)
        self.spared = SPARED * self.cycles if channels < 2 * lanes else 0.0
        self.entries = np.array(entries, np.int64).reshape(-1)
        self.sizes = np.array(sizes, np.int64)
        self.scratch = share * units.blocks * packing.block + slack * lanes
        self.results = share * units.panels * self.work.collected
        self.workspace = self.weights.nbytes + threads * (self.scratch + self.results) * itemsize

    @cached_property
    def _phases(self) -> np.ndarray:
        phases = np.array(self.phases, np.int64)
        phases[:, 0] = [grouped_tile(shape, self.problem.dtype.itemsize).address for shape in self.shapes]
        return phases

    def prepare(self, w: np.ndarray) -> np.ndarray:
        """Weights as panels, in the order in which the tile reads them."""
        return self.weights.packed(w)

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        p, itemsize = self.problem, self.problem.dtype.itemsize
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        pack, unpack = (pack_pixels, unpack_pixels) if p.channels_last else (pack_planes, transpose_block)
        with Scratch(self.workspace) as scratch:
            panels = prepared
            if panels is None:
                panels = scratch.take(self.weights.shape, p.dtype)
                self.weights.pack(w, panels)
            own, results = (scratch.take((slots, numbers), p.dtype) for numbers in (self.scratch, self.results))
            runtime.run_tasks(
                correlate, slots, pack(itemsize).address, unpack(itemsize).address,
                operand.reshape(-1), self.places, panels.reshape(-1), bias, out.reshape(-1), self.sizes, self.entries,
                self._phases, own, results, self.packing, self.work,
            )  # fmt: skip
