"""Gradient checks for users' own layers and for the library's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastconv import arguments

SMALLEST = 1e-8  # numbers whose sum of magnitudes is below this are compared absolutely, relative to it


def rel_error(x: Any, y: Any) -> float:
    """Largest |x - y| / max(1e-8, |x| + |y|): 0 where equal, 1 where signs differ, NaN if anything is; 0 if empty.

    Raises
    ------
    ValueError : the shapes differ. TypeError : wrong type.

    Examples
    --------
    >>> rel_error([1.0, 2.0], [1.0, 6.0])
    0.5
    """
    x, y = (arguments.array("rel_error", name, a).astype(np.float64) for name, a in (("x", x), ("y", y)))
    if x.shape != y.shape:
        raise ValueError(f"rel_error: y must have x's shape {x.shape}, got {y.shape}")
    if not x.size:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.max(np.abs(x - y) / np.maximum(SMALLEST, np.abs(x) + np.abs(y))))


def numerical_gradient(f: Callable[[np.ndarray], Any], x: Any, df: Any = None, h: float = 1e-5) -> np.ndarray:
    """Gradient of f at x by central differences, (f(x + h) - f(x - h)) / 2h for one number of x at a time.

    Parameters
    ----------
    f : called with x; returns a scalar, or with `df` an array. It may also read x from where the caller has it,
        because a writeable array of floats is changed in place (and restored, also after an exception).
    x : array. Integers, lists and read-only arrays are copied as float64.
    df : gradient of the loss by f(x), of the shape of f(x): the result is then that of sum(f(x) * df).
    h : half the step. 1e-5 suits float64; for float32 take about 1e-2.

    Returns
    -------
    float64 array of x's shape.

    Raises
    ------
    ValueError : f(x) is no scalar (without df) or has another shape than df, or h is lost in x's rounding.

    Examples
    --------
    >>> import numpy as np
    >>> numerical_gradient(lambda x: (x**2).sum(), np.array([1.0, -3.0])).round(6)
    array([ 2., -6.])
    """
    function = "numerical_gradient"
    given = arguments.array(function, "x", x)
    h = arguments.real(function, "h", h)
    if h <= 0:
        raise ValueError(f"{function}: h must be above 0, got {h}")
    in_place = isinstance(x, np.ndarray) and given.dtype.kind == "f" and given.flags.writeable
    x = given if in_place else given.astype(np.float64)
    weights = None if df is None else arguments.array(function, "df", df).astype(np.float64)

    def value() -> np.ndarray:
        result = np.array(f(x), np.float64)  # a copy: f may return a view of x
        if weights is None and result.size != 1:
            raise ValueError(f"{function}: f must return a scalar when df is None, got shape {result.shape}")
        if weights is not None and result.shape != weights.shape:
            raise ValueError(f"{function}: df must have the shape of f(x), {result.shape}, got {weights.shape}")
        return result

    gradient = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        before = x[place]
        try:
            x[place] = before + h
            upper, above = float(x[place]), value()
            x[place] = before - h
            lower, below = float(x[place]), value()
        finally:
            x[place] = before
        if upper == lower:
            raise ValueError(f"{function}: h must change x, but {h} is lost in rounding {before!r} ({x.dtype})")
        difference = above - below if weights is None else (above - below) * weights
        gradient[place] = difference.sum() / (upper - lower)
    return gradient


def check_gradients(
    forward: Callable[..., tuple[np.ndarray, Any]],
    backward: Callable[[np.ndarray, Any], Any],
    inputs: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    *,
    dout: Any = None,
    h: float = 1e-5,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the gradients of a forward / backward pair with central differences.

    Parameters
    ----------
    forward : called as forward(*inputs), returns (out, cache). It must be deterministic.
    backward : called as backward(dout, cache), returns one gradient per input (or just the gradient of a single
        input). A gradient that is None is not checked.
    inputs : {name: float64 array} in the order of forward's arguments, or a sequence (then named "0", "1", ...).
    dout : gradient by the output; by default drawn from a normal distribution with `seed`.
    h : half the step of the differences.
    tolerance : largest error allowed. An error is the largest difference of a gradient, divided by the largest
        magnitude of the numerical gradient (or by 1 if that is larger).

    Returns
    -------
    {name: error} of the gradients that were checked.

    Raises
    ------
    AssertionError : a gradient has the wrong shape or an error above the tolerance; the message shows the worst place.
    ValueError : backward returns another number of gradients than there are inputs.
    TypeError : an input does not hold float64, whose rounding the differences need.

    Examples
    --------
    >>> import numpy as np
    >>> def forward(a, b): return a * b, (a, b)
    >>> def backward(dout, cache): return dout * cache[1], dout * cache[0]
    >>> errors = check_gradients(forward, backward, {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])})
    >>> sorted(errors), max(errors.values()) < 1e-8
    (['a', 'b'], True)
    """
    function = "check_gradients"
    if isinstance(inputs, np.ndarray):
        raise TypeError(f"{function}: inputs must be a mapping or a sequence of arrays, got one array")
    named = dict(inputs) if isinstance(inputs, Mapping) else {str(i): value for i, value in enumerate(inputs)}
    for name, value in named.items():
        if arguments.array(function, name, value).dtype != np.float64:
            raise TypeError(f"{function}: {name} must hold float64, got dtype {np.asarray(value).dtype}")
    arrays = [np.array(value) for value in named.values()]
    out, cache = forward(*arrays)
    if dout is None:
        dout = np.random.default_rng(seed).standard_normal(np.shape(out))
    found = backward(dout, cache)
    gradients = tuple(found) if isinstance(found, (tuple, list)) else (found,)
    if len(gradients) != len(arrays):
        raise ValueError(f"{function}: backward must return {len(arrays)} gradients, got {len(gradients)}")
    errors = {}
    for name, array, gradient in zip(named, arrays, gradients, strict=True):
        if gradient is None:
            continue
        expected = numerical_gradient(lambda _: forward(*arrays)[0], array, dout, h)
        errors[name] = _compare(function, name, np.asarray(gradient), expected, tolerance)
    return errors


def _compare(function: str, name: str, gradient: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    if gradient.shape != expected.shape:
        raise AssertionError(f"{function}: gradient of {name} has shape {gradient.shape}, expected {expected.shape}")
    if not expected.size:
        return 0.0
    difference = np.abs(gradient - expected)
    error = float(difference.max() / max(1.0, np.abs(expected).max()))
    if not error <= tolerance:  # NaN is an error too
        place = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
        raise AssertionError(
            f"{function}: gradient of {name} is {gradient[place]} at {place}, central differences give "
            f"{expected[place]}; error {error:.3g} is above the tolerance {tolerance:g}"
        )
    return error
