"""Choices by measurement: each new problem's algorithms are timed once, and the fastest is remembered on disk.

Off unless `runtime.set_autotune(True)`, `with runtime.autotune():` or FASTCONV_AUTOTUNE=1 turn it on. Choices lie in
one JSON file per machine, number of threads and version, in FASTCONV_CACHE_DIR or the user's cache folder. A process
reads it once; to save, it reads it again, adds its own choices and replaces it, so that readers never see half a
file. If two processes save at the same moment one choice may be lost until it is measured again; a file that cannot
be read or written costs measuring again in the next process, nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding

from fastconv._kernels.isa import MACHINE, host_features
from fastconv._kernels.jit import SOURCE_HASH, user_cache
from fastconv.problem import ConvProblem

MOST_CHOICES = 4096  # kept in a file, the latest ones: some 200 bytes each
OPERAND_BYTES = 64 * 2**20  # operands that are made for measuring; larger batches are measured by a part of them
# What is timed: algorithms predicted at most so many times slower than the best, for at least so many seconds and
# calls each, in turns. One that takes `HOPELESS` times the best in its first call is not called again.
PREDICTED_WITHIN, SECONDS, CALLS, HOPELESS = 10.0, 0.02, 3, 2.0

_lock = threading.Lock()
_choices: dict[Path | None, dict[str, dict[str, Any]]] = {}  # file -> problem and pass -> what was found


def _forget_after_fork() -> None:
    """Another thread of the parent may have been measuring."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


@cache
def _machine() -> str:
    """What decides which algorithm is fastest, beside the problem."""
    try:  # processors that LLVM counts as one family differ in caches
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        model = next((line for line in lines if line.startswith("model name")), "")
    except OSError:
        model = platform.processor()
    features = " ".join(sorted(host_features()))
    processor = f"{model} {os.cpu_count()} {binding.get_host_cpu_name()} {features}"
    return f"{processor} {MACHINE.name} {numba.__version__} {SOURCE_HASH}"


def directory() -> Path | None:
    """Where choices are kept: FASTCONV_CACHE_DIR, else the user's cache folder; None if there is neither."""
    given = os.environ.get("FASTCONV_CACHE_DIR")
    return Path(given) if given else user_cache()


def file(threads: int) -> Path | None:
    """The file of this machine and number of threads."""
    from fastconv import __version__

    folder = directory()
    signature = hashlib.sha256(f"{__version__} {threads} {_machine()}".encode()).hexdigest()[:16]
    return None if folder is None else folder / f"autotune-{signature}.json"


def _read(path: Path | None) -> dict[str, dict[str, Any]]:
    """The choices in a file; none if it is missing, damaged, or not of this form."""
    try:
        choices = json.loads(path.read_text("utf-8"))["choices"] if path is not None else {}
        return {
            key: {"algorithm": str(found["algorithm"]), "milliseconds": {k: float(v) for k, v in times.items()}}
            for key, found in choices.items()
            for times in [found["milliseconds"]]
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _save(path: Path | None) -> None:
    """Merge this process's choices with the file's, the latest last; the lock is held."""
    if path is None:
        return
    mine = _choices[path]
    merged = {key: found for key, found in _read(path).items() if key not in mine} | mine
    while len(merged) > MOST_CHOICES:
        del merged[next(iter(merged))]
    _choices[path] = merged
    partial = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"choices": merged}, indent=1), "utf-8")
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def clear() -> int:
    """Forget all choices and delete their files, of every machine and version; returns how many files there were."""
    with _lock:
        _choices.clear()
        folder = directory()
        paths = [] if folder is None else list(folder.glob("autotune-*.json"))
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)


def remembered(key: str, threads: int) -> dict[str, Any] | None:
    """What was found for a problem and pass: "algorithm" and "milliseconds" of each; None if it was not measured."""
    with _lock:
        return _known(file(threads)).get(key)


def _known(path: Path | None) -> dict[str, dict[str, Any]]:
    if path not in _choices:
        _choices[path] = _read(path)
    return _choices[path]


def fastest(key: str, threads: int, problem: ConvProblem, direction: str, offers: Sequence[tuple[str, Any]]) -> str:
    """The name of the fastest of some (name, pass) offers: remembered, or measured now.

    One thread of a process measures at a time.
    """
    names = {name for name, _ in offers}
    with _lock:
        path = file(threads)
        found = _known(path).get(key)
        if found is None or found["algorithm"] not in names:
            times = _measure(problem, direction, offers)
            found = {"algorithm": min(times, key=lambda name: times[name]), "milliseconds": times}
            _known(path)[key] = found
            _save(path)
        return found["algorithm"]


def part_of(problem: ConvProblem) -> ConvProblem:
    """As much of a batch as is measured."""
    image = math.prod(problem.x_shape[1:]) + math.prod(problem.out_shape[1:])
    return replace(problem, N=max(min(OPERAND_BYTES // max(image * problem.dtype.itemsize, 1), problem.N), 1))


def _measure(problem: ConvProblem, direction: str, offers: Sequence[tuple[str, Any]]) -> dict[str, float]:
    """Milliseconds of each offer on operands made for it; the least of some calls, made in turns."""
    rng = np.random.default_rng(0)
    x, w, dout = (
        rng.standard_normal(shape, np.float32).astype(problem.dtype)
        for shape in (problem.x_shape, problem.w_shape, problem.out_shape)
    )
    bias = np.empty(0, problem.dtype)
    arguments: dict[str, tuple[np.ndarray, ...]] = {
        "forward": (x, w, bias, np.empty_like(dout)), "gradient_x": (dout, w, bias, np.empty_like(x)),
        "gradient_w": (x, dout, np.empty_like(w)),
    }  # fmt: skip
    least = min(work.cycles for _, work in offers)
    calls: dict[str, Callable[[], None]] = {
        name: partial(work.run, *arguments[direction])
        for name, work in offers
        if work.cycles <= PREDICTED_WITHIN * least
    }
    times: dict[str, float] = {}
    for name, call in calls.items():
        call()  # compiles
        times[name] = _seconds(call)
    spent = dict(times)
    for _ in range(CALLS - 1):
        for name, call in calls.items():
            if times[name] > HOPELESS * min(times.values()):
                continue
            while True:
                seconds = _seconds(call)
                times[name], spent[name] = min(times[name], seconds), spent[name] + seconds
                if spent[name] > SECONDS / CALLS:
                    break
            spent[name] = 0.0
    return {name: 1e3 * seconds for name, seconds in times.items()}


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
