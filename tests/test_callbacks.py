"""Callbacks, averages of weights, checkpoints of a run, and that a resumed run is the uninterrupted one."""

from functools import partial

import numpy as np
import pytest
from test_trainer import toy_data, toy_model

from fastconv import runtime, softmax_cross_entropy
from fastconv.nn import (
    EMA,
    SGD,
    Adam,
    Callback,
    EarlyStopping,
    History,
    Lookahead,
    Trainer,
    augment,
    load,
    read_meta,
    save,
    schedules,
)
from fastconv.nn.run import Run

BATCH = 16  # of 60 images: 4 steps an epoch


def make_trainer(model=None, kind=Adam, **options):
    model = toy_model() if model is None else model
    options = {"schedule": schedules.one_cycle(4), "clip_norm": 1.0, "seed": 5, "progress": False, **options}
    changes = augment.compose(augment.random_flip(), augment.random_shift(1), augment.cutout(2))
    return Trainer(model, kind(model.parameters(), lr=0.02), augment=changes, **options)


def fit(trainer, epochs, **options):
    x, y = toy_data()
    return trainer.fit(x, y, epochs=epochs, batch_size=BATCH, validation=(x[:30], y[:30]), **options)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("callbacks", [lambda: (), lambda: (EMA(0.9), Lookahead(3), EarlyStopping(9))])
def test_two_epochs_and_two_more_are_four(kind, callbacks, tmp_path):
    with runtime.num_threads(1):
        whole = make_trainer(kind=kind)
        expected = fit(whole, 4, callbacks=callbacks())
        fit(make_trainer(kind=kind), 2, callbacks=callbacks(), checkpoints=tmp_path)
        rest = make_trainer(toy_model(seed=8), kind=kind, seed=99)  # nothing of this start may matter
        history = fit(rest, 4, callbacks=callbacks(), resume=tmp_path / "last.npz")
    assert_same(whole.model.state_dict(), rest.model.state_dict())
    assert_same(whole.optimizer.state_dict(), rest.optimizer.state_dict())
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        assert getattr(history, name) == getattr(expected, name) and len(getattr(history, name)) == 4
    assert whole._rng.bit_generator.state == rest._rng.bit_generator.state


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    fit(make_trainer(), 2, checkpoints=tmp_path)
    trainer = make_trainer()
    history = fit(trainer, 2, resume=tmp_path / "last.npz")
    assert len(history) == 2
    assert_same(trainer.model.state_dict(), load(tmp_path / "last.npz").state_dict())


def test_checkpoints_of_the_last_and_the_best_epoch(tmp_path):
    states, rates = [], [0.02, 0.02, 0.02, 1e3]  # the last epoch ruins the model
    trainer = make_trainer(schedule=lambda epoch: rates[int(epoch)] / 0.02)
    history = fit(
        trainer, 4, checkpoints=tmp_path / "a" / "b", notes={"classes": ["x", "y", "z"]},
        on_epoch_end=lambda _: states.append(trainer.model.state_dict()),
    )  # fmt: skip
    best = history.best_epoch()
    assert best < 3 and history.val_accuracy[best] > history.val_accuracy[3]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["best.npz", "last.npz"]
    assert_same(load(tmp_path / "a" / "b" / "best.npz").state_dict(), states[best])
    assert_same(load(tmp_path / "a" / "b" / "last.npz").state_dict(), states[3])
    assert read_meta(tmp_path / "a" / "b" / "best.npz") == {
        "classes": ["x", "y", "z"], "epoch": best + 1, "loss": history.loss[best],
        "accuracy": history.accuracy[best], "val_loss": history.val_loss[best],
        "val_accuracy": history.val_accuracy[best],
    }  # fmt: skip


def test_what_cannot_be_resumed_is_left_alone(tmp_path):
    fit(make_trainer(), 1, checkpoints=tmp_path, callbacks=[EMA()])
    trainer = make_trainer()
    before, state = trainer.model.state_dict(), trainer._rng.bit_generator.state
    save(tmp_path / "model.npz", trainer.model, trainer.optimizer)
    for name, callbacks, message in [
        ("model.npz", (), "holds a model, but no training run"),
        ("last.npz", (), r"was written with the callbacks \['EMA'\], this run has \[\]"),
        ("last.npz", (Lookahead(),), r"this run has \['Lookahead'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(trainer, 2, resume=tmp_path / name, callbacks=callbacks)
    other = make_trainer(kind=SGD)
    with pytest.raises(ValueError, match="holds the state of Adam, but the optimizer is SGD"):
        fit(other, 2, resume=tmp_path / "last.npz", callbacks=[EMA()])
    assert_same(trainer.model.state_dict(), before)
    assert trainer._rng.bit_generator.state == state and other.optimizer.steps == 0


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_fit_begin(self, run):
        self.calls.append("begin")

    def on_step_end(self, run):
        self.calls.append(("step", run.step, round(run.progress, 3)))
        assert np.isfinite(run.loss)

    def on_epoch_end(self, run):
        self.calls.append(("epoch", len(run.history), len(run.history.val_loss)))

    def on_fit_end(self, run):
        self.calls.append("end")


def test_callbacks_are_called_in_order():
    recorder = Recorder()
    fit(make_trainer(), 2, callbacks=[recorder])
    steps = [("step", i, i / 8) for i in range(1, 9)]
    assert recorder.calls == ["begin", *steps[:4], ("epoch", 1, 1), *steps[4:], ("epoch", 2, 2), "end"]


def run_with(**lists):
    run = Run(None, None, (), None, epochs=99, steps_per_epoch=1)
    run.history = History(**lists)
    return run


@pytest.mark.parametrize(
    "losses, options, stops",
    [
        ([3, 2, 1, 0.5], {}, False),
        ([3, 2, 2, 2], {}, True),
        ([3, 1, 2], {}, False),
        ([3, 1, 2, 0.9], {}, False),
        ([3, 2.9, 2.85], {"min_delta": 0.5}, True),
        ([3, np.nan, np.nan], {}, True),
    ],
)
def test_early_stopping_counts_epochs_that_are_no_better(losses, options, stops):
    run = run_with(loss=losses)
    EarlyStopping(2, monitor="loss", **options).on_epoch_end(run)
    assert run.stopped is stops
    rising = run_with(accuracy=[-value for value in losses])
    EarlyStopping(2, monitor="accuracy", **options).on_epoch_end(rising)
    assert rising.stopped is stops


def test_a_stopped_run_ends_and_says_so(capsys):
    trainer = make_trainer(schedule=schedules.constant(), progress=True)
    trainer.optimizer.lr = 0.0
    history = fit(trainer, 20, callbacks=[EarlyStopping(3, monitor="val_loss", min_delta=10.0)])
    assert len(history) == 4  # the first epoch is the best one
    assert capsys.readouterr().out.splitlines()[-1].endswith("stopped early")


@pytest.mark.parametrize("every", [1, 3])
def test_ema_is_the_average_and_training_does_not_notice(every, tmp_path):
    weights = []

    class Watch(Callback):
        def on_step_end(self, run):
            weights.append(run.model.layers[0].weight.value.astype("f8"))

    plain, averaged = make_trainer(), make_trainer()
    start = averaged.model.layers[0].weight.value.astype("f8")
    fit(plain, 3)
    history = fit(averaged, 3, callbacks=[EMA(0.8, every=every), Watch()], checkpoints=tmp_path)
    average = start
    for step, weight in enumerate(weights, 1):
        if step % every == 0:
            decay = min(0.8, (1 + step) / (10 + step)) ** every
            average = decay * average + (1 - decay) * weight
    np.testing.assert_allclose(averaged.model.layers[0].weight.value, average, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(plain.model.layers[0].weight.value, weights[-1])  # trained alike
    # Validation and the best checkpoint are the average's.
    x, y = toy_data()
    assert averaged.evaluate(x[:30], y[:30])[0] == history.val_loss[-1]
    if history.best_epoch() == 2:
        assert_same(load(tmp_path / "best.npz").state_dict(), averaged.model.state_dict())
    assert not np.array_equal(load(tmp_path / "last.npz").layers[0].weight.value, average.astype("f4"))


def test_lookahead_pulls_back_every_few_steps():
    weights = []

    class Watch(Callback):
        def __init__(self, when):
            self.when = when

        def on_step_end(self, run):
            weights.append((self.when, run.step, run.model.layers[0].weight.value.astype("f8")))

    trainer = make_trainer()
    slow = trainer.model.layers[0].weight.value.astype("f8")
    fit(trainer, 2, callbacks=[Watch("before"), Lookahead(4, alpha=lambda share: share), Watch("after")])
    for (_, step, fast), (_, _, after) in zip(weights[::2], weights[1::2], strict=True):
        if step % 4 == 0:
            slow = slow + step / 8 * (fast - slow)
            np.testing.assert_allclose(after, slow, rtol=1e-5, atol=1e-7)
        else:
            np.testing.assert_array_equal(after, fast)


def test_label_smoothing_in_training():
    x, y = toy_data()
    model = toy_model()
    trainer = Trainer(
        model,
        SGD(model.parameters()),
        progress=False,
        loss=partial(softmax_cross_entropy, label_smoothing=0.2),
    )
    scores = model.predict(x).astype("f8")
    log = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    expected = -0.8 * log[np.arange(60), y].mean() - 0.2 * log.mean()
    assert trainer.evaluate(x, y)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: EarlyStopping(0), "patience must be at least 1, got 0"),
        (lambda: EarlyStopping(1, min_delta=-1), "min_delta must be at least 0, got -1"),
        (lambda: EarlyStopping(1, monitor="speed"), "monitor must be one of .*, got 'speed'"),
        (lambda: EarlyStopping(1, monitor="val_loss").on_epoch_end(run_with(loss=[1.0])), "needs validation data"),
        (lambda: EMA(1.0), "decay must be at least 0 and below 1, got 1.0"),
        (lambda: Lookahead(0), "every must be at least 1, got 0"),
        (lambda: Lookahead(alpha=1.5), "alpha must be from 0 to 1, got 1.5"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
