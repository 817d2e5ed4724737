"""Time per operation as one size doubles from small to gigabytes of data (x, w and out), for the three passes.

The unit is the time that an operation takes at the multiply-add peak, measured before and after each point: clocks of
shared machines change by a factor of two within seconds. Growth is a point's time divided by the least that a smaller
size of the same series had: 1 is linear time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import ours
from machine import Facts, machine, print_machine
from measure import warned_of_others

from fastconv import explain_conv2d, runtime
from fastconv._kernels.isa import MACHINE
from fastconv.bench import seconds_per_call, tile_gflops
from fastconv.catalogue import Case

SMALLEST = Case("growing", 2, 32, 16, 16, 32, 3, 3, 1, 1)
FIRST = {"N": 1, "C": 4, "F": 4, "H": 8}  # where each series starts; W grows with H
LIMIT_GIB = 1.0
ONE_CALL_BYTES = 2**28  # from here on a call takes a tenth of a second and more: one is timed, after an untimed one
RANDOM_NUMBERS = 2**20 - 1  # repeated: drawing gigabytes of them takes longer than the convolutions


@dataclass(frozen=True)
class Point:
    """One size of a series."""

    dimension: str
    size: int
    direction: str
    data_bytes: int
    relative: float  # time of an operation, in those at the peak
    growth: float


def sizes(dimension: str, dtype: str, limit: float) -> Iterator[tuple[int, Case, int]]:
    """(size, the convolution, bytes of x, w and out) while the bytes stay within `limit`."""
    size = FIRST[dimension]
    while True:
        case = replace(SMALLEST, **{dimension: size}, **({"W": size} if dimension == "H" else {}))
        problem = explain_conv2d(case.x_shape(), case.w_shape(), dtype=dtype, **case.options).problem
        shapes = (problem.x_shape, problem.w_shape, problem.out_shape)
        data_bytes = sum(int(np.prod(shape)) for shape in shapes) * problem.dtype.itemsize
        if data_bytes > limit:
            return
        yield size, case, data_bytes
        size *= 2


def arrays(case: Case, dtype: str) -> ours.Arrays:
    """Normally distributed numbers that repeat."""
    problem = explain_conv2d(case.x_shape(), case.w_shape(), dtype=dtype, **case.options).problem
    numbers = np.random.default_rng(0).standard_normal(RANDOM_NUMBERS, dtype)
    shapes = (problem.x_shape, problem.w_shape, (case.F,), problem.out_shape)
    return ours.Arrays(*(np.resize(numbers, shape) for shape in shapes))


def peak(dtype: str) -> float:
    """GFLOP/s of the register tile right now."""
    rows, vectors, _ = MACHINE.tiles[0]
    return tile_gflops(rows, vectors, dtype, runtime.get_num_threads())


def series(dimension: str, dtype: str, layout: str, limit: float) -> list[Point]:
    """Measure, printing points as they come."""
    points: list[Point] = []
    least: dict[str, float] = {}
    for size, case, data_bytes in sizes(dimension, dtype, limit):
        contenders = ours.passes(case, arrays(case, dtype), layout, "auto")
        flops, cells = ours.flops(case), ""
        blocks = 1 if data_bytes >= ONE_CALL_BYTES else 3
        for direction, contender in contenders.items():
            before = peak(dtype)
            seconds = seconds_per_call(contender.call, blocks=blocks, block_seconds=0.02)
            relative = seconds / flops * 1e9 * (before + peak(dtype)) / 2
            growth = relative / least.get(direction, relative)
            least[direction] = min(least.get(direction, relative), relative)
            points.append(Point(dimension, size, direction, data_bytes, relative, growth))
            cells += f"{relative:10.2f} ({growth:5.2f})"
        print(f"{dimension} = {size:<10}{data_bytes / 2**20:12.2f} MiB {cells}", flush=True)
    return points


def draw(points: Sequence[Point], facts: Facts, title: str, path: str) -> None:
    """A panel per size, a line per pass; both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dimensions = list(dict.fromkeys(point.dimension for point in points))
    figure = Figure(figsize=(3 * len(dimensions) + 0.6, 3.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(dimensions), sharey=True))
    for axes, dimension in zip(panels, dimensions, strict=True):
        for direction in ours.PASSES:
            line = [point for point in points if (point.dimension, point.direction) == (dimension, direction)]
            axes.plot([p.data_bytes / 2**20 for p in line], [p.relative for p in line], marker=".", label=direction)
        axes.set(xscale="log", yscale="log", xlabel="data, MiB", title=f"{dimension} grows")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("time per operation\n(1: at the multiply-add peak)")
    panels[-1].legend()
    figure.suptitle(f"{title}, {facts['vector unit']}, {facts['threads']} threads", fontsize=10)
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimension", nargs="+", choices=tuple(FIRST), default=list(FIRST))
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), default="NCHW")
    parser.add_argument(
        "--limit", type=float, default=LIMIT_GIB, metavar="GIB", help="of data; default 1, memory is 3x"
    )
    parser.add_argument("--plot", metavar="FILE", default="growth.png", help="default: growth.png")
    options = parser.parse_args()
    facts = machine([options.dtype])
    print_machine(facts)
    base = f"2x32x16x16, 32 filters 3x3, {options.layout}, {options.dtype}"
    print(f"{base}; time per operation in those at the peak (growth) of {', '.join(ours.PASSES)}")
    points: list[Point] = []
    with warned_of_others():
        for dimension in options.dimension:
            points += series(dimension, options.dtype, options.layout, options.limit * 2**30)
            draw(points, facts, base, options.plot)  # so far: the whole takes minutes
    worst = max(points, key=lambda point: point.growth)
    print(f"largest growth {worst.growth:.2f}, {worst.direction} at {worst.dimension} = {worst.size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
