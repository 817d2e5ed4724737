"""Weights in the order in which the register tile reads them: panels of filters, depth step by step."""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class Packing(NamedTuple):
    """Where the weights of one group lie; strides count numbers.

    Depth step (batch, row) of filter f is w[batch * batch_stride + row * stride + f]; transposed, where a filter's
    rows lie side by side, w[batch * batch_stride + f * stride + row].
    """

    transposed: int
    filters: int
    group_stride: int
    batches: int
    batch_stride: int
    batch_place: int  # the same in a panel
    rows: int
    stride: int


@helper
def pack_rows(block, w, drow, srow, group, panel, batch, target, tile_cols, g):
    """One batch of the depth steps of a panel that begins at address `target`; columns past the last filter stay.

    `block` is the address of `transpose_to_rows` or of `copy_block`; `drow` and `srow` are the offsets of a batch's
    rows in the panel and in w.
    """
    item = w.itemsize
    target += batch * g.batch_place * item
    f = panel * tile_cols
    width = min(tile_cols, g.filters - f)
    source = address_of(w) + (group * g.group_stride + batch * g.batch_stride) * item
    if g.transposed:
        call_address(block, (target, address_of(drow), source + f * g.stride * item, g.stride, width, g.rows))
    else:
        call_address(block, (target, address_of(drow), source + f * item, address_of(srow), g.rows, width, 1))


@Kernel
def pack_panels(slot, slots, block, w, out, drow, srow, to_panels, from_panels, groups, together, g):
    """Weights -> out (groups / together, panels, depth = batches * rows, tile_cols).

    The filters of `together` neighbouring groups lie side by side in one panel; more than one need a single panel.
    Tasks are batches of a panel; or, of weights that are not transposed, batches whose rows are read from end to end
    and shared out among the panels, whose offsets in `out` and in a row are the last two tables.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    panels, depth, tile_cols = out.shape[1:]
    item = w.itemsize
    tasks = groups * g.batches * (panels if g.transposed else 1)
    whole = g.filters // tile_cols
    rest = g.filters - whole * tile_cols
    to_places, from_places = address_of(to_panels), address_of(from_panels)
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        if g.transposed:
            panel = task % panels
            batch = task // panels % g.batches
            group = task // (g.batches * panels)
            place = (group // together * panels + panel) * depth * tile_cols + group % together * g.filters
            pack_rows(block, w, drow, srow, group, panel, batch, address_of(out) + place * item, tile_cols, g)
            continue
        batch, group = task % g.batches, task // g.batches
        place = group // together * panels * depth * tile_cols + group % together * g.filters + batch * g.batch_place
        start = group * g.group_stride + batch * g.batch_stride
        for row in range(g.rows):
            target = address_of(out) + (place + drow[row]) * item
            source = address_of(w) + (start + srow[row]) * item
            call_address(block, (target, to_places, source, from_places, whole, tile_cols, 1))
            if rest:
                call_address(block, (target, to_places + 8 * whole, source, from_places + 8 * whole, 1, rest, 1))
