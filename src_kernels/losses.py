"""Softmax cross-entropy of a batch small enough for the calling thread, in one pass over the rows."""

from __future__ import annotations

import math

from fastconv._kernels.jit import jit


@jit
def softmax_cross_entropy(scores, y, dscores):
    """Fill dscores (N, classes) with (softmax(scores) - onehot(y)) / N; the mean loss, or -1 for a wrong label.

    Sums and the loss are made in float64. `dscores` may be uninitialised and is worthless after a wrong label.
    """
    N, classes = scores.shape
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
        loss += math.log(total) - (row[label] - largest)
        scale = 1 / (total * N)
        for c in range(classes):
            out[c] *= scale
        out[label] -= 1 / N
    return loss / N
