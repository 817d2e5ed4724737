"""`fastconv train`."""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastconv import config_file
from fastconv.cli_options import (
    CommandError,
    fraction,
    natural,
    not_negative,
    positive,
    positive_integer,
    table,
    users_mistakes,
)

if TYPE_CHECKING:
    import numpy as np

    from fastconv.datasets import Dataset
    from fastconv.nn import Callback, History, Sequential, Trainer

# With a cosine schedule, batches of 64 and 30 epochs these reach 98 to 99.7 % on three splits of the digits.
LEARNING_RATES = {"sgd": 0.03, "rmsprop": 1e-3, "adam": 2e-3, "adamw": 2e-3}
DATA = ("digits", "mnist", "cifar10", "image_folder")
SCHEDULES = ("cosine", "one_cycle", "step", "exponential", "constant")
NOT_CONFIGURED = ("config", "resume", "out")  # where a run comes from and goes to is no part of what it is


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `train`; their names are also the keys of a configuration file."""
    flag = argparse.BooleanOptionalAction

    files = parser.add_argument_group("files").add_argument
    files("--out", required=True, metavar="DIR", help="folder to write to, made if missing")
    files("--config", metavar="FILE.toml", help="options in a file; those on the command line come first")
    files("--resume", metavar="LAST.npz", help="continue that run, with its options, in its folder")

    data = parser.add_argument_group("data").add_argument
    data("--data", choices=DATA, default="digits", help="default: digits")
    data("--path", "--data-dir", metavar="PATH", help="where the data lie (digits come with scikit-learn)")
    data("--download", action=flag, default=False, help="fetch missing files into PATH (mnist)")
    data("--size", type=positive_integer, metavar="PIXELS", help="resize the pictures of image_folder")
    data("--channels", type=int, choices=(1, 3), default=3, help="of image_folder's pictures (default: 3)")
    data(
        "--validation",
        type=fraction,
        default=0.0,
        metavar="SHARE",
        help="of the training images, held out to choose the best epoch by (default: none, the test images choose)",
    )

    model = parser.add_argument_group("model").add_argument
    model("--model", default="lenet5", help="lenet5 (default), three_layer_convnet, vgg_like, resnet9 or airbench")
    model("--model-options", type=table, default={}, metavar="JSON", help='such as {"widths": [32, 64]}')
    model("--normalize", action=flag, default=False, help="a first layer that gives each channel mean 0, deviation 1")
    model("--whiten", action=flag, default=False, help="first convolution: the training patches' components, kept")

    augmentation = parser.add_argument_group("augmentation").add_argument
    augmentation("--shift", type=natural, default=2, metavar="PIXELS", help="move images at random (default: up to 2)")
    augmentation("--padding", choices=("zeros", "reflect"), default="zeros", help="what moves in (default: zeros)")
    augmentation("--flip", action=flag, default=False, help="mirror half of the images")
    augmentation("--cutout", type=natural, default=0, metavar="PIXELS", help="blank a square of this size")

    optimizer = parser.add_argument_group("optimizer").add_argument
    rates = ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())
    optimizer("--optimizer", choices=LEARNING_RATES, default="adam", help="default: adam")
    optimizer("--lr", type=positive, metavar="RATE", help=f"learning rate (default: {rates})")
    optimizer("--momentum", type=fraction, default=0.9, metavar="SHARE", help="of sgd (default: 0.9)")
    optimizer("--nesterov", action=flag, default=False, help="Nesterov's momentum for sgd")
    optimizer("--weight-decay", type=not_negative, metavar="RATE", help="default: the optimizer's")
    optimizer("--decoupled", action=flag, default=False, help="scale weights instead of adding to gradients")
    optimizer("--decay-biases", action=flag, default=True, help="decay biases and batch-norm parameters as well")
    optimizer("--clip-norm", type=positive, metavar="BOUND", help="on the norm of all gradients")
    optimizer("--clip-value", type=positive, metavar="BOUND", help="on each number of the gradients")

    schedule = parser.add_argument_group("schedule").add_argument
    schedule("--epochs", type=positive_integer, default=30, metavar="N", help="default: 30")
    schedule("--batch-size", type=positive_integer, default=64, metavar="N", help="default: 64")
    schedule("--schedule", choices=SCHEDULES, default="cosine", help="default: cosine, to zero")
    schedule("--warmup", type=not_negative, metavar="EPOCHS", help="of cosine (default: 0), one_cycle (a third of all)")
    schedule("--decay-every", type=positive, default=10.0, metavar="EPOCHS", help="of step (default: 10)")
    schedule("--decay-factor", type=positive, default=0.1, help="of step and, per epoch, exponential (default: 0.1)")
    schedule("--patience", type=positive_integer, metavar="EPOCHS", help="end after so many without a better one")

    other = parser.add_argument_group("other").add_argument
    other("--label-smoothing", type=fraction, default=0.0, metavar="SHARE", help="default: 0")
    other("--ema", type=fraction, metavar="DECAY", help="evaluate and keep an average of the weights, such as 0.999")
    other("--lookahead", type=positive_integer, metavar="STEPS", help="pull the weights back every so many steps")
    other("--mirror", action=flag, default=False, help="test with each image and its mirror image")
    other("--seed", type=natural, default=0, metavar="N", help="default: 0")
    other("--threads", type=positive_integer, metavar="N", help="default: all cores")


def from_files(arguments: list[str]) -> list[str]:
    """The arguments that `--resume` and `--config` stand for; those of the command line override them."""
    if {"-h", "--help"} & {*arguments}:
        return []
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config")
    finder.add_argument("--resume")
    try:
        found, _ = finder.parse_known_args(arguments)
    except argparse.ArgumentError:
        return []  # the real parser says what is wrong
    parser = argparse.ArgumentParser()
    add_options(parser)
    known = [name for name in vars(parser.parse_args(["--out="])) if name not in NOT_CONFIGURED]
    result = []
    with users_mistakes():
        if found.resume is not None:
            from fastconv.nn import read_meta

            options = read_meta(found.resume).get("options")
            if not isinstance(options, dict):
                raise ValueError(f"--resume {found.resume} was not written by fastconv train")
            result += [f"--out={Path(found.resume).parent}", *config_file.as_arguments(options, known, found.resume)]
        if found.config is not None:
            result += config_file.as_arguments(config_file.read(found.config), known, found.config)
    return result


def train(options: argparse.Namespace) -> int:
    """Train a network, report, and write checkpoints, history, figures and the configuration to a folder."""
    with users_mistakes():
        if options.resume is not None and Path(options.out) != Path(options.resume).parent:
            raise ValueError(f"--resume continues in its own folder, {Path(options.resume).parent}; leave out --out")
        data = load_data(options)
    from fastconv import runtime
    from fastconv.nn import confusion_matrix, load

    options.lr = options.lr or LEARNING_RATES[options.optimizer]
    with users_mistakes():
        if options.threads is not None:
            runtime.set_num_threads(options.threads)
        training, validation = _split(data, options.validation, options.seed)
        trainer, callbacks = _make_trainer(options, data)
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        configured = _configured(options)
        config_file.write(out / "config.toml", configured)
    print(data, trainer.model.summary(), sep="\n\n", end="\n\n")

    started, compiled = time.perf_counter(), runtime.compile_seconds()
    try:
        history = trainer.fit(
            *training,
            epochs=options.epochs,
            batch_size=options.batch_size,
            validation=validation,
            callbacks=callbacks,
            checkpoints=out,
            notes={"network": options.model, "data": data.name, "classes": data.classes, "options": configured},
            resume=options.resume,
        )
    except (OSError, ValueError) as error:  # a checkpoint of another run, a full disk
        raise CommandError(str(error)) from error
    seconds = time.perf_counter() - started
    scores = trainer.model.predict(data.x_test, mirror=options.mirror)
    best = load(out / "best.npz").predict(data.x_test, mirror=options.mirror)
    chosen_by = "held-out training images" if options.validation else "the test images themselves"

    print()
    print(
        f"test accuracy    {_accuracy(scores, data):.2%} on {len(data.y_test):,} held-out images, after the last epoch"
    )
    print(f"best epoch       {history.best_epoch() + 1}: {_accuracy(best, data):.2%}; chosen by {chosen_by}")
    print(f"time per epoch   {statistics.median(history.seconds):.2f} s (median), first {history.seconds[0]:.2f} s")
    print(f"training         {seconds:.2f} s in all, evaluation included")
    print(f"compiling        {runtime.compile_seconds() - compiled:.2f} s of it (kept on disk for the next run)")
    with users_mistakes():
        history.save(out / "history.json")
        history.save(out / "history.csv")
        confusion = confusion_matrix(data.y_test, scores)
        figures = _write_figures(out, options, data, trainer.model, history, scores, confusion)
    files = ["best.npz", "last.npz", "config.toml", "history.json", "history.csv", *figures]
    print(f"saved            {out}/: {', '.join(files)}")
    return 0


def _accuracy(scores: np.ndarray, data: Dataset) -> float:
    return float((scores.argmax(axis=1) == data.y_test).mean())


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


def _split(data: Dataset, share: float, seed: int) -> _Parts:
    """What to train on and what to validate with: the test images, or a share of the training images."""
    if not share:
        return _Parts((data.x_train, data.y_train), (data.x_test, data.y_test))
    from fastconv.datasets import held_out

    held = held_out(data.y_train, share, seed)
    return _Parts((data.x_train[~held], data.y_train[~held]), (data.x_train[held], data.y_train[held]))


def _make_trainer(options: argparse.Namespace, data: Dataset) -> tuple[Trainer, list[Callback]]:
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


def _configured(options: argparse.Namespace) -> dict[str, Any]:
    """Every option that a configuration file may hold, as it is in this run."""
    hidden = ("run", *NOT_CONFIGURED)
    return {name: value for name, value in vars(options).items() if name not in hidden and value is not None}


def _write_figures(
    out: Path,
    options: argparse.Namespace,
    data: Dataset,
    model: Sequential,
    history: History,
    scores: np.ndarray,
    confusion: np.ndarray,
) -> list[str]:
    from fastconv import plots

    try:
        figures = {
            "training.png": plots.history_figure(history, title=f"{options.model} on {data.name}"),
            "learning_rate.png": plots.learning_rate_figure(history),
            "filters.png": plots.filter_grid(model),
            "feature_maps.png": plots.feature_maps(model, data.x_test[0]),
            "confusion.png": plots.confusion_figure(confusion, data.classes),
            "misclassified.png": plots.misclassified_grid(data.x_test, data.y_test, scores, data.classes),
        }
    except ImportError as error:
        print(f"no figures       {error}")
        return []
    for name, figure in figures.items():
        figure.savefig(out / name)
    return list(figures)
