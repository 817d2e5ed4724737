"""Vector code from Numba: the few LLVM operations that the register tile, copies and transposes are emitted with.

`@intrinsic` functions hand Numba an LLVM builder. `Emitter` wraps it with the vector width of `isa.MACHINE` for one
item size, so that the emitting code reads like the loops it stands for.
"""

from __future__ import annotations

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import LINE_BYTES, MACHINE

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)


class Emitter:
    """Emits loads, stores and arithmetic on vectors of `lanes` floats of `itemsize` bytes: a register's, or fewer.

    Lanes whose sums nobody reads hold zeros or numbers all the same, never what happens to lie in scratch: as floats,
    tables of integers are denormal, which Intel's processors take some hundred cycles for (3x3, dx of 3 channels by
    "winograd2x2": 4 ms, and 215 on such memory).
    """

    def __init__(self, builder: ir.IRBuilder, itemsize: int, lanes: int | None = None):
        self.builder = builder
        self.itemsize = itemsize
        self.lanes = lanes or MACHINE.lanes(itemsize)
        self.scalar = ir.FloatType() if itemsize == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.mask = ir.VectorType(I1, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * itemsize}"

    def pointer(self, address, element=None):
        """An address (i64) as a pointer to scalars, or to `element`."""
        return self.builder.inttoptr(address, (element or self.scalar).as_pointer())

    def at(self, pointer, index):
        return self.builder.gep(pointer, [index if isinstance(index, ir.Value) else I64(index)])

    def zero(self):
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def load(self, pointer, mask=None):
        """A vector from any element-aligned place; lanes outside `mask` are not read and give zero."""
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            # NumPy promises element alignment only; without this, aligned moves would fault.
            return self.builder.load(pointer, align=self.itemsize)
        masked_load = self._declare(
            f"llvm.masked.load.{self.suffix}.p0", self.vector, [self.vector.as_pointer(), I32, self.mask, self.vector]
        )
        return self.builder.call(masked_load, [pointer, I32(self.itemsize), mask, self.zero()])

    def store(self, value, pointer, mask=None):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=self.itemsize)
            return
        masked_store = self._declare(
            f"llvm.masked.store.{self.suffix}.p0",
            ir.VoidType(),
            [self.vector, self.vector.as_pointer(), I32, self.mask],
        )
        self.builder.call(masked_store, [value, pointer, I32(self.itemsize), mask])

    def store_first(self, value, pointer, count):
        """Store the first `count` (i64, 1 .. lanes) lanes: by halves, quarters and so on where masked stores are slow.

        They take tens of cycles on AVX2 processors of AMD, and without AVX they become a branch per lane.
        """
        if MACHINE.vector_bits == 512:
            self.store(value, pointer, self.first_lanes(count))
            return
        builder = self.builder
        whole = cgutils.alloca_once(builder, self.vector)
        builder.store(value, whole)
        source, size = builder.bitcast(whole, self.scalar.as_pointer()), self.lanes
        while size:
            with builder.if_then(builder.icmp_signed("!=", builder.and_(count, I64(size)), I64(0))):
                part = ir.VectorType(self.scalar, size).as_pointer()
                place = builder.and_(count, I64(-2 * size))  # what larger parts have stored
                numbers = builder.load(builder.bitcast(self.at(source, place), part), align=self.itemsize)
                builder.store(numbers, builder.bitcast(self.at(pointer, place), part), align=self.itemsize)
            size //= 2

    def for_vectors(self, width, emit):
        """emit(first, mask) for the vectors of `width` numbers: without a mask but for a last one that is not whole.

        Masked stores take tens of cycles on AVX2 processors of AMD, even those that store all lanes.
        """
        builder, lanes = self.builder, I64(self.lanes)
        whole = builder.sdiv(width, lanes)
        with cgutils.for_range(builder, whole) as vector:
            emit(builder.mul(vector.index, lanes), None)
        first = builder.mul(whole, lanes)
        with builder.if_then(builder.icmp_signed("<", first, width)):
            emit(first, self.first_lanes(builder.sub(width, first)))

    def copy_half(self, source, target):
        """Half a vector of numbers from one place to another."""
        half = ir.VectorType(self.scalar, self.lanes // 2).as_pointer()
        value = self.builder.load(self.builder.bitcast(source, half), align=self.itemsize)
        self.builder.store(value, self.builder.bitcast(target, half), align=self.itemsize)

    def prefetch(self, pointer, *, write=False):
        """Ask for the cache line at `pointer`, which may lie anywhere: nothing is read, nothing faults."""
        pointer = self.builder.bitcast(pointer, I8.as_pointer())
        function = self._declare("llvm.prefetch.p0", ir.VoidType(), [pointer.type, I32, I32, I32])
        self.builder.call(function, [pointer, I32(int(write)), I32(3), I32(1)])

    def first_lanes(self, count):
        """The mask of the first `count` (i64, any value) lanes."""
        numbers = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self._splat(count, I64))

    def lanes_inside(self, first, count):
        """The mask of the lanes for which first + lane (first: i64, any value) lies in 0 .. count - 1."""
        numbers = ir.Constant(ir.VectorType(I32, self.lanes), list(range(self.lanes)))
        places = self.builder.add(self._splat(self.builder.trunc(first, I32), I32), numbers)
        return self.builder.icmp_unsigned("<", places, self._splat(self.builder.trunc(count, I32), I32))

    def lanes_below(self, count):
        """`first_lanes` of a count (i64) that fits 32 bits, in one comparison."""
        numbers = ir.Constant(ir.VectorType(I32, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self._splat(self.builder.trunc(count, I32), I32))

    def compare(self, how, numbers, count):
        """The mask of the lanes whose number (of a list of integers) compares with a count (i64) that fits 32 bits."""
        constants = ir.Constant(ir.VectorType(I32, self.lanes), numbers)
        return self.builder.icmp_signed(how, constants, self._splat(self.builder.trunc(count, I32), I32))

    def expanded(self, pointer, mask):
        """Neighbouring numbers from `pointer` on, one for each lane in `mask` in turn; zero in the others."""
        function = self._declare(
            f"llvm.masked.expandload.{self.suffix}", self.vector, [self.scalar.as_pointer(), self.mask, self.vector]
        )
        return self.builder.call(function, [pointer, mask, self.zero()])

    def compressed(self, value, mask):
        """The lanes in `mask` side by side, then zeros (AVX-512)."""
        function = self._declare(
            f"llvm.x86.avx512.mask.compress.{self.suffix}", self.vector, [self.vector, self.vector, self.mask]
        )
        return self.builder.call(function, [value, self.zero(), mask])

    def gather(self, pointer, step, mask):
        """pointer[lane * step] of the lanes in `mask`, zero in the others."""
        function = self._declare(
            f"llvm.masked.gather.{self.suffix}.v{self.lanes}p0",
            self.vector,
            [self._pointers, I32, self.mask, self.vector],
        )
        return self.builder.call(function, [self._places(pointer, step), I32(self.itemsize), mask, self.zero()])

    def scatter(self, value, pointer, step, mask):
        function = self._declare(
            f"llvm.masked.scatter.{self.suffix}.v{self.lanes}p0",
            ir.VoidType(),
            [self.vector, self._pointers, I32, self.mask],
        )
        self.builder.call(function, [value, self._places(pointer, step), I32(self.itemsize), mask])

    @property
    def _pointers(self):
        return ir.VectorType(self.scalar.as_pointer(), self.lanes)

    def _places(self, pointer, step):
        numbers = ir.Constant(ir.VectorType(I64, self.lanes), [lane * self.itemsize for lane in range(self.lanes)])
        base = self._splat(self.builder.ptrtoint(pointer, I64), I64)
        places = self.builder.add(base, self.builder.mul(numbers, self._splat(step, I64)))
        return self.builder.inttoptr(places, self._pointers)

    def broadcast(self, scalar):
        return self._splat(scalar, self.scalar)

    def multiply_add(self, a, b, c):
        """a * b + c: one instruction where the machine has it."""
        if not MACHINE.fma:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        # builder.fma refuses vectors, so the intrinsic is declared by its mangled name.
        return self.builder.call(self._declare(f"llvm.fma.{self.suffix}", self.vector, [self.vector] * 3), [a, b, c])

    def sum_of_lanes(self, vector):
        """In any order: pairs of halves instead of one lane after the other."""
        add = self._declare(f"llvm.vector.reduce.fadd.{self.suffix}", self.scalar, [self.scalar, self.vector])
        return self.builder.call(add, [ir.Constant(self.scalar, 0.0), vector], fastmath=("reassoc",))

    def keep_order(self):
        """Forbid moving loads across this point (an empty assembler statement that claims to touch memory).

        LLVM likes to load all broadcasts of a step first, which spills: the 8 x 3 tile then ran 78 instead of
        270 GFLOP/s on a core.
        """
        barrier = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", side_effect=True)
        self.builder.call(barrier, [])

    def compute_here(self, value):
        """The same vector, which must be computed before what follows an empty assembler statement like this one.

        `keep_order` holds back loads only; arithmetic whose operands all lie in registers sinks below it, until the
        registers run out: the 8 x 3 `dot_tile` then took 24 instead of 14 cycles a step, `tile_sweep` 20 instead of 13.
        """
        register = "w" if MACHINE.name == "NEON" else "v"
        kind = ir.FunctionType(self.vector, [self.vector])
        return self.builder.call(ir.InlineAsm(kind, "", f"={register},0,~{{memory}}", side_effect=True), [value])

    def relu(self, value):
        """max(value, 0) that keeps NaN: only what compares below zero becomes zero."""
        return self.builder.select(self.builder.fcmp_ordered("<", value, self.zero()), self.zero(), value)

    def floor(self, asked):
        """What `raised` raises to: zeros where `asked` (a bit) for ReLU, otherwise nothing."""
        return self.broadcast(self.builder.select(asked, self.scalar(0.0), self.scalar(float("-inf"))))

    def raised(self, value, floor):
        """max(value, floor) that keeps NaN: only what compares below the floor becomes the floor."""
        return self.builder.select(self.builder.fcmp_ordered("<", value, floor), floor, value)

    def shuffle(self, a, b, lanes):
        """Lanes of `a` (numbered from 0) and `b` (numbered on) in the given order."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))

    def _splat(self, scalar, element):
        vector = ir.VectorType(element, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        return self.builder.shuffle_vector(
            self.builder.insert_element(undefined, scalar, I32(0)),
            undefined,
            ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes),
        )

    def _declare(self, name, result, arguments):
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)


def read_sizes(simd: Emitter, kind, address) -> dict:
    """The fields of a NamedTuple of sizes, loaded from its int64 table."""
    table = simd.pointer(address, I64)
    return {name: simd.builder.load(simd.at(table, i)) for i, name in enumerate(kind._fields)}


@intrinsic
def address_of(typingctx, array):
    """The address of an array's first element (`array.ctypes.data` would make the kernel uncacheable)."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        return builder.ptrtoint(data, I64)

    return types.intp(array), codegen


@intrinsic
def call_address(typingctx, address, arguments):
    """Call the function at `address` with a tuple of integers; it must come from `jit.compile_callback`."""
    signature = types.void(address, arguments)

    def codegen(context, builder, signature, args):
        address, arguments = args
        values = cgutils.unpack_tuple(builder, arguments)
        function = builder.inttoptr(address, ir.FunctionType(ir.VoidType(), [I64] * len(values)).as_pointer())
        builder.call(function, values)
        return context.get_dummy_value()

    return signature, codegen


def _ask(address, count, write):
    """A generator of code that asks for the cache lines of `count` bytes from `address` on."""

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, 4)
        lines = builder.sdiv(builder.add(args[1], I64(LINE_BYTES - 1)), I64(LINE_BYTES))
        with cgutils.for_range(builder, lines) as line:
            place = builder.add(args[0], builder.mul(line.index, I64(LINE_BYTES)))
            simd.prefetch(simd.pointer(place), write=write)
        return context.get_dummy_value()

    return types.void(address, count), codegen


@intrinsic
def ask_for(typingctx, address, count):
    """Ask for the cache lines of `count` bytes from `address` on, to write to them."""
    return _ask(address, count, True)


@intrinsic
def ask_to_read(typingctx, address, count):
    """Ask for the cache lines of `count` bytes from `address` on."""
    return _ask(address, count, False)


def integers(count: int):
    """The signature of a callback that takes `count` integers: void(intp, ...)."""
    return numba.void(*[types.intp] * count)
