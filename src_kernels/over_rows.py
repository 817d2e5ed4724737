"""Convolution with vectors along output rows: rows of the register tile are filters, channels-first only.

    out[f, pixel] = sum over k of  w[arow[f] + acol[k]] * x[brow[k] + pixel],      k = (c, kh, kw)

`x` holds zero-padded planes, split by stride, as for `over_pixels`. Its tiles run across row ends; the vectors of
these end with their rows (see `tile_sweep`), so that every result goes from registers to its place in `out`. Sums of
few channels are short, and copying their results would cost as much as making them.

Tasks are (image, group, band of output rows, share of the filters); they write different pixels or filters. `out`
may be uninitialised. Tables have room for whole tiles, their last row or vector repeated: `arow` and `crow` of the
filters, `bcol` and `ccol` (one row for whole bands, one for the last) of a band's vectors. `bias` belongs to `arow`.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit
from fastconv._kernels.simd import address_of, call_address, next_task


class OverRows(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    filters: int  # of one group, and with those repeated to fill tiles
    filters_filled: int
    rows: int  # output pixels of one image: rows x cols
    cols: int
    pitch: int  # numbers from one padded row to the next
    x_image: int
    x_group: int
    w_group: int
    tile_rows: int
    tile_vectors: int
    tiles: int  # tiles that share one pass over the weights
    band: int  # output rows of one task
    band_tiles: int  # of a whole band, and of the last one
    last_tiles: int
    share: int  # filters of one task
    relu: int


@jit
def _over_rows(slot, slots, counter, sweep, w, arow, acol, x, brow, bcol, bias, out, crow, ccol, g):
    item = x.itemsize
    bands = (g.rows + g.band - 1) // g.band
    shares = (g.filters + g.share - 1) // g.share
    plane = g.rows * g.cols
    while True:
        task = next_task(counter)
        if task >= g.images * g.groups * bands * shares:
            return
        share = task % shares
        band = task // shares % bands
        group = task // (shares * bands) % g.groups
        image = task // (shares * bands * g.groups)
        last = 1 if band == bands - 1 else 0
        tiles = g.last_tiles if last else g.band_tiles
        planes = address_of(x) + (image * g.x_image + group * g.x_group + band * g.band * g.pitch) * item
        weights = address_of(w) + group * g.w_group * item
        target = address_of(out) + ((image * g.groups + group) * g.filters * plane + band * g.band * g.cols) * item
        for first in range(0, tiles, g.tiles):
            vectors = 8 * first * g.tile_vectors
            for f in range(share * g.share, min((share + 1) * g.share, g.filters), g.tile_rows):
                call_address(
                    sweep,
                    (
                        min(g.tiles, tiles - first),
                        0,
                        g.tile_vectors,
                        acol.size,
                        weights,
                        address_of(arow) + 8 * f,
                        address_of(acol),
                        planes,
                        address_of(brow),
                        address_of(bcol[last]) + vectors,
                        target,
                        address_of(crow) + 8 * f,
                        address_of(ccol[last]) + vectors,
                        address_of(bias) + (group * g.filters_filled + f) * item,
                        g.relu,
                    ),
                )


@jit(parallel=True)
def _over_rows_parallel(slots, counter, sweep, w, arow, acol, x, brow, bcol, bias, out, crow, ccol, g):
    for slot in prange(slots):
        _over_rows(intp(slot), slots, counter, sweep, w, arow, acol, x, brow, bcol, bias, out, crow, ccol, g)


over_rows = Kernel(_over_rows, _over_rows_parallel)
