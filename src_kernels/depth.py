"""Planes of volumes laid side by side as the channels of images, and added back: what 3-D convolution does beside 2-D.

A volume is rows x depth x run numbers: channels-first its rows are channels and a run is a plane; channels-last its
rows are the pixels of a plane, once per group, and a run is the group's channels. `x` and `folded` are flat, and
`starts` says where in x the first row of each plane begins: of tap k of image i at starts[i * taps + k], or -1 for a
plane of zeros. Row r lies r * row_step further. `folded` is (images, rows, taps, run).

Runs may be as short as one number, so the loops slice nothing (a slice counts references: 30 ns a run) and index with
unsigned numbers, which are not checked for wraparound.
"""

from __future__ import annotations

from numba import uintp

from fastconv._kernels.launch import Kernel, on_every_slot


@Kernel
def fold_depth(slot, slots, x, folded, starts, taps, rows, row_step, run):
    """folded[i, r, k] = x[starts[i, k] + r * row_step]; tasks are rows of images, `folded` may be uninitialised."""
    if slot < 0:
        return on_every_slot(slot, slots)
    tasks = starts.size // taps * rows
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        image = task // rows
        row = task - image * rows
        for k in range(taps):
            target = uintp((task * taps + k) * run)
            start = starts[image * taps + k]
            if start < 0:
                for j in range(uintp(run)):
                    folded[target + j] = 0
            else:
                source = uintp(start + row * row_step)
                for j in range(uintp(run)):
                    folded[target + j] = x[source + j]


@Kernel
def unfold_depth(slot, slots, folded, x, starts, taps, rows, row_step, run, add):
    """x[starts[i, k] + r * row_step] (+)= folded[i, r, k]; a slot has its own rows of all images, so cells are its own.

    Images follow each other in one slot, so sums have one order.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    first, end = slot * rows // slots, (slot + 1) * rows // slots
    for image in range(starts.size // taps):
        for row in range(first, end):
            for k in range(taps):
                start = starts[image * taps + k]
                if start < 0:
                    continue
                target = uintp(start + row * row_step)
                source = uintp(((image * rows + row) * taps + k) * run)
                if add:
                    for j in range(uintp(run)):
                        x[target + j] += folded[source + j]
                else:
                    for j in range(uintp(run)):
                        x[target + j] = folded[source + j]
