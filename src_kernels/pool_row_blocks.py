"""Pooling with vectors over the columns of a plane: the loops that forward and backward passes share.

Rows are groups of GROUP numbers: single columns with channels first, pixels of few channels with channels last. A block
is as many pixels of out or dout as fit into a vector: `span` numbers of out or dout, STRIDE times as many of x. Blocks
at the ends of rows load with masks, which are made once for all rows. They store with masks too, unless blocks are
vectors that fit into the row (`whole`): then the last one begins early enough to end where the row does, and repeats
numbers of the one before. (On Zen 3 a masked load costs little more than a plain one, a masked store 12 cycles.)
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.pool_vectors import (
    BLOCKS,
    FACTORS,
    KINDS_WITH_MASK,
    SOURCE,
    TARGET,
    PoolEmitter,
    TableReader,
)
from fastconv._kernels.simd import I64

CODE_BITS = 8


def pixels_of_block(itemsize: int, group: int) -> int:
    """Pixels of out or dout in one block."""
    return MACHINE.lanes(itemsize) // group


def vectors_of_window(taps: int, stride: int, dilation: int) -> int:
    """Vectors that the columns of one block of windows take, as registers: what may be too many."""
    return min(stride, taps) * ((taps - 1) * dilation // stride + 1)


class Place(NamedTuple):
    """Where a block begins in rows of the source and the target, and whether all its lanes lie inside of both."""

    source: ir.Value
    target: ir.Value
    inside: ir.Value


class Rows:
    """The loops over rows and blocks that both directions share."""

    def __init__(self, builder, kind, itemsize, usual, taps, stride, dilation, group, before, whole):
        self.builder, self.kind, self.usual = builder, kind, usual
        self.before, self.whole = before, whole
        self.simd = PoolEmitter(builder, itemsize, CODE_BITS)
        self.taps, self.stride, self.dilation, self.group = taps, stride, dilation, group
        self.lanes = self.simd.lanes
        self.pixels = pixels_of_block(itemsize, group)
        self.span = self.pixels * group

    def emit(self, source, target, extra, table, begin, end):
        simd, builder = self.simd, self.builder
        reader = TableReader(simd, table)
        self.reader = reader
        self.source, self.target = simd.pointer(source), simd.pointer(target)
        self.extra = simd.pointer(extra, simd.code if self.kind in KINDS_WITH_MASK else simd.scalar)
        self.source_width, self.target_width = reader.field(SOURCE), reader.field(TARGET)
        self.col_factors = reader.field(FACTORS)
        starts, self.cells, self.codes = (reader.list(i) for i in range(3))
        with simd.over(I64(0), reader.field(BLOCKS)) as block:
            place = self.place(block)
            with builder.if_else(place.inside) as (whole, partial):
                for branch, all_lanes in ((whole, True), (partial, False)):
                    with branch:
                        masks = self.masks(place, all_lanes)
                        with simd.over(begin, end) as row:
                            first, last = reader.entry(starts, row), reader.entry(starts, builder.add(row, I64(1)))
                            self.row(row, first, last, place, masks)

    def begin(self, block, per_block: int, width):
        """Where a block of `per_block` numbers begins in a row of `width`."""
        begin = self.builder.mul(block, I64(per_block))
        if not self.whole:
            return begin
        last = self.builder.sub(width, I64(per_block))
        return self.builder.select(self.builder.icmp_signed("<", begin, last), begin, last)

    def place(self, block) -> Place:
        raise NotImplementedError

    def masks(self, place: Place, all_lanes: bool):
        """Make what a block needs for every row; returns the masks to store with."""
        raise NotImplementedError

    def row(self, row, first, last, place: Place, stored):
        """One row of the target, made of the entries `first` to `last` of the lists."""
        raise NotImplementedError

    def over_rows(self, first, last, body):
        """body(number in the lists, offset of the row of source) for all rows that this row is made of."""
        self.simd.for_each(first, last, self.usual, lambda q: body(q, self.reader.entry(self.cells, q)))

    def all_of(self, *conditions):
        result = conditions[0]
        for condition in conditions[1:]:
            result = self.builder.and_(result, condition)
        return result
