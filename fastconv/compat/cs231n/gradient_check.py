"""CS231n's `gradient_check.py`, and the `rel_error` that its notebooks define."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.testing import numerical_gradient, rel_error

__all__ = ["eval_numerical_gradient", "eval_numerical_gradient_array", "rel_error"]


def eval_numerical_gradient(
    f: Callable[[np.ndarray], Any], x: Any, verbose: bool = True, h: float = 1e-5
) -> np.ndarray:
    """Gradient of a scalar function f at x by central differences; with `verbose` every number of it is printed.

    Raises
    ------
    ValueError : f(x) is no scalar, or h is lost in x's rounding, where the course's function returns zeros.

    >>> eval_numerical_gradient(lambda x: (x**2).sum(), np.array([1.0, -3.0]), verbose=False).round(6)
    array([ 2., -6.])
    """
    gradient = numerical_gradient(f, x, h=h)
    if verbose:
        for place, value in np.ndenumerate(gradient):
            print(place, value)
    return gradient


def eval_numerical_gradient_array(f: Callable[[np.ndarray], Any], x: Any, df: Any, h: float = 1e-5) -> np.ndarray:
    """Gradient at x of sum(f(x) * df), where f returns an array of df's shape.

    >>> eval_numerical_gradient_array(lambda x: x**2, np.array([1.0, -3.0]), np.array([1.0, 0.5])).round(6)
    array([ 2., -3.])
    """
    return numerical_gradient(f, x, df, h)
