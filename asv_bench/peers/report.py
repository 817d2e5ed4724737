"""What the comparison prints: rows, geometric means per group, a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from contest import Entry, Row
from machine import Facts

DIRECTIONS = ("forward", "dx", "dw", "backward", "step")


def columns_of(rows: Iterable[Row]) -> list[str]:
    """fastconv's configurations in the order in which they first come."""
    return list(dict.fromkeys(column for row in rows for column in row.ours))


def groups_of(rows: Iterable[Row | Entry]) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))


def geometric_mean(values: Sequence[float]) -> float:
    """NaN for none."""
    return math.exp(np.mean(np.log(values))) if len(values) else math.nan


def mean_ratio(rows: Iterable[Row], column: str, direction: str) -> float:
    """Geometric mean of the ratios of one pass."""
    return geometric_mean([row.ratio(column) for row in rows if row.direction == direction and column in row.ours])


class Printer:
    """Prints rows of one dtype as they come, with a line where a group starts."""

    def __init__(self, dtype: str, columns: Sequence[str], facts: Facts):
        self.columns = columns
        self.peak = facts["peak GFLOP/s"][dtype]
        self.group = ""
        print(f"\n{dtype}: GFLOP/s (% of the measured multiply-add peak) or milliseconds;", end=" ")
        print("ratio: best peer's time / fastconv's time")
        speeds = "".join(f"{column:>16}" for column in columns)
        ratios = "".join(f"{column:>11}" for column in columns)
        print(f"{'layer':30}{'pass':9}{speeds}{'best peer':>16} {'':22}{ratios}")

    def print_row(self, row: Row) -> None:
        if row.group != self.group:
            self.group = row.group
            print(f"-- {self.group}")
        cells = "".join(f"{_speed(row, row.ours.get(column), self.peak):>16}" for column in self.columns)
        cells += f"{_speed(row, row.peers[row.best_peer], self.peak):>16} {row.best_peer:22}"
        cells += "".join(f"{row.ratio(c):11.2f}" if c in row.ours else f"{'-':>11}" for c in self.columns)
        cells += "".join(f"   {column}: {_memory_speed([row], column)}" for column in row.ours if row.copy)
        print(f"{row.layer:30}{row.direction:9}{cells}", flush=True)


def _memory_speed(rows: Sequence[Row], column: str) -> str:
    """What is asked of pooling, geometric means: the ratio to PyTorch's NCHW, the bandwidth beside a plain copy's."""
    ratio = geometric_mean([row.against("torch NCHW", column) for row in rows])
    share = geometric_mean([row.of_a_copy(column) for row in rows])
    return f"{ratio:.2f} to torch NCHW, {share:.0%} of a copy"


def _speed(row: Row, seconds: float | None, peak: float) -> str:
    if seconds is None:
        return "-"
    if row.gflop == 0:
        return f"{1e3 * seconds:.3f} ms"
    return f"{row.gflop / seconds:.0f} ({100 * row.gflop / seconds / peak:3.0f}%)"


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """column -> group or "all convolutions" -> pass -> geometric mean of the ratios."""
    parts = {group: [row for row in rows if row.group == group] for group in groups_of(rows)}
    parts["all convolutions"] = [row for row in rows if _is_convolution(row)]
    return {
        column: {
            name: {
                direction: round(mean, 4)
                for direction in DIRECTIONS
                if not math.isnan(mean := mean_ratio(part, column, direction))
            }
            for name, part in parts.items()
        }
        for column in columns_of(rows)
    }


def _is_convolution(row: Row) -> bool:
    return row.gflop > 0 and row.group != "linear"


def print_summary(rows: Sequence[Row]) -> None:
    """Geometric means per group and pass, and the smallest ratios, for each of our configurations."""
    for column, groups in summarise(rows).items():
        present = [d for d in DIRECTIONS if any(d in means for means in groups.values())]
        print(f"\ngeometric means of the ratios, {column:20}" + "".join(f"{d:>10}" for d in present))
        for group, means in groups.items():
            if means:
                print(f"{group:50}" + "".join(f"{means[d]:10.2f}" if d in means else f"{'-':>10}" for d in present))
        for direction in present:
            copied = [row for row in rows if row.copy and row.direction == direction and column in row.ours]
            if copied:
                print(f"pooling {direction}: {_memory_speed(copied, column)}")
        slowest = sorted((row for row in rows if column in row.ours), key=lambda row: row.ratio(column))[:5]
        print("smallest: " + "; ".join(f"{row.layer} {row.direction} {row.ratio(column):.2f}" for row in slowest))


def print_markdown(rows: Sequence[Row]) -> None:
    """The table of README.md: geometric means per group, passes side by side for each configuration."""
    summary = summarise(rows)
    cells = [
        (column, direction)
        for column, groups in summary.items()
        for direction in DIRECTIONS
        if any(direction in means for means in groups.values())
    ]
    print("", f"| group | {' | '.join(f'{direction} {column}' for column, direction in cells)} |", sep="\n")
    print(f"|{'---|' * (len(cells) + 1)}")
    for group in next(iter(summary.values())):
        means = [summary[column][group].get(direction) for column, direction in cells]
        if any(means):
            print(f"| {group} | {' | '.join('' if mean is None else f'{mean:.2f}' for mean in means)} |")
