"""Elementwise passes: what a convolution needs beside itself, and ReLU."""

from __future__ import annotations

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit


@jit
def mask(dout, out, masked):
    """masked = dout where out > 0, else 0; all flat. Where out is NaN the gradient passes, as ReLU passed the NaN."""
    for i in range(dout.size):
        masked[i] = 0 if out[i] <= 0 else dout[i]


@jit
def _relu_mask(slot, slots, dout, out, masked):
    begin, end = slot * dout.size // slots, (slot + 1) * dout.size // slots
    mask(dout[begin:end], out[begin:end], masked[begin:end])


@jit(parallel=True)
def _relu_mask_parallel(slots, dout, out, masked):
    for slot in prange(slots):
        _relu_mask(intp(slot), slots, dout, out, masked)


relu_mask = Kernel(_relu_mask, _relu_mask_parallel)


@jit
def _relu(slot, slots, x, out):
    """out = max(x, 0), NaN where x is NaN; both flat."""
    begin, end = slot * x.size // slots, (slot + 1) * x.size // slots
    source, target = x[begin:end], out[begin:end]
    for i in range(source.size):
        target[i] = 0 if source[i] <= 0 else source[i]


@jit(parallel=True)
def _relu_parallel(slots, x, out):
    for slot in prange(slots):
        _relu(intp(slot), slots, x, out)


relu = Kernel(_relu, _relu_parallel)


@jit
def _add_per_row(slot, slots, table, numbers):
    """table[r] += numbers[r % numbers.size]; tasks are rows."""
    rows = len(table)
    for row in range(slot * rows // slots, (slot + 1) * rows // slots):
        target, number = table[row], numbers[row % numbers.size]
        for j in range(target.size):
            target[j] += number


@jit(parallel=True)
def _add_per_row_parallel(slots, table, numbers):
    for slot in prange(slots):
        _add_per_row(intp(slot), slots, table, numbers)


add_per_row = Kernel(_add_per_row, _add_per_row_parallel)


@jit
def _add_per_column(slot, slots, table, numbers):
    """table[r] += numbers, all of them; tasks are rows."""
    rows = len(table)
    for row in range(slot * rows // slots, (slot + 1) * rows // slots):
        target = table[row]
        for j in range(target.size):
            target[j] += numbers[j]


@jit(parallel=True)
def _add_per_column_parallel(slots, table, numbers):
    for slot in prange(slots):
        _add_per_column(intp(slot), slots, table, numbers)


add_per_column = Kernel(_add_per_column, _add_per_column_parallel)
