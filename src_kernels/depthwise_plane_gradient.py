"""Gradient of the weights of channels-first planes that keep their size, with one channel per group.

    dw[r, s] = sum over images and q of  x[q + start + r * row_step + s * col_step] * dout[q]

With stride 1 and as much padding as the kernel takes away, every tap is one shift of the whole plane: vectors run
through all of its numbers without regard to rows, and the sums of all taps stay in registers. Lanes that a shift takes
out of the plane, or into another row, are left out by masks that are made once per problem: for the vectors at both
ends of a plane one for each tap, for those between, whose rows all exist, one for each kernel column.

For vector units whose masks are registers (AVX-512). Tasks are (split of the images, some channels).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import I64, Emitter, address_of, call_address, integers, read_sizes


class PlaneSums(NamedTuple):
    """The table that `plane_sums` reads, as int64; steps count numbers."""

    numbers: int  # of a plane
    vectors: int
    inner_first: int  # the vectors whose rows all exist: inner_first .. inner_end - 1
    inner_end: int
    start: int  # of the first tap
    row_step: int
    col_step: int
    sum_vectors: int  # added up in registers before they join a plane's other sums


@cache
def plane_sums(rows: int, cols: int, itemsize: int):
    """Callback (sizes, masks, x, dout, sums, planes): adds to the vectors `sums` (planes, taps) the products of each
    plane of x with its plane of dout; planes lie one after the other.

    `masks` are integers of a bit per lane: (inner vectors, cols), then (vectors at the ends, taps).
    """
    ROWS, COLS, ITEMSIZE, BITS = rows, cols, itemsize, MACHINE.vector_bits

    def add(sizes, masks, x, dout, sums, planes):
        _emit(ROWS, COLS, ITEMSIZE, BITS, sizes, masks, x, dout, sums, planes)

    return compile_callback(add, integers(6))


@intrinsic(prefer_literal=True)
def _emit(typingctx, ROWS, COLS, ITEMSIZE, BITS, sizes, masks, x, dout, sums, planes):
    def codegen(context, builder, signature, args):
        rows, cols, itemsize = (t.literal_value for t in (ROWS, COLS, ITEMSIZE))
        _SumsEmitter(builder, rows, cols, itemsize, *args[4:6]).emit(*args[6:])
        return context.get_dummy_value()

    return types.void(ROWS, COLS, ITEMSIZE, BITS, sizes, masks, x, dout, sums, planes), codegen


class _SumsEmitter:
    def __init__(self, builder, rows, cols, itemsize, sizes, masks):
        self.builder, self.simd = builder, Emitter(builder, itemsize)
        self.taps, self.cols = [(r, s) for r in range(rows) for s in range(cols)], cols
        self.sizes = read_sizes(self.simd, PlaneSums, sizes)
        self.inner_masks = self.simd.pointer(masks, ir.IntType(self.simd.lanes))
        inner = builder.sub(self.sizes["inner_end"], self.sizes["inner_first"])
        self.end_masks = self.simd.at(self.inner_masks, builder.mul(inner, I64(cols)))
        self.cells = [cgutils.alloca_once(builder, self.simd.vector) for _ in self.taps]

    def emit(self, x, dout, sums, planes):
        simd, builder = self.simd, self.builder
        x, dout, sums = (simd.pointer(p) for p in (x, dout, sums))
        with cgutils.for_range(builder, planes) as plane:
            first = builder.mul(plane.index, self.sizes["numbers"])
            self.x, self.dout = simd.at(x, first), simd.at(dout, first)
            sums_of_plane = simd.at(sums, builder.mul(plane.index, I64(len(self.taps) * simd.lanes)))
            self._sum_ends(sums_of_plane)
            self._sum_inner(sums_of_plane)

    def _sum_ends(self, sums):
        builder, s = self.builder, self.sizes
        self._clear()
        with cgutils.for_range(builder, I64(2)) as end:
            front = builder.icmp_signed("==", end.index, I64(0))
            first = builder.select(front, I64(0), s["inner_end"])
            behind = builder.select(front, s["inner_first"], s["vectors"])
            before = builder.select(front, I64(0), s["inner_first"])
            with cgutils.for_range(builder, builder.sub(behind, first)) as each:
                row = builder.add(before, each.index)
                masks = self._masks(self.end_masks, row, len(self.taps))
                self._multiply(builder.add(first, each.index), masks, whole=False)
        self._join(sums)

    def _sum_inner(self, sums):
        builder, s = self.builder, self.sizes
        with cgutils.for_range_slice(builder, s["inner_first"], s["inner_end"], s["sum_vectors"]) as (begin, _):
            end = builder.add(begin, s["sum_vectors"])
            end = builder.select(builder.icmp_signed("<", end, s["inner_end"]), end, s["inner_end"])
            self._clear()
            with cgutils.for_range_slice(builder, begin, end, I64(1)) as (vector, _):
                masks = self._masks(self.inner_masks, builder.sub(vector, s["inner_first"]), self.cols)
                self._multiply(vector, [masks[col] for _, col in self.taps], whole=True)
            self._join(sums)

    def _clear(self):
        for cell in self.cells:
            self.builder.store(self.simd.zero(), cell)

    def _multiply(self, vector, masks, *, whole):
        """Every tap's sum grows by the products of one vector of dout, which may end with the plane."""
        simd, builder, s = self.simd, self.builder, self.sizes
        place = builder.mul(vector, I64(simd.lanes))
        left = None if whole else simd.lanes_below(builder.sub(s["numbers"], place))
        factor = simd.load(simd.at(self.dout, place), left)
        begin = simd.at(simd.at(self.x, place), s["start"])
        for (row, col), cell, mask in zip(self.taps, self.cells, masks, strict=True):
            line = simd.at(begin, builder.mul(s["row_step"], I64(row)))
            numbers = simd.load(simd.at(line, builder.mul(s["col_step"], I64(col))), mask)
            builder.store(simd.multiply_add(numbers, factor, builder.load(cell)), cell)

    def _join(self, sums):
        simd, builder = self.simd, self.builder
        for number, cell in enumerate(self.cells):
            place = simd.at(sums, number * simd.lanes)
            simd.store(builder.fadd(simd.load(place), builder.load(cell)), place)

    def _masks(self, table, row, count):
        simd, first = self.simd, self.builder.mul(row, I64(count))
        places = [simd.at(simd.at(table, first), i) for i in range(count)]
        return [self.builder.bitcast(self.builder.load(place), simd.mask) for place in places]


class PlaneGradient(NamedTuple):
    """Sizes of one launch."""

    images: int
    split_images: int  # of a task
    channels: int
    share: int  # channels of a task
    numbers: int  # of a plane
    taps: int
    lanes: int


@Kernel
def plane_gradient(slot, slots, counters, add, fold, sizes, masks, x, dout, out, sums, g):
    """out (splits, channels * taps) = the gradients of w of some images each; `sums` is scratch, a row per slot."""
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    mine = sums[slot]
    shares = (g.channels + g.share - 1) // g.share
    tasks = len(out) * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        channel, split = task % shares * g.share, task // shares
        channels = min(g.share, g.channels - channel)
        mine[: channels * g.taps * g.lanes] = 0
        first = split * g.split_images
        for image in range(first, min(first + g.split_images, g.images)):
            place = (image * g.channels + channel) * g.numbers * item
            call_address(
                add,
                (
                    address_of(sizes), address_of(masks), address_of(x) + place, address_of(dout) + place,
                    address_of(mine), channels,
                ),
            )  # fmt: skip
        target = address_of(out) + (split * g.channels + channel) * g.taps * item
        call_address(fold, (target, address_of(mine), channels * g.taps))
