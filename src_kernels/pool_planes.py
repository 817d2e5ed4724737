"""Averages of whole planes, (n, c) after (n, c): one sum, or one number in every cell, per plane.

x and dx are (P, L), out and dout (P,), factors the row's and the column's. Tasks are planes; results may be
uninitialised.
"""

from __future__ import annotations

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit


@jit
def _mean_of_planes(slot, slots, x, out, factors):
    """out = the sum of each plane over the product of the factors."""
    planes = out.size
    divisor = factors[0] * factors[1]
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        source = x[plane]
        total = x.dtype.type(0)
        for i in range(source.size):
            total += source[i]
        out[plane] = total / divisor


@jit(parallel=True)
def _mean_of_planes_parallel(slots, x, out, factors):
    for slot in prange(slots):
        _mean_of_planes(intp(slot), slots, x, out, factors)


mean_of_planes = Kernel(_mean_of_planes, _mean_of_planes_parallel)


@jit
def _spread_over_planes(slot, slots, dout, dx, factors):
    """dx = each plane's dout times the product of the factors, in every cell."""
    planes = dout.size
    factor = factors[0] * factors[1]
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        target, share = dx[plane], dout[plane] * factor
        for i in range(target.size):
            target[i] = share


@jit(parallel=True)
def _spread_over_planes_parallel(slots, dout, dx, factors):
    for slot in prange(slots):
        _spread_over_planes(intp(slot), slots, dout, dx, factors)


spread_over_planes = Kernel(_spread_over_planes, _spread_over_planes_parallel)
