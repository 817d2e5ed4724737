"""The layers of CS231n's `layers.py`, by the course's names and signatures, on the fast kernels.

A forward function returns (out, cache), and the backward function of the same layer takes (dout, cache); treat caches
as opaque. Settings come in dicts: `conv_param` {"stride", "pad"}, `pool_param` {"pool_height", "pool_width",
"stride"}, `bn_param` {"mode", "eps", "momentum", "running_mean", "running_var"}, `dropout_param` {"mode", "p",
"seed"}. The names in "naive" exist so that notebooks run unchanged: nothing here is slow.

Images are (N, C, H, W); arrays may have any strides and are never changed. Every function raises ValueError for a
wrong shape or value and TypeError for a wrong type.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from fastconv import activations, arguments, fully_connected, losses, normalization, pooling
from fastconv.conv_2d import conv2d_backward, conv2d_forward

__all__ = [
    "affine_backward",
    "affine_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "conv_backward_naive",
    "conv_forward_naive",
    "dropout_backward",
    "dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "max_pool_backward_naive",
    "max_pool_forward_naive",
    "relu_backward",
    "relu_forward",
    "softmax_loss",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "spatial_groupnorm_backward",
    "spatial_groupnorm_forward",
    "svm_loss",
]

Gradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]
EVERY = ("x", "w", "b")
MODES = ("train", "test")
CONV_EXTRAS = ("dilation", "groups", "padding_mode", "algorithm")


def setting(function: str, name: str, param: Mapping[str, Any], key: str) -> Any:
    """`param[key]`, or an error that says what is missing."""
    if key not in param:
        raise ValueError(f"{function}: {name} must have the key {key!r}, got {sorted(param)}")
    return param[key]


def conv_options(function: str, conv_param: Mapping[str, Any]) -> dict[str, Any]:
    """`conv_param` as keywords of `fastconv.conv2d`."""
    options = {extra: conv_param[extra] for extra in CONV_EXTRAS if extra in conv_param}
    stride, pad = (setting(function, "conv_param", conv_param, key) for key in ("stride", "pad"))
    return {"stride": stride, "padding": pad, **options}


def affine_forward(x: Any, w: Any, b: Any) -> tuple[np.ndarray, Any]:
    """x (N, d_1, ..., d_k), each example flattened to D numbers, times w (D, M), plus b (M,): out (N, M) and a cache.

    >>> affine_forward(np.ones((2, 3, 4)), np.ones((12, 5)), np.zeros(5))[0].shape
    (2, 5)
    """
    return fully_connected.linear_forward(x, w, b)


def affine_backward(dout: Any, cache: Any, *, wrt: tuple[str, ...] = EVERY) -> Gradients:
    """(dx, dw, db); None for what `wrt` leaves out, which the course's function does not have."""
    return fully_connected.linear_backward(dout, cache, wrt=wrt)


def relu_forward(x: Any) -> tuple[np.ndarray, Any]:
    """max(x, 0) and a cache."""
    return activations.relu_forward(x)


def relu_backward(dout: Any, cache: Any) -> np.ndarray:
    """dout where x was positive, 0 elsewhere."""
    return activations.relu_backward(dout, cache)


def conv_forward_naive(x: Any, w: Any, b: Any, conv_param: Mapping[str, Any]) -> tuple[np.ndarray, Any]:
    """Convolution of x (N, C, H, W) with F filters w (F, C, HH, WW) and b (F,): out (N, F, H', W') and a cache.

    Parameters
    ----------
    conv_param : {"stride": int or (vertical, horizontal), "pad": int, (vertical, horizontal), ((top, bottom), (left,
        right)) or "same"}. Beyond the course, also "dilation", "groups", "padding_mode" and "algorithm", as in
        `fastconv.conv2d`.

    Examples
    --------
    >>> x, w = np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3))
    >>> conv_forward_naive(x, w, np.zeros(4), {"stride": 1, "pad": ((0, 1), (2, 3))})[0].shape
    (1, 4, 7, 11)
    """
    return conv2d_forward(x, w, b, **conv_options("conv_forward", conv_param))


def conv_backward_naive(dout: Any, cache: Any, *, wrt: tuple[str, ...] = EVERY) -> Gradients:
    """(dx, dw, db); None for what `wrt` leaves out: a first layer needs no dx."""
    return conv2d_backward(dout, cache, wrt=wrt)


def max_pool_forward_naive(x: Any, pool_param: Mapping[str, Any]) -> tuple[np.ndarray, Any]:
    """The largest number of each window of x (N, C, H, W): out (N, C, H', W') and a cache.

    Parameters
    ----------
    pool_param : {"pool_height", "pool_width", "stride": int or (vertical, horizontal)}; beyond the course also "pad".

    Examples
    --------
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> max_pool_forward_naive(x, {"pool_height": 2, "pool_width": 2, "stride": 2})[0].ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    function = "max_pool_forward"
    height, width, stride = (
        setting(function, "pool_param", pool_param, key) for key in ("pool_height", "pool_width", "stride")
    )
    return pooling.max_pool2d_forward(x, (height, width), stride=stride, padding=pool_param.get("pad", 0))


def max_pool_backward_naive(dout: Any, cache: Any) -> np.ndarray:
    """Each window's gradient goes to its largest number, to the first one where several are equal.

    The course's functions disagree about equal numbers: one splits the gradient among them.
    """
    return pooling.max_pool2d_backward(dout, cache)


def _mode(function: str, name: str, param: Mapping[str, Any]) -> str:
    return arguments.choice(function, f'{name}["mode"]', setting(function, name, param, "mode"), MODES)


def normalized(
    function: str, x: Any, ndim: int, gamma: Any, beta: Any, bn_param: MutableMapping[str, Any],
    activation: str | None = None,
) -> tuple[np.ndarray, Any]:  # fmt: skip
    """`batchnorm_forward` of x with so many axes, with an activation in the same pass."""
    mode = _mode(function, "bn_param", bn_param)
    x = arguments.array(function, "x", x, ndim)
    start = np.zeros(x.shape[1], arguments.dtypes(x)[0])
    mean, var = (np.array(bn_param.get(name, start), start.dtype) for name in ("running_mean", "running_var"))
    out, cache = normalization.batch_norm_forward(
        x, gamma, beta, mean, var, training=mode == "train", momentum=bn_param.get("momentum", 0.9),
        eps=bn_param.get("eps", 1e-5), activation=activation,
    )  # fmt: skip
    bn_param["running_mean"], bn_param["running_var"] = mean, var
    return out, cache


def batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: MutableMapping[str, Any]) -> tuple[np.ndarray, Any]:
    """gamma * (x - mean) / sqrt(var + eps) + beta, with mean and biased variance of each column of x (N, D).

    Parameters
    ----------
    gamma, beta : (D,).
    bn_param : {"mode": "train" or "test", "eps": 1e-5, "momentum": 0.9, "running_mean", "running_var"}. In "train" the
        statistics are the batch's, and bn_param gets new running ones, `running = momentum * running + (1 - momentum)
        * batch`, which start as zeros; in "test" the running ones are used.

    Examples
    --------
    >>> bn_param = {"mode": "train"}
    >>> out, cache = batchnorm_forward(np.array([[0.0, 1.0], [2.0, 5.0]]), np.ones(2), np.zeros(2), bn_param)
    >>> bn_param["running_mean"].round(6).tolist()
    [0.1, 0.3]
    """
    return normalized("batchnorm_forward", x, 2, gamma, beta, bn_param)


def batchnorm_backward(dout: Any, cache: Any) -> Gradients:
    """(dx, dgamma, dbeta)."""
    return normalization.batch_norm_backward(dout, cache)


batchnorm_backward_alt = batchnorm_backward


def spatial_batchnorm_forward(
    x: Any, gamma: Any, beta: Any, bn_param: MutableMapping[str, Any]
) -> tuple[np.ndarray, Any]:
    """`batchnorm_forward` over images and pixels: x (N, C, H, W), gamma and beta (C,)."""
    return normalized("spatial_batchnorm_forward", x, 4, gamma, beta, bn_param)


spatial_batchnorm_backward = batchnorm_backward


def layernorm_forward(x: Any, gamma: Any, beta: Any, ln_param: Mapping[str, Any]) -> tuple[np.ndarray, Any]:
    """Each row of x (N, D) gets mean 0 and variance 1, then gamma and beta (D,); ln_param {"eps": 1e-5}."""
    x = arguments.array("layernorm_forward", "x", x, 2)
    return normalization.layer_norm_forward(x, gamma, beta, eps=ln_param.get("eps", 1e-5))


def layernorm_backward(dout: Any, cache: Any) -> Gradients:
    """(dx, dgamma, dbeta)."""
    return normalization.layer_norm_backward(dout, cache)


def spatial_groupnorm_forward(
    x: Any, gamma: Any, beta: Any, G: int, gn_param: Mapping[str, Any]
) -> tuple[np.ndarray, Any]:
    """Each image's G groups of channels get mean 0 and variance 1, then gamma and beta; gn_param {"eps": 1e-5}.

    x is (N, C, H, W), gamma and beta (C,) or (1, C, 1, 1) as in the course; G divides C.
    """
    function = "spatial_groupnorm_forward"
    x = arguments.array(function, "x", x, 4)
    gamma, beta = arguments.array(function, "gamma", gamma), arguments.array(function, "beta", beta)
    out, cache = normalization.group_norm_forward(
        x, gamma.reshape(-1), beta.reshape(-1), G, eps=gn_param.get("eps", 1e-5)
    )
    return out, (cache, gamma.shape, beta.shape)


def spatial_groupnorm_backward(dout: Any, cache: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dgamma, dbeta), the last two of gamma's and beta's shapes."""
    inner, gamma_shape, beta_shape = cache
    dx, dgamma, dbeta = normalization.group_norm_backward(dout, inner)
    assert dgamma is not None and dbeta is not None
    return dx, dgamma.reshape(gamma_shape), dbeta.reshape(beta_shape)


def dropout_forward(x: Any, dropout_param: Mapping[str, Any]) -> tuple[np.ndarray, Any]:
    """In "train", keep each number with probability p, scaled up by 1 / p, and zero the others; in "test" a copy of x.

    Parameters
    ----------
    dropout_param : {"mode": "train" or "test", "p": the probability of KEEPING a number, as in today's course, "seed":
        optional}. (Until 2017 the course's p was the probability of dropping, as in `fastconv.dropout`.)

    Returns
    -------
    out and the cache (dropout_param, mask). With a seed the mask is the course's, number by number; without one it is
    drawn from NumPy's global generator, so that `np.random.seed` governs it as there.

    Raises
    ------
    ValueError : p is not above 0 and at most 1.

    Examples
    --------
    >>> out, _ = dropout_forward(np.ones(1000), {"mode": "train", "p": 0.25, "seed": 1})
    >>> sorted(set(out.tolist())), bool(0.2 < (out > 0).mean() < 0.3)
    ([0.0, 4.0], True)
    """
    function = "dropout_forward"
    x = arguments.array(function, "x", x)
    mode = _mode(function, "dropout_param", dropout_param)
    p = arguments.real(function, 'dropout_param["p"]', setting(function, "dropout_param", dropout_param, "p"))
    if not 0 < p <= 1:
        raise ValueError(f'{function}: dropout_param["p"], the share to keep, must be above 0 and at most 1, got {p}')
    result_dtype = arguments.dtypes(x)[1]
    if mode == "test":
        return x.astype(result_dtype), (dropout_param, None)
    seed = dropout_param.get("seed")
    generator = np.random if seed is None else np.random.RandomState(seed)  # the course's generator
    mask = (generator.random_sample(x.shape) < p).astype(result_dtype)
    mask *= result_dtype.type(1 / p)
    return x * mask, (dropout_param, mask)


def dropout_backward(dout: Any, cache: Any) -> np.ndarray:
    """dout scaled where x was kept, 0 elsewhere."""
    dout, mask = arguments.array("dropout_backward", "dout", dout), cache[1]
    if mask is None:
        return dout.copy()
    if dout.shape != mask.shape:
        raise ValueError(f"dropout_backward: dout must have the output's shape {mask.shape}, got {dout.shape}")
    return dout * mask


def softmax_loss(x: Any, y: Any) -> tuple[float, np.ndarray]:
    """Mean of -log softmax(x)[y] over the rows of scores x (N, C) with labels y (N,), and its gradient by x.

    >>> loss, dx = softmax_loss(np.zeros((3, 10)), np.array([1, 2, 3]))
    >>> round(loss, 4)
    2.3026
    """
    return losses.softmax_cross_entropy(x, y)


def svm_loss(x: Any, y: Any) -> tuple[float, np.ndarray]:
    """Mean over the rows of the sum of margins max(0, x - x[y] + 1) of the wrong classes, and its gradient by x.

    >>> svm_loss(np.zeros((3, 10)), np.array([1, 2, 3]))[0]
    9.0
    """
    return losses.svm_loss(x, y)
