"""Elementwise passes: what a convolution needs beside itself, and ReLU."""

from __future__ import annotations

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, on_every_slot


@helper
def mask(dout, out, masked):
    """masked = dout where out > 0, else 0; all flat. Where out is NaN the gradient passes, as ReLU passed the NaN."""
    for i in range(dout.size):
        masked[i] = 0 if out[i] <= 0 else dout[i]


@Kernel
def relu_mask(slot, slots, dout, out, masked):
    if slot < 0:
        return on_every_slot(slot, slots)
    begin, end = slot * dout.size // slots, (slot + 1) * dout.size // slots
    mask(dout[begin:end], out[begin:end], masked[begin:end])


@Kernel
def relu(slot, slots, x, out):
    """out = max(x, 0), NaN where x is NaN; both flat."""
    if slot < 0:
        return on_every_slot(slot, slots)
    begin, end = slot * x.size // slots, (slot + 1) * x.size // slots
    source, target = x[begin:end], out[begin:end]
    for i in range(source.size):
        target[i] = 0 if source[i] <= 0 else source[i]


@Kernel
def add_per_row(slot, slots, table, numbers):
    """table[r] += numbers[r % numbers.size]; tasks are rows."""
    if slot < 0:
        return on_every_slot(slot, slots)
    rows = len(table)
    for row in range(slot * rows // slots, (slot + 1) * rows // slots):
        target, number = table[row], numbers[row % numbers.size]
        for j in range(target.size):
            target[j] += number


@Kernel
def add_per_column(slot, slots, table, numbers):
    """table[r] += numbers, all of them; tasks are rows."""
    if slot < 0:
        return on_every_slot(slot, slots)
    rows = len(table)
    for row in range(slot * rows // slots, (slot + 1) * rows // slots):
        target = table[row]
        for j in range(target.size):
            target[j] += numbers[j]
