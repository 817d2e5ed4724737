"""Image files and arrays as network inputs: reading, channels, size. float32 (..., C, H, W) in [0, 1]."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def resize(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images (..., H, W) at another size, by a triangle filter: bilinear when enlarging, averaging when shrinking.

    Pixel i of n lies at (i + 1/2) / n, as in PyTorch's `interpolate(mode="bilinear", antialias=True)` and Pillow.

    >>> resize(np.array([[0.0, 4.0]]), (1, 4)).tolist()
    [[0.0, 1.0, 3.0, 4.0]]
    """
    if x.shape[-2] != size[0]:
        x = _filter_matrix(x.shape[-2], size[0]).astype(x.dtype) @ x
    if x.shape[-1] != size[1]:
        x = x @ _filter_matrix(x.shape[-1], size[1]).astype(x.dtype).T
    return x


def _filter_matrix(old: int, new: int) -> np.ndarray:
    """Row i holds the weights of the old pixels in new pixel i."""
    scale = old / new
    distance = np.abs((np.arange(new) + 0.5)[:, np.newaxis] * scale - (np.arange(old) + 0.5))
    weights = np.maximum(0, 1 - distance / max(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)


def read_images(path: str | PathLike[str]) -> np.ndarray:
    """The images (N, C, H, W) in a picture (PNG and what else Pillow reads) or an `.npy` file.

    An `.npy` file holds (H, W), (C, H, W) or (N, C, H, W), uint8 from 0 to 255 or floats from 0 to 1. A picture has 1
    channel if it is grey, 3 in colour, and one more if it is transparent; it is turned upright as its camera says.

    Raises
    ------
    ImportError : Pillow is needed and not installed.
    OSError, ValueError : the file cannot be read, or holds something else.
    """
    path = Path(path)
    if path.suffix == ".npy":
        x = np.load(path, allow_pickle=False)
        if not isinstance(x, np.ndarray) or x.ndim not in (2, 3, 4) or not x.size:
            raise ValueError(f"{path} must hold images (H, W), (C, H, W) or (N, C, H, W), got {np.shape(x)}")
        x = x.reshape((1,) * (4 - x.ndim) + x.shape)
    else:
        x = _read_picture(path)
        x = x[np.newaxis, np.newaxis] if x.ndim == 2 else x.transpose(2, 0, 1)[np.newaxis]
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / 255
    if x.dtype.kind != "f":
        raise ValueError(f"{path} must hold uint8 or floating point values, got {x.dtype}")
    return x.astype(np.float32, copy=False)


def _read_picture(path: Path) -> np.ndarray:
    """(H, W) or (H, W, channels), uint8 or float32."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError('reading pictures needs Pillow: pip install "fastconv[images]"') from error
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits of grey
                return np.asarray(picture, np.float32) / 65535
            if "transparency" in picture.info:
                picture = picture.convert("RGBA")
            elif picture.mode not in ("L", "LA", "RGB", "RGBA"):
                picture = picture.convert("L" if picture.mode == "1" else "RGB")
            return np.asarray(picture)
    except SyntaxError as error:  # what Pillow raises for a damaged PNG
        raise ValueError(f"{path}: {error}") from None


def fit(x: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Images (N, C, H, W) in the shape (C, H, W) of a network's input: alpha, colour and size converted.

    Raises
    ------
    ValueError : no known conversion between the numbers of channels.

    >>> fit(np.ones((1, 3, 56, 56), np.float32), (1, 28, 28)).shape
    (1, 1, 28, 28)
    """
    channels = shape[0]
    if x.shape[1] != channels and x.shape[1] in (2, 4):
        alpha = x[:, -1:]
        x = x[:, :-1] * alpha + (1 - alpha)
    if x.shape[1] == 3 and channels == 1:
        x = np.einsum("nchw,c->nhw", x, LUMA)[:, np.newaxis]
    elif x.shape[1] == 1 and channels == 3:
        x = x.repeat(3, axis=1)
    if x.shape[1] != channels:
        raise ValueError(f"images must have {channels} channels (or 1 to 4 that can be converted), got {x.shape[1]}")
    return resize(x, shape[1:])
