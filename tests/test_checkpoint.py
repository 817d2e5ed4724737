"""Checkpoints: what comes back, what is refused, and that a failing save costs nothing."""

import os
import zipfile

import numpy as np
import pytest

from fastconv.nn import (
    SGD,
    Adam,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Sequential,
    Trainer,
    checkpoint,
    load,
    read_meta,
    save,
)


def make_model(seed=0, features=3):
    return Sequential(
        Conv2d(1, 4, 3, padding=1, activation="relu", rng=seed),
        MaxPool2d(2),
        BatchNorm(4),
        Flatten(),
        Dropout(0.2, rng=seed),
        Linear(36, features, rng=seed),
        input_shape=(1, 6, 6),
    )


def make_data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 1, 6, 6)).astype(np.float32), np.arange(24) % 3


def train(model, optimizer, seed):
    Trainer(model, optimizer, seed=seed, progress=False).fit(*make_data(), epochs=1, batch_size=8)


@pytest.fixture
def saved(tmp_path):
    model = make_model()
    optimizer = Adam(model.parameters(), lr=0.01)
    train(model, optimizer, seed=0)
    path = tmp_path / "model.npz"
    save(path, model, optimizer, epoch=1, classes=["a", "b", "c"])
    return path, model, optimizer


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_model_is_rebuilt_from_the_file_alone(saved):
    path, model, _ = saved
    loaded = load(path)
    assert repr(loaded) == repr(model) and loaded.input_shape == (1, 6, 6)
    assert_same(loaded.state_dict(), model.state_dict())
    x, _ = make_data()
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert read_meta(path) == {"epoch": 1, "classes": ["a", "b", "c"]}
    assert model.layers[2].running_mean.value.any()


def test_training_continues_bit_for_bit(saved):
    path, model, optimizer = saved
    other = make_model(seed=5)
    other_optimizer = Adam(other.parameters(), lr=0.01)
    assert load(path, other, other_optimizer) is other
    assert other_optimizer.steps == 3
    train(model, optimizer, seed=7)
    train(other, other_optimizer, seed=7)
    assert_same(model.state_dict(), other.state_dict())


def test_the_file_needs_no_pickle_and_holds_plain_arrays(saved):
    path, model, _ = saved
    with np.load(path, allow_pickle=False) as archive:
        names = set(archive.files)
        np.testing.assert_array_equal(archive["model/0.weight"], model.layers[0].weight.value)
    assert {"header", "model/2.running_var", "optimizer/steps", "optimizer/mean/5.bias"} <= names


def test_same_content_gives_the_same_bytes(saved, tmp_path):
    path, model, optimizer = saved
    save(tmp_path / "again.npz", model, optimizer, epoch=1, classes=["a", "b", "c"])
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("broken", ["np.savez", "os.fsync", "os.replace"])
def test_a_failing_save_keeps_the_old_file_and_leaves_nothing(saved, monkeypatch, broken):
    path, model, _ = saved
    before = path.read_bytes()

    def fail(*args, **kwargs):
        if broken == "np.savez":
            args[0].write(b"half a file")
        raise OSError("disk full")

    owner, name = broken.split(".")
    monkeypatch.setattr(getattr(checkpoint, owner), name, fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, model)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["model.npz"]


def test_notes_that_are_no_json_touch_no_file(saved):
    path, model, _ = saved
    before = path.read_bytes()
    with pytest.raises(TypeError, match="JSON"):
        save(path, model, note=np.float32)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["model.npz"]


def test_saving_into_a_missing_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "nowhere" / "model.npz", make_model())


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")
    for content in (b"", b"PK\x03\x04", b"hello", os.urandom(500)):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad.npz is damaged or no fastconv checkpoint"):
            load(tmp_path / "bad.npz")
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(ValueError, match="damaged or no fastconv checkpoint"):
        load(tmp_path / "array.npy")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(ValueError, match="damaged or no fastconv checkpoint"):
        load(tmp_path / "other.npz")
    np.savez(tmp_path / "other.npz", header=np.frombuffer(b'{"format": "x"}', np.uint8))
    with pytest.raises(ValueError, match="but no fastconv checkpoint"):
        load(tmp_path / "other.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("header", b"text")
    with pytest.raises(ValueError, match="damaged or no fastconv checkpoint"):
        load(tmp_path / "other.npz")


def test_damage_anywhere_is_noticed_or_harmless(saved, tmp_path):
    path, model, _ = saved
    data = path.read_bytes()
    expected = model.state_dict()
    rng = np.random.default_rng(0)
    bad = tmp_path / "damaged.npz"
    for position in [*rng.integers(0, len(data), 150), *range(len(data) - 30, len(data))]:
        changed = bytearray(data)
        changed[position] ^= 1 << rng.integers(8)
        bad.write_bytes(changed)
        try:
            assert_same(load(bad).state_dict(), expected)
        except ValueError as error:
            assert "damaged.npz" in str(error)
    for length in rng.integers(0, len(data), 20):
        bad.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"damaged\.npz"):
            load(bad)


def test_another_model_or_optimizer_is_refused_and_left_alone(saved):
    path, _, _ = saved
    for other, message in [
        (make_model(seed=1, features=4), r"5.weight must have shape \(36, 4\), got \(36, 3\)"),
        (Sequential(Linear(2, 2, rng=0)), "missing .*unexpected"),
    ]:
        before = other.state_dict()
        with pytest.raises(ValueError, match=message):
            load(path, other)
        assert_same(other.state_dict(), before)
    model = make_model(seed=1)
    before = model.state_dict()
    with pytest.raises(ValueError, match="holds the state of Adam, but the optimizer is SGD"):
        load(path, model, SGD(model.parameters()))
    assert_same(model.state_dict(), before)
    save(path, model)
    with pytest.raises(ValueError, match="holds no optimizer state, but the optimizer is Adam"):
        load(path, model, Adam(model.parameters()))


def test_a_newer_format_is_named(saved, monkeypatch):
    path, model, _ = saved
    monkeypatch.setattr(checkpoint, "VERSION", 9)
    save(path, model)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format version 9, this fastconv reads 1"):
        load(path)


def test_a_layer_unknown_here_is_named(saved):
    path, _, _ = saved

    class Invented(Dropout):
        pass

    save(path, Sequential(Invented(0.5)))
    from fastconv.nn import base

    del base._classes["Invented"]
    with pytest.raises(ValueError, match=r"describes a model that cannot be rebuilt: .*got 'Invented'"):
        load(path)
