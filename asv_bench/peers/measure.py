"""Fair timing of several contenders in one process: alternating blocks of calls, medians of block means."""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Call = Callable[[], object]

# Idle threads of one library's pool spin for a while and slow the other's calls down: each block of calls starts
# after a pause, in which they stop, and one untimed call. Single calls that alternate look up to twice as slow. ONNX
# Runtime's threads spin for up to 40 ms: the block after its own ran at 250 instead of 430 GFLOP/s.
PAUSE_SECONDS = 0.003
LONGEST_PAUSE_SECONDS = 0.1
OTHERS_MAY_USE = 0.03


@dataclass(frozen=True)
class Effort:
    """How many blocks each contender gets, and how long one is at least."""

    rounds: int = 5
    block_seconds: float = 0.03


QUICK = Effort(2, 0.005)


def interleaved(calls: Mapping[str, Call], effort: Effort = Effort()) -> dict[str, float]:
    """Seconds per call of each contender: the median over rounds of the mean within a block.

    Contenders change places, since what ran before counts: a 5x5 layer took 2.0 ms first in turn and 1.3 ms later.
    """
    for call in calls.values():
        call()  # compiles, allocates
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    for number in range(effort.rounds):
        first = number * len(order) // effort.rounds
        for name, call in order[first:] + order[:first]:
            times[name].append(_block(call, effort.block_seconds))
    return {name: statistics.median(values) for name, values in times.items()}


def settle() -> None:
    """Pause until the idle threads of this process have stopped spinning; the longest pause where /proc is missing."""
    start = time.perf_counter()
    time.sleep(PAUSE_SECONDS)
    while _threads_run() and time.perf_counter() - start < LONGEST_PAUSE_SECONDS:
        time.sleep(PAUSE_SECONDS / 3)


def _threads_run() -> bool:
    """Whether another thread of this process is on a CPU or waits for one."""
    mine = str(threading.get_native_id())
    try:
        for thread in os.listdir("/proc/self/task"):
            if thread != mine:
                with open(f"/proc/self/task/{thread}/stat") as file:
                    if file.read().rpartition(") ")[2].startswith("R"):
                        return True
    except OSError:
        return True
    return False


def _block(call: Call, at_least: float) -> float:
    settle()
    call()
    count, start = 0, time.perf_counter()
    while True:
        call()
        count += 1
        elapsed = time.perf_counter() - start
        if elapsed >= at_least:
            return elapsed / count


@contextlib.contextmanager
def warned_of_others() -> Iterator[None]:
    """Say so if other processes kept the CPUs busy during a `with` block (where /proc/stat can tell).

    OpenMP's threads wait for each other: with 2 cores and one other busy process PyTorch ran 70 times slower.
    """
    before = _busy_elsewhere()
    yield
    after = _busy_elsewhere()
    if before is not None and after is not None:
        share = (after[0] - before[0]) / max(after[1] - before[1], 1)
        if share > OTHERS_MAY_USE:
            print(f"other processes used {share:.0%} of the CPUs meanwhile: do not trust these figures")


def _busy_elsewhere() -> tuple[float, float] | None:
    """(ticks other processes used, ticks of all CPUs) since boot."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(value) for value in file.readline().split()[1:9]]
    except OSError:
        return None
    mine = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")  # with children that ended
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle - mine, sum(ticks)
