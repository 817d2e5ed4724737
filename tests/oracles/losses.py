"""Losses and their gradients by loops over examples and classes, in float64; imports nothing of the library."""

from __future__ import annotations

import math

import numpy as np


def softmax_cross_entropy(scores, y, label_smoothing=0.0):
    loss, dscores = 0.0, np.zeros(np.shape(scores))
    for n, (row, label) in enumerate(zip(np.asarray(scores, np.float64), y, strict=True)):
        total = math.fsum(math.exp(s) for s in row)
        for c, s in enumerate(row):
            target = label_smoothing / len(row) + (1 - label_smoothing) * (c == label)
            loss -= target * (s - math.log(total))
            dscores[n, c] = math.exp(s) / total - target
    return loss / len(y), dscores / len(y)


def svm_loss(scores, y):
    loss, dscores = 0.0, np.zeros(np.shape(scores))
    for n, (row, label) in enumerate(zip(np.asarray(scores, np.float64), y, strict=True)):
        for c, s in enumerate(row):
            margin = s - row[label] + 1
            if c != label and margin > 0:
                loss += margin
                dscores[n, c] += 1
                dscores[n, label] -= 1
    return loss / len(y), dscores / len(y)


def mse_loss(scores, target):
    pairs = list(zip(np.ravel(scores).astype(float), np.ravel(target).astype(float), strict=True))
    dscores = np.reshape([2 * (s - t) / len(pairs) for s, t in pairs], np.shape(scores))
    return math.fsum((s - t) ** 2 for s, t in pairs) / len(pairs), dscores
