"""Pooling of any windows along the columns of a plane: what `pool_rows` has no vector code for.

Each output row is a reduction of whole input rows, then of the columns inside the resulting row. All arrays are
C-contiguous. Images are (planes, rows, columns), planes are (n, c). Windows come as tables (see
`fastconv.pooling.windows`), so kernels know neither padding nor dilation: `cells[starts[o] : starts[o + 1]]` are the
rows that row o is made of, and each of `runs` (tap, target, source, length) says that columns target, target + 1, ...
have columns source, source + 1, ... in their windows, where columns are counted phase by phase if windows are `step` >
1 apart. Only cells inside the image are listed.

Tasks are output rows, or planes where gradients are scattered, so no two threads write the same cell; outputs may be
uninitialised. Loops read all operands before they choose: only then does LLVM vectorise the choice.
"""

from __future__ import annotations

import numpy as np

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, allocating_kernel, on_every_slot

_NO_CODE = 2**31 - 1  # larger than the code of any cell


@helper
def _split(row, phases, step):
    """row[q * step + p] -> phases[p * ceil(size / step) + q]: columns that are `step` apart become neighbours."""
    length = (row.size + step - 1) // step
    if step == 2:  # a constant distance is vectorised
        even, odd = phases[:length], phases[length:]
        for q in range(row.size - length):
            even[q] = row[2 * q]
            odd[q] = row[2 * q + 1]
        even[length - 1] = row[2 * length - 2]
        return
    for p in range(min(step, row.size)):
        phase, part = phases[p * length : (p + 1) * length], row[p:]
        for q in range((part.size + step - 1) // step):
            phase[q] = part[q * step]


@helper
def _join(phases, row, step):
    """The inverse of `_split`."""
    length = (row.size + step - 1) // step
    if step == 2:
        even, odd = phases[:length], phases[length:]
        for q in range(row.size - length):
            row[2 * q] = even[q]
            row[2 * q + 1] = odd[q]
        row[2 * length - 2] = even[length - 1]
        return
    for p in range(min(step, row.size)):
        phase, part = phases[p * length : (p + 1) * length], row[p:]
        for q in range((part.size + step - 1) // step):
            part[q * step] = phase[q]


@allocating_kernel
def largest(slot, slots, x, out, starts, cells, taps, runs, step):
    """x (P, H, W) -> out (P, OH, OW): the largest number of each window, NaN if it has one."""
    if slot < 0:
        return on_every_slot(slot, slots)
    lines = np.empty((2, (x.shape[2] + step - 1) // step * step), x.dtype)
    _largest(slot, slots, x, out, starts, cells, runs, step, lines)


@helper
def _largest(slot, slots, x, out, starts, cells, runs, step, lines):
    planes, _, width = x.shape
    rows = out.shape[1]
    tasks = planes * rows
    value = lines[0, :width]
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        plane = task // rows
        o = task - plane * rows
        begin, end = starts[o], starts[o + 1]
        first, second = x[plane, cells[begin]], x[plane, cells[min(begin + 1, end - 1)]]
        for i in range(value.size):
            new, old = second[i], first[i]
            value[i] = old if (new <= old) | (old != old) else new
        for q in range(begin + 2, end):
            row = x[plane, cells[q]]
            for i in range(value.size):
                new, old = row[i], value[i]
                value[i] = old if (new <= old) | (old != old) else new
        if step > 1:
            _split(value, lines[1], step)
        best = out[plane, o]
        best[:] = -np.inf
        for r in range(runs.shape[0]):
            target, source, length = runs[r, 1], runs[r, 2], runs[r, 3]
            b, v = best[target : target + length], lines[min(step - 1, 1), source : source + length]
            for i in range(b.size):
                new, old = v[i], b[i]
                b[i] = old if (new <= old) | (old != old) else new


@allocating_kernel
def first_largest(slot, slots, x, out, mask, starts, cells, taps, runs, step):
    """The same, and into mask (P, OH, OW) the code of each window's first maximum: the tap of its row plus its run's.

    Rows are met in order, so a later one must be larger to win; columns are not, so among equal values the lower code
    wins. NaN is larger than every number and equal to itself.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    lines = np.empty((2, (x.shape[2] + step - 1) // step * step), x.dtype)
    codes, best_code = np.empty(lines.shape, np.int32), np.empty(out.shape[2], np.int32)
    _first_largest(slot, slots, x, out, mask, starts, cells, taps, runs, step, lines, codes, best_code)


@helper
def _first_largest(slot, slots, x, out, mask, starts, cells, taps, runs, step, lines, codes, best_code):
    planes, _, width = x.shape
    rows = out.shape[1]
    tasks = planes * rows
    value, code = lines[0, :width], codes[0, :width]
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        plane = task // rows
        o = task - plane * rows
        begin, end = starts[o], starts[o + 1]
        next_row = min(begin + 1, end - 1)
        first, second = x[plane, cells[begin]], x[plane, cells[next_row]]
        first_tap, tap = np.int32(taps[begin]), np.int32(taps[next_row])
        for i in range(value.size):
            new, old = second[i], first[i]
            stays = (new <= old) | (old != old)
            value[i] = old if stays else new
            code[i] = first_tap if stays else tap
        for q in range(begin + 2, end):
            row, tap = x[plane, cells[q]], np.int32(taps[q])
            for i in range(value.size):
                new, old, old_code = row[i], value[i], code[i]
                stays = (new <= old) | (old != old)
                value[i] = old if stays else new
                code[i] = old_code if stays else tap
        if step > 1:
            _split(value, lines[1], step)
            _split(code, codes[1], step)
        best, narrow = out[plane, o], mask[plane, o]
        best[:] = -np.inf
        best_code[:] = _NO_CODE
        for r in range(runs.shape[0]):
            tap, target, source, length = np.int32(runs[r, 0]), runs[r, 1], runs[r, 2], runs[r, 3]
            b, v = best[target : target + length], lines[min(step - 1, 1), source : source + length]
            c, k = best_code[target : target + length], codes[min(step - 1, 1), source : source + length]
            for i in range(b.size):
                new, old, new_code, old_code = v[i], b[i], np.int32(k[i] + tap), c[i]
                earlier = new_code < old_code
                wins = (new > old) | ((new == old) & earlier) | ((new != new) & ((old == old) | earlier))
                b[i] = new if wins else old
                c[i] = new_code if wins else old_code
        for i in range(narrow.size):
            narrow[i] = best_code[i]


@Kernel
def scatter(slot, slots, dout, mask, dx, row_base, col_base, offset):
    """dout, mask (P, OH, OW) -> dx (P, H * W): each gradient is added to the cell that its code names.

    The cell lies at row_base[oh] + col_base[ow] + offset[code] of the plane. Tasks are planes.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, rows, _ = dout.shape
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        cell = dx[plane]
        cell[:] = 0
        for oh in range(rows):
            gradient, code = dout[plane, oh], mask[plane, oh]
            for i in range(gradient.size):
                cell[np.uintp(row_base[oh] + col_base[i] + offset[code[i]])] += gradient[i]


@allocating_kernel
def sum_windows(slot, slots, x, out, starts, cells, runs, step, row_divisor, col_divisor):
    """x (P, H, W) -> out (P, OH, OW): window sums over row_divisor[oh] * col_divisor[ow]."""
    if slot < 0:
        return on_every_slot(slot, slots)
    lines = np.empty((2, (x.shape[2] + step - 1) // step * step), x.dtype)
    _sum_windows(slot, slots, x, out, starts, cells, runs, step, row_divisor, col_divisor, lines)


@helper
def _sum_windows(slot, slots, x, out, starts, cells, runs, step, row_divisor, col_divisor, lines):
    planes, _, width = x.shape
    rows = out.shape[1]
    tasks = planes * rows
    total = lines[0, :width]
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        plane = task // rows
        o = task - plane * rows
        row = x[plane, cells[starts[o]]]
        for i in range(total.size):
            total[i] = row[i]
        for q in range(starts[o] + 1, starts[o + 1]):
            row = x[plane, cells[q]]
            for i in range(total.size):
                total[i] += row[i]
        if step > 1:
            _split(total, lines[1], step)
        result = out[plane, o]
        result[:] = 0
        for r in range(runs.shape[0]):
            target, source, length = runs[r, 1], runs[r, 2], runs[r, 3]
            t, s = result[target : target + length], lines[min(step - 1, 1), source : source + length]
            for i in range(t.size):
                t[i] += s[i]
        divisor = row_divisor[o]
        for i in range(result.size):
            result[i] /= divisor * col_divisor[i]


@allocating_kernel
def spread(slot, slots, dout, dx, starts, covering, runs, step, row_factor, col_factor):
    """The transpose of `sum_windows`, times row_factor[oh] * col_factor[ow]: dout (P, OH, OW) -> dx (P, H, W).

    `covering[starts[h] : starts[h + 1]]` are the output rows whose windows contain row h of dx.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    total = np.empty(dout.shape[2], dout.dtype)
    phases = np.empty((dx.shape[2] + step - 1) // step * step if step > 1 else 0, dx.dtype)
    _spread(slot, slots, dout, dx, starts, covering, runs, step, row_factor, col_factor, total, phases)


@helper
def _spread(slot, slots, dout, dx, starts, covering, runs, step, row_factor, col_factor, total, phases):
    planes = dout.shape[0]
    rows = dx.shape[1]
    tasks = planes * rows
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        plane = task // rows
        h = task - plane * rows
        result = dx[plane, h]
        if starts[h] == starts[h + 1]:
            result[:] = 0
            continue
        total[:] = 0
        for q in range(starts[h], starts[h + 1]):
            row, factor = dout[plane, covering[q]], row_factor[covering[q]]
            for i in range(total.size):
                total[i] += row[i] * (factor * col_factor[i])
        target = phases if step > 1 else result
        target[:] = 0
        for r in range(runs.shape[0]):
            first, source, length = runs[r, 1], runs[r, 2], runs[r, 3]
            t, s = total[first : first + length], target[source : source + length]
            for i in range(t.size):
                s[i] += t[i]
        if step > 1:
            _join(phases, result, step)
