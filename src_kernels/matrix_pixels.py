"""Convolution on the matrix unit: 16 pixels by 16 filters at a time.

Tasks are (block of output rows, group, share of the group's panels of filters). A task cuts the rows of x that its
outputs meet into `bfloat_parts`, which stay in the second-level cache, as lines of pixels. Channels-last, a line holds
up to 32 channels of each pixel, so that a tile of pixels is read from end to end. Few channels stay side by side, as a
tile's row takes the taps of a kernel row together. Channels-first, a line holds a pair of channels, and nothing is
transposed. Rows are followed by as many zero pixels as taps reach past either side, so that output pixels lie evenly
spaced through all rows of an image, and a tap is an offset. The few pixels computed beyond the end of a row are not
stored. With strides, rows of one remainder lie together; channels-first, columns as well.

Sums of many steps are made in blocks, whose weights stay in the first-level cache while all pixels pass by. Where the
stride cuts the gradient of x into grids of pixels that meet different taps, a task makes all of them. Tiles that lie
evenly spaced in `out` are stored there from registers; others are collected, and go there run by run.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.bfloat_parts import PART_BYTES
from fastconv._kernels.jit import compile_callback, helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.matrix_tile import SIDE, configure, release
from fastconv._kernels.simd import I64, Emitter, address_of, call_address, integers


class MatrixPixels(NamedTuple):
    """Sizes and strides of one launch; strides count numbers if not bytes."""

    images: int
    groups: int
    block_images: int  # of one task; more than one only if they are whole
    planes: int  # whether x and `out` are channels-first
    merged: int  # whether pixels are numbered through the images of a task
    block_rows: int  # output rows of one task, of each grid
    height: int  # of x
    width: int
    x_image: int
    x_row: int
    x_group: int
    x_step: int  # from one pixel to the next; channels-first, from one channel
    channels: int  # of one group
    parts: int  # that numbers are cut into
    per_line: int  # channels that a line holds; channels-first, lines
    pitch: int  # parts from one pixel of a line to the next
    lines: int
    line: int  # bytes from one line to the next
    part: int  # bytes from one part of x to the next
    stride: int  # of output rows in x, and of columns
    col_stride: int
    rows_met: int  # bit r: whether any tap meets rows of remainder r by the stride; of columns
    cols_met: int
    splits: int  # pieces that a row's columns are kept in: col_stride or 1
    reach: int  # rows of x that the taps of an output row span
    lowest: int  # the first of them, for the first output row
    kept_rows: int  # rows of x that a block keeps of each remainder by the stride
    cols: int  # pixels from one such row to the next
    front: int  # zero pixels before the first
    pixel: int  # bytes from one output pixel's place in a line to the next
    filters: int  # of one group
    out_image: int
    out_group: int
    out_row: int
    out_col: int
    out_filter: int
    right: int  # tiles of filters of a panel
    panel_bytes: int  # of weights
    group_bytes: int
    bias_step: int  # from one filter's bias to the next
    share: int  # panels of one task
    relu: int


class PixelGrid(NamedTuple):
    """Output pixels that meet the same taps, a row of the table `grids`."""

    rows: int
    cols: int
    out_start: int
    blocks: int  # of its steps
    places: int  # its first entry in the tables of places in `out` and of whether a tile's are evenly spaced
    step: int  # from one column's place in `out` to the next


ROWS, COLS, OUT_START, BLOCKS, PLACES, STEP = range(len(PixelGrid._fields))


@cache
def store_pixels(right: int):
    """Callback (c, places, pixels, out, width, relu): rows of 16 * right sums -> out[places[i] + lane], lane < width.

    Rows with a place below 0 are left out.
    """
    RIGHT = right

    def store(c, places, pixels, out, width, relu):
        _emit_store(RIGHT, c, places, pixels, out, width, relu)

    return compile_callback(store, integers(6))


@intrinsic(prefer_literal=True)
def _emit_store(typingctx, RIGHT, c, places, pixels, out, width, relu):
    vectors = RIGHT.literal_value

    def codegen(context, builder, signature, args):
        c, places, pixels, out, width, relu = args[1:]
        simd = Emitter(builder, 4, SIDE)
        c, out, places = simd.pointer(c), simd.pointer(out), simd.pointer(places, I64)
        floor = simd.floor(builder.icmp_signed("!=", relu, I64(0)))
        masks = [simd.first_lanes(builder.sub(width, I64(v * SIDE))) for v in range(vectors)]
        with cgutils.for_range(builder, pixels) as pixel:
            place = builder.load(simd.at(places, pixel.index))
            with builder.if_then(builder.icmp_signed(">=", place, I64(0))):
                source = simd.at(c, builder.mul(pixel.index, I64(SIDE * vectors)))
                target = simd.at(out, place)
                for v, mask in enumerate(masks):
                    value = simd.raised(simd.load(simd.at(source, v * SIDE)), floor)
                    simd.store(value, simd.at(target, v * SIDE), mask)
        return context.get_dummy_value()

    return types.void(RIGHT, c, places, pixels, out, width, relu), codegen


@cache
def store_planes():
    """Callback (c, out, filters, plane, pixels, step, relu): out[f * plane + i * step] = c[f * 16 + i], i < pixels."""

    def store(c, out, filters, plane, pixels, step, relu):
        _emit_store_planes(c, out, filters, plane, pixels, step, relu)

    return compile_callback(store, integers(7))


@intrinsic
def _emit_store_planes(typingctx, c, out, filters, plane, pixels, step, relu):
    def codegen(context, builder, signature, args):
        c, out, filters, plane, pixels, step, relu = args
        simd = Emitter(builder, 4, SIDE)
        c, out = simd.pointer(c), simd.pointer(out)
        floor, mask = simd.floor(builder.icmp_signed("!=", relu, I64(0))), simd.first_lanes(pixels)
        even = ir.Constant(simd.mask, [lane % 2 == 0 for lane in range(SIDE)])
        with cgutils.for_range(builder, filters) as f:
            value = simd.raised(simd.load(simd.at(c, builder.mul(f.index, I64(SIDE))), mask), floor)
            target = simd.at(out, builder.mul(f.index, plane))
            with builder.if_else(builder.icmp_signed("==", step, I64(1))) as (beside, apart):
                with beside:
                    simd.store(value, target, mask)
                with apart, builder.if_else(builder.icmp_signed("==", step, I64(2))) as (every_other, spread):
                    with every_other:  # a scatter takes ten times as long
                        for half in range(2):
                            lanes = [half * SIDE // 2 + lane // 2 for lane in range(SIDE)]
                            reach = builder.sub(builder.shl(pixels, I64(1)), I64(half * SIDE))
                            stored = builder.and_(simd.first_lanes(reach), even)
                            simd.store(simd.shuffle(value, value, lanes), simd.at(target, half * SIDE), stored)
                    with spread:
                        simd.scatter(value, target, step, mask)
        return context.get_dummy_value()

    return types.void(c, out, filters, plane, pixels, step, relu), codegen


@helper
def _clear(kept, first, count, zeroed, g):
    """Zeros of all parts and lines, unless they are."""
    if count > 0 and not zeroed:
        for p in range(g.parts):
            for line in range(g.lines):
                start = (p * g.part + line * g.line) // PART_BYTES + first
                kept[start : start + count] = 0


@helper
def _cut_rows(cut, x, kept, image, images, group, first, rows, zeroed, g):
    """Rows of x that `rows` output rows from `first` on meet -> `kept` (uint16: part, line, image, row, column).

    What lies between rows is zero and stays so; `zeroed`, so does what lies above and below x.
    """
    length, front = g.cols // g.splits * g.pitch, g.front * g.pitch
    apart = g.splits if g.planes else g.pitch
    met = (rows - 1) * g.stride + g.reach
    top = first * g.stride + g.lowest
    together = met if g.cols == g.width and g.stride == g.splits == 1 else 1  # rows that follow each other
    for i in range(images):
        for split in range(g.splits):
            width = (g.width - split + g.splits - 1) // g.splits
            # With strides, the last row of a remainder may meet nothing, but its zeros precede the first of the next.
            for t in range(0, met if g.stride == 1 else g.stride * g.kept_rows, together):
                if not g.rows_met >> (t % g.stride) & g.cols_met >> split & 1:
                    continue
                begin, end = max(top + t, 0), min(top + t + together, top + met, g.height)
                row = ((i * g.splits + split) * g.stride + t % g.stride) * g.kept_rows + t // g.stride
                place = front + row * length
                if begin >= end:
                    _clear(kept, place, together * length, zeroed, g)
                    continue
                above, below = (begin - top - t) * length, (end - top - t) * length
                _clear(kept, place, above, zeroed, g)
                place_x = (image + i) * g.x_image + group * g.x_group + begin * g.x_row + split
                target = address_of(kept) + (place + above) * PART_BYTES
                pixels = (end - begin) * width
                source = address_of(x) + place_x * x.itemsize
                call_address(cut, (target, g.part, g.line, source, pixels, g.channels, g.per_line, g.x_step, apart))
                _clear(kept, place + below, together * length - below, zeroed, g)


@helper
def _store_runs(store, c, places, place, rest, target, filters, step, g):
    """The runs of a tile's pixels whose places in `out` are evenly spaced, `step` apart."""
    i = 0
    while i < rest:
        begin = i
        i += 1
        if places[place + begin] < 0:
            continue
        while i < rest and places[place + i] == places[place + i - 1] + step:
            i += 1
        call_address(
            store,
            (c + begin * 4, target + places[place + begin] * 4, filters, g.out_filter, i - begin, step, g.relu),
        )


@Kernel
def matrix_pixels(
    slot, slots, counters, product, cut, store, config, x, sizes, grids, places, even, weights, bias, out, kept, sums, g
):
    if slot < 0:
        return on_every_slot(slot, slots)
    configure(config)
    across = (g.images + g.block_images - 1) // g.block_images
    blocks = (grids[0, ROWS] + g.block_rows - 1) // g.block_rows
    item, width = x.itemsize, g.right * SIDE
    panels = (g.filters + width - 1) // width
    shares = (panels + g.share - 1) // g.share
    pitch = g.cols // g.col_stride
    image_pixels = g.stride * g.kept_rows * g.cols
    begin, to_places = address_of(kept[slot]) + g.front * g.pitch * PART_BYTES, address_of(places)
    tasks = across * blocks * g.groups * shares
    zeroed = False
    if g.front > 0 or g.cols > g.width:  # something lies between rows
        kept[slot] = 0
        zeroed = blocks == 1  # all tasks keep their rows in the same places
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            break
        share = task % shares
        group = task // shares % g.groups
        first = task // (shares * g.groups) % blocks * g.block_rows
        image = task // (shares * g.groups * blocks) * g.block_images
        images = min(g.block_images, g.images - image)
        rows_made = min(g.block_rows, grids[0, ROWS] - first)
        _cut_rows(cut, x, kept[slot], image, images, group, first, rows_made, zeroed, g)
        first_panel, last_panel = share * g.share, min((share + 1) * g.share, panels)
        for grid in range(len(grids)):
            rows = min(g.block_rows, grids[grid, ROWS] - first)
            if rows <= 0:
                continue
            count = (rows - 1) * pitch + grids[grid, COLS]
            numberings = images
            if g.merged:
                count += (images - 1) * g.kept_rows * pitch
                numberings = 1
            products = (count + SIDE - 1) // SIDE
            step = grids[grid, STEP]
            at = first * g.out_row + group * g.out_group + grids[grid, OUT_START]
            for panel in range(first_panel, last_panel):
                f = panel * width
                tiles = min(g.right, (g.filters - f + SIDE - 1) // SIDE)
                whole = f + tiles * SIDE <= g.filters and g.relu == 0
                w = address_of(weights) + group * g.group_bytes + panel * g.panel_bytes
                start = address_of(bias) + (group * panels * width + f) * g.bias_step * item
                for block in range(grids[grid, BLOCKS]):
                    last = block + 1 == grids[grid, BLOCKS]
                    for i in range(numberings):
                        operand = begin + i * image_pixels * g.pitch * PART_BYTES
                        target = address_of(out) + ((image + i) * g.out_image + at + f * g.out_filter) * item
                        for m in range(products):
                            place = grids[grid, PLACES] + m * SIDE
                            rest = min(SIDE, count - m * SIDE)
                            collected = address_of(sums[slot]) + (i * products + m) * width * SIDE * item
                            c, next_c = collected, 0
                            if last and whole and rest == SIDE and even[place]:
                                c, next_c = target + places[place] * item, target + places[place + SIDE] * item
                            call_address(
                                product,
                                (
                                    address_of(sizes[int(next_c != 0), grid, block]), operand + m * SIDE * g.pixel,
                                    w, start if block == 0 else collected, c, next_c, tiles,
                                ),
                            )  # fmt: skip
                            if not last or next_c != 0:
                                continue
                            if g.planes == 0:
                                call_address(store, (c, to_places + place * 8, rest, target, g.filters - f, g.relu))
                            else:
                                filters = min(width, g.filters - f)
                                _store_runs(store, c, places, place, rest, target, filters, step, g)
    release()
    return None
