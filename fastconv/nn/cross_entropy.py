"""The cross-entropy of probabilities, as an object: the last piece of a network that ends with `Softmax`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import arguments


class CrossEntropy:
    """Mean over examples of -log p[y], and its gradient by the probabilities p: a loss for `Trainer`.

    Behind a `Softmax` layer the two gradients together are softmax_cross_entropy's, (p - onehot(y)) / N. That function
    on the scores themselves is faster, and exact where a probability is too small for its dtype; here probabilities
    count as no less than the dtype's smallest normal number.

    Raises
    ------
    ValueError, TypeError : p is no (N, classes), y no (N,) integers from 0 to classes - 1.

    >>> loss, gradient = CrossEntropy()(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0]))
    >>> round(loss, 4), gradient.tolist()
    (1.0397, [[-1.0, 0.0], [-2.0, 0.0]])
    """

    def __call__(self, probabilities: Any, y: Any) -> tuple[float, np.ndarray]:
        p = arguments.array("CrossEntropy", "probabilities", probabilities, 2)
        y = arguments.array("CrossEntropy", "y", y, 1)
        N, classes = p.shape
        if y.dtype.kind not in "iu":
            raise TypeError(f"CrossEntropy: y must hold integer class labels, got dtype {y.dtype}")
        if len(y) != N or (N and (y.min() < 0 or y.max() >= classes)):
            raise ValueError(f"CrossEntropy: y must hold {N} labels from 0 to {classes - 1}, got {y}")
        p = p.astype(arguments.dtypes(p)[0], copy=False)
        gradient = np.zeros_like(p)
        if not N:
            return math.nan, gradient
        rows = np.arange(N)
        chosen = np.maximum(p[rows, y], np.finfo(p.dtype).tiny)
        gradient[rows, y] = -1 / (N * chosen)
        return float(-np.log(chosen.astype(np.float64)).mean()), gradient
