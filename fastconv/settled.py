"""What the shapes, dtypes and options of a call decide, settled once and kept for the next call of the same form."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv import arguments
from fastconv.arguments import Pads
from fastconv.plan import check_algorithm
from fastconv.problem import LAYOUTS, ConvProblem

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
ACTIVATIONS = (None, "relu")
FORMS_KEPT = 1024


class Settled(NamedTuple):
    """A convolution without its arrays. Every check that does not depend on the numbers in them has been made."""

    problem: ConvProblem  # of the kernel: after padding by copies, if there is any
    algorithm: str
    relu: bool
    result_dtype: np.dtype
    copied_pads: Pads | None  # padding whose mode is not "zeros"
    padding_mode: str


def problem_of(
    function: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], dtype: np.dtype, stride: Any, pads: Any,
    dilation: Any, groups: Any, layout: str,
) -> ConvProblem:  # fmt: skip
    """Check sizes against each other and normalise every loose form."""
    stride = arguments.pair(function, "stride", stride, 1)
    dilation = arguments.pair(function, "dilation", dilation, 1)
    groups = arguments.integer(function, "groups", groups, 1)
    pads = arguments.pads(function, pads)
    if layout == "NHWC":
        (N, H, W, C), (KH, KW, channels, F) = x_shape, w_shape
    else:
        (N, C, H, W), (F, channels, KH, KW) = x_shape, w_shape
    if C % groups or F % groups:
        raise ValueError(f"{function}: groups must divide channels and filters, got {groups} for {C} and {F}")
    if channels * groups != C:
        raise ValueError(
            f"{function}: w has {channels} input channels per group, expected x's channels / groups = {C} / {groups} "
            f"= {C // groups}"
        )
    if KH < 1 or KW < 1:
        raise ValueError(f"{function}: w must have a kernel of at least 1x1, got {KH}x{KW}")
    pads = arguments.resolve_pads(pads, (H, W), (KH, KW), stride, dilation)
    # Strides past the end and the dilation of a single tap mean nothing, but tables grow with them.
    stride = min(stride[0], max(H + sum(pads[0]), 1)), min(stride[1], max(W + sum(pads[1]), 1))
    dilation = dilation[0] if KH > 1 else 1, dilation[1] if KW > 1 else 1
    problem = ConvProblem(N, C, H, W, F, KH, KW, stride, pads, dilation, groups, layout, dtype)
    if problem.OH < 1 or problem.OW < 1:
        reach = (dilation[0] * (KH - 1) + 1, dilation[1] * (KW - 1) + 1)
        raise ValueError(
            f"{function}: the dilated kernel must not be larger than the padded input, got {reach[0]}x{reach[1]} "
            f"for padded input {problem.padded[0]}x{problem.padded[1]}"
        )
    return problem


def settle(
    function: str, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Any, pads: Any, dilation: Any,
    groups: Any, padding_mode: str, layout: str, activation: str | None, algorithm: str,
) -> Settled:  # fmt: skip
    """Check and normalise all arguments of a call, or remember that this was done.

    Raises
    ------
    ValueError, TypeError : see `conv2d`.
    """
    # True and 1.0 would be found under the key of 1; so only plain integers are looked up as they are.
    if type(stride) is not int:
        stride = arguments.pair(function, "stride", stride, 1)
    if type(pads) is not int:
        pads = arguments.pads(function, pads)
    if type(dilation) is not int:
        dilation = arguments.pair(function, "dilation", dilation, 1)
    if type(groups) is not int:
        groups = arguments.integer(function, "groups", groups, 1)
    b_form = (None, None) if b is None else (b.shape, b.dtype)
    form = (
        function, x.shape, x.dtype, w.shape, w.dtype, *b_form, stride, pads, dilation, groups, padding_mode, layout,
        activation, algorithm,
    )  # fmt: skip
    try:
        return _settled(*form)
    except TypeError:  # an option that has no hash has no right value either
        return _settled.__wrapped__(*form)


@lru_cache(maxsize=FORMS_KEPT)
def _settled(
    function: str, x_shape: tuple[int, ...], x_dtype: np.dtype, w_shape: tuple[int, ...], w_dtype: np.dtype,
    b_shape: tuple[int, ...] | None, b_dtype: np.dtype | None, stride: Any, pads: Any, dilation: Any, groups: int,
    padding_mode: str, layout: str, activation: str | None, algorithm: str,
) -> Settled:  # fmt: skip
    arguments.check_array(function, "x", x_dtype, x_shape, 4)
    arguments.check_array(function, "w", w_dtype, w_shape, 4)
    arguments.choice(function, "layout", layout, LAYOUTS)
    arguments.choice(function, "activation", activation, ACTIVATIONS)
    arguments.choice(function, "padding_mode", padding_mode, PADDING_MODES)
    check_algorithm(function, algorithm)
    if b_shape is not None:
        assert b_dtype is not None
        arguments.check_array(function, "b", b_dtype, b_shape, 1)
    dtype, result_dtype = arguments.dtypes(x_dtype, w_dtype, b_dtype)
    problem = problem_of(function, x_shape, w_shape, dtype, stride, pads, dilation, groups, layout)
    if b_shape is not None and b_shape != (problem.F,):
        raise ValueError(f"{function}: b must have one number per filter, shape ({problem.F},), got {b_shape}")
    copied_pads = None
    if padding_mode != "zeros" and not problem.no_padding:
        copied_pads = problem.pads
        (N, C), (height, width) = (problem.N, problem.C), problem.padded
        padded = (N, height, width, C) if problem.channels_last else (N, C, height, width)
        problem = problem_of(function, padded, w_shape, dtype, problem.stride, 0, problem.dilation, groups, layout)
    return Settled(problem, algorithm, activation == "relu", result_dtype, copied_pads, padding_mode)
