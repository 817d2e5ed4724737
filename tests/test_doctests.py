"""The examples in the docstrings of every module run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fastconv


def module_names() -> list[str]:
    """fastconv and all its modules but the kernels, which have no examples, and `__main__`, which is a program."""
    found = [info.name for info in pkgutil.walk_packages(fastconv.__path__, "fastconv.")]
    return ["fastconv", *(name for name in found if "_kernels" not in name and not name.endswith("__main__"))]


@pytest.mark.parametrize("name", module_names())
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example that writes files must not leave them in the source tree
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{name} needs {error.name}")
    names = {key: value for key, value in vars(module).items() if not key.startswith("__")}
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_main_functions_have_examples():
    finder = doctest.DocTestFinder()
    without = []
    for name in ("conv2d", "conv2d_forward", "depthwise_conv2d", "explain_conv2d", "linear_forward", "max_pool2d"):
        function = getattr(fastconv, name)
        if not any(test.examples for test in finder.find(function, name)):
            without.append(name)
    assert not without
