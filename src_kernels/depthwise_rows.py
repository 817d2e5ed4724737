"""What the tiles of depthwise convolution share: a few output rows at a time, each input row loaded once per column.

    out[m][v] = bias + sum over taps (r, t) of  w[r, t] * x[row + m * stride + r * spacing][column(t) + v]

A tile holds one vector of each of `cells` neighbouring output rows. At each column tap it loads the input rows that
the cells need and uses every one for all (cell, row tap) pairs that meet there: 9 loads instead of 21 for 7 cells of
a 3x3 kernel. Padding is not copied: rows outside the plane are read from a row of zeros. The gradient of x is the
same sum over dout with other offsets, one per stride phase.

Kernels with more row taps than registers, or that lie too far apart to share rows, take `taps` 1: the tile loops over
row taps outside.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils

from fastconv._kernels.simd import I64, Emitter

BIAS, RELU = 1, 2  # flags: bias per plane or channel; max(., 0)


class Rows(NamedTuple):
    """What is unrolled: `cells` output rows, `taps` row taps; rows of a cell's neighbour and of the next tap."""

    cells: int
    taps: int
    stride: int
    spacing: int

    @property
    def reads(self) -> dict[int, list[tuple[int, int]]]:
        """Input row -> the (cell, tap) pairs that use it."""
        reads: dict[int, list[tuple[int, int]]] = {}
        for cell in range(self.cells):
            for tap in range(self.taps):
                reads.setdefault(cell * self.stride + tap * self.spacing, []).append((cell, tap))
        return dict(sorted(reads.items()))


class RowsEmitter:
    """Accumulators of the cells: cleared, summed up over taps; `sizes` are those of the tile, read by it."""

    def __init__(self, builder: ir.IRBuilder, rows: Rows, itemsize: int):
        self.builder, self.rows, self.simd = builder, rows, Emitter(builder, itemsize)
        self.sizes: dict = {}

    def row_pointers(self, x, zeros, row, step):
        """Pointers to the input rows that the cells read, from row number `row` on; `zeros` for those outside."""
        pointers = {}
        for read in self.rows.reads:
            number = self.builder.add(row, I64(read) if step is None else self.builder.mul(step, I64(read)))
            pointers[read] = self.select_row(x, zeros, number)
        return pointers

    def select_row(self, x, zeros, number):
        builder, sizes = self.builder, self.sizes
        inside = builder.icmp_unsigned("<", number, sizes["height"])
        return builder.select(inside, self.simd.at(x, builder.mul(number, sizes["x_row"])), zeros)

    def cleared(self, value):
        """A vector for each cell that starts as `value`: LLVM turns them into registers."""
        cells = [cgutils.alloca_once_value(self.builder, self.simd.zero()) for _ in range(self.rows.cells)]
        for cell in cells:
            self.builder.store(value, cell)
        return cells

    def multiply(self, cells, pointers, load, weights):
        """Every cell's sum grows by the row taps at one column tap."""
        builder = self.builder
        for read, uses in self.rows.reads.items():
            vector = load(read, pointers[read])
            for cell, tap in uses:
                total = self.simd.multiply_add(weights[tap], vector, builder.load(cells[cell]))
                builder.store(total, cells[cell])

    def asked(self, flags, flag):
        return self.builder.icmp_signed("!=", self.builder.and_(flags, I64(flag)), I64(0))

    def least(self, flags):
        """The lower bound of results: zero for ReLU, otherwise none."""
        return self.simd.floor(self.asked(flags, RELU))
