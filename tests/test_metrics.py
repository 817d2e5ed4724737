"""Evaluation and the confusion matrix, against counting."""

import numpy as np
import pytest

from fastconv.nn import Flatten, Linear, Sequential, confusion_matrix, evaluate


def test_confusion_matrix_counts_pairs():
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 4, 100), rng.integers(0, 3, 100).astype(np.uint8)
    matrix = confusion_matrix(y, predicted)
    assert matrix.shape == (4, 4) and matrix.dtype == np.int64 and not matrix[:, 3].any()
    for i in range(4):
        for j in range(4):
            assert matrix[i, j] == sum(1 for a, b in zip(y, predicted, strict=True) if (a, b) == (i, j))
    np.testing.assert_array_equal(confusion_matrix(y, np.eye(4)[predicted]), matrix)
    assert confusion_matrix(y, predicted, classes=6).shape == (6, 6)
    assert confusion_matrix(np.zeros(0, int), np.zeros(0, int), classes=2).tolist() == [[0, 0], [0, 0]]


def test_evaluate_needs_no_trainer():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 1, 3, 4)).astype(np.float32), rng.integers(0, 3, 50)
    model = Sequential(Flatten(), Linear(12, 3, rng=0))
    scores = model.predict(x).astype("f8")
    expected = -(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))[np.arange(50), y].mean()
    loss, accuracy = evaluate(model, x, y, batch_size=7)
    assert loss == pytest.approx(expected, rel=1e-5) and accuracy == (scores.argmax(axis=1) == y).mean()
    mirrored = (scores + model.predict(x[..., ::-1])) / 2
    assert evaluate(model, x, y, mirror=True)[1] == (mirrored.argmax(axis=1) == y).mean()
    target = rng.normal(size=(50, 3)).astype(np.float32)
    assert evaluate(model, x, target, loss="mse_loss")[0] == pytest.approx(((scores - target) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: confusion_matrix([0, 1], [0]), ValueError, "must have one length, got 2 and 1"),
        (lambda: confusion_matrix([0, 3], [0, 1], classes=3), ValueError, "must be from 0 to 2, got 0 to 3"),
        (lambda: confusion_matrix([0, -1], [0, 1]), ValueError, "must be from 0 to 1, got -1 to 1"),
        (lambda: confusion_matrix([0.0], [0]), TypeError, "labels must be integers, got dtypes float64"),
        (lambda: evaluate(Sequential(Flatten()), np.ones((2, 3)), [0]), ValueError, "one entry per example"),
        (lambda: evaluate(Sequential(Flatten()), np.ones((1, 3)), [0], loss="hinge"), ValueError, "loss must be one"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
