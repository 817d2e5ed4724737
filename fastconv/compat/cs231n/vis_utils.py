"""CS231n's `vis_utils.py`: images in a grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import arguments

__all__ = ["visualize_grid"]


def visualize_grid(Xs: Any, ubound: float = 255.0, padding: int = 1) -> np.ndarray:
    """Images (N, H, W, C) side by side in a square grid, each stretched to its own range, as one float64 image.

    Parameters
    ----------
    Xs : such as a first layer's filters, `params["W1"].transpose(0, 2, 3, 1)`.
    ubound : the largest number in the grid; the smallest is 0. An image of one value becomes 0 (NaN in the course).
    padding : pixels between images, of value 0.

    Raises
    ------
    ValueError : Xs is not of rank 4 or empty, or padding is negative. TypeError : wrong type.

    >>> visualize_grid(np.random.default_rng(0).random((5, 7, 7, 3))).shape
    (23, 23, 3)
    """
    images = arguments.array("visualize_grid", "Xs", Xs, 4).astype(np.float64)
    ubound = arguments.real("visualize_grid", "ubound", ubound)
    padding = arguments.integer("visualize_grid", "padding", padding, 0)
    N, H, W, C = images.shape
    if not images.size:
        raise ValueError(f"visualize_grid: Xs must not be empty, got shape {images.shape}")
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    images = ubound * (images - low) / np.where(high > low, high - low, 1)
    side = math.isqrt(N - 1) + 1  # the square root, rounded up
    grid = np.zeros((side * (H + padding) - padding, side * (W + padding) - padding, C))
    for n, image in enumerate(images):
        top, left = n // side * (H + padding), n % side * (W + padding)
        grid[top : top + H, left : left + W] = image
    return grid
