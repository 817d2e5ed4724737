"""The training loop: learning, reproducibility, what it records and what it refuses."""

import json
import re
import sys
from itertools import chain

import numpy as np
import pytest

from fastconv.nn import (
    SGD,
    Adam,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    History,
    Layer,
    Linear,
    MaxPool2d,
    Sequential,
    Trainer,
    augment,
    progress,
    schedules,
)


def toy_data(count=60, classes=3):
    """Images with a bright row whose height is the class."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % classes
    x = rng.normal(0, 0.3, (count, 1, 8, 8)).astype(np.float32)
    x[np.arange(count), 0, 2 * y + 1] += 1
    return x, y


def toy_model(seed=0):
    return Sequential(
        Conv2d(1, 4, 3, padding=1, activation="relu", rng=seed),
        MaxPool2d(2),
        BatchNorm(4),
        Flatten(),
        Dropout(0.1, rng=seed),
        Linear(64, 3, init="xavier", rng=seed),
        input_shape=(1, 8, 8),
    )


def trained(seed, model_seed=0, **options):
    x, y = toy_data()
    model = toy_model(model_seed)
    trainer = Trainer(
        model, Adam(model.parameters(), lr=0.01), seed=seed, progress=False, augment=augment.random_shift(1)
    )
    history = trainer.fit(x, y, epochs=3, batch_size=16, **options)
    return model.state_dict(), history


def test_overfits_a_small_batch():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 1, 8, 8)).astype(np.float32), np.arange(12) % 3
    model = Sequential(Conv2d(1, 8, 3, activation="relu", rng=0), Flatten(), Linear(8 * 36, 3, rng=0))
    trainer = Trainer(model, Adam(model.parameters(), lr=0.01), progress=False)
    history = trainer.fit(x, y, epochs=40, batch_size=12)
    loss, accuracy = trainer.evaluate(x, y)
    assert accuracy == 1.0 and loss < 0.02 < history.loss[0]


def test_the_same_seed_gives_the_same_bits():
    first, _ = trained(1)
    second, _ = trained(1)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    other, _ = trained(2)
    assert not np.array_equal(first["0.weight"], other["0.weight"])


def test_validation_changes_no_parameter():
    x, y = toy_data(21)
    plain, _ = trained(1)
    validated, history = trained(1, validation=(x, y))
    assert all(np.array_equal(plain[name], validated[name]) for name in plain)
    assert len(history.val_loss) == len(history.val_accuracy) == 3


def test_every_image_comes_once_per_epoch_in_a_new_order():
    seen = []

    def loss(scores, targets):
        seen.append(targets.ravel().tolist())
        return 0.0, np.zeros_like(scores)

    x = np.arange(10, dtype=np.float32)[:, np.newaxis]
    model = Sequential(Linear(1, 1, rng=0))
    Trainer(model, SGD(model.parameters()), loss=loss, progress=False).fit(x, x, epochs=2, batch_size=4)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    epochs = [[*chain(*seen[:3])], [*chain(*seen[3:])]]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1] != list(range(10))


def test_history_records_each_epoch(tmp_path):
    lengths = []
    x, y = toy_data()
    _, history = trained(0, validation=(x, y), on_epoch_end=lambda h: lengths.append(len(h)))
    assert lengths == [1, 2, 3] and len(history) == 3
    assert history.accuracy[-1] > 0.5 and all(0 <= a <= 1 for a in history.accuracy + history.val_accuracy)
    assert all(s >= c >= 0 for s, c in zip(history.seconds, history.compile_seconds, strict=True))
    assert history.learning_rate == [0.01] * 3

    history.save(tmp_path / "h.json")
    assert History.load(tmp_path / "h.json") == history
    history.save(tmp_path / "h.csv")
    assert History.load(tmp_path / "h.csv") == history
    rows = (tmp_path / "h.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,loss,accuracy,val_loss") and len(rows) == 4
    assert float(rows[3].split(",")[1]) == history.loss[2]
    with pytest.raises(ValueError, match=r"path must end in .json or .csv, got '.*h.txt'"):
        history.save(tmp_path / "h.txt")
    (tmp_path / "bad.json").write_text(json.dumps({"loss": []}))
    with pytest.raises(ValueError, match="must hold the lists"):
        History.load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON file"):
        History.load(tmp_path / "bad.json")

    with pytest.raises(ValueError, match=r"path must end in .json or .csv, got '.*h.txt'"):
        History.load(tmp_path / "h.txt")
    for text, message in (
        ("epoch,loss\n1,x\n", "no table of numbers"),
        ("epoch,height\n1,2\n", "must hold the lists"),
        ("", "no table of numbers"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            History.load(tmp_path / "bad.csv")


def test_csv_without_validation_has_no_empty_columns(tmp_path):
    _, history = trained(0)
    history.save(tmp_path / "h.csv")
    assert "val" not in (tmp_path / "h.csv").read_text()
    assert History.load(tmp_path / "h.csv") == history


def test_the_best_epoch_of_a_history():
    history = History(loss=[3, 1, 2], accuracy=[0.2, 0.5, 0.6], val_loss=[2, 3, 1], val_accuracy=[0.7, 0.9, 0.9])
    assert [history.best_epoch(name) for name in (None, "loss", "accuracy", "val_loss")] == [1, 1, 2, 2]
    regression = History(loss=[2, 1], accuracy=[np.nan] * 2, val_loss=[4, 5], val_accuracy=[np.nan] * 2)
    assert regression.monitor() == "val_loss" and regression.best_epoch() == 0
    assert History(loss=[np.nan, 2.0], accuracy=[np.nan] * 2).best_epoch() == 1
    with pytest.raises(ValueError, match=r"monitor must be one of .*, got 'seconds'"):
        history.best_epoch("seconds")
    with pytest.raises(ValueError, match="loss must have at least one epoch"):
        History().best_epoch()


def test_schedule_scales_the_rate_and_returns_it():
    x, y = toy_data()
    model = toy_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, optimizer, schedule=schedules.step_decay(1, 0.5), progress=False)
    assert trainer.fit(x, y, epochs=3).learning_rate == pytest.approx([0.1, 0.05, 0.025])
    assert optimizer.lr == 0.1


def test_gradients_are_clipped_before_the_step():
    x, y = toy_data()
    for bound in ({"clip_norm": 1e-3}, {"clip_value": 1e-5}):
        model = toy_model()
        before = model.state_dict()
        Trainer(model, SGD(model.parameters(), lr=1.0), progress=False, **bound).fit(x, y, epochs=1, batch_size=60)
        moved = [p.value.astype("f8") - before[p.name] for p in model.parameters()]
        if "clip_norm" in bound:
            assert np.sqrt(sum(np.sum(m**2) for m in moved)) == pytest.approx(1e-3, rel=1e-3)
        else:
            assert max(np.abs(m).max() for m in moved) == pytest.approx(1e-5, rel=0.02)


def test_evaluate_weighs_uneven_batches():
    x, y = toy_data(25)
    model = toy_model()
    trainer = Trainer(model, SGD(model.parameters()), progress=False)
    assert trainer.evaluate(x, y, batch_size=4) == pytest.approx(trainer.evaluate(x, y, batch_size=25), rel=1e-5)


def test_regression_has_a_loss_and_no_accuracy():
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, np.newaxis]
    model = Sequential(Linear(1, 1, rng=0))
    trainer = Trainer(model, SGD(model.parameters(), lr=0.3), loss="mse_loss", progress=False)
    history = trainer.fit(x, 3 * x + 1, epochs=30, batch_size=16)
    assert history.loss[-1] < 1e-3 and np.isnan(history.accuracy[-1])
    assert model.layers[0].weight.value.item() == pytest.approx(3, abs=0.05)


def test_inputs_of_another_dtype_are_converted():
    x, y = toy_data()
    model = toy_model()
    trainer = Trainer(model, SGD(model.parameters()), progress=False)
    trainer.fit(x.astype(np.float64), y.astype(np.uint8), epochs=1)
    assert {parameter.grad.dtype for parameter in model.parameters()} == {np.dtype(np.float32)}


def test_one_line_per_epoch_without_a_terminal(capsys):
    x, y = toy_data()
    model = toy_model()
    Trainer(model, SGD(model.parameters())).fit(x, y, epochs=2, validation=(x, y))
    out, err = capsys.readouterr()
    assert [line[:9] for line in out.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert "val accuracy" in out and "images/s" in out and err == ""
    Trainer(model, SGD(model.parameters()), progress=False).fit(x, y, epochs=1)
    assert capsys.readouterr() == ("", "")


def test_lines_within_a_long_epoch(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    x, y = toy_data()
    model = toy_model()
    Trainer(model, SGD(model.parameters())).fit(x, y, epochs=2, batch_size=25)
    lines = capsys.readouterr().out.splitlines()
    pattern = r"epoch 1/2  25 of 60 images  [\d,]+ images/s  ETA \d:\d\d  loss \d+\.\d{4}"
    assert len(lines) == 6 and re.fullmatch(pattern, lines[0])
    assert "ETA" in lines[2] and "ETA" not in lines[5]  # nothing is left after the last epoch


def test_progress_bar_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("tqdm", reason="the progress bar needs tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    x, y = toy_data()
    model = toy_model()
    Trainer(model, SGD(model.parameters())).fit(x, y, epochs=1)
    out, err = capsys.readouterr()
    assert "epoch 1/1" in err and "images" in err and out.startswith("epoch 1/1")


def test_a_lost_run_stops_before_the_update():
    x, y = toy_data()
    model = toy_model()
    trainer = Trainer(model, SGD(model.parameters()), progress=False)
    x[5] = np.nan
    with pytest.raises(FloatingPointError, match=r"the loss became nan at step \d+: check the inputs for NaN"):
        trainer.fit(x, y, epochs=1)
    assert all(np.isfinite(parameter.value).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda t, x, y: t.fit(x, y[:-1], epochs=1), "x and y must have one entry per example"),
        (lambda t, x, y: t.fit(x[:0], y[:0], epochs=1), "x and y must have one entry per example"),
        (lambda t, x, y: t.fit(x, y, epochs=0), "epochs must be at least 1, got 0"),
        (lambda t, x, y: t.fit(x, y, epochs=1, batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda t, x, y: t.fit(x, y, epochs=1, validation=(x, y[1:])), "validation: x and y must have one entry"),
        (lambda t, x, y: t.evaluate(x[:0], y[:0]), "x and y must have one entry per example"),
        (lambda t, x, y: Trainer(t.model, t.optimizer, loss="hinge"), "loss must be one of 'softmax_cross_entropy'"),
        (lambda t, x, y: Trainer(t.model, t.optimizer, clip_norm=0), "clip_norm must be above 0, got 0"),
        (lambda t, x, y: Trainer(t.model, t.optimizer, clip_value=-1.0), "clip_value must be above 0, got -1.0"),
        (lambda t, x, y: Trainer(toy_model(), t.optimizer), "optimizer must be made from model.parameters"),
    ],
)
def test_refuses(call, message):
    x, y = toy_data()
    model = toy_model()
    with pytest.raises(ValueError, match=message):
        call(Trainer(model, SGD(model.parameters()), progress=False), x, y)


def test_alternate_flip_mirrors_each_image_in_every_other_epoch():
    x = np.arange(30.0, dtype=np.float32).reshape(10, 1, 1, 3)
    seen = []

    class Recorder(Layer):
        def forward(self, x, *, training=False):
            if training:
                seen.append(x.copy())
            return x

        def backward(self, dout, *, input_gradient=True):
            return dout

    model = Sequential(Recorder(), Flatten(), Linear(3, 2, rng=0))
    trainer = Trainer(model, SGD(model.parameters(), lr=0.0), progress=False, seed=1, alternate_flip=True)
    trainer.fit(x, np.zeros(10, int), epochs=3, batch_size=4)
    ways = np.zeros((3, 10), bool)
    for epoch in range(3):
        for row in np.concatenate(seen[3 * epoch : 3 * epoch + 3]).reshape(10, 3):
            number = int(row.min()) // 3
            np.testing.assert_array_equal(np.sort(row), x[number].ravel())
            ways[epoch, number] = row[0] > row[2]
    np.testing.assert_array_equal(ways[0], ~ways[1])
    np.testing.assert_array_equal(ways[0], ways[2])
    assert 0 < ways[0].sum() < 10
