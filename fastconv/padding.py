"""Padding as an operation of its own, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import arguments, runtime
from fastconv._kernels.padding import fold, pad
from fastconv.arguments import Pair

MODES = ("constant", "reflect", "replicate", "circular")
LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class PadCache:
    """What `pad2d_backward` needs of a forward call; treat it as opaque."""

    x_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    dtype: np.dtype
    result_dtype: np.dtype
    x_planes: tuple[int, int, int]  # x and out as the kernels see them: (planes, rows, columns)
    out_planes: tuple[int, int, int]
    row_from: np.ndarray
    col_from: np.ndarray
    inner: np.ndarray


def origins(function: str, size: int, before: int, after: int, mode: str, axis: str) -> np.ndarray:
    """For each padded cell of an axis, the index it comes from; -1 for the constant."""
    if mode == "reflect" and max(before, after) >= max(size, 1):
        raise ValueError(
            f"{function}: reflect padding must be smaller than the {axis}, got {(before, after)} for {size}"
        )
    if mode == "circular" and max(before, after) > size:
        raise ValueError(f"{function}: circular padding must not exceed the {axis}, got {(before, after)} for {size}")
    if mode == "replicate" and size == 0 and before + after:
        raise ValueError(f"{function}: replicate padding needs a {axis} of at least 1, got 0")
    index = np.arange(-before, size + after)
    if mode == "constant":
        return np.where((index < 0) | (index >= size), -1, index)
    if mode == "replicate":
        return np.clip(index, 0, max(size - 1, 0))
    if mode == "circular":
        return index % max(size, 1)
    return np.where(index >= size, 2 * (size - 1) - index, np.abs(index))


def interleaved(origin: np.ndarray, channels: int) -> np.ndarray:
    """The origins of single numbers, from those of pixels of so many channels side by side."""
    return np.where(origin[:, None] < 0, -1, origin[:, None] * channels + np.arange(channels)).ravel()


def pad2d_forward(
    x: Any, padding: Any, *, mode: str = "constant", value: float = 0.0, layout: str = "NCHW"
) -> tuple[np.ndarray, PadCache]:
    """`pad2d` that also returns what `pad2d_backward` needs: (out, cache)."""
    function = "pad2d"
    x = arguments.array(function, "x", x, 4)
    arguments.choice(function, "mode", mode, MODES)
    arguments.choice(function, "layout", layout, LAYOUTS)
    value = arguments.real(function, "value", value)
    pads = arguments.pads(function, padding)
    if isinstance(pads, str):
        raise ValueError(f"{function}: padding must be given in numbers, got {padding!r}")
    dtype, result_dtype = arguments.dtypes(x)
    out, cache = _pad(function, arguments.dense(x, dtype), pads, mode, value, layout == "NHWC", result_dtype)
    return out.astype(result_dtype, copy=False), cache


def _pad(
    function: str, x: np.ndarray, pads: tuple[Pair, ...], mode: str, value: float, last: bool, result_dtype: np.dtype,
    names: tuple[str, str] = ("height", "width"),
) -> tuple[np.ndarray, PadCache]:  # fmt: skip
    """(padded x, cache) for a dense x; `names` are those of the two axes."""
    height, width = x.shape[1:3] if last else x.shape[2:4]
    (top, bottom), (left, right) = pads
    row_from = origins(function, height, top, bottom, mode, names[0])
    col_from = origins(function, width, left, right, mode, names[1])
    inner = np.array([left, left + width])
    rows, cols = row_from.size, col_from.size
    if last:  # a row of pixels is one row of width * channels numbers
        n, channels = x.shape[0], x.shape[3]
        out_shape: tuple[int, ...] = (n, rows, cols, channels)
        col_from, inner = interleaved(col_from, channels), inner * channels
        x_planes, out_planes = (n, height, width * channels), (n, rows, cols * channels)
    else:
        n, channels = x.shape[:2]
        out_shape = (n, channels, rows, cols)
        x_planes, out_planes = (n * channels, height, width), (n * channels, rows, cols)
    out = np.empty(out_shape, x.dtype)
    cache = PadCache(x.shape, out_shape, x.dtype, result_dtype, x_planes, out_planes, row_from, col_from, inner)
    if out.size:
        planes = x.reshape(x_planes), out.reshape(out_planes)
        runtime.launch(pad, out.size * 8, *planes, row_from, col_from, inner, x.dtype.type(value))
    return out, cache


def pad2d(x: Any, padding: Any, *, mode: str = "constant", value: float = 0.0, layout: str = "NCHW") -> np.ndarray:
    """Surround each image with rows and columns.

    Parameters
    ----------
    x : (N, C, H, W), or (N, H, W, C) with layout "NHWC".
    padding : int, (vertical, horizontal), or ((top, bottom), (left, right)); at least 0.
    mode : "constant" (`value`), "reflect" (mirrored without the edge; less than the size), "replicate" (the edge), or
        "circular" (from the other side; at most the size).

    Raises
    ------
    ValueError : a wrong shape, mode or amount. TypeError : a wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> pad2d(np.arange(3.0).reshape(1, 1, 1, 3), ((0, 0), (2, 2)), mode="reflect")[0, 0]
    array([[2., 1., 0., 1., 2., 1., 0.]])
    """
    return pad2d_forward(x, padding, mode=mode, value=value, layout=layout)[0]


def pad2d_backward(dout: Any, cache: PadCache) -> np.ndarray:
    """Gradient by x: each padded cell's gradient goes to the cell it was copied from.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `pad2d_forward`.
    """
    function = "pad2d_backward"
    if not isinstance(cache, PadCache):
        raise TypeError(f"{function}: cache must come from pad2d_forward, got {type(cache).__name__}")
    dout = arguments.array(function, "dout", dout, 4)
    if dout.shape != cache.out_shape:
        raise ValueError(f"{function}: dout must have the output's shape {cache.out_shape}, got {dout.shape}")
    dout = arguments.dense(dout, cache.dtype)
    dx = np.empty(cache.x_shape, cache.dtype)
    if dx.size:
        planes = dout.reshape(cache.out_planes), dx.reshape(cache.x_planes)
        runtime.launch(fold, dout.size * 8, *planes, cache.row_from, cache.col_from, cache.inner)
    return dx.astype(cache.result_dtype, copy=False)


def pad_axes_forward(
    function: str, x: np.ndarray, pads: tuple[Pair, ...], mode: str, last: bool
) -> tuple[np.ndarray, tuple[PadCache, ...]]:
    """A dense x of one to three axes, padded by copies, and what `pad_axes_backward` needs.

    One axis is the width of images of height 1. Of three, height and width are padded first, then depth as the height
    of images whose width is a plane: their cells are (h, w).
    """
    N, C, size = x.shape[0], x.shape[-1 if last else 1], x.shape[1:-1] if last else x.shape[2:]
    axes = len(size)
    depths = size[0] if axes == 3 else 1
    height, width = size[-2:] if axes > 1 else (1, size[0])
    sides = pads[-2:] if axes > 1 else ((0, 0), pads[0])
    images = x.reshape((N * depths, height, width, C) if last else (N, C * depths, height, width))
    out, cache = _pad(function, images, sides, mode, 0.0, last, x.dtype)
    caches = [cache]
    padded = [size + sum(both) for size, both in zip(size, pads, strict=True)]
    if axes == 3:
        plane = padded[1] * padded[2]
        images = out.reshape((N, depths, plane, C) if last else (N, C, depths, plane))
        out, cache = _pad(function, images, (pads[0], (0, 0)), mode, 0.0, last, x.dtype, ("depth", "plane"))
        caches.append(cache)
    return out.reshape((N, *padded, C) if last else (N, C, *padded)), tuple(caches)


def pad_axes_backward(dout: np.ndarray, caches: tuple[PadCache, ...]) -> np.ndarray:
    """Gradient by x of the shape that x had as images; the caller knows its own shape."""
    for cache in reversed(caches):
        dout = pad2d_backward(dout.reshape(cache.out_shape), cache)
    return dout
