"""Convolution on the matrix unit of recent x86 servers (AMX), by floats cut into bfloat16 parts: see `matrix_tile`."""

from __future__ import annotations

from functools import partial

import numpy as np

from fastconv._kernels.isa import matrix_unit_missing
from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.matrix_pixels import MatrixPixelsPass
from fastconv.problem import ConvProblem

_LEAST_OF_GROUP = 8


def _declines(problem: ConvProblem, direction: str) -> str | None:
    missing = matrix_unit_missing()
    if missing:
        return missing
    if problem.dtype != np.float32:
        return f"the unit multiplies parts of float32, not {problem.dtype}"
    if problem.groups > 1 and min(problem.group_channels, problem.group_filters) < _LEAST_OF_GROUP:
        return f"groups of fewer than {_LEAST_OF_GROUP} channels or filters leave the unit empty"
    if direction == "gradient_w":
        return "only forward and the gradient of x are made"
    return None


def _algorithm(name: str, description: str, parts: int) -> Algorithm:
    return Algorithm(
        name,
        description,
        lambda problem, threads, relu: MatrixPixelsPass(problem, threads, parts=parts, gradient=False, relu=relu),
        partial(MatrixPixelsPass, parts=parts, gradient=True),
        None,
        _declines,
        exact=parts == 3,
    )


ALGORITHMS = (
    _algorithm("amx", "matrix unit, three bfloat16 parts of each number: as accurate as multiply-adds", 3),
    _algorithm("amx_fast", "matrix unit, two parts: half the work, about ten times the rounding error", 2),
)
