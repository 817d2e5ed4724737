"""Products on the matrix unit (AMX): float32 matrices as three bfloat16 parts each, 16 x 16 sums at a time.

A float32 number is the exact sum of three bfloat16 numbers, its high, middle and low part (see `bfloat_parts`): 3 x 8
bits of 24. Of the nine products of two numbers' parts, six carry what float32 holds; the others are below 2**-22 of the
result:

    a * b  =  ah bh + ah bm + am bh + am bm + ah bl + al bh

The unit multiplies tiles of 16 rows x 32 parts with tiles of 32 parts x 16 columns in 16 cycles and adds up in float32.
So six of its products take 96 cycles for what 16 x 2 x 16 multiply-adds of 512 bits take 256 for.

Three of its eight registers are used: one of sums, one for each operand. Where another thread of the core is busy, the
unit has few registers beside the eight to rename them to: with four of sums and two for each operand, which loads half
as many tiles, a product took 33 ns there and 10 elsewhere, with three 16 and 9 (an Emerald Rapids, weights and pixels
from the second-level cache; as many multiply-adds of 512 bits: 30 and 17). Where both operands lie in the first-level
cache, it takes 12 and 7. So a few steps of some filters' weights stay there, while the pixels stream past and their
sums are loaded and stored.

A tile of A holds 16 rows, each `depth` parts side by side; one of B holds depth / 2 rows of 16 pairs of parts, a pair
for each column. Channels-last, pixels are the rows of A and filters the columns of B; channels-first, filters are the
rows of A and pixels the columns of B. Rows of pixels lie evenly spaced in memory, anywhere, those of weights side by
side.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I8, I64, Emitter, integers, read_sizes

SIDE = 16  # rows and columns of a tile
ROW_BYTES = 4 * SIDE
MOST_DEPTH = 32  # parts that a row of A's tile holds
TILE_NUMBERS = SIDE * SIDE
# Which part of x meets which of w (0: high), small ones first, so that one tile is loaded at a time.
_ORDERS = {3: ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0)), 2: ((1, 0), (0, 0), (0, 1))}
SUMS, A, B = range(3)  # registers


class Products(NamedTuple):
    """Sizes of `matrix_tile`, as an int64 table; all in bytes but `steps`. `places` are addresses of tables."""

    steps: int
    x_places: int  # of each step's tile, beside the first
    w_places: int
    x_row: int  # from one row of a tile to the next
    x_part: int  # from the high part to the middle one
    w_part: int
    w_tile: int  # from one tile of a step to the next
    start_row: int  # of what sums start with
    start_tile: int
    c_row: int
    c_tile: int


def configuration(depth: int) -> np.ndarray:
    """What `configure` reads: the sizes of the registers, for products of `depth` (even) at a time."""
    config = np.zeros(64, np.uint8)
    bytes_of, rows_of = config[16:32].view(np.uint16), config[48:56]
    config[0], bytes_of[:], rows_of[:] = 1, ROW_BYTES, SIDE
    bytes_of[A], rows_of[B] = 2 * depth, depth // 2
    return config


@cache
def matrix_tile(parts: int, planes: bool):
    """Callback (sizes, x, w, start, c, next_c, tiles): c = start + the sum over steps of x and w, for `tiles` of w.

    `sizes` is the address of a table of `Products`. Sums are rows of pixels, with `planes` of filters. Unless `next_c`
    is 0, the lines of c are asked for a tile ahead, those at `next_c` last.
    """
    PARTS, PLANES = parts, int(planes)

    def multiply(sizes, x, w, start, c, next_c, tiles):
        _emit_products(PARTS, PLANES, sizes, x, w, start, c, next_c, tiles)

    return compile_callback(multiply, integers(7))


@intrinsic(prefer_literal=True)
def _emit_products(typingctx, PARTS, PLANES, sizes, x, w, start, c, next_c, tiles):
    order = _ORDERS[PARTS.literal_value]
    X, W = (B, A) if PLANES.literal_value else (A, B)

    def codegen(context, builder, signature, args):
        sizes, x, w, start, c, next_c, tiles = args[2:]
        simd = Emitter(builder, 4)
        unit = _Unit(simd)
        g = read_sizes(simd, Products, sizes)
        x_places, w_places = simd.pointer(g["x_places"], I64), simd.pointer(g["w_places"], I64)

        def plus(address, step, times):
            return builder.add(address, builder.mul(step, times if isinstance(times, ir.Value) else I64(times)))

        with cgutils.for_range(builder, tiles) as tile:
            target = plus(c, g["c_tile"], tile.index)
            with builder.if_then(builder.icmp_signed("!=", next_c, I64(0))):
                last = builder.icmp_signed("==", builder.add(tile.index, I64(1)), tiles)
                line = builder.select(last, next_c, builder.add(target, g["c_tile"]))
                for row in range(SIDE):
                    simd.prefetch(simd.pointer(plus(line, g["c_row"], row)), write=True)
            unit.load(SUMS, plus(start, g["start_tile"], tile.index), g["start_row"])
            w_first = plus(w, g["w_tile"], tile.index)
            with cgutils.for_range(builder, g["steps"]) as step:
                x_high = builder.add(x, builder.load(simd.at(x_places, step.index)))
                w_high = builder.add(w_first, builder.load(simd.at(w_places, step.index)))
                x_held = w_held = None
                for x_part, w_part in order:
                    if x_part != x_held:
                        unit.load(X, plus(x_high, g["x_part"], x_part), g["x_row"])
                    if w_part != w_held:
                        unit.load(W, plus(w_high, g["w_part"], w_part), I64(ROW_BYTES))
                    x_held, w_held = x_part, w_part
                    unit.multiply(SUMS, A, B)
            unit.store(SUMS, target, g["c_row"])
        return context.get_dummy_value()

    return types.void(PARTS, PLANES, sizes, x, w, start, c, next_c, tiles), codegen


class _Unit:
    """Emits the unit's instructions; registers are numbers."""

    def __init__(self, simd: Emitter):
        self.simd = simd

    def load(self, register, address, row):
        """16 rows of up to 64 bytes, `row` bytes apart."""
        self._call("tileloadd64", [I8(register), self.simd.pointer(address, I8), row])

    def store(self, register, address, row):
        self._call("tilestored64", [I8(register), self.simd.pointer(address, I8), row])

    def multiply(self, sums, a, b):
        self._call("tdpbf16ps", [I8(sums), I8(a), I8(b)])

    def _call(self, name, arguments):
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.simd.builder.module, kind, f"llvm.x86.{name}")
        self.simd.builder.call(function, arguments)


@intrinsic
def configure(typingctx, config):
    """Size this thread's registers as the 64 bytes (array of uint8) of a `configuration` say, and clear them."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        unit = _Unit(Emitter(builder, 4))
        unit._call("ldtilecfg", [builder.bitcast(data, I8.as_pointer())])
        return context.get_dummy_value()

    return types.none(config), codegen


@intrinsic
def release(typingctx):
    """Give this thread's registers back: afterwards the system need not keep them when it changes threads."""

    def codegen(context, builder, signature, args):
        _Unit(Emitter(builder, 4))._call("tilerelease", [])
        return context.get_dummy_value()

    return types.none(), codegen
