"""The `fastconv` command. Networks, data sets and figures are imported inside the subcommands: help is quick."""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import fastconv

if TYPE_CHECKING:
    from fastconv.datasets import Dataset
    from fastconv.nn import History, Sequential

# With a cosine schedule, batches of 64 and 30 epochs these reach 98 to 99.7 % on three splits of the digits.
LEARNING_RATES = {"sgd": 0.03, "rmsprop": 1e-3, "adam": 2e-3, "adamw": 2e-3}
FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130


class CommandError(Exception):
    """A mistake in how the command was used, or in the files it was given: one line, exit code 2."""


@contextlib.contextmanager
def _users_mistakes() -> Iterator[None]:
    """Turn the errors that arguments, files or missing packages cause here into a `CommandError`."""
    try:
        yield
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        raise CommandError(text) from error
    except (ValueError, ImportError) as error:
        raise CommandError(str(error)) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(BAD_USAGE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _number(kind: Callable[[str], Any], rule: str, accept: Callable[[Any], bool]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f"must be {rule}, got {text!r}")
        return value

    return convert


_positive_integer = _number(int, "an integer of at least 1", lambda n: n >= 1)
_natural = _number(int, "an integer of at least 0", lambda n: n >= 0)
_rate = _number(float, "a number above 0", lambda value: 0 < value < math.inf)


def train(options: argparse.Namespace) -> int:
    """Train a network, report, and write model, history and figures to a folder."""
    with _users_mistakes():
        data = _load_data(options)
    from fastconv import runtime
    from fastconv.nn import Trainer, augment, models, optim, save, schedules

    with _users_mistakes():
        if options.threads is not None:
            runtime.set_num_threads(options.threads)
        channels, size, _ = data.x_train.shape[1:]
        model = models.build(
            options.model, classes=len(data.classes), in_channels=channels, size=size, seed=options.seed
        )
        rate = options.lr or LEARNING_RATES[options.optimizer]
        momentum = {"momentum": 0.9} if options.optimizer == "sgd" else {}
        optimizer = optim.OPTIMIZERS[options.optimizer](model.parameters(), lr=rate, **momentum)
        schedule = schedules.cosine(options.epochs) if options.schedule == "cosine" else None
        shift = augment.random_shift(options.shift) if options.shift else None
        trainer = Trainer(model, optimizer, seed=options.seed, schedule=schedule, augment=shift)
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
    print(data, model.summary(), sep="\n\n", end="\n\n")

    started, compiled = time.perf_counter(), runtime.compile_seconds()
    history = trainer.fit(
        data.x_train,
        data.y_train,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation=(data.x_test, data.y_test),
    )
    seconds = time.perf_counter() - started
    scores = model.predict(data.x_test)
    accuracy = float((scores.argmax(axis=1) == data.y_test).mean())

    print()
    print(f"test accuracy    {accuracy:.2%} on {len(data.y_test):,} held-out images")
    print(f"time per epoch   {statistics.median(history.seconds):.2f} s (median), first {history.seconds[0]:.2f} s")
    print(f"training         {seconds:.2f} s in all, evaluation included")
    print(f"compiling        {runtime.compile_seconds() - compiled:.2f} s of it (kept on disk for the next run)")
    with _users_mistakes():
        save(
            out / "model.npz",
            model,
            optimizer,
            network=options.model,
            data=data.name,
            classes=data.classes,
            epochs=options.epochs,
            test_accuracy=accuracy,
        )
        history.save(out / "history.json")
        history.save(out / "history.csv")
        files = [
            "model.npz",
            "history.json",
            "history.csv",
            *_write_figures(out, options, data, model, history, scores),
        ]
    print(f"saved            {out}/: {', '.join(files)}")
    return 0


def _load_data(options: argparse.Namespace) -> Dataset:
    from fastconv import datasets

    if options.data == "digits":
        if options.data_dir is not None:
            raise ValueError("--data-dir is for --data mnist; digits come with scikit-learn")
        return datasets.digits(seed=options.seed)
    if options.data_dir is None:
        raise ValueError("--data mnist needs --data-dir DIR, the folder with its four IDX files")
    return datasets.mnist(options.data_dir)


def _write_figures(
    out: Path, options: argparse.Namespace, data: Dataset, model: Sequential, history: History, scores: Any
) -> list[str]:
    from fastconv import plots

    try:
        figures = {
            "training.png": plots.history_figure(history, title=f"{options.model} on {data.name}"),
            "filters.png": plots.filter_grid(model),
            "misclassified.png": plots.misclassified_grid(data.x_test, data.y_test, scores, data.classes),
        }
    except ImportError as error:
        print(f"no figures       {error}")
        return []
    for name, figure in figures.items():
        figure.savefig(out / name)
    return list(figures)


def predict(options: argparse.Namespace) -> int:
    """Classify images with a model that `train` wrote."""
    import numpy as np

    from fastconv import images
    from fastconv.nn import load, read_meta

    with _users_mistakes():
        model = load(options.model)
        shape = model.input_shape
        if shape is None or len(shape) != 3:
            raise ValueError(f"{options.model}: the model must know its input shape (C, H, W), got {shape}")
        classes = read_meta(options.model).get("classes")
        width = max(len(path) for path in options.images)
        for path in options.images:
            x = images.fit(images.read_images(path), (shape[0], shape[1], shape[2]))
            scores = model.predict(1 - x if options.invert else x).astype(np.float64)
            probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            for row in probabilities:
                best = np.argsort(-row, kind="stable")[: options.top]
                answers = (f"{classes[i] if classes else i} {row[i]:6.1%}" for i in best)
                print(f"{path:{width}}  {'   '.join(answers)}")
    return 0


def info(options: argparse.Namespace) -> int:
    """Print versions, vector unit, threads and cache folder."""
    from fastconv import runtime

    runtime.show_config()
    return 0


def warmup(options: argparse.Namespace) -> int:
    """Compile the kernels of small networks into the disk cache."""
    from fastconv import runtime
    from fastconv.warmup import warmup as run

    seconds = run(float64=options.float64)
    print(f"warmed up in {seconds:.2f} s, {runtime.compile_seconds():.2f} s of them compiling")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastconv", description="Convolution and small CNNs for NumPy, on Numba.")
    parser.add_argument("--version", action="version", version=f"fastconv {fastconv.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        return sub

    sub = command("train", train, "train a network and save it with its history and figures")
    sub.add_argument("--model", default="lenet5", help="lenet5 (default), three_layer_convnet or vgg_like")
    sub.add_argument("--data", choices=("digits", "mnist"), default="digits", help="default: digits")
    sub.add_argument("--data-dir", metavar="DIR", help="folder with MNIST's four IDX files")
    sub.add_argument("--epochs", type=_positive_integer, default=30, metavar="N", help="default: 30")
    sub.add_argument("--batch-size", type=_positive_integer, default=64, metavar="N", help="default: 64")
    sub.add_argument("--optimizer", choices=LEARNING_RATES, default="adam", help="default: adam")
    rates = ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())
    sub.add_argument("--lr", type=_rate, metavar="RATE", help=f"learning rate (default: {rates})")
    sub.add_argument("--schedule", choices=("cosine", "constant"), default="cosine", help="default: cosine, to zero")
    sub.add_argument(
        "--shift", type=_natural, default=2, metavar="PIXELS", help="move training images at random (default: up to 2)"
    )
    sub.add_argument("--seed", type=_natural, default=0, metavar="N", help="default: 0")
    sub.add_argument("--threads", type=_positive_integer, metavar="N", help="default: all cores")
    sub.add_argument("--out", required=True, metavar="DIR", help="folder to write to, made if missing")

    sub = command("predict", predict, "classify images with a saved model")
    sub.add_argument("--model", required=True, metavar="MODEL.npz", help="what train wrote")
    sub.add_argument("--top", type=_positive_integer, default=3, metavar="N", help="answers per image (default: 3)")
    sub.add_argument("--invert", action="store_true", help="for dark ink on a light ground: the data sets' is light")
    sub.add_argument("images", nargs="+", metavar="IMAGE", help="pictures (.png) or arrays (.npy)")

    sub = command("warmup", warmup, "compile the kernels of small networks into the disk cache")
    sub.add_argument("--float64", action="store_true", help="for float64 as well")

    command("info", info, "print versions, vector unit, threads and cache folder")
    commands.add_parser("bench", help="time convolutions on this machine (options: fastconv bench --help)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (argparse exits by itself after help and bad usage)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["bench"]:
            with _users_mistakes():
                from fastconv import bench
            return bench.main(arguments[1:]) or 0
        options = _parser().parse_args(arguments)
        return options.run(options)
    except CommandError as error:
        print(f"fastconv: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_USAGE
    except FloatingPointError as error:
        print(f"fastconv: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("fastconv: interrupted", file=sys.stderr)
        return INTERRUPTED
