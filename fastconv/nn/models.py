"""Small networks by name: `build("lenet5", classes=10)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.nn.base import Layer
from fastconv.nn.fast_models import airbench, image_shape, resnet9, whiten
from fastconv.nn.initial import Seed
from fastconv.nn.layers import BatchNorm, Conv2d, Linear
from fastconv.nn.sequential import Sequential
from fastconv.nn.stateless import AvgPool2d, Dropout, Flatten, MaxPool2d, Sigmoid, Tanh


def _halved(function: str, size: int, times: int) -> int:
    """The side of a square image after `times` poolings 2 x 2."""
    result = size >> times
    if result < 1:
        raise ValueError(f"{function}: size must be at least {1 << times}, got {size}")
    return result


_LAYERS: dict[str, type[Layer]] = {"tanh": Tanh, "sigmoid": Sigmoid}


def lenet5(
    classes: int = 10,
    in_channels: int = 1,
    *,
    size: int = 28,
    activation: str = "relu",
    pooling: str = "max",
    layout: str = "NCHW",
    dtype: str = "float32",
    seed: Seed = 0,
) -> Sequential:
    """LeNet-5 (LeCun et al. 1998) for `size` x `size` images, by default with ReLU and max pooling.

    6 filters 5x5 (padding 2), pool 2, 16 filters 5x5, pool 2, then 120, 84 and `classes` features. Closer to 1998 are
    `activation` "tanh" or "sigmoid" (weights then start as Glorot & Bengio's) and `pooling` "average". Images and
    layers have the `layout`.

    >>> print(lenet5().summary())
    layer                                             output shape  parameters
    --------------------------------------------------------------------------
    0  Conv2d(1, 6, 5, padding=2, activation='relu')  6 x 28 x 28          156
    1  MaxPool2d(2)                                   6 x 14 x 14
    2  Conv2d(6, 16, 5, activation='relu')            16 x 10 x 10       2,416
    3  MaxPool2d(2)                                   16 x 5 x 5
    4  Flatten()                                      400
    5  Linear(400, 120, activation='relu')            120               48,120
    6  Linear(120, 84, activation='relu')             84                10,164
    7  Linear(84, 10, init='xavier')                  10                   850
    --------------------------------------------------------------------------
    total                                                               61,706
    """
    size = arguments.integer("lenet5", "size", size, 12)
    pool = {"max": MaxPool2d, "average": AvgPool2d}[arguments.choice("lenet5", "pooling", pooling, ("max", "average"))]
    arguments.choice("lenet5", "activation", activation, ("relu", *_LAYERS))
    rng = np.random.default_rng(seed)
    hidden: dict[str, Any] = {"dtype": dtype, "rng": rng, "init": "xavier"}
    apart = [_LAYERS[activation]] if activation in _LAYERS else []
    if activation == "sigmoid":
        hidden.update(init="xavier_sigmoid")
    if not apart:
        hidden.update(activation="relu", init="he")  # in the same pass as the layer before
    side = (size // 2 - 4) // 2
    return Sequential(
        Conv2d(in_channels, 6, 5, padding=2, layout=layout, **hidden),
        *(layer() for layer in apart),
        pool(2, layout=layout),
        Conv2d(6, 16, 5, layout=layout, **hidden),
        *(layer() for layer in apart),
        pool(2, layout=layout),
        Flatten(),
        Linear(16 * side * side, 120, **hidden),
        *(layer() for layer in apart),
        Linear(120, 84, **hidden),
        *(layer() for layer in apart),
        Linear(84, classes, init="xavier", dtype=dtype, rng=rng),
        input_shape=image_shape(in_channels, size, layout),
    )


def three_layer_convnet(
    classes: int = 10,
    in_channels: int = 3,
    *,
    size: int = 32,
    filters: int = 32,
    kernel_size: int = 7,
    hidden: int = 100,
    layout: str = "NCHW",
    dtype: str = "float32",
    seed: Seed = 0,
) -> Sequential:
    """conv - relu - 2x2 max pool - linear - relu - linear: the network of Stanford's CS231n, assignment 2.

    Images and layers have the `layout`.

    >>> three_layer_convnet()(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    side = _halved("three_layer_convnet", arguments.integer("three_layer_convnet", "size", size, 1), 1)
    rng = np.random.default_rng(seed)
    return Sequential(
        Conv2d(
            in_channels, filters, kernel_size, padding="same", activation="relu", layout=layout, dtype=dtype, rng=rng
        ),
        MaxPool2d(2, layout=layout),
        Flatten(),
        Linear(filters * side * side, hidden, activation="relu", dtype=dtype, rng=rng),
        Linear(hidden, classes, init="xavier", dtype=dtype, rng=rng),
        input_shape=image_shape(in_channels, size, layout),
    )


def vgg_like(
    classes: int = 10,
    in_channels: int = 3,
    *,
    size: int = 32,
    widths: tuple[int, ...] = (32, 64, 128),
    depths: int | tuple[int, ...] = 2,
    hidden: int = 128,
    dropout: float = 0.3,
    pool_dropout: float = 0.0,
    layout: str = "NCHW",
    dtype: str = "float32",
    seed: Seed = 0,
) -> Sequential:
    """[(conv 3x3 - BN - relu) * depth - 2x2 max pool] per width - linear - BN - relu - dropout - linear.

    After Simonyan & Zisserman 2015, in miniature. A block has `widths` filters and `depths` convolutions, one number
    for all blocks or one each. With `pool_dropout`, dropout follows each pooling too. Images and layers have the
    `layout`.

    Raises
    ------
    ValueError : `depths` has another length than `widths`; `size` does not survive the poolings.

    >>> vgg_like(widths=(4, 8), depths=(1, 2))(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    size = arguments.integer("vgg_like", "size", size, 1)
    if isinstance(depths, int):
        depths = (depths,) * len(widths)
    if len(depths) != len(widths):
        raise ValueError(f"vgg_like: depths must have one number per width, got {depths} for widths {widths}")
    depths = tuple(arguments.integer("vgg_like", "depths", depth, 1) for depth in depths)
    side = _halved("vgg_like", size, len(widths))
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []
    channels = in_channels
    for width, depth in zip(widths, depths, strict=True):
        for _ in range(depth):
            layers += [
                Conv2d(channels, width, 3, padding=1, bias=False, layout=layout, dtype=dtype, rng=rng),
                BatchNorm(width, activation="relu", layout=layout, dtype=dtype),
            ]
            channels = width
        layers.append(MaxPool2d(2, layout=layout))
        if pool_dropout:
            layers.append(Dropout(pool_dropout, rng=rng))
    layers += [
        Flatten(),
        Linear(channels * side * side, hidden, bias=False, dtype=dtype, rng=rng),
        BatchNorm(hidden, activation="relu", layout=layout, dtype=dtype),
        Dropout(dropout, rng=rng),
        Linear(hidden, classes, init="xavier", dtype=dtype, rng=rng),
    ]
    return Sequential(*layers, input_shape=image_shape(in_channels, size, layout))


MODELS: dict[str, Callable[..., Sequential]] = {
    "lenet5": lenet5,
    "three_layer_convnet": three_layer_convnet,
    "vgg_like": vgg_like,
    "resnet9": resnet9,
    "airbench": airbench,
}

__all__ = ["MODELS", "airbench", "build", "lenet5", "resnet9", "three_layer_convnet", "vgg_like", "whiten"]


def build(name: str, **options: Any) -> Sequential:
    """The network of that name; the options are those of its function.

    Raises
    ------
    ValueError : there is no such network.

    >>> build("lenet5", classes=3).layers[-1]
    Linear(84, 3, init='xavier')
    """
    arguments.choice("models.build", "name", name, tuple(MODELS))
    return MODELS[name](**options)
