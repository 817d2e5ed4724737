"""Calls beside convolution that test_guard_pages makes: pooling, padding, normalisation, activations, linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from conv_cases import LAYOUTS, images, normal

import fastconv
from fastconv import pooling


def pooled(x, *, kernel_size, **options):
    """Every pooling of windows, forward and backward."""
    results = [fastconv.max_pool2d(x, kernel_size, return_indices=True, **options)]
    for ties in ("first", "split", "all"):
        out, cache = fastconv.max_pool2d_forward(x, kernel_size, ties=ties, **options)
        results += [out, fastconv.max_pool2d_backward(np.cos(out), cache)]
    averages = [fastconv.avg_pool2d_forward(x, kernel_size, count_include_pad=c, **options) for c in (True, False)]
    averages.append(pooling.lp_pool2d_forward(x, kernel_size, norm_type=3, **options))
    backwards = [fastconv.avg_pool2d_backward] * 2 + [pooling.lp_pool2d_backward]
    for (out, cache), backward in zip(averages, backwards, strict=True):
        results += [out, backward(np.cos(out), cache)]
    return tuple(results)


def adaptively_pooled(x, *, layout):
    results = []
    for size in (1, 3, (2, 5)):
        for kind in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
            out, cache = getattr(pooling, f"{kind}_forward")(x, size, layout=layout)
            results += [out, getattr(pooling, f"{kind}_backward")(np.cos(out), cache)]
    return tuple(results)


def normalised(x, *, layout):
    channels = x.shape[3 if layout == "NHWC" else 1]
    gamma, beta = (normal(seed, (channels,)).astype(x.dtype) for seed in (1, 2))
    results = []
    for training, activation in ((True, None), (True, "relu"), (False, None)):
        mean, variance = np.zeros(channels, x.dtype), np.ones(channels, x.dtype)
        out, cache = fastconv.batch_norm_forward(
            x, gamma, beta, mean, variance, training=training, layout=layout, activation=activation
        )
        results += [out, mean, variance, fastconv.batch_norm_backward(np.cos(out), cache)]
    groups = next(g for g in (3, 2, 1) if channels % g == 0)
    out, cache = fastconv.group_norm_forward(x, gamma, beta, groups, layout=layout)
    results += [out, fastconv.group_norm_backward(np.cos(out), cache)]
    rows = x.reshape(len(x), -1)
    features = rows.shape[1]
    weight, shift = normal(3, (features,)).astype(x.dtype), normal(4, (features,)).astype(x.dtype)
    for forward, backward in (
        ("layer_norm_forward", "layer_norm_backward"),
        ("batch_norm_forward", "batch_norm_backward"),
    ):
        out, cache = getattr(fastconv, forward)(rows, weight, shift)
        results += [out, getattr(fastconv, backward)(np.cos(out), cache)]
    return tuple(results)


def elementwise(x):
    results = []
    for name in ("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "softmax"):
        out, cache = getattr(fastconv, f"{name}_forward")(x)
        results += [out, getattr(fastconv, f"{name}_backward")(np.cos(out), cache)]
    return tuple(results)


def multiplied(x, w, b):
    out, cache = fastconv.linear_forward(x, w, b)
    return out, *fastconv.linear_backward(np.cos(out), cache)


def padded(x, *, layout):
    results = []
    if layout == "NHWC":
        bank = normal(5, (3, 2, x.shape[3], 2))
        results += [fastconv.filter_image(x[0], "box"), fastconv.filter_image(x[0], bank, padding_mode="zeros")]
    for mode in ("constant", "reflect", "replicate", "circular"):
        out, cache = fastconv.pad2d_forward(x, ((1, 2), (0, 3)), mode=mode, layout=layout)
        results += [out, fastconv.pad2d_backward(np.cos(out), cache)]
    columns = fastconv.im2col(x, (2, 3), padding=1, layout=layout)
    size = x.shape[1:3] if layout == "NHWC" else x.shape[2:]
    return (*results, columns, fastconv.col2im(columns, size, (2, 3), padding=1, layout=layout))


POOLINGS = (
    (2, {}),
    ((3, 2), {"stride": (2, 1), "padding": 1}),
    (3, {"stride": 1, "padding": "same"}),
    (3, {"stride": 2, "padding": 1}),
    (2, {"stride": 3, "dilation": 2, "padding": 1, "ceil_mode": True}),
    (1, {"stride": 5}),
)


SHAPES = ((1, 1, 6, 5), (2, 3, 7, 9), (3, 16, 8, 8), (1, 17, 9, 33), (2, 5, 66, 70))


def calls(dtype: str) -> Iterator[tuple[str, Callable, tuple[np.ndarray, ...]]]:
    """(name, function of arrays, the arrays)."""
    for shape in SHAPES:
        for layout in LAYOUTS:
            x = images(normal(1, shape), layout).astype(dtype)
            name = f"{shape}, {layout}, {dtype}"
            for kernel_size, options in POOLINGS:
                call = partial(pooled, kernel_size=kernel_size, layout=layout, **options)
                yield f"pooling {kernel_size} {options}, {name}", call, (x,)
            for function in (adaptively_pooled, normalised, padded):
                yield f"{function.__name__}, {name}", partial(function, layout=layout), (x,)
        yield f"elementwise, {name}", elementwise, (x,)
        rows = np.ascontiguousarray(x.reshape(len(x), -1)[:, :700])
        for outputs in (1, 10, 65):
            w = normal(2, (rows.shape[1], outputs)).astype(dtype)
            yield f"linear to {outputs}, {name}", multiplied, (rows, w, w[0])
