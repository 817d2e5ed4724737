"""Convolution with vectors over filters: rows of the register tile are output pixels.

    out[pixel, f] = sum over k of  x[arow[pixel] + acol[k]] * w[brow[k] + f]

`x` is the input in either layout: `arow` is where a pixel's window starts, `acol[k]` where tap k lies in the window,
so stride, dilation and layout are only other offsets. The gradient of x is the same sum over `dout`, once per stride
phase.

Output pixels come in `parts`, grids whose pixels meet the same taps: of each stride phase, and, if `x` is pixels,
those near a border, where taps outside the image are left out. A part's sum is made of segments of steps. Each
part's pixels are numbered through all images, so tiles are filled on small planes too; a tile belongs to one part.

Weights come as panels of `tile_cols` filters (see `weight_panels`), which the L2 cache holds while all pixels of a task
pass by: the tiles of a part in one sweep (see `tile_sweep`), or one by one where a panel has fewer filters. Where one
task sees all pixels, it may pack them itself (`own_panels`), and they never leave the cache. With `runs`, each task
first copies its windows into a patch matrix (im2col) and reads that.

A channels-last `out` is stored from registers; for a channels-first one, a task's results of one panel are collected
in `results` and transposed from there, while they are in cache.

Tasks are (group, chunk of tiles, share of the panels); each writes its own pixels and filters. `out` may be
uninitialised. Scratch per slot, for the pixels of a chunk: `tables`, `patches` (pixels * patch, or 0), `results`
(pixels * tile_cols, or 0); and `panel_room` (w_panel, or 0). `result_rows` holds the offsets of a chunk's rows there,
`vectors` those of a tile's vectors.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.isa import LINE_BYTES
from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.register_tile import ADD, LANE_BIAS, RELU
from fastconv._kernels.simd import address_of, call_address
from fastconv._kernels.weight_panels import pack_rows


class OverFilters(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    groups: int
    filters: int  # of one group
    x_image: int
    x_row: int  # from an output pixel's window to the one below, to the right
    x_col: int
    x_group: int
    w_panel: int
    out_image: int
    out_row: int
    out_col: int
    out_filter: int  # 1: channels-last
    tile_rows: int
    tile_cols: int
    tiles: int  # of all parts
    chunk: int  # tiles of one task
    share: int  # panels of one task
    own_panels: int  # 1: tasks pack the panels that they use
    patch: int  # numbers of one window's copy; 0 reads x in place
    run_length: int  # numbers that lie side by side in a window
    even: int  # 1: one part, whose pixels lie evenly spaced in x and in `out`, through all images
    ahead: int  # 1: windows follow each other in x, and while tasks multiply they ask for those of the next task
    relu: int


class Part(NamedTuple):
    """A grid of output pixels that meet the same taps, a row of the table `parts`."""

    first: int  # of its tiles
    pixels: int  # of all images
    rows: int  # pixels of one image: rows x cols
    cols: int
    x_start: int
    out_start: int
    segment: int  # its segments (first step, steps) of the depth: from `segment` to before `segments_end`
    segments_end: int
    run: int  # the runs of its windows
    runs_end: int


FIRST, PIXELS, ROWS, COLS, X_START, OUT_START, SEGMENT, SEGMENTS_END, RUN, RUNS_END = range(len(Part._fields))
TABLES = 5  # of a slot: see `_locate`


@helper
def _locate(tables, parts, first, tiles, group, g):
    """Fill a slot's tables of the tiles first .. first + tiles - 1: the part of each tile, and for each of its pixels

    the offsets of its window in x, of its results in `out`, of its patch, and, for a channels-first `out`, the
    number of pixels from it on whose results are evenly spaced. Tiles are filled up with their last pixel, whose
    results are stored there again, or with -1 if they are transposed. Returns the most segments of a part.
    """
    part_of, arow, crow, prow, lengths = tables[0], tables[1], tables[2], tables[3], tables[4]
    out_group = group * g.filters * g.out_filter
    part = 0
    most = 0
    for t in range(tiles):
        while part + 1 < len(parts) and parts[part + 1, FIRST] <= first + t:
            part += 1
        part_of[t] = part
        most = max(most, parts[part, SEGMENTS_END] - parts[part, SEGMENT])
        rows, cols = parts[part, ROWS], parts[part, COLS]
        pixel = (first + t - parts[part, FIRST]) * g.tile_rows
        image = pixel // (rows * cols)
        row = pixel // cols % rows
        col = pixel % cols
        x_start = parts[part, X_START] + group * g.x_group
        out_start = parts[part, OUT_START] + out_group
        for i in range(t * g.tile_rows, (t + 1) * g.tile_rows):
            prow[i] = i * g.patch
            if pixel >= parts[part, PIXELS]:
                arow[i] = arow[i - 1]
                crow[i] = crow[i - 1] if g.out_filter == 1 else -1
                continue
            arow[i] = image * g.x_image + row * g.x_row + col * g.x_col + x_start
            crow[i] = image * g.out_image + row * g.out_row + col * g.out_col + out_start
            pixel += 1
            col += 1
            if col == cols:
                col = 0
                row += 1
                if row == rows:
                    row = 0
                    image += 1
    if g.out_filter == 1:
        return most
    length = 0
    behind = -1
    for i in range(tiles * g.tile_rows - 1, -1, -1):
        length = length + 1 if crow[i] + g.out_col == behind and crow[i] >= 0 else 1
        lengths[i] = length
        behind = crow[i]
    return most


@helper
def _space_evenly(tables, g):
    """Fill a slot's tables for a chunk of pixels that lie evenly spaced, as offsets from the first of them.

    They serve all chunks: tables of each took 0.05 to 0.15 of the time of 1x1 layers of 16 to 64 channels.
    """
    tables[0] = 0
    for i in range(tables.shape[1]):
        tables[1, i] = i * g.x_col
        tables[2, i] = i * g.out_col


@helper
def _last_of_window(tile, parts, acol, g):
    """Where in x the window of a tile's first pixel ends, if there is one part and one group."""
    pixel, rows, cols = tile * g.tile_rows, parts[0, ROWS], parts[0, COLS]
    place = pixel // (rows * cols) * g.x_image + pixel // cols % rows * g.x_row + pixel % cols * g.x_col
    return place + parts[0, X_START] + acol[acol.size - 1]


@helper
def _store_transposed(transpose, out, tables, results, tiles, f, width, g):
    """results (pixels, tile_cols) -> `width` rows of filters in `out`, a piece per run of neighbouring pixels."""
    item = out.itemsize
    crow, lengths = tables[2], tables[4]
    done = 0
    while done < tiles * g.tile_rows:
        length = lengths[done]
        if crow[done] >= 0:
            place = crow[done] + f * g.out_filter
            if g.out_col == 1:
                source = address_of(results) + done * g.tile_cols * item
                call_address(
                    transpose, (address_of(out) + place * item, g.out_filter, source, g.tile_cols, length, width)
                )
            else:
                for v in range(width):
                    for i in range(length):
                        out[place + v * g.out_filter + i * g.out_col] = results[(done + i) * g.tile_cols + v]
        done += length


@Kernel
def over_filters(
    slot, slots, counters, sweep, adding_sweep, tile, copy, transpose, pack, x, acol, runs, parts, segments, w, drow,
    srow, brow, vectors, bias, zeros, out, result_rows, tables, patches, results, panel_room, g, packing,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    chunks = (g.tiles + g.chunk - 1) // g.chunk
    panels = (g.filters + g.tile_cols - 1) // g.tile_cols
    shares = (panels + g.share - 1) // g.share
    mine = tables[slot]
    spaced = False
    part_of, arow, crow, prow = mine[0], address_of(mine[1]), address_of(mine[2]), address_of(mine[3])
    tasks = g.groups * chunks * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        group = task // (chunks * shares)
        share = task // chunks % shares
        first = (task % chunks) * g.chunk
        tiles = min(g.chunk, g.tiles - first)
        a, a_rows, c_begin = address_of(x), arow, address_of(out)
        if g.even and (first + tiles) * g.tile_rows <= parts[0, PIXELS]:
            if not spaced:
                _space_evenly(mine, g)
            spaced, most, pixel = True, parts[0, SEGMENTS_END] - parts[0, SEGMENT], first * g.tile_rows
            a += (pixel * g.x_col + parts[0, X_START] + group * g.x_group) * item
            c_begin += (pixel * g.out_col + parts[0, OUT_START] + group * g.filters) * item
        else:
            spaced = False
            most = _locate(mine, parts, first, tiles, group, g)
        if g.patch:
            a, a_rows = address_of(patches[slot]), prow
            for t in range(tiles):
                begin, end = parts[part_of[t], RUN], parts[part_of[t], RUNS_END]
                for r in range(begin, end):
                    target = a + (r - begin) * g.run_length * item
                    source = address_of(x) + runs[r] * item
                    places = 8 * t * g.tile_rows
                    call_address(copy, (target, prow + places, source, arow + places, g.tile_rows, g.run_length, 1))

        soon, lines = 0, 0
        if g.ahead and chunks > 1:
            soon = address_of(x) + _last_of_window((task + 1) % chunks * g.chunk, parts, acol, g) * item
            bytes_of_sweeps = tiles * most * (min((share + 1) * g.share, panels) - share * g.share) * LINE_BYTES
            lines = (tiles * g.tile_rows * g.x_col * item + bytes_of_sweeps - 1) // bytes_of_sweeps
        for panel in range(share * g.share, min((share + 1) * g.share, panels)):
            f = panel * g.tile_cols
            width = min(g.tile_cols, g.filters - f)
            b = address_of(w) + (group * panels + panel) * g.w_panel * item
            if g.own_panels:
                b = address_of(panel_room[slot])
                for batch in range(packing.batches):
                    pack_rows(pack, w, drow, srow, group, panel, batch, b, g.tile_cols, packing)
            bias_of_panel = address_of(bias) + (group * g.filters + f) * item
            for s in range(most):
                end = 0
                while end < tiles:  # the tiles of one part
                    begin, part = end, part_of[end]
                    end = min(parts[part + 1, FIRST] - first, tiles) if part + 1 < len(parts) else tiles
                    segment = parts[part, SEGMENT] + s
                    if segment >= parts[part, SEGMENTS_END]:
                        continue
                    k, steps = segments[segment, 0], segments[segment, 1]
                    relu = g.relu if segment + 1 == parts[part, SEGMENTS_END] else 0
                    i = begin * g.tile_rows
                    c, c_rows = c_begin + f * item, crow + 8 * i
                    if g.out_filter != 1:
                        c, c_rows = address_of(results[slot]) + i * g.tile_cols * item, address_of(result_rows)
                    if width == g.tile_cols:
                        start = bias_of_panel if s == 0 and bias.size > 0 else address_of(zeros)
                        call_address(
                            adding_sweep if s > 0 else sweep,
                            (
                                end - begin, g.tile_rows, 0, steps, a, a_rows + 8 * i, address_of(acol) + 8 * k, b,
                                address_of(brow) + 8 * k, address_of(vectors), c, c_rows, address_of(vectors), start,
                                relu, soon, lines,
                            ),
                        )  # fmt: skip
                        soon += (end - begin) * lines * LINE_BYTES
                        continue
                    flags = RELU if relu else 0
                    if s > 0:
                        flags |= ADD
                    elif bias.size > 0:
                        flags |= LANE_BIAS
                    left = parts[part, PIXELS] - (first + begin - parts[part, FIRST]) * g.tile_rows
                    for t in range(end - begin):
                        rows = 8 * t * g.tile_rows
                        call_address(
                            tile,
                            (
                                steps, a, a_rows + 8 * i + rows, address_of(acol) + 8 * k, b, address_of(brow) + 8 * k,
                                c, c_rows + rows, min(g.tile_rows, left - t * g.tile_rows), width, bias_of_panel,
                                flags,
                            ),
                        )  # fmt: skip
            if g.out_filter != 1:
                _store_transposed(transpose, out, mine, results[slot], tiles, f, width, g)
