"""The same convolution as fastconv and PyTorch compute it, each in both of its layouts."""

from __future__ import annotations

import numpy as np
import torch
from measure import Call

from fastconv import conv2d, conv2d_backward, conv2d_forward
from fastconv.catalogue import Case

PASSES = ("forward", "dx", "dw")
FASTCONV = {"NCHW": "fastconv NCHW", "NHWC": "fastconv NHWC"}
TORCH = {"NCHW": "torch contiguous", "NHWC": "torch channels_last"}

# Largest difference between the two libraries, relative to the root mean square of the result.
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}


def inputs(case: Case, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normally distributed x and w, channels first, and b."""
    rng = np.random.default_rng(0)
    shapes = (case.x_shape(), case.w_shape(), (case.F,))
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return x, w, b


def fastconv_calls(case: Case, dtype: str, layout: str) -> dict[str, Call]:
    """pass -> call through the public functions; results are new arrays, as a caller gets them."""
    x, w, b = inputs(case, dtype)
    if layout == "NHWC":
        x, w = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    out, cache = conv2d_forward(x, w, b, layout=layout, **case.options)
    dout = np.cos(np.arange(out.size, dtype=dtype)).reshape(out.shape)
    if layout == "NHWC":  # the same numbers as channels first
        N, OH, OW, F = out.shape
        dout = np.ascontiguousarray(dout.reshape(N, F, OH, OW).transpose(0, 2, 3, 1))
    return {
        "forward": lambda: conv2d(x, w, b, layout=layout, **case.options),
        "dx": lambda: conv2d_backward(dout, cache, wrt=("x",))[0],
        "dw": lambda: conv2d_backward(dout, cache, wrt=("w",))[1],
    }


def torch_calls(case: Case, dtype: str, layout: str) -> dict[str, Call]:
    """pass -> call of PyTorch on tensors of that memory format, without autograd."""
    x, w, b = map(torch.from_numpy, inputs(case, dtype))
    memory_format = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    x, w = x.contiguous(memory_format=memory_format), w.contiguous(memory_format=memory_format)
    options = {name: list(_pair(getattr(case, name))) for name in ("stride", "padding", "dilation")}

    def forward() -> torch.Tensor:
        return torch.conv2d(x, w, b, groups=case.groups, **options)

    out = forward()
    dout = torch.cos(torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape)
    dout = dout.contiguous(memory_format=memory_format)

    def backward(*mask: bool) -> tuple[torch.Tensor | None, ...]:
        return torch.ops.aten.convolution_backward(
            dout, x, w, None, options["stride"], options["padding"], options["dilation"], False, [0, 0], case.groups,
            list(mask),
        )  # fmt: skip

    return {
        "forward": forward,
        "dx": lambda: backward(True, False, False)[0],
        "dw": lambda: backward(False, True, False)[1],
    }


def _pair(value: object) -> tuple[int, int]:
    """PyTorch has no padding per side and no names: the catalogue's layers need neither."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return value
    raise ValueError(f"PyTorch's convolution takes an integer or a pair, got {value!r}")


def disagreement(direction: str, layout: str, ours: np.ndarray, theirs: torch.Tensor) -> float:
    """Largest difference relative to the root mean square; `theirs` is channels first whatever its memory format."""
    if layout == "NHWC":
        ours = ours.transpose(3, 2, 0, 1) if direction == "dw" else ours.transpose(0, 3, 1, 2)
    expected = theirs.numpy()
    return float(np.abs(ours - expected).max() / np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
