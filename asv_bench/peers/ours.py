"""fastconv's side: the three passes of one layer through the public functions, on the same numbers in both layouts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from contest import Contender, channels_first, filters_first

from fastconv import conv2d, conv2d_backward, conv2d_forward, explain_conv2d, prepare_conv2d
from fastconv.catalogue import Case

PASSES = ("forward", "dx", "dw")
PREPARED = "prepared"  # "auto" with the weights packed beforehand, as ONNX Runtime's sessions have them


@dataclass(frozen=True)
class Arrays:
    """Normally distributed inputs of all passes, channels first."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    dout: np.ndarray


def arrays(case: Case, dtype: str) -> Arrays:
    """The same numbers in every run."""
    problem = explain_conv2d(case.x_shape(), case.w_shape(), dtype=dtype, **case.options).problem
    rng = np.random.default_rng(0)
    shapes = (case.x_shape(), case.w_shape(), (case.F,), problem.out_shape)
    return Arrays(*(rng.standard_normal(shape, dtype) for shape in shapes))


def flops(case: Case) -> int:
    """Of one pass."""
    return explain_conv2d(case.x_shape(), case.w_shape(), **case.options).flops


def passes(case: Case, numbers: Arrays, layout: str, algorithm: str) -> dict[str, Contender]:
    """pass -> contender; results are new arrays, as a caller gets them. The algorithm may be `PREPARED`.

    Raises
    ------
    ValueError : a named algorithm does not support the layer.
    """
    x, w, b, dout = numbers.x, numbers.w, numbers.b, numbers.dout
    if layout == "NHWC":
        x, dout = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, dout))
        w = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    options = {"layout": layout, "algorithm": "auto" if algorithm == PREPARED else algorithm, **case.options}
    _, cache = conv2d_forward(x, w, b, **options)
    images, filters = partial(channels_first, layout=layout), partial(filters_first, layout=layout)
    prepared = prepare_conv2d(w, b, x_shape=x.shape, **options) if algorithm == PREPARED else None
    return {
        "forward": Contender((lambda: prepared(x)) if prepared else (lambda: conv2d(x, w, b, **options)), images),
        "dx": Contender(lambda: conv2d_backward(dout, cache, wrt=("x",))[0], images),
        "dw": Contender(lambda: conv2d_backward(dout, cache, wrt=("w",))[1], filters),
    }
