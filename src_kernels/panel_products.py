"""Matrix products whose second operand is packed into panels on the way: gradients of the weights, linear layers.

    out[m, v] = sum over q of  a[arow[m] + acol[q]] * b[q, v],      q = (n, oh, ow)

For the gradient of the weights q are output pixels. Channels-first, rows are filters, read from `dout` as it lies, and
b are the taps (c, kh, kw) of x: zero-padded planes, split by stride (see `prepare.pad_planes`), where each tap of an
output row is a run of neighbours. Channels-last, rows are the taps (kh, kw, c) of padded x, and b are the filters of
`dout`; or rows are filters of `dout`, and b are the taps of channels-last x, of which those (kw, c) of a kernel row lie
side by side. For a linear layer rows are images, q runs over one image's features, and b are the weights.

Each task takes some tiles of columns and, a block of q at a time, brings the columns of one tile into a panel
(q, tile_cols): runs of planes are transposed, rows of pixels copied, for several panels at once where rows lie far
apart, so that each is read for more than a cache line. The panel stays in the first-level cache while all rows pass
by, in one sweep (see `tile_sweep`; a tile with fewer columns is called for each tile of rows); vectors read in place
lie a pixel's channels apart and share a few lines of that cache (1x1, 512 channels: 0.7 times as fast).

Rows whose numbers lie far apart (channels-last, a tile takes some channels of each pixel) are packed too, into panels
(q, tile_rows): in place, they compete for few lines of the first-level cache.

Tasks are (split of q, group, band of rows, share of the columns); each writes its own part of `out` (splits, ...),
which may be uninitialised. `bias` (columns, or empty) needs one group and one split. Blocks of q are summed from zero
and then added, so long sums keep their accuracy. Scratch per slot: `tables` (4 tables of depth_block entries, 7 if rows
are packed), `panels` (together * depth_block * tile_cols), `packs` (depth_block * band and a vector, or 0).

`arow` and `crow` have room for whole tiles: the last row is repeated. `qrow` and `prow` are the offsets of a block's
steps in the panels of rows and of columns, `packed_rows` those of a band's rows when packed, `vectors` those of a
tile's vectors; `sources`, `targets` and `widths` say what the panels that are filled at once take of a row of pixels,
`widths` for all of them. Tile t's columns begin at `b_columns[t]` of a step of b (planes: of `brow`) and at
`out_columns[t]` of a row of `out`. With `in_place` a tile's columns are read where they lie in pixels, not filled.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.register_tile import ADD, LANE_BIAS, RELU, RUN
from fastconv._kernels.simd import address_of, call_address


class PanelProducts(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    rows: int  # steps of q of one image: rows x cols
    cols: int
    a_image: int
    a_row: int  # from an output pixel to the one below, to the right
    a_col: int
    a_group: int
    b_image: int
    b_row: int
    b_col: int
    b_group: int
    planes: int  # 1: b is planes, transposed by runs; 0: pixels, copied
    out_group: int
    out_split: int
    tile_rows: int
    tile_cols: int
    sums: int  # rows in all
    band: int  # of one task, a multiple of tile_rows
    packed: int  # 1: rows are packed; 0: read in place
    share: int  # tiles of columns of one task
    together: int  # whose panels are filled at once: 1 of planes
    in_place: int  # 1: columns are read where they lie
    filled: int  # 1: b is panels already, (block of q, tile, depth_block, tile_cols); needs one group and one split
    splits: int
    depth_block: int
    add: int  # 1 adds to what `out` holds (an earlier part of the batch)
    relu: int


@helper
def _number_pixels(tables, first, count, g):
    """Tables of the pixels first .. first + count - 1: acol, the place of each in b; for planes, the runs they form.

    Returns the number of runs: their starts and lengths are in the last two tables.
    """
    acol, places, starts, lengths = tables[0], tables[1], tables[2], tables[3]
    whole_planes = g.b_row == g.cols * g.b_col
    image = first // (g.rows * g.cols)
    row = first // g.cols % g.rows
    col = first % g.cols
    runs = 0
    for i in range(count):
        acol[i] = image * g.a_image + row * g.a_row + col * g.a_col
        places[i] = image * g.b_image + row * g.b_row + col * g.b_col
        if g.planes:
            if i == 0 or (col == 0 and (row == 0 or not whole_planes)):
                starts[runs] = i
                runs += 1
            lengths[runs - 1] = i + 1 - starts[runs - 1]
        col += 1
        if col == g.cols:
            col = 0
            row += 1
            if row == g.rows:
                row = 0
                image += 1
    return runs


@helper
def _pack_rows(pack, packed, a, arow, acol, first, end, count, pieces, item, g):
    """Rows first .. end - 1 of a into panels (panel, depth_block, tile_rows), filled to `count` steps."""
    sources, targets, lengths = pieces[0], pieces[1], pieces[2]
    for m in range(first, end, g.tile_rows):
        rows = min(g.tile_rows, end - m)
        runs = 0
        for i in range(rows):
            if i == 0 or arow[m + i] != arow[m + i - 1] + 1:  # another tap
                sources[runs] = arow[m + i] - arow[m]
                targets[runs] = i
                lengths[runs] = 0
                runs += 1
            lengths[runs - 1] += 1
        call_address(
            pack,
            (
                packed + (m - first) * g.depth_block * item, a + arow[m] * item, address_of(acol), count,
                address_of(sources), address_of(targets), address_of(lengths), runs,
            ),
        )  # fmt: skip


@Kernel
def panel_products(
    slot, slots, counters, sweep, adding_sweep, tile, fill, pack, a, arow, packed_rows, b, brow, sources, targets,
    widths, b_columns, out_columns, qrow, prow, vectors, bias, zeros, out, crow, tables, panels, packs, g,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = a.itemsize
    pixels = g.images * g.rows * g.cols
    tiles = widths.size
    shares = (tiles + g.share - 1) // g.share
    part = (pixels + g.splits * RUN - 1) // (g.splits * RUN) * RUN
    panel, packed, mine = address_of(panels[slot]), address_of(packs[slot]), tables[slot]
    acol, places, starts, lengths, row_pieces = mine[0], mine[1], mine[2], mine[3], mine[4:]
    bands = (arow.size + g.band - 1) // g.band
    tasks = g.splits * g.groups * bands * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        share = task % shares
        top = task // shares % bands * g.band
        bottom = min(top + g.band, arow.size)
        group = task // (shares * bands) % g.groups
        split = task // (shares * bands * g.groups)
        begin = split * part
        end = min(begin + part, pixels)
        source_a = address_of(a) + group * g.a_group * item
        source_b = address_of(b) + group * g.b_group * item
        target = address_of(out) + (split * g.out_split + group * g.out_group) * item
        first = begin
        while first < end or first == begin:  # an empty split still writes its zeros
            count = max(min(g.depth_block, end - first), 0)
            runs = _number_pixels(mine, first, count, g)
            flags = 0
            if first > begin or g.add:
                flags |= ADD
            elif bias.size > 0:
                flags |= LANE_BIAS
            if g.relu and first + count == end:
                flags |= RELU
            if g.packed:
                _pack_rows(pack, packed, source_a, arow, acol, top, bottom, count, row_pieces, item, g)
            behind = min((share + 1) * g.share, tiles)
            for t in range(share * g.share, behind):
                v, width = out_columns[t], widths[t]
                before = (t - share * g.share) % g.together  # of those filled at once
                panel_bytes = g.depth_block * g.tile_cols * item
                b_panel = panel + before * panel_bytes
                b_rows = address_of(prow)
                if g.in_place:
                    b_panel, b_rows = source_b + b_columns[t] * item, address_of(places)
                elif g.filled:
                    b_panel = source_b + (first // g.depth_block * tiles + t) * panel_bytes
                elif g.planes:
                    for run in range(runs):
                        to = panel + starts[run] * g.tile_cols * item
                        place = source_b + places[starts[run]] * item
                        rows = address_of(brow) + 8 * b_columns[t]
                        call_address(fill, (to, g.tile_cols, place, rows, width, lengths[run]))
                elif before == 0:
                    call_address(
                        fill,
                        (
                            panel, source_b + b_columns[t] * item, address_of(places), count, address_of(sources),
                            address_of(targets), address_of(widths) + 8 * t, min(g.together, behind - t),
                        ),
                    )  # fmt: skip
                a_tiles, a_rows, a_steps = source_a, address_of(arow) + 8 * top, address_of(acol)
                if g.packed:
                    a_tiles, a_rows, a_steps = packed, address_of(packed_rows), address_of(qrow)
                c, c_rows, offset = target + v * item, address_of(crow) + 8 * top, address_of(bias) + v * item
                if width == g.tile_cols:
                    call_address(
                        adding_sweep if flags & ADD else sweep,
                        (
                            (bottom - top) // g.tile_rows, g.tile_rows, 0, count, a_tiles, a_rows, a_steps, b_panel,
                            b_rows, address_of(vectors), c, c_rows, address_of(vectors),
                            offset if flags & LANE_BIAS else address_of(zeros), flags & RELU, 0, 0,
                        ),
                    )  # fmt: skip
                    continue
                for m in range(0, min(bottom, g.sums) - top, g.tile_rows):
                    call_address(
                        tile,
                        (
                            count, a_tiles, a_rows + 8 * m, a_steps, b_panel, b_rows, c, c_rows + 8 * m,
                            min(g.tile_rows, g.sums - top - m), width, offset, flags,
                        ),
                    )  # fmt: skip
            first += g.depth_block
