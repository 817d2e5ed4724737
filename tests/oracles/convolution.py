"""2-D convolution and its gradients from the definition, in float64 and NCHW; imports nothing of the library.

`conv2d_loops` is the definition, seven loops. The others add one tap of the kernel at a time, which is fast enough
for every test; `test_conv_gradients` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def both(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def windows(padded: int, kernel: int, stride: int, dilation: int) -> int:
    """How many windows fit: their first cells are 0, stride, 2 * stride, ..."""
    return len(range(0, padded - dilation * (kernel - 1), stride))


def pads_of(size, kernel, stride, dilation, padding) -> list[tuple[int, int]]:
    """Every form of `padding` as [(top, bottom), (left, right)]."""
    if padding == "valid":
        padding = 0
    if not isinstance(padding, str):
        return [both(side) for side in both(padding)]
    result = []
    for length, taps, step, gap in zip(size, kernel, stride, dilation, strict=True):
        last_start = (len(range(0, length, step)) - 1) * step
        missing = max(last_start + gap * (taps - 1) + 1 - length, 0)
        halves = (missing // 2, missing - missing // 2)
        result.append(halves if padding == "same" else halves[::-1])
    return result


class Convolution:
    """Sizes of one convolution: x (N, C, H, W), w (F, C / groups, KH, KW)."""

    def __init__(self, x_shape, w_shape, stride=1, padding=0, dilation=1, groups=1):
        self.size, self.kernel, self.groups = x_shape[2:], w_shape[2:], groups
        self.stride, self.dilation = both(stride), both(dilation)
        self.pads = pads_of(self.size, self.kernel, self.stride, self.dilation, padding)
        padded = [length + sum(pad) for length, pad in zip(self.size, self.pads, strict=True)]
        self.padded_shape = (*x_shape[:2], *padded)
        self.out_shape = (x_shape[0], w_shape[0], *map(windows, padded, self.kernel, self.stride, self.dilation))

    def pad(self, x: np.ndarray) -> np.ndarray:
        return np.pad(np.asarray(x, np.float64), [(0, 0), (0, 0), *self.pads])

    def taps(self) -> Iterator[tuple[slice, slice, tuple]]:
        """For each group and tap: its channels, its filters, and (kh, kw, rows and columns of the padded input)."""
        channels, filters = self.padded_shape[1] // self.groups, self.out_shape[1] // self.groups
        for g in range(self.groups):
            for tap in np.ndindex(*self.kernel):
                cells = [
                    slice(k * gap, k * gap + (n - 1) * step + 1, step)
                    for k, gap, n, step in zip(tap, self.dilation, self.out_shape[2:], self.stride, strict=True)
                ]
                yield slice(g * channels, (g + 1) * channels), slice(g * filters, (g + 1) * filters), (*tap, *cells)


def conv2d_loops(x, w, b=None, **sizes) -> np.ndarray:
    """out[n, f, oh, ow] = b[f] + sum over c, kh, kw of w[f, c, kh, kw] * padded x[n, group's c, cell]."""
    conv = Convolution(x.shape, w.shape, **sizes)
    padded = conv.pad(x)
    out = np.zeros(conv.out_shape)
    for n, f, oh, ow in np.ndindex(*out.shape):
        first = f // (len(w) // conv.groups) * w.shape[1]
        for c, kh, kw in np.ndindex(*w.shape[1:]):
            ih, iw = oh * conv.stride[0] + kh * conv.dilation[0], ow * conv.stride[1] + kw * conv.dilation[1]
            out[n, f, oh, ow] += float(w[f, c, kh, kw]) * padded[n, first + c, ih, iw]
        out[n, f, oh, ow] += 0 if b is None else float(b[f])
    return out


def conv2d(x, w, b=None, **sizes) -> np.ndarray:
    conv = Convolution(x.shape, w.shape, **sizes)
    padded, w = conv.pad(x), np.asarray(w, np.float64)
    out = np.zeros(conv.out_shape)
    for channels, filters, (kh, kw, rows, cols) in conv.taps():
        product = np.tensordot(w[filters, :, kh, kw], padded[:, channels, rows, cols], (1, 1))  # F N OH OW
        out[:, filters] += product.swapaxes(0, 1)
    return out if b is None else out + np.asarray(b, np.float64)[:, None, None]


def conv2d_gradients(x, w, dout, **sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dw, db): each product x * w * dout of the sum, without the factor that is differentiated by."""
    conv = Convolution(x.shape, w.shape, **sizes)
    padded, w, dout = conv.pad(x), np.asarray(w, np.float64), np.asarray(dout, np.float64)
    dpadded, dw = np.zeros(padded.shape), np.zeros(w.shape)
    for channels, filters, (kh, kw, rows, cols) in conv.taps():
        dw[filters, :, kh, kw] = np.tensordot(dout[:, filters], padded[:, channels, rows, cols], ((0, 2, 3),) * 2)
        product = np.tensordot(w[filters, :, kh, kw], dout[:, filters], (0, 1))  # C N OH OW
        dpadded[:, channels, rows, cols] += product.swapaxes(0, 1)
    (top, _), (left, _) = conv.pads
    return dpadded[:, :, top : top + x.shape[2], left : left + x.shape[3]], dw, dout.sum(axis=(0, 2, 3))
