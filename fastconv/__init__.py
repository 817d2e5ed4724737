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
from types import ModuleType

from fastconv import pooling, runtime, testing
from fastconv.activations import (
    gelu,
    gelu_backward,
    gelu_forward,
    leaky_relu,
    leaky_relu_backward,
    leaky_relu_forward,
    relu,
    relu_backward,
    relu_forward,
    sigmoid,
    sigmoid_backward,
    sigmoid_forward,
    softmax,
    softmax_backward,
    softmax_forward,
    tanh,
    tanh_backward,
    tanh_forward,
)
from fastconv.columns import col2im, im2col
from fastconv.conv1d import (
    conv1d,
    conv1d_backward,
    conv1d_forward,
    depthwise_conv1d,
    depthwise_conv1d_backward,
    depthwise_conv1d_forward,
)
from fastconv.conv2d import (
    conv2d,
    conv2d_backward,
    conv2d_forward,
    depthwise_conv2d,
    depthwise_conv2d_backward,
    depthwise_conv2d_forward,
    explain_conv2d,
)
from fastconv.conv3d import (
    conv3d,
    conv3d_backward,
    conv3d_forward,
    depthwise_conv3d,
    depthwise_conv3d_backward,
    depthwise_conv3d_forward,
)
from fastconv.conv_transpose import (
    conv_transpose1d,
    conv_transpose1d_backward,
    conv_transpose1d_forward,
    conv_transpose2d,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
    conv_transpose3d,
    conv_transpose3d_backward,
    conv_transpose3d_forward,
)
from fastconv.filters import filter_image
from fastconv.fully_connected import linear, linear_backward, linear_forward
from fastconv.losses import mse_loss, softmax_cross_entropy, svm_loss
from fastconv.normalization import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    group_norm,
    group_norm_backward,
    group_norm_forward,
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
)
from fastconv.padding import pad2d, pad2d_backward, pad2d_forward
from fastconv.plan import conv2d_algorithms
from fastconv.pooling import *
from fastconv.prepared import prepare_conv2d
from fastconv.regularization import dropout, dropout_backward, dropout_forward

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "col2im",
    "conv1d",
    "conv1d_backward",
    "conv1d_forward",
    "conv2d",
    "conv2d_algorithms",
    "conv2d_backward",
    "conv2d_forward",
    "conv3d",
    "conv3d_backward",
    "conv3d_forward",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose1d_forward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose2d_forward",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "conv_transpose3d_forward",
    "datasets",
    "depthwise_conv1d",
    "depthwise_conv1d_backward",
    "depthwise_conv1d_forward",
    "depthwise_conv2d",
    "depthwise_conv2d_backward",
    "depthwise_conv2d_forward",
    "depthwise_conv3d",
    "depthwise_conv3d_backward",
    "depthwise_conv3d_forward",
    "dropout",
    "dropout_backward",
    "dropout_forward",
    "explain_conv2d",
    "filter_image",
    "gelu",
    "gelu_backward",
    "gelu_forward",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "im2col",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "linear",
    "linear_backward",
    "linear_forward",
    "mse_loss",
    "nn",
    "pad2d",
    "pad2d_backward",
    "pad2d_forward",
    "plots",
    "prepare_conv2d",
    "relu",
    "relu_backward",
    "relu_forward",
    "runtime",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_forward",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_forward",
    "svm_loss",
    "tanh",
    "tanh_backward",
    "tanh_forward",
    "testing",
]
__all__ += pooling.__all__

__version__ = "0.1.0"

# Imported on first use, so that `import fastconv` stays quick.
_LAZY = ("datasets", "nn", "plots")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"fastconv.{name}")
    raise AttributeError(f"module 'fastconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
