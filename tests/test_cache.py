"""The disk cache of compiled kernels: warm processes do not compile, and nothing on disk can break a call."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import children
import numba
import pytest

import fastconv
from fastconv import _kernels
from fastconv._kernels.jit import KernelCache

CALL = """
import json, sys
import numpy as np
import fastconv
from fastconv import runtime
from fastconv._kernels import jit
from fastconv._kernels.blocks import copy_block, transpose_block, transpose_rows

assert runtime.compile_seconds() == 0, "importing compiles"
{before}
out, cache = fastconv.relu_forward(np.array([-1, 2], np.float32))  # kernels
dx = fastconv.relu_backward(np.array([3, 4], np.float32), cache)
assert out.tolist() == [0, 2] and dx.tolist() == [0, 4]
a, b = np.arange(6.0), np.empty(6)  # callbacks
transpose_block(8).ctypes(b.ctypes.data, 2, a.ctypes.data, 3, 2, 3)
assert b.tolist() == [0, 3, 1, 4, 2, 5]
rows = np.array([3, 0])  # the same name and bytecode, another constant
transpose_rows(8).ctypes(b.ctypes.data, 2, a.ctypes.data, rows.ctypes.data, 2, 3)
assert b.tolist() == [3, 0, 4, 1, 5, 2]
copy_block(4), copy_block(8)
{after}
print(json.dumps({{
    "compiled": runtime.compile_seconds(), "directory": str(jit.CACHE_DIRECTORY), "hash": jit.SOURCE_HASH,
}}))
"""


def call(before: str = "", after: str = "", **environment: str) -> dict:
    return json.loads(children.output_of("-c", CALL.format(before=before, after=after), **environment))


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache directory that holds what CALL needs, and how long compiling it took."""
    directory = tmp_path_factory.mktemp("cache")
    first = call(NUMBA_CACHE_DIR=str(directory))
    assert first["compiled"] > 0 and Path(first["directory"]) == directory / "fastconv"
    return directory / "fastconv"


@pytest.fixture
def cache(warm, tmp_path):
    """A copy of it that a test may spoil."""
    shutil.copytree(warm, tmp_path / "fastconv")
    return tmp_path / "fastconv"


@pytest.fixture
def tree(tmp_path):
    """A copy of the package, whose folder of kernels may be edited; to be put first on PYTHONPATH."""
    root = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "_kernels")
    shutil.copytree(Path(fastconv.__file__).parent, root / "fastconv", ignore=ignored)
    shutil.copytree(Path(_kernels.__file__).parent, root / "fastconv" / "_kernels", ignore=ignored)
    return root


def test_a_second_process_does_not_compile(cache):
    assert call(NUMBA_CACHE_DIR=str(cache.parent))["compiled"] == 0


def _named_alike(called):
    if called == "abs":

        def callback(x):
            return abs(x)
    else:

        def callback(x):
            return float(x)

    return callback


def test_keys_tell_global_names_apart():
    """`split_pairs` loaded the machine code of `split_pairs_by_lane`, whose inner function has the same bytecode."""
    functions = [_named_alike("abs"), _named_alike("float")]
    assert len({function.__code__.co_code for function in functions}) == 1
    codegen = numba.core.registry.cpu_target.target_context.codegen()
    assert len({KernelCache(function)._index_key((), codegen) for function in functions}) == 2


def test_spoiled_files_are_compiled_again(cache):
    """Truncated, empty, garbage, pickles of something else, and code with a flipped bit."""
    files = sorted(cache.glob("*.nbc"))
    assert len(files) >= 5
    for i, path in enumerate(files):
        whole = path.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        other = pickle.dumps({"not": "code"})
        signed = hashlib.sha256(other).digest() + other
        spoiled = (whole[:middle], b"", os.urandom(1000), signed, flipped)
        path.write_bytes(spoiled[i % len(spoiled)])
    assert call(NUMBA_CACHE_DIR=str(cache.parent))["compiled"] > 0
    assert call(NUMBA_CACHE_DIR=str(cache.parent))["compiled"] == 0  # they were replaced


def test_a_directory_in_place_of_a_file(cache):
    path = min(cache.glob("*.nbc"))
    path.unlink()
    path.mkdir()
    assert call(NUMBA_CACHE_DIR=str(cache.parent))["compiled"] > 0
    assert not list(cache.glob("*.tmp"))


def test_editing_a_kernel_compiles_again(tree, tmp_path):
    environment = {"PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first = call(**environment)
    assert first["compiled"] > 0 and call(**environment)["compiled"] == 0
    with open(tree / "fastconv" / "_kernels" / "simd.py", "a", encoding="utf-8") as source:
        source.write("# edited\n")
    edited = call(**environment)
    assert edited["compiled"] > 0 and edited["hash"] != first["hash"]


def block(directory: Path) -> Path:
    """Put a file where a directory would be made: nothing can be written there, not even by root."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.write_text("")
    return directory


def test_an_unwritable_installation_uses_the_users_cache(tree, tmp_path):
    block(tree / "fastconv" / "_kernels" / "__pycache__")
    environment = {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": ""}
    first = call(**environment)
    assert Path(first["directory"]) == tmp_path / "home" / "fastconv"
    assert first["compiled"] > 0 and call(**environment)["compiled"] == 0


@pytest.mark.parametrize("home", ["blocked", "relative"])
def test_nothing_writable_works_without_a_cache(home, tree, tmp_path):
    block(tree / "fastconv" / "_kernels" / "__pycache__")
    user_cache = str(block(tmp_path / "file") / "cache") if home == "blocked" else "some/folder"
    after = "assert runtime.show_config()['kernel cache'].startswith('none') and runtime.clear_cache() == 0"
    code = CALL.format(before="", after=after)
    environment = {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": user_cache, "NUMBA_CACHE_DIR": ""}
    output = children.output_of("-c", code, cwd=tmp_path, **environment)
    assert json.loads(output.splitlines()[-1])["directory"] == "None"
    assert not (tmp_path / "some").exists()


def test_a_directory_that_vanishes_or_turns_unwritable(tmp_path):
    before = """
import shutil
shutil.rmtree(jit.CACHE_DIRECTORY)
jit.CACHE_DIRECTORY.write_text("")
"""
    assert call(before, NUMBA_CACHE_DIR=str(tmp_path))["compiled"] > 0


def test_two_processes_compile_at_once(tmp_path):
    command = [sys.executable, "-c", CALL.format(before="", after="")]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    both = [
        subprocess.Popen(command, env=environment, cwd=children.TESTS, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=children.TIMEOUT)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(json.loads(output)["compiled"] > 0 for output in outputs)
    assert call(NUMBA_CACHE_DIR=str(tmp_path))["compiled"] == 0
    assert not list((tmp_path / "fastconv").glob("*.tmp"))


def test_clear_cache(cache):
    count = len(list(cache.glob("*.nbc")))
    before = f"assert runtime.clear_cache() == {count} and runtime.clear_cache() == 0"
    assert call(before, NUMBA_CACHE_DIR=str(cache.parent))["compiled"] > 0
