"""Convolution with vectors over filters: rows of the register tile are output pixels.

    out[pixel, f] = sum over k of  x[arow[pixel] + acol[k]] * w[brow[k] + f]

`x` is the zero-padded input in either layout: `arow` is where a pixel's window starts, `acol[k]` where tap k lies in
the window, so stride, dilation and layout are only other offsets. Pixels are numbered through all images: no tile
is left half empty on small planes. Weights come as panels of `tile_cols` filters (see `pack_panels`), which the
L2 cache holds while all pixels of a task pass by. The gradient of x is the same sum over padded `dout`, once per
stride phase. With `runs`, each task first copies its windows into a patch matrix (im2col) and reads that.

A channels-last `out` is stored from registers; for a channels-first one, a task's results of one panel are collected
in `results` and transposed from there, while they are in cache.

Tasks are (group, chunk of pixels, share of the panels); each writes its own pixels and filters. `out` may be
uninitialised. Scratch per slot: `tables` (3 * chunk), `patches` (chunk * depth, or 0), `results` (chunk * tile_cols,
or 0); `result_rows` holds the offsets of its rows.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit
from fastconv._kernels.register_tile import ADD, LANE_BIAS, RELU
from fastconv._kernels.simd import address_of, call_address, next_task


class OverFilters(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    rows: int  # output pixels of one image: rows x cols
    cols: int
    filters: int  # of one group
    x_image: int
    x_row: int  # from an output pixel's window to the one below, to the right
    x_col: int
    x_group: int
    w_panel: int
    out_start: int
    out_image: int
    out_row: int
    out_col: int
    out_filter: int  # 1: channels-last
    tile_rows: int
    tile_cols: int
    chunk: int  # pixels of one task
    share: int  # panels of one task
    depth_block: int
    run_length: int  # numbers that lie side by side in a window; 0 reads x in place
    relu: int


@jit
def _store_transposed(transpose, out, crow, results, first, count, f, width, g):
    """results (count pixels, tile_cols) -> `width` rows of filters in `out`, a piece per run of neighbouring pixels."""
    item = out.itemsize
    joined = g.rows * g.cols if g.out_row == g.cols * g.out_col else g.cols
    done = 0
    while done < count:
        length = min(joined - (first + done) % joined, count - done)
        place = crow[done] + f * g.out_filter
        if g.out_col == 1:
            source = address_of(results) + done * g.tile_cols * item
            call_address(transpose, (address_of(out) + place * item, g.out_filter, source, g.tile_cols, length, width))
        else:
            for v in range(width):
                for i in range(length):
                    out[place + v * g.out_filter + i * g.out_col] = results[(done + i) * g.tile_cols + v]
        done += length


@jit
def _over_filters(
    slot, slots, counter, tile, copy, transpose, x, acol, runs, w, brow, bias, out, result_rows, tables, patches,
    results, g,
):  # fmt: skip
    item = x.itemsize
    depth = acol.size
    plane = g.rows * g.cols
    pixels = g.images * plane
    chunks = (pixels + g.chunk - 1) // g.chunk
    panels = (g.filters + g.tile_cols - 1) // g.tile_cols
    shares = (panels + g.share - 1) // g.share
    arow, crow, prow = tables[slot, : g.chunk], tables[slot, g.chunk : 2 * g.chunk], tables[slot, 2 * g.chunk :]
    for i in range(g.chunk):
        prow[i] = i * depth
    while True:
        task = next_task(counter)
        if task >= g.groups * chunks * shares:
            return
        group = task // (chunks * shares)
        share = task // chunks % shares
        first = (task % chunks) * g.chunk
        count = min(g.chunk, pixels - first)
        image = first // plane
        row = first // g.cols % g.rows
        col = first % g.cols
        out_group = g.out_start + group * g.filters * g.out_filter
        for i in range(count):
            arow[i] = image * g.x_image + row * g.x_row + col * g.x_col + group * g.x_group
            crow[i] = image * g.out_image + row * g.out_row + col * g.out_col + out_group
            col += 1
            if col == g.cols:
                col = 0
                row += 1
                if row == g.rows:
                    row = 0
                    image += 1

        a, a_rows = address_of(x), address_of(arow)
        if g.run_length:
            a, a_rows = address_of(patches[slot]), address_of(prow)
            for r in range(runs.size):
                target = a + r * g.run_length * item
                source = address_of(x) + runs[r] * item
                call_address(copy, (target, a_rows, source, address_of(arow), count, g.run_length, 1))

        for panel in range(share * g.share, min((share + 1) * g.share, panels)):
            f = panel * g.tile_cols
            width = min(g.tile_cols, g.filters - f)
            b = address_of(w) + (group * panels + panel) * g.w_panel * item
            for k in range(0, max(depth, 1), g.depth_block):  # a phase without taps still writes zeros
                steps = min(g.depth_block, depth - k)
                flags = 0
                if k > 0:
                    flags |= ADD
                elif bias.size > 0:
                    flags |= LANE_BIAS
                if g.relu and k + steps == depth:
                    flags |= RELU
                for i in range(0, count, g.tile_rows):
                    c, c_rows = address_of(out) + f * item, address_of(crow) + 8 * i
                    if g.out_filter != 1:
                        c, c_rows = address_of(results[slot]) + i * g.tile_cols * item, address_of(result_rows)
                    call_address(
                        tile,
                        (
                            steps,
                            a,
                            a_rows + 8 * i,
                            address_of(acol) + 8 * k,
                            b,
                            address_of(brow) + 8 * k,
                            c,
                            c_rows,
                            min(g.tile_rows, count - i),
                            width,
                            address_of(bias) + (group * g.filters + f) * item,
                            flags,
                        ),
                    )
            if g.out_filter != 1:
                _store_transposed(transpose, out, crow, results[slot], first, count, f, width, g)


@jit(parallel=True)
def _over_filters_parallel(
    slots, counter, tile, copy, transpose, x, acol, runs, w, brow, bias, out, result_rows, tables, patches, results, g
):
    for slot in prange(slots):
        _over_filters(
            intp(slot), slots, counter, tile, copy, transpose, x, acol, runs, w, brow, bias, out, result_rows, tables,
            patches, results, g,
        )  # fmt: skip


over_filters = Kernel(_over_filters, _over_filters_parallel)


@jit
def _pack_panels(
    slot, slots, block, transposed, w, out, drow, srow, groups, together, filters, group_stride, batches, batch_stride,
    rows, stride,
):  # fmt: skip
    """Weights -> out (groups / together, panels, depth = batches * rows, tile_cols); other columns stay as they are.

    Depth step (batch, row) of filter f is w[batch * batch_stride + row * stride + f]; transposed, where a filter's
    rows lie side by side, w[batch * batch_stride + f * stride + row]. `block` is `copy_block` or `transpose_block`.
    The filters of `together` neighbouring groups lie side by side in one panel; more than one need a single panel.
    """
    item = w.itemsize
    panels, depth, tile_cols = out.shape[1:]
    tasks = groups * panels * batches
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        panel = task % panels  # all panels of a batch, whose rows stay in the caches meanwhile
        batch = task // panels % batches
        group = task // (batches * panels)
        f = panel * tile_cols
        width = min(tile_cols, filters - f)
        source = address_of(w) + (group * group_stride + batch * batch_stride) * item
        place = ((group // together * panels + panel) * depth + batch * rows) * tile_cols + group % together * filters
        target = address_of(out) + place * item
        if transposed:
            call_address(block, (target, tile_cols, source + f * stride * item, stride, width, rows))
        else:
            call_address(block, (target, address_of(drow), source + f * item, address_of(srow), rows, width, 1))


@jit(parallel=True)
def _pack_panels_parallel(
    slots, block, transposed, w, out, drow, srow, groups, together, filters, group_stride, batches, batch_stride, rows,
    stride,
):  # fmt: skip
    for slot in prange(slots):
        _pack_panels(
            intp(slot), slots, block, transposed, w, out, drow, srow, groups, together, filters, group_stride, batches,
            batch_stride, rows, stride,
        )  # fmt: skip


pack_panels = Kernel(_pack_panels, _pack_panels_parallel)
