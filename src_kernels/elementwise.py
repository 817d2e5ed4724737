"""Elementwise passes that a convolution needs beside itself."""

from __future__ import annotations

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit


@jit
def _relu_mask(slot, slots, dout, out, masked):
    """masked = dout where out > 0, else 0; all flat. Where out is NaN the gradient passes, as ReLU passed the NaN."""
    begin, end = slot * dout.size // slots, (slot + 1) * dout.size // slots
    source, result, target = dout[begin:end], out[begin:end], masked[begin:end]
    for i in range(source.size):
        target[i] = 0 if result[i] <= 0 else source[i]


@jit(parallel=True)
def _relu_mask_parallel(slots, dout, out, masked):
    for slot in prange(slots):
        _relu_mask(intp(slot), slots, dout, out, masked)


relu_mask = Kernel(_relu_mask, _relu_mask_parallel)
