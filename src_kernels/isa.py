"""What the host's vector unit offers, as data: register width, register count, FMA, and the tile shapes that fit.

Kernels never spell a vector width or a tile shape; they ask `MACHINE`. Adding a processor family means adding a
row here, with its shapes measured (`fastconv bench` prints the peak they reach).
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from functools import cache

from numba.core import config
from numba.core.codegen import get_host_cpu_features

LINE_BYTES = 64  # of the caches


@dataclass(frozen=True)
class Machine:
    """The vector unit that kernels are emitted for.

    Attributes
    ----------
    name : what `show_config` prints.
    vector_bits : width of one register.
    fma : whether multiply-add is one instruction. Without it `llvm.fma` becomes a library call per lane
        (1.6 GFLOP/s measured), so the tile multiplies and adds.
    tiles : register-tile shapes and their speed, (rows, vectors, cycles of one step of the depth loop): the
        accumulators, the vectors of one B row and a broadcast fit into the registers. Shapes of few rows and many
        vectors serve matrices with few rows.
    dots : the same for `dot_tile`: (rows, columns, cycles of one step).
    """

    name: str
    vector_bits: int
    fma: bool
    tiles: tuple[tuple[int, int, float], ...]
    dots: tuple[tuple[int, int, float], ...]

    def lanes(self, itemsize: int) -> int:
        """Elements of `itemsize` bytes in one register."""
        return self.vector_bits // (8 * itemsize)


# (rows, vectors, cycles of one step): cycles are what `fastconv bench --tiles` measures, on a machine with two FMA
# and two load units per cycle; shapes above 8 x 3 that would fit on paper (12 x 2, 14 x 2) spill and are absent.
# Shapes of one or two rows wait for loads: their vectors mostly straddle cache lines, which costs a load each.
_TILES_32_REGISTERS = (
    (8, 3, 12.2), (6, 4, 12.2), (8, 2, 8.2), (8, 1, 5.5), (4, 6, 13.0), (3, 8, 14.0), (2, 8, 12.0), (1, 8, 11.0),
)  # fmt: skip
# (rows, columns, cycles of one step) of dot products whose operands mostly straddle cache lines.
_DOTS_32_REGISTERS = ((8, 3, 16.3), (6, 4, 14.4), (5, 5, 13.9), (4, 6, 14.0), (3, 8, 15.8), (2, 10, 15.5), (1, 8, 11.0))
_DOTS_16_REGISTERS = ((4, 3, 6.5), (3, 4, 6.5), (6, 2, 7.0), (2, 5, 6.5), (1, 8, 9.0))
_TILES_16_REGISTERS = ((6, 2, 6.2), (4, 3, 6.3), (8, 1, 5.5), (2, 4, 6.5), (1, 8, 9.0))


@dataclass(frozen=True)
class TileShape:
    """A register tile for matrices of one item size: `rows` x `cols` numbers, `cycles` per step of depth."""

    rows: int
    vectors: int
    cols: int
    cycles: float

    def cycles_for(self, rows: int, cols: int, depth: float, block: int | None = None) -> float:
        """Cycles to cover a matrix of rows x cols numbers, each a sum of `depth` products in blocks of `block`."""
        calls = max(depth / (block or max(depth, 1)), 1)
        return -(-rows // self.rows) * -(-cols // self.cols) * (self.cycles * depth + CALL_CYCLES * calls)


@dataclass(frozen=True)
class DotShape:
    """A tile of `rows` x `cols` dot products: `cycles` per step of one vector, `call` per call."""

    rows: int
    cols: int
    cycles: float
    call: float = 110.0  # loading and storing its accumulators too

    def cycles_for(self, rows: int, cols: int) -> float:
        """Cycles of one step of a matrix of rows x cols dot products."""
        return -(-rows // self.rows) * -(-cols // self.cols) * (self.cycles + self.call / 64)


# Calling a tile, clearing and storing its accumulators: 70 to 81 cycles measured for every shape of two vectors and up.
CALL_CYCLES = 75.0


def host_features() -> set[str]:
    """Names of the features Numba generates code for: NUMBA_CPU_FEATURES (empty for NUMBA_CPU_NAME=generic), else the
    host's, without AVX under NUMBA_ENABLE_AVX=0."""
    features = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return {feature[1:] for feature in features.split(",") if feature.startswith("+")}


def _detect() -> Machine:
    features = host_features()
    if platform.machine().lower() in ("arm64", "aarch64"):
        return Machine("NEON", 128, True, _TILES_32_REGISTERS, _DOTS_32_REGISTERS)
    if "avx512f" in features:
        return Machine("AVX-512", 512, True, _TILES_32_REGISTERS, _DOTS_32_REGISTERS)
    if "avx2" in features and "fma" in features:
        return Machine("AVX2", 256, True, _TILES_16_REGISTERS, _DOTS_16_REGISTERS)
    return Machine(
        "128-bit", 128, {"avx", "fma"} <= features, _TILES_16_REGISTERS, _DOTS_16_REGISTERS
    )  # FMA needs AVX's encoding


MACHINE = _detect()

# x86-64 Linux: the system call `arch_prctl`, its request for the use of a state, and the number of AMX's registers.
_ARCH_PRCTL, _REQUEST_STATE, _TILES = 158, 0x1023, 18


@cache
def matrix_unit_missing() -> str | None:
    """Why there are no products of bfloat16 matrices (AMX); None after Linux has allowed this process to use them.

    The unit's 8 KB of registers make threads that use it more expensive to switch, so a process has to ask.
    """
    if not {"amx-tile", "amx-bf16", "avx512bw"} <= host_features():
        return "the processor has no AMX"
    if sys.platform != "linux":
        return "AMX is asked for on Linux only"
    try:
        refused = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_STATE, _TILES)
    except (OSError, AttributeError):
        refused = 1
    return "the system does not allow AMX" if refused else None


def tile_shapes(itemsize: int) -> list[TileShape]:
    """The machine's register tiles for numbers of one item size."""
    lanes = MACHINE.lanes(itemsize)
    return [TileShape(rows, vectors, vectors * lanes, cycles) for rows, vectors, cycles in MACHINE.tiles]


def best_tile(rows: int, cols: int, itemsize: int) -> TileShape:
    """The tile shape that covers a matrix of rows x cols numbers in the fewest cycles."""
    return min(tile_shapes(itemsize), key=lambda shape: shape.cycles_for(rows, cols, 256))


def best_dots(rows: int, cols: int) -> DotShape:
    """The shape that covers a matrix of rows x cols dot products in the fewest cycles."""
    return min((DotShape(*shape) for shape in MACHINE.dots), key=lambda shape: shape.cycles_for(rows, cols))
