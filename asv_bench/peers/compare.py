"""fastconv beside PyTorch on the catalogue's layers, in one process: GFLOP/s, share of the peak, ratios.

A ratio is PyTorch's time in the better of its two memory formats divided by fastconv's: above 1, fastconv is faster.
Run it on an idle machine: python asv_bench/peers/compare.py --help
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numba
import numpy as np
import startup
import torch
from contenders import FASTCONV, PASSES, TOLERANCE, TORCH, disagreement, fastconv_calls, torch_calls
from measure import ROUNDS, interleaved, warned_of_others

import fastconv
from fastconv import explain_conv2d, runtime
from fastconv._kernels.isa import MACHINE
from fastconv.bench import peak_gflops
from fastconv.catalogue import LAYERS, Case


@dataclass(frozen=True)
class Row:
    """One pass of one layer: seconds per call of every contender."""

    layer: str
    direction: str
    gflop: float
    seconds: dict[str, float]
    error: float  # largest disagreement, relative to the result's root mean square

    def ratio(self, layout: str) -> float:
        return min(self.seconds[name] for name in TORCH.values()) / self.seconds[FASTCONV[layout]]


def compare_layer(case: Case, dtype: str, layouts: list[str], rounds: int) -> list[Row]:
    """Time the three passes; raises if the libraries disagree."""
    ours = {layout: fastconv_calls(case, dtype, layout) for layout in layouts}
    theirs = {layout: torch_calls(case, dtype, layout) for layout in TORCH}
    gflop = 1e-9 * explain_conv2d(case.x_shape(), case.w_shape(), **case.options).flops
    rows = []
    for direction in PASSES:
        expected = theirs["NCHW"][direction]()
        error = max(disagreement(direction, layout, ours[layout][direction](), expected) for layout in layouts)
        if not error <= TOLERANCE[dtype]:
            raise SystemExit(f"{case.name}, {direction}: results differ by {error:.1e} of their root mean square")
        calls = {FASTCONV[layout]: ours[layout][direction] for layout in layouts}
        calls |= {TORCH[layout]: theirs[layout][direction] for layout in TORCH}
        rows.append(Row(case.name, direction, gflop, interleaved(calls, rounds), error))
    return rows


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(np.mean(np.log(list(values))))


def summarise(rows: list[Row], layouts: list[str]) -> dict[str, dict[str, float]]:
    """layout -> geometric means of the ratios per pass and over backward, and the smallest ratio."""
    result = {}
    for layout in layouts:
        ratios = {name: [r.ratio(layout) for r in rows if r.direction == name] for name in PASSES}
        result[layout] = {name: geometric_mean(values) for name, values in ratios.items()}
        result[layout]["backward"] = geometric_mean(ratios["dx"] + ratios["dw"])
        result[layout]["minimum"] = min(r.ratio(layout) for r in rows)
    return result


def machine(dtype: str) -> dict[str, object]:
    """What a figure means nothing without."""
    threads, peak = runtime.get_num_threads(), round(max(peak_gflops(dtype) for _ in range(3)), 1)
    return {
        "vector unit": MACHINE.name,
        "threads": threads,
        "threading layer": numba.threading_layer() if threads > 1 else "not started",
        "peak GFLOP/s": peak,
        "dtype": dtype,
        "python": platform.python_version(),
        "fastconv": fastconv.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def print_rows(rows: list[Row], layouts: list[str], peak: float) -> None:
    for row in rows:
        name = row.layer if row.direction == PASSES[0] else ""
        cells = [f"{name:26}{row.direction:8}"]
        for contender in (*(FASTCONV[layout] for layout in layouts), *TORCH.values()):
            gflops = row.gflop / row.seconds[contender]
            cells.append(f"{gflops:9.0f} ({100 * gflops / peak:3.0f}%)")
        cells += [f"{row.ratio(layout):8.2f}" for layout in layouts]
        print("".join(cells), flush=True)


def print_summary(summary: dict[str, dict[str, float]], rows: list[Row]) -> None:
    for layout, means in summary.items():
        worst = min(rows, key=lambda row: row.ratio(layout))
        figures = ", ".join(f"{name} {means[name]:.2f}" for name in (*PASSES, "backward"))
        minimum = f"{means['minimum']:.2f} ({worst.layer}, {worst.direction})"
        print(f"ratio {layout}: geometric means {figures}; minimum {minimum}")


def print_markdown(rows: list[Row], layouts: list[str]) -> None:
    """The table of README.md: GFLOP/s and ratio of every pass."""
    heads = [f"{name} {layout}" for layout in layouts for name in PASSES]
    print("", f"| layer | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}", sep="\n")
    for start in range(0, len(rows), len(PASSES)):
        cells = [
            f"{row.gflop / row.seconds[FASTCONV[layout]]:.0f} ({row.ratio(layout):.2f})"
            for layout in layouts
            for row in rows[start : start + len(PASSES)]
        ]
        print(f"| {rows[start].layer} | {' | '.join(cells)} |")
    means = [f"({value[name]:.2f})" for value in summarise(rows, layouts).values() for name in PASSES]
    print(f"| geometric mean | {' | '.join(means)} |")


def layers(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """The table of layers."""
    cases = [case for case in LAYERS if options.layer in case.name]
    if not cases:
        parser.error(f"no layer's name contains {options.layer!r}; names are {[case.name for case in LAYERS]}")
    layouts = [options.layout] if options.layout else list(FASTCONV)
    facts = machine(options.dtype)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print("GFLOP/s (% of the measured multiply-add peak); ratio: best PyTorch time / fastconv time")
    columns = [FASTCONV[layout] for layout in layouts] + ["torch NCHW", "torch NHWC"]
    print(f"{'layer':26}{'pass':8}" + "".join(f"{c:>16}" for c in columns) + "".join(f"{c:>8}" for c in layouts))
    rows: list[Row] = []
    for case in cases:
        rows += compare_layer(case, options.dtype, layouts, options.rounds)
        print_rows(rows[-len(PASSES) :], layouts, float(facts["peak GFLOP/s"]))
    summary = summarise(rows, layouts)
    print_summary(summary, rows)
    if options.markdown:
        print_markdown(rows, layouts)
    if options.json:
        document = {"machine": facts, "rows": [asdict(row) for row in rows], "summary": summary}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--layout", choices=tuple(FASTCONV), help="only this layout of fastconv (default: both)")
    parser.add_argument("--layer", default="", help="only layers whose name contains this")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"blocks per contender (default: {ROUNDS})")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--markdown", action="store_true", help="also print a Markdown table")
    parser.add_argument("--overhead", action="store_true", help="time of a call on a tiny problem, instead of layers")
    parser.add_argument("--startup", action="store_true", help="import and first calls of new processes, instead")
    options = parser.parse_args()
    if options.startup:
        startup.print_startup()
        return 0
    torch.set_num_threads(runtime.get_num_threads())
    with torch.no_grad(), warned_of_others():
        if options.overhead:
            startup.print_overhead(options.dtype)
        else:
            layers(options, parser)
    return 0


if __name__ == "__main__":
    sys.exit(main())
