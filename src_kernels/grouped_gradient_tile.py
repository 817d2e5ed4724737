"""The tile of grouped convolution's gradient of w: one vector of filters, all taps and channels of its groups.

    partial[entry, j, t][lane] += sum over output pixels p of
        dout[p][lane] * x[entry][p * stride + t][j of the lane's group]

Operands, entries and shapes are those of `grouped_tiles`. Some channels of a run of taps are summed at a time, in
registers for all pixels: 12 sums for 3 taps. Channels past the last of an entry may be summed up to a multiple of
`CHANNELS`; `partial` has room for them. It must hold numbers; sums of its own are added once.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.grouped_tiles import GroupedShape, SpreadEmitter
from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, integers, read_sizes

CHANNELS = 4  # summed at a time: 12 sums of 3 taps leave registers for 3 vectors of dout and one of x
_CHAINS = 8  # sums that keep two multiply-add units of 4 cycles busy


class GradientSizes(NamedTuple):
    """The table that the tile reads, as int64."""

    entries: int
    columns: int  # output pixels of a row
    x_row: int  # from one output row to the next
    dout_row: int
    w_channel: int
    w_tap: int


@cache
def grouped_gradient_tile(shape: GroupedShape, itemsize: int):
    """Callback (sizes, entries, x, dout, partial, rows): `rows` rows of one vector of filters."""
    PIXELS, TAPS, STRIDE, WIDTH = shape
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def tile(sizes, entries, x, dout, partial, rows):
        _emit_tile(PIXELS, TAPS, STRIDE, WIDTH, ITEMSIZE, BITS, sizes, entries, x, dout, partial, rows)

    return compile_callback(tile, integers(6))


@intrinsic(prefer_literal=True)
def _emit_tile(typingctx, PIXELS, TAPS, STRIDE, WIDTH, ITEMSIZE, BITS, sizes, entries, x, dout, partial, rows):
    shape = GroupedShape(*(t.literal_value for t in (PIXELS, TAPS, STRIDE, WIDTH)))
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        _GradientEmitter(builder, shape, itemsize).emit(*args[6:])
        return context.get_dummy_value()

    return types.void(
        PIXELS, TAPS, STRIDE, WIDTH, ITEMSIZE, BITS, sizes, entries, x, dout, partial, rows
    ), codegen  # fmt: skip


class _GradientEmitter(SpreadEmitter):
    def emit(self, sizes, entries, x, dout, partial, rows):
        simd, builder, width = self.simd, self.builder, self.shape.width
        self.sizes = s = read_sizes(simd, GradientSizes, sizes)
        x, self.dout, partial = (simd.pointer(p) for p in (x, dout, partial))
        self.rows, entries = rows, simd.pointer(entries, I64)
        together = min(CHANNELS, width or simd.lanes)
        with cgutils.for_range(builder, s["entries"]) as loop:
            entry = simd.at(entries, builder.mul(loop.index, I64(3)))
            place, weight, channels = (builder.load(simd.at(entry, i)) for i in range(3))
            x_entry, to = simd.at(x, place), simd.at(partial, weight)
            step = builder.mul(s["w_channel"], I64(together))
            if width:
                for first in range(0, width, together):
                    self._channels(x_entry, range(first, first + together), to)
                    to = simd.at(to, step)
            else:
                blocks = builder.sdiv(builder.add(channels, I64(together - 1)), I64(together))
                with cgutils.for_range(builder, blocks) as block:
                    first = builder.mul(block.index, I64(together))
                    place = simd.at(to, builder.mul(block.index, step))
                    self._channels(simd.at(x_entry, first), range(together), place)

    def _channels(self, x, channels, to):
        """The sums of some channels and all taps over all pixels."""
        simd, builder, s, taps = self.simd, self.builder, self.sizes, self.shape.taps
        self.copies = min(max(-(-_CHAINS // (taps * len(channels))), 1), self.shape.pixels)
        sums = {}
        for tap in range(taps):
            for channel in channels:
                for copy in range(self.copies):
                    sums[tap, channel, copy] = cgutils.alloca_once_value(builder, simd.zero())
                    builder.store(simd.zero(), sums[tap, channel, copy])
        pixels = self.shape.pixels
        whole = builder.sdiv(s["columns"], I64(pixels))
        done = builder.mul(whole, I64(pixels))
        with cgutils.for_range(builder, self.rows) as row:
            x_row = simd.at(x, builder.mul(row.index, s["x_row"]))
            dout_row = simd.at(self.dout, builder.mul(row.index, s["dout_row"]))
            with cgutils.for_range(builder, whole) as loop:
                self._pixels(sums, channels, x_row, dout_row, builder.mul(loop.index, I64(pixels)), self.shape)
            with cgutils.for_range(builder, s["columns"], start=done) as loop:
                self._pixels(sums, channels, x_row, dout_row, loop.index, self.shape._replace(pixels=1))
        for tap in range(taps):
            place = simd.at(to, builder.mul(s["w_tap"], I64(tap)))
            for channel in channels:
                total = builder.load(sums[tap, channel, 0])
                for copy in range(1, self.copies):
                    total = builder.fadd(total, builder.load(sums[tap, channel, copy]))
                simd.store(builder.fadd(simd.load(place), total), place)
                place = simd.at(place, s["w_channel"])

    def _pixels(self, sums, channels, x, dout, first, shape):
        """The products of neighbouring pixels; each number of x is spread once for all taps that meet there."""
        simd, builder, lanes = self.simd, self.builder, I64(self.simd.lanes)
        x = simd.at(x, builder.mul(first, builder.mul(lanes, I64(shape.stride))))
        dout = simd.at(dout, builder.mul(first, lanes))
        factors: dict[int, object] = {}
        for column, uses in shape.reads.items():
            for pixel, _ in uses:
                if pixel not in factors:
                    factors[pixel] = simd.load(simd.at(dout, pixel * simd.lanes))
            for channel in channels:
                value = self.spread(simd.at(x, column * simd.lanes), channel)
                for pixel, tap in uses:
                    cell = sums[tap, channel, pixel % self.copies]
                    total = simd.multiply_add(value, factors[pixel], builder.load(cell))
                    builder.store(simd.compute_here(total), cell)
