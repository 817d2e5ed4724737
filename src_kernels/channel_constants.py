"""Batch normalisation between its two passes: what the parts of a channel add up to, and the numbers of the affine map.

All of it is work on a few numbers per channel. In NumPy it took 25 us of calls, more than the passes over 64x16x12x12.
Statistics are float64; `constants` are rows of numbers in the array's own precision, one per channel or, with rows
that are several pixels long, repeated.
"""

from __future__ import annotations

import numpy as np

from fastconv._kernels.jit import jit


@jit
def merge_moments(means, squares, counts, mean, var):
    """Parts (E, C) with counts (E,) -> mean and biased variance (C,).

    T. F. Chan, G. H. Golub & R. J. LeVeque, "Algorithms for computing the sample variance", 1983.
    """
    total = counts.sum()
    for c in range(mean.size):
        mean[c] = 0
        var[c] = 0
    for e in range(counts.size):
        share = counts[e] / total
        for c in range(mean.size):
            mean[c] += means[e, c] * share
    for e in range(counts.size):
        for c in range(mean.size):
            distance = means[e, c] - mean[c]
            var[c] += squares[e, c] / total + distance * distance * (counts[e] / total)


@jit
def affine_constants(mean, var, eps, gamma, beta, inv_std, constants):
    """-> inv_std (C,), constants (3, repeats * C): mean, scale and shift of out = (x - mean) * scale + shift.

    The kernel subtracts the mean rounded to x's dtype; what rounding cost goes into the shift: with mean 1e4 and
    deviation 1 the error in float32 was 2.5e-2, and is now 6e-8.
    """
    channels = mean.size
    for c in range(channels):
        inv_std[c] = 1 / np.sqrt(var[c] + eps)
        scale = inv_std[c] * gamma[c]
        rounded = constants.dtype.type(mean[c])
        shift = beta[c] - (mean[c] - np.float64(rounded)) * scale
        for i in range(c, constants.shape[1], channels):
            constants[0, i] = rounded
            constants[1, i] = scale
            constants[2, i] = shift


@jit
def gradient_constants(plain, weighted, count, mean, inv_std, gamma, constants, dgamma, dbeta):
    """Parts (E, C) of the sums of dout and dout * (x - rounded mean) -> dgamma, dbeta (C,), constants (4, repeats * C).

    The constants are the mean, scale, mean of dout and slope of dx = (dout - dout_mean) * scale - (x - mean) * slope.
    """
    channels = mean.size
    for c in range(channels):
        dbeta[c] = 0
        dgamma[c] = 0
    for e in range(plain.shape[0]):
        for c in range(channels):
            dbeta[c] += plain[e, c]
            dgamma[c] += weighted[e, c]
    for c in range(channels):
        rounded = constants.dtype.type(mean[c])
        along = dgamma[c] - dbeta[c] * (mean[c] - np.float64(rounded))
        dgamma[c] = along * inv_std[c]
        scale = gamma[c] * inv_std[c]
        for i in range(c, constants.shape[1], channels):
            constants[0, i] = rounded
            constants[1, i] = scale
            constants[2, i] = dbeta[c] / count
            constants[3, i] = scale * inv_std[c] * inv_std[c] * along / count
