"""Winograd's weights: G w G^T of every filter and channel, as panels of `tile_cols` filters per position.

Tasks are (panel, band of channels). A task brings the nine numbers of its filters side by side in its slot's scratch,
which stays in the first-level cache, and transforms them from there; each writes its own part of `out`.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import address_of, call_address
from fastconv._kernels.winograd_transforms import TAPS

BAND = 16  # channels of one task: enough to pay for it, few enough to share a single panel among threads


class WinogradWeights(NamedTuple):
    """Where the number of (filter, channel, tap) lies in w; for the gradient of x, filters and channels change roles.

    A band of `steps` channels, from channel c, is moved in pieces: piece i is a matrix that begins at
    c * channel_step + i * piece_step. With `pieces` 9 it holds one tap of all channels, with 1 all taps of all
    channels (which lie side by side), with 0 there are as many pieces as channels, of nine taps each.
    """

    filters: int
    channels: int
    pieces: int
    piece_step: int
    channel_step: int
    filter_step: int
    transposed: int  # 0: filters lie side by side


@helper
def transform_channels(
    to_positions, copy, transpose, w, band_rows, w_rows, addresses, scratch, panel, c, target, position_stride,
    tile_cols, g,
):  # fmt: skip
    """Transform up to BAND channels, from c on, of a panel's filters; position p goes to target + p * position_stride.

    `band_rows` and `w_rows` are the row offsets of a piece in `scratch` (9 * BAND * tile_cols) and in w, where it is
    not transposed; `addresses` are those of the nine numbers of a filter in scratch.
    """
    item = w.itemsize
    tap_major = g.pieces == TAPS * TAPS
    steps = min(BAND, g.channels - c)
    f = panel * tile_cols
    width = min(tile_cols, g.filters - f)
    pieces, rows, piece_size = steps, TAPS * TAPS, TAPS * TAPS * tile_cols
    if tap_major:
        pieces, rows, piece_size = g.pieces, steps, BAND * tile_cols
    elif g.pieces == 1:
        pieces, rows = 1, TAPS * TAPS * steps
    if width < tile_cols:
        scratch[:] = 0  # lanes without a filter: what lies there may be denormal, see `simd.Emitter`
    for piece in range(pieces):
        place = address_of(scratch) + piece * piece_size * item
        source = address_of(w) + (c * g.channel_step + piece * g.piece_step + f * g.filter_step) * item
        if g.transposed:
            call_address(transpose, (place, tile_cols, source, g.filter_step, width, rows))
        else:
            call_address(copy, (place, address_of(band_rows), source, address_of(w_rows), rows, width, 1))
    step = tile_cols if tap_major else TAPS * TAPS * tile_cols
    call_address(
        to_positions,
        (steps, address_of(addresses), step, tile_cols, target + c * tile_cols * item, tile_cols, position_stride),
    )


@helper
def locate_taps(addresses, taps, scratch):
    """The addresses of the nine numbers in a slot's scratch."""
    for tap in range(taps.size):
        addresses[tap] = address_of(scratch) + taps[tap] * scratch.itemsize


@Kernel
def transform_weights(slot, slots, to_positions, copy, transpose, w, band_rows, w_rows, taps, places, scratch, out, g):
    """w -> out (P, positions, stride), of which channels * tile_cols numbers of each position are written.

    `taps` holds the offsets of the nine numbers in scratch (slots, 9 * BAND * tile_cols), `places` (slots, 9) is
    scratch for their addresses.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    panels, _, position_stride = out.shape
    tile_cols = scratch.shape[1] // (TAPS * TAPS * BAND)
    bands = (g.channels + BAND - 1) // BAND
    addresses = places[slot]
    locate_taps(addresses, taps, scratch[slot])
    for task in range(slot * panels * bands // slots, (slot + 1) * panels * bands // slots):
        panel, c = task // bands, task % bands * BAND
        transform_channels(
            to_positions, copy, transpose, w, band_rows, w_rows, addresses, scratch[slot], panel, c,
            address_of(out[panel]), position_stride, tile_cols, g,
        )  # fmt: skip
