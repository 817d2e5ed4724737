"""The one jit wrapper: options, disk cache and its fallbacks for every kernel of the library."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
import time
import uuid
from pathlib import Path
from types import CodeType

import numba
from numba.core import caching, event
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature

# No `nnan` and no `ninf`: NaN must propagate through every kernel, and max pooling compares with -inf.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
_OPTIONS = {"nopython": True, "fastmath": FASTMATH, "error_model": "numpy", "boundscheck": False}

_SOURCES = Path(__file__).resolve().parent


def _hash_sources() -> str:
    """One hash over all kernel files and the compiler's version: Numba's own key sees only a function's own file."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for path in sorted(_SOURCES.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCE_HASH = _hash_sources()


def _writable(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError:
        return False
    return True


def user_cache() -> Path | None:
    """The library's folder among the user's caches; None for a user without a home."""
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    else:
        folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "fastconv" if os.path.isabs(folder) else None


def _choose_cache_directory() -> Path | None:
    """The first writable of: NUMBA_CACHE_DIR, beside the sources, the user's cache folder; None if there is none."""
    candidates = [_SOURCES / "__pycache__", user_cache()]
    if numba.config.CACHE_DIR:
        candidates.insert(0, Path(numba.config.CACHE_DIR) / "fastconv")
    return next((directory for directory in candidates if directory is not None and _writable(directory)), None)


CACHE_DIRECTORY = _choose_cache_directory()


DIGEST_BYTES = hashlib.sha256().digest_size


class _OneFilePerKey:
    """Stores each compiled function under the hash of its whole key, replaced atomically.

    Numba keeps an index file beside numbered data files; two processes that save at once can leave an index that
    points at the other's code. With the key in the name there is no index to get wrong, and a file that cannot be
    read (truncated, damaged) means only that the function is compiled again.
    """

    def __init__(self, name: str):
        self._name = name

    def _path(self, key) -> Path:
        digest = hashlib.sha256(f"{SOURCE_HASH} {key!r}".encode()).hexdigest()
        return CACHE_DIRECTORY / f"{self._name}-{digest[:32]}.nbc"

    def load(self, key):
        try:
            content = self._path(key).read_bytes()
            digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
            # Machine code with a flipped bit would load; the checksum keeps it from running.
            return pickle.loads(data) if hashlib.sha256(data).digest() == digest else None
        except Exception:  # whatever unpickling foreign bytes raises: compile again and overwrite them
            return None

    def save(self, key, data) -> None:
        path = self._path(key)
        partial = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            content = pickle.dumps(data, protocol=-1)
            partial.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(partial, path)
        except OSError:  # a full or read-only disk costs compile time in the next process, nothing else
            partial.unlink(missing_ok=True)

    def flush(self) -> None:
        for path in CACHE_DIRECTORY.glob(f"{self._name}-*.nbc"):
            path.unlink(missing_ok=True)


class _Locator:
    """The part of Numba's locator protocol that its caches ask for."""

    def ensure_cache_path(self) -> None:
        CACHE_DIRECTORY.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(CACHE_DIRECTORY)

    def get_source_stamp(self) -> str:
        return SOURCE_HASH


class _Implementation(caching.CompileResultCacheImpl):
    def __init__(self, function):  # Numba's own constructor would search for a directory of its choosing
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator()
        self._filename_base = f"{function.__module__}.{function.__name__}"


class KernelCache(caching.FunctionCache):
    """Numba's disk cache over `_OneFilePerKey`; a cached object that does not load is compiled again."""

    _impl_class = _Implementation

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = _OneFilePerKey(self._impl.filename_base)

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # bytes that unpickle but are no compile result
            return None

    def save_overload(self, sig, data) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            pass  # the directory vanished or turned read-only

    def _index_key(self, sig, codegen):
        # Numba's key holds a function's bytecode, which refers to constants and global names by number: two callbacks
        # of one name that differ in one of these loaded each other's machine code.
        code = self._py_func.__code__
        constants = [value for value in code.co_consts if not isinstance(value, CodeType)]
        return (*super()._index_key(str(sig), codegen), repr(constants), code.co_names)


def clear_cache() -> int:
    """Delete every compiled kernel on disk; returns how many files were deleted."""
    if CACHE_DIRECTORY is None:
        return 0
    paths = list(CACHE_DIRECTORY.glob("*.nbc"))
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)


class _CompileClock(event.Listener):
    """Counts the seconds this process spent compiling (loading from the cache is not compiling)."""

    def __init__(self):
        self.seconds = 0.0
        self._depth = 0
        self._started = 0.0

    def on_start(self, event=None):
        if self._depth == 0:
            self._started = time.perf_counter()
        self._depth += 1

    def on_end(self, event=None):
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._started


COMPILE_CLOCK = _CompileClock()
event.register("numba:compile", COMPILE_CLOCK)


def jit(function=None, *, allocates=False, **options):
    """Compile a function: nopython, GIL released, honest floating point, cached on disk.

    Unless it `allocates` arrays, it counts no references: every view of an array would add to and take from a counter
    that all threads share. Splitting 8 images of 256x56x56 by a stride of 2 took 3.1 ms on one thread and 6.3 on two,
    without counting 1.6 and 0.8. Arrays passed in belong to the caller, who holds them meanwhile.

    `@jit` is for what Python calls, `@helper` for what only compiled functions call, `@Kernel` (see `launch`) for
    work that is split over slots.
    """
    if function is None:
        return lambda f: jit(f, allocates=allocates, **options)
    dispatcher = numba.jit(nogil=True, _nrt=allocates, **_OPTIONS, **options)(function)
    if CACHE_DIRECTORY is not None:
        dispatcher._cache = KernelCache(function)
    return dispatcher


def helper(function):
    """As `jit`, for compiled callers only: entries for Python and C are up to a third of what would be compiled."""
    return jit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class _Tile(CFunc):
    def _compile_uncached(self):
        COMPILE_CLOCK.on_start()
        try:
            return super()._compile_uncached()
        finally:
            COMPILE_CLOCK.on_end()


def compile_callback(function, signature) -> CFunc:
    """Compile a function to be called by address from other kernels, cached on disk.

    The register tiles are called this way: a driver then holds one indirect call (about 2 ns) instead of a copy of
    every tile shape, each of which would be compiled again into each driver. Keep the result alive while its
    `address` is in use.
    """
    callback = _Tile(function, normalize_signature(signature), locals={}, options=dict(_OPTIONS))
    if CACHE_DIRECTORY is not None:
        callback._cache = KernelCache(function)
    callback.compile()
    return callback
