"""Winograd convolution of stride 1 and any dilation: tiles transformed, multiplied by position, and back.

    out tile = A^T [ sum over c of (G w G^T) * (B^T x B) ] A          (see `winograd_transforms`)

A kernel of more taps than the transforms take is a sum of pieces, each a kernel on a shifted input: their tiles and
weights lie side by side as if they were more channels, `pieces` * channels deep.

Tasks are (block of tiles, share of the panels of filters). Where all tiles make one block, a task may also transform
the weights of its panels, which then never leave the cache. A task transforms its tiles of `x`, all channels, into
`tiles` of its slot's scratch; then, panel by panel, multiplies every position's tiles (rows) by that position's
weights (vectors over filters) with the sweeping register tile, and transforms the sums into pixels while they are in
cache. Sums are whole vectors, and rows of whole register tiles: what lies beyond the tiles or filters is never read.
`x` needs no padding: what lies outside is read from `zeros` (see `winograd_tiles`). Pixels of a tile beyond the output
go to scratch nobody reads.

A channels-last `out` is stored from registers; for a channels-first one, a panel's pixels are collected in scratch
and transposed from there. Tasks write different pixels or filters; `out` may be uninitialised.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, ask_for, call_address
from fastconv._kernels.winograd_tiles import (
    block_tiles,
    count_blocks,
    locate,
    plane_run,
    store_window,
    tile_place,
    transform_tiles,
    window_of,
)
from fastconv._kernels.winograd_weights import BAND, locate_taps, transform_channels


class Winograd(NamedTuple):
    """Sizes and strides of one launch; strides count numbers, not bytes."""

    images: int
    n_down: int  # numbers of a transformed tile: n_down x n_across positions
    n_across: int
    pieces_down: int
    pieces_across: int
    piece_height: int  # rows of x from one piece to the next
    piece_width: int
    height: int  # of x
    width: int
    top: int  # zeros before x
    left: int
    channels: int
    filters: int
    out_height: int
    out_width: int
    out_filter: int  # 1: channels-last
    tile_rows: int
    tile_cols: int
    window: int  # numbers of scratch for transposed pixels; 0: x is channels-last
    share: int  # panels of one task
    depth_block: int
    tile_stride: int  # from one tile's channels to the next tile's
    tiles_stride: int  # from one position's tiles to the next position's
    sums_stride: int  # the same for sums
    w_stride: int  # the same for weights
    w_scratch: int  # numbers of a panel that a task transforms itself; 0: `w` has been transformed
    relu: int


@helper
def _locate_results(table, results, count, t, g):
    """As `locate`, in `results` (tile_height, block, tile_width, tile_cols): pixels of a row lie side by side."""
    pixel, numbers = g.tile_cols * results.itemsize, t.tile_height * t.tile_width
    for a in range(t.tile_height):
        for b in range(t.tile_width):
            table[a * t.tile_width + b] = address_of(results) + (a * t.block * t.tile_width + b) * pixel
    for i in range(numbers, count * numbers):
        table[i] = table[i - numbers] + t.tile_width * pixel


@helper
def _store_transposed(transpose, out, results, first, count, f, width, t, g):
    """results (tile_height, block, tile_width, tile_cols) -> `width` planes of `out`, a run per row of tiles."""
    item = out.itemsize
    done = 0
    while done < count:
        image, row, col = tile_place(first + done, t)
        tiles = min(t.cols - (first + done) % t.cols, count - done)
        length = min(tiles * t.tile_width, (g.out_width - col + t.across - 1) // t.across)
        for a in range(t.tile_height):
            y = row + a * t.down
            if y >= g.out_height:
                break
            place = (image * g.filters + f) * g.out_filter + y * g.out_width + col
            begin = (a * t.block + done) * t.tile_width * g.tile_cols
            if t.across == 1:
                source = address_of(results) + begin * item
                call_address(
                    transpose, (address_of(out) + place * item, g.out_filter, source, g.tile_cols, length, width)
                )
                continue
            for v in range(width):
                for i in range(length):
                    out[place + v * g.out_filter + i * t.across] = results[begin + i * g.tile_cols + v]
        done += tiles


@helper
def _ask_for_results(out, f, behind, row, rows, col, cols, g):
    """Ask for a window of the planes f .. behind - 1."""
    for plane in range(f, behind):
        begin = row
        while begin < row + rows:
            place, run = plane_run(begin, row + rows, col, cols, g.filters, plane, g.out_height, g.out_width)
            ask_for(address_of(out) + place * out.itemsize, run * cols * out.itemsize)
            begin += run


@Kernel
def winograd(
    slot, slots, counters, to_tiles, sweep, adding_sweep, from_tiles, to_positions, copy, transpose, x, w, band_rows,
    w_rows, taps, bias, zeros, out, trow, acol, brow, vectors, srow, addresses, bands, scratch, t, g, wg,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    positions = g.n_down * g.n_across
    depth = g.pieces_down * g.pieces_across * g.channels
    total = g.images * t.down * t.across * t.rows * t.cols
    blocks = count_blocks(total, t)
    panels = (g.filters + g.tile_cols - 1) // g.tile_cols
    shares = (panels + g.share - 1) // g.share
    sources, targets = addresses[slot, : t.block * positions], addresses[slot, t.block * positions :]
    tiles = scratch[slot, : positions * g.tiles_stride]
    sums = scratch[slot, tiles.size : tiles.size + positions * g.sums_stride]
    own_w = scratch[slot, tiles.size + sums.size : tiles.size + sums.size + g.w_scratch]
    pixels = scratch[slot, tiles.size + sums.size + own_w.size : tiles.size + sums.size + own_w.size + g.window]
    results = scratch[slot, tiles.size + sums.size + own_w.size + g.window :]
    w_addresses = addresses[slot, addresses.shape[1] - taps.size :]
    if g.w_scratch:
        locate_taps(w_addresses, taps, bands[slot], wg)
    tasks = blocks * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        share = task % shares
        first, count = block_tiles(task // shares, total, t)
        # The window of results, where planes are undilated.
        row, rows, col, cols = window_of(
            first, count, t.tile_height, t.tile_width, t.none, t.none, g.out_height, g.out_width, t
        )
        if g.out_filter == 1 or g.window:
            start, pixel, pitch, spare = address_of(out), g.filters * item, g.out_width, address_of(results)
            if g.window:
                start, pixel = address_of(results) - (row * cols + col) * g.tile_cols * item, g.tile_cols * item
                pitch = cols
                spare += rows * cols * pixel
            locate(
                targets, start, pixel, pitch, spare, first, count, t.tile_height, t.tile_width, t.none, t.none,
                g.out_height, g.out_width, t,
            )  # fmt: skip
        else:
            _locate_results(targets, results, count, t, g)
        for piece in range(g.pieces_down * g.pieces_across):  # in order: whole vectors reach into the next piece's
            transform_tiles(
                to_tiles, transpose, address_of(x), item, g.channels, t.none, g.channels, pixels, zeros, sources,
                address_of(tiles) + piece * g.channels * item, g.tile_stride, g.tiles_stride, first, count, g.n_down,
                g.n_across, g.top - piece // g.pieces_across * g.piece_height,
                g.left - piece % g.pieces_across * g.piece_width, g.height, g.width, t,
            )  # fmt: skip
        if count < t.block:  # rows that fill up a register tile: see `simd.Emitter`
            filled = (count + g.tile_rows - 1) // g.tile_rows * g.tile_rows
            for position in range(positions):
                begin = position * g.tiles_stride
                tiles[begin + count * g.tile_stride : begin + filled * g.tile_stride] = 0
        for panel in range(share * g.share, min((share + 1) * g.share, panels)):
            f = panel * g.tile_cols
            width = min(g.tile_cols, g.filters - f)
            weights = address_of(w) + panel * positions * g.w_stride * item
            if g.w_scratch:
                weights = address_of(own_w)
                for c in range(0, g.channels, BAND):
                    transform_channels(
                        to_positions, copy, transpose, w, band_rows, w_rows, w_addresses, bands[slot], panel, c,
                        weights, g.w_stride, wg,
                    )  # fmt: skip
            for position in range(positions):
                if g.out_filter != 1 and t.down * t.across == 1:
                    asked, behind = position * width // positions, (position + 1) * width // positions
                    _ask_for_results(out, f + asked, f + behind, row, rows, col, cols, g)
                a = address_of(tiles) + position * g.tiles_stride * item
                b = weights + position * g.w_stride * item
                c = address_of(sums) + position * g.sums_stride * item
                for k in range(0, depth, g.depth_block):
                    call_address(
                        adding_sweep if k > 0 else sweep,
                        (
                            (count + g.tile_rows - 1) // g.tile_rows, g.tile_rows, 0,
                            min(g.depth_block, depth - k), a, address_of(trow), address_of(acol) + 8 * k, b,
                            address_of(brow) + 8 * k, address_of(vectors), c, address_of(srow), address_of(vectors),
                            address_of(zeros), 0, 0, 0,
                        ),
                    )  # fmt: skip
            offset, added = 0, address_of(zeros)
            if g.out_filter == 1:
                offset = f
            if bias.size > 0:
                added = address_of(bias) + f * item
            call_address(
                from_tiles,
                (
                    count,
                    address_of(targets),
                    offset,
                    width,
                    address_of(sums),
                    g.tile_cols,
                    g.sums_stride,
                    added,
                    g.relu,
                ),
            )
            if g.window:
                store_window(
                    transpose, address_of(out), address_of(results), g.tile_cols, item, g.filters, f, width, row, rows,
                    col, cols, g.out_height, g.out_width,
                )  # fmt: skip
            elif g.out_filter != 1:
                _store_transposed(transpose, out, results, first, count, f, width, t, g)
