"""Networks for a fast route to high accuracy on small colour images: a residual one, and one with whitened patches."""

from __future__ import annotations

import numpy as np

from fastconv import arguments
from fastconv.nn.base import Layer
from fastconv.nn.initial import Seed
from fastconv.nn.layers import BatchNorm, Conv2d, Linear
from fastconv.nn.residual import Residual
from fastconv.nn.sequential import Sequential
from fastconv.nn.stateless import GELU, Flatten, GlobalMaxPool2d, MaxPool2d, Multiply, ReLU

ACTIVATIONS = {"relu": ReLU, "gelu": GELU}


def image_shape(channels: int, size: int, layout: str) -> tuple[int, int, int]:
    """(C, H, W) or (H, W, C) of a square image."""
    return (channels, size, size) if layout == "NCHW" else (size, size, channels)


def _normalized(filters: int, activation: str, layout: str, dtype: str, momentum: float = 0.9) -> list[Layer]:
    """Batch normalisation and activation, ReLU in the same pass."""
    fused = "relu" if activation == "relu" else None
    norm = BatchNorm(filters, momentum=momentum, activation=fused, layout=layout, dtype=dtype)
    return [norm] if fused else [norm, ACTIVATIONS[activation]()]


def resnet9(
    classes: int = 10,
    in_channels: int = 3,
    *,
    size: int = 32,
    widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    activation: str = "relu",
    scale: float = 0.125,
    layout: str = "NCHW",
    dtype: str = "float32",
    seed: Seed = 0,
) -> Sequential:
    """Nine layers with weights: four stages of 3x3 convolutions, two residual blocks, a global maximum, one linear.

    After D. Page, "How to train your ResNet", 2018: stages of `widths` filters, each convolution with batch
    normalisation and `activation` ("relu" or "gelu"), every stage but the first ending in a 2x2 max pool; the second
    and the fourth have a residual block of two convolutions. Scores are multiplied by `scale`.
    Images and layers have the `layout`.

    Raises
    ------
    ValueError : other than four widths, an unknown activation, a size below 8.

    >>> model = resnet9(widths=(4, 8, 8, 16))
    >>> model(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    size = arguments.integer("resnet9", "size", size, 8)
    arguments.choice("resnet9", "activation", activation, tuple(ACTIVATIONS))
    first, second, third, fourth = arguments.shape("resnet9", "widths", widths, 4)
    rng = np.random.default_rng(seed)

    def block(channels: int, filters: int) -> list[Layer]:
        conv = Conv2d(channels, filters, 3, padding=1, bias=False, layout=layout, dtype=dtype, rng=rng)
        return [conv, *_normalized(filters, activation, layout, dtype)]

    def residual(channels: int) -> Residual:
        return Residual(Sequential(*block(channels, channels), *block(channels, channels)))

    return Sequential(
        *block(in_channels, first),
        *block(first, second),
        MaxPool2d(2, layout=layout),
        residual(second),
        *block(second, third),
        MaxPool2d(2, layout=layout),
        *block(third, fourth),
        MaxPool2d(2, layout=layout),
        residual(fourth),
        GlobalMaxPool2d(layout=layout),
        Flatten(),
        Linear(fourth, classes, bias=False, init="xavier", dtype=dtype, rng=rng),
        Multiply(scale),
        input_shape=image_shape(in_channels, size, layout),
    )


def airbench(
    classes: int = 10,
    in_channels: int = 3,
    *,
    size: int = 32,
    widths: tuple[int, ...] = (64, 256, 256),
    activation: str = "gelu",
    scale: float = 1 / 9,
    layout: str = "NCHW",
    dtype: str = "float32",
    seed: Seed = 0,
) -> Sequential:
    """2x2 patches, then per width: conv 3x3 - 2x2 max pool - BN - activation - conv 3x3 - BN - activation.

    After K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024. The first layer is meant to be set by
    `whiten` and left out of the optimizer. Other convolutions start as the identity on their first filters. Images and
    layers have the `layout`.

    Raises
    ------
    ValueError : an unknown activation, a size that the poolings use up.

    >>> airbench(widths=(4, 8))(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    size = arguments.integer("airbench", "size", size, 1 + 2 ** len(widths))
    arguments.choice("airbench", "activation", activation, tuple(ACTIVATIONS))
    rng = np.random.default_rng(seed)

    def conv(channels: int, filters: int) -> Conv2d:
        layer = Conv2d(channels, filters, 3, padding=1, bias=False, layout=layout, dtype=dtype, rng=rng)
        weight, same = filters_first(layer), np.arange(min(channels, filters))
        weight *= 6**-0.5  # from He's variance, 2 / fan_in, to PyTorch's, 1 / (3 fan_in)
        weight[same] = 0
        weight[same, same, 1, 1] = 1
        return layer

    def norm(filters: int) -> list[Layer]:
        return _normalized(filters, activation, layout, dtype, momentum=0.6)

    channels = 2 * 4 * in_channels
    layers: list[Layer] = [
        Conv2d(in_channels, channels, 2, layout=layout, dtype=dtype, rng=rng),
        ACTIVATIONS[activation](),
    ]
    for filters in widths:
        layers += [
            conv(channels, filters),
            MaxPool2d(2, layout=layout),
            *norm(filters),
            conv(filters, filters),
            *norm(filters),
        ]
        channels = filters
    layers += [
        GlobalMaxPool2d(layout=layout),
        Flatten(),
        Linear(channels, classes, bias=False, init="xavier", dtype=dtype, rng=rng),
        Multiply(scale),
    ]
    return Sequential(*layers, input_shape=image_shape(in_channels, size, layout))


def filters_first(layer: Conv2d) -> np.ndarray:
    """A view of the weight, (F, C, KH, KW) in either layout."""
    weight = layer.weight.value
    return weight if layer.layout == "NCHW" else weight.transpose(3, 2, 0, 1)


def whiten(model: Sequential, images: np.ndarray, *, eps: float = 5e-4) -> None:
    """Set the first convolution of `model` so that its outputs are uncorrelated and of equal variance on `images`.

    Its filters become the principal components of all patches, each divided by its standard deviation, and their
    negatives; a bias stays as it is. Leave the weight out of the optimizer to keep it so.

    Parameters
    ----------
    images : (N, C, H, W) or (N, H, W, C), as the convolution gets them: some thousands of training images are enough.
    eps : added to the variances, so that rare components are not blown up.

    Raises
    ------
    ValueError : the first convolution has not twice as many filters as a patch has numbers.

    >>> model = airbench(widths=(4, 8))
    >>> whiten(model, np.random.default_rng(0).random((50, 3, 32, 32), np.float32))
    """
    images = arguments.array("whiten", "images", images, 4)
    layer = next((layer for layer in model.layers if isinstance(layer, Conv2d)), None)
    weight = np.empty(0) if layer is None else filters_first(layer)
    if layer is not None and layer.layout == "NHWC":
        images = images.transpose(0, 3, 1, 2)
    if weight.ndim != 4 or weight.shape[0] != 2 * weight[0].size or weight.shape[1] != images.shape[1]:
        raise ValueError(
            "whiten: model must start with a Conv2d of twice as many filters as a patch of the images "
            f"has numbers, got {layer!r} for images of shape {images.shape}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(images, weight.shape[2:], axis=(2, 3))
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, weight[0].size).astype(np.float64)
    variances, components = np.linalg.eigh(np.cov(patches, rowvar=False))
    filters = (components / np.sqrt(variances + eps)).T[::-1].reshape(-1, *weight.shape[1:])
    weight[...] = np.concatenate([filters, -filters])
