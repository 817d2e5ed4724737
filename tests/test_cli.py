"""The command line from end to end, in this process; start-up and `python -m fastconv` in one of their own."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fastconv import cli, nn, plots


def run(capsys, *arguments):
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:  # argparse's way out
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("sklearn", reason="digits need scikit-learn")
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    out = tmp_path_factory.mktemp("run") / "deep" / "er"
    assert cli.main(["train", "--data", "digits", "--epochs", "1", "--seed", "3", "--out", str(out)]) == 0
    return out


def test_train_writes_everything(trained, capsys):
    names = ["filters.png", "history.csv", "history.json", "misclassified.png", "model.npz", "training.png"]
    assert sorted(path.name for path in trained.iterdir()) == names
    for path in trained.glob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    history = json.loads((trained / "history.json").read_text())
    assert len(history["loss"]) == len(history["val_accuracy"]) == 1
    meta = nn.read_meta(trained / "model.npz")
    assert meta["classes"] == list("0123456789") and meta["network"] == "lenet5"
    assert meta["test_accuracy"] == pytest.approx(history["val_accuracy"][-1])
    assert meta["test_accuracy"] > 0.6


def test_train_reports(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="digits need scikit-learn")
    code, out, _ = run(
        capsys, "train", "--epochs", 1, "--batch-size", 128, "--lr", 0.01, "--optimizer", "sgd", "--threads", 1,
        "--shift", 0, "--schedule", "constant", "--model", "three_layer_convnet", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0
    for label in ("test accuracy", "time per epoch", "compiling", "saved", "epoch 1/1"):
        assert label in out


def test_predict_pictures_and_arrays(trained, tmp_path, capsys):
    from matplotlib.image import imsave

    from fastconv.datasets import digits

    data = digits(seed=3)
    imsave(tmp_path / "digit.png", data.x_test[0, 0], cmap="gray", vmin=0, vmax=1)
    imsave(tmp_path / "dark.png", 1 - data.x_test[0, 0], cmap="gray", vmin=0, vmax=1)
    np.save(tmp_path / "digits.npy", data.x_test[:3])
    model = trained / "model.npz"
    expected = nn.load(model).predict(data.x_test[:3]).argmax(axis=1)

    code, out, _ = run(capsys, "predict", "--model", model, tmp_path / "digit.png", tmp_path / "digits.npy")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0 and len(rows) == 4
    assert [int(row[1]) for row in rows] == [expected[0], *expected]
    assert all(len(row) == 7 for row in rows)  # path, then three answers with their shares

    code, out, _ = run(capsys, "predict", "--model", model, "--top", 1, "--invert", tmp_path / "dark.png")
    assert code == 0 and int(out.split()[1]) == expected[0]


def test_info_and_warmup(capsys):
    code, out, _ = run(capsys, "info")
    assert code == 0 and "vector unit" in out and "threads" in out
    code, out, _ = run(capsys, "warmup")
    assert code == 0 and "warmed up in" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: command"),
        (["paint"], "invalid choice: 'paint'"),
        (["train"], "the following arguments are required: --out"),
        (["train", "--out", "x", "--epochs", "0"], "argument --epochs: must be an integer of at least 1, got '0'"),
        (["train", "--out", "x", "--lr", "fast"], "argument --lr: must be a number above 0, got 'fast'"),
        (["train", "--out", "x", "--data", "cats"], "argument --data: invalid choice: 'cats'"),
        (["train", "--out", "x", "--data", "mnist"], "--data mnist needs --data-dir DIR"),
        (["train", "--out", "x", "--data", "digits", "--data-dir", "y"], "--data-dir is for --data mnist"),
        (["train", "--out", "x", "--data", "mnist", "--data-dir", "nowhere"], "nowhere has no train-images"),
        (["train", "--out", "x", "--model", "resnet"], "name must be one of 'lenet5'"),
        (["train", "--out", "x", "--threads", "9999"], "number of threads must be between 1 and"),
        (["predict", "--model", "none.npz", "a.png"], "none.npz: No such file"),
        (["predict", "--model", "file", "a.png"], "file is damaged or no fastconv checkpoint"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and message in err and err.startswith("fastconv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_bad_images_are_bad_usage(trained, capsys, tmp_path):
    (tmp_path / "bad.npy").write_text("text")
    for name in ("missing.png", "missing.npy", "bad.npy"):
        code, _, err = run(capsys, "predict", "--model", trained / "model.npz", tmp_path / name)
        assert code == 2 and err.count("\n") == 1, err


def test_a_run_that_diverges_ends_with_one_line(capsys, tmp_path):
    pytest.importorskip("sklearn", reason="digits need scikit-learn")
    code, _, err = run(capsys, "train", "--optimizer", "sgd", "--lr", "1e30", "--epochs", 1, "--out", tmp_path)
    assert code == 1 and "the loss became" in err and err.count("\n") == 1


def test_help_and_version_load_no_heavy_module():
    code = (
        "import sys; sys.argv = ['fastconv', '--help']\n"
        "from fastconv.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'fastconv.nn', 'matplotlib', 'sklearn', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "warmup" in done.stdout
    done = subprocess.run([sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("fastconv ")


def test_choices_are_those_of_the_library():
    text = next(a for a in cli._parser()._subparsers._group_actions).choices["train"].format_help()
    assert all(name in text for name in nn.models.MODELS)
    assert cli.LEARNING_RATES.keys() == nn.optim.OPTIMIZERS.keys()


def test_figures_of_a_perfect_model_and_colour_filters(tmp_path):
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    x, y = np.zeros((3, 3, 8, 8), np.float32), np.arange(3)
    perfect = plots.misclassified_grid(x, y, np.eye(3), ("a", "b", "c"))
    assert perfect._suptitle.get_text() == "0 of 3 misclassified (accuracy 100.00%)"
    one = plots.misclassified_grid(x, y, np.eye(3)[[0, 1, 0]], ("a", "b", "c"))
    assert "c, taken for a" in [axes.get_title() for axes in one.axes]
    plots.filter_grid(nn.models.three_layer_convnet()).savefig(tmp_path / "f.png")
    layer = nn.Conv2d(3, 5, 3, layout="NHWC", rng=0)
    assert plots.filter_grid(nn.Sequential(layer)) is not None
    with pytest.raises(ValueError, match="must have a Conv2d"):
        plots.filter_grid(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="at least one epoch"):
        plots.history_figure(nn.History())
