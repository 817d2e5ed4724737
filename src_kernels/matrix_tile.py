"""Products on the matrix unit (AMX): float32 matrices as three bfloat16 parts each, 32 x 32 sums at a time.

A float32 number is the exact sum of three bfloat16 numbers, its high, middle and low part (see `bfloat_parts`): 3 x 8
bits of 24. Of the nine products of two numbers' parts, six carry what float32 holds; the others are below 2**-22 of the
result:

    a * b  =  ah bh + ah bm + am bh + am bm + ah bl + al bh

The unit multiplies tiles of 16 rows x 32 parts with tiles of 32 parts x 16 columns in 16 cycles and adds up in float32.
So six of its products take 96 cycles for what 16 x 2 x 16 multiply-adds of 512 bits take 256 for, from a sixth of the
loads: 385 GFLOP/s beside 165 on a core of an Emerald Rapids. Where another thread of the core is busy, it takes twice
as long.

A tile of A holds 16 rows, each `depth` parts side by side; one of B holds depth / 2 rows of 16 pairs of parts, a pair
for each column. Rows lie evenly spaced in memory, anywhere.
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
# Which part of A meets which of B (0: high), so that few tiles are loaded: by number of parts and shape (tiles of A,
# tiles of B).
_ORDERS = {
    3: {
        (2, 2): ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0)),
        (4, 1): ((2, 0), (1, 0), (0, 0), (1, 1), (0, 1), (0, 2)),
    },
    2: {
        (2, 2): ((1, 0), (0, 0), (0, 1)),
        (4, 1): ((1, 0), (0, 0), (0, 1)),
    },
}
# Registers 0 to 3 hold sums, the other four are split between A and B.
_A_REGISTERS = {(2, 2): (4, 5), (4, 1): (4, 5, 6)}
_B_REGISTERS = {(2, 2): (6, 7), (4, 1): (7,)}


class Products(NamedTuple):
    """Sizes of `matrix_tile`, as an int64 table; all in bytes but `steps`. `places` are addresses of tables."""

    steps: int
    a_places: int  # of each step's tiles, beside the first
    b_places: int
    a_row: int  # from one row of a tile to the next
    b_row: int
    a_part: int  # from the high part to the middle one
    b_part: int
    a_tile: int  # from one tile of a step to the next
    b_tile: int
    start_row: int  # of what sums start with
    start_down: int  # to the tile below, and to the tile beside
    start_right: int
    c_row: int
    c_down: int
    c_right: int


def configuration(shape: tuple[int, int], depth: int) -> np.ndarray:
    """What `configure` reads: the sizes of the eight registers, for products of `depth` (even) at a time."""
    config = np.zeros(64, np.uint8)
    bytes_of, rows_of = config[16:32].view(np.uint16), config[48:56]
    config[0], bytes_of[:], rows_of[:] = 1, ROW_BYTES, SIDE
    for register in _A_REGISTERS[shape]:
        bytes_of[register] = 2 * depth
    for register in _B_REGISTERS[shape]:
        rows_of[register] = depth // 2
    return config


@cache
def matrix_tile(shape: tuple[int, int], parts: int):
    """Callback (sizes, a, b, start, c, far): c = start + the sum over steps of A * B, for tiles of `shape`.

    `sizes` is the address of a table of `Products`; the thread must be configured for `shape`. With `far`, the lines of
    c are asked for beforehand.
    """
    (DOWN, RIGHT), PARTS = shape, parts

    def multiply(sizes, a, b, start, c, far):
        _emit_products(DOWN, RIGHT, PARTS, sizes, a, b, start, c, far)

    return compile_callback(multiply, integers(6))


@intrinsic(prefer_literal=True)
def _emit_products(typingctx, DOWN, RIGHT, PARTS, sizes, a, b, start, c, far):
    shape, order = (DOWN.literal_value, RIGHT.literal_value), _ORDERS[PARTS.literal_value]

    def codegen(context, builder, signature, args):
        sizes, a, b, start, c, far = args[3:]
        simd = Emitter(builder, 4)
        unit = _Unit(simd)
        g = read_sizes(simd, Products, sizes)
        down, right = shape
        cells = [(i, j) for i in range(down) for j in range(right)]

        def place(base, kind, i, j):
            over = builder.add(builder.mul(g[f"{kind}_down"], I64(i)), builder.mul(g[f"{kind}_right"], I64(j)))
            return builder.add(base, over)

        for register, (i, j) in enumerate(cells):
            unit.load(register, place(start, "start", i, j), g["start_row"])
        with builder.if_then(builder.icmp_signed("!=", far, I64(0))):
            for i, j in cells:
                line = place(c, "c", i, j)
                for row in range(SIDE):
                    simd.prefetch(simd.pointer(builder.add(line, builder.mul(g["c_row"], I64(row)))), write=True)
        a_places, b_places = simd.pointer(g["a_places"], I64), simd.pointer(g["b_places"], I64)
        with cgutils.for_range(builder, g["steps"]) as step:
            begin = {
                "a": builder.add(a, builder.load(simd.at(a_places, step.index))),
                "b": builder.add(b, builder.load(simd.at(b_places, step.index))),
            }
            registers = {"a": list(_A_REGISTERS[shape]), "b": list(_B_REGISTERS[shape])}
            held: dict[int, tuple] = {}

            def loaded(operand, tile, part, begin=begin, registers=registers, held=held):
                """The register that holds a tile; the one that was loaded first makes room."""
                for register in registers[operand]:
                    if held.get(register) == (operand, tile, part):
                        return register
                register = registers[operand].pop(0)
                registers[operand].append(register)
                held[register] = operand, tile, part
                over_tiles = builder.mul(g[f"{operand}_tile"], I64(tile))
                over_parts = builder.mul(g[f"{operand}_part"], I64(part))
                address = builder.add(begin[operand], builder.add(over_tiles, over_parts))
                unit.load(register, address, g[f"{operand}_row"])
                return register

            for a_part, b_part in order[shape]:
                for register, (i, j) in enumerate(cells):
                    unit.multiply(register, loaded("a", i, a_part), loaded("b", j, b_part))
        for register, (i, j) in enumerate(cells):
            unit.store(register, place(c, "c", i, j), g["c_row"])
        return context.get_dummy_value()

    return types.void(DOWN, RIGHT, PARTS, sizes, a, b, start, c, far), codegen


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
