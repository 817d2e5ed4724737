"""Gradient clipping: bounds on the gradients of a backward pass, applied before the optimizer's step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from fastconv import arguments, runtime
from fastconv._kernels import reduce
from fastconv.nn.base import Parameter


def gradient_norm(parameters: Iterable[Parameter]) -> float:
    """The Euclidean norm of all gradients as one vector, summed in float64; parameters without one are left out.

    >>> gradient_norm([Parameter(np.zeros(2), "w", grad=np.array([3.0, 4.0]))])
    5.0
    """
    total = 0.0
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.size:
            grad = arguments.dense(parameter.grad, parameter.grad.dtype.newbyteorder("=")).reshape(-1)
            partial = np.empty(-(-grad.size // (16 * reduce.BLOCK)))
            runtime.launch(reduce.sum_squares, 8 * grad.size, grad, partial)
            total += float(partial.sum())
    return math.sqrt(total)


def clip_norm(parameters: Iterable[Parameter], limit: float) -> float:
    """Scale all gradients by one factor so that their common norm is at most `limit`; returns the norm before.

    Source: R. Pascanu, T. Mikolov & Y. Bengio, "On the difficulty of training recurrent neural networks", 2013.

    Raises
    ------
    ValueError, TypeError : `limit` is no number above 0.
    FloatingPointError : the norm is NaN or infinite; no gradient was changed.

    >>> w = Parameter(np.zeros(2), "w", grad=np.array([3.0, 4.0]))
    >>> clip_norm([w], 1.0), w.grad.round(3).tolist()
    (5.0, [0.6, 0.8])
    """
    limit = _limit("clip_norm", limit)
    parameters = list(parameters)
    norm = gradient_norm(parameters)
    if not math.isfinite(norm):
        raise FloatingPointError(f"clip_norm: the norm of the gradients must be finite, got {norm}")
    if norm > limit:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = parameter.grad * parameter.grad.dtype.type(limit / norm)
    return norm


def clip_value(parameters: Iterable[Parameter], limit: float) -> None:
    """Bring each number of each gradient into [-limit, limit]; NaN stays NaN.

    Raises
    ------
    ValueError, TypeError : `limit` is no number above 0.

    >>> w = Parameter(np.zeros(2), "w", grad=np.array([3.0, -0.5]))
    >>> clip_value([w], 1.0)
    >>> w.grad.tolist()
    [1.0, -0.5]
    """
    limit = _limit("clip_value", limit)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = np.clip(parameter.grad, -limit, limit)


def _limit(function: str, value: float) -> float:
    value = arguments.real(function, "limit", value)
    if value <= 0:
        raise ValueError(f"{function}: limit must be above 0, got {value}")
    return value
