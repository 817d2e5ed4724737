"""Compiling in advance: run what a small network needs once, so that the disk cache holds it."""

from __future__ import annotations

import time

import numpy as np

# One batch that runs on the calling thread and one that is spread over the pool: these are different compiled code.
BATCH_SIZES = (1, 64)


def warmup(*, float64: bool = False) -> float:
    """Run LeNet-5 and a batch-normalised 3x3 net, forward and backward, in float32 (and float64); returns the seconds.

    Later processes load the compiled kernels from the disk cache instead. Kernels for other dtypes, layouts and
    algorithms are still compiled when they are first needed.

    >>> warmup() > 0
    True
    """
    from fastconv import losses
    from fastconv.nn import AvgPool2d, BatchNorm, Conv2d, Flatten, Linear, ReLU, Sequential, models

    started = time.perf_counter()
    for dtype in ("float32", "float64") if float64 else ("float32",):
        normalised = Sequential(
            Conv2d(8, 16, 3, padding=1, dtype=dtype, rng=0),
            BatchNorm(16, dtype=dtype),
            ReLU(),
            Conv2d(16, 16, 3, stride=2, padding=1, dtype=dtype, rng=0),
            AvgPool2d(2),
            Flatten(),
            Linear(16 * 4 * 4, 10, dtype=dtype, rng=0),
            input_shape=(8, 16, 16),
        )
        for model in (models.lenet5(dtype=dtype), normalised):
            assert model.input_shape is not None
            for batch_size in BATCH_SIZES:
                x = np.zeros((batch_size, *model.input_shape), dtype)
                scores = model.forward(x, training=True)
                _, dscores = losses.softmax_cross_entropy(scores, np.zeros(batch_size, np.int64))
                model.backward(dscores)
                model.forward(x)
    return time.perf_counter() - started
