"""Random changes to training images that keep their meaning: functions (images, rng) -> images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastconv import arguments

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def random_shift(pixels: int) -> Augmentation:
    """Move each image (C, H, W) by up to `pixels` up or down and left or right; zeros move in.

    Raises
    ------
    ValueError, TypeError : `pixels` is no integer of at least 0.

    >>> images = np.ones((5, 1, 4, 4), np.float32)
    >>> random_shift(1)(images, np.random.default_rng(0)).shape
    (5, 1, 4, 4)
    """
    pixels = arguments.integer("random_shift", "pixels", pixels, 0)

    def shift(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        N, C, H, W = images.shape
        padded = np.zeros((N, C, H + 2 * pixels, W + 2 * pixels), images.dtype)
        padded[:, :, pixels : pixels + H, pixels : pixels + W] = images
        out = np.empty_like(images)
        for n, (top, left) in enumerate(rng.integers(0, 2 * pixels + 1, (N, 2)).tolist()):
            out[n] = padded[n, :, top : top + H, left : left + W]
        return out

    return shift
