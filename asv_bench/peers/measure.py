"""Fair timing of several contenders in one process: alternating blocks of calls, medians of block means."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

Call = Callable[[], object]

# Idle threads of one library's pool spin for a while and slow the other's calls down: each block of calls starts
# after a pause and one untimed call. Single calls that alternate look up to twice as slow.
PAUSE_SECONDS = 0.004
BLOCK_SECONDS = 0.04
ROUNDS = 5
OTHERS_MAY_USE = 0.03


def interleaved(calls: Mapping[str, Call], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds per call of each contender: the median over rounds of the mean within a block."""
    for call in calls.values():
        call()  # compiles, allocates
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_block(call))
    return {name: statistics.median(values) for name, values in times.items()}


def _block(call: Call) -> float:
    time.sleep(PAUSE_SECONDS)
    call()
    count, start = 0, time.perf_counter()
    while True:
        call()
        count += 1
        elapsed = time.perf_counter() - start
        if elapsed >= BLOCK_SECONDS:
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
    mine = sum(os.times()[:2]) * os.sysconf("SC_CLK_TCK")
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle - mine, sum(ticks)
