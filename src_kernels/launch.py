"""How kernels run on all threads: one launcher, the library's one `prange`, calls any kernel once per slot.

A kernel does the share of one slot, `kernel(slot, slots, ...)`. Where the launcher stands in place of the slot, it
hands the launcher its own arguments instead, which lie on the caller's stack until all slots are done:

    @Kernel
    def thing(slot, slots, x, out):
        if slot < 0:
            return on_every_slot(slot, slots)
        ...

All slots are done when `on_every_slot` returns, and only then: what needs the work of all belongs behind it, not at the
end of a slot's share (see `reduce.bias_gradient`).

So a kernel is compiled once. A twin with a `prange` of its own takes 1.5 to 2.5 times as long to compile as the kernel
itself (4.1 beside 2.4 s for `over_filters`).
"""

from __future__ import annotations

from llvmlite import ir
from numba import intp, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import LINE_BYTES
from fastconv._kernels.jit import helper, jit
from fastconv._kernels.simd import I32, I64, call_address

_CALL = ir.FunctionType(ir.VoidType(), [I64, I64])  # (slot, frame)
_LAUNCH = ir.FunctionType(ir.VoidType(), [I64, I64, I64])  # (slots, call, frame)


@jit(parallel=True)
def _run_slots(slots, call, frame):
    for slot in prange(slots):
        call_address(call, (intp(slot), frame))


def launcher() -> int:
    """What kernels take in place of a slot to run on all of them: the launcher's address, negated.

    The first call loads the launcher, and with it Numba's pool of threads.
    """
    signature = (intp, intp, intp)
    _run_slots.compile(signature)
    compiled = _run_slots.overloads[signature]
    return -compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)


@intrinsic
def on_every_slot(typingctx, launcher, slots):
    """Run the kernel that calls this, with its own arguments, for every slot; its first argument is `launcher`."""

    def codegen(context, builder, signature, args):
        launcher, slots = args
        kernel = builder.function
        result, error, _, *others = kernel.args  # Numba's convention: where both go, then the arguments, slot first
        frame_type = ir.LiteralStructType([argument.type for argument in others])
        frame = cgutils.alloca_once_value(builder, cgutils.make_anonymous_struct(builder, others, frame_type))

        call = ir.Function(builder.module, _CALL, f"{kernel.name}.slot")
        call.linkage = "internal"
        inner = ir.IRBuilder(call.append_basic_block())
        slot, address = call.args
        given = inner.inttoptr(address, frame_type.as_pointer())
        values = [inner.load(inner.gep(given, [I32(0), I32(i)])) for i in range(len(others))]
        # Kernels raise nothing: results and errors are left where they are.
        unused = [cgutils.alloca_once(inner, pointer.type.pointee) for pointer in (result, error)]
        inner.call(kernel, [*unused, slot, *values], attrs=("noinline",))
        inner.ret_void()

        launch = builder.inttoptr(builder.neg(launcher), _LAUNCH.as_pointer())
        builder.call(launch, [slots, builder.ptrtoint(call, I64), builder.ptrtoint(frame, I64)])
        return context.get_dummy_value()

    return types.none(launcher, slots), codegen


@intrinsic
def _take(typingctx, counters, owner):
    """Count up the counter of a slot; returns what it was."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        place = builder.gep(data, [builder.mul(args[1], I64(LINE_BYTES // 8))])
        return builder.atomic_rmw("add", place, I64(1), "monotonic")

    return types.intp(counters, owner), codegen


@helper
def next_task(counters, slot, slots, tasks):
    """The next of a kernel's tasks for a slot, or `tasks` if there is none: first its own, then those of others.

    A slot's own tasks follow each other, mostly through the images, so that it finds in its cache what it made in the
    launch before (a step of LeNet: convolutions and pooling ran 1.1 to 1.3 times as fast as with one counter for all).
    Then it helps out, since cores are unequal. `counters` are zeros, (slots, LINE_BYTES // 8) int64.
    """
    for turn in range(slots):
        owner = (slot + turn) % slots
        task = owner * tasks // slots + _take(counters, owner)
        if task < (owner + 1) * tasks // slots:
            return task
    return tasks


class Kernel:
    """Decorator of work that is split over slots: `compiled(slot, slots, *args)`, see `fastconv.runtime.launch`."""

    def __init__(self, function, *, allocates=False):
        self.compiled = jit(function, allocates=allocates, no_cfunc_wrapper=True)


def allocating_kernel(function):
    """A kernel that makes arrays of its own: it hands them to a `@helper`, whose views count no references."""
    return Kernel(function, allocates=True)
