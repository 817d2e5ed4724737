"""A convolution that alternates with a NumPy matrix product: each one's time beside its time alone.

Idle threads of fastconv's and NumPy's pools may spin and slow each other down. Measured as a stock install runs, with
Numba's OpenMP layer (TBB, if it is installed, is left aside: NUMBA_THREADING_LAYER=omp unless you set another).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")  # Numba reads it when it is imported

import figure
import numpy as np
import ours
from machine import machine, print_machine
from measure import settle, warned_of_others

SIDES = (256, 512, 1024)
_PAIRS_PER_BLOCK = 20


def _alone(call: Callable[[], object], rounds: int) -> float:
    return statistics.median(_block([call])[0] for _ in range(rounds))


def _block(calls: list[Callable[[], object]]) -> list[float]:
    """Mean seconds of each call while they take turns, after a pause and one untimed turn."""
    settle()
    seconds = [0.0] * len(calls)
    for turn in range(_PAIRS_PER_BLOCK + 1):
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            seconds[index] += (time.perf_counter() - start) * (turn > 0)
    return [value / _PAIRS_PER_BLOCK for value in seconds]


def main() -> int:
    parser = figure.parser(__doc__, groups=("batch 1",))
    options = parser.parse_args()
    print_machine(machine([options.dtype]))
    print("milliseconds alone, in turns, and their ratio")
    print(f"{'layer':30}{'layout':8}{'convolution':>26}   {'product':>26}")
    with warned_of_others():
        for case in figure.cases(options, parser):
            numbers = ours.arrays(case, options.dtype)
            for layout in options.layout:
                convolution = ours.passes(case, numbers, layout, "auto")["forward"].call
                for side in SIDES:
                    a = np.ones((side, side), options.dtype)
                    calls = [convolution, lambda a=a: a @ a]
                    alone = [_alone(call, options.rounds) for call in calls]
                    blocks = [_block(calls) for _ in range(options.rounds)]
                    turns = [statistics.median(values) for values in zip(*blocks, strict=True)]
                    cells = "   ".join(
                        f"{1e3 * single:9.3f}{1e3 * turn:9.3f}{turn / single:8.2f}"
                        for single, turn in zip(alone, turns, strict=True)
                    )
                    print(f"{case.name:30}{layout:8}{cells}   {side} x {side}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
