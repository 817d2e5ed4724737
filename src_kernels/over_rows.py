"""Convolution with vectors along output rows: rows of the register tile are filters, channels-first only.

    out[f, pixel] = sum over k of  w[arow[f] + acol[k]] * x[brow[k] + pixel],      k = (c, kh, kw)

`x` holds zero-padded planes, split by stride, as for `over_pixels`. Its tiles run across row ends; the vectors of
these end with their rows (see `row_tile`), so that every result goes from registers to its place in `out`. Sums of
few channels are short, and copying their results would cost as much as making them.

Tasks are (image, group, band of output rows, share of the filters); they write different pixels or filters. `out`
may be uninitialised. `tables` is scratch per slot: bcol, ccol and width of the vectors of a band.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit
from fastconv._kernels.register_tile import RELU, ROW_BIAS
from fastconv._kernels.simd import address_of, call_address, next_task


class OverRows(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    filters: int  # of one group
    rows: int  # output pixels of one image: rows x cols
    cols: int
    pitch: int  # numbers from one padded row to the next
    lanes: int
    x_image: int
    x_group: int
    w_group: int
    tile_rows: int
    tile_vectors: int
    tiles: int  # tiles that share one pass over the weights
    band: int  # output rows of one task
    share: int  # filters of one task
    relu: int


@jit
def _over_rows(slot, slots, counter, tile, w, arow, acol, x, brow, bias, out, crow, tables, g):
    item = x.itemsize
    bands = (g.rows + g.band - 1) // g.band
    shares = (g.filters + g.share - 1) // g.share
    plane = g.rows * g.cols
    bcol, ccol, width = tables[slot, 0], tables[slot, 1], tables[slot, 2]
    flags = (ROW_BIAS if bias.size > 0 else 0) | (RELU if g.relu else 0)
    while True:
        task = next_task(counter)
        if task >= g.images * g.groups * bands * shares:
            return
        share = task % shares
        band = task // shares % bands
        group = task // (shares * bands) % g.groups
        image = task // (shares * bands * g.groups)
        filter_begin = share * g.share
        filter_end = min(filter_begin + g.share, g.filters)
        row_begin = band * g.band
        rows = min(g.band, g.rows - row_begin)
        planes = address_of(x) + (image * g.x_image + group * g.x_group + row_begin * g.pitch) * item
        weights = address_of(w) + group * g.w_group * item
        target = address_of(out) + ((image * g.groups + group) * g.filters * plane + row_begin * g.cols) * item
        vectors = 0
        for row in range(rows):
            for col in range(0, g.cols, g.lanes):
                bcol[vectors] = row * g.pitch + col
                ccol[vectors] = row * g.cols + col
                width[vectors] = min(g.lanes, g.cols - col)
                vectors += 1
        while vectors % g.tile_vectors:  # the last tile's missing vectors are neither read nor written
            bcol[vectors], ccol[vectors], width[vectors] = 0, 0, 0
            vectors += 1
        batch = g.tiles * g.tile_vectors
        for first in range(0, vectors, batch):
            for f in range(filter_begin, filter_end, g.tile_rows):
                for v in range(first, min(first + batch, vectors), g.tile_vectors):
                    whole = 1
                    for i in range(v, v + g.tile_vectors):
                        if width[i] != g.lanes:
                            whole = 0
                    call_address(
                        tile,
                        (
                            acol.size,
                            weights,
                            address_of(arow) + 8 * f,
                            address_of(acol),
                            planes,
                            address_of(brow),
                            address_of(bcol) + 8 * v,
                            target,
                            address_of(crow) + 8 * f,
                            address_of(ccol) + 8 * v,
                            address_of(width) + 8 * v,
                            min(g.tile_rows, filter_end - f),
                            whole,
                            address_of(bias) + (group * g.filters + f) * item,
                            flags,
                        ),
                    )


@jit(parallel=True)
def _over_rows_parallel(slots, counter, tile, w, arow, acol, x, brow, bias, out, crow, tables, g):
    for slot in prange(slots):
        _over_rows(intp(slot), slots, counter, tile, w, arow, acol, x, brow, bias, out, crow, tables, g)


over_rows = Kernel(_over_rows, _over_rows_parallel)
