"""Pooling from the definition, window by window, in float64 and channels-first, for any number of axes.

Imports nothing of the library. x is (N, C, *sizes); a window is the list of its cells, as flat indices into a plane,
and how many cells it counts as when padding counts.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np


def axis_windows(size, kernel, stride, pads, dilation=1, ceil_mode=False):
    """For each window along an axis: (its cells inside the image, how many lie in the padded image)."""
    before, after = pads
    steps = Fraction(size + before + after - dilation * (kernel - 1) - 1, stride)
    count = (math.ceil(steps) if ceil_mode else math.floor(steps)) + 1
    windows = []
    for o in range(count):
        places = [o * stride - before + tap * dilation for tap in range(kernel)]
        if ceil_mode and places[0] >= size:  # starts in the padding behind the image
            continue
        windows.append(([p for p in places if 0 <= p < size], sum(p < size + after for p in places)))
    return windows


def adaptive_windows(size, count):
    """[floor(o * size / count), ceil((o + 1) * size / count)) for each o."""
    ranges = [range(o * size // count, math.ceil(Fraction((o + 1) * size, count))) for o in range(count)]
    return [(list(cells), len(cells)) for cells in ranges]


def same_pads(size, kernel, stride, dilation=1):
    """TensorFlow's "same": ceil(size / stride) windows, as centred as they can be, the odd cell behind."""
    missing = max((math.ceil(Fraction(size, stride)) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return missing // 2, missing - missing // 2


def possible(axes):
    """Whether there are windows and each has a cell."""
    return all(windows and all(cells for cells, _ in windows) for windows in axes)


def windows_of(sizes, axes):
    """(cells, count) of every window in row-major order, and the shape they form."""
    result = []
    for parts in itertools.product(*axes):
        cells = [np.ravel_multi_index(place, sizes) for place in itertools.product(*(cells for cells, _ in parts))]
        result.append((cells, math.prod(count for _, count in parts)))
    return result, tuple(len(windows) for windows in axes)


def _pool(x, axes, reduce):
    """reduce(numbers (N * C, cells), cells, count) for each window."""
    windows, shape = windows_of(x.shape[2:], axes)
    planes = np.asarray(x, np.float64).reshape(x.shape[0] * x.shape[1], -1)
    columns = [reduce(planes[:, cells], cells, count) for cells, count in windows]
    return np.stack(columns, axis=1).reshape(*x.shape[:2], *shape)


def _gradient(x, axes, dout, share):
    """Sum over windows of share(numbers, count) * dout, for every cell."""
    windows, _ = windows_of(x.shape[2:], axes)
    planes = np.asarray(x, np.float64).reshape(x.shape[0] * x.shape[1], -1)
    dout = np.asarray(dout, np.float64).reshape(len(planes), -1)
    dx = np.zeros(planes.shape)
    for (cells, count), gradient in zip(windows, dout.T, strict=True):
        dx[:, cells] += share(planes[:, cells], count) * gradient[:, None]
    return dx.reshape(x.shape)


def max_pool(x, axes):
    return _pool(x, axes, lambda numbers, cells, count: numbers.max(axis=1))


def max_indices(x, axes):
    """Flat index of the first maximum; NumPy's argmax takes the first NaN, too."""
    return _pool(x, axes, lambda numbers, cells, count: np.array(cells)[numbers.argmax(axis=1)]).astype(np.int64)


def max_gradient(x, axes, dout, ties):
    def share(numbers, count):
        best = numbers.max(axis=1, keepdims=True)
        tied = (numbers == best) | (np.isnan(numbers) & np.isnan(best))
        if ties == "first":
            return tied & (tied.cumsum(axis=1) == 1)
        return tied / tied.sum(axis=1, keepdims=True) if ties == "split" else tied

    return _gradient(x, axes, dout, share)


def _divisor(cells, count, include_pad, divisor):
    return divisor or (count if include_pad else cells)


def avg_pool(x, axes, include_pad=True, divisor=None):
    return _pool(
        x, axes, lambda numbers, cells, count: numbers.sum(axis=1) / _divisor(len(cells), count, include_pad, divisor)
    )


def avg_gradient(x, axes, dout, include_pad=True, divisor=None):
    def share(numbers, count):
        return np.ones(numbers.shape) / _divisor(numbers.shape[1], count, include_pad, divisor)

    return _gradient(x, axes, dout, share)


def lp_pool(x, axes, p, whole):
    """(sum x^p)^(1/p); a window that reaches beyond the padded image is scaled up to `whole` cells, as in PyTorch."""
    return _pool(x, axes, lambda numbers, cells, count: ((numbers**p).sum(axis=1) / count * whole) ** (1 / p))


def unpool(x, indices, sizes):
    out = np.zeros((*x.shape[:2], math.prod(sizes)))
    for n, c in np.ndindex(*x.shape[:2]):
        for place, number in zip(indices[n, c].ravel(), x[n, c].ravel(), strict=True):
            out[n, c, place] = number
    return out.reshape(*x.shape[:2], *sizes)
