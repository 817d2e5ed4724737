"""Convolution for NumPy at the speed of the hardware.

Plain arrays in, plain arrays out: `conv2d`, pooling, padding, normalisation, linear layers and losses, forward and
backward, on all cores. `fastconv.nn` trains small networks with them, `fastconv.runtime` controls threads and
caches, `fastconv.testing` checks gradients.

>>> import numpy as np, fastconv
>>> x, w = np.ones((1, 3, 32, 32), np.float32), np.ones((8, 3, 3, 3), np.float32)
>>> fastconv.conv2d(x, w, padding=1).shape
(1, 8, 32, 32)
"""

from __future__ import annotations

import importlib
from typing import Any

from fastconv import runtime as runtime  # first of all: it settles how idle threads wait

__version__ = "0.1.0"

# Where public functions are defined; a star stands for the plain name, `_forward` and `_backward`. A module is imported
# when one of its names is first used: importing all of them took 0.12 s, and 0.4 s where Python may not write bytecode,
# beside 0.3 to 0.4 s of NumPy and Numba. No module bears the name of a function: imported from elsewhere, it would
# stand in the function's place. Type checkers read `__init__.pyi`.
_DEFINED_IN = {
    "activations": "gelu* leaky_relu* relu* sigmoid* softmax* tanh*",
    "columns": "col2im im2col",
    "conv_1d": "conv1d* depthwise_conv1d*",
    "conv_2d": "conv2d* depthwise_conv2d* explain_conv2d",
    "conv_3d": "conv3d* depthwise_conv3d*",
    "conv_transpose": "conv_transpose1d* conv_transpose2d* conv_transpose3d*",
    "filters": "filter_image",
    "fully_connected": "linear*",
    "losses": "mse_loss softmax_cross_entropy svm_loss",
    "normalization": "batch_norm* group_norm* layer_norm*",
    "padding": "pad2d*",
    "plan": "conv2d_algorithms",
    "pooling": (
        "adaptive_avg_pool1d* adaptive_avg_pool2d* adaptive_avg_pool3d* "
        "adaptive_max_pool1d* adaptive_max_pool2d* adaptive_max_pool3d* "
        "avg_pool1d* avg_pool2d* avg_pool3d* global_avg_pool1d* global_avg_pool2d* global_avg_pool3d* "
        "global_max_pool1d* global_max_pool2d* global_max_pool3d* lp_pool1d* lp_pool2d* lp_pool3d* "
        "max_pool1d* max_pool2d* max_pool3d* max_unpool1d* max_unpool2d* max_unpool3d*"
    ),
    "prepared": "prepare_conv2d",
    "regularization": "dropout*",
}
_MODULES = ("datasets", "nn", "plots", "pooling", "testing")


def _homes() -> dict[str, str]:
    """The module of each public function."""
    result = {}
    for module, names in _DEFINED_IN.items():
        for name in names.split():
            plain = name.removesuffix("*")
            for ending in ("",) if name == plain else ("", "_backward", "_forward"):
                result[plain + ending] = module
    return result


_HOMES = _homes()
__all__ = sorted({*_HOMES, *_MODULES, "runtime"} - {"pooling"})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fastconv.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastconv.{_HOMES[name]}"), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
