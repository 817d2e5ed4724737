"""What the installed package must be: complete, typed, light to import, one version everywhere."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import fastconv
from fastconv import pooling

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_of_modules_is_packaged(pyproject):
    # The list is written by hand because of the renamed kernel folder; a forgotten entry only fails in the wheel.
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fastconv").rglob("__init__.py")}
    assert set(pyproject["tool"]["setuptools"]["packages"]) == found | {"fastconv._kernels"}


def test_one_version_everywhere(pyproject):
    assert fastconv.__version__ == pyproject["project"]["version"] == metadata.version("fastconv")


def test_needs_only_numpy_and_numba(pyproject):
    names = {re.match(r"[a-z]+", requirement).group() for requirement in pyproject["project"]["dependencies"]}
    assert names == {"numpy", "numba"}


def test_is_typed():
    assert (Path(fastconv.__file__).parent / "py.typed").is_file()


def test_import_is_light():
    heavy = ("matplotlib", "sklearn", "tqdm", "torch", "pandas")  # scipy is Numba's doing, where there is one
    code = f"import sys, fastconv.nn; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_import_makes_no_kernel():
    """Dispatchers, tables of intrinsics and most modules wait for the first use of a public name."""
    code = (
        "import sys, gc, fastconv; from numba.core.dispatcher import Dispatcher;"
        "print(sorted({o.py_func.__module__ for o in gc.get_objects() if isinstance(o, Dispatcher)"
        " and o.py_func.__module__.startswith('fastconv')}), 'fastconv.conv' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[] False\n"
    )


def test_stub_declares_what_can_be_imported():
    stub = ast.parse((ROOT / "fastconv" / "__init__.pyi").read_text(encoding="utf-8"))
    declared = {
        alias.name: node.module for node in ast.walk(stub) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert declared.pop("*") == "fastconv.pooling"
    declared |= dict.fromkeys(pooling.__all__, "fastconv.pooling")
    assert declared.keys() - {"pooling"} == set(fastconv.__all__) <= set(dir(fastconv))
    for name, module in declared.items():
        assert getattr(fastconv, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'conv4d'"):
        _ = fastconv.conv4d


def test_no_module_stands_in_a_functions_place():
    modules = {path.stem for path in (ROOT / "fastconv").iterdir()}
    assert {name for name in fastconv.__all__ if callable(getattr(fastconv, name))} & modules == set()


def test_kernels_do_not_lean_on_the_package():
    # The dependency goes one way: fastconv -> fastconv._kernels.
    for path in (ROOT / "src_kernels").glob("*.py"):
        imports = re.findall(r"^(?:from|import) (fastconv\S*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(name.startswith("fastconv._kernels") for name in imports), f"{path.name} imports {imports}"
