"""Whether the chosen algorithm is the fastest: each algorithm's time beside the chosen one's, pass by pass.

The exit code is 1 if a chosen algorithm is more than 10 % slower than the best one, twice in a row. This measures, so
it is no part of the test suite: run it on an idle machine.
"""

from __future__ import annotations

import sys

import figure
import ours
from contest import Contender
from machine import machine, print_machine
from measure import Effort, interleaved, warned_of_others

from fastconv import explain_conv2d
from fastconv.algorithms import ALGORITHMS
from fastconv.catalogue import Case
from fastconv.plan import CLASSES

MAY_BE_SLOWER = 1.10
DIRECTIONS = {"forward": "forward", "dx": "gradient_x", "dw": "gradient_w"}


def offered(case: Case, dtype: str, layout: str, accuracy: str) -> dict[str, tuple[str, list[str]]]:
    """pass -> the chosen algorithm, and all that this class of accuracy admits."""
    explained = explain_conv2d(
        case.x_shape(layout), case.w_shape(layout), dtype=dtype, layout=layout, algorithm=accuracy, **case.options
    )
    admitted = {algorithm.name for algorithm in ALGORITHMS if algorithm.exact or accuracy == "fast"}
    return {
        name: (
            explained.chosen[direction],
            [a for a, offer in explained.predictions[direction].items() if a in admitted and isinstance(offer, float)],
        )
        for name, direction in DIRECTIONS.items()
    }


def by_algorithm(case: Case, dtype: str, layout: str) -> dict[str, dict[str, Contender]]:
    """algorithm -> pass -> contender, for those that support the forward pass and so can be named."""
    numbers, result = ours.arrays(case, dtype), {}
    for algorithm in ALGORITHMS:
        try:
            result[algorithm.name] = ours.passes(case, numbers, layout, algorithm.name)
        except ValueError:
            continue
    return result


def main() -> int:
    parser = figure.parser(__doc__)
    parser.add_argument("--accuracy", choices=CLASSES, default="auto", help="the class to choose in (default: auto)")
    options = parser.parse_args()
    print_machine(machine([options.dtype]))
    print(f"milliseconds of each algorithm, {options.dtype}, class {options.accuracy}; chosen: its time / the best")
    slow = []
    with warned_of_others():
        for case in figure.cases(options, parser):
            for layout in options.layout:
                contenders = by_algorithm(case, options.dtype, layout)
                for direction, (chosen, names) in offered(case, options.dtype, layout, options.accuracy).items():
                    calls = {name: contenders[name][direction].call for name in names if name in contenders}
                    for rounds in (options.rounds, 3 * options.rounds):
                        seconds = interleaved(calls, Effort(rounds))
                        loss = seconds[chosen] / min(seconds.values())
                        if loss <= MAY_BE_SLOWER:
                            break
                    else:
                        slow.append(f"{case.name} {layout} {direction}: {chosen} takes {loss:.2f} times the best")
                    figures = ", ".join(f"{name} {1e3 * value:.3f}" for name, value in seconds.items())
                    print(f"{case.name:30}{layout:8}{direction:9}{chosen} {loss:.2f}   ({figures})", flush=True)
    print(f"{len(slow)} chosen more than {MAY_BE_SLOWER - 1:.0%} slower than the best", *slow, sep="\n")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
