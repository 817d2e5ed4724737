"""How long idle threads of the two pools, ours and NumPy's, wait in a loop before they sleep.

A thread that waits in a loop keeps a core busy. With two pools on the same cores, each waits through the other's work:
on 2 cores, a convolution that alternates with a NumPy matmul took 0.19 -> 3.1 ms and 4.4 -> 15 ms, the matmul 1.1 ->
4.9 ms. Waiting is worth as long as waking a thread takes, no more: 25 to 45 us where a thread that waits answers in
3 us. GNU OpenMP waits for 6 ms or more, OpenBLAS for 20 ms. They are told to wait for 0.2 and 0.1 ms: kernels that
follow each other still find threads awake, and in turns a convolution of 0.37 ms takes 0.55 ms, a matmul of 1.9 ms 2.1.

Each variable is left alone if the user has set it, and taken out of the environment again. This module must be imported
before Numba loads its OpenMP pool; NumPy may have been imported before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

# 20 ns each. With 4000, threads sleep between the launches of calls of 1 ms: ResNet-50's layers of one image ran at
# 0.79 of the best peer, with 10,000 and more at 0.88 (three runs each), and LeNet-5's training step gains 5 %. Products
# of 0.3 and 2 ms in turns with convolutions take 15 and 5 % longer for it; with 25,000 it is 17 and 21 %.
OPENMP_SPINS = "10000"
OPENBLAS_TIMEOUT = "18"  # 2**18 ticks of the processor's clock


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def shorten_openmp() -> None:
    """Load Numba's OpenMP pool with a short waiting time; it is read once, when GNU OpenMP is loaded."""
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ or not sys.platform.startswith("linux"):
        return
    with _variable("GOMP_SPINCOUNT", OPENMP_SPINS), contextlib.suppress(ImportError):
        import numba.np.ufunc.omppool  # noqa: F401


def _openblas_libraries() -> list[str]:
    """Paths of the copies of OpenBLAS in this process (NumPy's and SciPy's)."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {Path(line.split(maxsplit=5)[-1]) for line in lines if "openblas" in line}
    return [str(path) for path in sorted(paths) if "openblas" in path.name and path.is_file()]


def shorten_openblas() -> None:
    """Have OpenBLAS read a short waiting time and stop its threads; the next product starts them again.

    It stops them itself before a fork. Only while this is the one Python thread, so that none is inside a product.
    """
    if "OPENBLAS_THREAD_TIMEOUT" in os.environ or not sys.platform.startswith("linux"):
        return
    if threading.active_count() > 1:
        return
    with _variable("OPENBLAS_THREAD_TIMEOUT", OPENBLAS_TIMEOUT), contextlib.suppress(OSError):
        for path in _openblas_libraries():
            library = ctypes.CDLL(path)
            if hasattr(library, "openblas_read_env") and hasattr(library, "blas_thread_shutdown_"):
                library.openblas_read_env()
                library.blas_thread_shutdown_()
