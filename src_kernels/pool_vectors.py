"""What the vector kernels of pooling share: their driver, the layout of their tables, the vector operations they need.

A pass reads `source` (and the mask), and writes `target` (and the mask) row by row, forward and backward alike; five
kinds differ in what is done with the numbers of a window:

    LARGEST        target = the largest number; NaN if there is one
    FIRST_LARGEST  the same, and mask = the code of the first largest cell (its tap, kh * KW + kw)
    MEAN           target = the sum over row_factor[oh] * col_factor[ow]
    CHOSEN         target += source where the mask names this cell: backward of FIRST_LARGEST
    SPREAD         target += source * row_factor[oh] * col_factor[ow]: backward of MEAN

Backward passes are gathers too: `Tables` list for each row of x the output rows whose windows contain it, so each
number of dx is written once and there is neither a pass of zeros nor a scatter.

`extra` is the mask, or the factors (row_factor followed by col_factor), or unused. A table is one int64 array: the
fields below, then lists that `LISTS` point at. Rows of the target are the tasks; no two tasks write the same cell.
"""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir
from numba.core import cgutils

from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import I8, I32, I64, Emitter, address_of, call_address

LARGEST, FIRST_LARGEST, MEAN, CHOSEN, SPREAD = range(5)
KINDS_WITH_MASK = (FIRST_LARGEST, CHOSEN)

# Fields of a table. PITCH: bytes from plane to plane of source, target and extra. SOURCE, TARGET: numbers in a row.
PLANES, ROWS, SOURCE_PITCH, TARGET_PITCH, EXTRA_PITCH, SOURCE, TARGET = range(7)
CHANNELS = 7  # numbers per pixel
BLOCKS = COLUMNS = 8  # in a target row: blocks of vectors for rows, pixels for channels
FACTORS = 9  # where col_factor begins in extra
BAND = 10  # rows of a call: where they are long, blocks of neighbouring rows follow each other
EXTRA_START = 11  # bytes before the first code of a mask
LISTS = 12  # where the lists begin in the table: STARTS, CELLS, TAPS of the rows, then those of the columns
FIELDS = LISTS + 6
ARGUMENTS = 6  # of a callback: source, target, extra, table, first row, end row

# The processor follows the two rows of a window badly: 2x2 on 8x64x112x112, one core, took 1.8 ms without prefetching,
# 0.97, 0.74 and 0.53 ms with it 1, 4 and 8 KB ahead; writing dx 0.96 ms without and 0.63 ms 8 KB ahead.
PREFETCH_BYTES = 8192

# Codes beyond the end of a row are read, and meet numbers that are zero: AVX2 has no masked load of bytes (one of 8 was
# 8 branches, and the gradient of 3x3 windows on 28x28 took 7 times as long). So masks have room for a vector on both
# sides.
MASK_ROOM = 16
READ, WRITE = 0, 1


@Kernel
def pool(slot, slots, callback, source, target, extra, table):
    """Run `callback` on this slot's share of the rows of all planes."""
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, rows = table[PLANES], table[ROWS]
    row, end = slot * planes * rows // slots, (slot + 1) * planes * rows // slots
    while row < end:
        plane = row // rows
        first = row - plane * rows
        count = min(rows - first, end - row, table[BAND])
        call_address(
            callback,
            (
                address_of(source) + plane * table[SOURCE_PITCH],
                address_of(target) + plane * table[TARGET_PITCH],
                address_of(extra) + table[EXTRA_START] + plane * table[EXTRA_PITCH],
                address_of(table),
                first,
                first + count,
            ),
        )
        row += count


class PoolEmitter(Emitter):
    """Vectors of floats, of integers of the same width (places and codes), and of the mask's narrow codes."""

    def __init__(self, builder: ir.IRBuilder, itemsize: int, code_bits: int):
        super().__init__(builder, itemsize)
        self.integer = ir.IntType(8 * itemsize)
        self.integers = ir.VectorType(self.integer, self.lanes)
        self.code = ir.IntType(code_bits)
        self.codes = ir.VectorType(self.code, self.lanes)
        self.lowest = ir.Constant(self.vector, [float("-inf")] * self.lanes)

    def numbers(self, values):
        """A constant vector of integers; a single one is repeated."""
        return ir.Constant(self.integers, [values] * self.lanes if isinstance(values, int) else list(values))

    def splat(self, value):
        """An i64 in every lane, as wide as the floats."""
        return self._splat(value if self.integer == I64 else self.builder.trunc(value, self.integer), self.integer)

    def within(self, first, offsets, end):
        """Lanes with 0 <= first + offset < end: one comparison, since negative numbers are huge unsigned ones."""
        places = self.builder.add(self.splat(first), self.numbers(offsets))
        return self.builder.icmp_unsigned("<", places, self.splat(end))

    def prefetch(self, pointer, purpose: int):
        """Ask for the cache line PREFETCH_BYTES further on: a hint, which is no fault at any address."""
        pointer = self.builder.gep(self.builder.bitcast(pointer, I8.as_pointer()), [I64(PREFETCH_BYTES)])
        function = self._declare("llvm.prefetch.p0", ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        self.builder.call(function, [pointer, I32(purpose), I32(3), I32(1)])

    def variable(self, value):
        """A register that loops change; LLVM removes the allocation."""
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    @contextmanager
    def over(self, begin, end):
        """A loop over begin <= i < end."""
        with cgutils.for_range(self.builder, self.builder.sub(end, begin)) as loop:
            yield self.builder.add(begin, loop.index)

    def for_each(self, begin, end, usual: int, body):
        """body(i) for begin <= i < end, without a loop where there are `usual` of them (0: never).

        The loops over the rows and columns of windows run two or three times: LLVM unrolls them eightfold and the
        remainder is what runs.
        """
        if not usual:
            with self.over(begin, end) as i:
                body(i)
            return
        count = self.builder.sub(end, begin)
        with self.builder.if_else(self.builder.icmp_signed("==", count, I64(usual))) as (straight, loop):
            with straight:
                for i in range(usual):
                    body(self.builder.add(begin, I64(i)))
            with loop, self.over(begin, end) as i:
                body(i)

    def load_or(self, pointer, mask, otherwise):
        """`load`, with a constant in the lanes that are not read."""
        if mask is None:
            return self.load(pointer)
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        function = self._declare(
            f"llvm.masked.load.{self.suffix}.p0", self.vector, [self.vector.as_pointer(), I32, self.mask, self.vector]
        )
        return self.builder.call(function, [pointer, I32(self.itemsize), mask, otherwise])

    def load_codes(self, pointer):
        """The codes at a place, in integers of the floats' width."""
        builder = self.builder
        codes = builder.load(builder.bitcast(pointer, self.codes.as_pointer()), align=self.code.width // 8)
        return builder.zext(codes, self.integers) if self.code.width < self.integer.width else codes

    def store_codes(self, value, pointer, count=None):
        """Store integers of the floats' width as narrow codes, the first `count` (i64) of them in powers of two."""
        builder, number = self.builder, self.lanes
        if self.code.width < self.integer.width:
            value = builder.trunc(value, self.codes)
        if count is None:
            builder.store(value, builder.bitcast(pointer, self.codes.as_pointer()), align=self.code.width // 8)
            return
        while number > 1:
            number //= 2
            taken = builder.icmp_unsigned("!=", builder.and_(count, I64(number)), I64(0))
            part = ir.VectorType(self.code, number)
            with builder.if_then(taken):
                first = builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(I32, number), list(range(number)))
                )
                builder.store(first, builder.bitcast(pointer, part.as_pointer()), align=self.code.width // 8)
            rest = [(lane + number) % self.lanes for lane in range(self.lanes)]
            value = builder.select(taken, self.shuffle(value, value, rest), value)
            pointer = self.at(pointer, builder.select(taken, I64(number), I64(0)))

    def larger(self, new, old):
        """The larger number, NaN if either is NaN. `nsz`: which of two zeros is the larger does not matter."""
        maximum = self._declare(f"llvm.maximum.{self.suffix}", self.vector, [self.vector] * 2)
        return self.builder.call(maximum, [new, old], fastmath=("nsz",))

    def wins(self, new, old):
        """Where a later number replaces an earlier one: it is larger, or the first NaN."""
        builder = self.builder
        return builder.and_(builder.fcmp_unordered(">", new, old), builder.fcmp_ordered("ord", old, old))

    def added(self, total, value, mask):
        """total + value in the mask's lanes: a product with 0 would turn infinities into NaN."""
        return self.builder.fadd(total, self.builder.select(mask, value, self.zero()))


class TableReader:
    """The fields and lists of a table in emitted code."""

    def __init__(self, simd: PoolEmitter, address):
        self.simd = simd
        self.pointer = simd.pointer(address, I64)

    def field(self, number: int):
        return self.simd.builder.load(self.simd.at(self.pointer, number))

    def list(self, number: int):
        """The list that field LISTS + number points at."""
        return self.simd.at(self.pointer, self.field(LISTS + number))

    def entry(self, place, index):
        return self.simd.builder.load(self.simd.at(place, index))
