"""CIFAR-10's archives: both versions made here, packed and unpacked, damaged, hostile; the real one where it lies."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fastconv import cifar, datasets
from fastconv.compat import cs231n

REAL = Path(__file__).parents[2] / "shared" / "data" / "cifar-10-binary.tar.xz"
COUNT = 4
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
PIXELS = {name: np.random.default_rng(i).integers(0, 256, (COUNT, 3072), np.uint8) for i, name in enumerate(NAMES)}
LABELS = {name: [(i + n) % 10 for n in range(COUNT)] for i, name in enumerate(NAMES)}


def binary(name):
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(LABELS[name], PIXELS[name], strict=True))


def python2_pickle(name):
    """What cPickle of Python 2 wrote, protocol 2: its strings are bytes, its arrays made by numpy.core.multiarray."""

    def string(content):
        return b"T" + struct.pack("<i", len(content)) + content

    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + string(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + string(b"b") + b"\x87R"
    array += b"(K\x01" + b"M" + struct.pack("<H", COUNT) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array += dtype + b"\x89" + string(PIXELS[name].tobytes()) + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in LABELS[name]) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + labels + b"u."


def python3_pickle(name):
    return pickle.dumps({"data": PIXELS[name], "labels": LABELS[name], "batch_label": "x"}, protocol=4)


VERSIONS = {
    "binary": ("cifar-10-batches-bin", ".bin", binary),
    "python": ("cifar-10-batches-py", "", python2_pickle),
    "python 3": ("cifar-10-batches-py", "", python3_pickle),
}


def contents(version="binary"):
    folder, suffix, make = VERSIONS[version]
    return {f"{folder}/{name}{suffix}": make(name) for name in NAMES} | {f"{folder}/batches.meta": b"?"}


def archive(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def unpacked(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def assert_right(data):
    for part, names in (("train", NAMES[:-1]), ("test", NAMES[-1:])):
        pixels = np.concatenate([PIXELS[name] for name in names]).reshape(-1, 3, 32, 32)
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        np.testing.assert_allclose(x, pixels / 255, rtol=1e-6)
        assert y.tolist() == [label for name in names for label in LABELS[name]]
        assert x.dtype == np.float32 and y.dtype == np.int64


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives(tmp_path, version, mode):
    data = datasets.cifar10(archive(tmp_path / "archive", contents(version), mode))
    assert_right(data)
    assert repr(data) == "Dataset(cifar10: 20 + 4 images of 3 x 32 x 32)" and data.classes[6] == "frog"


@pytest.mark.parametrize("version", VERSIONS)
def test_folders(tmp_path, version):
    unpacked(tmp_path, contents(version))
    assert_right(datasets.cifar10(tmp_path))
    assert_right(datasets.cifar10(tmp_path / VERSIONS[version][0]))


def test_the_courses_data(tmp_path):
    path = archive(tmp_path / "archive", contents())
    data = cs231n.get_CIFAR10_data(path, num_training=15, num_validation=5, num_test=2)
    pixels = np.concatenate([PIXELS[name] for name in NAMES]).reshape(-1, 3, 32, 32).astype(float)
    mean = pixels[:15].mean(axis=0)
    for part, where in (("train", slice(15)), ("val", slice(15, 20)), ("test", slice(20, 22))):
        np.testing.assert_allclose(data[f"X_{part}"], pixels[where] - mean, atol=1e-4)
        assert data[f"X_{part}"].dtype == np.float32 and len(data[f"y_{part}"]) == len(pixels[where])
    raw = cs231n.get_CIFAR10_data(path, 20, 0, 4, subtract_mean=False)
    np.testing.assert_array_equal(raw["X_train"], pixels[:20])
    with pytest.raises(ValueError, match=r"20 images to train and validate with and 4 to test, got 20 \+ 1 and 4"):
        cs231n.get_CIFAR10_data(path, 20, 1, 4)


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("owned"),)


def pickled(**changes):
    return pickle.dumps({"data": PIXELS["test_batch"], "labels": LABELS["test_batch"], **changes}, protocol=4)


@pytest.mark.parametrize(
    "content, message",
    [
        (pickled(labels=Hostile()), "no CIFAR-10 batch does"),
        (b"cos\nsystem\n(S'touch owned'\ntR.", r"refers to os.system, which no CIFAR-10 batch does"),
        (b"cnumpy\nload\n.", "numpy.load, which no CIFAR-10 batch does"),
        (pickled(data=PIXELS["test_batch"].astype(object)), "no batch of the python version"),
        (pickled(data=np.zeros((COUNT, 3072), np.int8)), "uint8 rows of 3072 expected"),
        (pickled(data=np.zeros((COUNT, 3000), np.uint8)), "uint8 rows of 3072 expected"),
        (pickled(labels=[1]), r"one label per image expected, got \(1,\) for 4"),
        (pickled(labels=[0, 1, 2, 10]), "labels from 0 to 9, got 0 to 10"),
        (pickled(labels=[0, 1, 2, -1]), "labels from 0 to 9, got -1 to 2"),
        (pickled()[:-20], "no batch of the python version"),
        (pickle.dumps([1, 2]), "no batch of the python version"),
        (b"", "no batch of the python version"),
    ],
)
def test_pickles_run_nothing_and_are_checked(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    files = contents("python") | {"cifar-10-batches-py/test_batch": content}
    with pytest.raises(ValueError, match=message) as caught:
        cifar.read_cifar10(archive(tmp_path / "archive", files))
    assert "archive: test_batch" in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (binary("test_batch")[:-1], "records of 3073 bytes, got 12291 bytes"),
        (b"", "records of 3073 bytes, got 0 bytes"),
        (b"\x0a" + binary("test_batch")[1:], "labels from 0 to 9, got 6 to 10"),
    ],
)
def test_damaged_batches(tmp_path, content, message):
    files = contents() | {"cifar-10-batches-bin/test_batch.bin": content}
    unpacked(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        datasets.cifar10(tmp_path)


def test_damaged_and_missing_archives(tmp_path):
    with pytest.raises(FileNotFoundError):
        datasets.cifar10(tmp_path / "nowhere.tar.gz")
    whole = archive(tmp_path / "whole", contents(), "w:gz").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text("no archive")
    for name in ("cut", "text"):
        with pytest.raises(ValueError, match=rf"cifar10: .*{name} is damaged or no tar archive"):
            datasets.cifar10(tmp_path / name)
    files = contents()
    del files["cifar-10-batches-bin/data_batch_3.bin"]
    with pytest.raises(FileNotFoundError, match=r"has no data_batch_3.bin; it has data_batch_1.bin"):
        datasets.cifar10(archive(tmp_path / "incomplete", files))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="it has no batch"):
        datasets.cifar10(tmp_path / "empty")


def test_a_batch_beyond_all_measure_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "LARGEST", 10_000)
    with pytest.raises(ValueError, match=r"data_batch_1.bin must have at most 10000 bytes, got 12292"):
        datasets.cifar10(archive(tmp_path / "archive", contents(), "w:gz"))


@pytest.mark.skipif(not REAL.is_file(), reason="no CIFAR-10 in ../shared/data")
def test_the_real_cifar10(tmp_path):
    with tarfile.open(REAL) as tar:  # the first batch only: unpacking all takes ten seconds
        first = tar.extractfile(next(member for member in tar if member.name.endswith("data_batch_1.bin"))).read()
    for name in NAMES:
        (tmp_path / f"{name}.bin").write_bytes(first)
    (x, y), (x_test, _) = cifar.read_cifar10(tmp_path)
    assert x.shape == (50_000, 3, 32, 32) and x_test.shape == (10_000, 3, 32, 32)
    assert y[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert np.bincount(y[:10_000]).tolist() == [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
    # the means of all of CIFAR-10, near enough
    np.testing.assert_allclose(x_test.mean(axis=(0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=0.004)
