"""What more threads give: time on one thread divided by time on all, for layers above 10 MFLOP.

Beside it the same figure of the multiply-add peak, which says what the machine can give.
"""

from __future__ import annotations

import sys
from functools import partial

import figure
import ours
from machine import machine, print_machine
from measure import Call, Effort, interleaved, warned_of_others
from report import geometric_mean

from fastconv import runtime
from fastconv.bench import peak_gflops

LEAST_FLOPS = 10e6


def on_threads(call: Call, threads: int) -> None:
    with runtime.num_threads(threads):
        call()


def main() -> int:
    parser = figure.parser(__doc__)
    options = parser.parse_args()
    threads = runtime.get_num_threads()
    print_machine(machine([options.dtype]))
    with warned_of_others():
        peaks = peak_gflops(options.dtype, 1), peak_gflops(options.dtype, threads)
        print(
            f"multiply-add peak on 1 and {threads} threads: {peaks[0]:.0f}, {peaks[1]:.0f}, {peaks[1] / peaks[0]:.2f}"
        )
        print(f"{'layer':30}{'layout':8}" + "".join(f"{direction:>10}" for direction in ours.PASSES))
        gains: dict[str, list[float]] = {direction: [] for direction in ours.PASSES}
        for case in figure.cases(options, parser):
            if ours.flops(case) < LEAST_FLOPS:
                continue
            numbers = ours.arrays(case, options.dtype)
            for layout in options.layout:
                cells = ""
                for direction, contender in ours.passes(case, numbers, layout, "auto").items():
                    counts = dict.fromkeys((1, threads))
                    calls = {str(count): partial(on_threads, contender.call, count) for count in counts}
                    seconds = interleaved(calls, Effort(options.rounds))
                    gains[direction].append(seconds["1"] / seconds[str(threads)])
                    cells += f"{gains[direction][-1]:10.2f}"
                print(f"{case.name:30}{layout:8}{cells}", flush=True)
        for title, summary in (("geometric mean", geometric_mean), ("smallest", min)):
            print(f"{title:38}" + "".join(f"{summary(values):10.2f}" for values in gains.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
