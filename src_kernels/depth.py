"""Planes of volumes laid side by side as the channels of images, and added back: what 3-D convolution does beside 2-D.

A volume is rows x depth x run numbers: channels-first its rows are channels and a run is a plane; channels-last its
rows are the pixels of a plane, once per group, and a run is the group's channels. `x` and `folded` are flat, and
`starts` says where in x the first row of each plane begins: of tap k of image i at starts[i * taps + k], or -1 for a
plane of zeros. Row r lies r * row_step further. `folded` is (images, rows, taps, run).
"""

from __future__ import annotations

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit


@jit
def _fold(slot, slots, x, folded, starts, taps, rows, row_step, run):
    """folded[i, r, k] = x[starts[i, k] + r * row_step]; tasks are rows of images, `folded` may be uninitialised."""
    tasks = starts.size // taps * rows
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        image = task // rows
        row = task - image * rows
        for k in range(taps):
            target = folded[(task * taps + k) * run : (task * taps + k + 1) * run]
            start = starts[image * taps + k]
            if start < 0:
                target[:] = 0
                continue
            start += row * row_step
            source = x[start : start + run]
            for j in range(target.size):
                target[j] = source[j]


@jit(parallel=True)
def _fold_parallel(slots, x, folded, starts, taps, rows, row_step, run):
    for slot in prange(slots):
        _fold(intp(slot), slots, x, folded, starts, taps, rows, row_step, run)


fold_depth = Kernel(_fold, _fold_parallel)


@jit
def _unfold(slot, slots, folded, x, starts, taps, rows, row_step, run, add):
    """x[starts[i, k] + r * row_step] (+)= folded[i, r, k]; a slot has its own rows of all images, so cells are its own.

    Images follow each other in one slot, so sums have one order.
    """
    first, end = slot * rows // slots, (slot + 1) * rows // slots
    for image in range(starts.size // taps):
        for row in range(first, end):
            for k in range(taps):
                start = starts[image * taps + k]
                if start < 0:
                    continue
                start += row * row_step
                place = ((image * rows + row) * taps + k) * run
                source, target = folded[place : place + run], x[start : start + run]
                if add:
                    for j in range(source.size):
                        target[j] += source[j]
                else:
                    for j in range(source.size):
                        target[j] = source[j]


@jit(parallel=True)
def _unfold_parallel(slots, folded, x, starts, taps, rows, row_step, run, add):
    for slot in prange(slots):
        _unfold(intp(slot), slots, folded, x, starts, taps, rows, row_step, run, add)


unfold_depth = Kernel(_unfold, _unfold_parallel)
