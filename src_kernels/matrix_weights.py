"""Weights as tiles of the matrix unit: panels of filters, cut into parts, depth step by step."""

from __future__ import annotations

from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.matrix_tile import SIDE
from fastconv._kernels.simd import address_of, call_address


@Kernel
def cut_panels(slot, slots, cut, panels, rows, out, filters, depth, right, part, tile):
    """Panels (panel, depth, filter) of floats -> out (panel, step, part, tile, pair of rows, filter, two), in bytes.

    Step s multiplies the rows rows[s * depth], rows[s * depth] + 1, ... (offsets in a panel; below 0: zeros).
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    count, width = panels.shape[0], right * SIDE
    steps = rows.size // depth
    step_bytes = out.shape[1] // steps
    tasks = count * steps
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        panel, step = task // steps, task % steps
        for j in range(right):
            lanes = min(SIDE, filters - panel * width - j * SIDE)
            call_address(
                cut,
                (
                    address_of(out[panel]) + step * step_bytes + j * tile, part, address_of(panels[panel]) + j * SIDE * 4,
                    address_of(rows) + step * depth * 8, depth // 2, max(lanes, 0),
                ),
            )  # fmt: skip
