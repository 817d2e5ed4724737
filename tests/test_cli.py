"""The command line from end to end, in this process; start-up and `python -m fastconv` in one of their own."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest

from fastconv import cli, datasets, nn, plots
from fastconv.cli import config_file, recipe, train_options


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
    pictures = ["confusion", "feature_maps", "filters", "learning_rate", "misclassified", "training"]
    files = ["best.npz", "config.toml", "history.csv", "history.json", "last.npz"]
    assert sorted(path.name for path in trained.iterdir()) == sorted([*files, *(f"{name}.png" for name in pictures)])
    for path in trained.glob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    history = json.loads((trained / "history.json").read_text())
    assert len(history["loss"]) == len(history["val_accuracy"]) == 1
    for name in ("best.npz", "last.npz"):
        meta = nn.read_meta(trained / name)
        assert meta["classes"] == list("0123456789") and meta["network"] == "lenet5" and meta["epoch"] == 1
        assert meta["val_accuracy"] == history["val_accuracy"][-1] > 0.6
    assert nn.History.load(trained / "history.csv") == nn.History.load(trained / "history.json")


def test_train_reports(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="digits need scikit-learn")
    code, out, _ = run(
        capsys, "train", "--epochs", 1, "--batch-size", 128, "--lr", 0.01, "--optimizer", "sgd", "--threads", 1,
        "--shift", 0, "--schedule", "constant", "--model", "three_layer_convnet", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0
    for label in ("test accuracy", "best epoch", "time per epoch", "compiling", "saved", "epoch 1/1"):
        assert label in out


def test_predict_pictures_and_arrays(trained, tmp_path, capsys):
    from matplotlib.image import imsave

    from fastconv.datasets import digits

    data = digits(seed=3)
    imsave(tmp_path / "digit.png", data.x_test[0, 0], cmap="gray", vmin=0, vmax=1)
    imsave(tmp_path / "dark.png", 1 - data.x_test[0, 0], cmap="gray", vmin=0, vmax=1)
    np.save(tmp_path / "digits.npy", data.x_test[:3])
    model = trained / "best.npz"
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
        (["train", "--out", "x", "--data", "mnist"], "--data mnist needs --path PATH"),
        (["train", "--out", "x", "--data", "digits", "--data-dir", "y"], "--path is for the other data sets"),
        (["train", "--out", "x", "--data", "mnist", "--data-dir", "nowhere"], "nowhere has no train-images"),
        (["train", "--out", "x", "--model", "resnet"], "name must be one of 'lenet5'"),
        (["train", "--out", "x", "--model-options", "{"], "argument --model-options: must be a JSON object such as"),
        (["train", "--out", "x", "--model-options", '{"width": 3}'], "unexpected keyword argument 'width'"),
        (
            ["train", "--out", "x", "--download", "--data", "image_folder", "--path", "y"],
            "--download knows where mnist",
        ),
        (["train", "--out", "x", "--config"], "argument --config: expected one argument"),
        (["train", "--out", "x", "--config", "none.toml"], "none.toml: No such file"),
        (["train", "--resume", "none.npz"], "none.npz: No such file"),
        (["train", "--resume", "file"], "file is damaged or no fastconv checkpoint"),
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
        code, _, err = run(capsys, "predict", "--model", trained / "best.npz", tmp_path / name)
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
    assert train_options.LEARNING_RATES.keys() == nn.optim.OPTIMIZERS.keys()


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
    for figure in (plots.history_figure, plots.learning_rate_figure):
        with pytest.raises(ValueError, match="at least one epoch"):
            figure(nn.History())


def test_figures_of_features_and_confusions(tmp_path):
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    inner = nn.Sequential(nn.Conv2d(3, 5, 3, rng=0))
    model = nn.Sequential(nn.Normalize([0.5] * 3, [1.0] * 3), nn.ReLU(), inner, nn.MaxPool2d(2), nn.Flatten())
    image = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    maps = plots.feature_maps(model, image)
    shown = [axes.images[0].get_array() for axes in maps.axes if axes.images]
    np.testing.assert_allclose(np.stack(shown), inner(np.maximum(image - 0.5, 0)[np.newaxis])[0], rtol=1e-5, atol=1e-6)
    pooled = plots.feature_maps(model, image, layer=3, limit=2)
    assert [axes.images[0].get_array().shape for axes in pooled.axes if axes.images] == [(3, 3)] * 2
    assert len(plots.filter_grid(model).axes) == 5  # found inside, in colour
    last = nn.Sequential(nn.Conv2d(3, 4, 3, layout="NHWC", rng=0))
    assert len(plots.feature_maps(last, image.transpose(1, 2, 0)).axes) == 4
    for layer, message in ((9, "layer must be from 0 to 4, got 9"), (4, r"must give images, got shape \(1, 45\)")):
        with pytest.raises(ValueError, match=message):
            plots.feature_maps(model, image, layer=layer)

    figure = plots.confusion_figure(np.array([[3, 1], [0, 4]]), ("a", "b"))
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "4"]
    figure.savefig(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"a row and a column per class, 2, got shape \(3, 3\)"):
        plots.confusion_figure(np.eye(3), ("a", "b"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of small grey pictures in two classes that differ in brightness."""
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 100)):
        (folder / name).mkdir()
        for i in range(20):
            array = rng.integers(low, low + 100, (12, 12), dtype=np.uint8)
            image.fromarray(array).save(folder / name / f"{i}.png")
    return folder


CONFIG = """
data = "image_folder"
channels = 1
epochs = 4
batch-size = 8
optimizer = "sgd"
nesterov = true
weight_decay = 1e-3
decay_biases = false
schedule = "one_cycle"
normalize = true
flip = true
shift = 1
padding = "reflect"
cutout = 2
label_smoothing = 0.1
clip_norm = 2.0
ema = 0.9
patience = 50
validation = 0.25
mirror = true
threads = 1

[model_options]
dtype = "float32"
"""


def test_a_run_from_a_file_stopped_and_resumed(pictures, tmp_path, capsys):
    pytest.importorskip("tomllib", reason="TOML needs Python 3.11")
    (tmp_path / "run.toml").write_text(CONFIG)
    common = ("train", "--config", tmp_path / "run.toml", "--path", pictures)
    code, out, err = run(capsys, *common, "--lr", 0.02, "--out", tmp_path / "whole")
    assert code == 0, err
    assert "epoch 4/4" in out and "40 held-out" not in out and "chosen by held-out training images" in out
    written = config_file.read(tmp_path / "whole" / "config.toml")
    assert written["lr"] == 0.02 and written["batch_size"] == 8 and written["model_options"] == {"dtype": "float32"}
    assert written["decay_biases"] is False and written["schedule"] == "one_cycle" and "out" not in written

    # The written file repeats the run; interrupted after two epochs and resumed it ends in the same bits.
    part = tmp_path / "part"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Trainer, "fit", interrupted(nn.Trainer.fit))
        code, _, err = run(capsys, "train", "--config", tmp_path / "whole" / "config.toml", "--out", part)
        assert code == 130 and "interrupted" in err
    assert nn.read_meta(part / "last.npz")["epoch"] == 2
    moved = tmp_path / "moved"
    part.rename(moved)
    code, _, err = run(capsys, "train", "--resume", moved / "last.npz", "--out", tmp_path / "other")
    assert code == 2 and "--resume continues in its own folder" in err
    code, out, err = run(capsys, "train", "--resume", moved / "last.npz")
    assert code == 0 and "epoch 3/4" in out and "epoch 2/4" not in out, err
    whole, again = (nn.load(folder / "last.npz").state_dict() for folder in (tmp_path / "whole", moved))
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    assert (moved / "config.toml").read_text() == (tmp_path / "whole" / "config.toml").read_text()

    code, out, _ = run(
        capsys, "predict", "--model", moved / "best.npz", "--mirror", "--top", 1, pictures / "light" / "0.png"
    )
    assert code == 0 and out.split()[1] in ("dark", "light") and out.strip().endswith("%")


def interrupted(fit):
    """`Trainer.fit` that Ctrl-C ends after two epochs."""

    def stop(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    return lambda self, *args, **options: fit(self, *args, on_epoch_end=stop, **options)


def test_other_options_reach_the_training(pictures, tmp_path, capsys):
    code, _, err = run(
        capsys, "train", "--data", "image_folder", "--path", pictures, "--size", 16, "--model", "airbench", "--whiten",
        "--model-options", '{"widths": [8], "activation": "relu"}', "--epochs", 1, "--batch-size", 16, "--shift", 0,
        "--schedule", "step", "--lookahead", 2, "--clip-value", 0.5, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    weight = nn.load(tmp_path / "last.npz").layers[0].weight.value
    np.testing.assert_array_equal(weight[:12], -weight[12:])  # principal components, left as they were set


def test_unknown_keys_are_named_with_the_known_ones(tmp_path, capsys):
    pytest.importorskip("tomllib", reason="TOML needs Python 3.11")
    for text, message in [
        ("epoch = 3", "has the unknown key 'epoch'; known are batch_size, "),
        ("out = 'x'", "has the unknown key 'out'; known are"),
        ("epochs = 0", "argument --epochs: must be an integer of at least 1, got '0'"),
        ("epochs = true", "argument --epochs: expected one argument"),
        ("epochs = [", "is no TOML file"),
    ]:
        (tmp_path / "c.toml").write_text(text)
        code, out, err = run(capsys, "train", "--config", tmp_path / "c.toml", "--out", tmp_path / "out")
        assert code == 2 and message in err and out == "" and err.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_what_train_did_not_write_cannot_be_resumed(tmp_path, capsys):
    nn.save(tmp_path / "model.npz", nn.models.lenet5())
    code, _, err = run(capsys, "train", "--resume", tmp_path / "model.npz")
    assert code == 2 and "was not written by fastconv train" in err


def test_configuration_survives_the_file(tmp_path):
    pytest.importorskip("tomllib", reason="TOML needs Python 3.11")
    values = {"text": 'a "b" \\ ä', "n": 3, "x": 1e-5, "yes": True, "list": [1, 2.5], "table": {"a": [1, 2], "b": "c"}}
    config_file.write(tmp_path / "c.toml", {**values, "absent": None, "empty": {}})
    assert config_file.read(tmp_path / "c.toml") == values


def test_without_a_toml_reader_the_error_says_what_to_do(tmp_path, capsys, monkeypatch):
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "c.toml").write_text("epochs = 3")
    code, _, err = run(capsys, "train", "--config", tmp_path / "c.toml", "--out", tmp_path)
    assert code == 2 and "use Python 3.11 or newer, or: pip install tomli" in err


def test_data_sets_are_looked_up_by_name(monkeypatch):
    options = argparse.Namespace(data="cifar10", path="folder", download=False)
    monkeypatch.setattr(datasets, "cifar10", lambda path: ("cifar10", path), raising=False)
    assert recipe.load_data(options) == ("cifar10", "folder")
    monkeypatch.delattr(datasets, "cifar10")
    with pytest.raises(ValueError, match="--data cifar10: this version has no such data set"):
        recipe.load_data(options)
