"""Convolution of few channels: a register tile that sweeps over the pixels of some output rows, filters at rest.

    out[f, pixel] = sum over k of  w[w_place(f) + w_taps[k]] * x[x_place(pixel) + x_taps[k]]

Either `x` holds zero-padded planes, split by stride: vectors run along output rows and end with them, rows of the tile
are filters. Or, channels-last, `x` is the image itself: vectors run over filters, rows of the tile are pixels, and taps
outside the image are left out (an image of few columns is padded beside them).
Either way every result goes from registers to its place in `out`: sums of few channels are short, and copying their
results would cost as much as making them. Weights are read where they lie.

Tasks are (image, group, band of output rows, share of the filters). `out` may be uninitialised. Tables name the first
numbers of vectors, or single numbers, with room for whole tiles: the last entry is repeated, and a row's (or a pixel's)
last vector overlaps the one before (see `tile_sweep`). So two tasks may write the same numbers, of the same value, to
one place. `bias` belongs to the filters' places.

A band passes by in pieces, tiles whose rows meet the same rows of the kernel inside the image: taps are ordered by
those rows, and the ones outside are not multiplied. Meanwhile the rows of a later task are asked for.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.isa import LINE_BYTES
from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class Sweeps(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    bands: int
    panels: int  # tiles that all filters of a group make
    share: int  # panels of one task
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


@helper
def _begin(band, g):
    """Where in x a band begins, as bands are numbered through all groups and images."""
    image, group = band // (g.bands * g.groups), band // g.bands % g.groups
    return image * g.x_image + group * g.x_group + band % g.bands * g.x_band


@Kernel
def sweeps(
    slot, slots, counters, sweep, w, w_places, w_taps, x, x_places, x_taps, band_kinds, pieces, band_pieces, bias, out,
    filters_to, pixels_to, g,
):  # fmt: skip
    """The tables of pixels have a row for each kind of band; `band_kinds[band]` says which.

    Pieces are (first tile, tiles, first step, steps); those of a band begin at `band_pieces[band]`.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    shares = (g.panels + g.share - 1) // g.share
    tasks = g.images * g.groups * g.bands * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        share = task % shares
        band = task // shares % g.bands
        group = task // (shares * g.bands) % g.groups
        image = task // (shares * g.bands * g.groups)
        kind = band_kinds[band]
        source = address_of(x) + _begin(task // shares, g) * item
        soon, lines = 0, 0
        if g.pixels_are_rows and g.groups == 1 and task + 1 < tasks:
            soon = address_of(x) + _begin((task + 1) // shares, g) * item
            tiles = 0
            for piece in range(band_pieces[band], band_pieces[band + 1]):
                tiles += pieces[piece, 1] * g.share
            lines = (g.x_band * item + tiles * LINE_BYTES - 1) // (tiles * LINE_BYTES)
        target = address_of(out) + (image * g.out_image + group * g.out_group + band * g.out_band) * item
        weights = address_of(w) + group * g.w_group * item
        for piece in range(band_pieces[band], band_pieces[band + 1]):
            first, count, step, steps = pieces[piece]
            from_x = address_of(x_places[kind]) + 8 * first * g.pixel_entries
            to_pixels = address_of(pixels_to[kind]) + 8 * first * g.pixel_entries
            for panel in range(share * g.share, min((share + 1) * g.share, g.panels)):
                from_w = address_of(w_places) + 8 * panel * g.filter_entries
                to_filters = address_of(filters_to) + 8 * panel * g.filter_entries
                start = address_of(bias) + (group * g.panels + panel) * g.bias_panel * item
                if g.pixels_are_rows:
                    call_address(
                        sweep,
                        (
                            count, g.pixel_entries, 0, steps, source, from_x, address_of(x_taps) + 8 * step, weights,
                            address_of(w_taps) + 8 * step, from_w, target, to_pixels, to_filters, start, g.relu, soon,
                            lines,
                        ),
                    )  # fmt: skip
                    soon += count * lines * LINE_BYTES
                else:
                    call_address(
                        sweep,
                        (
                            count, 0, g.pixel_entries, steps, weights, from_w, address_of(w_taps) + 8 * step, source,
                            address_of(x_taps) + 8 * step, from_x, target, to_filters, to_pixels, start, g.relu, 0, 0,
                        ),
                    )  # fmt: skip
