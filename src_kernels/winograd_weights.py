"""Winograd's weights: G w G^T of every filter and channel, as panels of `tile_cols` filters per position.

Tasks are (panel, band of channels). A task brings the taps of its filters side by side in its slot's scratch, which
stays in the first-level cache, and transforms them from there, piece by piece of the kernel; each writes its own part
of `out`.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import address_of, call_address

BAND = 16  # channels of one task: enough to pay for it, few enough to share a single panel among threads


class WinogradWeights(NamedTuple):
    """Where the number of (filter, channel, tap) lies in w; for the gradient of x, filters and channels change roles.

    A band of `steps` channels, from channel c, is moved in `copies`: number i is a matrix that begins at
    c * channel_step + i * copy_step. With as many copies as `taps`, each holds one tap of all channels, with 1 all taps
    of all channels (which lie side by side), with 0 there are as many copies as channels, of all taps each.
    """

    filters: int
    channels: int
    taps: int  # of w
    pieces: int  # see `winograd`
    piece_taps: int
    tile_cols: int  # filters of a panel
    copies: int
    copy_step: int
    channel_step: int
    filter_step: int
    transposed: int  # 0: filters lie side by side


@helper
def transform_channels(
    to_positions, copy, transpose, w, band_rows, w_rows, addresses, scratch, panel, c, target, position_stride, g
):
    """Transform up to BAND channels, from c on, of a panel's filters; position p goes to target + p * position_stride.

    `band_rows` and `w_rows` are the row offsets of a copy in `scratch` and in w, where it is not transposed;
    `addresses` are those that `locate_taps` found.
    """
    item = w.itemsize
    tap_major = g.copies == g.taps
    steps = min(BAND, g.channels - c)
    f = panel * g.tile_cols
    width = min(g.tile_cols, g.filters - f)
    copies, rows, size = steps, g.taps, g.taps * g.tile_cols
    if tap_major:
        copies, rows, size = g.copies, steps, BAND * g.tile_cols
    elif g.copies == 1:
        copies, rows = 1, g.taps * steps
    if width < g.tile_cols:
        scratch[:] = 0  # lanes without a filter: what lies there may be denormal, see `simd.Emitter`
    for i in range(copies):
        place = address_of(scratch) + i * size * item
        source = address_of(w) + (c * g.channel_step + i * g.copy_step + f * g.filter_step) * item
        if g.transposed:
            call_address(transpose, (place, g.tile_cols, source, g.filter_step, width, rows))
        else:
            call_address(copy, (place, address_of(band_rows), source, address_of(w_rows), rows, width, 1))
    step = g.tile_cols if tap_major else g.taps * g.tile_cols
    for piece in range(g.pieces):
        places = address_of(addresses) + piece * g.piece_taps * addresses.itemsize
        to = target + (piece * g.channels + c) * g.tile_cols * item
        call_address(to_positions, (steps, places, step, g.tile_cols, to, g.tile_cols, position_stride))


@helper
def locate_taps(addresses, taps, scratch, g):
    """The addresses of the taps of all pieces in a slot's scratch; those that no piece of w has are zeros behind it."""
    scratch[g.taps * BAND * g.tile_cols :] = 0
    for tap in range(taps.size):
        addresses[tap] = address_of(scratch) + taps[tap] * scratch.itemsize


@Kernel
def transform_weights(slot, slots, to_positions, copy, transpose, w, band_rows, w_rows, taps, places, scratch, out, g):
    """w -> out (panels, positions, stride), of which pieces * channels * tile_cols numbers per position are written.

    `taps` holds the offsets of the taps of all pieces in a slot's scratch, `places` (slots, taps.size) is scratch for
    their addresses.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    panels, _, position_stride = out.shape
    bands = (g.channels + BAND - 1) // BAND
    addresses = places[slot]
    locate_taps(addresses, taps, scratch[slot], g)
    for task in range(slot * panels * bands // slots, (slot + 1) * panels * bands // slots):
        panel, c = task // bands, task % bands * BAND
        transform_channels(
            to_positions, copy, transpose, w, band_rows, w_rows, addresses, scratch[slot], panel, c,
            address_of(out[panel]), position_stride, g,
        )  # fmt: skip
