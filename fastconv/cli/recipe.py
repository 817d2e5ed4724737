"""What the options of `fastconv train` stand for: data, network, optimizer, schedule."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from fastconv.datasets import Dataset
    from fastconv.nn import Callback, Sequential, Trainer


def load_data(options: argparse.Namespace) -> Dataset:
    """The data set that the options name.

    Raises
    ------
    ValueError, OSError, ImportError : options that do not fit together, and whatever the data set's loader raises.
    """
    from fastconv import datasets

    if options.data == "digits":
        if options.path is not None:
            raise ValueError("--path is for the other data sets; digits come with scikit-learn")
        return datasets.digits(seed=options.seed)
    if options.path is None:
        raise ValueError(f"--data {options.data} needs --path PATH, where its files lie")
    if options.download and options.data != "mnist":
        raise ValueError(f"--download knows where mnist is, not {options.data}")
    if options.data == "mnist":
        return datasets.mnist(options.path, download=options.download)
    if options.data == "image_folder":
        return datasets.image_folder(options.path, size=options.size, channels=options.channels, seed=options.seed)
    loader = getattr(datasets, options.data, None)
    if loader is None:
        raise ValueError(f"--data {options.data}: this version has no such data set")
    return loader(options.path)


class _Parts(NamedTuple):
    training: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]


def split(data: Dataset, share: float, seed: int) -> _Parts:
    """What to train on and what to validate with: the test images, or a share of the training images."""
    if not share:
        return _Parts((data.x_train, data.y_train), (data.x_test, data.y_test))
    from fastconv.datasets import held_out

    held = held_out(data.y_train, share, seed)
    return _Parts((data.x_train[~held], data.y_train[~held]), (data.x_train[held], data.y_train[held]))


def make_trainer(options: argparse.Namespace, data: Dataset) -> tuple[Trainer, list[Callback]]:
    from fastconv.losses import softmax_cross_entropy
    from fastconv.nn import EMA, EarlyStopping, Lookahead, Trainer, augment, optim

    model = _make_model(options, data)
    kept = "0.weight" if not options.normalize else "1.weight"
    parameters = [p for p in model.parameters() if not (options.whiten and p.name == kept)]
    settings: dict[str, Any] = {"lr": options.lr}
    if options.optimizer == "sgd":
        settings |= {"momentum": options.momentum, "nesterov": options.nesterov}
    if options.optimizer != "adamw":
        settings["decoupled"] = options.decoupled
    if options.weight_decay is not None:
        settings["weight_decay"] = options.weight_decay
    optimizer = optim.OPTIMIZERS[options.optimizer](parameters, decay_biases=options.decay_biases, **settings)
    changes = [
        *([augment.random_flip()] if options.flip else []),
        *([augment.random_shift(options.shift, padding=options.padding)] if options.shift else []),
        *([augment.cutout(options.cutout)] if options.cutout else []),
    ]
    trainer = Trainer(
        model,
        optimizer,
        loss=functools.partial(softmax_cross_entropy, label_smoothing=options.label_smoothing),
        seed=options.seed,
        schedule=_make_schedule(options),
        augment=augment.compose(*changes) if changes else None,
        clip_norm=options.clip_norm,
        clip_value=options.clip_value,
    )
    callbacks = [
        *([EMA(options.ema)] if options.ema is not None else []),
        *([Lookahead(options.lookahead)] if options.lookahead is not None else []),
        *([EarlyStopping(options.patience)] if options.patience is not None else []),
    ]
    return trainer, callbacks


def _make_model(options: argparse.Namespace, data: Dataset) -> Sequential:
    from fastconv.nn import Normalize, Sequential, models

    channels, size, width = data.x_train.shape[1:]
    if size != width:
        raise ValueError(f"{data.name}: images must be square for a network by name, got {size} x {width}; give --size")
    shape = {"classes": len(data.classes), "in_channels": channels, "size": size, "seed": options.seed}
    model = models.build(options.model, **{**shape, **options.model_options})
    sample = data.x_train
    if options.normalize:
        axes = (0, 2, 3)
        mean, std = sample.mean(axis=axes, dtype="float64"), sample.std(axis=axes, dtype="float64").clip(1e-3)
        first = Normalize(mean.tolist(), std.tolist())
        model, sample = Sequential(first, *model.layers, input_shape=model.input_shape), first(sample[:5000])
    if options.whiten:
        models.whiten(model, sample[:5000])
    return model


def _make_schedule(options: argparse.Namespace) -> Any:
    from fastconv.nn import schedules

    if options.schedule == "cosine":
        return schedules.cosine(options.epochs, warmup=options.warmup or 0.0)
    if options.schedule == "one_cycle":
        return schedules.one_cycle(options.epochs, warmup=(options.warmup or options.epochs / 3) / options.epochs)
    if options.schedule == "step":
        return schedules.step_decay(options.decay_every, options.decay_factor)
    if options.schedule == "exponential":
        return schedules.exponential(options.decay_factor)
    return None
