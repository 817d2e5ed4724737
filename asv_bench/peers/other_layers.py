"""Pooling, batch normalisation and fully connected layers by fastconv, PyTorch and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_runtime
import torch
from contest import Contender, Contest, Entry, Selection, channels_first, pick
from convolutions import MEMORY_FORMATS, read_tensor

import fastconv


@dataclass(frozen=True)
class Pool:
    """A pooling of N images with its name."""

    kind: str  # "max" or "avg"
    name: str
    N: int
    C: int
    H: int
    size: int
    stride: int
    padding: int = 0


POOLS = (
    Pool("max", "max 3x3 s2 resnet 112", 8, 64, 112, 3, 2, 1),
    Pool("max", "max 2x2 vgg 112", 4, 128, 112, 2, 2),
    Pool("max", "max 2x2 lenet 28", 64, 6, 28, 2, 2),
    Pool("max", "max 3x3 s1 googlenet 28", 8, 192, 28, 3, 1, 1),
    Pool("avg", "avg 2x2 112", 4, 128, 112, 2, 2),
    Pool("avg", "avg 3x3 s1 inception 35", 8, 192, 35, 3, 1, 1),
    Pool("avg", "avg 7x7 resnet 7", 8, 2048, 7, 7, 7),
)
# name -> N, C, H = W; 0 for features (N, C)
BATCH_NORMS = {
    "norm 64 56": (8, 64, 56),
    "norm 256 56": (8, 256, 56),
    "norm 512 14": (8, 512, 14),
    "norm 1024 features": (256, 1024, 0),
}
# name -> N, D, M
LINEARS = {
    "linear 400-120 lenet": (64, 400, 120),
    "linear 8192-100": (50, 8192, 100),
    "linear 2048-1000 resnet": (32, 2048, 1000),
    "linear 4096-4096 vgg": (16, 4096, 4096),
}


def entries() -> list[Entry]:
    pools = [Entry(f"{pool.kind} pooling", pool.name, partial(pool_contests, pool)) for pool in POOLS]
    norms = [Entry("batch norm", name, partial(norm_contests, name)) for name in BATCH_NORMS]
    linears = [Entry("linear", name, partial(linear_contests, name)) for name in LINEARS]
    return [*pools, *norms, *linears]


def _columns(selection: Selection) -> list[tuple[str, str]]:
    """(column, layout): these layers know no algorithms, so only the first one's columns are filled."""
    return [(f"{layout} {selection.algorithms[0]}", layout) for layout in selection.layouts]


def _last(array: np.ndarray, layout: str) -> np.ndarray:
    """Channels-first images in the layout asked for."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if layout == "NHWC" and array.ndim == 4 else array


def _images(layout: str, ndim: int = 4) -> Callable[[Any], np.ndarray]:
    return partial(channels_first, layout=layout if ndim == 4 else "NCHW")


def _tensor(array: np.ndarray, layout: str) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.contiguous(memory_format=MEMORY_FORMATS[layout]) if tensor.ndim == 4 else tensor


def pool_contests(pool: Pool, selection: Selection) -> Iterator[Contest]:
    """Forward without and backward with what forward kept; average pooling counts padding, as PyTorch does."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((pool.N, pool.C, pool.H, pool.H), selection.dtype)
    window = {"stride": pool.stride, "padding": pool.padding}
    function, forward, backward = (
        getattr(fastconv, f"{pool.kind}_pool2d{end}") for end in ("", "_forward", "_backward")
    )
    dout = rng.standard_normal(function(x, pool.size, **window).shape, selection.dtype)
    ours: dict[str, dict[str, Contender]] = {"forward": {}, "backward": {}}
    for column, layout in _columns(selection):
        pixels, options = _last(x, layout), {**window, "layout": layout}
        _, cache = forward(pixels, pool.size, **options)
        calls = (partial(function, pixels, pool.size, **options), partial(backward, _last(dout, layout), cache))
        for direction, call in zip(ours, calls, strict=True):
            ours[direction][column] = Contender(call, _images(layout))
    theirs: dict[str, dict[str, Contender]] = {"forward": {}, "backward": {}}
    for layout in MEMORY_FORMATS:
        calls = _torch_pool(pool, _tensor(x, layout), _tensor(dout, layout))
        for direction, call in zip(theirs, calls, strict=True):
            theirs[direction][f"torch {layout}"] = Contender(call, read_tensor)
    if selection.dtype == "float32":
        attributes = {"kernel_shape": [pool.size] * 2, "strides": [pool.stride] * 2, "pads": [pool.padding] * 4}
        if pool.kind == "avg":
            attributes["count_include_pad"] = 1
        kind = "MaxPool" if pool.kind == "max" else "AveragePool"
        theirs["forward"][onnx_runtime.NAME] = onnx_runtime.operator(kind, x, {}, **attributes)
    for direction in pick(tuple(ours), selection):
        codes = dout.size if pool.kind == "max" and direction == "backward" else 0  # a byte each
        yield Contest(
            f"{pool.kind} pooling", pool.name, direction, selection.dtype, 0.0, ours[direction], theirs[direction],
            x.nbytes + dout.nbytes + codes,
        )  # fmt: skip


def _torch_pool(pool: Pool, x: torch.Tensor, dout: torch.Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    window = ([pool.size] * 2, [pool.stride] * 2, [pool.padding] * 2)
    aten = torch.ops.aten
    if pool.kind == "avg":
        rest = (False, True, None)  # ceil_mode, count_include_pad, divisor_override
        return partial(torch._C._nn.avg_pool2d, x, *window), partial(aten.avg_pool2d_backward, dout, x, *window, *rest)
    _, indices = aten.max_pool2d_with_indices(x, *window)
    rest = ([1, 1], False, indices)  # dilation, ceil_mode
    return (
        partial(torch.max_pool2d, x, *window),
        partial(aten.max_pool2d_with_indices_backward, dout, x, *window, *rest),
    )


def norm_contests(name: str, selection: Selection) -> Iterator[Contest]:
    """Training: forward with the batch's statistics, backward to x, gamma and beta."""
    N, C, H = BATCH_NORMS[name]
    rng = np.random.default_rng(0)
    x, dout = (rng.standard_normal((N, C, H, H) if H else (N, C), selection.dtype) for _ in range(2))
    gamma, beta = (rng.standard_normal(C, selection.dtype) for _ in range(2))

    def running() -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(C, selection.dtype), np.ones(C, selection.dtype)

    ours: dict[str, dict[str, Contender]] = {"forward": {}, "backward": {}}
    for column, layout in _columns(selection):
        forward = partial(
            fastconv.batch_norm_forward, _last(x, layout), gamma, beta, *running(), training=True, layout=layout
        )
        read = _images(layout, x.ndim)
        ours["forward"][column] = Contender(forward, partial(_read_first, read))
        backward = partial(fastconv.batch_norm_backward, _last(dout, layout), forward()[1])
        ours["backward"][column] = Contender(backward, partial(_read_first, read))
    theirs: dict[str, dict[str, Contender]] = {"forward": {}, "backward": {}}
    for layout in MEMORY_FORMATS if H else ("NCHW",):
        calls = _torch_norm(_tensor(x, layout), _tensor(dout, layout), gamma, beta, *running())
        for direction, call in zip(theirs, calls, strict=True):
            theirs[direction][f"torch {layout}"] = Contender(call, partial(_read_first, read_tensor))
    for direction in pick(tuple(ours), selection):
        yield Contest("batch norm", name, direction, selection.dtype, 0.0, ours[direction], theirs[direction])


def _read_first(read: Callable[[Any], np.ndarray], results: Any) -> np.ndarray:
    """Of several results, the image."""
    return read(results[0])


def _torch_norm(
    x: torch.Tensor, dout: torch.Tensor, *vectors: np.ndarray
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    gamma, beta, mean, variance = map(torch.from_numpy, vectors)
    aten, eps = torch.ops.aten, 1e-5
    forward = partial(aten.native_batch_norm, x, gamma, beta, mean, variance, True, 0.1, eps)
    _, saved_mean, saved_scale = forward()
    backward = partial(
        aten.native_batch_norm_backward, dout, x, gamma, mean, variance, saved_mean, saved_scale, True, eps,
        [True, True, True],
    )  # fmt: skip
    return forward, backward


def linear_contests(name: str, selection: Selection) -> Iterator[Contest]:
    """x @ w + b; PyTorch keeps w transposed, ONNX Runtime packs it when the session is made."""
    N, D, M = LINEARS[name]
    rng = np.random.default_rng(0)
    x, w, b, dout = (rng.standard_normal(shape, selection.dtype) for shape in ((N, D), (D, M), (M,), (N, M)))
    _, cache = fastconv.linear_forward(x, w, b)
    tx, tw, tb, tdout = map(torch.from_numpy, (x, np.ascontiguousarray(w.T), b, dout))
    column = selection.columns[0]
    rows: dict[str, tuple[Contender, dict[str, Contender]]] = {
        "forward": (
            Contender(lambda: fastconv.linear(x, w, b), np.asarray),
            {"torch": Contender(lambda: torch.nn.functional.linear(tx, tw, tb), read_tensor)},
        ),
        "dx": (
            Contender(lambda: fastconv.linear_backward(dout, cache, wrt=("x",))[0], np.asarray),
            {"torch": Contender(lambda: tdout @ tw, read_tensor)},
        ),
        "dw": (
            Contender(lambda: fastconv.linear_backward(dout, cache, wrt=("w",))[1], np.asarray),
            {"torch": Contender(lambda: tdout.t() @ tx, lambda tensor: read_tensor(tensor).T)},
        ),
    }
    if selection.dtype == "float32":
        rows["forward"][1][onnx_runtime.NAME] = onnx_runtime.operator("Gemm", x, {"w": w, "b": b})
    for direction in pick(tuple(rows), selection):
        mine, peers = rows[direction]
        yield Contest("linear", name, direction, selection.dtype, 2e-9 * N * D * M, {column: mine}, peers)
