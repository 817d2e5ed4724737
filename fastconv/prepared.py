"""Convolution with fixed weights: packed or transformed once, used by many calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import arguments, pieces
from fastconv.conv import run_forward
from fastconv.plan import check_algorithm
from fastconv.problem import LAYOUTS
from fastconv.settled import ACTIVATIONS, PADDING_MODES

PASSES_KEPT = 8  # packed weights are as large as the weights, and a server sees a few sizes of batch
_MISSING = object()


class PreparedConv2d:
    """A convolution with fixed weights and options; `prepare_conv2d` makes it. Any number of threads may call it."""

    def __init__(self, w: np.ndarray, b: np.ndarray | None, options: dict[str, Any]):
        self._w, self._b, self._options = w, b, options
        self._packed: dict[Any, Any] = {}  # pass -> the weights in its form

    def __call__(self, x: Any, out: np.ndarray | None = None) -> np.ndarray:
        """What `conv2d(x, w, b, ..., out=out)` gives, bit for bit."""
        return run_forward(
            "conv2d", x, self._w, self._b, **self._options, out=out, keep=False, prepared=self._weights_for
        )[0]

    def _weights_for(self, work: Any, w: np.ndarray) -> Any:
        packed = self._packed.get(work, _MISSING)
        if packed is _MISSING:
            packed = pieces.prepare(work, w)
            for oldest in list(self._packed)[: 1 - PASSES_KEPT]:
                self._packed.pop(oldest, None)
            self._packed[work] = packed
        return packed


def prepare_conv2d(
    w: Any, b: Any = None, *, x_shape: tuple[int, ...] | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros", layout: str = "NCHW",
    activation: str | None = None, algorithm: str = "auto",
) -> PreparedConv2d:  # fmt: skip
    """`conv2d` for many x and the same weights: returns a function f(x, out=None).

    f gives what `conv2d(x, w, b, ...)` gives, bit for bit, but the weights are brought into the form that the chosen
    algorithm reads (packed, or transformed) only when an x of another shape or dtype comes, and kept for the latest
    few. Changing w or b afterwards changes nothing.

    Parameters
    ----------
    x_shape : the shape of x, if known: the weights are prepared for it now (for x of w's dtype), not in the first call.

    The others are as for `conv2d`; those that depend on x are checked when x is known.

    Examples
    --------
    >>> import numpy as np
    >>> f = prepare_conv2d(np.ones((8, 3, 3, 3), np.float32), padding=1, activation="relu")
    >>> f(np.ones((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    """
    function = "prepare_conv2d"
    w = np.array(arguments.array(function, "w", w, 4))
    b = None if b is None else np.array(arguments.array(function, "b", b, 1))
    arguments.pair(function, "stride", stride, 1)
    arguments.pads(function, padding)
    arguments.pair(function, "dilation", dilation, 1)
    arguments.integer(function, "groups", groups, 1)
    arguments.choice(function, "padding_mode", padding_mode, PADDING_MODES)
    arguments.choice(function, "layout", layout, LAYOUTS)
    arguments.choice(function, "activation", activation, ACTIVATIONS)
    check_algorithm(function, algorithm)
    prepared = PreparedConv2d(
        w, b,
        {
            "stride": stride, "pads": padding, "dilation": dilation, "groups": groups, "padding_mode": padding_mode,
            "layout": layout, "activation": activation, "algorithm": algorithm,
        },
    )  # fmt: skip
    if x_shape is not None:
        prepared(np.zeros(arguments.shape(function, "x_shape", x_shape, 4), w.dtype))
    return prepared
