"""Settings that every test runs under."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from hypothesis import settings

from fastconv import runtime
from fastconv.workspace import Scratch

# Examples compile kernels, so no deadline; the same examples in every run, so that a failure is a change of the code.
settings.register_profile("fastconv", deadline=None, derandomize=True, database=None)
settings.load_profile("fastconv")


@pytest.fixture(autouse=True)
def poisoned_scratch(monkeypatch):
    """Scratch memory starts as NaN: a kernel that reads what nobody wrote gives a wrong result."""
    take = Scratch.take

    def take_poisoned(self, shape, dtype):
        array = take(self, shape, dtype)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(Scratch, "take", take_poisoned)


_test = count()


@pytest.fixture(autouse=True)
def own_choices(tmp_path_factory, monkeypatch):
    """Nothing is read from, written to or deleted from the user's measured choices, here and in child processes.

    A name of its own for each test, not a folder: making and deleting 5,000 of them takes longer than most tests.
    """
    folder = tmp_path_factory.getbasetemp() / "choices" / str(next(_test))
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(folder))
    monkeypatch.delenv("FASTCONV_AUTOTUNE", raising=False)


@pytest.fixture(autouse=True)
def same_threads():
    """Put the number of threads back that a test may have changed."""
    before = runtime.get_num_threads()
    yield
    runtime.set_num_threads(before)
