"""The training loop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import arguments, losses, runtime
from fastconv.nn.augment import Augmentation
from fastconv.nn.history import History
from fastconv.nn.optim import Optimizer
from fastconv.nn.schedules import Schedule
from fastconv.nn.sequential import Sequential

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": losses.softmax_cross_entropy,
    "svm_loss": losses.svm_loss,
    "mse_loss": losses.mse_loss,
}


class Trainer:
    """Trains a model: shuffled epochs, every image once in each, one optimizer step per batch.

    Parameters
    ----------
    optimizer : made from this model's parameters.
    loss : a name from `fastconv.losses`, or a function (scores, y) -> (mean loss, dscores).
    seed : of the order of images, dropout masks and augmentation. The same seed, model and data give bit-identical
        parameters on one machine with the same number of threads.
    schedule : a factor on the optimizer's learning rate by epoch, such as `schedules.cosine(10)`.
    augment : changes each training batch, such as `augment.random_shift(2)`.
    progress : show a progress bar with images per second and loss (one line per epoch where stderr is no terminal
        or tqdm is not installed).

    Raises
    ------
    ValueError, TypeError : unknown loss; the optimizer updates other parameters than the model's.

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
        progress: bool = True,
    ):
        if isinstance(loss, str):
            loss = LOSSES[arguments.choice("Trainer", "loss", loss, tuple(LOSSES))]
        if {id(parameter) for parameter in optimizer.parameters} - {id(parameter) for parameter in model.parameters()}:
            raise ValueError("Trainer: optimizer must be made from model.parameters(), it holds other parameters")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.schedule = schedule
        self.augment = augment
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
        on_epoch_end: Callable[[History], Any] | None = None,
    ) -> History:
        """Train on inputs x (N, ...) and targets y (N, ...); the last batch of an epoch may be smaller.

        Parameters
        ----------
        validation : (x, y) to evaluate after each epoch.
        on_epoch_end : called with the history so far, for instance to save a checkpoint.

        Raises
        ------
        ValueError, TypeError : x and y differ in length or are empty; `epochs` or `batch_size` is below 1.
        FloatingPointError : the loss became NaN or infinite; the batch's update was not made.
        """
        x, y = _check_data("Trainer.fit", x, y)
        epochs = arguments.integer("Trainer.fit", "epochs", epochs, 1)
        batch_size = arguments.integer("Trainer.fit", "batch_size", batch_size, 1)
        if validation is not None:
            validation = _check_data("Trainer.fit: validation", *validation)
        history = History()
        base_rate = self.optimizer.lr
        try:
            for epoch in range(epochs):
                self._train_epoch(x, y, batch_size, epoch, epochs, base_rate, history)
                if validation is not None:
                    loss, accuracy = self.evaluate(*validation)
                    history.val_loss.append(loss)
                    history.val_accuracy.append(accuracy)
                if self.progress:
                    print(f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}  {history.last_line()}", flush=True)
                if on_epoch_end is not None:
                    on_epoch_end(history)
        finally:
            self.optimizer.lr = base_rate
        return history

    def evaluate(self, x: np.ndarray, y: np.ndarray, *, batch_size: int = 256) -> tuple[float, float]:
        """(mean loss, accuracy) on inputs x (N, ...) and targets y; accuracy is NaN unless y holds classes (N,).

        Raises
        ------
        ValueError, TypeError : x and y differ in length or are empty.
        """
        x, y = _check_data("Trainer.evaluate", x, y)
        batch_size = arguments.integer("Trainer.evaluate", "batch_size", batch_size, 1)
        total_loss, total_correct = 0.0, 0.0
        for start in range(0, len(x), batch_size):
            batch = np.asarray(x[start : start + batch_size], self.model.dtype)
            targets = y[start : start + batch_size]
            scores = self.model.forward(batch)
            total_loss += float(self.loss(scores, targets)[0]) * len(batch)
            total_correct += _count_correct(scores, targets)
        return total_loss / len(x), total_correct / len(x)

    def _train_epoch(
        self, x: np.ndarray, y: np.ndarray, batch_size: int, epoch: int, epochs: int, base_rate: float, history: History
    ) -> None:
        started, compiled = time.perf_counter(), runtime.compile_seconds()
        total_loss, total_correct, seen = 0.0, 0.0, 0
        order = self._rng.permutation(len(x))
        bar = _progress_bar(len(x), f"epoch {epoch + 1}/{epochs}") if self.progress else None
        try:
            for start in range(0, len(x), batch_size):
                if self.schedule is not None:
                    self.optimizer.lr = base_rate * self.schedule(epoch + start / len(x))
                rows = order[start : start + batch_size]
                loss, correct = self._train_batch(np.asarray(x[rows], self.model.dtype), y[rows])
                seen += len(rows)
                total_loss += loss * len(rows)
                total_correct += correct
                if bar is not None:
                    bar.set_postfix_str(f"loss {total_loss / seen:.4f}", refresh=False)
                    bar.update(len(rows))
        finally:
            if bar is not None:
                bar.close()
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
            self.optimizer.step()
        return float(loss), _count_correct(scores, y)


def _check_data(function: str, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = arguments.array(function, "x", x), arguments.array(function, "y", y)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{function}: x and y must have one entry per example, got shapes {x.shape} and {y.shape}")
    return x, y


def _count_correct(scores: np.ndarray, y: np.ndarray) -> float:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        return math.nan
    return float(np.count_nonzero(scores.argmax(axis=1) == y))


def _progress_bar(total: int, description: str) -> Any:
    """A tqdm bar, or None where it cannot be drawn."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=description, unit=" images", unit_scale=True, leave=False, dynamic_ncols=True)
