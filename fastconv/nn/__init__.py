"""Networks: layers, `Sequential`, models by name, optimizers, the training loop, checkpoints."""

from fastconv.nn import augment, clipping, models, optim, schedules
from fastconv.nn.averaging import EMA, Lookahead
from fastconv.nn.base import Buffer, Layer, Parameter, build_layer
from fastconv.nn.callbacks import Callback, EarlyStopping
from fastconv.nn.checkpoint import load, read_meta, save
from fastconv.nn.convolutions import Conv1d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from fastconv.nn.cross_entropy import CrossEntropy
from fastconv.nn.history import History
from fastconv.nn.layers import BatchNorm, Conv2d, Linear
from fastconv.nn.metrics import confusion_matrix, evaluate
from fastconv.nn.optim import SGD, Adam, AdamW, Optimizer, RMSProp
from fastconv.nn.residual import Residual
from fastconv.nn.run import Run
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
    Softmax,
    Tanh,
)
from fastconv.nn.trainer import Trainer

__all__ = [
    "EMA",
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2d",
    "BatchNorm",
    "Buffer",
    "Callback",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropy",
    "Dropout",
    "EarlyStopping",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "History",
    "Identity",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Lookahead",
    "MaxPool2d",
    "Multiply",
    "Normalize",
    "Optimizer",
    "Parameter",
    "RMSProp",
    "ReLU",
    "Residual",
    "Run",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Trainer",
    "augment",
    "build_layer",
    "clipping",
    "confusion_matrix",
    "evaluate",
    "load",
    "models",
    "optim",
    "read_meta",
    "save",
    "schedules",
]
