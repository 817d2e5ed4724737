"""Python threads and forked processes that use the library at once, under each of Numba's threading layers."""

from __future__ import annotations

import os
import signal

import children
import pytest

LAYERS = ("tbb", "omp", "workqueue")
CHILD = children.TESTS / "thread_child.py"
# Scenarios of one process run one after the other: the first decides who started the pool of threads.
PROCESSES = {
    "started by the main thread": (
        "fork_before_call", "fork_after_call", "many_threads", "own_thread_counts", "fork_during_calls",
        "pool_of_processes",
    ),
    "started by eight threads": ("first_launch", "fork_after_call"),
    "started by a thread that is gone": ("fork_after_call_in_a_thread",),
    "started by other Numba code": ("fork_after_other_numba_code", "many_threads"),
}  # fmt: skip

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "SIGALRM"), reason="needs fork")


@pytest.mark.parametrize("scenarios", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("layer", LAYERS)
def test_results_are_right_and_nobody_dies(layer, scenarios):
    child = children.run(CHILD, *scenarios, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="4")
    if "No threading layer could be loaded" in child.stderr:
        pytest.skip(f"Numba finds no {layer} here")
    assert child.returncode == 0, f"exit code {child.returncode}\n{child.stdout}{child.stderr[-4000:]}"
    assert child.stdout.splitlines() == [f"done: {scenario}" for scenario in scenarios]


def test_spawned_processes():
    assert children.output_of(CHILD, "spawned_processes", NUMBA_NUM_THREADS="4") == "done: spawned_processes\n"


def test_fork_while_another_thread_compiles(tmp_path):
    output = children.output_of(CHILD, "fork_during_compilation", NUMBA_NUM_THREADS="4", NUMBA_CACHE_DIR=str(tmp_path))
    assert output == "done: fork_during_compilation\n"
