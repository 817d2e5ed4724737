"""Pictures in folders, and downloads from a server on this machine."""

import functools
import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest
from test_datasets import write_mnist

from fastconv import datasets, images

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_folder(root, counts=None, size=(6, 5)):
    """Plain pictures whose brightness says which one they are."""
    rng = np.random.default_rng(0)
    counts = counts or {"cat": 10, "ant": 5}
    pictures = {name: rng.integers(0, 256, (count, *size, 3), dtype=np.uint8) for name, count in counts.items()}
    for name, arrays in pictures.items():
        for i, array in enumerate(arrays):
            write(root / name / f"{i:02}.png", array)
    return pictures


def test_classes_are_folders_and_a_share_of_each_is_held_out(tmp_path):
    pictures = make_folder(tmp_path / "pets")
    (tmp_path / "pets" / ".cache").mkdir()
    (tmp_path / "pets" / "readme.txt").write_text("not a class")
    (tmp_path / "pets" / "ant" / "notes.txt").write_text("not a picture")
    data = datasets.image_folder(tmp_path / "pets", test_fraction=0.2, seed=1)
    assert data.classes == ("ant", "cat") and data.name == "pets"
    assert data.x_train.shape == (12, 3, 6, 5) and data.x_train.dtype == np.float32
    assert np.bincount(data.y_train).tolist() == [4, 8] and np.bincount(data.y_test).tolist() == [1, 2]
    found = {
        (label, image.tobytes())
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test))
        for image, label in zip(x, y.tolist(), strict=True)
    }
    expected = {
        (label, (array.astype(np.float32) / 255).transpose(2, 0, 1).tobytes())
        for label, name in enumerate(("ant", "cat"))
        for array in pictures[name]
    }
    assert found == expected
    again = datasets.image_folder(tmp_path / "pets", test_fraction=0.2, seed=1)
    np.testing.assert_array_equal(again.x_test, data.x_test)


def test_train_and_test_folders_sizes_and_grey(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", {"ant": 2, "cat": 3}, size=(9, 7))
    data = datasets.image_folder(tmp_path, size=8, channels=1)
    assert data.x_train.shape == (15, 1, 8, 8) and data.x_test.shape == (5, 1, 8, 8)
    assert data.y_test.tolist() == [0, 0, 1, 1, 1]
    assert datasets.image_folder(tmp_path).x_test.shape == (5, 3, 6, 5)  # the training pictures' size


def test_what_is_no_image_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        datasets.image_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must have a sub-folder per class, got none"):
        datasets.image_folder(tmp_path)
    make_folder(tmp_path / "a")
    (tmp_path / "a" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"dog must have a picture \(.*\.png"):
        datasets.image_folder(tmp_path / "a")
    write(tmp_path / "a" / "dog" / "x.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"size must be given unless .*got \(6, 5\) and, of .*x.png, \(4, 4\)"):
        datasets.image_folder(tmp_path / "a")
    (tmp_path / "a" / "dog" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises((ValueError, OSError)):
        datasets.image_folder(tmp_path / "a", size=4)
    make_folder(tmp_path / "b" / "train")
    make_folder(tmp_path / "b" / "test", {"cow": 1})
    with pytest.raises(ValueError, match="train and test must have the same classes"):
        datasets.image_folder(tmp_path / "b")
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        datasets.image_folder(tmp_path / "a", channels=2)


def test_pictures_of_every_kind(tmp_path):
    grey = (np.arange(48) * 5).astype(np.uint8).reshape(6, 8)
    kinds = {"L": (1, 1), "LA": (2, 1), "RGB": (3, 1), "RGBA": (4, 1), "P": (3, 1), "CMYK": (3, 2 / 255)}
    for mode, (channels, tolerance) in kinds.items():
        suffix = ".tif" if mode == "CMYK" else ".png"
        Image.fromarray(grey).convert("RGB" if mode == "P" else "L").convert(mode).save(tmp_path / f"{mode}{suffix}")
        read = images.read_images(tmp_path / f"{mode}{suffix}")
        assert read.shape == (1, channels, 6, 8) and read.dtype == np.float32
        if mode != "P":  # a palette's colours are rounded
            np.testing.assert_allclose(images.fit(read, (1, 6, 8))[0, 0], grey / 255, atol=max(tolerance, 1) * 2 / 255)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_allclose(images.read_images(tmp_path / "deep.png")[0, 0], grey / 255, atol=1e-6)
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(images.read_images(tmp_path / "bits.png")[0, 0], grey > 100)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(grey).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(images.read_images(tmp_path / "turned.png")[0, 0], np.rot90(grey, -1) / 255, rtol=1e-6)


def test_pictures_without_pillow_say_how_to_get_it(monkeypatch, tmp_path):
    write(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "fastconv\[images\]"'):
        images.read_images(tmp_path / "a.png")


@pytest.fixture
def server(tmp_path):
    """(URL, folder) of a web server on the loopback interface that counts what it is asked for."""
    pytest.importorskip("pooch", reason="downloads need pooch")
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}", folder, asked
        web.shutdown()
        thread.join()


def test_a_download_is_checked_and_made_once(server, tmp_path):
    url, folder, asked = server
    (folder / "data.bin").write_bytes(b"some numbers")
    right = hashlib.sha256(b"some numbers").hexdigest()
    for checksum in (right, f"sha256:{right}", "md5:" + hashlib.md5(b"some numbers").hexdigest()):
        path = datasets.download(f"{url}/data.bin?version=1", checksum, tmp_path / "kept")
        assert path == tmp_path / "kept" / "data.bin" and path.read_bytes() == b"some numbers"
    assert len(asked) == 1

    path.write_bytes(b"damaged")
    assert datasets.download(f"{url}/data.bin", right, tmp_path / "kept").read_bytes() == b"some numbers"
    wrong = "0" * 64
    with pytest.raises(ValueError, match="does not match the known hash"):
        datasets.download(f"{url}/data.bin", wrong, tmp_path / "new", name="other.bin")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(OSError, match="404"):
        datasets.download(f"{url}/nothing.bin", right, tmp_path / "new")
    for checksum in ("", "md5:12", "crc:12345678", "z" * 64):
        with pytest.raises(ValueError, match="checksum must be hexadecimal digits"):
            datasets.download(f"{url}/data.bin", checksum, tmp_path)


def test_mnist_downloads_what_is_missing(server, tmp_path, monkeypatch):
    url, folder, asked = server
    write_mnist(folder, gzip.compress, ".gz")
    sums = {path.name.removesuffix(".gz"): hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert sums.keys() == datasets.MNIST_MD5.keys()
    target = tmp_path / "mnist"
    with pytest.raises(ValueError, match="does not match the known hash"):
        datasets.mnist(target, download=True, url=url)
    monkeypatch.setattr(datasets, "MNIST_MD5", sums)
    data = datasets.mnist(target, download=True, url=f"{url}/")
    np.testing.assert_array_equal(data.x_train, datasets.mnist(folder).x_train)
    asked.clear()
    datasets.mnist(target, download=True, url=url)
    datasets.mnist(folder, download=True, url=url)
    assert asked == []


def test_downloads_without_pooch_say_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "fastconv\[download\]"'):
        datasets.download("http://127.0.0.1/x", "0" * 64, tmp_path)
