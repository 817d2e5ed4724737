"""CS231n's `data_utils.py`: CIFAR-10 as its notebooks want it."""

from __future__ import annotations

from os import PathLike

import numpy as np

from fastconv import arguments
from fastconv.cifar import read_cifar10

__all__ = ["get_CIFAR10_data"]


def get_CIFAR10_data(
    path: str | PathLike[str],
    num_training: int = 49000,
    num_validation: int = 1000,
    num_test: int = 1000,
    subtract_mean: bool = True,
) -> dict[str, np.ndarray]:
    """CIFAR-10 in the course's parts: the first training images, those that follow for validation, the first for test.

    Parameters
    ----------
    path : an official archive or folder, see `fastconv.datasets.cifar10`; the course's function has its own.
    num_training, num_validation, num_test : images of each part.
    subtract_mean : subtract the mean image of the training part from all of them.

    Returns
    -------
    {"X_train", "y_train", "X_val", "y_val", "X_test", "y_test"}: images (N, 3, 32, 32), float32 (float64 in the
    course), on the scale of pixels from 0 to 255; labels (N,) int64.

    Raises
    ------
    ValueError : more images than there are, or a damaged archive.
    FileNotFoundError : there is no such path, or a batch is missing.
    """
    function = "get_CIFAR10_data"
    num_training = arguments.integer(function, "num_training", num_training, 1)
    num_validation = arguments.integer(function, "num_validation", num_validation, 0)
    num_test = arguments.integer(function, "num_test", num_test, 0)
    (x, y), (x_test, y_test) = read_cifar10(path)
    if num_training + num_validation > len(x) or num_test > len(x_test):
        raise ValueError(
            f"{function}: there are {len(x)} images to train and validate with and {len(x_test)} to test, "
            f"got {num_training} + {num_validation} and {num_test}"
        )
    parts = {
        "train": (x[:num_training], y[:num_training]),
        "val": (x[num_training : num_training + num_validation], y[num_training : num_training + num_validation]),
        "test": (x_test[:num_test], y_test[:num_test]),
    }
    mean = parts["train"][0].mean(axis=0, dtype=np.float64).astype(np.float32) if subtract_mean else np.float32(0)
    data = {}
    for part, (images, labels) in parts.items():
        data[f"X_{part}"], data[f"y_{part}"] = images - mean, labels.copy()
    return data
