"""Tiles of Winograd's algorithm: where they lie in images, and their way from an operand into scratch.

Tiles are numbered through all images, row by row; a dilated convolution is one undilated convolution per phase of rows
and columns, which follow each other.

A channels-last operand is read in place. Of a channels-first one (undilated), a vector's width of planes at a time is
transposed: the window of pixels that a block of tiles meets goes into scratch, where it stays in cache.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.simd import address_of, call_address


class Tiling(NamedTuple):
    """How outputs make tiles, and tiles make blocks."""

    tile_height: int  # outputs of a tile
    tile_width: int
    down: int  # dilation: a tile's rows and columns lie this far apart
    across: int
    rows: int  # tiles of one image and phase of the dilation: rows x cols
    cols: int
    block: int  # tiles that are transformed together
    line: int  # blocks end where lines of so many tiles do
    lanes: int  # channels of a transposed pixel
    none: int = 0  # for zeros before an image: Numba would compile a helper anew for a constant


@helper
def tile_place(tile, t):
    """Image, first row and first column of an output tile; neighbours in a tile lie `down` and `across` apart."""
    image = tile // (t.down * t.across * t.rows * t.cols)
    phase = tile // (t.rows * t.cols) % (t.down * t.across)
    row = tile // t.cols % t.rows * t.tile_height * t.down + phase // t.across
    col = tile % t.cols * t.tile_width * t.across + phase % t.across
    return image, row, col


@helper
def count_blocks(total, t):
    """How many blocks make `total` tiles. Blocks of `block` tiles end where lines of `line` tiles do."""
    return total // t.line * ((t.line + t.block - 1) // t.block) + (total % t.line + t.block - 1) // t.block


@helper
def block_tiles(block, total, t):
    """First tile and number of tiles of a block."""
    blocks = (t.line + t.block - 1) // t.block
    first = block // blocks * t.line + block % blocks * t.block
    return first, min(t.block, t.line - block % blocks * t.block, total - first)


@helper
def locate(table, start, pixel, pitch, outside, first, count, rows, cols, top, left, height, width, t):
    """table[tile, row, col] = address of that number of tile `first` + tile, or `outside`, for rows x cols numbers.

    Images of height x width pixels, with `top` and `left` zeros before them, begin at `start` and follow each other;
    pixels lie `pixel` bytes apart, rows `pitch` pixels. Tiles inside their images differ by where they begin: their
    addresses are those of the last one, moved.
    """
    numbers = rows * cols
    image, row, col = tile_place(first, t)
    tile_row, tile_col = row // (t.tile_height * t.down), col // (t.tile_width * t.across)
    row_phase, col_phase = row % t.down, col % t.across
    known, known_start = -1, 0
    for entry in range(0, count * numbers, numbers):
        y = tile_row * t.tile_height * t.down + row_phase - top
        x = tile_col * t.tile_width * t.across + col_phase - left
        tile_start = start + ((image * height + y) * pitch + x) * pixel
        inside = y >= 0 and y + (rows - 1) * t.down < height and x >= 0 and x + (cols - 1) * t.across < width
        if inside and known >= 0:
            moved = tile_start - known_start
            here, there = table[entry : entry + numbers], table[known : known + numbers]
            for i in range(numbers):
                here[i] = there[i] + moved
        else:
            i = entry
            for a in range(0, rows * t.down, t.down):
                for b in range(0, cols * t.across, t.across):
                    within = y + a >= 0 and y + a < height and x + b >= 0 and x + b < width
                    table[i] = tile_start + (a * pitch + b) * pixel if within else outside
                    i += 1
        if inside:
            known, known_start = entry, tile_start
        tile_col += 1
        if tile_col == t.cols:
            tile_col, tile_row = 0, tile_row + 1
            if tile_row == t.rows:
                tile_row, col_phase = 0, col_phase + 1
                if col_phase == t.across:
                    col_phase, row_phase = 0, row_phase + 1
                    if row_phase == t.down:
                        row_phase, image = 0, image + 1


@helper
def window_of(first, count, rows, cols, top, left, height, width, t):
    """What tiles of rows x cols numbers meet: first row (of all images), rows, first column, columns.

    The tiles are undilated; of one row of tiles, or of whole rows.
    """
    image, row, col = tile_place(first, t)
    last_image, last_row, last_col = tile_place(first + count - 1, t)
    begin = image * height + min(max(row - top, 0), height - 1)
    end = last_image * height + min(max(last_row - top + rows, 1), height)
    if image != last_image or row != last_row:
        return begin, end - begin, 0, width
    first_col = min(max(col - left, 0), width - 1)
    return begin, end - begin, first_col, min(max(last_col - left + cols, first_col + 1), width) - first_col


@helper
def plane_run(row, end, col, cols, total, c, height, width):
    """Where a window from `row` on begins in plane c of `total`, and how many of its rows lie side by side there."""
    image = row // height
    behind = min(end, (image + 1) * height) if cols == width else row + 1
    return ((image * total + c) * height + row - image * height) * width + col, behind - row


@helper
def _transpose_window(transpose, pixels, lanes, planes, item, total, c, channels, row, rows, col, cols, height, width):
    """`channels` (up to `lanes`) planes, from c on of each image's `total`, -> pixels (rows, cols, lanes)."""
    end = row + rows
    while row < end:
        place, run = plane_run(row, end, col, cols, total, c, height, width)
        call_address(transpose, (pixels, lanes, planes + place * item, height * width, channels, run * cols))
        pixels += run * cols * lanes * item
        row += run


@helper
def store_window(transpose, planes, pixels, pixel, item, total, c, channels, row, rows, col, cols, height, width):
    """The way back: pixels (rows, cols) of `pixel` numbers -> `channels` planes of a window."""
    end = row + rows
    while row < end:
        place, run = plane_run(row, end, col, cols, total, c, height, width)
        call_address(transpose, (planes + place * item, height * width, pixels, pixel, run * cols, channels))
        pixels += run * cols * pixel * item
        row += run


@helper
def transform_tiles(
    to_tiles, transpose, operand, item, total, c, channels, pixels, zeros, table, tiles, tile_stride,
    position_stride, first, count, rows, cols, top, left, height, width, t,
):  # fmt: skip
    """Transform `channels` channels, from c on of `total`, of tiles of rows x cols numbers; see `input_transform`.

    `operand` and `tiles` are addresses, `pixels` is scratch for a window: empty if the operand is channels-last.
    """
    row, window_rows, col, window_cols, step = 0, 0, 0, width, channels
    start, pixel = operand + c * item, total * item
    if pixels.size > 0:
        row, window_rows, col, window_cols = window_of(first, count, rows, cols, top, left, height, width, t)
        start, pixel, step = address_of(pixels) - (row * window_cols + col) * t.lanes * item, t.lanes * item, t.lanes
    locate(table, start, pixel, window_cols, address_of(zeros), first, count, rows, cols, top, left, height, width, t)
    for k in range(0, channels, step):
        some = min(step, channels - k)
        if pixels.size > 0:
            _transpose_window(
                transpose, address_of(pixels), t.lanes, operand, item, total, c + k, some, row, window_rows, col,
                window_cols, height, width,
            )  # fmt: skip
        call_address(to_tiles, (count, address_of(table), some, tiles + k * item, tile_stride, position_stride))
