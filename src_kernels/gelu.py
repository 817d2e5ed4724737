"""GELU, x times the standard normal distribution function, and its gradient, as vector code.

With t = |x|, the left half of the distribution is P(-t) = exp(-t^2 / 2) * h(w) / (t + K), where h is smooth in
w = A - B / (t + K), which takes t = 0 .. END to -1 .. 1 (after M. M. Shepherd & J. G. Laframboise, "Chebyshev
approximation of (1 + 2x) exp(x^2) erfc(x)", 1981). The polynomials interpolate h at Chebyshev points, computed with
40 digits: relative errors 1.8e-8 (float32) and 4e-17 (float64). As P(-t) is never a difference, the left tail keeps its
relative precision; where exp(-t^2 / 2) would be denormal (t above 13 or 37) it is 0.

All arrays flat, of one size and dtype; slots take equal shares; results may be uninitialised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import I32, I64, Emitter, address_of, call_address, integers

VALUE, GRADIENT = range(2)


@dataclass(frozen=True)
class _Format:
    """The approximations for one item size."""

    integer: ir.IntType
    fraction_bits: int
    end: float
    K: float
    smallest: float  # exponents below it have no normal power of e
    ln2_high: float  # log 2 in so few bits that whole multiples are exact
    terms: int  # of the series of exp on [-log(2) / 2, log(2) / 2]
    h: tuple[float, ...]


_FORMATS = {
    4: _Format(
        I32, 23, 14.0, 2.5, -86.5, 355 / 512, 8,
        (0.775356969, -0.401188552, 0.090427302, 0.0113847241, -0.0074624947, -0.00154566711, 0.000613865311,
         0.000294746617, -2.61818768e-05, -3.580914e-05),
    ),
    8: _Format(
        I64, 52, 40.0, 5.0, -707.0, math.floor(math.log(2) * 2**40) / 2**40, 14,
        (0.8496957717177204, -0.7004649271683128, 0.4843749841428298, -0.27811948195867736, 0.12948165075053408,
         -0.046439848470962594, 0.011238259243209798, -0.000892236000337441, -0.0005313521491205502,
         0.00019836150632540007, 4.026957339606411e-06, -1.8309526360192415e-05, 1.9813449182821493e-06,
         1.631659380510775e-06, -3.140328359177676e-07, -1.6570565106942252e-07, 3.7177300934129605e-08,
         1.9534160441358848e-08, -3.645170416219309e-09, -2.318753793064673e-09, 2.3005342196801946e-10,
         1.8596840652008676e-10),
    ),
}  # fmt: skip


@cache
def gelu_function(kind: int, itemsize: int):
    """Callback (x, dout, out, count) of addresses: out = gelu(x), or dout times its slope at x; VALUE ignores dout."""
    KIND, ITEMSIZE, BITS = kind, itemsize, MACHINE.vector_bits

    def function(x, dout, out, count):
        _emit_gelu(KIND, ITEMSIZE, BITS, x, dout, out, count)

    return compile_callback(function, integers(4))


@intrinsic(prefer_literal=True)
def _emit_gelu(typingctx, KIND, ITEMSIZE, BITS, x, dout, out, count):
    kind, itemsize = KIND.literal_value, ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        x, dout, out = (simd.pointer(address) for address in args[3:6])
        count = args[6]

        def one(place, mask=None):
            value = simd.load(simd.at(x, place), mask)
            result = _value_or_slope(simd, kind, value)
            factor = value if kind == VALUE else simd.load(simd.at(dout, place), mask)
            simd.store(builder.fmul(factor, result), simd.at(out, place), mask)

        vectors = builder.sdiv(count, I64(simd.lanes))
        with cgutils.for_range(builder, vectors) as whole:
            one(builder.mul(whole.index, I64(simd.lanes)))
        done = builder.mul(vectors, I64(simd.lanes))
        with builder.if_then(builder.icmp_signed("<", done, count)):
            one(done, simd.lanes_below(builder.sub(count, done)))
        return context.get_dummy_value()

    return types.void(KIND, ITEMSIZE, BITS, x, dout, out, count), codegen


def _value_or_slope(simd: Emitter, kind: int, x):
    """P(x) for VALUE; P(x) + x * the density at x, the derivative of x * P(x), for GRADIENT."""
    builder, numbers = simd.builder, _FORMATS[simd.itemsize]
    negative = builder.fcmp_ordered("<", x, simd.zero())
    t = builder.select(negative, builder.fsub(simd.zero(), x), x)
    end = _constant(simd, numbers.end)
    t = builder.select(builder.fcmp_ordered(">", t, end), end, t)  # also of infinity; NaN stays
    power = _exponential(simd, builder.fmul(builder.fmul(t, t), _constant(simd, -0.5)))
    inverse = builder.fdiv(_constant(simd, 1.0), builder.fadd(t, _constant(simd, numbers.K)))
    # t = 0 has w = A - B / K = -1, t = END has w = A - B / (END + K) = 1.
    B = 2 * numbers.K * (numbers.end + numbers.K) / numbers.end
    w = simd.multiply_add(inverse, _constant(simd, -B), _constant(simd, B / numbers.K - 1))
    left = builder.fmul(builder.fmul(power, inverse), _polynomial(simd, w, numbers.h))
    below = builder.select(negative, left, builder.fsub(_constant(simd, 1.0), left))
    if kind == VALUE:
        return below
    density = builder.fmul(power, _constant(simd, 1 / math.sqrt(2 * math.pi)))
    return simd.multiply_add(builder.select(negative, builder.fsub(simd.zero(), t), t), density, below)


def _exponential(simd: Emitter, value):
    """e^value for value <= 0, and 0 below the smallest normal power: 2^n * e^rest with n = value / log 2, rounded."""
    builder, numbers = simd.builder, _FORMATS[simd.itemsize]
    vector = ir.VectorType(numbers.integer, simd.lanes)
    # Adding 1.5 * 2^fraction_bits rounds to an integer and leaves it in the sum's lowest bits.
    magic = _constant(simd, 1.5 * 2.0**numbers.fraction_bits)
    shifted = simd.multiply_add(value, _constant(simd, 1 / math.log(2)), magic)
    n = builder.fsub(shifted, magic)
    rest = simd.multiply_add(n, _constant(simd, -numbers.ln2_high), value)
    rest = simd.multiply_add(n, _constant(simd, numbers.ln2_high - math.log(2)), rest)
    series = _polynomial(simd, rest, tuple(1 / math.factorial(k) for k in range(numbers.terms)))
    shift = ir.Constant(vector, [numbers.fraction_bits] * simd.lanes)
    exponent = builder.shl(builder.bitcast(shifted, vector), shift)
    power = builder.bitcast(builder.add(builder.bitcast(series, vector), exponent), simd.vector)
    too_small = builder.fcmp_ordered("<", value, _constant(simd, numbers.smallest))
    return builder.select(too_small, simd.zero(), power)


def _polynomial(simd: Emitter, x, coefficients: tuple[float, ...]):
    result = _constant(simd, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = simd.multiply_add(result, x, _constant(simd, coefficient))
    return result


def _constant(simd: Emitter, number: float):
    return ir.Constant(simd.vector, [number] * simd.lanes)


@Kernel
def gelu(slot, slots, function, x, dout, out):
    """`function` is the address of a `gelu_function`."""
    if slot < 0:
        return on_every_slot(slot, slots)
    begin, end = slot * x.size // slots, (slot + 1) * x.size // slots
    place = begin * x.itemsize
    call_address(function, (address_of(x) + place, address_of(dout) + place, address_of(out) + place, end - begin))
