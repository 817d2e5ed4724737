"""Losses: each returns the mean over the batch and its gradient by the scores, (loss, dscores).

The mean over no examples is NaN, as in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv._kernels.losses import softmax_cross_entropy as _fused

# Up to here one pass with scalar exponentials takes less than NumPy's dozen calls.
_FUSED_SIZE = 8192


def _scores_and_labels(function: str, scores: Any, y: Any) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    scores, y = arguments.array(function, "scores", scores, 2), arguments.array(function, "y", y)
    N, classes = scores.shape
    if y.dtype.kind not in "iu" and y.size:
        raise TypeError(f"{function}: y must hold integer class labels, got dtype {y.dtype}")
    if y.shape != (N,):
        raise ValueError(f"{function}: y must have one label per row of scores, shape ({N},), got {y.shape}")
    if N and (y.min() < 0 or y.max() >= classes):
        raise ValueError(f"{function}: y must hold labels from 0 to {classes - 1}, got {y.min()} to {y.max()}")
    dtype, result_dtype = arguments.dtypes(scores)
    return arguments.dense(scores, dtype), y.astype(np.intp), result_dtype


def softmax_cross_entropy(scores: Any, y: Any, *, label_smoothing: float = 0.0) -> tuple[float, np.ndarray]:
    """Mean over examples of -log softmax(scores)[y], and its gradient by the scores.

    With `label_smoothing` s the target of an example is no longer its label alone, but 1 - s of it plus s / classes of
    every class, and the loss is the mean of -log softmax(scores) weighted so (Szegedy et al. 2016, section 7).

    Parameters
    ----------
    scores : (N, classes), unnormalised.
    y : (N,) integers from 0 to classes - 1.
    label_smoothing : from 0 to 1.

    Returns
    -------
    (loss, dscores) with dscores = (softmax(scores) - target) / N, of scores' dtype.

    Raises
    ------
    ValueError : wrong shape, or a label or the smoothing out of range. TypeError : y does not hold integers.

    Examples
    --------
    >>> loss, dscores = softmax_cross_entropy([[0.0, 0.0], [0.0, 1000.0]], [0, 1])
    >>> round(loss, 4), dscores[0].tolist()
    (0.3466, [-0.25, 0.25])
    """
    smoothing = arguments.real("softmax_cross_entropy", "label_smoothing", label_smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"softmax_cross_entropy: label_smoothing must be from 0 to 1, got {label_smoothing}")
    scores, y = arguments.array("softmax_cross_entropy", "scores", scores, 2), np.asarray(y)
    if (
        0 < scores.size <= _FUSED_SIZE
        and scores.dtype.kind == "f"
        and y.dtype.kind in "iu"
        and y.shape == scores.shape[:1]
    ):
        dtype, result_dtype = arguments.dtypes(scores)
        dscores = np.empty(scores.shape, dtype)
        loss = _fused(arguments.dense(scores, dtype), arguments.dense(y, np.dtype(np.intp)), smoothing, dscores)
        if loss != -1:
            return loss, dscores.astype(result_dtype, copy=False)
    scores, y, result_dtype = _scores_and_labels("softmax_cross_entropy", scores, y)
    N, classes = scores.shape
    if not N:
        return math.nan, scores.astype(result_dtype)
    rows = np.arange(N)
    with np.errstate(invalid="ignore", under="ignore", over="ignore"):
        shifted = scores - scores.max(axis=1, keepdims=True)
        chosen = (1 - smoothing) * shifted[rows, y].astype(np.float64)
        if smoothing:  # else 0 * -inf would turn a score of -inf into NaN
            chosen += smoothing * shifted.mean(axis=1, dtype=np.float64)
        dscores = np.exp(shifted, out=shifted)
        total = dscores.sum(axis=1, dtype=np.float64)
        loss = float(np.mean(np.log(total) - chosen))
        dscores /= total.astype(scores.dtype)[:, np.newaxis]
        dscores -= scores.dtype.type(smoothing / classes)
        dscores[rows, y] -= scores.dtype.type(1 - smoothing)
        dscores /= N
    return loss, dscores.astype(result_dtype, copy=False)


def svm_loss(scores: Any, y: Any) -> tuple[float, np.ndarray]:
    """Multiclass hinge loss: mean over examples of the sum over other classes of max(0, scores - scores[y] + 1).

    Parameters
    ----------
    scores : (N, classes).
    y : (N,) integers from 0 to classes - 1.

    Returns
    -------
    (loss, dscores), dscores of scores' dtype; a margin of exactly 0 has gradient 0.

    Raises
    ------
    ValueError : wrong shape, or a label out of range. TypeError : y does not hold integers.

    Source: J. Weston & C. Watkins, "Support vector machines for multi-class pattern recognition", 1999.

    Examples
    --------
    >>> loss, dscores = svm_loss([[1.0, 0.5, -3.0]], [0])
    >>> loss, dscores.tolist()
    (0.5, [[-1.0, 1.0, 0.0]])
    """
    scores, y, result_dtype = _scores_and_labels("svm_loss", scores, y)
    N = len(scores)
    if not N:
        return math.nan, scores.astype(result_dtype)
    rows = np.arange(N)
    with np.errstate(invalid="ignore", over="ignore"):
        margins = np.maximum(scores - scores[rows, y][:, np.newaxis] + 1, 0)
        margins[rows, y] = 0
        loss = float(margins.sum(dtype=np.float64)) / N
        dscores = np.heaviside(margins, scores.dtype.type(0))  # unlike a comparison it keeps NaN
        dscores[rows, y] = -dscores.sum(axis=1)
        dscores /= N
    return loss, dscores.astype(result_dtype, copy=False)


def mse_loss(scores: Any, target: Any) -> tuple[float, np.ndarray]:
    """Mean of (scores - target)^2 over all numbers (as `torch.nn.functional.mse_loss`), and its gradient by scores.

    Parameters
    ----------
    scores, target : arrays of one shape.

    Raises
    ------
    ValueError : the shapes differ. TypeError : wrong type.

    Examples
    --------
    >>> loss, dscores = mse_loss([1.0, 2.0], [1.0, 4.0])
    >>> loss, dscores.tolist()
    (2.0, [0.0, -2.0])
    """
    function = "mse_loss"
    scores, target = arguments.array(function, "scores", scores), arguments.array(function, "target", target)
    if scores.shape != target.shape:
        raise ValueError(f"{function}: target must have the shape of scores, {scores.shape}, got {target.shape}")
    dtype, result_dtype = arguments.dtypes(scores, target)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        difference = np.asarray(arguments.dense(scores, dtype) - arguments.dense(target, dtype))
        if not difference.size:
            return math.nan, difference.astype(result_dtype)
        loss = float(np.square(difference, dtype=np.float64).mean())
        difference *= dtype.type(2 / difference.size)
        return loss, difference.astype(result_dtype, copy=False)
