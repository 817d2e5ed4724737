"""Winograd's gradient of w: sums over pixels of each tap, channel and filter, by tiles of the input and of dout.

    dw = A^T [ sum over tiles of (G dout G^T) * (B^T x B) ] A          (see `winograd_transforms`)

Tasks are (split of the tiles, piece of the taps, band of channels), see `winograd` for pieces. A task walks its tiles
in blocks: transforms their `band` channels of x and all filters of dout into its slot's scratch, then adds, position by
position, their products with the sweeping register tile (rows over channels, vectors over filters, the depth runs over
tiles). The sums of a task stay in the second-level cache until they are transformed into its own part of `out` (a dw
per split), which may be uninitialised. Operands need no padding, see `winograd_tiles`. Rows and columns of whole tiles
are computed and have room in scratch; what lies beyond the channels or filters is not used.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, call_address
from fastconv._kernels.winograd_tiles import block_tiles, count_blocks, transform_tiles


class WinogradGradient(NamedTuple):
    """Sizes and strides of one launch; strides count numbers, not bytes."""

    images: int
    n_down: int  # of a transformed tile
    n_across: int
    kernel_height: int  # taps of w, and of a piece of them
    kernel_width: int
    taps_down: int
    taps_across: int
    pieces_across: int
    pieces: int
    height: int  # of x
    width: int
    top: int  # zeros before x
    left: int
    channels: int
    filters: int
    out_height: int  # of dout
    out_width: int
    tile_rows: int
    tile_cols: int
    ragged: int  # 1: register tiles reach beyond the channels or filters of a task
    x_window: int  # see `winograd`
    dout_window: int
    band: int  # channels of one task, a multiple of tile_rows
    splits: int
    x_stride: int  # from one tile's channels to the next tile's
    dout_stride: int  # from one tile's filters to the next tile's
    x_position: int  # from one position's tiles to the next position's
    dout_position: int
    sums_position: int
    out_split: int
    out_channel: int
    out_tap: int


@Kernel
def winograd_gradient(
    slot, slots, counters, x_to_tiles, dout_to_tiles, transpose, sweep, adding_sweep, from_positions, x, dout, zeros,
    out, arow, acol, brow, vectors, crow, addresses, scratch, t, g,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    positions = g.n_down * g.n_across
    total = g.images * t.down * t.across * t.rows * t.cols
    bands = (g.channels + g.band - 1) // g.band
    blocks = count_blocks(total, t)
    sources = addresses[slot, : t.block * positions]
    dout_sources = addresses[slot, t.block * positions :]
    x_tiles = scratch[slot, : positions * g.x_position]
    dout_tiles = scratch[slot, x_tiles.size : x_tiles.size + positions * g.dout_position]
    kept = x_tiles.size + dout_tiles.size
    x_pixels = scratch[slot, kept : kept + g.x_window]
    dout_pixels = scratch[slot, kept + g.x_window : kept + g.x_window + g.dout_window]
    sums = scratch[slot, kept + g.x_window + g.dout_window :]
    if g.ragged:  # see `simd.Emitter`
        x_tiles[:] = 0
        dout_tiles[:] = 0
    tasks = bands * g.pieces * g.splits
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        split = task // (bands * g.pieces)
        piece = task // bands % g.pieces
        c = task % bands * g.band
        first_row, first_col = piece // g.pieces_across * g.taps_down, piece % g.pieces_across * g.taps_across
        channels = min(g.band, g.channels - c)
        begin, end = split * blocks // g.splits, (split + 1) * blocks // g.splits
        if begin == end:  # the last images of a batch may make fewer blocks than there are splits
            sums[:] = 0
        for block in range(begin, end):
            first, count = block_tiles(block, total, t)
            transform_tiles(
                x_to_tiles, transpose, address_of(x), item, g.channels, c, channels, x_pixels, zeros, sources,
                address_of(x_tiles), g.x_stride, g.x_position, first, count, g.n_down, g.n_across,
                g.top - first_row * t.down, g.left - first_col * t.across, g.height, g.width, t,
            )  # fmt: skip
            transform_tiles(
                dout_to_tiles, transpose, address_of(dout), item, g.filters, t.none, g.filters, dout_pixels, zeros,
                dout_sources, address_of(dout_tiles), g.dout_stride, g.dout_position, first, count, t.tile_height,
                t.tile_width, t.none, t.none, g.out_height, g.out_width, t,
            )  # fmt: skip
            multiply = adding_sweep if block > begin else sweep
            for position in range(positions):
                for f in range(0, g.filters, g.tile_cols):
                    call_address(
                        multiply,
                        (
                            (channels + g.tile_rows - 1) // g.tile_rows, g.tile_rows, 0, count,
                            address_of(x_tiles) + position * g.x_position * item, address_of(arow), address_of(acol),
                            address_of(dout_tiles) + (position * g.dout_position + f) * item, address_of(brow),
                            address_of(vectors), address_of(sums) + (position * g.sums_position + f) * item,
                            address_of(crow), address_of(vectors), address_of(zeros), 0, 0, 0,
                        ),
                    )  # fmt: skip
        tap = first_row * g.kernel_width + first_col
        call_address(
            from_positions,
            (
                channels,
                g.filters,
                address_of(sums),
                g.dout_stride,
                g.sums_position,
                address_of(out) + (split * g.out_split + c * g.out_channel + tap * g.out_tap) * item,
                g.out_channel,
                g.kernel_width * g.out_tap,
                g.out_tap,
                g.kernel_height - first_row,
                g.kernel_width - first_col,
            ),
        )
