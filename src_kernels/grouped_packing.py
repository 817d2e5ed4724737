"""Image rows as blocks of one vector of channels per pixel, from either layout: what the tiles of groups read.

Rows come one after the other, with room for columns of padding between them; `places` lists where each pixel goes.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.blocks import transposed
from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback, helper
from fastconv._kernels.simd import I64, Emitter, address_of, call_address, integers


class Packing(NamedTuple):
    """How an operand is brought into scratch memory; strides and offsets count numbers."""

    height: int
    width: int
    image: int
    pixel: int  # from a channel of one pixel to the next pixel's
    channel: int  # from channel to channel: 1 for channels-last
    channels: int
    unit_channels: int
    blocks: int  # vectors of channels of a unit
    lanes: int
    joined: int  # 1: the channels of neighbouring units follow each other block by block
    above: int  # rows of padding in scratch memory
    step: int  # rows from one output row to the next
    rows: int  # of a block
    row: int  # numbers of a row of a block
    block: int  # from block to block


@cache
def pack_planes(itemsize: int):
    """Callback (dst, block, places, src, stride, pixels, channels): dst[c // lanes * block + places[i] + c % lanes]
    = src[c * stride + i] for i < pixels, c < channels; lanes of the last block past `channels` hold copies."""
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def planes(dst, block, places, src, stride, pixels, channels):
        _emit_pack_planes(ITEMSIZE, BITS, dst, block, places, src, stride, pixels, channels)

    return compile_callback(planes, integers(7))


@cache
def pack_pixels(itemsize: int):
    """As `pack_planes`, from src[i * stride + c]; lanes past `channels` are zero."""
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def pixels(dst, block, places, src, stride, pixels, channels):
        _emit_pack_pixels(ITEMSIZE, BITS, dst, block, places, src, stride, pixels, channels)

    return compile_callback(pixels, integers(7))


@cache
def unpack_pixels(itemsize: int):
    """Callback (dst, stride, src, block, pixels, channels): dst[i * stride + c] = src[c // lanes * block + i * lanes +
    c % lanes] for i < pixels, c < channels."""
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def unpack(dst, stride, src, block, pixels, channels):
        _emit_unpack_pixels(ITEMSIZE, BITS, dst, stride, src, block, pixels, channels)

    return compile_callback(unpack, integers(6))


@intrinsic(prefer_literal=True)
def _emit_pack_planes(typingctx, ITEMSIZE, BITS, dst, block, places, src, stride, pixels, channels):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, block, places, src, stride, pixels, channels = args[2:]
        dst, src, places = simd.pointer(dst), simd.pointer(src), simd.pointer(places, I64)
        lanes, size = I64(simd.lanes), simd.lanes
        last = builder.sub(channels, I64(1))
        whole = builder.sdiv(pixels, lanes)
        left = builder.sub(pixels, builder.mul(whole, lanes))
        present = simd.first_lanes(left)

        def columns(sources, to, first, mask):
            vectors = [simd.load(simd.at(source, first), mask) for source in sources]
            for i, vector in enumerate(transposed(simd, vectors)):
                if mask is None:
                    simd.store(vector, simd.at(to, builder.load(simd.at(places, builder.add(first, I64(i))))))
                else:
                    with builder.if_then(builder.icmp_signed("<", I64(i), left)):
                        simd.store(vector, simd.at(to, builder.load(simd.at(places, builder.add(first, I64(i))))))

        with cgutils.for_range(builder, builder.sdiv(builder.add(last, lanes), lanes)) as loop:
            to = simd.at(dst, builder.mul(loop.index, block))
            sources = []
            for i in range(size):
                channel = builder.add(builder.mul(loop.index, lanes), I64(i))
                channel = builder.select(builder.icmp_signed("<", channel, last), channel, last)
                sources.append(simd.at(src, builder.mul(channel, stride)))
            with cgutils.for_range(builder, whole) as group:
                columns(sources, to, builder.mul(group.index, lanes), None)
            with builder.if_then(builder.icmp_signed(">", left, I64(0))):
                columns(sources, to, builder.mul(whole, lanes), present)
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, dst, block, places, src, stride, pixels, channels), codegen


@intrinsic(prefer_literal=True)
def _emit_pack_pixels(typingctx, ITEMSIZE, BITS, dst, block, places, src, stride, pixels, channels):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, block, places, src, stride, pixels, channels = args[2:]
        dst, src, places = simd.pointer(dst), simd.pointer(src), simd.pointer(places, I64)
        lanes = I64(simd.lanes)
        whole = builder.sdiv(channels, lanes)
        done = builder.mul(whole, lanes)
        has_tail, tail = builder.icmp_signed("<", done, channels), simd.first_lanes(builder.sub(channels, done))
        with cgutils.for_range(builder, pixels) as pixel:
            to = simd.at(dst, builder.load(simd.at(places, pixel.index)))
            source = simd.at(src, builder.mul(pixel.index, stride))
            with cgutils.for_range(builder, whole) as loop:
                vector = simd.load(simd.at(source, builder.mul(loop.index, lanes)))
                simd.store(vector, simd.at(to, builder.mul(loop.index, block)))
            with builder.if_then(has_tail):
                simd.store(simd.load(simd.at(source, done), tail), simd.at(to, builder.mul(whole, block)))
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, dst, block, places, src, stride, pixels, channels), codegen


@intrinsic(prefer_literal=True)
def _emit_unpack_pixels(typingctx, ITEMSIZE, BITS, dst, stride, src, block, pixels, channels):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, stride, src, block, pixels, channels = args[2:]
        dst, src = simd.pointer(dst), simd.pointer(src)
        lanes = I64(simd.lanes)
        whole = builder.sdiv(channels, lanes)
        done = builder.mul(whole, lanes)
        has_tail, tail = builder.icmp_signed("<", done, channels), simd.first_lanes(builder.sub(channels, done))
        with cgutils.for_range(builder, pixels) as pixel:
            to = simd.at(dst, builder.mul(pixel.index, stride))
            source = simd.at(src, builder.mul(pixel.index, lanes))
            with cgutils.for_range(builder, whole) as loop:
                vector = simd.load(simd.at(source, builder.mul(loop.index, block)))
                simd.store(vector, simd.at(to, builder.mul(loop.index, lanes)))
            with builder.if_then(has_tail):
                simd.store(simd.load(simd.at(source, builder.mul(whole, block))), simd.at(to, done), tail)
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, dst, stride, src, block, pixels, channels), codegen


@helper
def pack_rows(pack, x, places, scratch, image, row, unit, units, g):
    """Input rows `row` ... of some units -> scratch, whose columns of padding are zero already."""
    item = x.itemsize
    above = min(max(-row, 0), g.rows)
    end = max(min(g.height - row, g.rows), above)
    for block in range(units * g.blocks):
        own = scratch[block * g.block :]
        own[: above * g.row] = 0
        own[end * g.row : g.rows * g.row] = 0
    target = address_of(scratch) + above * g.row * item
    source = address_of(x) + (image * g.image + (row + above) * g.width * g.pixel) * item
    pixels = (end - above) * g.width
    stride = g.pixel if g.channel == 1 else g.channel
    step = units if g.joined else 1
    for first in range(0, units, step):
        channel = (unit + first) * g.unit_channels
        channels = min(step * g.unit_channels, g.channels - channel)
        to, start = target + first * g.blocks * g.block * item, source + channel * g.channel * item
        call_address(pack, (to, g.block, address_of(places), start, stride, pixels, channels))
