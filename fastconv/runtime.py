"""Threads, caches and settings: how many cores are used, and what keeps callers' threads and forks alive."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastconv import idle

if TYPE_CHECKING:
    from fastconv._kernels.launch import Kernel


def _preload_tbb() -> None:
    """Make pip's `tbb` findable: it lies in <prefix>/lib, where Numba's own look-up does not reach."""
    library = Path(sys.prefix) / "lib" / "libtbb.so.12"
    if library.exists():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


_preload_tbb()
idle.shorten_openmp()
idle.shorten_openblas()

import numba  # noqa: E402  (after tbb is loaded)
import numpy as np  # noqa: E402
from numba.core.compiler_lock import global_compiler_lock  # noqa: E402

from fastconv._kernels import jit  # noqa: E402
from fastconv._kernels.isa import LINE_BYTES, MACHINE  # noqa: E402

# Below this many multiply-adds (or elements moved, times 8) a launch of the thread pool costs more than it saves:
# 2 to 4 us with OpenMP or TBB against 0.1 ms of work at 10 GFLOP/s.
SERIAL_BELOW = 400_000

_MOST_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
_threads = _MOST_THREADS
_threads_here: contextvars.ContextVar[int | None] = contextvars.ContextVar("fastconv_threads", default=None)

_max_workspace = 64 * 2**20

_autotune = os.environ.get("FASTCONV_AUTOTUNE", "").lower() in ("1", "true", "yes", "on")
autotune_wanted = _autotune  # ever, by anybody: until then no call looks further
_autotune_here: contextvars.ContextVar[bool | None] = contextvars.ContextVar("fastconv_autotune", default=None)

_launch_lock = threading.Lock()
_layer: str | None = None  # Numba's threading layer, known from the first parallel launch on
_launcher = 0  # what stands for all slots, as long
_starter: int | None = None  # the Python thread whose launch here started the layer
_serial_after_fork = False
_threads_before_fork = 1


def _started_layer() -> str | None:
    """The threading layer, if anybody's code has started it."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None


def _before_fork() -> None:
    """Wait until no thread compiles: the child would wait for ever for the compiler's lock."""
    global _threads_before_fork
    global_compiler_lock.acquire()
    _threads_before_fork = threading.active_count()


def _after_fork_in_child() -> None:
    """Stay serial in a child whose copy of the thread pool would end or hang it.

    GNU OpenMP ends a child at its first parallel region if the parent had one, ours or anybody's. TBB survives forks
    from the thread that started it while no other thread is inside a kernel, and hangs otherwise.
    """
    global _launch_lock, _serial_after_fork
    global_compiler_lock.release()
    starting = _launch_lock.locked()
    _launch_lock = threading.Lock()  # another thread of the parent may have held it
    layer = _started_layer()
    alone = _threads_before_fork == 1 and _starter == threading.get_ident()
    if starting or layer == "omp" or (layer is not None and not alone):
        _serial_after_fork = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_child=_after_fork_in_child, after_in_parent=global_compiler_lock.release
    )


def _check_threads(n: int) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"number of threads must be an integer, got {type(n).__name__}")
    n = n.__index__()
    if not 1 <= n <= _MOST_THREADS:
        raise ValueError(f"number of threads must be between 1 and {_MOST_THREADS} (NUMBA_NUM_THREADS), got {n}")
    return n


def set_num_threads(n: int) -> None:
    """Set how many threads every following call may use, in all Python threads.

    Raises
    ------
    ValueError : `n` is not between 1 and the number of cores (or NUMBA_NUM_THREADS).
    """
    global _threads
    _threads = _check_threads(n)


def get_num_threads() -> int:
    """How many threads a call made here may use."""
    here = _threads_here.get()
    return _threads if here is None else here


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use `n` threads for the calls made inside a `with` block by this Python thread (or asyncio task)."""
    token = _threads_here.set(_check_threads(n))
    try:
        yield
    finally:
        _threads_here.reset(token)


def set_max_workspace(nbytes: int) -> None:
    """Set how many bytes of scratch memory a pass of a convolution may use, in all Python threads (64 MiB at first).

    Padded copies, packed weights and transforms count; operands and results do not. A pass that would use more runs on
    some images of the batch at a time; it uses more only where one image does, and then up to twice what the
    algorithm needs that needs the least.

    Raises
    ------
    ValueError : `nbytes` is negative. TypeError : it is no integer.
    """
    global _max_workspace
    if isinstance(nbytes, bool) or not hasattr(nbytes, "__index__"):
        raise TypeError(f"max_workspace must be an integer, got {type(nbytes).__name__}")
    if nbytes.__index__() < 0:
        raise ValueError(f"max_workspace must be at least 0 bytes, got {nbytes}")
    _max_workspace = nbytes.__index__()


def get_max_workspace() -> int:
    """How many bytes of scratch memory a pass of a convolution may use."""
    return _max_workspace


def set_autotune(enabled: bool) -> None:
    """Choose algorithms by measuring them, in all Python threads; off at first, unless FASTCONV_AUTOTUNE is 1.

    The first call of each new problem and pass, with algorithm "auto" or "fast", then times the algorithms that this
    class admits on operands of its own, which takes some tens of milliseconds and compiles them all. The choice is
    kept in memory and on disk (in FASTCONV_CACHE_DIR, or the user's cache folder) for this machine, version and number
    of threads; `explain_conv2d` shows it and `clear_cache` deletes it.

    Raises
    ------
    TypeError : `enabled` is no bool.

    Examples
    --------
    >>> set_autotune(False)
    >>> get_autotune()
    False
    """
    global _autotune, autotune_wanted
    _autotune = _check_autotune(enabled)
    autotune_wanted |= enabled


def get_autotune() -> bool:
    """Whether a call made here chooses its algorithm by measuring."""
    here = _autotune_here.get()
    return _autotune if here is None else here


@contextlib.contextmanager
def autotune(enabled: bool = True) -> Iterator[None]:
    """Choose by measuring (or not) inside a `with` block, in this Python thread (or asyncio task)."""
    global autotune_wanted
    token = _autotune_here.set(_check_autotune(enabled))
    autotune_wanted |= enabled
    try:
        yield
    finally:
        _autotune_here.reset(token)


def _check_autotune(enabled: bool) -> bool:
    if not isinstance(enabled, bool):
        raise TypeError(f"autotune must be True or False, got {enabled!r}")
    return enabled


def slots_for(work: float) -> int:
    """How many slots to split `work` (multiply-adds, or elements moved times 8) over."""
    if work < SERIAL_BELOW or _serial_after_fork:
        return 1
    return get_num_threads()


def launch(kernel: Kernel, work: float, *args: Any) -> None:
    """Run a kernel on as many threads as `work` (multiply-adds, or elements moved times 8) deserves."""
    run_on(kernel, slots_for(work), *args)


def run_on(kernel: Kernel, slots: int, *args: Any) -> None:
    """Run a kernel on exactly `slots` slots (as `slots_for` gave them): for kernels with scratch per slot.

    The workqueue layer aborts the process when two Python threads launch at once, so there every launch is made
    under a lock; so is the first launch, which starts the layer.
    """
    global _layer, _launcher, _starter
    if slots == 1:
        kernel.compiled(0, 1, *args)
    elif _layer is None:
        with _launch_lock:
            from fastconv._kernels.launch import launcher

            _starter = threading.get_ident() if _started_layer() is None else _starter
            _launcher = launcher()
            kernel.compiled(_launcher, slots, *args)
            _layer = numba.threading_layer()
    elif _layer == "workqueue":
        with _launch_lock:
            kernel.compiled(_launcher, slots, *args)
    else:
        kernel.compiled(_launcher, slots, *args)


def run_tasks(kernel: Kernel, slots: int, *args: Any) -> None:
    """As `run_on`, for kernels whose slots take tasks: `kernel(slot, slots, counters, *args)`, see `next_task`."""
    run_on(kernel, slots, np.zeros((slots, LINE_BYTES // 8), np.int64), *args)


def clear_cache() -> int:
    """Delete the compiled kernels and the measured choices that were kept on disk; returns how many files these were.

    Choices in memory are forgotten too (see `set_autotune`).
    """
    from fastconv import plan

    return jit.clear_cache() + plan.forget_measured()


def warmup(*, float64: bool = False) -> float:
    """Compile the kernels of a small network, forward and backward, and keep them on disk; returns the seconds taken.

    Later processes then start without compiling. `float64` compiles those of float64 too.
    """
    from fastconv.warmup import warmup as run

    return run(float64=float64)


def compile_seconds() -> float:
    """Seconds this process has spent compiling kernels (loading compiled ones from disk is not counted)."""
    return jit.COMPILE_CLOCK.seconds


def show_config() -> dict[str, Any]:
    """Print, and return as a dict, what decides speed here: versions, vector unit, threads, cache folder."""
    import llvmlite
    import numpy

    import fastconv
    from fastconv.autotune import file

    thread_variables = (
        "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT", "OMP_NUM_THREADS", "NUMBA_THREADING_LAYER",
    )  # fmt: skip
    settings = {
        "fastconv": fastconv.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "vector unit": f"{MACHINE.name}, {MACHINE.vector_bits} bits, {'with' if MACHINE.fma else 'without'} FMA",
        "threads": get_num_threads(),
        "threading layer": _layer or "not started",
        "serial after fork": _serial_after_fork,
        "max workspace": get_max_workspace(),
        "kernel cache": str(jit.CACHE_DIRECTORY) if jit.CACHE_DIRECTORY else "none: no writable folder",
        "autotune": f"{'on' if get_autotune() else 'off'}, {file(get_num_threads()) or 'none: no folder'}",
        "environment": {name: os.environ[name] for name in thread_variables if name in os.environ},
    }
    width = max(map(len, settings))
    for name, value in settings.items():
        print(f"{name:{width}}  {value}")
    return settings
