"""Waiting times of idle threads: set while the pools load, and only where the user has not chosen."""

from __future__ import annotations

import sys

import children
import pytest

UNSET = dict.fromkeys(("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT"), "")
SHOW = """
import os, sys
import numpy as np
a = np.ones((300, 300)); a @ a
import fastconv
b = a @ a
assert (b == 300).all()
fastconv.conv2d(np.ones((4, 16, 30, 30)), np.ones((16, 16, 3, 3)))
assert (a @ a == 300).all()
names = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT"
print({name: os.environ[name] for name in names if name in os.environ})
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only set on Linux")


@pytest.mark.parametrize("layer", ["tbb", "omp"])
def test_the_environment_is_left_as_it_was(layer, tmp_path):
    child = children.run("-c", SHOW, cwd=tmp_path, NUMBA_THREADING_LAYER=layer, **UNSET)
    if "No threading layer could be loaded" in child.stderr:
        pytest.skip(f"Numba finds no {layer} here")
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout == "{}\n"
    chosen = {"GOMP_SPINCOUNT": "77", "OPENBLAS_THREAD_TIMEOUT": "9"}
    assert children.output_of("-c", SHOW, cwd=tmp_path, **{**UNSET, **chosen}) == f"{chosen}\n"


WAITING = """
from fastconv import idle
read = []
class Library:
    def openblas_read_env(self): read.append("read")
    def blas_thread_shutdown_(self): read.append("stop")
idle._openblas_libraries = lambda: ["library"]
idle.ctypes.CDLL = lambda path: Library()
idle.shorten_openblas()
import threading
done = threading.Event()
other = threading.Thread(target=done.wait); other.start()
idle.shorten_openblas()
done.set(); other.join()
print(read)
"""


def test_threads_of_openblas_are_stopped_only_from_the_one_python_thread(tmp_path):
    assert children.output_of("-c", WAITING, cwd=tmp_path, **UNSET) == "['read', 'stop']\n"
