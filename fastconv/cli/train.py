"""`fastconv train`: from options and files to a run, and what it reports and writes."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastconv.cli import config_file, recipe
from fastconv.cli.options import CommandError, users_mistakes
from fastconv.cli.train_options import LEARNING_RATES, add_options

if TYPE_CHECKING:
    import numpy as np

    from fastconv.datasets import Dataset
    from fastconv.nn import History, Sequential

NOT_CONFIGURED = ("config", "resume", "out")  # where a run comes from and goes to is no part of what it is


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
        data = recipe.load_data(options)
    from fastconv import runtime
    from fastconv.nn import confusion_matrix, load

    options.lr = options.lr or LEARNING_RATES[options.optimizer]
    with users_mistakes():
        if options.threads is not None:
            runtime.set_num_threads(options.threads)
        training, validation = recipe.split(data, options.validation, options.seed)
        trainer, callbacks = recipe.make_trainer(options, data)
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
