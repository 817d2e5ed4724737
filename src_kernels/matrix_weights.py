"""Weights as tiles of the matrix unit: panels of filters, cut into parts, depth step by step."""

from __future__ import annotations

from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.matrix_tile import SIDE
from fastconv._kernels.simd import address_of, call_address


@Kernel
def cut_panels(slot, slots, cut, w, groups, group, panel, rows, out, filters, depth, right, part, tile):
    """Rows of floats -> out (group, panel, step, part, tile, pair of rows, filter, two), in bytes.

    Step s multiplies rows rows[s * depth], rows[s * depth] + 1, ... of a panel (offsets in w; below 0: zeros); from one
    panel to the next it is `panel` numbers, from one group to the next `group`.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    steps = rows.size // depth
    step_bytes = out.shape[1] // steps
    tasks = out.shape[0] * steps
    item, panels = w.itemsize, out.shape[0] // groups
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        number, step = task % out.shape[0], task // out.shape[0]
        first = number % panels
        for j in range(right):
            lanes = max(min(SIDE, filters - (first * right + j) * SIDE), 0)
            target = address_of(out) + number * out.shape[1] + step * step_bytes + j * tile
            source = address_of(w) + (number // panels * group + first * panel + j * SIDE) * item
            call_address(cut, (target, part, source, address_of(rows) + step * depth * 8, depth // 2, lanes))
