"""Grouped convolution by vectors of filters, one task after the other: forward and gradient of x, gradient of w.

A *unit* is what is computed together: the groups that share one vector, or one group, whose channels fill `blocks`
vectors and whose filters fill `panels`. A task takes some output rows of one image and some units. It first brings
the input rows that they need into `scratch` (slots, numbers), as blocks of one vector of channels per pixel, padding
included, whatever the layout of `x`; tables say where each pixel goes. Then the tile of `grouped_tiles` runs over
every panel of filters. A channels-last `out` is stored from registers, unless pixels that are far apart come one after
the other (gradient of x with a stride); otherwise results are collected in `results` (slots, numbers) first. Each task
writes its own rows and channels of `out`, which may be uninitialised, as may scratch memory.

The gradient of x is the same sum over dout, by one launch with a phase per remainder of rows and columns modulo the
stride. The gradient of w has tasks of units and shares of the rows; each writes its own part of `partial`.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.grouped_packing import pack_rows
from fastconv._kernels.grouped_tiles import BIAS, RELU
from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class Work(NamedTuple):
    """The tasks of a launch and where their results go."""

    images: int
    rows: int  # output rows of an image, and those of one task
    band: int
    units: int
    share: int  # units of one task
    filters: int
    unit_filters: int
    panels: int
    lanes: int
    w_panel: int
    out_step: int  # the rows of a phase are this far apart
    out_image: int
    out_row: int
    out_pixel: int
    out_filter: int  # 1: channels-last
    cols: int
    collected: int  # numbers of a panel's results: from one to the next in `results`; 0 stores straight into `out`
    relu: int


class Shares(NamedTuple):
    """The tasks of a gradient of w."""

    images: int
    rows: int
    band: int
    units: int
    share: int
    panels: int
    w_panel: int
    splits: int


@helper
def _store(unpack, collected, out, image, first, count, unit, units, g):
    """The results of some units and rows -> `out`; `unpack` is `transpose_block` or `unpack_pixels`."""
    item = out.itemsize
    row = image * g.out_image + first * g.out_row
    if g.out_filter == 1:
        step = units if g.unit_filters % g.lanes == 0 else 1
        for at in range(unit, unit + units, step):
            f = at * g.unit_filters
            filters = min(step * g.unit_filters, g.filters - f)
            source = address_of(collected) + (at - unit) * g.panels * g.collected * item
            target = address_of(out) + (row + f) * item
            call_address(unpack, (target, g.out_pixel, source, g.collected, count * g.cols, filters))
    else:
        for panel in range(unit * g.panels, (unit + units) * g.panels):
            within = panel % g.panels * g.lanes
            f = panel // g.panels * g.unit_filters + within
            lanes = min(g.lanes, g.unit_filters - within, g.filters - f)
            source = address_of(collected) + (panel - unit * g.panels) * g.collected * item
            target = address_of(out) + (row + f * g.out_filter) * item
            call_address(unpack, (target, g.out_filter, source, g.lanes, count * g.cols, lanes))


@Kernel
def correlate(slot, slots, counters, pack, unpack, x, places, w, bias, out, sizes, entries, phases, scratch, results,
               packing, g):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    own, collected = scratch[slot], results[slot]
    own[:] = 0
    bands = (g.rows + g.band - 1) // g.band
    bundles = (g.units + g.share - 1) // g.share
    flags = g.relu * RELU
    if bias.size > 0:
        flags |= BIAS
    tasks = g.images * bands * bundles
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        unit = task % bundles * g.share
        units = min(g.share, g.units - unit)
        first = task // bundles % bands * g.band
        count = min(g.band, g.rows - first)
        image = task // (bundles * bands)
        pack_rows(pack, x, places, own, image, first // g.out_step * packing.step - packing.above, unit, units, packing)
        for panel in range(unit * g.panels, (unit + units) * g.panels):
            at = panel // g.panels
            within = panel % g.panels * g.lanes
            f = at * g.unit_filters + within
            lanes = min(g.lanes, g.unit_filters - within, g.filters - f)
            target = address_of(out) + (image * g.out_image + first * g.out_row + f * g.out_filter) * item
            if g.collected > 0:
                target = address_of(collected) + (panel - unit * g.panels) * g.collected * item
            source = address_of(own) + (at - unit) * packing.blocks * packing.block * item
            for i in range(len(phases)):
                tile, entry, row, start = phases[i, 0], phases[i, 1], phases[i, 2], phases[i, 3]
                call_address(
                    tile,
                    (
                        address_of(sizes[i]),
                        address_of(entries) + 8 * entry,
                        source,
                        address_of(w) + panel * g.w_panel * item,
                        target + start * item,
                        address_of(bias) + f * item,
                        (count - row + g.out_step - 1) // g.out_step,
                        lanes,
                        flags,
                    ),
                )
        if g.collected > 0:
            _store(unpack, collected, out, image, first, count, unit, units, g)


@Kernel
def gradient(slot, slots, counters, pack, tile, x, x_places, dout, dout_places, partial, sizes, entries, x_scratch,
              dout_scratch, x_packing, dout_packing, g):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    own_x, own_dout = x_scratch[slot], dout_scratch[slot]
    own_x[:] = 0
    bands = (g.rows + g.band - 1) // g.band
    bundles = (g.units + g.share - 1) // g.share
    pieces = g.images * bands
    tasks = g.splits * bundles
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        unit = task % bundles * g.share
        units = min(g.share, g.units - unit)
        split = task // bundles
        partial[split, unit * g.panels * g.w_panel : (unit + units) * g.panels * g.w_panel] = 0
        for piece in range(split * pieces // g.splits, (split + 1) * pieces // g.splits):
            image = piece // bands
            first = (piece - image * bands) * g.band
            row = first * x_packing.step - x_packing.above
            pack_rows(pack, x, x_places, own_x, image, row, unit, units, x_packing)
            pack_rows(pack, dout, dout_places, own_dout, image, first, unit, units, dout_packing)
            for panel in range(unit * g.panels, (unit + units) * g.panels):
                at = panel // g.panels - unit
                call_address(
                    tile,
                    (
                        address_of(sizes),
                        address_of(entries),
                        address_of(own_x) + at * x_packing.blocks * x_packing.block * item,
                        address_of(own_dout) + (panel - unit * g.panels) * dout_packing.block * item,
                        address_of(partial[split]) + panel * g.w_panel * item,
                        min(g.band, g.rows - first),
                    ),
                )


@Kernel
def unpack(slot, slots, block, transposed, partial, dw, drow, srow, panels, unit_filters, filters):
    """partial (panels of all units, depth or more, lanes) -> dw.

    Row srow[r] of filter f becomes dw[drow[r] + f], transposed dw[f * depth + r]. `block` is `copy_block` or
    `transpose_rows`.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    item = dw.itemsize
    count, _, lanes = partial.shape
    depth = drow.size
    for panel in range(slot * count // slots, (slot + 1) * count // slots):
        within = panel % panels * lanes
        f = panel // panels * unit_filters + within
        width = min(lanes, unit_filters - within, filters - f)
        source = address_of(partial[panel])
        if transposed:
            call_address(block, (address_of(dw) + f * depth * item, depth, source, address_of(srow), depth, width))
        else:
            call_address(
                block, (address_of(dw) + f * item, address_of(drow), source, address_of(srow), depth, width, 1)
            )
