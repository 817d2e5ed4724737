"""The library's catalogue as test cases: sizes, random operands and the oracle's answers, each computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from oracles import convolution as oracle

from fastconv import plan
from fastconv.algorithms import (
    ALGORITHMS,
    costs,
    depthwise_gradient,
    depthwise_kept,
    depthwise_plane_gradient,
    fft,
    fft_gradient,
    gradient_columns,
    gradient_panels,
    grouped_units,
    matrix_pixels,
    pixel_panels,
    product,
    sweeps,
    weight_dots,
    weight_gradient,
    winograd,
    winograd_axes,
    winograd_gradient,
)
from fastconv.catalogue import EDGES, LAYERS, Case
from fastconv.sizes import sizes_of

LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "float64")


def shrunk(case: Case) -> Case:
    """One image of at most 20 x 20 pixels."""
    return replace(case, N=1, H=min(case.H, 20), W=min(case.W, 20))


# Sizes of blocks steer speed, never results: these make a small problem run in as many pieces as a large one.
TINY_BLOCKS = {"L2_BYTES": 8192, "CHUNK_BYTES": 4096, "DEPTH_BLOCK": 8, "PIXELS_PER_TASK": 32}
TINY_OF_MODULES = {
    weight_gradient: {"_ROWS_PER_TASK": 8, "_DEPTH_BLOCK": 8},
    weight_dots: {"_STEPS": 2, "_SUMS_BYTES": 1024},
    gradient_columns: {"_COLUMNS_BYTES": 1024},
    gradient_panels: {"_DEPTH_BLOCK": 8},
    pixel_panels: {"_DEPTH_BLOCK": 8},
    product: {"_DEPTH_BLOCK": 8},
    sweeps: {"_PIECES_BYTES": 1024, "_BAND_ENTRIES": 5, "_COLUMNS_PER_STRETCH": 1},
    fft: {"WEIGHT_BYTES": 40_000, "SUMS_BYTES": 20_000, "CACHED_BYTES": 4096},
    fft_gradient: {"SPECTRA_BYTES": 40_000, "SUMS_BYTES": 20_000, "CACHED_BYTES": 4096},
    grouped_units: {"TASK_BYTES": 2048, "_LINE_BYTES": 64},
    depthwise_gradient: {"_KEPT_BYTES": 2048, "_SUM_PIXELS": 8},
    depthwise_kept: {"_KEPT_BYTES": 1024},
    depthwise_plane_gradient: {"_SUM_VECTORS": 2, "_SUM_BYTES": 1024},
    matrix_pixels: {"_KEPT_BYTES": 8192, "_WEIGHT_BYTES": 8192, "_PIXELS": 32},
    winograd: {"BLOCK": 8, "LEAST_BLOCK": 4, "OWN_WEIGHTS_BYTES": 2**17, "_DEPTH_BLOCK": 8},
    winograd_axes: {"WINDOW_PIXELS": 2},
    winograd_gradient: {"BLOCK": 8, "LEAST_BLOCK": 4, "SPLIT": 8, "SUMS_BYTES": (4096, 4096)},
}

# Sums over more pixels than the kernels add in one go.
LARGE_PLANE = Case("large plane", 1, 1, 66, 70, 2, 2, 2)

CASES = (*EDGES, LARGE_PLANE, *map(shrunk, LAYERS))
BY_NAME = {case.name: case for case in CASES}


def images(array: np.ndarray, layout: str) -> np.ndarray:
    """(N, C, H, W) brought into the layout (its own inverse only for NCHW)."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if layout == "NHWC" else array


def filters(array: np.ndarray, layout: str) -> np.ndarray:
    """(F, C / groups, KH, KW) brought into the layout."""
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0)) if layout == "NHWC" else array


@dataclass(frozen=True)
class Answers:
    """Operands (float32 numbers, so that both dtypes share one oracle) and float64 results, channels-first."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    dout: np.ndarray
    out: np.ndarray  # without bias
    gradients: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # "linear", "relu", "relu with bias"

    def forward(self, bias: bool, activation: str | None) -> np.ndarray:
        out = self.out + self.b[:, None, None] if bias else self.out
        return np.maximum(out, 0) if activation == "relu" else out

    def backward(self, bias: bool, activation: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.gradients["linear" if activation is None else "relu with bias" if bias else "relu"]


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@cache
def answers(name: str) -> Answers:
    """The oracle's answers for a case."""
    case = BY_NAME[name]
    x, w, b = normal(1, case.x_shape()), normal(2, case.w_shape()), normal(3, (case.F,))
    out = oracle.conv2d(x, w, **case.options)
    biased = out + b[:, None, None]
    # Where rounding could decide on which side of zero ReLU sees a sum, no gradient is sent back.
    dout = normal(4, out.shape) * (np.abs(out) > 1e-3) * (np.abs(biased) > 1e-3)
    masks = {"linear": np.ones(out.shape), "relu": out > 0, "relu with bias": biased > 0}
    gradients = {key: oracle.conv2d_gradients(x, w, dout * mask, **case.options) for key, mask in masks.items()}
    return Answers(x, w, b, dout.astype(np.float32), out, gradients)


def lengths(case: Case) -> tuple[int, int, int, int]:
    """How many products one number of out, dx, dw and db sums."""
    channels, count, taps = case.C // case.groups, case.F // case.groups, case.KH * case.KW
    conv = oracle.Convolution(case.x_shape(), case.w_shape(), **case.options)
    pixels = case.N * conv.out_shape[2] * conv.out_shape[3]
    return channels * taps, count * taps, pixels, pixels


def use_tiny_blocks(set_attribute=setattr) -> None:
    """Cut problems into many pieces from now on (`monkeypatch.setattr` can undo it); plans made before are dropped."""
    for name, value in TINY_BLOCKS.items():
        set_attribute(costs, name, value)
    for module, constants in TINY_OF_MODULES.items():
        for name, value in constants.items():
            set_attribute(module, name, value)
    plan._cached.cache_clear()


def declines(
    algorithm: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], *, stride=1, padding=0, dilation=1, groups=1,
    layout: str = "NCHW", dtype: str = "float32",
) -> bool:  # fmt: skip
    """Whether a named algorithm cannot run the forward pass of a problem; "auto" and "fast" always can."""
    problem = sizes_of("declines", x_shape, w_shape, stride, padding, dilation, groups, layout).problem(np.dtype(dtype))
    named = next((offered for offered in ALGORITHMS if offered.name == algorithm), None)
    return named is not None and not problem.empty and named.declines(problem, "forward") is not None
