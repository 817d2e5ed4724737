"""What README.md says is true: its examples run, the functions it names exist, the commands it shows are known."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from fastconv import cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, code in enumerate(EXAMPLES, 1):
        exec(compile(code, f"README.md, example {number}", "exec"), names)
    assert (tmp_path / "lenet5.npz").is_file()
    assert "direct" in capsys.readouterr().out  # explain_conv2d


def test_named_functions_exist():
    table = README.split("## What there is")[1].split("\n\n")[1]
    for row in table.splitlines()[2:]:
        title, functions = row.strip("|").split("|")
        module = re.search(r"`(fastconv(?:\.\w+)+)`", title)
        home = importlib.import_module(module.group(1) if module else "fastconv")
        endings = ("", "_forward", "_backward") if "`_forward`" in functions else ("",)
        for name in re.findall(r"`([A-Za-z]\w*)`", functions):
            for ending in endings:
                assert hasattr(home, name + ending), f"README.md names {name + ending}, {home.__name__} has none"


@pytest.mark.parametrize("line", re.findall(r"^fastconv (.*?)(?:  #.*)?$", README.split("## Command line")[1], re.M))
def test_commands_are_known(line, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*line.split(), "--help"])
    assert stop.value.code == 0


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).is_file(), target


def test_the_training_guide_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="digits need scikit-learn")
    guide = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL), 1):
        exec(compile(code, f"training.md, example {number}", "exec"), names)
    for line in re.findall(r"^fastconv (.*?)(?:  #.*)?$", guide, re.MULTILINE):
        with pytest.raises(SystemExit) as stop:
            cli.main([*line.split(), "--help"])
        assert stop.value.code == 0
    (text,) = re.findall(r"^```toml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "run.toml").write_text(text)
    pytest.importorskip("tomllib", reason="TOML needs Python 3.11")
    assert {"--epochs=20", "--flip"} < set(cli.train.from_files(["--config", "run.toml"]))
