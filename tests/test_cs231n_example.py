"""examples/cs231n_cifar10.py runs on a small archive, and the code in docs/cs231n.md runs."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("run", ["epoch", "overfit"])
def test_the_example(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="the example draws figures")
    rng = np.random.default_rng(0)
    records = np.concatenate([rng.integers(0, 10, (4, 1)), rng.integers(0, 256, (4, 3072))], axis=1).astype(np.uint8)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    options = [run, str(tmp_path), "--out", str(tmp_path / "out"), "--num-training", "12", "--num-validation", "8"]
    monkeypatch.setattr(sys, "argv", ["cs231n_cifar10.py", *options])
    runpy.run_path(str(ROOT / "examples" / "cs231n_cifar10.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "(Iteration 1 / " in printed and re.search(r"validation accuracy  \d+\.\d\d%", printed)
    assert (tmp_path / "out" / f"cs231n_{run}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cs231n", None)  # restored at the end: one of the examples sets it
    names: dict = {}
    page = (ROOT / "docs" / "cs231n.md").read_text(encoding="utf-8")
    for code in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(code, names)
    assert float(capsys.readouterr().out) < 1e-6
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page):
        assert (ROOT / "docs" / target).is_file()
