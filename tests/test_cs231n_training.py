"""`fastconv.compat.cs231n`'s update rules, networks and `Solver`: the course's printed values, faults it had."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fastconv.compat import cs231n

W, DW = np.linspace(-0.4, 0.6, num=20).reshape(4, 5), np.linspace(-0.6, 0.4, num=20).reshape(4, 5)


def test_the_courses_momentum():
    config = {"learning_rate": 1e-3, "velocity": np.linspace(0.6, 0.9, num=20).reshape(4, 5)}
    next_w, config = cs231n.sgd_momentum(W, DW, config)
    expected_w = [
        [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789],
        [0.47454737, 0.54133684, 0.60812632, 0.67491579, 0.74170526],
        [0.80849474, 0.87528421, 0.94207368, 1.00886316, 1.07565263],
        [1.14244211, 1.20923158, 1.27602105, 1.34281053, 1.4096],
    ]
    assert cs231n.rel_error(next_w, expected_w) < 2e-8
    assert cs231n.rel_error(config["velocity"][0, :3], [0.5406, 0.55475789, 0.56891579]) < 1e-8


def test_the_courses_rmsprop():
    config = {"learning_rate": 1e-2, "cache": np.linspace(0.6, 0.9, num=20).reshape(4, 5)}
    next_w, config = cs231n.rmsprop(W, DW, config)
    expected_w = [
        [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247],
        [-0.132737, -0.08078555, -0.02881884, 0.02316247, 0.07515774],
        [0.12716641, 0.17918792, 0.23122175, 0.28326742, 0.33532447],
        [0.38739248, 0.43947102, 0.49155973, 0.54365823, 0.59576619],
    ]
    assert cs231n.rel_error(next_w, expected_w) < 1e-7
    assert cs231n.rel_error(config["cache"][0, :3], [0.5976, 0.6126277, 0.6277108]) < 1e-8


def test_the_courses_adam():
    m, v = np.linspace(0.6, 0.9, num=20).reshape(4, 5), np.linspace(0.7, 0.5, num=20).reshape(4, 5)
    next_w, config = cs231n.adam(W, DW, {"learning_rate": 1e-2, "m": m, "v": v, "t": 5})
    expected_w = [
        [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
        [-0.1380274, -0.08544591, -0.03286534, 0.01971428, 0.0722929],
        [0.1248705, 0.17744702, 0.23002243, 0.28259667, 0.33516969],
        [0.38774145, 0.44031188, 0.49288093, 0.54544852, 0.59801459],
    ]
    assert cs231n.rel_error(next_w, expected_w) < 2e-7
    assert cs231n.rel_error(config["m"][0, :3], [0.48, 0.49947368, 0.51894737]) < 1e-8
    assert cs231n.rel_error(config["v"][0, :3], [0.69966, 0.68908382, 0.67851319]) < 1e-8
    assert config["t"] == 6


@pytest.mark.parametrize("rule", [cs231n.sgd, cs231n.sgd_momentum, cs231n.rmsprop, cs231n.adam])
def test_rules_keep_w_and_its_dtype(rule):
    w, dw = W.astype(np.float32).T, DW.astype(np.float32).T  # not contiguous
    before, config, reference, reference_config = w.copy(), None, W.T, None
    for _ in range(3):
        next_w, config = rule(w, dw, config)
        reference, reference_config = rule(reference, DW.T, reference_config)
        np.testing.assert_array_equal(w, before)
        w, before = next_w, next_w.copy()
    assert w.dtype == np.float32
    np.testing.assert_allclose(w, reference, rtol=2e-5, atol=1e-7)
    assert config["learning_rate"] == (1e-3 if rule is cs231n.adam else 1e-2)
    with pytest.raises(ValueError, match=r"dw must have w's shape \(5, 4\), got \(4, 5\)"):
        rule(w, w.T)


@pytest.mark.parametrize("network", [cs231n.ThreeLayerConvNet, cs231n.VGGlikeConvNet])
def test_the_initial_loss(network):
    np.random.seed(231)
    X, y = np.random.randn(50, 3, 32, 32), np.random.randint(10, size=50)
    small = {"num_filters": (2, 2, 2, 2), "num_convs": 1} if network is cs231n.VGGlikeConvNet else {}
    model = network(weight_scale=1e-3, **small)
    loss, grads = model.loss(X, y)
    assert abs(loss - np.log(10)) < 1e-3
    assert {name: grad.shape for name, grad in grads.items()} == {n: p.shape for n, p in model.params.items()}
    assert all(array.dtype == np.float32 for array in (*grads.values(), *model.params.values(), model.loss(X)))
    if network is cs231n.ThreeLayerConvNet:
        model.reg = 0.5
        loss, _ = model.loss(X, y)
        assert abs(loss - 2.509) < 1e-3


def net_errors(model, X, y):
    """The largest relative error of each parameter's gradient, of twenty of its numbers."""
    _, grads = model.loss(X, y)
    errors = {}
    for name, value in model.params.items():
        places = np.random.default_rng(1).permutation(value.size)[:20]
        flat, numbers = value.reshape(-1), []
        for place in places:
            middle, h = flat[place], 1e-6
            flat[place] = middle + h
            above = model.loss(X, y)[0]
            flat[place] = middle - h
            numbers.append((above - model.loss(X, y)[0]) / (2 * h))
            flat[place] = middle
        errors[name] = cs231n.rel_error(grads[name].reshape(-1)[places], numbers)
    return errors


def test_gradients_of_the_three_layer_net():
    np.random.seed(231)
    X, y = np.random.randn(2, 3, 16, 16), np.random.randint(10, size=2)
    model = cs231n.ThreeLayerConvNet((3, 16, 16), 3, 3, 7, reg=0.1, weight_scale=0.05, dtype=np.float64)
    assert max(net_errors(model, X, y).values()) < 1e-2


def test_gradients_of_the_vgg_like_net():
    np.random.seed(231)
    X, y = np.random.randn(4, 2, 8, 8), np.random.randint(3, size=4)
    model = cs231n.VGGlikeConvNet(
        (2, 8, 8), (3, 4), (2, 1), hidden_dim=(6, 5), num_classes=3, dropout_keep_ratio=0.7, reg=0.1, dtype=np.float64,
        seed=3,
    )  # fmt: skip
    assert list(model.params)[-6:] == ["W5", "b5", "gamma5", "beta5", "W6", "b6"]
    errors = net_errors(model, X, y)
    # A bias before batch normalisation changes nothing: its gradient is rounding.
    cancelled = {f"b{i}" for i in range(1, 6)}
    assert max(error for name, error in errors.items() if name not in cancelled) < 1e-2
    _, grads = model.loss(X, y)
    assert max(np.abs(grads[name]).max() for name in cancelled) < 1e-12


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"num_convs must have one number per block, got \(1, 2\)"):
        cs231n.VGGlikeConvNet(num_filters=(4,), num_convs=(1, 2))
    with pytest.raises(ValueError, match="must be at least 16 pixels high and wide, got 8x32"):
        cs231n.VGGlikeConvNet((3, 8, 32))
    with pytest.raises(ValueError, match="hidden_dim must be at least 1, got 0"):
        cs231n.VGGlikeConvNet(hidden_dim=(5, 0))
    with pytest.raises(ValueError, match="dropout_keep_ratio must be above 0 and at most 1, got 0"):
        cs231n.VGGlikeConvNet(dropout_keep_ratio=0)
    with pytest.raises(ValueError, match="num_filters must be at least 1, got 0"):
        cs231n.ThreeLayerConvNet(num_filters=0)


class Recorder:
    """A model of the course's API: notes what it is given, scores by a rule of its own."""

    def __init__(self, scores):
        self.params = {"W1": np.zeros(1)}
        self.bn_params = [{"mode": "train", "running_mean": np.zeros(1)}]
        self.batches, self.tested = [], []
        self.scores = scores

    def loss(self, X, y=None):
        if y is None:
            self.tested.append(X.copy())
            return self.scores(X, self.params["W1"])
        self.batches.append(X.copy())
        self.bn_params[0]["running_mean"] += 1
        return float(len(self.batches)), {"W1": -np.ones(1)}


def data(count, val=4):
    X = np.arange(count)
    return {"X_train": X, "y_train": np.zeros(count, int), "X_val": X[:val], "y_val": np.zeros(val, int)}


def always_first(X, w):
    return np.stack([np.ones(len(X)), np.zeros(len(X))], axis=1)


def test_an_epoch_is_a_permutation():
    model = Recorder(always_first)
    solver = cs231n.Solver(model, data(23), num_epochs=3, batch_size=5, verbose=False, num_train_samples=20)
    solver.train()
    epochs = np.array(model.batches).reshape(3, 20)
    assert all(len(set(epoch)) == 20 for epoch in epochs)  # with replacement about 13
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 3  # another remainder is left out each time
    samples = [sample for sample in model.tested if len(sample) == 20]
    assert len(samples) == 4 and all(len(set(sample)) == 20 for sample in samples)
    assert solver.loss_history == list(range(1, 13))


def test_printed_lines_histories_and_learning_rates(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    solver = cs231n.Solver(
        Recorder(always_first), data(10), num_epochs=2, batch_size=5, print_every=2, lr_decay=0.5,
        optim_config={"learning_rate": 0.25}, checkpoint_name="run",
    )  # fmt: skip
    solver.train()
    accuracies = "train acc: 1.000000; val_acc: 1.000000"
    assert capsys.readouterr().out.splitlines() == [
        "(Iteration 1 / 4) loss: 1.000000",
        'Saving checkpoint to "run_epoch_0.pkl"',
        f"(Epoch 0 / 2) {accuracies}",
        'Saving checkpoint to "run_epoch_1.pkl"',
        f"(Epoch 1 / 2) {accuracies}",
        "(Iteration 3 / 4) loss: 3.000000",
        'Saving checkpoint to "run_epoch_2.pkl"',
        f"(Epoch 2 / 2) {accuracies}",
    ]
    assert solver.train_acc_history == solver.val_acc_history == [1.0, 1.0, 1.0]
    assert solver.optim_configs["W1"]["learning_rate"] == 0.0625
    assert solver.optim_config == {"learning_rate": 0.25}


def test_checkpoints_hold_the_model(tmp_path):
    rng = np.random.default_rng(0)
    images = {"X_train": rng.random((8, 1, 4, 4)), "y_train": rng.integers(0, 2, 8)}
    images |= {"X_val": images["X_train"], "y_val": images["y_train"]}
    model = cs231n.VGGlikeConvNet((1, 4, 4), (2,), 1, hidden_dim=3, num_classes=2)
    name = str(tmp_path / "vgg")
    cs231n.Solver(model, images, num_epochs=1, batch_size=4, checkpoint_name=name, verbose=False).train()
    with open(f"{name}_epoch_1.pkl", "rb") as file:
        checkpoint = pickle.load(file)
    assert checkpoint["epoch"] == 1 and len(checkpoint["loss_history"]) == 2
    assert checkpoint["update_rule"] is cs231n.sgd
    assert checkpoint["model"].loss(images["X_val"]).shape == (8, 2)
    assert set(checkpoint["model"].bn_params[0]) == {"mode", "running_mean", "running_var"}


def test_the_best_parameters_come_back_with_their_statistics():
    def scores(X, w):  # right while w is 2, that is after epoch 2 (w starts at 0, each step adds 1)
        return always_first(X, w) if w[0] == 2 else 1 - always_first(X, w)

    model = Recorder(scores)
    solver = cs231n.Solver(
        model, data(5), num_epochs=4, batch_size=5, verbose=False, optim_config={"learning_rate": 1.0}
    )
    solver.train()
    assert solver.val_acc_history == [0, 1, 0, 0]
    assert solver.best_val_acc == 1
    assert model.params["W1"] == 2
    assert model.bn_params[0]["running_mean"] == 2  # the course's class leaves 4


def test_a_model_that_is_never_right_keeps_parameters():
    model = Recorder(lambda X, w: 1 - always_first(X, w))
    cs231n.Solver(model, data(5), num_epochs=2, batch_size=5, verbose=False).train()
    assert list(model.params) == ["W1"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"learning_rate": 1e-3}, "unrecognized arguments 'learning_rate'"),
        ({"update_rule": "adamw"}, "update_rule must be one of 'sgd', .*, got 'adamw'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_val_samples": 0}, "num_val_samples must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        cs231n.Solver(Recorder(always_first), data(5), **options)


def test_bad_data():
    with pytest.raises(ValueError, match="data must have the key 'X_val'"):
        cs231n.Solver(Recorder(always_first), {"X_train": [0], "y_train": [0]})
    with pytest.raises(ValueError, match="X_train and y_train must be as many and some, got 5 and 4"):
        cs231n.Solver(Recorder(always_first), {**data(5), "y_train": np.zeros(4)})


@pytest.mark.parametrize("rule, rate", [("sgd", 0.3), ("sgd_momentum", 0.05), ("rmsprop", 1e-2), ("adam", 1e-2)])
def test_every_rule_fits_a_small_set(rule, rate):
    np.random.seed(1)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 2, 8, 8)), rng.integers(0, 3, 30)
    model = cs231n.ThreeLayerConvNet((2, 8, 8), 6, 3, 20, 3, weight_scale=None)
    images = {"X_train": X, "y_train": y, "X_val": X, "y_val": y}
    solver = cs231n.Solver(
        model, images, update_rule=rule, optim_config={"learning_rate": rate}, num_epochs=25, batch_size=10,
        verbose=False,
    )  # fmt: skip
    solver.train()
    assert solver.check_accuracy(X, y) == 1.0


def test_the_vgg_like_net_trains():
    np.random.seed(1)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((24, 3, 16, 16)), rng.integers(0, 3, 24)
    model = cs231n.VGGlikeConvNet((3, 16, 16), (8, 8), (2, 1), hidden_dim=(16,), num_classes=3, dropout_keep_ratio=0.9)
    images = {"X_train": X, "y_train": y, "X_val": X, "y_val": y}
    solver = cs231n.Solver(
        model, images, update_rule="adam", optim_config={"learning_rate": 3e-3}, num_epochs=20, batch_size=8,
        verbose=False,
    )  # fmt: skip
    solver.train()
    assert solver.loss_history[-1] < 0.5 * solver.loss_history[0]
    assert solver.check_accuracy(X, y) == solver.best_val_acc > 0.9  # in test mode, with the statistics of that epoch
