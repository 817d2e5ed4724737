"""Padding by any rule: tables say which input row and column each padded cell comes from, or none."""

from __future__ import annotations

from fastconv._kernels.launch import Kernel, on_every_slot


@Kernel
def pad(slot, slots, x, out, row_from, col_from, inner, value):
    """x (P, H, W) -> out (P, Hp, Wp); tasks are padded rows of all planes.

    Row i comes from x row row_from[i], column j from x column col_from[j]; -1 gives `value`. Columns from inner[0] to
    inner[1] are a plain copy. With channels-last data, planes are images and columns are (w, c).
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    rows, cols = out.shape[1], out.shape[2]
    tasks = out.shape[0] * rows
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        plane = task // rows
        i = task - plane * rows
        target = out[plane, i]
        if row_from[i] < 0:
            target[:] = value
            continue
        source = x[plane, row_from[i]]
        for j in range(inner[0]):
            target[j] = source[col_from[j]] if col_from[j] >= 0 else value
        middle = target[inner[0] : inner[1]]
        for j in range(middle.size):
            middle[j] = source[j]
        for j in range(inner[1], cols):
            target[j] = source[col_from[j]] if col_from[j] >= 0 else value


@Kernel
def fold(slot, slots, dout, dx, row_from, col_from, inner):
    """The transpose of `pad`: every padded cell's gradient is added to where the cell came from; tasks are planes."""
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, rows, cols = dout.shape
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        dx[plane] = 0
        for i in range(rows):
            if row_from[i] < 0:
                continue
            source, target = dout[plane, i], dx[plane, row_from[i]]
            for j in range(inner[0]):
                if col_from[j] >= 0:
                    target[col_from[j]] += source[j]
            middle = source[inner[0] : inner[1]]
            for j in range(middle.size):
                target[j] += middle[j]
            for j in range(inner[1], cols):
                if col_from[j] >= 0:
                    target[col_from[j]] += source[j]
