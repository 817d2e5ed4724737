"""One step of training LeNet-5: forward, loss, backward, update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import softmax_cross_entropy
from fastconv.nn import SGD, models

from .common import Timed, normal


class LeNet5(Timed):
    params = ([32, 256],)
    param_names = ("batch size",)

    def prepare(self, batch_size: int) -> Callable[[], Any]:
        model = models.lenet5(seed=0)
        optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9)
        x = normal((batch_size, 1, 28, 28), "float32")
        y = np.random.default_rng(1).integers(0, 10, batch_size)

        def step() -> None:
            scores = model.forward(x, training=True)
            _, dscores = softmax_cross_entropy(scores, y)
            model.backward(dscores, input_gradient=False)
            optimizer.step()

        return step

    def time_step(self, batch_size: int) -> None:
        self.call()
