"""Convolution and transposed convolution along any number of axes from the definition: float64, channels first.

Every output is a sum over explicit index tuples; nothing is shared with the library, nor with the 2-D oracle's taps.
"""

from __future__ import annotations

import numpy as np


def pad(x: np.ndarray, pads, mode: str = "constant") -> np.ndarray:
    return np.pad(np.asarray(x, np.float64), [(0, 0), (0, 0), *pads], mode=mode)


def convolve(x, w, b=None, *, stride, pads, dilation, groups=1, mode="constant") -> np.ndarray:
    """out[n, f, o...] = b[f] + sum over c, k... of w[f, c, k...] * padded x[n, c, o * stride + k * dilation]."""
    padded, w = pad(x, pads, mode), np.asarray(w, np.float64)
    filters, channels, *kernel = w.shape
    counts = [
        len(range(0, length - gap * (taps - 1), step))
        for length, taps, step, gap in zip(padded.shape[2:], kernel, stride, dilation, strict=True)
    ]
    out = np.zeros((len(x), filters, *counts))
    for place in np.ndindex(*counts):
        for tap in np.ndindex(*kernel):
            cell = tuple(o * s + k * d for o, s, k, d in zip(place, stride, tap, dilation, strict=True))
            for f in range(filters):
                first = f // (filters // groups) * channels
                seen = padded[(slice(None), slice(first, first + channels), *cell)]
                out[(slice(None), f, *place)] += seen @ w[(f, slice(None), *tap)]
    return out if b is None else out + np.asarray(b, np.float64).reshape(-1, *(1,) * len(kernel))


def transpose(x, w, b=None, *, stride, pads, output_padding, dilation, groups=1) -> np.ndarray:
    """out[n, group's f, i * stride + k * dilation - before] += w[c, f, k...] * x[n, c, i...], from b[f]."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    channels, filters, *kernel = w.shape
    size = [
        (length - 1) * step + gap * (taps - 1) + 1 + extra
        for length, taps, step, gap, extra in zip(x.shape[2:], kernel, stride, dilation, output_padding, strict=True)
    ]
    whole = np.zeros((len(x), filters * groups, *size))
    for place in np.ndindex(*x.shape[2:]):
        for tap in np.ndindex(*kernel):
            cell = tuple(i * s + k * d for i, s, k, d in zip(place, stride, tap, dilation, strict=True))
            for c in range(channels):
                first = c // (channels // groups) * filters
                spread = x[(slice(None), c, *place)][:, None] * w[(c, slice(None), *tap)]
                whole[(slice(None), slice(first, first + filters), *cell)] += spread
    inside = tuple(slice(before, length - after) for length, (before, after) in zip(size, pads, strict=True))
    out = whole[(slice(None), slice(None), *inside)]
    return out if b is None else out + np.asarray(b, np.float64).reshape(-1, *(1,) * len(kernel))
