"""Activations and their derivatives one number at a time, in float64; imports nothing of the library."""

from __future__ import annotations

import math

import numpy as np


def normal_density(v):
    return math.exp(-v * v / 2) / math.sqrt(2 * math.pi)


def normal_below(v):
    return math.erfc(-v / math.sqrt(2)) / 2


def bend(v):
    return math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))


def bend_slope(v):
    return (1 - bend(v) ** 2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * v * v)


# name -> (function, derivative)
SCALAR = {
    "relu": (lambda v: v if v > 0 else 0.0, lambda v: 1.0 if v > 0 else 0.0),
    "leaky_relu": (lambda v: v if v > 0 else 0.01 * v, lambda v: 1.0 if v > 0 else 0.01),
    "sigmoid": (lambda v: 1 / (1 + math.exp(-v)), lambda v: 1 / (2 + math.exp(v) + math.exp(-v))),
    "tanh": (math.tanh, lambda v: 1 / math.cosh(v) ** 2),
    "gelu": (lambda v: v * normal_below(v), lambda v: normal_below(v) + v * normal_density(v)),
    "gelu tanh": (lambda v: v * (1 + bend(v)) / 2, lambda v: (1 + bend(v) + v * bend_slope(v)) / 2),
}


def apply(function, x):
    return np.array([function(float(v)) for v in np.asarray(x).ravel()]).reshape(np.shape(x))


def softmax(x, axis):
    """exp(x) / sum of exp(x), without any shift."""
    if not np.size(x):
        return np.zeros(np.shape(x))
    return np.apply_along_axis(lambda row: [math.exp(v) / math.fsum(map(math.exp, row)) for v in row], axis, x)


def softmax_gradient(x, dout, axis):
    """The whole Jacobian diag(p) - p p' times dout."""
    p, dout = np.moveaxis(softmax(x, axis), axis, -1), np.moveaxis(np.asarray(dout, np.float64), axis, -1)
    dx = np.empty_like(p)
    for place in np.ndindex(p.shape[:-1]):
        dx[place] = (np.diag(p[place]) - np.outer(p[place], p[place])) @ dout[place]
    return np.moveaxis(dx, -1, axis)
