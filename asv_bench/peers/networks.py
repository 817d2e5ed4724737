"""Whole training steps - forward, loss, backward, update - of the same networks in fastconv and PyTorch.

PyTorch's networks run in both memory formats; of fastconv's, those with a `layout` run in each that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch
from contest import Contender, Contest, Entry, Selection
from convolutions import MEMORY_FORMATS
from ours import PREPARED

from fastconv import nn, softmax_cross_entropy
from fastconv.nn import models

GROUP = "training step"
_RATE, _MOMENTUM = 1e-3, 0.9
_COMPARED_STEPS = 3  # losses agree only if the gradients of the steps before did
_AMPLIFICATION = 10.0  # of the VGG-like net with F(4x4): its losses differed by 1.5e-4

# name -> (network, batch size); no dropout, as its masks differ between libraries
NETWORKS: dict[str, tuple[Callable[..., nn.Sequential], int]] = {
    "lenet5, batch 64": (partial(models.lenet5, in_channels=1, size=28), 64),
    "three-layer net, batch 50": (models.three_layer_convnet, 50),
    "vgg-like net, batch 50": (
        partial(models.vgg_like, widths=(64, 64, 128, 256), depths=(2, 2, 3, 3), dropout=0.0),
        50,
    ),
    "airbench, batch 500": (models.airbench, 500),
}


def entries() -> list[Entry]:
    return [Entry(GROUP, name, partial(contests, name)) for name in NETWORKS]


def contests(name: str, selection: Selection) -> Iterator[Contest]:
    """One step each, of the layouts that the network has."""
    build, batch = NETWORKS[name]
    layouts = [layout for layout in selection.layouts if layout == "NCHW" or "layout" in signature(build).parameters]
    if not layouts or {*selection.passes} != {"forward", "dx", "dw"}:
        return
    start = build(dtype=selection.dtype, seed=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *(start.input_shape or ())), selection.dtype)
    y = rng.integers(0, 10, batch)
    ours = {}
    for algorithm in selection.algorithms:
        for layout in layouts if algorithm != PREPARED else ():
            model = _model(build, selection.dtype, algorithm, layout)
            images = x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
            ours[f"{layout} {algorithm}"] = _compared(_fastconv_step(model, images, y))
    if not ours:
        return
    peers = {f"torch {layout}": _compared(_torch_step(twin(start), x, y, layout)) for layout in MEMORY_FORMATS}
    yield Contest(GROUP, name, "step", selection.dtype, 0.0, ours, peers, amplification=_AMPLIFICATION)


def _model(build: Callable[..., nn.Sequential], dtype: str, algorithm: str, layout: str) -> nn.Sequential:
    """The network with the same weights every time."""
    start = model = build(dtype=dtype, seed=0)
    if layout == "NHWC":
        model = build(dtype=dtype, seed=0, layout=layout)
        _copy_weights(start, model)
    for layer in model.layers:
        if isinstance(layer, nn.Conv2d):
            layer.algorithm = algorithm
    return model


def _copy_weights(start: nn.Sequential, model: nn.Sequential) -> None:
    """Those of a channels-first network into its channels-last one."""
    image = np.zeros((1, *(start.input_shape or ())), start.dtype)
    flattened: tuple[int, ...] = ()  # (C, H, W), before the linear layer that takes all of it
    for source, target in zip(start.layers, model.layers, strict=True):
        if isinstance(source, nn.Flatten):
            flattened = image.shape[1:]
        image = source.forward(image)
        for old, new in zip(source.parameters(), target.parameters(), strict=True):
            value = old.value
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
            elif value.ndim == 2 and flattened:
                value = value.reshape(*flattened, -1).transpose(1, 2, 0, 3).reshape(value.shape)
                flattened = ()
            new.value[...] = value


def _compared(step: Callable[[], float]) -> Contender:
    """The first steps' losses are the result that must agree; the timed ones go on from there."""
    losses = np.array([step() for _ in range(_COMPARED_STEPS)])
    return Contender(step, lambda _: losses)


def _fastconv_step(model: nn.Sequential, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    optimizer = nn.SGD(model.parameters(), lr=_RATE, momentum=_MOMENTUM)

    def step() -> float:
        loss, dscores = softmax_cross_entropy(model.forward(x, training=True), y)
        model.backward(dscores, input_gradient=False)
        optimizer.step()
        return float(loss)

    return step


def _torch_step(model: torch.nn.Module, x: np.ndarray, y: np.ndarray, layout: str) -> Callable[[], float]:
    memory_format = MEMORY_FORMATS[layout]
    model = model.to(memory_format=memory_format)
    images, targets = torch.from_numpy(x).contiguous(memory_format=memory_format), torch.from_numpy(y)
    optimizer = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=_MOMENTUM)

    def step() -> float:
        with torch.enable_grad():
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), targets)
            loss.backward()
            optimizer.step()
            return float(loss.detach())

    return step


def twin(model: nn.Sequential) -> torch.nn.Sequential:
    """The same network in PyTorch, with copies of its weights."""
    modules: list[torch.nn.Module] = []
    for layer in model.layers:
        modules += _modules(layer)
    return torch.nn.Sequential(*modules).train()


def _modules(layer: Any) -> list[torch.nn.Module]:
    if isinstance(layer, nn.Conv2d):
        padding = layer.padding if isinstance(layer.padding, str) else [before for before, _ in layer.padding]
        module = torch.nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, padding, bias=layer.bias is not None
        )
        return _filled(module, layer, layer.weight.value)
    if isinstance(layer, nn.Linear):
        module = torch.nn.Linear(*layer.weight.value.shape, bias=layer.bias is not None)
        return _filled(module, layer, layer.weight.value.T)
    if isinstance(layer, nn.BatchNorm):
        norm = _BatchNorm(layer.features, dtype=getattr(torch, layer.dtype))
        return [norm, torch.nn.ReLU()] if layer.activation == "relu" else [norm]
    if isinstance(layer, nn.MaxPool2d):
        return [torch.nn.MaxPool2d(2)]
    if isinstance(layer, nn.GlobalMaxPool2d):
        return [torch.nn.AdaptiveMaxPool2d(1)]
    if isinstance(layer, nn.ReLU | nn.GELU):
        return [getattr(torch.nn, type(layer).__name__)()]
    if isinstance(layer, nn.Multiply):
        return [_Multiply(layer.factor)]
    if isinstance(layer, nn.Flatten):
        return [torch.nn.Flatten()]
    if isinstance(layer, nn.Dropout) and layer.p == 0:
        return []
    raise TypeError(f"no PyTorch twin of {layer}")


class _BatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Of features or images."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        pass


class _Multiply(torch.nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def _filled(module: Any, layer: Any, weight: np.ndarray) -> list[torch.nn.Module]:
    """The module with the layer's weight and bias, and its activation."""
    module.weight = torch.nn.Parameter(torch.from_numpy(np.array(weight, order="C")))
    if layer.bias is not None:
        module.bias = torch.nn.Parameter(torch.from_numpy(layer.bias.value.copy()))
    return [module, torch.nn.ReLU()] if layer.activation == "relu" else [module]
