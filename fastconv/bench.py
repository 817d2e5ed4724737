"""`fastconv bench`: GFLOP/s and percent of the measured multiply-add peak on named layers."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from fastconv import runtime
from fastconv._kernels.isa import MACHINE
from fastconv._kernels.peak import repeat_tile
from fastconv._kernels.register_tile import register_tile
from fastconv.catalogue import LAYERS, Case
from fastconv.conv_2d import conv2d, conv2d_backward, conv2d_forward

_DEPTH = 256  # A and B of the largest tile then fit into 48 KB
_BLOCK_SECONDS = 0.04
_PAUSE_SECONDS = 0.004  # idle threads of other pools stop spinning


def seconds_per_call(call: Callable[[], object], *, blocks: int = 5, block_seconds: float = _BLOCK_SECONDS) -> float:
    """Median over blocks of the mean time of a call within a block, after a pause and one untimed call each."""
    times = []
    for _ in range(blocks):
        time.sleep(_PAUSE_SECONDS)
        call()
        calls, start = 0, time.perf_counter()
        while True:
            call()
            calls += 1
            elapsed = time.perf_counter() - start
            if elapsed >= block_seconds:
                break
        times.append(elapsed / calls)
    return statistics.median(times)


def tile_gflops(rows: int, vectors: int, dtype: str, slots: int) -> float:
    """GFLOP/s of one register tile on `slots` threads, all operands in the first-level cache."""
    itemsize = np.dtype(dtype).itemsize
    cols = vectors * MACHINE.lanes(itemsize)
    depth = max(_DEPTH // vectors, 32)
    a, b = np.ones((rows, depth), dtype), np.ones((depth, cols), dtype)
    c = np.zeros((slots, rows * cols), dtype)
    tile = register_tile(rows, vectors, itemsize)
    repeats = max(int(2e8 / (2 * rows * cols * depth)), 1)
    tables = (np.arange(rows) * depth, np.arange(depth), np.arange(depth) * cols, np.arange(rows) * cols)

    def call() -> None:
        arow, acol, brow, crow = tables
        runtime.run_on(repeat_tile, slots, tile.address, depth, a, arow, acol, b, brow, c, crow, repeats)

    return 2e-9 * rows * cols * depth * repeats * slots / seconds_per_call(call, blocks=3)


def peak_gflops(dtype: str, slots: int | None = None) -> float:
    """The multiply-add peak: the best register tile out of the first-level cache."""
    slots = slots or runtime.get_num_threads()
    return max(tile_gflops(rows, vectors, dtype, slots) for rows, vectors, _ in MACHINE.tiles[:2])


def time_layer(case: Case, dtype: str, layout: str, algorithm: str) -> dict[str, float]:
    """GFLOP/s of the passes of one layer, results written into fresh arrays as a caller gets them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.x_shape(layout)).astype(dtype)
    w = rng.standard_normal(case.w_shape(layout)).astype(dtype)
    b = rng.standard_normal(case.F).astype(dtype)
    out, cache = conv2d_forward(x, w, b, layout=layout, algorithm=algorithm, **case.options)
    dout = rng.standard_normal(out.shape).astype(dtype)
    gflop = 2e-9 * cache.problem.multiply_adds
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: conv2d(x, w, b, layout=layout, algorithm=algorithm, **case.options),
        "dx": lambda: conv2d_backward(dout, cache, wrt=("x",)),
        "dw": lambda: conv2d_backward(dout, cache, wrt=("w",)),
    }
    return {name: gflop / seconds_per_call(call) for name, call in calls.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fastconv bench", description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), default="NCHW")
    parser.add_argument("--algorithm", default="auto", help="auto, fast, or a name from conv2d_algorithms()")
    parser.add_argument("--layer", default="", help="only layers whose name contains this")
    parser.add_argument("--tiles", action="store_true", help="the register tiles instead of layers, on one core")
    options = parser.parse_args(arguments)
    dtype = options.dtype
    if options.tiles:
        for rows, vectors, _ in MACHINE.tiles:
            gflops = tile_gflops(rows, vectors, dtype, 1)
            print(f"{rows:2d} rows x {vectors} vectors of {MACHINE.name} {dtype}: {gflops:7.1f} GFLOP/s", flush=True)
        return 0
    layers = [case for case in LAYERS if options.layer in case.name]
    if not layers:
        parser.error(f"no layer's name contains {options.layer!r}; names are {[case.name for case in LAYERS]}")
    peak = peak_gflops(dtype)
    print(f"{MACHINE.name}, {runtime.get_num_threads()} threads, {dtype} {options.layout}: peak {peak:.0f} GFLOP/s")
    print(f"{'layer':26}{'forward':>14}{'dx':>14}{'dw':>14}   GFLOP/s (% of peak)")
    for case in layers:
        results = time_layer(case, dtype, options.layout, options.algorithm)
        row = "".join(f"{value:7.0f} ({100 * value / peak:3.0f}%)" for value in results.values())
        print(f"{case.name:26}{row}", flush=True)
    return 0
