"""What a figure means nothing without: processor, threads, versions, the measured peak."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numba
import numpy as np

import fastconv
from fastconv import runtime
from fastconv._kernels.isa import MACHINE
from fastconv.bench import peak_gflops

Facts = dict[str, Any]
_PEAKS = 6  # shared machines change their clock: the largest of several


def machine(dtypes: Sequence[str], peers: Sequence[ModuleType] = ()) -> Facts:
    """The facts, with the versions of `peers` and the multiply-add peak of each dtype, measured now."""
    peaks = {dtype: round(max(peak_gflops(dtype) for _ in range(_PEAKS)), 1) for dtype in dtypes}
    threads = runtime.get_num_threads()
    return {
        "processor": _processor(),
        "vector unit": MACHINE.name,
        "threads": threads,
        "threading layer": numba.threading_layer() if threads > 1 else "not started",
        "peak GFLOP/s": peaks,
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (fastconv, numba, np, *peers)},
    }


def print_machine(facts: Facts) -> None:
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            lines = file.read().split("\n\n")[0].splitlines()
        facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()
