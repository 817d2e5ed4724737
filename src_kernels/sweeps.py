"""Convolution of few channels: a register tile that sweeps over the pixels of some output rows, filters at rest.

    out[f, pixel] = sum over k of  w[w_place(f) + w_taps[k]] * x[x_place(pixel) + x_taps[k]]

Channels-first, `x` holds zero-padded planes, split by stride: vectors run along output rows and end with them, rows of
the tile are filters. Channels-last, `x` is the padded image: vectors run over filters, rows of the tile are pixels.
Either way every result goes from registers to its place in `out`: sums of few channels are short, and copying their
results would cost as much as making them. Weights are read where they lie.

Tasks are (image, group, band of output rows, share of the filters). `out` may be uninitialised. Tables name the first
numbers of vectors, or single numbers, with room for whole tiles: the last entry is repeated, and a row's (or a pixel's)
last vector overlaps the one before (see `tile_sweep`). So two tasks may write the same numbers, of the same value, to
one place. `bias` belongs to the filters' places.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit
from fastconv._kernels.simd import address_of, call_address, next_task


class Sweeps(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    bands: int
    panels: int  # tiles that all filters of a group make
    share: int  # panels of one task
    band_tiles: int  # tiles that a panel makes in a band, and in the last band
    last_tiles: int
    tiles: int  # tiles that pass by before the next panel takes its turn
    pixels_are_rows: int  # of the tile: channels-last
    pixel_entries: int  # of the tables, for one tile
    filter_entries: int
    x_image: int
    x_group: int
    x_band: int
    w_group: int
    out_image: int
    out_group: int
    out_band: int
    bias_panel: int
    relu: int


@jit
def _sweeps(slot, slots, counter, sweep, w, w_places, w_taps, x, x_places, x_taps, bias, out, filters_to, pixels_to, g):
    """The tables of pixels have one row for whole bands and one for the last."""
    item = x.itemsize
    shares = (g.panels + g.share - 1) // g.share
    while True:
        task = next_task(counter)
        if task >= g.images * g.groups * g.bands * shares:
            return
        share = task % shares
        band = task // shares % g.bands
        group = task // (shares * g.bands) % g.groups
        image = task // (shares * g.bands * g.groups)
        last = 1 if band == g.bands - 1 else 0
        tiles = g.last_tiles if last else g.band_tiles
        source = address_of(x) + (image * g.x_image + group * g.x_group + band * g.x_band) * item
        target = address_of(out) + (image * g.out_image + group * g.out_group + band * g.out_band) * item
        weights = address_of(w) + group * g.w_group * item
        for first in range(0, tiles, g.tiles):
            count = min(g.tiles, tiles - first)
            from_x = address_of(x_places[last]) + 8 * first * g.pixel_entries
            to_pixels = address_of(pixels_to[last]) + 8 * first * g.pixel_entries
            for panel in range(share * g.share, min((share + 1) * g.share, g.panels)):
                from_w = address_of(w_places) + 8 * panel * g.filter_entries
                to_filters = address_of(filters_to) + 8 * panel * g.filter_entries
                start = address_of(bias) + (group * g.panels + panel) * g.bias_panel * item
                if g.pixels_are_rows:
                    call_address(
                        sweep,
                        (
                            count, g.pixel_entries, 0, x_taps.size, source, from_x, address_of(x_taps), weights,
                            address_of(w_taps), from_w, target, to_pixels, to_filters, start, g.relu,
                        ),
                    )  # fmt: skip
                else:
                    call_address(
                        sweep,
                        (
                            count, 0, g.pixel_entries, x_taps.size, weights, from_w, address_of(w_taps), source,
                            address_of(x_taps), from_x, target, to_filters, to_pixels, start, g.relu,
                        ),
                    )  # fmt: skip


@jit(parallel=True)
def _sweeps_parallel(
    slots, counter, sweep, w, w_places, w_taps, x, x_places, x_taps, bias, out, filters_to, pixels_to, g
):  # fmt: skip
    for slot in prange(slots):
        _sweeps(
            intp(slot), slots, counter, sweep, w, w_places, w_taps, x, x_places, x_taps, bias, out, filters_to,
            pixels_to, g,
        )  # fmt: skip


sweeps = Kernel(_sweeps, _sweeps_parallel)
