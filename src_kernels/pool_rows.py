"""Pooling with vectors over the columns of a plane: windows of a small constant size, stride and dilation."""

from __future__ import annotations

from functools import cache

from numba import types
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.pool_rows_backward import Backward
from fastconv._kernels.pool_rows_forward import Forward
from fastconv._kernels.pool_vectors import ARGUMENTS, CHOSEN, SPREAD
from fastconv._kernels.simd import integers


@cache
def rows_kernel(
    kind: int, itemsize: int, usual: int, taps: int, stride: int, dilation: int, group: int, before: int, whole: bool
):
    """The compiled pass over rows made of (as a rule) `usual` rows, with `taps` columns per window, for `pool`.

    `before` is the padding of a row and `whole` says that it ends with a whole block; see `pool_row_blocks`.
    """
    KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP = kind, itemsize, usual, taps, stride, dilation, group
    BEFORE, WHOLE = before, int(whole)
    BITS = MACHINE.vector_bits

    def pool_rows(source, target, extra, table, begin, end):
        _emit_rows(
            KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP, BEFORE, WHOLE, BITS,
            source, target, extra, table, begin, end,
        )  # fmt: skip

    return compile_callback(pool_rows, integers(ARGUMENTS))


@intrinsic(prefer_literal=True)
def _emit_rows(
    typingctx, KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP, BEFORE, WHOLE, BITS,
    source, target, extra, table, begin, end,
):  # fmt: skip
    constants = KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP, BEFORE, WHOLE
    kind, *shape = [constant.literal_value for constant in constants]
    signature = types.void(*constants, BITS, source, target, extra, table, begin, end)

    def codegen(context, builder, signature, args):
        emitter = Backward if kind in (CHOSEN, SPREAD) else Forward
        emitter(builder, kind, *shape).emit(*args[10:])
        return context.get_dummy_value()

    return signature, codegen
