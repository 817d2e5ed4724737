"""Padding by any rule: tables say which input row and column each padded cell comes from, or none."""

from __future__ import annotations

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit


@jit
def _pad(slot, slots, x, out, row_from, col_from, inner, value):
    """x (P, H, W) -> out (P, Hp, Wp); tasks are padded rows of all planes.

    Row i comes from x row row_from[i], column j from x column col_from[j]; -1 gives `value`. Columns from inner[0] to
    inner[1] are a plain copy. With channels-last data, planes are images and columns are (w, c).
    """
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


@jit(parallel=True)
def _pad_parallel(slots, x, out, row_from, col_from, inner, value):
    for slot in prange(slots):
        _pad(intp(slot), slots, x, out, row_from, col_from, inner, value)


pad = Kernel(_pad, _pad_parallel)


@jit
def _fold(slot, slots, dout, dx, row_from, col_from, inner):
    """The transpose of `_pad`: every padded cell's gradient is added to where the cell came from; tasks are planes."""
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


@jit(parallel=True)
def _fold_parallel(slots, dout, dx, row_from, col_from, inner):
    for slot in prange(slots):
        _fold(intp(slot), slots, dout, dx, row_from, col_from, inner)


fold = Kernel(_fold, _fold_parallel)
