"""Tiles of Winograd's algorithm: where they lie in images, and their way from an operand into scratch.

Tiles are numbered through all images, row by row; a dilated convolution is one undilated convolution per phase of rows
and columns, which follow each other. `g` is the geometry of a launch, `winograd.Winograd` or its gradient's.

A channels-last operand is read in place. Of a channels-first one (undilated), a vector's width of planes at a time is
transposed: the window of pixels that a block of tiles meets goes into scratch, where it stays in cache.
"""

from __future__ import annotations

from fastconv._kernels.jit import helper
from fastconv._kernels.simd import address_of, call_address


@helper
def tile_place(tile, g):
    """Image, first row and first column of an output tile; neighbours in a tile lie `down` and `across` apart."""
    image = tile // (g.down * g.across * g.rows * g.cols)
    phase = tile // (g.rows * g.cols) % (g.down * g.across)
    row = tile // g.cols % g.rows * g.tile_height * g.down + phase // g.across
    col = tile % g.cols * g.tile_width * g.across + phase % g.across
    return image, row, col


@helper
def count_blocks(total, g):
    """How many blocks make `total` tiles. Blocks of `block` tiles end where lines of `line` tiles do."""
    return total // g.line * ((g.line + g.block - 1) // g.block) + (total % g.line + g.block - 1) // g.block


@helper
def block_tiles(block, total, g):
    """First tile and number of tiles of a block."""
    blocks = (g.line + g.block - 1) // g.block
    first = block // blocks * g.line + block % blocks * g.block
    return first, min(g.block, g.line - block % blocks * g.block, total - first)


@helper
def locate(table, start, pixel, pitch, outside, first, count, rows, cols, top, left, height, width, g):
    """table[tile, row, col] = address of that number of tile `first` + tile, or `outside`, for rows x cols numbers.

    Images of height x width pixels, with `top` and `left` zeros before them, begin at `start` and follow each other;
    pixels lie `pixel` bytes apart, rows `pitch` pixels. Tiles inside their images differ by where they begin: their
    addresses are those of the last one, moved.
    """
    numbers = rows * cols
    image, row, col = tile_place(first, g)
    tile_row, tile_col = row // (g.tile_height * g.down), col // (g.tile_width * g.across)
    row_phase, col_phase = row % g.down, col % g.across
    known, known_start = -1, 0
    for t in range(0, count * numbers, numbers):
        y = tile_row * g.tile_height * g.down + row_phase - top
        x = tile_col * g.tile_width * g.across + col_phase - left
        tile_start = start + ((image * height + y) * pitch + x) * pixel
        inside = y >= 0 and y + (rows - 1) * g.down < height and x >= 0 and x + (cols - 1) * g.across < width
        if inside and known >= 0:
            moved = tile_start - known_start
            here, there = table[t : t + numbers], table[known : known + numbers]
            for i in range(numbers):
                here[i] = there[i] + moved
        else:
            i = t
            for a in range(0, rows * g.down, g.down):
                for b in range(0, cols * g.across, g.across):
                    within = y + a >= 0 and y + a < height and x + b >= 0 and x + b < width
                    table[i] = tile_start + (a * pitch + b) * pixel if within else outside
                    i += 1
        if inside:
            known, known_start = t, tile_start
        tile_col += 1
        if tile_col == g.cols:
            tile_col, tile_row = 0, tile_row + 1
            if tile_row == g.rows:
                tile_row, col_phase = 0, col_phase + 1
                if col_phase == g.across:
                    col_phase, row_phase = 0, row_phase + 1
                    if row_phase == g.down:
                        row_phase, image = 0, image + 1


@helper
def window_of(first, count, rows, cols, top, left, height, width, g):
    """What tiles of rows x cols numbers meet: first row (of all images), rows, first column, columns.

    The tiles are undilated; of one row of tiles, or of whole rows.
    """
    image, row, col = tile_place(first, g)
    last_image, last_row, last_col = tile_place(first + count - 1, g)
    begin = image * height + min(max(row - top, 0), height - 1)
    end = last_image * height + min(max(last_row - top + rows, 1), height)
    if image != last_image or row != last_row:
        return begin, end - begin, 0, width
    first_col = min(max(col - left, 0), width - 1)
    return begin, end - begin, first_col, min(max(last_col - left + cols, first_col + 1), width) - first_col


@helper
def _transpose_window(transpose, pixels, lanes, planes, item, total, c, channels, row, rows, col, cols, height, width):
    """`channels` (up to `lanes`) planes, from c on of each image's `total`, -> pixels (rows, cols, lanes)."""
    end = row + rows
    while row < end:
        image = row // height
        behind = min(end, (image + 1) * height) if cols == width else row + 1  # rows of a plane follow each other
        source = planes + (((image * total + c) * height + row - image * height) * width + col) * item
        call_address(transpose, (pixels, lanes, source, height * width, channels, (behind - row) * cols))
        pixels += (behind - row) * cols * lanes * item
        row = behind


@helper
def store_window(transpose, planes, pixels, pixel, item, total, c, channels, row, rows, col, cols, height, width):
    """The way back: pixels (rows, cols) of `pixel` numbers -> `channels` planes of a window."""
    end = row + rows
    while row < end:
        image = row // height
        behind = min(end, (image + 1) * height) if cols == width else row + 1
        target = planes + (((image * total + c) * height + row - image * height) * width + col) * item
        call_address(transpose, (target, height * width, pixels, pixel, (behind - row) * cols, channels))
        pixels += (behind - row) * cols * pixel * item
        row = behind


@helper
def transform_tiles(
    to_tiles, transpose, operand, item, total, c, channels, pixels, lanes, zeros, table, tiles, tile_stride,
    position_stride, first, count, rows, cols, top, left, height, width, g,
):  # fmt: skip
    """Transform `channels` channels, from c on of `total`, of tiles of rows x cols numbers; see `input_transform`.

    `operand` and `tiles` are addresses, `pixels` is scratch for a window: empty if the operand is channels-last.
    """
    if pixels.size == 0:
        start = operand + c * item
        locate(
            table, start, total * item, width, address_of(zeros), first, count, rows, cols, top, left, height, width, g
        )
        call_address(to_tiles, (count, address_of(table), channels, tiles, tile_stride, position_stride))
        return
    row, window_rows, col, window_cols = window_of(first, count, rows, cols, top, left, height, width, g)
    start = address_of(pixels) - (row * window_cols + col) * lanes * item
    locate(
        table, start, lanes * item, window_cols, address_of(zeros), first, count, rows, cols, top, left, height, width,
        g,
    )  # fmt: skip
    for step in range(0, channels, lanes):
        some = min(lanes, channels - step)
        _transpose_window(
            transpose, address_of(pixels), lanes, operand, item, total, c + step, some, row, window_rows, col,
            window_cols, height, width,
        )  # fmt: skip
        place = tiles + step * item
        call_address(to_tiles, (count, address_of(table), some, place, tile_stride, position_stride))
