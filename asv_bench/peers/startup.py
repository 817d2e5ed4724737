"""What small programs notice: the time of one tiny call, of importing, and of the first convolution of a process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

from contest import LAYOUTS, Selection
from convolutions import contests
from measure import interleaved
from ours import PASSES

from fastconv.catalogue import Case

TINY = Case("tiny", 1, 3, 8, 8, 4, 3, 3)

_PROCESS = """
import time
start = time.perf_counter()
import {module}
imported = time.perf_counter()
import numpy as np
x, w = np.ones((8, 16, 28, 28), np.float32), np.ones((16, 16, 3, 3), np.float32)
called = time.perf_counter()
{call}
print(imported - start, time.perf_counter() - called)
"""
_CALLS = {
    ("fastconv", "forward"): "fastconv.conv2d(x, w, padding=1)",
    ("fastconv", "forward and backward"): (
        "out, cache = fastconv.conv2d_forward(x, w, padding=1); fastconv.conv2d_backward(out, cache)"
    ),
    ("torch", "forward"): "torch.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1)",
}


def print_overhead(dtype: str) -> None:
    """Microseconds per call on 1x3x8x8 with 4 filters 3x3."""
    print(f"1x3x8x8, 4 filters 3x3, {dtype}: microseconds per call; ratio: best peer's time / fastconv NCHW time")
    for contest in contests("", TINY, Selection(PASSES, dtype, LAYOUTS, ("auto",))):
        ours = {f"fastconv {name}": contender.call for name, contender in contest.ours.items()}
        peers = {name: contender.call for name, contender in contest.peers.items()}
        seconds = interleaved(ours | peers)
        ratio = min(seconds[name] for name in peers) / seconds["fastconv NCHW auto"]
        figures = ", ".join(f"{name} {1e6 * value:.1f}" for name, value in seconds.items())
        print(f"{contest.direction:8} {figures}; ratio {ratio:.2f}", flush=True)


def print_startup() -> None:
    """Seconds in new processes: medians of several."""
    print("medians over new processes, seconds")
    with tempfile.TemporaryDirectory() as warm:
        for (module, what), call in _CALLS.items():
            environment = {**os.environ, "NUMBA_CACHE_DIR": warm}
            _run(module, call, environment)
            _print(f"{module}, first {what}, warm cache", [_run(module, call, environment) for _ in range(7)])
    for (module, what), call in _CALLS.items():
        if module == "fastconv":
            _print(f"{module}, first {what}, empty cache", [_run_cold(module, call) for _ in range(3)])


def _run_cold(module: str, call: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as empty:
        return _run(module, call, {**os.environ, "NUMBA_CACHE_DIR": empty})


def _run(module: str, call: str, environment: dict[str, str]) -> tuple[float, float]:
    """(seconds to import, seconds of the call) in a new process."""
    code = _PROCESS.format(module=module, call=call)
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    imported, called = map(float, printed.stdout.split())
    return imported, called


def _print(title: str, samples: list[tuple[float, float]]) -> None:
    imported, called = (statistics.median(values) for values in zip(*samples, strict=True))
    print(f"{title:48} import {imported:.3f} + call {called:.3f} = {imported + called:.3f}", flush=True)
