"""Softmax cross-entropy of a batch small enough for the calling thread, in one pass over the rows."""

from __future__ import annotations

import math

from fastconv._kernels.jit import jit


@jit
def softmax_cross_entropy(scores, y, smoothing, dscores):
    """Fill dscores (N, classes) with (softmax(scores) - target) / N; the mean loss, or -1 for a wrong label.

    The target of an example is 1 - smoothing for its label plus smoothing / classes for every class.

    Sums and the loss are made in float64. `dscores` may be uninitialised and is worthless after a wrong label.
    """
    N, classes = scores.shape
    share = smoothing / classes
    loss = 0.0
    for n in range(N):
        label = y[n]
        if label < 0 or label >= classes:
            return -1.0
        row, out = scores[n], dscores[n]
        largest = row[0]
        for c in range(classes):
            if row[c] > largest:  # of a row with a NaN anything: its exponential is NaN in any case
                largest = row[c]
        total = 0.0
        for c in range(classes):
            out[c] = math.exp(row[c] - largest)
            total += out[c]
        loss += math.log(total) - (1 - smoothing) * (row[label] - largest)
        scale = 1 / (total * N)
        for c in range(classes):
            out[c] = out[c] * scale - share / N
        out[label] -= (1 - smoothing) / N
        if smoothing > 0:  # else 0 * -inf would turn a score of -inf into NaN
            for c in range(classes):
                loss -= share * (row[c] - largest)
    return loss / N
