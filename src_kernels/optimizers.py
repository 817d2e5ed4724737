"""Optimizer steps: each updates a flat parameter and its state in place, in one pass and in the parameter's dtype.

Contract: all arrays flat, of one size and dtype, none overlapping; slots take equal shares of them. The formulas are in
`fastconv.nn.optim`; `penalty` is added to the gradient times the value, `shrink` scales the value first.
"""

from __future__ import annotations

import math

from fastconv._kernels.launch import Kernel, on_every_slot


@Kernel
def sgd(slot, slots, value, grad, velocity, lr, momentum, nesterov, penalty, shrink):
    if slot < 0:
        return on_every_slot(slot, slots)
    begin, end = slot * value.size // slots, (slot + 1) * value.size // slots
    w, g, v = value[begin:end], grad[begin:end], velocity[begin:end]
    real = value.dtype.type
    rate, keep, decay, scale = real(lr), real(momentum), real(penalty), real(shrink)
    if momentum == 0:
        for i in range(w.size):
            w[i] = scale * w[i] - rate * (g[i] + decay * w[i])
        return
    ahead, now = (keep, real(1)) if nesterov else (real(1), real(0))
    for i in range(w.size):
        direction = g[i] + decay * w[i]
        v[i] = keep * v[i] + direction
        w[i] = scale * w[i] - rate * (ahead * v[i] + now * direction)


@Kernel
def rmsprop(slot, slots, value, grad, square, lr, alpha, eps, penalty, shrink):
    if slot < 0:
        return on_every_slot(slot, slots)
    begin, end = slot * value.size // slots, (slot + 1) * value.size // slots
    w, g, s = value[begin:end], grad[begin:end], square[begin:end]
    real = value.dtype.type
    rate, keep, take, least = real(lr), real(alpha), real(1 - alpha), real(eps)
    decay, scale = real(penalty), real(shrink)
    for i in range(w.size):
        direction = g[i] + decay * w[i]
        s[i] = keep * s[i] + take * direction * direction
        w[i] = scale * w[i] - rate * (direction / (math.sqrt(s[i]) + least))


@Kernel
def adam(slot, slots, value, grad, mean, square, lr, first, second, eps, root_correction, penalty, shrink):
    """`lr` and `root_correction` hold the corrections of both moments."""
    if slot < 0:
        return on_every_slot(slot, slots)
    begin, end = slot * value.size // slots, (slot + 1) * value.size // slots
    w, g, m, s = value[begin:end], grad[begin:end], mean[begin:end], square[begin:end]
    real = value.dtype.type
    rate, keep_m, take_m, keep_s, take_s = real(lr), real(first), real(1 - first), real(second), real(1 - second)
    least, decay, scale, root = real(eps), real(penalty), real(shrink), real(root_correction)
    for i in range(w.size):
        direction = g[i] + decay * w[i]
        m[i] = keep_m * m[i] + take_m * direction
        s[i] = keep_s * s[i] + take_s * direction * direction
        w[i] = scale * w[i] - rate * (m[i] / (math.sqrt(s[i]) * root + least))
