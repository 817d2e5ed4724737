"""`filter_image` on a photograph's size: weighted channels, two slopes at once, a separable and an odd kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import filter_image

from .common import Timed

KERNELS = {
    "grayscale": "grayscale",
    "sobel": "sobel",
    "box": "box",
    "5x5": np.random.default_rng(1).standard_normal((5, 5)),
}


class Filter(Timed):
    params = (list(KERNELS),)
    param_names = ("kernel",)

    def prepare(self, kernel: str) -> Callable[[], Any]:
        photo = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), np.uint8)
        return lambda: filter_image(photo, KERNELS[kernel])

    def time_filter(self, kernel: str) -> None:
        self.call()
