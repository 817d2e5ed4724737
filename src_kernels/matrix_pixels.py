"""Convolution on the matrix unit: a tile's rows are pixels, its columns filters.

Tasks are (block of output rows, share of the panels of filters). A task cuts the rows of x that its outputs meet into
`bfloat_parts`, which stay in the second-level cache: planes of up to 32 channels, a cache line for each part of a
pixel, so that a tile is read from end to end. Few channels stay side by side, as a tile's row takes the taps of a
kernel row together. Rows are followed by as many zero pixels as taps reach past either side, so that output pixels lie
evenly spaced through all rows of an image, and a tap is an offset. The few pixels computed beyond the end of a row are
not stored. With strides, rows of one remainder lie together.

Sums of many steps are made in blocks, whose weights stay in the second-level cache while all pixels pass by. Where the
stride cuts the gradient of x into grids of pixels that meet different taps, a task makes all of them. Tiles that lie
evenly spaced in a channels-last `out` are stored there from registers; for a channels-first one, the sums of a panel
are collected and transposed.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

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
    block_images: int  # of one task; more than one only if they are whole
    block_rows: int  # output rows of one task, of each grid
    height: int  # of x
    width: int
    x_image: int
    x_row: int
    x_channel: int
    channels: int
    parts: int  # that numbers are cut into
    depth: int  # of one step: channels of a plane
    pitch: int  # parts from one pixel of a plane to the next
    planes: int
    plane: int  # bytes from one plane to the next
    part: int  # bytes from one part of x to the next
    stride: int  # of output rows in x, and of columns
    col_stride: int
    reach: int  # rows of x that the taps of an output row span
    lowest: int  # the first of them, for the first output row
    kept_rows: int  # rows of x that a block keeps of each remainder by the stride
    cols: int  # pixels from one such row to the next
    front: int  # zero pixels before the first
    filters: int
    out_image: int
    out_row: int
    out_col: int
    out_filter: int  # 1: channels-last
    down: int  # tiles of one product
    right: int
    panel_bytes: int  # of weights
    sums_step: int  # from the sums of one product to those of the next
    share: int  # panels of one task
    chunk: int  # products of a panel, one after the other
    relu: int


class PixelGrid(NamedTuple):
    """Output pixels that meet the same taps, a row of the table `grids`."""

    rows: int
    cols: int
    out_start: int
    blocks: int  # of its steps
    places: int  # its first entry in the table of places in `out`
    even: int  # whether these are evenly spaced
    step: int  # from one column's place in `out` to the next, in columns


ROWS, COLS, OUT_START, BLOCKS, PLACES, EVEN, STEP = range(len(PixelGrid._fields))


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


@helper
def _clear(kept, first, count, g):
    """Zeros of all parts and planes."""
    if count > 0:
        for p in range(g.parts):
            for plane in range(g.planes):
                start = (p * g.part + plane * g.plane) // PART_BYTES + first
                kept[start : start + count] = 0


@helper
def _cut_rows(cut, x, kept, image, images, first, rows, g):
    """Rows of x that `rows` output rows from `first` on meet -> `kept` (uint16: part, plane, image, row, column)."""
    length, front = g.cols * g.pitch, g.front * g.pitch
    _clear(kept, 0, front, g)
    for i in range(images):
        met = (rows - 1) * g.stride + g.reach
        top = first * g.stride + g.lowest
        together = met if g.cols == g.width and g.stride == 1 else 1  # rows that follow each other, here and there
        # With strides, the last row of a remainder may meet nothing, but its zeros precede the first of the next.
        for t in range(0, met if g.stride == 1 else g.stride * g.kept_rows, together):
            begin, end = max(top + t, 0), min(top + t + together, top + met, g.height)
            place = front + ((i * g.stride + t % g.stride) * g.kept_rows + t // g.stride) * length
            filled = 0
            if begin < end:
                above = (begin - top - t) * length
                _clear(kept, place, above, g)
                source = address_of(x) + ((image + i) * g.x_image + begin * g.x_row) * x.itemsize
                target = address_of(kept) + (place + above) * PART_BYTES
                pixels = (end - begin) * g.width
                call_address(cut, (target, g.part, g.plane, source, pixels, g.channels, g.depth, g.x_channel))
                filled = above + pixels * g.pitch
            _clear(kept, place + filled, together * length - filled, g)


@helper
def _store_planes(transpose, out, sums, place, rows, cols, pitch, width, step, g):
    """Rows of sums (rows * pitch, filters of a panel) -> `width` planes of `out`, from `place` on."""
    item, panel = out.itemsize, g.right * SIDE
    if g.relu:
        for i in range(rows * pitch * panel):
            sums[i] = 0 if sums[i] < 0 else sums[i]
    if step == 1:
        if pitch == cols and g.out_row == cols:
            rows, cols = 1, rows * cols
        for row in range(rows):
            source = address_of(sums) + row * pitch * panel * item
            target = address_of(out) + (place + row * g.out_row) * item
            call_address(transpose, (target, g.out_filter, source, panel, cols, width))
        return
    for f in range(width):
        for row in range(rows):
            for col in range(cols):
                value = sums[(row * pitch + col) * panel + f]
                out[place + f * g.out_filter + row * g.out_row + col * step] = value


@Kernel
def matrix_pixels(
    slot, slots, counters, product, cut, store, transpose, config, x, sizes, grids, places, weights, bias, out, kept,
    sums, g,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    configure(config)
    across = (g.images + g.block_images - 1) // g.block_images
    blocks = (grids[0, ROWS] + g.block_rows - 1) // g.block_rows
    item, width, pixels = x.itemsize, g.right * SIDE, g.down * SIDE
    panels = (g.filters + width - 1) // width
    shares = (panels + g.share - 1) // g.share
    pixel_bytes = g.col_stride * g.pitch * PART_BYTES
    image_bytes = g.stride * g.kept_rows * g.cols * g.pitch * PART_BYTES
    begin, to_places = address_of(kept[slot]) + g.front * g.pitch * PART_BYTES, address_of(places)
    tasks = across * blocks * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            break
        share = task % shares
        first = task // shares % blocks * g.block_rows
        image = task // (shares * blocks) * g.block_images
        images = min(g.block_images, g.images - image)
        _cut_rows(cut, x, kept[slot], image, images, first, min(g.block_rows, grids[0, ROWS] - first), g)
        first_panel, last_panel = share * g.share, min((share + 1) * g.share, panels)
        for grid in range(len(grids)):
            rows = min(g.block_rows, grids[grid, ROWS] - first)
            if rows <= 0:
                continue
            pitch = g.cols // g.col_stride
            count = (rows - 1) * pitch + grids[grid, COLS]
            products = (count + pixels - 1) // pixels
            at = first * g.out_row + grids[grid, OUT_START]
            for chunk in range(0, products, g.chunk):
                for panel in range(first_panel, last_panel):
                    f = panel * width
                    b, start = address_of(weights) + panel * g.panel_bytes, address_of(bias) + f * item
                    for block in range(grids[grid, BLOCKS]):
                        last = block + 1 == grids[grid, BLOCKS]
                        for i in range(images):
                            a = begin + i * image_bytes
                            target = address_of(out) + ((image + i) * g.out_image + at + f * g.out_filter) * item
                            for m in range(chunk, min(chunk + g.chunk, products)):
                                place = grids[grid, PLACES] + m * pixels
                                far = grids[grid, EVEN] and f + width <= g.filters and (m + 1) * pixels <= count
                                c = address_of(sums[slot]) + (i * products + m) * g.sums_step * item
                                if far:
                                    c = target + places[place] * item
                                call_address(
                                    product,
                                    (
                                        address_of(sizes[int(far), grid, block]), a + m * pixels * pixel_bytes, b,
                                        start if block == 0 else c, c, int(far),
                                    ),
                                )  # fmt: skip
                                if last and not far and g.out_filter == 1:
                                    rest = min(pixels, count - m * pixels)
                                    call_address(store, (c, to_places + place * 8, rest, target, g.filters - f, g.relu))
                    if g.out_filter != 1:
                        for i in range(images):
                            _store_planes(
                                transpose, out, sums[slot, i * products * g.sums_step :],
                                (image + i) * g.out_image + at + f * g.out_filter, rows, grids[grid, COLS], pitch,
                                min(width, g.filters - f), grids[grid, STEP], g,
                            )  # fmt: skip
    release()
    return None
