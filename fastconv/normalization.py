"""Batch normalisation: the statistics of a channel over the batch (and the image), forward and backward.

Layer and group normalisation, whose statistics belong to one example, are in `fastconv.example_norm` and are
reachable here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from fastconv import arguments, runtime, settled, workspace
from fastconv._kernels import normalization as kernels
from fastconv._kernels.channel_constants import affine_constants, gradient_constants, merge_moments
from fastconv._kernels.channel_sums import DEVIATIONS, DOTS, RECTIFIED, TOTALS, channel_sums
from fastconv._kernels.plane_sums import plane_dots, plane_moments
from fastconv.example_norm import (
    group_norm,
    group_norm_backward,
    group_norm_forward,
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
)

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
]

LAYOUTS = ("NCHW", "NHWC", "NCW", "NWC", "NCDHW", "NDHWC")
# Tasks of the sums over rows: bands of at least this many numbers, and of enough rows to be larger than their sums.
NUMBERS_OF_A_BAND, ROWS_OF_A_BAND, MOST_BANDS = 16384, 32, 64
WIDE = 64  # rows shorter than this are joined: a loop over 3 channels is no vector loop


@dataclass(frozen=True)
class _Form:
    """How the kernels see x: planes (N * C, L), or rows (R / join, C * join) with `join` neighbouring rows in one."""

    planes: bool
    shape: tuple[int, int]
    C: int
    count: int  # numbers per channel

    @cached_property
    def width(self) -> int:
        """How many numbers the kernels take of each constant."""
        return self.C if self.planes else self.shape[1]

    @cached_property
    def parts(self) -> tuple[int, ...]:
        """The shape of the kernels' partial sums: planes, or bands and columns."""
        rows, width = self.shape
        if self.planes:
            return (rows,)
        return max(min(rows * width // NUMBERS_OF_A_BAND, rows // ROWS_OF_A_BAND, MOST_BANDS), 1), width

    @cached_property
    def counts(self) -> np.ndarray:
        """How many numbers each part of a channel has."""
        if self.planes:
            return np.full(self.shape[0] // self.C, float(self.shape[1]))
        ends = np.arange(self.parts[0] + 1) * self.shape[0] // self.parts[0]
        return np.repeat(np.diff(ends).astype(float), self.width // self.C)


@dataclass(frozen=True)
class BatchNormCache:
    """What `batch_norm_backward` needs of a forward call; treat it as opaque. It keeps a reference to x."""

    x: np.ndarray
    form: _Form
    mean: np.ndarray  # (C,) float64, like the next two
    inv_std: np.ndarray
    constants: np.ndarray  # (3, form.width) in x's dtype: the mean, scale and shift of the forward map
    gamma: np.ndarray
    has_gamma: bool
    has_beta: bool
    training: bool
    activation: str | None
    result_dtype: np.dtype

    @property
    def floor(self) -> Any:
        """What the kernels call so."""
        return self.x.dtype.type(np.nan if self.activation is None else 0)


@lru_cache(maxsize=256)
def _form(shape: tuple[int, ...], layout: str) -> _Form:
    last = layout.endswith("C") or len(shape) == 2
    C = shape[-1] if last else shape[1]
    count = math.prod(shape) // C if C else 0
    if not last and (length := math.prod(shape[2:])) > 1:
        return _Form(True, (shape[0] * C, length), C, count)
    join = math.gcd(count, WIDE) if C < WIDE else 1
    while join > 1 and C * join >= 2 * WIDE:
        join //= 2
    return _Form(False, (count // max(join, 1), C * max(join, 1)), C, count)


def _moments(x: np.ndarray, form: _Form) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel, (C,) float64, merged from those of planes or bands."""
    partial = np.empty((2, *form.parts))
    if form.planes:
        runtime.launch(kernels.moments_of_planes, x.size * 8, plane_moments(x.itemsize).address, x, partial)
    else:
        totals, deviations = (channel_sums(kind, x.itemsize).address for kind in (TOTALS, DEVIATIONS))
        runtime.launch(kernels.moments_of_rows, x.size * 8, totals, deviations, x, partial)
    mean, var = np.empty(form.C), np.empty(form.C)
    means, squares = partial.reshape(2, -1, form.C)
    merge_moments(means, squares, form.counts, mean, var)
    return mean, var


def _parameter(function: str, name: str, value: Any, C: int) -> np.ndarray | None:
    if value is None:
        return None
    result = arguments.array(function, name, value, 1)
    if result.shape != (C,):
        raise ValueError(f"{function}: {name} must have one number per channel, shape ({C},), got {result.shape}")
    return result


def _running(function: str, name: str, value: Any, C: int, training: bool) -> np.ndarray:
    """A running statistic: in training an array that can be written into."""
    if training and not isinstance(value, np.ndarray):
        raise TypeError(f"{function}: {name} must be a NumPy array to be updated, got {type(value).__name__}")
    result = _parameter(function, name, value, C)
    assert result is not None
    if training and result.dtype.kind != "f":
        raise TypeError(f"{function}: {name} must hold floats to be updated, got dtype {result.dtype}")
    if training and not result.flags.writeable:
        raise ValueError(f"{function}: {name} must be writeable to be updated, got a read-only array")
    return result


def batch_norm_forward(
    x: Any, gamma: Any = None, beta: Any = None, running_mean: Any = None, running_var: Any = None, *,
    training: bool = True, momentum: float = 0.9, eps: float = 1e-5, layout: str = "NCHW",
    activation: str | None = None,
) -> tuple[np.ndarray, BatchNormCache]:  # fmt: skip
    """`batch_norm` that also returns what `batch_norm_backward` needs: (out, cache). Arguments as for `batch_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = batch_norm_forward(np.array([[0.0, 1.0], [2.0, 5.0]]), np.ones(2), np.zeros(2))
    >>> dx, dgamma, dbeta = batch_norm_backward(np.ones((2, 2)), cache)
    >>> dbeta
    array([2., 2.])
    """
    function = "batch_norm"
    x = arguments.array(function, "x", x)
    arguments.choice(function, "layout", layout, LAYOUTS)
    arguments.choice(function, "activation", activation, settled.ACTIVATIONS)
    if x.ndim not in (2, len(layout)):
        raise ValueError(
            f"{function}: x must have 2 dimensions, or {len(layout)} with layout {layout!r}, got shape {x.shape}"
        )
    form = _form(x.shape, layout)
    gamma, beta = _parameter(function, "gamma", gamma, form.C), _parameter(function, "beta", beta, form.C)
    momentum, eps = arguments.real(function, "momentum", momentum), arguments.real(function, "eps", eps)
    if not 0 <= momentum <= 1:
        raise ValueError(f"{function}: momentum must be from 0 to 1, got {momentum}")
    if eps < 0:
        raise ValueError(f"{function}: eps must be at least 0, got {eps}")
    if (running_mean is None) != (running_var is None):
        missing = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{function}: running_mean and running_var must be given together, got None for {missing}")
    if not training and running_mean is None:
        raise ValueError(f"{function}: running_mean and running_var must be given when training is False, got None")
    tracked = []
    if running_mean is not None:
        tracked = [
            _running(function, "running_mean", running_mean, form.C, training),
            _running(function, "running_var", running_var, form.C, training),
        ]

    dtype, result_dtype = arguments.dtypes(x, gamma, beta)
    x_shape = x.shape
    x = arguments.dense(x, dtype).reshape(form.shape)
    if not training:
        mean, var = (statistic.astype(np.float64) for statistic in tracked)
    elif form.count:
        mean, var = _moments(x, form)
        if tracked:
            with np.errstate(invalid="ignore", over="ignore"):
                for running, batch in zip(tracked, (mean, var), strict=True):
                    running[...] = momentum * running + (1 - momentum) * batch
    else:  # no examples: nothing to learn from
        mean, var = np.zeros(form.C), np.ones(form.C)
    scale = np.ones(form.C) if gamma is None else gamma.astype(np.float64)
    offset = np.zeros(form.C) if beta is None else beta.astype(np.float64)
    inv_std, constants = np.empty(form.C), np.empty((3, form.width), dtype)
    affine_constants(mean, var, eps, scale, offset, inv_std, constants)
    cache = BatchNormCache(
        x.reshape(x_shape), form, mean, inv_std, constants, scale, gamma is not None, beta is not None, bool(training),
        activation, result_dtype,
    )  # fmt: skip
    out = _normalized(x, cache)
    return out.reshape(x_shape).astype(result_dtype, copy=False), cache


def _normalized(x: np.ndarray, cache: BatchNormCache) -> np.ndarray:
    """The forward map, of x in the form's shape."""
    out = workspace.empty(cache.form.shape, x.dtype)
    if out.size:
        kernel = kernels.normalize_planes if cache.form.planes else kernels.normalize_rows
        runtime.launch(kernel, x.size * 8, x, *cache.constants, cache.floor, out)
    return out


def batch_norm(
    x: Any, gamma: Any = None, beta: Any = None, running_mean: Any = None, running_var: Any = None, *,
    training: bool = True, momentum: float = 0.9, eps: float = 1e-5, layout: str = "NCHW",
    activation: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Batch normalisation: gamma * (x - mean) / sqrt(var + eps) + beta, mean and biased variance of each channel.

    Parameters
    ----------
    x : (N, D), or (N, C, H, W), or with layout "NHWC" (N, H, W, C); "NCW", "NWC", "NCDHW" and "NDHWC" likewise.
    gamma, beta : (C,) scale and shift, or None for 1 and 0.
    running_mean, running_var : (C,) float arrays, or both None. In training they are updated in place,
        `running = momentum * running + (1 - momentum) * batch` (with the biased variance), unless the batch is empty;
        otherwise they take the place of the batch's statistics.
    training : whether the statistics are the batch's.
    activation : "relu" is applied in the same pass, and its gradient in the same passes as that of x.

    Returns
    -------
    array of x's shape, of the common dtype of x, gamma and beta.

    Raises
    ------
    ValueError : wrong shape or value, or no running statistics although training is False. TypeError : wrong type.

    Source: S. Ioffe & C. Szegedy, "Batch normalization", 2015, algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> batch_norm(np.array([[0.0, 1.0], [2.0, 5.0]]), np.ones(2), np.zeros(2)).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    return batch_norm_forward(
        x, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps, layout=layout,
        activation=activation,
    )[0]  # fmt: skip


def batch_norm_backward(dout: Any, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Gradients by x, gamma and beta; None for a gamma or beta that was None.

    With xhat = (x - mean) * inv_std and means over the M numbers of a channel, the chain rule through mean and variance
    gives dx = gamma * inv_std * (dout - mean(dout) - xhat * mean(dout * xhat)); where the statistics were running
    ones, dx = gamma * inv_std * dout. With an activation, dout is 0 in all this where ReLU cut off.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `batch_norm_forward`.
    """
    function = "batch_norm_backward"
    if not isinstance(cache, BatchNormCache):
        raise TypeError(f"{function}: cache must come from batch_norm_forward, got {type(cache).__name__}")
    form, dtype = cache.form, cache.x.dtype
    dout = arguments.array(function, "dout", dout)
    if dout.shape != cache.x.shape:
        raise ValueError(f"{function}: dout must have the output's shape {cache.x.shape}, got {dout.shape}")
    dout, x = arguments.dense(dout, dtype).reshape(form.shape), cache.x.reshape(form.shape)
    dgamma, dbeta, constants = np.zeros(form.C), np.zeros(form.C), np.zeros((4, form.width), dtype)
    dx = workspace.empty(form.shape, dtype)
    if dx.size:
        plain, weighted = _dots(dout, x, cache)
        gradient_constants(
            plain, weighted, form.count, cache.mean, cache.inv_std, cache.gamma, constants, dgamma, dbeta
        )  # fmt: skip
    if dx.size and cache.training:
        kernel = kernels.gradient_of_planes if form.planes else kernels.gradient_of_rows
        runtime.launch(kernel, x.size * 8, dout, x, *constants, cache.constants[2], cache.floor, dx)
    elif dx.size:
        if cache.activation:
            dout = np.where(_normalized(x, cache) <= 0, dtype.type(0), dout)
        zero = np.zeros_like(constants[0])
        kernel = kernels.normalize_planes if form.planes else kernels.normalize_rows
        runtime.launch(kernel, x.size * 8, dout, zero, constants[1], zero, dtype.type(np.nan), dx)
    return (
        dx.reshape(cache.x.shape).astype(cache.result_dtype, copy=False),
        dgamma.astype(cache.result_dtype) if cache.has_gamma else None,
        dbeta.astype(cache.result_dtype) if cache.has_beta else None,
    )


def _dots(dout: np.ndarray, x: np.ndarray, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray]:
    """Sums of dout and of dout * (x - mean), without what ReLU cut off, over the parts of each channel, (parts, C)."""
    form = cache.form
    partial = np.empty((2, *form.parts))
    if form.planes:
        sums = plane_dots(x.itemsize, cache.activation is not None).address
        runtime.launch(kernels.dots_of_planes, x.size * 8, sums, dout, x, cache.constants, partial)
    else:
        sums = channel_sums(RECTIFIED if cache.activation else DOTS, x.itemsize).address
        runtime.launch(kernels.dots_of_rows, x.size * 8, sums, dout, x, cache.constants, partial)
    plain, weighted = partial.reshape(2, -1, form.C)
    return plain, weighted
