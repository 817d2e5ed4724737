"""Winograd convolution of 3x3 kernels, stride 1, any dilation: tiles transformed, multiplied by position, and back.

    out tile = A^T [ sum over c of (G w G^T) * (B^T x B) ] A          (see `winograd_transforms`)

Tasks are (block of tiles, share of the panels of filters). Where all tiles make one block, a task may also transform
the weights of its panels, which then never leave the cache. A task transforms its tiles of `x`, all channels, into
`tiles` of its slot's scratch; then, panel by panel, multiplies every position's tiles (rows) by that position's
weights (vectors over filters) with the sweeping register tile, and transforms the sums into pixels while they are in
cache. Sums are whole vectors, and rows of whole register tiles: what lies beyond the tiles or filters is never read.
Tiles are numbered through all images. `x` is channels-last and needs no padding: what lies outside is read from
`zeros`. Pixels of a tile beyond the output go to scratch nobody reads.

A channels-last `out` is stored from registers; for a channels-first one, a panel's pixels are collected in scratch
and transposed from there. Tasks write different pixels or filters; `out` may be uninitialised.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, ask_for, call_address
from fastconv._kernels.winograd_transforms import TAPS
from fastconv._kernels.winograd_weights import BAND, locate_taps, transform_channels


class Winograd(NamedTuple):
    """Sizes and strides of one launch; strides count numbers, not bytes."""

    images: int
    m: int  # pixels of a tile: m x m
    down: int  # dilation: a tile's rows and columns lie this far apart
    across: int
    rows: int  # tiles of one image and phase of the dilation: rows x cols
    cols: int
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
    block: int  # tiles of one task
    share: int  # panels of one task
    depth_block: int
    tile_stride: int  # from one tile's channels to the next tile's
    tiles_stride: int  # from one position's tiles to the next position's
    sums_stride: int  # the same for sums
    w_stride: int  # the same for weights
    w_scratch: int  # numbers of a panel that a task transforms itself; 0: `w` has been transformed
    relu: int


@helper
def tile_place(tile, g):
    """Image, first row and first column of an output tile; neighbours in a tile lie `down` and `across` apart.

    A dilated convolution is one undilated convolution per phase of rows and columns.
    """
    image = tile // (g.down * g.across * g.rows * g.cols)
    phase = tile // (g.rows * g.cols) % (g.down * g.across)
    row = tile // g.cols % g.rows * g.m * g.down + phase // g.across
    col = tile % g.cols * g.m * g.across + phase % g.across
    return image, row, col


@helper
def locate(table, start, outside, item, first, count, size, top, left, height, width, channels, g):
    """table[tile, row, col] = address of that number of tile `first` + tile, or `outside`, for size x size numbers.

    The tiles lie in images of height x width pixels at address `start`, with `top` and `left` zeros before them.
    """
    t = 0
    for i in range(first, first + count):
        image, row, col = tile_place(i, g)
        for a in range(size):
            y = row - top + a * g.down
            line = start + (image * height + y) * width * channels * item
            for b in range(size):
                x = col - left + b * g.across
                inside = y >= 0 and y < height and x >= 0 and x < width
                table[t] = line + x * channels * item if inside else outside
                t += 1


@helper
def _locate_results(table, results, count, g):
    """The same for `results` (m, block, m, tile_cols): neighbouring tiles give neighbouring pixels of a row."""
    t = 0
    for i in range(count):
        for a in range(g.m):
            for b in range(g.m):
                table[t] = address_of(results) + ((a * g.block + i) * g.m + b) * g.tile_cols * results.itemsize
                t += 1


@helper
def _store_transposed(transpose, out, results, first, count, f, width, g):
    """results (m, block, m, tile_cols) -> `width` planes of `out`, a piece per row of tiles."""
    item = out.itemsize
    done = 0
    while done < count:
        image, row, col = tile_place(first + done, g)
        tiles = min(g.cols - (first + done) % g.cols, count - done)
        length = min(tiles * g.m, (g.out_width - col + g.across - 1) // g.across)
        for a in range(g.m):
            y = row + a * g.down
            if y >= g.out_height:
                break
            place = (image * g.filters + f) * g.out_filter + y * g.out_width + col
            begin = (a * g.block + done) * g.m * g.tile_cols
            if g.across == 1:
                source = address_of(results) + begin * item
                call_address(
                    transpose, (address_of(out) + place * item, g.out_filter, source, g.tile_cols, length, width)
                )
                continue
            for v in range(width):
                for i in range(length):
                    out[place + v * g.out_filter + i * g.across] = results[begin + i * g.tile_cols + v]
        done += tiles


@helper
def _ask_for_results(out, first, count, f, behind, g):
    """Ask for what tiles will fill of the planes f .. behind - 1 of the first one's image, without dilation."""
    image, row, col = tile_place(first, g)
    last_image, last_row, _ = tile_place(first + count - 1, g)
    begin = row * g.out_width + col
    rows = min(last_row + g.m, g.out_height) if last_image == image else g.out_height
    for plane in range(f, behind):
        place = (image * g.filters + plane) * g.out_filter + begin
        ask_for(address_of(out) + place * out.itemsize, (rows * g.out_width - begin) * out.itemsize)


@Kernel
def winograd(
    slot, slots, counters, to_tiles, sweep, adding_sweep, from_tiles, to_positions, copy, transpose, x, w, band_rows,
    w_rows, taps, bias, zeros, out, trow, acol, brow, vectors, srow, addresses, bands, scratch, g, wg,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    positions = (g.m + TAPS - 1) ** 2
    total = g.images * g.down * g.across * g.rows * g.cols
    blocks = (total + g.block - 1) // g.block
    panels = (g.filters + g.tile_cols - 1) // g.tile_cols
    shares = (panels + g.share - 1) // g.share
    sources, targets = addresses[slot, : g.block * positions], addresses[slot, g.block * positions :]
    tiles = scratch[slot, : positions * g.tiles_stride]
    sums = scratch[slot, tiles.size : tiles.size + positions * g.sums_stride]
    own_w = scratch[slot, tiles.size + sums.size : tiles.size + sums.size + g.w_scratch]
    results = scratch[slot, tiles.size + sums.size + own_w.size :]
    w_addresses = addresses[slot, addresses.shape[1] - taps.size :]
    locate_taps(w_addresses, taps, bands[slot])
    tasks = blocks * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        share = task % shares
        first = task // shares * g.block
        count = min(g.block, total - first)
        n = g.m + TAPS - 1
        locate(
            sources, address_of(x), address_of(zeros), item, first, count, n, g.top, g.left, g.height, g.width,
            g.channels, g,
        )  # fmt: skip
        if g.out_filter == 1:
            spare = address_of(results)  # which channels-last outputs do not need
            locate(
                targets, address_of(out), spare, item, first, count, g.m, 0, 0, g.out_height, g.out_width, g.filters,
                g,
            )  # fmt: skip
        else:
            _locate_results(targets, results, count, g)
        call_address(
            to_tiles,
            (count, address_of(sources), g.channels, address_of(tiles), g.tile_stride, g.tiles_stride),
        )
        for panel in range(share * g.share, min((share + 1) * g.share, panels)):
            f = panel * g.tile_cols
            width = min(g.tile_cols, g.filters - f)
            weights = address_of(w) + panel * positions * g.w_stride * item
            if g.w_scratch:
                weights = address_of(own_w)
                for c in range(0, g.channels, BAND):
                    transform_channels(
                        to_positions, copy, transpose, w, band_rows, w_rows, w_addresses, bands[slot], panel, c,
                        weights, g.w_stride, g.tile_cols, wg,
                    )  # fmt: skip
            for position in range(positions):
                if g.out_filter != 1 and g.down * g.across == 1:
                    _ask_for_results(
                        out, first, count, f + position * width // positions, f + (position + 1) * width // positions, g
                    )
                a = address_of(tiles) + position * g.tiles_stride * item
                b = weights + position * g.w_stride * item
                c = address_of(sums) + position * g.sums_stride * item
                for k in range(0, g.channels, g.depth_block):
                    call_address(
                        adding_sweep if k > 0 else sweep,
                        (
                            (count + g.tile_rows - 1) // g.tile_rows, g.tile_rows, 0,
                            min(g.depth_block, g.channels - k), a, address_of(trow), address_of(acol) + 8 * k, b,
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
            if g.out_filter != 1:
                _store_transposed(transpose, out, results, first, count, f, width, g)
