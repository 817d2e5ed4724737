"""Data sets: IDX files made here, scikit-learn's digits, MNIST where it lies beside the checkout; image conversion."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fastconv import datasets, images

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"


def idx_bytes(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder, compress=lambda data: data, suffix="", train=7, test=3):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, count, dtype=np.uint8)
    for name, array in arrays.items():
        (folder / (name + suffix)).write_bytes(compress(idx_bytes(array)))
    return arrays


@pytest.mark.parametrize("compress, suffix", [(bytes, ""), (gzip.compress, ".gz"), (gzip.compress, ""), (bytes, ".gz")])
def test_mnist_reads_both_forms(tmp_path, compress, suffix):
    arrays = write_mnist(tmp_path, compress, suffix)
    data = datasets.mnist(tmp_path)
    assert data.x_train.shape == (7, 1, 28, 28) and data.x_test.shape == (3, 1, 28, 28)
    assert data.x_train.dtype == np.float32 and data.y_train.dtype == np.int64
    np.testing.assert_allclose(data.x_train[:, 0], arrays["train-images-idx3-ubyte"] / 255, rtol=1e-6)
    np.testing.assert_array_equal(data.y_test, arrays["t10k-labels-idx1-ubyte"])
    assert data.classes == tuple("0123456789") and data.name == "mnist"
    assert repr(data) == "Dataset(mnist: 7 + 3 images of 1 x 28 x 28)"


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no train-images-idx3-ubyte or train-images-idx3-ubyte.gz"):
        datasets.mnist(tmp_path / "nowhere")
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="has no t10k-labels-idx1-ubyte"):
        datasets.mnist(tmp_path)


IMAGES = np.zeros((7, 28, 28), np.uint8)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "must start with the bytes 00 00 08 and a rank from 1 to 3, got ''"),
        (b"\0\0\x0d" + idx_bytes(IMAGES)[3:], "must start with the bytes 00 00 08 .*got '00 00 0d 03'"),
        (b"\x89PNG" + bytes(99), "must start with the bytes 00 00 08"),
        (idx_bytes(IMAGES)[:11], "is truncated: its header needs 16 bytes, got 11"),
        (idx_bytes(IMAGES)[:-1], r"must hold 5488 values for its shape \(7, 28, 28\), got 5487"),
        (idx_bytes(IMAGES) + b"x", r"must hold 5488 values for its shape \(7, 28, 28\), got 5489"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-9], "is truncated or damaged"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:20] + b"x" * 20, "is truncated or damaged"),
        (idx_bytes(IMAGES[:6]), r"must hold \(N, H, W\) images and \(N,\) labels, got \(6, 28, 28\) and \(7,\)"),
        (idx_bytes(IMAGES[0, 0, :7]), r"must hold \(N, H, W\) images and \(N,\) labels, got \(7,\) and \(7,\)"),
        (idx_bytes(IMAGES[:, :20]), r"training images are \(1, 20, 28\), test images \(1, 28, 28\)"),
    ],
)
def test_damaged_image_files_are_named(tmp_path, content, message):
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.mnist(tmp_path)
    assert "train-images-idx3-ubyte" in str(caught.value) or str(tmp_path) in str(caught.value)


def test_labels_beyond_nine(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(7, 10, np.uint8)))
    with pytest.raises(ValueError, match="must hold labels from 0 to 9, got 10"):
        datasets.mnist(tmp_path)


def test_digits_are_real_and_split_by_class():
    pytest.importorskip("sklearn", reason="digits need scikit-learn")
    data = datasets.digits()
    assert data.x_train.shape == (1438, 1, 28, 28) and data.x_test.shape == (359, 1, 28, 28)
    assert data.x_train.dtype == np.float32 and data.x_train.flags.c_contiguous
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    assert np.ptp(np.bincount(data.y_test)) <= 2
    originals = datasets.digits(size=8)
    both = np.concatenate([originals.x_train, originals.x_test])
    assert len(np.unique(both.reshape(len(both), -1), axis=0)) == len(both) == 1797  # none in both parts
    np.testing.assert_array_equal(datasets.digits(size=8).y_test, originals.y_test)
    assert not np.array_equal(datasets.digits(size=8, seed=1).y_train, originals.y_train)
    with pytest.raises(ValueError, match=r"test_fraction must be above 0 and below 1, got 1.5"):
        datasets.digits(test_fraction=1.5)


def test_digits_without_scikit_learn_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "fastconv\[train\]"'):
        datasets.digits()


@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST in ../shared/data/mnist")
def test_the_real_mnist():
    data = datasets.mnist(MNIST)
    assert data.x_train.shape == (60_000, 1, 28, 28) and data.x_test.shape == (10_000, 1, 28, 28)
    assert data.y_train[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert data.x_train.mean() == pytest.approx(0.1307, abs=1e-4) and data.x_train.max() == 1
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_resize_keeps_constants_and_linear_ramps():
    assert images.resize(np.full((2, 3, 5, 7), 0.25), (11, 4)) == pytest.approx(np.full((2, 3, 11, 4), 0.25))
    ramp = np.arange(8.0)[np.newaxis]
    doubled = images.resize(ramp, (1, 16))[0]
    np.testing.assert_allclose(doubled[1:-1], (np.arange(1, 15) + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(images.resize(ramp, (1, 4))[0, 1:3], [2.5, 4.5])
    assert images.resize(ramp.astype(np.float32), (2, 3)).dtype == np.float32
    assert images.resize(ramp, (1, 8)) is ramp


def test_fit_converts_channels():
    colour = np.array([1.0, 0.5, 0.25], np.float32).reshape(1, 3, 1, 1).repeat(4, 2).repeat(4, 3)
    grey = images.fit(colour, (1, 4, 4))
    assert grey == pytest.approx(np.full((1, 1, 4, 4), 0.299 + 0.587 / 2 + 0.114 / 4))
    transparent = np.concatenate([colour, np.zeros((1, 1, 4, 4), np.float32)], axis=1)
    assert images.fit(transparent, (3, 4, 4)) == pytest.approx(np.ones((1, 3, 4, 4)))
    assert images.fit(grey, (3, 2, 2)).shape == (1, 3, 2, 2)
    with pytest.raises(ValueError, match=r"images must have 1 channels .*, got 5"):
        images.fit(np.ones((1, 5, 4, 4)), (1, 4, 4))


def test_read_images_from_arrays_and_pictures(tmp_path):
    grey = (np.arange(48) * 5).astype(np.uint8).reshape(6, 8)
    np.save(tmp_path / "a.npy", grey)
    read = images.read_images(tmp_path / "a.npy")
    assert read.shape == (1, 1, 6, 8) and read.dtype == np.float32
    np.testing.assert_allclose(read[0, 0], grey / 255, rtol=1e-6)
    np.save(tmp_path / "b.npy", np.ones((5, 3, 4, 4)))
    assert images.read_images(tmp_path / "b.npy").shape == (5, 3, 4, 4)
    for bad in (np.ones(3), np.ones((0, 1, 4, 4))):
        np.save(tmp_path / "c.npy", bad)
        with pytest.raises(ValueError, match=r"c.npy must hold images"):
            images.read_images(tmp_path / "c.npy")
    np.save(tmp_path / "c.npy", np.ones((4, 4), np.int64))
    with pytest.raises(ValueError, match="uint8 or floating point values, got int64"):
        images.read_images(tmp_path / "c.npy")

    matplotlib_image = pytest.importorskip("matplotlib.image", reason="pictures need matplotlib")
    matplotlib_image.imsave(tmp_path / "d.png", grey, cmap="gray", vmin=0, vmax=255)
    picture = images.fit(images.read_images(tmp_path / "d.png"), (1, 6, 8))
    np.testing.assert_allclose(picture[0, 0], grey / 255, atol=2 / 255)
    (tmp_path / "e.png").write_bytes((tmp_path / "d.png").read_bytes()[:60])
    with pytest.raises((ValueError, OSError)):
        images.read_images(tmp_path / "e.png")
