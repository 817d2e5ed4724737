"""Filters for pictures: blur, sharpen, edges, grey values, or any kernel, in one call."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import arguments, runtime, settled, workspace
from fastconv._kernels.filters import CHUNK, edge_strength, filter_rows
from fastconv.images import LUMA
from fastconv.padding import interleaved, origins

FUNCTION = "filter_image"
DTYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "float32", "float64"))

_DERIVATIVE, _SMOOTHED, _BINOMIAL = (np.array(v, np.float32) for v in ([-1, 0, 1], [1, 2, 1], [1, 4, 6, 4, 1]))

# Kernels (KH, KW) filter each channel by itself; (KH, KW, C) take all channels to one.
KERNELS: dict[str, np.ndarray] = {
    "box": np.full((3, 3), 1 / 9, np.float32),
    "gaussian": np.outer(_BINOMIAL, _BINOMIAL) / 256,  # standard deviation 1
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32),
    "edge": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32),
    "emboss": np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32),
    "sobel_x": np.outer(_SMOOTHED, _DERIVATIVE),  # brighter to the right is positive
    "sobel_y": np.outer(_DERIVATIVE, _SMOOTHED),  # brighter below is positive
    "grayscale": LUMA.reshape(1, 1, 3),
}
for _kernel in KERNELS.values():
    _kernel.flags.writeable = False


def filter_image(
    image: Any, kernel: Any, *, padding_mode: str = "reflect", offset: Any = 0.0, dtype: Any = None
) -> np.ndarray:
    """A picture filtered with a kernel (correlated: the kernel is not flipped), at the same size.

    Parameters
    ----------
    image : (H, W) or (H, W, C), uint8, uint16, float32 or float64.
    kernel : one of

        - (KH, KW), applied to each channel by itself;
        - (KH, KW, C), which takes all channels to one picture (H, W);
        - (KH, KW, C, F), a bank of such kernels, giving (H, W, F);
        - the name of one of these in `fastconv.filters.KERNELS`: "box", "gaussian", "sharpen", "edge", "emboss",
          "sobel_x", "sobel_y", "grayscale";
        - "sobel": the strength of edges in any direction, sqrt(sobel_x^2 + sobel_y^2) of the grey values, (H, W).
    padding_mode : what lies beyond the border: "reflect" (mirrored without the edge), "replicate", "circular" or
        "zeros". Where a kernel has no middle, its earlier one of the two middle cells counts as it.
    offset : number to add, or with a bank one for each kernel: 128 makes both signs visible in an uint8 picture.
    dtype : of the result; the image's own by default. Integers are rounded and kept in 0 to 255 or 65535;
        `dtype=np.float32` keeps what a filter says, with its sign.

    Raises
    ------
    ValueError : wrong shape or name, or the image is too small to be mirrored. TypeError : wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> picture = np.zeros((3, 5), np.uint8)
    >>> picture[1, 2] = 90
    >>> filter_image(picture, "box").tolist()
    [[0, 20, 20, 20, 0], [0, 10, 10, 10, 0], [0, 20, 20, 20, 0]]
    >>> filter_image(np.full((4, 6, 3), 200, np.uint8), "grayscale").shape
    (4, 6)
    """
    image = arguments.array(FUNCTION, "image", image, (2, 3))
    arguments.choice(FUNCTION, "padding_mode", padding_mode, settled.PADDING_MODES)
    image_dtype = _checked_dtype("image", image.dtype)
    dtype = image_dtype if dtype is None else _checked_dtype("dtype", np.dtype(dtype))
    if isinstance(kernel, str):
        arguments.choice(FUNCTION, "kernel", kernel, (*KERNELS, "sobel"))
        if kernel == "sobel":
            return _edge_strength(image, padding_mode, offset, dtype)
        kernel = KERNELS[kernel]
    return _filtered(image, arguments.array(FUNCTION, "kernel", kernel, (2, 3, 4)), padding_mode, offset, dtype)


def _checked_dtype(name: str, dtype: np.dtype) -> np.dtype:
    dtype = dtype.newbyteorder("=")
    if dtype not in DTYPES:
        raise TypeError(f"{FUNCTION}: {name} must be one of {', '.join(map(str, DTYPES))}, got {dtype}")
    return dtype


def _filtered(image: np.ndarray, kernel: np.ndarray, padding_mode: str, offset: Any, dtype: np.dtype) -> np.ndarray:
    H, W, C = image.shape if image.ndim == 3 else (*image.shape, 1)
    if kernel.ndim > 2 and kernel.shape[2] != C:
        raise ValueError(f"{FUNCTION}: kernel must have the image's {C} channels, got shape {kernel.shape}")
    if 0 in kernel.shape:
        raise ValueError(f"{FUNCTION}: kernel must not be empty, got shape {kernel.shape}")
    bank = kernel.reshape(*kernel.shape, *(1,) * (4 - kernel.ndim))
    KH, KW, P, F = bank.shape
    out = workspace.empty(image.shape if kernel.ndim == 2 else (H, W, *kernel.shape[3:]), dtype)
    # Without a sum over channels, a pixel's neighbour of the same colour lies C numbers further in its row: all
    # channels are one long row, and the kernel is dilated.
    gap = C // P
    places = np.array([(kh, p, kw * gap) for kh, kw, p in np.ndindex(KH, KW, P)])
    (top, bottom), (left, right) = arguments.resolve_pads("same", (H, W), (KH, KW), (1, 1), (1, 1))
    mode = "constant" if padding_mode == "zeros" else padding_mode
    row_from = origins(FUNCTION, H, top, bottom, mode, "height")
    col_from = interleaved(origins(FUNCTION, W, left, right, mode, "width"), gap)
    compute = _compute_dtype(image, dtype)
    source = arguments.dense(image, dtype if image.dtype == dtype else compute)
    if out.size:
        slots = runtime.slots_for(out.size * KH * KW * P)
        with workspace.Scratch() as scratch:
            runtime.run_on(
                filter_rows,
                slots,
                source.reshape(H, W * C),
                np.ascontiguousarray(bank.reshape(-1, F).T, compute),
                places,
                np.array(np.broadcast_to(np.asarray(offset, compute), F)),
                row_from,
                col_from,
                np.array([left, left + W]) * gap,
                _largest(dtype, compute),
                scratch.take((slots, KH, P, col_from.size), compute),
                scratch.take((slots, CHUNK), compute),
                out.reshape(H, -1),
            )
    return out


def _compute_dtype(image: np.ndarray, dtype: np.dtype) -> np.dtype:
    return np.result_type(image.dtype, dtype, np.float32)


def _largest(dtype: np.dtype, compute: np.dtype) -> Any:
    """What the kernels keep results below: an integer's largest value, 0 for floats."""
    return compute.type(np.iinfo(dtype).max if dtype.kind == "u" else 0)


def _edge_strength(image: np.ndarray, padding_mode: str, offset: Any, dtype: np.dtype) -> np.ndarray:
    """sqrt(dx^2 + dy^2) of the grey values."""
    compute = _compute_dtype(image, dtype)
    grey = image if image.ndim == 2 else _filtered(image, KERNELS["grayscale"], padding_mode, 0, compute)
    dx, dy = (_filtered(grey, KERNELS[name], padding_mode, 0, compute) for name in ("sobel_x", "sobel_y"))
    out = workspace.empty(dx.shape, dtype)
    offset = np.asarray(offset, compute)
    runtime.launch(
        edge_strength, dx.size * 8, dx.reshape(-1), dy.reshape(-1), compute.type(offset), _largest(dtype, compute),
        out.reshape(-1),
    )  # fmt: skip
    return out
