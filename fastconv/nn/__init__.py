"""Networks: layers, `Sequential`, models by name, optimizers, the training loop, checkpoints."""

from fastconv.nn import augment, clipping, models, optim, schedules
from fastconv.nn.base import Buffer, Layer, Parameter, build_layer
from fastconv.nn.checkpoint import load, read_meta, save
from fastconv.nn.history import History
from fastconv.nn.layers import BatchNorm, Conv2d, Linear
from fastconv.nn.optim import SGD, Adam, AdamW, Optimizer, RMSProp
from fastconv.nn.residual import Residual
from fastconv.nn.sequential import Sequential
from fastconv.nn.stateless import (
    GELU,
    AvgPool2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Identity,
    LeakyReLU,
    MaxPool2d,
    Multiply,
    Normalize,
    ReLU,
    Sigmoid,
    Tanh,
)
from fastconv.nn.trainer import Trainer

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2d",
    "BatchNorm",
    "Buffer",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "History",
    "Identity",
    "Layer",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Multiply",
    "Normalize",
    "Optimizer",
    "Parameter",
    "RMSProp",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "Trainer",
    "augment",
    "build_layer",
    "clipping",
    "load",
    "models",
    "optim",
    "read_meta",
    "save",
    "schedules",
]
