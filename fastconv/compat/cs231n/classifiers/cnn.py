"""The convolutional networks of CS231n's `classifiers/cnn.py`, and the deeper one that its assignment asks for.

`loss(X)` gives the scores of a test-time forward pass, `loss(X, y)` the loss of a training-time one and its gradients,
a dict with the keys of `params`. Weights are drawn from NumPy's global generator, so that `np.random.seed` governs them
as in the course's notebooks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.compat.cs231n.layer_utils import (
    affine_bn_relu_backward,
    affine_bn_relu_forward,
    affine_relu_backward,
    affine_relu_forward,
    conv_bn_relu_backward,
    conv_bn_relu_forward,
    conv_bn_relu_pool_backward,
    conv_bn_relu_pool_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from fastconv.compat.cs231n.layers import (
    affine_backward,
    affine_forward,
    dropout_backward,
    dropout_forward,
    softmax_loss,
)

__all__ = ["ThreeLayerConvNet", "VGGlikeConvNet"]

# Output as large as input; training does not notice the larger rounding errors that "fast" admits.
CONV_PARAM = {"stride": 1, "pad": "same", "algorithm": "fast"}
POOL_PARAM = {"pool_height": 2, "pool_width": 2, "stride": 2}
NOT_X = ("w", "b")
BLOCK = 8192  # numbers; up to 10,000 OpenBLAS computes a dot product on the calling thread

Loss = tuple[float, dict[str, np.ndarray]]


def _normal(shape: tuple[int, ...], fan_in: int, weight_scale: float | None, dtype: Any) -> np.ndarray:
    """Normal numbers of standard deviation `weight_scale`, or of He et al. 2015 (eq. 10) for None."""
    scale = math.sqrt(2 / fan_in) if weight_scale is None else weight_scale
    return (scale * np.random.standard_normal(shape)).astype(dtype)


def _regularize(params: dict[str, np.ndarray], grads: dict[str, np.ndarray], reg: float) -> float:
    """Add reg * W to the gradients of the weights; returns the penalty, 0.5 * reg * sum of W^2 over all of them.

    In blocks that stay in the cache: for 4 million weights, temporary arrays of their size took 7.5 instead of 2 ms.
    """
    penalty = 0.0
    for name in params if reg else ():
        if name.startswith("W"):
            W, dW = params[name].reshape(-1), grads[name].reshape(-1)
            for start in range(0, W.size, BLOCK):
                block = W[start : start + BLOCK]
                penalty += 0.5 * reg * float(np.dot(block, block))
                dW[start : start + BLOCK] += reg * block
    return penalty


class ThreeLayerConvNet:
    """conv - relu - 2x2 max pool - affine - relu - affine - softmax, on images (N, C, H, W).

    Parameters
    ----------
    input_dim : (C, H, W) of an image.
    num_filters, filter_size : of the convolution; images are padded so that it keeps their size.
    hidden_dim, num_classes : features of the two affine layers.
    weight_scale : standard deviation of the initial weights, or None for He's; biases start at zero.
    reg : strength of the L2 penalty, 0.5 * reg * sum of squared weights.
    dtype : of the parameters and of the computation; float64 for gradient checks.

    Raises
    ------
    ValueError, TypeError : a size below 1 or of a wrong type.

    Attributes
    ----------
    params : "W1" (F, C, filter_size, filter_size), "b1", "W2", "b2", "W3", "b3".

    >>> net = ThreeLayerConvNet()
    >>> loss, grads = net.loss(np.random.default_rng(0).random((50, 3, 32, 32)), np.arange(50) % 10)
    >>> round(loss, 3), sorted(grads) == sorted(net.params)
    (2.303, True)
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (3, 32, 32),
        num_filters: int = 32,
        filter_size: int = 7,
        hidden_dim: int = 100,
        num_classes: int = 10,
        weight_scale: float | None = 1e-3,
        reg: float = 0.0,
        dtype: Any = np.float32,
    ):
        self.reg = arguments.real("ThreeLayerConvNet", "reg", reg)
        self.dtype = np.dtype(dtype)
        C, H, W = input_dim
        sizes = {"num_filters": num_filters, "filter_size": filter_size, "hidden_dim": hidden_dim}
        for name, size in {**sizes, "num_classes": num_classes}.items():
            arguments.integer("ThreeLayerConvNet", name, size, 1)
        features = num_filters * (H // 2) * (W // 2)
        shapes = ((num_filters, C, filter_size, filter_size), (features, hidden_dim), (hidden_dim, num_classes))
        fans, outputs = (C * filter_size**2, features, hidden_dim), (num_filters, hidden_dim, num_classes)
        self.params: dict[str, np.ndarray] = {}
        for i, (shape, fan_in, count) in enumerate(zip(shapes, fans, outputs, strict=True), 1):
            self.params[f"W{i}"] = _normal(shape, fan_in, weight_scale, self.dtype)
            self.params[f"b{i}"] = np.zeros(count, self.dtype)

    def loss(self, X: Any, y: Any = None) -> Any:
        """Scores (N, classes) if y is None, otherwise (loss, grads) for labels y (N,)."""
        p = self.params
        X = np.asarray(X).astype(self.dtype, copy=False)
        a1, conv_cache = conv_relu_pool_forward(X, p["W1"], p["b1"], CONV_PARAM, POOL_PARAM)
        a2, hidden_cache = affine_relu_forward(a1, p["W2"], p["b2"])
        scores, scores_cache = affine_forward(a2, p["W3"], p["b3"])
        if y is None:
            return scores
        loss, dscores = softmax_loss(scores, y)
        grads: dict[str, Any] = {}
        da2, grads["W3"], grads["b3"] = affine_backward(dscores, scores_cache)
        da1, grads["W2"], grads["b2"] = affine_relu_backward(da2, hidden_cache)
        _, grads["W1"], grads["b1"] = conv_relu_pool_backward(da1, conv_cache, wrt=NOT_X)
        return loss + _regularize(p, grads, self.reg), grads


class VGGlikeConvNet:
    """[(conv - sbn - relu) * A - pool] * B - (fc - bn - relu - dropout) * K - fc - softmax, on images (N, C, H, W).

    Parameters
    ----------
    input_dim : (C, H, W) of an image; B poolings halve H and W.
    num_filters : filters of each of the B blocks.
    num_convs : convolutions A of each block, one number for all or one each.
    filter_size : of every convolution; images are padded so that it keeps their size.
    hidden_dim : features of each of the K hidden layers, or one number for one layer.
    num_classes : features of the last layer.
    dropout_keep_ratio : probability of keeping a feature after each hidden layer; 1 is no dropout.
    weight_scale : standard deviation of the initial weights; None for He's, which a deep network needs.
    reg, dtype : as for `ThreeLayerConvNet`; scale, shift and biases are not penalised.
    seed : makes all dropout masks alike, for gradient checks.

    Attributes
    ----------
    params : "W1", "b1", "gamma1", "beta1" and so on, layer by layer; the last layer has only a W and a b.
    bn_params : a `bn_param` with running statistics for each layer but the last.

    Raises
    ------
    ValueError, TypeError : lengths that do not match, sizes below 1, a ratio out of range, an image too small.

    >>> net = VGGlikeConvNet(num_filters=(4, 8), num_convs=(1, 2), hidden_dim=(16,))
    >>> net.loss(np.zeros((2, 3, 32, 32))).shape, len(net.bn_params)
    ((2, 10), 4)
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (3, 32, 32),
        num_filters: Sequence[int] = (64, 64, 128, 256),
        num_convs: int | Sequence[int] = (2, 2, 3, 3),
        filter_size: int = 3,
        hidden_dim: int | Sequence[int] = (512,),
        num_classes: int = 10,
        dropout_keep_ratio: float = 1.0,
        weight_scale: float | None = None,
        reg: float = 0.0,
        dtype: Any = np.float32,
        seed: int | None = None,
    ):
        name = type(self).__name__
        depths = (num_convs,) * len(num_filters) if isinstance(num_convs, int) else tuple(num_convs)
        if len(depths) != len(num_filters):
            raise ValueError(f"{name}: num_convs must have one number per block, got {depths} for {num_filters}")
        hidden = (hidden_dim,) if isinstance(hidden_dim, int) else tuple(hidden_dim)
        for key, sizes in {"num_filters": num_filters, "num_convs": depths, "hidden_dim": hidden}.items():
            for size in sizes:
                arguments.integer(name, key, size, 1)
        if not 0 < arguments.real(name, "dropout_keep_ratio", dropout_keep_ratio) <= 1:
            raise ValueError(f"{name}: dropout_keep_ratio must be above 0 and at most 1, got {dropout_keep_ratio}")
        C, H, W = input_dim
        if min(H, W) >> len(depths) < 1:
            raise ValueError(f"{name}: input_dim must be at least {1 << len(depths)} pixels high and wide, got {H}x{W}")
        self.reg = arguments.real(name, "reg", reg)
        self.dtype = np.dtype(dtype)
        self.dropout_param: dict[str, Any] | None = None
        if dropout_keep_ratio != 1:
            self.dropout_param = {"mode": "train", "p": dropout_keep_ratio}
            if seed is not None:
                self.dropout_param["seed"] = seed

        self._kinds: list[str] = []
        self.params: dict[str, np.ndarray] = {}
        self.bn_params: list[dict[str, Any]] = []

        def layer(kind: str, shape: tuple[int, ...], fan_in: int, outputs: int) -> None:
            self._kinds.append(kind)
            i = len(self._kinds)
            self.params[f"W{i}"] = _normal(shape, fan_in, weight_scale, self.dtype)
            self.params[f"b{i}"] = np.zeros(outputs, self.dtype)
            if kind != "scores":
                self.params[f"gamma{i}"] = np.ones(outputs, self.dtype)
                self.params[f"beta{i}"] = np.zeros(outputs, self.dtype)
                self.bn_params.append({"mode": "train"})

        for F, depth in zip(num_filters, depths, strict=True):
            for repetition in range(1, depth + 1):
                kind = "conv" if repetition < depth else "conv pool"
                layer(kind, (F, C, filter_size, filter_size), C * filter_size**2, F)
                C = F
        features = C * (H >> len(depths)) * (W >> len(depths))
        for count in hidden:
            layer("hidden", (features, count), features, count)
            features = count
        layer("scores", (features, num_classes), features, num_classes)

    def loss(self, X: Any, y: Any = None) -> Any:
        """Scores (N, classes) if y is None, otherwise (loss, grads) for labels y (N,).

        With y the running statistics in `bn_params` are updated.
        """
        mode = "test" if y is None else "train"
        for param in (*self.bn_params, *([self.dropout_param] if self.dropout_param else [])):
            param["mode"] = mode
        out = np.asarray(X).astype(self.dtype, copy=False)
        caches = []
        for i, kind in enumerate(self._kinds, 1):
            out, cache = self._forward(i, kind, out)
            caches.append(cache)
        if y is None:
            return out
        loss, dout = softmax_loss(out, y)
        grads: dict[str, Any] = {}
        for i, kind in reversed(list(enumerate(self._kinds, 1))):
            dout, gradients = self._backward(kind, dout, caches.pop(), ("x", "w", "b") if i > 1 else NOT_X)
            grads |= {f"{name}{i}": g for name, g in zip(("W", "b", "gamma", "beta"), gradients, strict=False)}
        return loss + _regularize(self.params, grads, self.reg), grads

    def _forward(self, i: int, kind: str, x: np.ndarray) -> tuple[np.ndarray, Any]:
        W, b = self.params[f"W{i}"], self.params[f"b{i}"]
        if kind == "scores":
            return affine_forward(x, W, b)
        parameters = W, b, self.params[f"gamma{i}"], self.params[f"beta{i}"]
        bn_param = self.bn_params[i - 1]
        if kind == "conv":
            return conv_bn_relu_forward(x, *parameters, CONV_PARAM, bn_param)
        if kind == "conv pool":
            return conv_bn_relu_pool_forward(x, *parameters, CONV_PARAM, bn_param, POOL_PARAM)
        out, cache = affine_bn_relu_forward(x, *parameters, bn_param)
        if self.dropout_param is None:
            return out, (cache, None)
        out, dropout_cache = dropout_forward(out, self.dropout_param)
        return out, (cache, dropout_cache)

    def _backward(self, kind: str, dout: Any, cache: Any, wrt: tuple[str, ...]) -> tuple[Any, tuple[Any, ...]]:
        """(dx, gradients of the layer's parameters)."""
        if kind == "scores":
            dx, *gradients = affine_backward(dout, cache, wrt=wrt)
        elif kind == "conv":
            dx, *gradients = conv_bn_relu_backward(dout, cache, wrt=wrt)
        elif kind == "conv pool":
            dx, *gradients = conv_bn_relu_pool_backward(dout, cache, wrt=wrt)
        else:
            cache, dropout_cache = cache
            if dropout_cache is not None:
                dout = dropout_backward(dout, dropout_cache)
            dx, *gradients = affine_bn_relu_backward(dout, cache, wrt=wrt)
        return dx, tuple(gradients)
