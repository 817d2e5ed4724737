"""Small image data sets, ready to train on: float32 images (N, C, H, W) in [0, 1] and int64 labels (N,)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from fastconv import arguments, cifar, image_folders
from fastconv.downloads import download
from fastconv.images import resize


@dataclass(frozen=True)
class Dataset:
    """Images and labels for training, and others held out for testing.

    Attributes
    ----------
    x_train, x_test : float32 (N, C, H, W), from 0 to 1.
    y_train, y_test : int64 (N,), indices into `classes`.
    classes : the classes' names.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    name: str

    def __repr__(self) -> str:
        image = " x ".join(map(str, self.x_train.shape[1:]))
        return f"Dataset({self.name}: {len(self.x_train):,} + {len(self.x_test):,} images of {image})"


DIGITS = tuple("0123456789")


def digits(*, size: int = 28, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, enlarged to `size` x `size`; nothing is downloaded.

    The test images are held out class by class, at random by `seed`. Source: E. Alpaydin & C. Kaynak, "Optical
    Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.

    Raises
    ------
    ImportError : scikit-learn is not installed.
    ValueError : `size` is below 1 or `test_fraction` is not between 0 and 1.

    >>> digits()
    Dataset(digits: 1,438 + 359 images of 1 x 28 x 28)
    """
    size = arguments.integer("digits", "size", size, 1)
    test_fraction = _share("digits", "test_fraction", test_fraction)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('digits: needs scikit-learn, install it with: pip install "fastconv[train]"') from error
    source = load_digits()
    images = resize(source.images.astype(np.float32)[:, np.newaxis] / 16, (size, size))
    labels = source.target.astype(np.int64)
    test = held_out(labels, test_fraction, seed)
    return Dataset(images[~test], labels[~test], images[test], labels[test], DIGITS, "digits")


def _share(function: str, name: str, value: float) -> float:
    value = arguments.real(function, name, value)
    if not 0 < value < 1:
        raise ValueError(f"{function}: {name} must be above 0 and below 1, got {value}")
    return value


def held_out(labels: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """A mask (N,) of that fraction of each class, at random by `seed`: for validation or testing.

    >>> int(held_out(np.array([0] * 8 + [1] * 4), 0.25).sum())
    3
    """
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[rng.permutation(members)[: round(fraction * len(members))]] = True
    return mask


_fetch = download  # `mnist` has an argument of that name
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}  # of the .gz files


def mnist(path: str | PathLike[str], *, download: bool = False, url: str = MNIST_URL) -> Dataset:
    """MNIST from a folder with its four IDX files, gzipped or not: 60,000 + 10,000 digits of 28 x 28 pixels.

    Files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`, each with or without `.gz` (LeCun, Cortes & Burges 1998). Any other data set in these
    four files with at most ten classes, such as Fashion-MNIST, loads as well.

    Parameters
    ----------
    download : fetch the files that are missing from the folder `url` and check them (MNIST's own only); needs pooch.

    Raises
    ------
    FileNotFoundError : a file is missing.
    ValueError : a file is truncated, too long, damaged or of another kind, or images and labels do not match.
    """
    folder = Path(path)
    if download:
        for name, checksum in MNIST_MD5.items():
            if not (folder / name).is_file():
                _fetch(f"{url.rstrip('/')}/{name}.gz", f"md5:{checksum}", folder)
    x_train, y_train = _idx_pair(folder, "train")
    x_test, y_test = _idx_pair(folder, "t10k")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"mnist: {folder}: training images are {x_train.shape[1:]}, test images {x_test.shape[1:]}")
    return Dataset(x_train, y_train, x_test, y_test, DIGITS, "mnist")


def _idx_pair(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images_path = _find(folder, f"{part}-images-idx3-ubyte")
    labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"mnist: {images_path.name} and {labels_path.name} must hold (N, H, W) images and (N,) labels, "
            f"got {images.shape} and {labels.shape}"
        )
    if len(labels) and labels.max() >= len(DIGITS):
        raise ValueError(f"mnist: {labels_path} must hold labels from 0 to 9, got {labels.max()}")
    scaled = images[:, np.newaxis].astype(np.float32)
    scaled *= np.float32(1 / 255)
    return scaled, labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"mnist: {folder} has no {name} or {name}.gz")


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """A uint8 array from an IDX file, gzipped or not: two zero bytes, the type 8, the rank, sizes, values.

    Raises
    ------
    ValueError : wrong magic number, or fewer or more values than the sizes say.
    """
    path = Path(path)
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"read_idx: {path} is truncated or damaged: {error}") from None
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 3:
        raise ValueError(
            f"read_idx: {path} must start with the bytes 00 00 08 and a rank from 1 to 3, got {data[:4].hex(' ')!r}"
        )
    rank = data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise ValueError(f"read_idx: {path} is truncated: its header needs {start} bytes, got {len(data)}")
    shape = struct.unpack(f">{rank}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"read_idx: {path} must hold {math.prod(shape)} values for its shape {shape}, got {len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def cifar10(path: str | PathLike[str]) -> Dataset:
    """CIFAR-10 from its official archive, or from a folder with its six batches: 50,000 + 10,000 colour photographs.

    Parameters
    ----------
    path : the "binary version" or the "python version" (Krizhevsky 2009), as a tar archive compressed in any way that
        Python knows (unpacking xz takes 10 s) or unpacked. Pickles are read without running what they contain.

    Raises
    ------
    FileNotFoundError : there is no such path, or a batch is missing.
    ValueError : an archive or a batch is damaged or of another kind.
    """
    (x_train, y_train), (x_test, y_test) = cifar.read_cifar10(path)
    x_train, x_test = (np.multiply(x, np.float32(1 / 255), dtype=np.float32) for x in (x_train, x_test))
    return Dataset(x_train, y_train, x_test, y_test, cifar.CLASSES, "cifar10")


def image_folder(
    path: str | PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Pictures in one sub-folder per class, whose names are the classes; needs Pillow.

    Either `path` holds the classes' folders, and a share of each class is held out for testing, or it holds `train`
    and `test` with the same classes in both.

    Parameters
    ----------
    size : H and W that all pictures are resized to; None if they have one size.
    channels : 1 for grey, 3 for colour; pictures are converted.
    test_fraction, seed : how much of each class is held out, and which; unused with `train` and `test` folders.

    Raises
    ------
    ImportError : Pillow is not installed.
    ValueError : there are no classes, a class has no picture, `train` and `test` differ in their classes, or pictures
        differ in size and `size` is None.
    OSError : a folder or a picture cannot be read.
    """
    folder = Path(path)
    pair = None if size is None else arguments.pair("image_folder", "size", size, 1)
    if channels not in (1, 3):
        raise ValueError(f"image_folder: channels must be 1 or 3, got {channels!r}")
    test_fraction = _share("image_folder", "test_fraction", test_fraction)
    classes = image_folders.class_names(folder)
    if set(classes) == {"train", "test"}:
        classes = image_folders.class_names(folder / "train")
        if image_folders.class_names(folder / "test") != classes:
            raise ValueError(f"image_folder: {folder}: train and test must have the same classes, train has {classes}")
        x, y = image_folders.read(folder / "train", classes, pair, channels)
        x_test, y_test = image_folders.read(folder / "test", classes, pair or x.shape[2:], channels)
        return Dataset(x, y, x_test, y_test, classes, folder.name)
    x, y = image_folders.read(folder, classes, pair, channels)
    test = held_out(y, test_fraction, seed)
    return Dataset(x[~test], y[~test], x[test], y[test], classes, folder.name)


DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "cifar10": cifar10,
    "image_folder": image_folder,
}
