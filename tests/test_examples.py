"""The scripts in examples/ run on small data and reach what they say."""

from __future__ import annotations

import importlib.util
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_cifar import archive, contents
from test_datasets import write_mnist

from fastconv import nn

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_from_loop_to_fastconv(capsys):
    out, expected, before, after = example("from_loop_to_fastconv").main()
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    assert after < before
    assert "times as fast" in capsys.readouterr().out


def test_check_gradients():
    errors, message = example("check_gradients").main()
    assert sorted(errors) == ["b", "swish", "w", "x"] and max(errors.values()) < 1e-8
    assert "central differences give" in message


def test_write_a_network():
    pytest.importorskip("sklearn", reason="digits need scikit-learn")
    history = example("write_a_network").main(["--epochs", "2"])
    assert history.val_accuracy[-1] > 0.8
    assert history.loss[1] < history.loss[0]


def test_image_filter(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.savez(tmp_path / "photos.npz", camera=photo[..., 0], colour=photo)
    arguments = [str(tmp_path / "photos.npz"), "--key", "colour", "--out", str(tmp_path / "out.png")]
    filtered = example("image_filter").main([*arguments, "--filters", "grayscale", "sharpen"])
    assert filtered["grayscale"].shape == (20, 30) and filtered["sharpen"].shape == (20, 30, 3)
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"
    assert "20 x 30 x 3" in capsys.readouterr().out


@pytest.mark.parametrize("variant", [[], ["--activation", "tanh", "--pooling", "average", "--optimizer", "sgd"]])
def test_mnist(variant, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    write_mnist(tmp_path, train=50, test=20)
    example("mnist").main([str(tmp_path), "--epochs", "1", "--out", str(tmp_path / "run"), *variant])
    names = ["filters.png", "history.csv", "misclassified.png", "model.npz", "seconds.png", "training.png"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    assert re.search(r"test accuracy +\d+\.\d\d% after", capsys.readouterr().out)


def test_the_index_names_every_script():
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\((\w+\.py)\)", index)) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("run", ["vgg", "vgg-augmented", "airbench"])
def test_cifar10(run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    module = example("cifar10")
    network = nn.models.airbench if run == "airbench" else nn.models.vgg_like
    build = partial(network, widths=(4, 8), layout=module.LAYOUT)
    monkeypatch.setitem(module.RECIPES, run, module.RECIPES[run]._replace(build=build))
    path = archive(tmp_path / "cifar.tar", contents())
    report = module.main([run, str(path), "--epochs", "2", "--batch-size", "8", "--out", str(tmp_path / "run")])
    assert report["epochs"] == 2 and 0 <= report["test_accuracy"] <= 1 and report["training_seconds"] > 0
    files = ["history.csv", "history.json", "model.npz", "report.json", "seconds.png", "training.png"]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == files
    assert "test accuracy" in capsys.readouterr().out
