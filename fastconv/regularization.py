"""Dropout, inverted: what is kept is scaled up in training, so that inference does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import arguments


@dataclass(frozen=True)
class DropoutCache:
    """What `dropout_backward` needs of a forward call; treat it as opaque."""

    kept: np.ndarray | None  # booleans of x's shape; None where nothing was dropped
    scale: float
    shape: tuple[int, ...]
    dtype: np.dtype
    result_dtype: np.dtype

    def apply(self, values: np.ndarray) -> np.ndarray:
        """values * scale where kept, 0 elsewhere; NaN stays NaN, and the result is always a new array."""
        if self.kept is None:
            return values.astype(self.result_dtype)
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            out = np.asarray(values * self.kept)
            out *= self.dtype.type(self.scale)
        return out.astype(self.result_dtype, copy=False)


def dropout_forward(
    x: Any, p: float = 0.5, *, training: bool = True, rng: np.random.Generator | int | None = None
) -> tuple[np.ndarray, DropoutCache]:
    """(`dropout(x, p, ...)`, cache for `dropout_backward`). Arguments as for `dropout`."""
    function = "dropout"
    x = arguments.array(function, "x", x)
    p = arguments.real(function, "p", p)
    if not 0 <= p <= 1:
        raise ValueError(f"{function}: p must be from 0 to 1, got {p}")
    generator = _generator(function, rng)
    dtype, result_dtype = arguments.dtypes(x)
    kept = None
    if training and p > 0:
        # float32 draws for any dtype: half the time, and the same mask; at p = 1 none is kept
        kept = np.asarray(generator.random(x.shape, np.float32) >= p)
    cache = DropoutCache(kept, 1 / (1 - p) if p < 1 else 0.0, x.shape, dtype, result_dtype)
    return cache.apply(arguments.dense(x, dtype)), cache


def _generator(function: str, rng: Any) -> np.random.Generator:
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    try:
        return np.random.default_rng(arguments.integer(function, "rng", rng, 0))
    except TypeError:
        raise TypeError(
            f"{function}: rng must be a numpy.random.Generator, a seed or None, got {type(rng).__name__}"
        ) from None


def dropout(
    x: Any, p: float = 0.5, *, training: bool = True, rng: np.random.Generator | int | None = None
) -> np.ndarray:
    """In training, zero each number with probability p and scale the others by 1 / (1 - p); otherwise a copy of x.

    Parameters
    ----------
    p : probability of dropping, from 0 to 1.
    training : whether anything is dropped.
    rng : generator to draw from, a seed (the same one gives the same mask), or None for fresh randomness.

    Raises
    ------
    ValueError : p is outside its range. TypeError : wrong type.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.

    Examples
    --------
    >>> import numpy as np
    >>> set(dropout(np.ones(100), 0.75, rng=0))  == {0.0, 4.0}
    True
    """
    return dropout_forward(x, p, training=training, rng=rng)[0]


def dropout_backward(dout: Any, cache: DropoutCache) -> np.ndarray:
    """Gradient by x: dout scaled where x was kept, 0 elsewhere.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `dropout_forward`.
    """
    function = "dropout_backward"
    if not isinstance(cache, DropoutCache):
        raise TypeError(f"{function}: cache must come from dropout_forward, got {type(cache).__name__}")
    dout = arguments.array(function, "dout", dout)
    if dout.shape != cache.shape:
        raise ValueError(f"{function}: dout must have the output's shape {cache.shape}, got {dout.shape}")
    return cache.apply(arguments.dense(dout, cache.dtype))
