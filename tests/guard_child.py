"""Run in a process of its own by test_guard_pages: `guard_child.py <section> <side> <dtype>`; prints what it runs.

Every call is made twice, plainly and with guarded and poisoned memory; the results must agree to the last bit.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable

import guard_calls
import guarded
import numpy as np
from conv_cases import BY_NAME, LAYOUTS, declines, filters, images, normal, use_tiny_blocks

import fastconv
from fastconv import runtime, workspace
from fastconv._kernels.launch import Kernel
from fastconv.catalogue import EDGES, Case
from fastconv.plan import conv2d_algorithms
from fastconv.workspace import Scratch

GUARD = guarded.Guard()
NUMPY = guarded.PoisonedNumpy()


def guard_everything() -> None:
    """Guard the arguments of all kernels; poison what the library's modules get when they ask for memory."""
    for name in fastconv.__all__:  # modules are imported when first used
        getattr(fastconv, name)
    take = Scratch.take
    Scratch.take = lambda self, shape, dtype: guarded.poison(take(self, shape, dtype))
    empty = workspace.empty
    workspace.empty = lambda shape, dtype: guarded.poison(empty(shape, dtype))
    modules = [module for name, module in sys.modules.items() if name.startswith("fastconv.")]
    for kernel in {id(k): k for m in modules for k in vars(m).values() if isinstance(k, Kernel)}.values():
        kernel.compiled = GUARD.wrap(kernel.compiled)
    for module in modules:
        if not module.__name__.startswith("fastconv._kernels") and hasattr(module, "np"):
            module.np = NUMPY


def results_of(value) -> list[np.ndarray]:
    """The arrays in what a public function returned (caches left out)."""
    if isinstance(value, tuple):
        return [array for part in value for array in results_of(part)]
    return [value] if isinstance(value, np.ndarray) else []


def check(name: str, side: str, call: Callable, *arrays: np.ndarray) -> None:
    """call(*arrays) plainly and guarded, where `arrays` lie beside guard pages too."""
    print(name, flush=True)
    expected = results_of(call(*arrays))
    twins = [guarded.copy(array, side) for array in arrays]
    GUARD.side = side
    try:
        got = results_of(call(*twins))
    finally:
        GUARD.side = None
    assert len(got) == len(expected) > 0
    for mine, known in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, known, err_msg=name)
    for twin, array in zip(twins, arrays, strict=True):
        np.testing.assert_array_equal(twin, array, err_msg=f"{name}: an input was changed")


SELECTED = ("large plane", "resnet first 7x7 s2", "resnet 64 3x3 56", "resnet 64-256 1x1 56", "lenet first 5x5 28")


def small(side: str, dtype: str) -> None:
    """The catalogue's small problems as "auto" runs them, on one thread and on all."""
    for threads in (1, runtime.get_num_threads()):
        runtime.set_num_threads(threads)
        for case in EDGES:
            for layout in LAYOUTS:
                check_passes(case, layout, "auto", side, dtype, threads)
        for rows, features, outputs in ((64, 120, 84), (9, 84, 10), (64, 300, 120)):
            x, w, b = normal(1, (rows, features)), normal(2, (features, outputs)), normal(3, (outputs,))
            name = f"linear {rows}x{features}x{outputs}, {threads} threads"
            check(name, side, guard_calls.multiplied, *(a.astype(dtype) for a in (x, w, b)))


def convolutions(side: str, dtype: str) -> None:
    """Each pass of each algorithm, in both layouts, cut into many pieces for all threads; once also whole, on one."""
    runtime.SERIAL_BELOW = 0
    if (side, dtype) == ("end", "float32"):
        with runtime.num_threads(1):
            every_algorithm(side, dtype, 1)
    use_tiny_blocks()
    every_algorithm(side, dtype, runtime.get_num_threads())


def every_algorithm(side: str, dtype: str, threads: int) -> None:
    for case in (*EDGES, *map(BY_NAME.__getitem__, SELECTED)):
        for layout in LAYOUTS:
            for algorithm in conv2d_algorithms():
                check_passes(case, layout, algorithm, side, dtype, threads)


def check_passes(case: Case, layout: str, algorithm: str, side: str, dtype: str, threads: int) -> None:
    """Forward and backward of one case, unless the algorithm declines it."""
    x, w = images(normal(1, case.x_shape()), layout), filters(normal(2, case.w_shape()), layout)
    b = normal(3, (case.F,))
    options = {"layout": layout, "algorithm": algorithm, "activation": "relu", **case.options}

    def run(x, w, b):
        out = fastconv.conv2d(x, w, b, **options)
        guarded_out = guarded.allocate(out.shape, out.dtype, side)
        cache = fastconv.conv2d_forward(x, w, b, out=guarded_out, **options)[1]
        dout = guarded.copy(np.cos(np.arange(out.size)).astype(out.dtype).reshape(out.shape), side)
        return out, guarded_out, fastconv.conv2d_backward(dout, cache)

    if declines(algorithm, x.shape, w.shape, layout=layout, dtype=dtype, **case.options):
        return
    name = f"{case.name}, {algorithm}, {layout}, {dtype}, {threads} threads"
    check(name, side, run, *(a.astype(dtype) for a in (x, w, b)))


def others(side: str, dtype: str) -> None:
    """One dtype on the calling thread, the other on all threads."""
    runtime.SERIAL_BELOW = 0
    threads = 1 if dtype == "float32" else runtime.get_num_threads()
    runtime.set_num_threads(threads)
    for name, call, arrays in guard_calls.calls(dtype):
        check(f"{name}, {threads} threads", side, call, *arrays)


def one_too_many(side: str, dtype: str) -> None:
    """Read one element outside a guarded array through a library callback: must end the process."""
    from fastconv._kernels.blocks import copy_block

    source, target = guarded.allocate((7,), dtype, side), np.zeros(9, dtype)
    offsets = np.zeros(1, np.int64)
    block = copy_block(source.itemsize).ctypes
    places = target.ctypes.data, offsets.ctypes.data, source.ctypes.data, offsets.ctypes.data
    block(*places, 1, 7, 1)
    print("inside", flush=True)
    offsets[0] = 1 if side == "end" else -1
    block(*places, 1, 7, 1)
    print("outside", flush=True)


SECTIONS = {"convolutions": convolutions, "small": small, "others": others, "one_too_many": one_too_many}

if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.dump_traceback_later(250, exit=True)  # a deadlock says where
    section, chosen_side, chosen_dtype = sys.argv[1:]
    if section != "one_too_many":
        guard_everything()
    SECTIONS[section](chosen_side, chosen_dtype)
    print(f"done, {GUARD.launches} launches", flush=True)
