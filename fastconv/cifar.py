"""CIFAR-10's official archives (Krizhevsky 2009): six batches of 10,000 images, "binary version" or "python version".

A batch of the binary version is records of a label byte and 3,072 pixel bytes (red, green and blue plane, row by row).
One of the python version is a pickled dict whose "data" is a uint8 array (N, 3072) and whose "labels" is a list.
Pickles can run code; these are read by an unpickler that knows an array and nothing else.
"""

from __future__ import annotations

import io
import lzma
import math
import pickle
import tarfile
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE = (3, 32, 32)
PIXELS = math.prod(IMAGE)
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
LARGEST = 64 * 2**20  # bytes; a batch has 31 million

Arrays = tuple[np.ndarray, np.ndarray]


def read_cifar10(path: str | PathLike[str]) -> tuple[Arrays, Arrays]:
    """((training images, labels), (test images, labels)): uint8 (N, 3, 32, 32) and int64 (N,), in the archive's order.

    `path` is an archive (tar, compressed in any way that Python knows) or a folder with the batches.

    Raises
    ------
    FileNotFoundError : there is no such path, or a batch is missing.
    ValueError : an archive or a batch is damaged or of another kind.
    """
    path = Path(path)
    contents = _from_folder(path) if path.is_dir() else _from_archive(path)
    names = BATCHES if "test_batch" in contents else tuple(f"{name}.bin" for name in BATCHES)
    for name in names:
        if name not in contents:
            raise FileNotFoundError(
                f"cifar10: {path} has no {name}; it has {', '.join(sorted(contents)) or 'no batch'}"
            )
    read = [(_pickled if name in BATCHES else _binary)(f"{path}: {name}", contents[name]) for name in names]
    images, labels = (np.concatenate(parts) for parts in zip(*read[:-1], strict=True))
    return (images, labels), read[-1]


def _wanted(name: str) -> bool:
    return name.removesuffix(".bin") in BATCHES


def _from_folder(folder: Path) -> dict[str, bytes]:
    """The batches in a folder, or in its subfolder of one of the official names."""
    inside = [folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"]
    for place in (folder, *inside):
        files = [file for file in sorted(place.glob("*_batch*")) if _wanted(file.name)]
        if files:
            return {file.name: file.read_bytes() for file in files}
    return {}


def _from_archive(path: Path) -> dict[str, bytes]:
    """The batches in an archive, read in one pass: going back in a compressed one means to decompress it again."""
    contents = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if not (member.isfile() and _wanted(name)):
                    continue
                if member.size > LARGEST:
                    raise ValueError(f"cifar10: {path}: {name} must have at most {LARGEST} bytes, got {member.size}")
                file = archive.extractfile(member)
                assert file is not None
                contents[name] = file.read()
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"cifar10: {path} is damaged or no tar archive: {error}") from None
    return contents


def _binary(where: str, content: bytes) -> Arrays:
    if not content or len(content) % (1 + PIXELS):
        raise ValueError(f"cifar10: {where} must hold records of {1 + PIXELS} bytes, got {len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    return _checked(where, records[:, 1:], records[:, 0])


def _checked(where: str, pixels: np.ndarray, labels: np.ndarray) -> Arrays:
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(
            f"cifar10: {where} must hold labels from 0 to {len(CLASSES) - 1}, got {labels.min()} to {labels.max()}"
        )
    return pixels.reshape(-1, *IMAGE), labels.astype(np.int64)


class _Type:
    """Stands for `numpy.dtype` in a pickle."""

    def __init__(self, name: Any, *rest: Any):
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and fields mean nothing for bytes."""


class _Array:
    """Stands for `numpy.ndarray` in a pickle."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> np.ndarray:
        _, (rows, columns), dtype, by_columns, content = self.state
        if columns != PIXELS or dtype.name not in (b"u1", "u1") or by_columns or len(content) != rows * columns:
            raise ValueError(f"uint8 rows of {PIXELS} expected, got {rows} rows of {columns} {dtype.name!r}")
        return np.frombuffer(content, np.uint8).reshape(rows, columns)


def _new_array(*arguments: Any) -> _Array:
    return _Array()


class _ArraysOnly(pickle.Unpickler):
    """Builds dicts, lists, numbers, strings and the stand-ins above; any other global is refused, so nothing runs."""

    KNOWN = {  # noqa: RUF012
        ("numpy", "dtype"): _Type,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _new_array,
        ("numpy._core.multiarray", "_reconstruct"): _new_array,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no CIFAR-10 batch does") from None


def _pickled(where: str, content: bytes) -> Arrays:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        data, labels = (batch[key] if key in batch else batch[key.encode()] for key in ("data", "labels"))
        pixels, labels = data.pixels(), np.array(labels, np.int64)
        if not len(pixels) or labels.shape != (len(pixels),):
            raise ValueError(f"one label per image expected, got {labels.shape} for {len(pixels)}")
    except Exception as error:  # a damaged pickle makes the unpickler and NumPy raise a dozen kinds
        raise ValueError(f"cifar10: {where} is no batch of the python version: {error!r}") from None
    return _checked(where, pixels, labels)
