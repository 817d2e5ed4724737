"""Grouped convolution, gradient of the weights: tables and sizes, made once per problem."""

from __future__ import annotations

import math

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, transpose_rows
from fastconv._kernels.grouped import Shares, gradient, unpack
from fastconv._kernels.grouped_gradient_tile import CHANNELS, GradientSizes, grouped_gradient_tile
from fastconv._kernels.grouped_packing import pack_pixels, pack_planes
from fastconv._kernels.grouped_tiles import GroupedShape
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
    fewest_runs,
    packing_of,
    places_in,
    tap_entries,
    units_at_once,
)  # fmt: skip
from fastconv.algorithms.tables import offsets
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

_PIXELS = 7  # that share what was spread; those left at the end of a row are taken one by one
_CYCLES_PER_SUMS = 60.0  # adding the sums of some rows to those of others


class GroupedGradient:
    """Gradient of the weights: `run(x, dout, dw)`."""

    def __init__(self, problem: ConvProblem, threads: int):
        self.problem, self.threads, p = problem, threads, problem
        itemsize, lanes = p.dtype.itemsize, MACHINE.lanes(p.dtype.itemsize)
        self.units = units = Units.of(p.groups, p.group_channels, p.group_filters, lanes)
        around = Rows(axis_outputs(p, 0, False), axis_outputs(p, 1, False))
        (rows,), (columns,) = around.rows, around.columns
        taps = fewest_runs(columns, units)
        run_taps = ceil_div(p.KW, taps) * taps  # of a row, with zeros beside x for those that the kernel lacks
        share, cols = units_at_once(p, units), around.width(p.W) + run_taps - p.KW
        bundles = ceil_div(units.count, share)
        row_bytes = share * (units.blocks * cols * rows.stride + units.panels * p.OW) * lanes * itemsize
        most = max(grouped_units.TASK_BYTES // row_bytes, 1)
        band = ceil_div(p.OH, ceil_div(p.OH, most))
        self.x = packing_of(
            p, p.H, p.W, p.C, units.channels, units.blocks, around.height(band), cols, around.above, rows.stride
        )
        self.dout = packing_of(p, p.OH, p.OW, p.F, units.filters, units.panels, band, p.OW, 0, 1)
        self.x_places, self.dout_places = places_in(self.x, around.left), places_in(self.dout, 0)
        pixels = _PIXELS
        self.shape = GroupedShape(pixels, taps, columns.stride, units.width)
        w_row = run_taps * lanes
        w_channel = p.KH * w_row
        self.entries = np.array(
            tap_entries(rows, columns, around, self.x, p.group_channels, taps, w_channel, w_row, lanes), np.int64
        ).reshape(-1)
        self.sizes = np.array(
            GradientSizes(
                len(self.entries) // 3, columns.count, rows.stride * self.x.row, self.dout.row, w_channel,
                columns.kernel_step * lanes,
            )
        )  # fmt: skip
        depth = ceil_div(p.group_channels, min(CHANNELS, lanes)) * min(CHANNELS, lanes) * p.KH * run_taps
        wanted = threads * costs.TASKS_PER_THREAD if threads > 1 else 1
        splits = max(min(ceil_div(wanted, bundles), p.N * ceil_div(p.OH, band)), 1)
        self.work = Shares(
            images=p.N, rows=p.OH, band=band, units=units.count, share=share, panels=units.panels,
            w_panel=depth * lanes, splits=splits,
        )  # fmt: skip
        self.partial_shape = splits, units.count * units.panels, depth, lanes
        channels, kernel = np.arange(p.group_channels), np.arange(p.taps)
        self.drow = offsets(channels * p.F, kernel * p.group_channels * p.F)
        self.srow = offsets(channels * w_channel, np.arange(p.KH) * w_row, np.arange(p.KW) * lanes)
        self.scratch = share * units.blocks * self.x.block, share * units.panels * self.dout.block
        self.workspace = (math.prod(self.partial_shape) + threads * sum(self.scratch)) * itemsize
        # Every pixel meets every run of taps and some channels at a time.
        together = min(CHANNELS, units.width or lanes)
        sums = sum(ceil_div(units.width or count, together) for _, _, count in self.entries.reshape(-1, 3).tolist())
        reads, products = len(self.shape.reads) / pixels * together, taps * together
        step = max(products, reads + 1, (products + reads) / 1.5 if units.width else 0) / 2 * SLOWDOWN
        vectors = p.N * units.count * (units.blocks * p.H * p.W + units.panels * p.OH * p.OW)
        visits = p.N * ceil_div(p.OH, band)
        self.cycles = (
            costs.CYCLES_PER_LAUNCH * 2 + CYCLES_PER_PACKED * vectors
            + units.count * units.panels * sums * (p.N * p.OH * p.OW * step + visits * _CYCLES_PER_SUMS)
            + CYCLES_PER_WEIGHT * p.F * p.group_channels * p.taps * (splits + 1)
        )  # fmt: skip
        self.spared = SPARED * self.cycles

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p, units, itemsize = self.problem, self.units, self.problem.dtype.itemsize
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        pack = (pack_pixels if p.channels_last else pack_planes)(itemsize)
        block = (copy_block if p.channels_last else transpose_rows)(itemsize)
        with Scratch(self.workspace) as scratch:
            partial = scratch.take(self.partial_shape, p.dtype)
            x_scratch, dout_scratch = (scratch.take((slots, numbers), p.dtype) for numbers in self.scratch)
            runtime.run_tasks(
                gradient, slots, pack.address,
                grouped_gradient_tile(self.shape, itemsize).address, x.reshape(-1), self.x_places, dout.reshape(-1),
                self.dout_places, partial.reshape(len(partial), -1), self.sizes, self.entries, x_scratch, dout_scratch,
                self.x, self.dout, self.work,
            )  # fmt: skip
            total = partial[0]
            for part in partial[1:]:
                total += part
            runtime.launch(
                unpack, dw.size * 8, block.address, not p.channels_last, total, dw.reshape(-1), self.drow, self.srow,
                units.panels, units.filters, p.F,
            )  # fmt: skip
