"""Normalisation over sets of numbers that share their statistics, in float64; imports nothing of the library.

Which sets these are makes the difference: `channels` for batch, `examples` for layer, `channel_groups` for group
normalisation. Arrays are channels-first; gamma and beta are given elementwise, in x's shape.
"""

from __future__ import annotations

import math

import numpy as np


def channels(shape):
    return [(slice(None), c) for c in range(shape[1])]


def examples(shape, leading=1):
    return list(np.ndindex(*shape[:leading]))


def channel_groups(shape, groups):
    size = shape[1] // groups
    return [(n, slice(g * size, (g + 1) * size)) for n in range(shape[0]) for g in range(groups)]


def float64(numbers):
    return np.asarray(numbers, np.float64)


def statistics(x, sets):
    """(mean, biased variance) of each set."""
    numbers = [float64(x)[s].ravel() for s in sets]
    means = [math.fsum(v) / len(v) for v in numbers]
    return means, [math.fsum((v - m) ** 2) / len(v) for v, m in zip(numbers, means, strict=True)]


def forward(x, gamma, beta, sets, eps=1e-5, given=None):
    """gamma * (x - mean) / sqrt(var + eps) + beta; `given` replaces the sets' own (means, variances)."""
    x = float64(x)
    out = np.empty_like(x)
    for s, mean, var in zip(sets, *map(float64, given or statistics(x, sets)), strict=True):
        out[s] = (x[s] - mean) / np.sqrt(var + eps)
    return out * gamma + beta


def backward(x, gamma, dout, sets, eps=1e-5, given=None):
    """(dx, elementwise dgamma, elementwise dbeta), through mean and variance as in Ioffe & Szegedy 2015, section 3."""
    x, dout = float64(x), float64(dout)
    dxhat = dout * gamma
    dx, xhat = np.empty_like(x), np.empty_like(x)
    for s, mean, var in zip(sets, *map(float64, given or statistics(x, sets)), strict=True):
        centered, m, scale = x[s] - mean, x[s].size, 1 / np.sqrt(var + eps)
        xhat[s] = centered * scale
        dx[s] = dxhat[s] * scale
        if given is None:
            dvar = (dxhat[s] * centered).sum() * -0.5 * scale**3
            dmean = -(dxhat[s] * scale).sum() - 2 * dvar * centered.sum() / m
            dx[s] += dvar * 2 * centered / m + dmean / m
    return dx, dout * xhat, dout
