"""Loose arguments in, strict ones out: the checks and messages that every public function shares.

Messages read `function: argument rule, got value`. Nothing downstream of these helpers sees a loose form.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import workspace

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]  # ((top, bottom), (left, right))

LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}  # by number of axes; channels last second

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def array(function: str, name: str, value: Any, ndim: int | tuple[int, ...] | None = None) -> np.ndarray:
    """`value` as an array of real numbers with one of the given ranks.

    Raises
    ------
    TypeError : not an array of booleans, integers or floats (object, complex and text arrays are refused).
    ValueError : wrong number of dimensions.
    """
    try:
        result = np.asarray(value)
    except ValueError as error:
        raise TypeError(
            f"{function}: {name} must be an array of numbers, got {type(value).__name__} ({error})"
        ) from None
    check_array(function, name, result.dtype, result.shape, ndim)
    return result


def check_array(
    function: str, name: str, dtype: np.dtype, shape: tuple[int, ...], ndim: int | tuple[int, ...] | None = None
) -> None:
    """Raise what `array` raises for an array of that dtype and shape."""
    if dtype in _FLOATS and len(shape) == ndim:
        return
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise TypeError(
            f"{function}: {name} must hold float16, float32, float64, integers or booleans, got dtype {dtype}"
        )
    ranks = (ndim,) if isinstance(ndim, int) else ndim
    if ranks is not None and len(shape) not in ranks:
        expected = " or ".join(map(str, ranks))
        raise ValueError(f"{function}: {name} must have {expected} dimensions, got shape {shape}")


def dtypes(*arrays: np.ndarray | np.dtype | None) -> tuple[np.dtype, np.dtype]:
    """(dtype to compute in, dtype to return) for the given arrays or dtypes.

    float32 and float64 are computed as such, float16 in float32 and returned as float16; integers and booleans
    alone become float64.
    """
    given = [a.dtype if isinstance(a, np.ndarray) else a for a in arrays if a is not None]
    result = np.result_type(*given).newbyteorder("=")
    if result in _FLOATS:
        return result, result
    if result == np.float16:
        return _FLOATS[0], result
    return _FLOATS[1], _FLOATS[1]


class _Unlocked:
    """A read-only array's memory, offered as writeable; holds the array alive."""

    def __init__(self, locked: np.ndarray):
        self.locked = locked
        address = locked.__array_interface__["data"][0]
        self.__array_interface__ = {**locked.__array_interface__, "data": (address, False)}


def dense(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array itself if it is C-contiguous, aligned and native of that dtype, a copy otherwise.

    For kernels only, which never write into their operands: a read-only array comes back as a writeable view, since
    Numba would compile every kernel a second time for read-only ones.
    """
    if value.dtype == dtype and value.flags.carray:  # what `require` finds out in ten times the time
        return value
    result = np.require(value, dtype, ("C", "A"))
    return result if result.flags.writeable else np.asarray(_Unlocked(result))


def integer(function: str, name: str, value: Any, minimum: int) -> int:
    """`value` as a Python int of at least `minimum`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{function}: {name} must be an integer, got {value!r}")
    if number < minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {number}")
    return number


def is_sequence(value: Any) -> bool:
    """Whether `value` is a list, tuple or array of entries, and no text."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str)


def pair(function: str, name: str, value: Any, minimum: int) -> Pair:
    """An integer or a pair of integers (vertical, horizontal) as a pair."""
    if type(value) is int and value >= minimum:
        return value, value
    if type(value) is tuple and len(value) == 2:  # as layers hold it, call for call
        first, second = value
        if type(first) is type(second) is int and first >= minimum and second >= minimum:
            return value
    if is_sequence(value):
        if len(value) != 2:
            raise ValueError(f"{function}: {name} must be an integer or a pair, got {value!r}")
        return integer(function, name, value[0], minimum), integer(function, name, value[1], minimum)
    both = integer(function, name, value, minimum)
    return both, both


def shape(function: str, name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """A sequence of `ndim` sizes as a tuple of Python ints."""
    if not is_sequence(value):
        raise TypeError(f"{function}: {name} must be a sequence of {ndim} integers, got {value!r}")
    if len(value) != ndim:
        raise ValueError(f"{function}: {name} must have {ndim} entries, got {value!r}")
    return tuple(integer(function, name, length, 0) for length in value)


def choice(function: str, name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """`value` if it is one of the allowed ones."""
    if not any(value is a or (isinstance(value, str) and value == a) for a in allowed):
        kind = ValueError if isinstance(value, str) or value is None else TypeError
        raise kind(f"{function}: {name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def real(function: str, name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, (bool, np.bool_, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{function}: {name} must be a number, got {value!r}")
    result = float(value)
    if not np.isfinite(result):
        raise ValueError(f"{function}: {name} must be finite, got {result}")
    return result


def pads(function: str, padding: Any) -> Pads | str:
    """Every form of `padding` as ((top, bottom), (left, right)), or one of the names "same", "same_lower".

    Accepts an integer, (vertical, horizontal), ((top, bottom), (left, right)), "valid", "same", "same_lower".
    """
    if type(padding) is int and padding >= 0:
        return (padding, padding), (padding, padding)
    if isinstance(padding, str):
        choice(function, "padding", padding, ("valid", "same", "same_lower"))
        return ((0, 0), (0, 0)) if padding == "valid" else padding
    if is_sequence(padding):
        if len(padding) != 2:
            raise ValueError(
                f"{function}: padding must be an integer, (vertical, horizontal) or ((top, bottom), (left, right)), "
                f"got {padding!r}"
            )
        return pair(function, "padding", padding[0], 0), pair(function, "padding", padding[1], 0)
    both = integer(function, "padding", padding, 0)
    return (both, both), (both, both)


def per_axis(function: str, name: str, value: Any, axes: int, minimum: int) -> tuple[int, ...]:
    """An integer, or one for each axis, as a tuple."""
    if axes == 2:
        return pair(function, name, value, minimum)
    if type(value) is int and value >= minimum:
        return (value,) * axes
    if not is_sequence(value):
        return (integer(function, name, value, minimum),) * axes
    if len(value) != axes:
        raise ValueError(f"{function}: {name} must be an integer or a sequence of {axes}, got {value!r}")
    return tuple(integer(function, name, entry, minimum) for entry in value)


def pads_per_axis(function: str, padding: Any, axes: int) -> tuple[Pair, ...] | str:
    """Every form of `padding` as (before, after) for each axis, or one of the names "same", "same_lower".

    In one dimension (before, after) stands for ((before, after),).
    """
    if axes == 2 or not is_sequence(padding):
        both = pads(function, padding)
        return both if isinstance(both, str) else (both * 2)[:axes]
    if axes == 1 and len(padding) == 2:
        padding = (padding,)
    if len(padding) != axes:
        raise ValueError(f"{function}: padding must be an integer or a sequence of {axes}, got {padding!r}")
    return tuple(pair(function, "padding", entry, 0) for entry in padding)


def image_sizes(
    function: str, shape: tuple[int, ...], layout: Any, axes: int
) -> tuple[int, int, tuple[int, ...], bool]:
    """(N, C, lengths of the axes, whether channels are last) of an image batch of that shape."""
    choice(function, "layout", layout, LAYOUTS[axes])
    if layout == LAYOUTS[axes][1]:
        return shape[0], shape[-1], shape[1:-1], True
    return shape[0], shape[1], shape[2:], False


def times(lengths: Sequence[int]) -> str:
    """Sizes as messages show them: 3x4x5."""
    return "x".join(map(str, lengths))


def resolve_pads(
    named: tuple[Pair, ...] | str, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Pair, ...]:  # fmt: skip
    """The numbers for "same" (TensorFlow's rule: ceil(size / stride) outputs, the odd cell at the end)."""
    if not isinstance(named, str):
        return named
    result = []
    for length, taps, step, gap in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-length // step) - 1) * step + gap * (taps - 1) + 1 - length, 0)
        small, large = total // 2, total - total // 2
        result.append((small, large) if named == "same" else (large, small))
    return tuple(result)


def output_length(padded: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """How many windows of a (dilated) kernel fit along a padded axis: the library's one output-size formula."""
    return (padded - dilation * (kernel - 1) - 1) // stride + 1


def output_array(function: str, out: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Check a caller's `out` array, or make a fresh one."""
    if out is None:
        return workspace.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{function}: out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"{function}: out must have shape {shape} and dtype {dtype}, got {out.shape} and {out.dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{function}: out must be writeable, got a read-only array")
    return out
