"""Run in processes of its own by test_threads: `thread_child.py <scenario>...`, under one of the threading layers."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings

import numpy as np
from conv_cases import normal

import fastconv
from fastconv import runtime

runtime.SERIAL_BELOW = 0  # every call goes to the thread pool
THREADS, CALLS = 8, 12
DEADLOCK = 120  # seconds


def work(seed: int) -> list[np.ndarray]:
    """A convolution and a pooling, forward and backward, of sizes that differ with the seed."""
    x, w = normal(seed, (2, 3 + seed % 3, 17 + seed, 15)), normal(seed + 1, (9 + seed, 3 + seed % 3, 3, 3))
    out, cache = fastconv.conv2d_forward(x, w, normal(seed + 2, (9 + seed,)), padding=1, activation="relu")
    pooled, pool_cache = fastconv.max_pool2d_forward(out, 2)
    dout = fastconv.max_pool2d_backward(np.cos(pooled), pool_cache)
    return [out, pooled, dout, *fastconv.conv2d_backward(dout, cache), fastconv.avg_pool2d(out, 3)]


def same(results: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Up to rounding: another number of threads may mean another algorithm."""
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(results, expected, strict=True))


def serially(seed: int) -> list[np.ndarray]:
    with runtime.num_threads(1):
        return work(seed)


def start_together(count: int, call) -> list:
    """call(i) in `count` Python threads that start at the same moment; their results."""
    barrier, results = threading.Barrier(count), [None] * count

    def body(i):
        barrier.wait()
        results[i] = call(i)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def in_fork(call) -> int:
    """Exit code of a forked child: 0 if call() was true there."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks with threads
        pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.alarm(DEADLOCK // 2)  # a child does not inherit its parent's
    code = 3
    try:
        code = 0 if call() else 2
    except Exception:
        traceback.print_exc()  # the parent's test reads it: a missing threading layer shows here first
    finally:
        sys.stderr.flush()
        os._exit(code)


def correct(seed: int = 0) -> bool:
    return same(work(seed), EXPECTED[seed])


def many_threads() -> None:
    def call(i):
        return all(correct(i) for _ in range(CALLS))

    assert start_together(THREADS, call) == [True] * THREADS


def first_launch() -> None:
    """Nothing was compiled or loaded, and no pool started, before eight threads arrive."""
    results = start_together(THREADS, lambda i: work(i % 3))
    for i, result in enumerate(results):
        assert same(result, serially(i % 3))


def own_thread_counts() -> None:
    """Each Python thread may choose its own number of threads."""

    def call(i):
        with runtime.num_threads(1 + i % runtime.numba.config.NUMBA_NUM_THREADS):
            return all(correct(i) for _ in range(CALLS))

    assert start_together(THREADS, call) == [True] * THREADS


def fork_after_call() -> None:
    assert correct()
    assert [in_fork(correct) for _ in range(3)] == [0, 0, 0]
    assert in_fork(lambda: correct(1) and in_fork(lambda: correct(2)) == 0) == 0  # and its child's child
    assert correct()


def fork_after_call_in_a_thread() -> None:
    """The pool was started by a thread that is gone."""
    assert start_together(1, correct) == [True]
    assert in_fork(correct) == 0
    assert correct()


def fork_before_call() -> None:
    assert in_fork(correct) == 0
    assert correct()


def fork_during_calls() -> None:
    """A child made while other threads are inside kernels and hold locks."""
    assert correct()
    stop = threading.Event()

    def call(i):
        if i < 3:
            while not stop.is_set():
                work(i)
            return True
        try:
            return all(in_fork(correct) == 0 for _ in range(15))
        finally:
            stop.set()

    assert start_together(4, call) == [True] * 4
    assert correct()


def fork_during_compilation() -> None:
    """The child needs the kernel that another thread of its parent is compiling."""
    compiling = threading.Thread(target=lambda: fastconv.conv2d(np.ones((1, 2, 40, 5)), np.ones((3, 2, 3, 3))))
    before = runtime.compile_seconds()
    compiling.start()
    time.sleep(0.1)
    codes = [in_fork(lambda: fastconv.conv2d(np.ones((1, 2, 9, 5)), np.ones((3, 2, 3, 3))).max() == 18) for _ in "ab"]
    compiling.join()
    assert runtime.compile_seconds() > before and codes == [0, 0]


def fork_after_other_numba_code() -> None:
    """The pool was started by somebody else's parallel code; ours has not run yet."""
    import numba

    @numba.njit(parallel=True)
    def total(values):
        result = 0.0
        for i in numba.prange(values.size):
            result += values[i]
        return result

    assert total(np.ones(1000)) == 1000
    assert in_fork(correct) == 0


def pool_of_processes() -> None:
    assert correct()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(correct, range(4)) == [True] * 4


def spawned_processes() -> None:
    assert correct()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert same(pool.map(work, [1])[0], EXPECTED[1])


EXPECTED: dict[int, list[np.ndarray]] = {}
COLD = ("first_launch", "fork_during_compilation")  # nothing may have run before them

if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(DEADLOCK)
    for scenario in sys.argv[1:]:
        if scenario not in COLD and not EXPECTED:
            EXPECTED.update({seed: serially(seed) for seed in range(THREADS)})
        globals()[scenario]()
        print("done:", scenario, flush=True)
