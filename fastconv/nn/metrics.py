"""How good a model is: loss and accuracy on a data set, and which class it takes for which."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import arguments, losses
from fastconv.nn.sequential import Sequential

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": losses.softmax_cross_entropy,
    "svm_loss": losses.svm_loss,
    "mse_loss": losses.mse_loss,
}


def evaluate(
    model: Sequential,
    x: np.ndarray,
    y: np.ndarray,
    *,
    loss: str | Loss = "softmax_cross_entropy",
    batch_size: int = 256,
    mirror: bool = False,
    shift: int = 0,
) -> tuple[float, float]:
    """(mean loss, accuracy) on inputs x (N, ...) and targets y; accuracy is NaN unless y holds classes (N,).

    Parameters
    ----------
    loss : a name from `fastconv.losses`, or a function (scores, y) -> (mean loss, dscores).
    mirror, shift : average the scores of several views of each image, as `Sequential.predict` does.

    Raises
    ------
    ValueError, TypeError : x and y differ in length or are empty; unknown loss.
    """
    function = "evaluate"
    loss = loss_function(function, loss)
    x, y = check_data(function, x, y)
    batch_size = arguments.integer(function, "batch_size", batch_size, 1)
    total_loss, total_correct = 0.0, 0.0
    for start in range(0, len(x), batch_size):
        targets = y[start : start + batch_size]
        scores = model.predict(x[start : start + batch_size], batch_size=batch_size, mirror=mirror, shift=shift)
        total_loss += float(loss(scores, targets)[0]) * len(targets)
        total_correct += count_correct(scores, targets)
    return total_loss / len(x), total_correct / len(x)


def confusion_matrix(y: Any, predicted: Any, classes: int | None = None) -> np.ndarray:
    """How often each class was taken for each: entry [i, j] counts examples of class i that were predicted as j.

    Parameters
    ----------
    y, predicted : (N,) integers from 0; `predicted` may also be scores (N, classes), whose largest counts.
    classes : their number; None for the largest label plus one, or the scores' columns.

    Raises
    ------
    ValueError : lengths differ, or a label is out of range. TypeError : labels are no integers.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1]).tolist()
    [[1, 1], [0, 1]]
    """
    function = "confusion_matrix"
    y, predicted = arguments.array(function, "y", y, 1), arguments.array(function, "predicted", predicted, (1, 2))
    if predicted.ndim == 2:
        classes = predicted.shape[1] if classes is None else classes
        predicted = predicted.argmax(axis=1)
    if y.dtype.kind not in "iu" or predicted.dtype.kind not in "iu":
        raise TypeError(f"{function}: labels must be integers, got dtypes {y.dtype} and {predicted.dtype}")
    if len(y) != len(predicted):
        raise ValueError(f"{function}: y and predicted must have one length, got {len(y)} and {len(predicted)}")
    labels = np.concatenate([y, predicted]).astype(np.int64)
    if classes is None:
        classes = int(labels.max(initial=-1)) + 1
    classes = arguments.integer(function, "classes", classes, 0)
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"{function}: labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    pairs = labels[: len(y)] * classes + labels[len(y) :]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def loss_function(function: str, loss: str | Loss) -> Loss:
    """The loss of that name, or the function itself."""
    return LOSSES[arguments.choice(function, "loss", loss, tuple(LOSSES))] if isinstance(loss, str) else loss


def check_data(function: str, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays; ValueError unless they have one entry per example, and examples."""
    x, y = arguments.array(function, "x", x), arguments.array(function, "y", y)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{function}: x and y must have one entry per example, got shapes {x.shape} and {y.shape}")
    return x, y


def count_correct(scores: np.ndarray, y: np.ndarray) -> float:
    """How many examples have their largest score at their class; NaN unless y holds classes."""
    if y.ndim != 1 or y.dtype.kind not in "iu":
        return math.nan
    return float(np.count_nonzero(scores.argmax(axis=1) == y))
