"""One step of training a network: forward, loss, backward, update."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastconv import softmax_cross_entropy
from fastconv.nn import SGD, Sequential, models

from .common import Timed, normal

# name -> (network, batch size)
NETWORKS: dict[str, tuple[Callable[..., Sequential], int]] = {
    "lenet5 batch 32": (models.lenet5, 32),
    "lenet5 batch 256": (models.lenet5, 256),
    "three-layer net batch 50": (models.three_layer_convnet, 50),
    "vgg-like net batch 50": (partial(models.vgg_like, widths=(64, 64, 128, 256)), 50),
}


class Training(Timed):
    params = (list(NETWORKS),)
    param_names = ("network",)

    def prepare(self, network: str) -> Callable[[], Any]:
        build, batch_size = NETWORKS[network]
        model = build(seed=0)
        optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9)
        x = normal((batch_size, *model.input_shape), "float32")
        y = np.random.default_rng(1).integers(0, 10, batch_size)

        def step() -> None:
            scores = model.forward(x, training=True)
            _, dscores = softmax_cross_entropy(scores, y)
            model.backward(dscores, input_gradient=False)
            optimizer.step()

        return step

    def time_step(self, network: str) -> None:
        self.call()
