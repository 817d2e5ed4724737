"""What the shapes, dtypes and options of a call decide, settled once and kept for the next call of the same form."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv import arguments
from fastconv.arguments import Pair
from fastconv.plan import check_algorithm
from fastconv.sizes import sizes_of
from fastconv.volume import Problem

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
ACTIVATIONS = (None, "relu")
FORMS_KEPT = 1024


class Settled(NamedTuple):
    """A convolution without its arrays. Every check that does not depend on the numbers in them has been made."""

    problem: Problem  # of the kernel: after padding by copies, if there is any
    algorithm: str
    relu: bool
    result_dtype: np.dtype
    copied_pads: tuple[Pair, ...] | None  # padding whose mode is not "zeros"
    padding_mode: str
    # The caller's shapes, x after padding by copies; the problem's have the same numbers in the same order.
    given_shape: tuple[int, ...]  # x before it
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def axes(self) -> int:
        return len(self.x_shape) - 2


def settle(
    function: str, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Any, pads: Any, dilation: Any,
    groups: Any, padding_mode: str, layout: str, activation: str | None, algorithm: str, axes: int = 2,
) -> Settled:  # fmt: skip
    """Check and normalise all arguments of a call along 1, 2 or 3 axes, or remember that this was done.

    Raises
    ------
    ValueError, TypeError : see `conv2d`.
    """
    # True and 1.0 would be found under the key of 1; so only plain integers are looked up as they are.
    if type(stride) is not int:
        stride = arguments.per_axis(function, "stride", stride, axes, 1)
    if type(pads) is not int:
        pads = arguments.pads_per_axis(function, pads, axes)
    if type(dilation) is not int:
        dilation = arguments.per_axis(function, "dilation", dilation, axes, 1)
    if type(groups) is not int:
        groups = arguments.integer(function, "groups", groups, 1)
    b_form = (None, None) if b is None else (b.shape, b.dtype)
    form = (
        function, x.shape, x.dtype, w.shape, w.dtype, *b_form, stride, pads, dilation, groups, padding_mode, layout,
        activation, algorithm, axes,
    )  # fmt: skip
    try:
        return _settled(*form)
    except TypeError:  # an option that has no hash has no right value either
        return _settled.__wrapped__(*form)


@lru_cache(maxsize=FORMS_KEPT)
def _one(problem: Problem) -> Problem:
    """The same object for equal problems, so that plans are found without comparing them."""
    return problem


@lru_cache(maxsize=FORMS_KEPT)
def _settled(
    function: str, x_shape: tuple[int, ...], x_dtype: np.dtype, w_shape: tuple[int, ...], w_dtype: np.dtype,
    b_shape: tuple[int, ...] | None, b_dtype: np.dtype | None, stride: Any, pads: Any, dilation: Any, groups: int,
    padding_mode: str, layout: str, activation: str | None, algorithm: str, axes: int,
) -> Settled:  # fmt: skip
    arguments.check_array(function, "x", x_dtype, x_shape, axes + 2)
    arguments.check_array(function, "w", w_dtype, w_shape, axes + 2)
    arguments.choice(function, "layout", layout, arguments.LAYOUTS[axes])
    arguments.choice(function, "activation", activation, ACTIVATIONS)
    arguments.choice(function, "padding_mode", padding_mode, PADDING_MODES)
    check_algorithm(function, algorithm)
    if b_shape is not None:
        assert b_dtype is not None
        arguments.check_array(function, "b", b_dtype, b_shape, 1)
    dtype, result_dtype = arguments.dtypes(x_dtype, w_dtype, b_dtype)
    sizes = sizes_of(function, x_shape, w_shape, stride, pads, dilation, groups, layout)
    if b_shape is not None and b_shape != (sizes.F,):
        raise ValueError(f"{function}: b must have one number per filter, shape ({sizes.F},), got {b_shape}")
    copied_pads = None
    if padding_mode != "zeros" and any(map(any, sizes.pads)):
        copied_pads = sizes.pads
        sizes = sizes.laid_out()
    return Settled(
        _one(sizes.problem(dtype)), algorithm, activation == "relu", result_dtype, copied_pads, padding_mode, x_shape,
        sizes.x_shape, sizes.w_shape, sizes.out_shape,
    )  # fmt: skip
