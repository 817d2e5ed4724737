"""The comparison as a picture: one bar per group and pass, its length the mean ratio to the best peer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from contest import Row
from report import DIRECTIONS, groups_of, mean_ratio

COLOURS = dict(zip(DIRECTIONS, ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"), strict=True))
_THICKNESS = 0.26


def draw(rows: Sequence[Row], column: str, title: str, path: str) -> None:
    """Groups downwards, ratio to the right on a logarithmic axis: bars that reach right of 1 are faster."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in rows if column in row.ours]
    groups = groups_of(rows)
    figure = Figure(figsize=(8, 1.2 + 0.52 * len(groups)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = set()
    for place, group in enumerate(groups):
        part = [row for row in rows if row.group == group]
        means = [(d, mean_ratio(part, column, d)) for d in DIRECTIONS]
        means = [(direction, mean) for direction, mean in means if not math.isnan(mean)]
        for index, (direction, mean) in enumerate(means):
            y = place + _THICKNESS * (index - (len(means) - 1) / 2)
            label = direction if direction not in drawn else None
            drawn.add(direction)
            axes.barh(y, mean - 1, left=1, height=0.9 * _THICKNESS, color=COLOURS[direction], label=label)
            axes.annotate(
                f"{mean:.2f}", (max(mean, 1), y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7
            )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.7), max(1.15 * high, 1.5))
    ticks = [2.0**power for power in range(-6, 7) if axes.get_xlim()[0] <= 2.0**power <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.set_xlabel("time of the best peer / time of fastconv: right of 1, fastconv is faster")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: DIRECTIONS.index(labels[index]))
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=len(order),
        fontsize=8,
    )
    figure.savefig(path)
