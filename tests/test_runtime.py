"""Threads, settings and scratch memory of the process that runs the tests."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import fastconv
from fastconv import runtime, workspace
from fastconv._kernels.isa import LINE_BYTES
from fastconv._kernels.jit import jit
from fastconv._kernels.launch import Kernel, launcher, next_task
from fastconv.workspace import Scratch

MOST = runtime.numba.config.NUMBA_NUM_THREADS


def test_the_number_of_threads_is_set_and_bounded():
    assert runtime.get_num_threads() == MOST
    for n in (1, MOST, np.int64(1)):
        runtime.set_num_threads(n)
        assert runtime.get_num_threads() == n and type(runtime.get_num_threads()) is int
    for wrong in (0, -1, MOST + 1):
        with pytest.raises(ValueError, match=f"must be between 1 and {MOST} .*, got {wrong}"):
            runtime.set_num_threads(wrong)
    for wrong in (1.0, "1", None, True):
        with pytest.raises(TypeError, match="number of threads must be an integer"):
            runtime.set_num_threads(wrong)
    assert runtime.get_num_threads() == 1


def test_the_context_is_undone_and_nests():
    with pytest.raises(ZeroDivisionError), runtime.num_threads(1):
        assert runtime.get_num_threads() == 1
        with runtime.num_threads(MOST):
            assert runtime.get_num_threads() == MOST
        assert runtime.get_num_threads() == 1
        1 / 0  # noqa: B018
    assert runtime.get_num_threads() == MOST
    with pytest.raises(ValueError, match="must be between 1 and"), runtime.num_threads(0):
        pass


def test_the_context_holds_for_its_own_python_thread():
    seen = []
    with runtime.num_threads(1):
        thread = threading.Thread(target=lambda: seen.append(runtime.get_num_threads()))
        thread.start()
        thread.join()
    assert seen == [MOST]


def test_little_work_stays_on_the_calling_thread():
    launches = []
    kernel = Kernel(lambda slot, slots: None)
    kernel.compiled = lambda slot, slots: launches.append((slot, slots))
    runtime.launch(kernel, runtime.SERIAL_BELOW - 1)
    with runtime.num_threads(1):
        runtime.launch(kernel, 10 * runtime.SERIAL_BELOW)
    assert launches == [(0, 1)] * 2
    if MOST > 1:
        fastconv.conv2d(np.ones((8, 16, 30, 30)), np.ones((16, 16, 3, 3)))  # starts the pool
        runtime.launch(kernel, runtime.SERIAL_BELOW)
        assert launches[-1] == (launcher(), MOST)


def test_show_config(capsys):
    settings = runtime.show_config()
    printed = capsys.readouterr().out
    assert settings["fastconv"] == fastconv.__version__ and settings["threads"] == MOST
    for name, value in settings.items():
        assert f"{name} " in printed and str(value) in printed
    assert {"numba", "numpy", "vector unit", "threading layer", "kernel cache"} <= set(settings)


def test_compile_seconds_grow_only_by_compiling():
    before = runtime.compile_seconds()
    x, w = np.ones((1, 2, 8, 8)), np.ones((3, 2, 3, 3))
    fastconv.conv2d(x, w)
    after = runtime.compile_seconds()
    assert after >= before >= 0
    fastconv.conv2d(x + 1, w)
    assert runtime.compile_seconds() == after


@pytest.fixture
def empty_pool():
    workspace._forget_after_fork()
    yield
    workspace._forget_after_fork()


def test_scratch_is_aligned_and_reused(empty_pool):
    places = set()
    for _ in range(3):
        with Scratch() as scratch:
            array = scratch.take((5, 7), np.dtype(np.float32))
            assert array.shape == (5, 7) and array.dtype == np.float32 and array.flags.c_contiguous
            assert array.ctypes.data % workspace.ALIGNMENT == 0
            places.add(array.ctypes.data)
    assert len(places) == 1 and workspace.held_bytes() == 5 * 7 * 4


def test_scratch_of_an_inner_block_is_used_again(empty_pool):
    for expected in (0, 4096):
        with Scratch(expected) as scratch:
            kept = scratch.take((100,), np.dtype(np.float64))
            kept[:] = 1
            places = set()
            for _ in range(3):
                with scratch:
                    arrays = [scratch.take((size,), np.dtype(np.float64)) for size in (50, 1000)]
                    for array in arrays:
                        array[:] = 2
                    places.add(tuple(array.ctypes.data for array in arrays))
            assert len(places) == 1 and (kept == 1).all()


def test_scratch_of_one_call_does_not_overlap(empty_pool):
    for _ in range(2):
        with Scratch() as scratch:
            arrays = [scratch.take((n,), np.dtype(np.float64)) for n in (0, 1, 100, 100, 50, 7)]
            for i, array in enumerate(arrays):
                assert not any(np.may_share_memory(array, other) for other in arrays[:i])


def _free_bytes() -> int:
    return sum(buffer.memory.nbytes for buffers in workspace._free.values() for buffer in buffers)


def test_kept_scratch_is_bounded(empty_pool, monkeypatch):
    monkeypatch.setattr(workspace, "KEEP_BYTES", 10_000)
    for size in (3000, 5000, 7000, 2000, 20_000, 9000):
        with Scratch() as scratch:
            scratch.take((size,), np.dtype(np.uint8))
            scratch.take((100,), np.dtype(np.uint8))
        assert workspace.held_bytes() <= 10_000
        assert workspace.held_bytes() == _free_bytes()


def test_more_is_kept_meanwhile(empty_pool, monkeypatch):
    monkeypatch.setattr(workspace, "KEEP_BYTES", 200_000)
    shape, dtype = (100_000,), np.dtype(np.float32)
    with workspace.keeping(900_000):
        with pytest.raises(KeyError), workspace.keeping(1_000_000):
            places = {workspace.empty(shape, dtype).ctypes.data}
            assert workspace.held_bytes() == 400_000
            raise KeyError
        assert workspace.held_bytes() == 400_000
        places.add(workspace.empty(shape, dtype).ctypes.data)
        assert len(places) == 1
    assert workspace.held_bytes() == 0


def test_scratch_is_given_back_after_an_error(empty_pool):
    with pytest.raises(ZeroDivisionError), Scratch() as scratch:
        scratch.take((1000,), np.dtype(np.uint8))
        1 / 0  # noqa: B018
    assert workspace.held_bytes() == 1000


def test_a_large_problem_keeps_little_scratch(empty_pool):
    fastconv.conv2d(np.ones((4, 32, 128, 128), np.float32), np.ones((32, 32, 3, 3), np.float32), padding=1)
    assert workspace.held_bytes() <= workspace.KEEP_BYTES


def test_memory_of_large_results_is_used_again(empty_pool):
    dtype = np.dtype(np.float32)
    places = set()
    for _ in range(4):
        result = workspace.empty((64, 64, 32), dtype)
        assert result.shape == (64, 64, 32) and result.dtype == dtype
        assert result.flags.carray and type(result) is np.ndarray
        places.add(result.ctypes.data)
        view = result[1:].T
        del result
        assert workspace.held_bytes() == 0  # a view still needs it
        del view
        assert workspace.held_bytes() == 64 * 64 * 32 * 4
    assert len(places) == 1
    fits = workspace.empty((64, 64, 31), dtype)
    assert fits.ctypes.data in places and fits.nbytes < 64 * 64 * 32 * 4
    assert (
        workspace.empty((64, 64, 20), dtype).ctypes.data not in places
    )  # a result must not hold much more than it needs


def test_results_do_not_share_memory(empty_pool):
    x, w = np.ones((4, 16, 40, 40), np.float32), np.ones((16, 16, 3, 3), np.float32)
    results = [fastconv.conv2d(x * i, w) for i in range(5)]
    for i, result in enumerate(results):
        assert (result == 144 * i).all()
        assert not any(np.may_share_memory(result, other) for other in results[:i])


def test_results_are_dropped_by_many_threads(empty_pool):
    def work():
        for size in (70, 90, 110) * 30:
            array = workspace.empty((size, 400), np.dtype(np.float32))
            array[...] = size
            assert (array == size).all()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert workspace.held_bytes() == _free_bytes() <= workspace.KEEP_BYTES


@jit
def _take(counters, slot, slots, tasks):
    return next_task(counters, slot, slots, tasks)


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.parametrize("tasks", [0, 1, 2, 7, 16])
def test_tasks_are_taken_once_each_and_first_by_their_own_slot(slots, tasks):
    counters, last = np.zeros((slots, LINE_BYTES // 8), np.int64), slots - 1
    own = list(range(last * tasks // slots, tasks))
    taken = [_take(counters, last, slots, tasks) for _ in own]
    assert taken == own
    taken += [_take(counters, turn % slots, slots, tasks) for turn in range(tasks - len(own))]
    assert sorted(taken) == list(range(tasks))
    assert [_take(counters, slot, slots, tasks) for slot in range(slots)] == [tasks] * slots
