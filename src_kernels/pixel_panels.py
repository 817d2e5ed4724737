"""Convolution as a product of weights and packed pixels, with vectors over pixels (im2col, a few tiles at a time).

    out[f, pixel] = sum over k of  w[f, k] * x[brow[k] + pixel]

Step k of filter f is w[arow[f] + acol[k]]: weights whose steps lie side by side are read in place, others come as
panels of `tile_rows` filters, (panel, depth, tile_rows) (see `weight_panels`). Each task copies the taps of its pixels
into panels of `tile_cols` pixels, (panel, depth block, tile_cols): whole runs of neighbouring pixels, tap after tap. So
the register tile reads both operands from front to back: read in place, planes far apart cost a page look-up per step
and share few lines of the first-level cache (1x1, 256 channels: 0.8 times as fast). A block of `depth_block` steps of a
pixel panel stays in the first-level cache while all weights pass by.

`x` holds zero-padded planes, split by stride (see `prepare.pad_planes`); pixels are numbered through all images, so no
tile is left half empty on small planes. A tile whose pixels lie side by side in `out` is stored there from registers;
any other goes through `scratch` (share * chunk per slot), and from there a piece per output row.

Tasks are (group, chunk of pixels, share of the filters); each writes its own pixels and filters. `out` may be
uninitialised. `pieces` holds, per slot, three tables of the pieces of runs that a chunk's panels are made of, `places`
two tables of its tiles' vectors (see `_aim`). All tiles of a chunk pass by some filters in one sweep (`tile_sweep`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import LINE_BYTES, MACHINE
from fastconv._kernels.jit import compile_callback, helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.register_tile import ADD, RELU, ROW_BIAS
from fastconv._kernels.simd import I64, Emitter, address_of, call_address, integers


class PixelPanels(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    filters: int  # of one group
    rows: int  # output pixels of one image: rows x cols
    cols: int
    pitch: int  # numbers from one padded row to the next
    x_image: int
    x_group: int
    w_group: int
    out_start: int
    out_image: int
    out_group: int
    out_row: int
    out_col: int
    tile_rows: int
    tile_cols: int
    vectors: int  # of a tile
    tiles: int  # panels of pixels of one task, each with room for one step more than depth_block
    share: int  # filters of one task, a multiple of tile_rows
    depth_block: int
    relu: int


@cache
def fill_panels(pitch: int, itemsize: int, ahead: int = 0):
    """Callback (panels, x, brow, steps, sources, targets, lengths, pieces) for panels of `pitch` numbers a step:

    panels[targets[i] + k * pitch + v] = x[brow[k] + sources[i] + v],  k < steps, i < pieces, v < lengths[i] <= pitch

    Numbers are asked for `ahead` steps before they are copied, unless that is 0: rows of x that lie far apart are
    nothing that prefetchers follow. Up to a vector behind a piece is overwritten: pieces come in the order of their
    targets, and a step's room is left free behind the last one. (Masked stores take tens of cycles on AVX2 processors
    of AMD.) Pitches below a vector are moved in the smallest part of one that holds them: 6 numbers in AVX-512's whole
    vectors, most of which pass the end of a cache line, took 7 cycles, 5x5 gradients of w 1.2 times as long.
    """
    PITCH, ITEMSIZE, BITS, AHEAD = pitch, itemsize, MACHINE.vector_bits, ahead

    def fill(panels, x, brow, steps, sources, targets, lengths, pieces):
        _emit_fill(PITCH, ITEMSIZE, BITS, AHEAD, panels, x, brow, steps, sources, targets, lengths, pieces)

    return compile_callback(fill, integers(8))


@intrinsic(prefer_literal=True)
def _emit_fill(typingctx, PITCH, ITEMSIZE, BITS, AHEAD, panels, x, brow, steps, sources, targets, lengths, pieces):
    pitch, itemsize, ahead = (t.literal_value for t in (PITCH, ITEMSIZE, AHEAD))
    lanes = min(1 << (pitch - 1).bit_length(), MACHINE.lanes(itemsize))
    vectors = -(-pitch // lanes)

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize, lanes)
        panels, x, brow, steps, sources, targets, lengths, pieces = args[4:]
        panels, x = simd.pointer(panels), simd.pointer(x)
        brow, *tables = (simd.pointer(table, I64) for table in (brow, sources, targets, lengths))

        def piece(index):
            return [builder.load(simd.at(table, index)) for table in tables]

        def row(step):
            return simd.at(x, builder.load(simd.at(brow, step)))

        def copy(step, source, target, length):
            if ahead:
                later = builder.add(step, I64(ahead))
                later = builder.select(builder.icmp_signed("<", later, steps), later, step)
                for place in range(0, vectors * simd.lanes, LINE_BYTES // itemsize):
                    simd.prefetch(simd.at(simd.at(row(later), source), place))
            source = simd.at(row(step), source)
            target = simd.at(simd.at(panels, builder.mul(step, I64(pitch))), target)
            with builder.if_else(builder.icmp_signed("==", length, I64(pitch))) as (whole, part):
                with whole:
                    for place in range(0, pitch, lanes):
                        mask = None if place + lanes <= pitch else simd.first_lanes(I64(pitch - place))
                        simd.store(simd.load(simd.at(source, place), mask), simd.at(target, place))
                with part:
                    for v in range(vectors):
                        place = v * simd.lanes
                        with builder.if_then(builder.icmp_signed(">", length, I64(place))):
                            mask = simd.lanes_below(builder.sub(length, I64(place)))
                            simd.store(simd.load(simd.at(source, place), mask), simd.at(target, place))

        with builder.if_else(builder.icmp_signed("==", pieces, I64(1))) as (one, many):
            with one:
                only = piece(I64(0))
                with cgutils.for_range(builder, steps) as step:
                    copy(step.index, *only)
            with many, cgutils.for_range(builder, steps) as step, cgutils.for_range(builder, pieces) as each:
                copy(step.index, *piece(each.index))
        return context.get_dummy_value()

    return types.void(
        PITCH, ITEMSIZE, BITS, AHEAD, panels, x, brow, steps, sources, targets, lengths, pieces
    ), codegen  # fmt: skip


@helper
def _cut_into_pieces(pieces, begin, end, g):
    """The pieces of the pixels begin .. end - 1: side by side in x and within one panel. Returns how many there are."""
    plane = g.rows * g.cols
    joined = plane if g.pitch == g.cols else g.cols
    panel = (g.depth_block + 1) * g.tile_cols
    count = 0
    p = begin
    while p < end:
        offset = (p - begin) % g.tile_cols
        length = min(joined - p % joined, g.tile_cols - offset, end - p)
        pieces[0, count] = p // plane * g.x_image + (p // g.cols % g.rows) * g.pitch + p % g.cols
        pieces[1, count] = (p - begin) // g.tile_cols * panel + offset
        pieces[2, count] = length
        count += 1
        p += length
    return count


@helper
def _place(p, g):
    """Where pixel p lies in `out`, from its group's first filter on."""
    return p // (g.rows * g.cols) * g.out_image + (p // g.cols % g.rows) * g.out_row + p % g.cols * g.out_col


@helper
def _aim(tables, begin, end, joined, g):
    """The offsets of the vectors of a chunk's tiles in its panels and in `out`; those that go through scratch follow.

    Returns the numbers of tiles that are stored straight into `out`.
    """
    panels, targets = tables[0], tables[1]
    lanes = g.tile_cols // g.vectors
    entry = 0
    straight = 0
    for scratch in range(2):
        for t in range(begin, end, g.tile_cols):
            if _is_straight(t, end, joined, g) == (scratch == 1):
                continue
            place = t - begin if scratch else _place(t, g)
            for v in range(g.vectors):
                panels[entry] = (t - begin) * (g.depth_block + 1) + v * lanes
                targets[entry] = place + v * lanes
                entry += 1
        if scratch == 0:
            straight = entry // g.vectors
    return straight


@helper
def _is_straight(t, end, joined, g):
    """Whether the tile of the pixels from t on is whole and goes to one place in `out`."""
    return g.out_col == 1 and t + g.tile_cols <= end and t % joined + g.tile_cols <= joined


@helper
def _few_filters(
    tile, k, steps, weights, arow, acol, panel, prow, target, crow, mine, trow, bias, group, first, filter_begin,
    filter_end, begin, end, joined, relu, item, g,
):  # fmt: skip
    """A block of steps for the last filters, fewer than a tile has rows, tile by tile."""
    flags = RELU if relu else 0
    if k > 0:
        flags |= ADD
    elif bias.size > 0:
        flags |= ROW_BIAS
    for t in range(begin, end, g.tile_cols):
        c, c_rows = mine + (t - begin) * item, address_of(trow) + 8 * (first - filter_begin)
        if _is_straight(t, end, joined, g):
            c, c_rows = target + _place(t, g) * item, address_of(crow) + 8 * first
        call_address(
            tile,
            (
                steps, weights, address_of(arow) + 8 * first, address_of(acol) + 8 * k,
                panel + (t - begin) * (g.depth_block + 1) * item, address_of(prow), c, c_rows,
                filter_end - first, min(g.tile_cols, end - t), address_of(bias) + (group * g.filters + first) * item,
                flags,
            ),
        )  # fmt: skip


@Kernel
def pixel_panels(
    slot, slots, counters, sweep, adding_sweep, tile, fill, copy, w, arow, acol, x, brow, prow, bias, zeros, out, crow,
    trow, pieces, places, panels, scratch, g,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    depth = acol.size
    pixels = g.images * g.rows * g.cols
    chunk = g.tiles * g.tile_cols
    chunks = (pixels + chunk - 1) // chunk
    shares = (g.filters + g.share - 1) // g.share
    panel, mine = address_of(panels[slot]), address_of(scratch[slot])
    mine_pieces = pieces[slot]
    sources, targets, lengths = mine_pieces[0], mine_pieces[1], mine_pieces[2]
    joined = g.rows * g.cols if g.out_row == g.cols * g.out_col else g.cols  # pixels evenly spaced in `out`
    tasks = g.groups * chunks * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        group = task // (chunks * shares)
        share = task % shares
        begin = (task // shares % chunks) * chunk
        end = min(begin + chunk, pixels)
        filter_begin = share * g.share
        filter_end = min(filter_begin + g.share, g.filters)
        weights = address_of(w) + group * g.w_group * item
        planes = address_of(x) + group * g.x_group * item
        target = address_of(out) + (g.out_start + group * g.out_group) * item
        count = _cut_into_pieces(mine_pieces, begin, end, g)
        tiles = (end - begin + g.tile_cols - 1) // g.tile_cols
        straight = _aim(places[slot], begin, end, joined, g)
        if (end - begin) % g.tile_cols:
            room = (g.depth_block + 1) * g.tile_cols
            panels[slot, (tiles - 1) * room : tiles * room] = 0  # lanes of no pixel, see `simd.Emitter`
        in_panels, in_out = address_of(places[slot, 0]), address_of(places[slot, 1])
        through_scratch = 8 * straight * g.vectors
        for k in range(0, max(depth, 1), g.depth_block):  # a phase without taps still writes zeros
            steps = min(g.depth_block, depth - k)
            relu = g.relu if k + steps == depth else 0
            call_address(
                fill,
                (
                    panel, planes, address_of(brow) + 8 * k, steps, address_of(sources), address_of(targets),
                    address_of(lengths), count,
                ),
            )  # fmt: skip
            multiply = adding_sweep if k > 0 else sweep
            for f in range(filter_begin, filter_end, g.tile_rows):
                # The last rows may be computed twice, but not added twice.
                first = max(min(f, filter_end - g.tile_rows), filter_begin)
                if filter_end - first < g.tile_rows or (k > 0 and first < f):
                    _few_filters(
                        tile, k, steps, weights, arow, acol, panel, prow, target, crow, mine, trow, bias, group, f,
                        filter_begin, filter_end, begin, end, joined, relu, item, g,
                    )  # fmt: skip
                    continue
                start = address_of(zeros)
                if k == 0 and bias.size > 0:
                    start = address_of(bias) + (group * g.filters + first) * item
                call_address(
                    multiply,
                    (
                        straight, 0, g.vectors, steps, weights, address_of(arow) + 8 * first, address_of(acol) + 8 * k,
                        panel, address_of(prow), in_panels, target, address_of(crow) + 8 * first, in_out, start, relu,
                        0, 0,
                    ),
                )  # fmt: skip
                call_address(
                    multiply,
                    (
                        tiles - straight, 0, g.vectors, steps, weights, address_of(arow) + 8 * first,
                        address_of(acol) + 8 * k, panel, address_of(prow), in_panels + through_scratch, mine,
                        address_of(trow) + 8 * (first - filter_begin), in_out + through_scratch, start, relu, 0, 0,
                    ),
                )  # fmt: skip
        for t in range(begin, end, g.tile_cols):
            if _is_straight(t, end, joined, g):
                continue
            stop = min(t + g.tile_cols, end)
            p = t
            while p < stop:
                length = min(joined - p % joined, stop - p)
                call_address(
                    copy,
                    (
                        target + _place(p, g) * item,
                        address_of(crow) + 8 * filter_begin,
                        mine + (p - begin) * item,
                        address_of(trow),
                        filter_end - filter_begin,
                        length,
                        g.out_col,
                    ),
                )
                p += length
