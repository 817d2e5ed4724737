"""Channels-first depthwise convolution over planes kept with zeros around them: forward and both gradients.

A task keeps what it needs of some planes, or of a band of rows of one, in a first-level cache's worth of scratch, and
calls a tile of `depthwise_kept_tile` on it. It writes only its own part of `out`, which may be uninitialised.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.depthwise_rows import BIAS, RELU
from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, ask_to_read, call_address


class KeptWork(NamedTuple):
    """Sizes of one launch; rows and planes count numbers where they are steps."""

    images: int
    planes: int  # of an image
    run: int  # planes of a task
    rows: int  # of an output plane
    bands: int  # in which they are made; 1, or `run` is 1
    height: int  # of a plane of x
    width: int
    columns: int  # of an output plane
    stride: int
    above: int  # zero rows before the first row
    reach: int  # kernel rows
    taps: int
    row: int  # from one kept row to the next, of each phase, and from even rows to odd ones
    row_phase: int
    phases: int  # of columns, each as far apart as `column_phase`
    column_phase: int
    plane: int  # from one kept plane to the next
    lead: int  # zeros before the first kept plane
    lanes: int
    split_images: int  # of a task of the gradient of w
    together: int  # of them, kept at once
    relu: int


@helper
def _band(number, g):
    """First row and number of rows of a band: as even as can be."""
    first = number * g.rows // g.bands
    return first, (number + 1) * g.rows // g.bands - first


@helper
def _keep_band(keep, sizes, mine, x, place, first, rows, planes, at, g):
    """Rows of x that `rows` output rows from `first` on meet, of planes from `place` on, to kept plane number `at`."""
    item = x.itemsize
    begin = first * g.stride - g.above
    count = (rows - 1) * g.stride + g.reach
    before = min(max(-begin, 0), count)
    inside = max(min(begin + count, g.height) - (begin + before), 0)
    start = g.lead + at * g.plane
    if g.bands > 1:  # otherwise zeros stay where they are
        for row in range(count):
            if row < before or row >= before + inside:
                for phase in range(g.phases):
                    line = start + row % g.stride * g.row_phase + phase * g.column_phase + row // g.stride * g.row
                    mine[line : line + g.row] = 0
    source = address_of(x) + (place * g.height + begin + before) * g.width * item
    call_address(keep, (address_of(sizes), address_of(mine) + start * item, source, before, inside, planes))


@Kernel
def correlate_planes_kept(slot, slots, counters, keep, tile, sizes, x, w, bias, out, kept, g):
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    mine = kept[slot]
    mine[:] = 0
    flags = g.relu * RELU
    if bias.size > 0:
        flags |= BIAS
    runs = (g.planes + g.run - 1) // g.run
    tasks = g.images * runs * g.bands
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        first, rows = _band(task % g.bands, g)
        channel = task // g.bands % runs * g.run
        plane = task // (g.bands * runs) * g.planes + channel
        planes = min(g.run, g.planes - channel)
        _keep_band(keep, sizes, mine, x, plane, first, rows, planes, 0, g)
        call_address(
            tile,
            (
                address_of(sizes), address_of(mine) + g.lead * item, address_of(w) + channel * g.taps * item,
                address_of(out) + (plane * g.rows + first) * g.columns * item, address_of(bias) + channel * item,
                address_of(x) + (plane * g.height + planes * (first + rows) * g.stride) * g.width * item, rows, planes,
                flags,
            ),
        )  # fmt: skip


@Kernel
def sum_planes_kept(slot, slots, counters, keep, add, fold, sizes, x, dout, out, kept, sums, g):
    """out (splits, planes * taps) = the gradients of w of some images each; `sums` is scratch, a row per slot."""
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    mine, totals = kept[slot], sums[slot]
    mine[:] = 0
    runs = (g.planes + g.run - 1) // g.run
    tasks = len(out) * runs
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        channel, split = task % runs * g.run, task // runs
        planes = min(g.run, g.planes - channel)
        totals[: planes * g.taps * g.lanes] = 0
        end = min((split + 1) * g.split_images, g.images)
        for image in range(split * g.split_images, end, g.together):
            images = min(g.together, end - image)
            for band in range(g.bands):
                first, rows = _band(band, g)
                for i in range(images):
                    place = (image + i) * g.planes + channel
                    _keep_band(keep, sizes, mine, x, place, first, rows, planes, i * g.run, g)
                    at = address_of(dout) + (place * g.rows + first) * g.columns * item
                    ask_to_read(at, ((planes - 1) * g.rows + rows) * g.columns * item)
                for c in range(planes):
                    factors = ((image * g.planes + channel + c) * g.rows + first) * g.columns
                    call_address(
                        add,
                        (
                            address_of(sizes), address_of(mine) + (g.lead + c * g.plane) * item,
                            address_of(dout) + factors * item, address_of(totals) + c * g.taps * g.lanes * item,
                            rows, images, g.run * g.plane, g.planes * g.rows * g.columns,
                        ),
                    )  # fmt: skip
        target = address_of(out) + (split * g.planes + channel) * g.taps * item
        call_address(fold, (target, address_of(totals), planes * g.taps))
