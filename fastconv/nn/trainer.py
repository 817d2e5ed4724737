"""The training loop."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import arguments, runtime, workspace
from fastconv.nn import checkpoint, clipping, metrics, progress
from fastconv.nn.augment import Augmentation, alternating_flip
from fastconv.nn.callbacks import Callback
from fastconv.nn.history import History
from fastconv.nn.metrics import Loss
from fastconv.nn.optim import Optimizer
from fastconv.nn.run import Run
from fastconv.nn.schedules import Schedule
from fastconv.nn.sequential import Sequential, mirror


class Trainer:
    """Trains a model: shuffled epochs, every image once in each, one optimizer step per batch.

    Parameters
    ----------
    optimizer : made from this model's parameters.
    loss : a name from `fastconv.losses`, or a function (scores, y) -> (mean loss, dscores), such as
        `functools.partial(softmax_cross_entropy, label_smoothing=0.1)`.
    seed : of the order of images, dropout masks and augmentation. The same seed, model and data give bit-identical
        parameters on one machine with the same number of threads.
    schedule : a factor on the optimizer's learning rate by epoch, such as `schedules.cosine(10)`.
    augment : changes each training batch, such as `augment.random_shift(2)`.
    alternate_flip : mirror each image, left and right exchanged, in every other epoch: half of them in the even ones.
    clip_norm, clip_value : bounds on the norm of all gradients together and on each of their numbers.
    progress : print a line per epoch, and show a bar with images per second, time left and loss (where stderr is no
        terminal or tqdm is not installed: now and then a line).

    Raises
    ------
    ValueError, TypeError : unknown loss, a bound not above 0; the optimizer updates other parameters than the model's.

    >>> from fastconv.nn import Linear, Sequential, SGD
    >>> x = np.array([[-1.0], [1.0]]).repeat(50, axis=0)
    >>> y = (x[:, 0] > 0).astype(int)
    >>> model = Sequential(Linear(1, 2, rng=0))
    >>> trainer = Trainer(model, SGD(model.parameters(), lr=0.5), progress=False)
    >>> history = trainer.fit(x, y, epochs=5, batch_size=10)
    >>> trainer.evaluate(x, y)[1]
    1.0
    """

    def __init__(
        self,
        model: Sequential,
        optimizer: Optimizer,
        *,
        loss: str | Loss = "softmax_cross_entropy",
        seed: int = 0,
        schedule: Schedule | None = None,
        augment: Augmentation | None = None,
        alternate_flip: bool = False,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        progress: bool = True,
    ):
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and arguments.real("Trainer", name, limit) <= 0:
                raise ValueError(f"Trainer: {name} must be above 0, got {limit}")
        if {id(parameter) for parameter in optimizer.parameters} - {id(parameter) for parameter in model.parameters()}:
            raise ValueError("Trainer: optimizer must be made from model.parameters(), it holds other parameters")
        self.model = model
        self.optimizer = optimizer
        self.loss = metrics.loss_function("Trainer", loss)
        self.schedule = schedule
        self.augment = augment
        self.alternate_flip = bool(alternate_flip)
        self._seed = seed
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.progress = progress
        self._rng = np.random.default_rng(seed)
        model.seed(self._rng)

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        epochs: int,
        batch_size: int = 64,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        callbacks: Sequence[Callback] = (),
        on_epoch_end: Callable[[History], Any] | None = None,
        checkpoints: str | PathLike[str] | None = None,
        notes: Mapping[str, Any] | None = None,
        resume: str | PathLike[str] | None = None,
    ) -> History:
        """Train on inputs x (N, ...) and targets y (N, ...); the last batch of an epoch may be smaller.

        Parameters
        ----------
        epochs : in all, those of a resumed run included.
        validation : (x, y) to evaluate after each epoch.
        callbacks : objects that are told of each step and epoch: `EarlyStopping`, `EMA`, `Lookahead`, your own.
        on_epoch_end : called with the history so far after each epoch.
        checkpoints : a folder for `last.npz`, written after each epoch, and `best.npz`, written after each that is
            better than all before (by `History.monitor`).
        notes : JSON-able values that `read_meta` gives back from these files, beside the epoch's own figures.
        resume : a `last.npz`. With the same data, arguments and number of threads the rest of the run is, bit for
            bit, what it would have been without the interruption.

        Raises
        ------
        ValueError, TypeError : x and y differ in length or are empty; `epochs` or `batch_size` is below 1; `resume` is
            no checkpoint of such a run.
        FloatingPointError : the loss or the gradients' norm became NaN or infinite; the update was not made.
        """
        x, y = metrics.check_data("Trainer.fit", x, y)
        epochs = arguments.integer("Trainer.fit", "epochs", epochs, 1)
        batch_size = arguments.integer("Trainer.fit", "batch_size", batch_size, 1)
        if validation is not None:
            validation = metrics.check_data("Trainer.fit: validation", *validation)
        run = Run(self.model, self.optimizer, tuple(callbacks), self._rng, epochs, -(-len(x) // batch_size))
        for callback in run.callbacks:
            callback.on_fit_begin(run)
        if resume is not None:
            checkpoint.resume(resume, run)
        folder = None if checkpoints is None else Path(checkpoints)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        base_rate = self.optimizer.lr
        try:
            with workspace.keeping(workspace.KEEP_BYTES_TRAINING):
                while len(run.history) < epochs and not run.stopped:
                    self._run_epoch(run, x, y, batch_size, base_rate, validation, folder, notes, on_epoch_end)
        finally:
            self.optimizer.lr = base_rate
        for callback in run.callbacks:
            callback.on_fit_end(run)
        return run.history

    def evaluate(
        self, x: np.ndarray, y: np.ndarray, *, batch_size: int = 256, mirror: bool = False, shift: int = 0
    ) -> tuple[float, float]:
        """(mean loss, accuracy) on inputs x (N, ...) and targets y: `nn.evaluate` with the trainer's."""
        return metrics.evaluate(self.model, x, y, loss=self.loss, batch_size=batch_size, mirror=mirror, shift=shift)

    def _run_epoch(
        self, run: Run, x: np.ndarray, y: np.ndarray, batch_size: int, base_rate: float,
        validation: tuple[np.ndarray, np.ndarray] | None, folder: Path | None, notes: Mapping[str, Any] | None,
        on_epoch_end: Callable[[History], Any] | None,
    ) -> None:  # fmt: skip
        """Train, evaluate, tell the callbacks, save and print."""
        self._train_epoch(run, x, y, batch_size, base_rate)
        with contextlib.ExitStack() as evaluation:
            for callback in run.callbacks:
                evaluation.enter_context(callback.evaluation(run))
            if validation is not None:
                loss, accuracy = self.evaluate(*validation)
                run.history.val_loss.append(loss)
                run.history.val_accuracy.append(accuracy)
            meta = {**(notes or {}), **_figures(run.history)}
            if folder is not None and run.history.best_epoch() == len(run.history) - 1:
                checkpoint.save(folder / "best.npz", self.model, **meta)
        for callback in run.callbacks:
            callback.on_epoch_end(run)
        if folder is not None:
            checkpoint.save_run(folder / "last.npz", run, meta)
        if self.progress:
            print(_epoch_line(run), flush=True)
        if on_epoch_end is not None:
            on_epoch_end(run.history)

    def _train_epoch(self, run: Run, x: np.ndarray, y: np.ndarray, batch_size: int, base_rate: float) -> None:
        epoch, history = len(run.history), run.history
        started, compiled = time.perf_counter(), runtime.compile_seconds()
        total_loss, total_correct, seen = 0.0, 0.0, 0
        order = self._rng.permutation(len(x))
        mirrored = alternating_flip(epoch, len(x), self._seed) if self.alternate_flip else np.zeros(len(x), bool)
        reporter = progress.reporter(len(x), f"epoch {epoch + 1}/{run.epochs}") if self.progress else progress.Silent()
        with contextlib.closing(reporter):
            for start in range(0, len(x), batch_size):
                if self.schedule is not None:
                    self.optimizer.lr = base_rate * self.schedule(epoch + start / len(x))
                rows = order[start : start + batch_size]
                batch = np.asarray(x[rows], self.model.dtype)
                if self.alternate_flip:
                    batch = np.where(mirrored[rows, None, None, None], mirror(batch, self.model.layout), batch)
                run.loss, correct = self._train_batch(batch, y[rows])
                run.step += 1
                seen += len(rows)
                total_loss += run.loss * len(rows)
                total_correct += correct
                for callback in run.callbacks:
                    callback.on_step_end(run)
                reporter.update(len(rows), total_loss / seen)
        seconds = time.perf_counter() - started
        compiling = runtime.compile_seconds() - compiled
        history.loss.append(total_loss / len(x))
        history.accuracy.append(total_correct / len(x))
        history.seconds.append(seconds)
        history.compile_seconds.append(compiling)
        history.images_per_second.append(len(x) / max(seconds - compiling, 1e-9))
        history.learning_rate.append(self.optimizer.lr)

    def _train_batch(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """(loss, correct answers) of the batch before the update that it makes."""
        if self.augment is not None:
            x = self.augment(x, self._rng)
        scores = self.model.forward(x, training=True)
        loss, dscores = self.loss(scores, y)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"Trainer.fit: the loss became {loss} at step {self.optimizer.steps + 1}: "
                f"check the inputs for NaN, or lower lr (now {self.optimizer.lr:g})"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # a diverging run ends with the error above instead
            self.model.backward(dscores, input_gradient=False)
            if self.clip_value is not None:
                clipping.clip_value(self.optimizer.parameters, self.clip_value)
            if self.clip_norm is not None:
                clipping.clip_norm(self.optimizer.parameters, self.clip_norm)
            self.optimizer.step()
        return float(loss), metrics.count_correct(scores, y)


def _figures(history: History) -> dict[str, float]:
    """The newest epoch's number, losses and accuracies, for a checkpoint's notes."""
    names = [name for name in ("loss", "accuracy", "val_loss", "val_accuracy") if getattr(history, name)]
    return {"epoch": len(history), **{name: getattr(history, name)[-1] for name in names}}


def _epoch_line(run: Run) -> str:
    """The newest epoch in one line, with the time that the others will take."""
    history, left = run.history, run.epochs - len(run.history)
    line = f"epoch {len(history):>{len(str(run.epochs))}}/{run.epochs}  {history.last_line()}"
    if run.stopped:
        return f"{line}  stopped early"
    return f"{line}  ETA {progress.clock(left * statistics.median(history.seconds))}" if left else line
