"""The constants that sizes and choices are made from: caches, and what moving numbers costs beside multiplying them.

Measured on 2-core machines, Zen 3 and Zen 5 (32 and 48 KB L1d, 512 KB and 1 MB L2 a core, 32 MB L3) and Emerald Rapids
(48 KB, 2 MB, a shared L3); they only steer speed, never results.
"""

from __future__ import annotations

from pathlib import Path

from fastconv._kernels.isa import MACHINE

# Twice as many multiply-adds per cycle as other machines, beside the same memory: what waits for memory or is not made
# of multiply-adds costs more of them.
WIDE = MACHINE.vector_bits == 512


def _second_level_cache() -> int:
    """Bytes of it that a core has, as Linux tells; 512 KB elsewhere."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(size.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 512 * 1024


L2_BYTES = _second_level_cache() * 3 // 4  # what one task may keep hot, beside weights and results
CHUNK_BYTES = 12 * 2**20  # padded copies of a few images at a time, so that they are still in L3 when they are read
CYCLES_PER_BYTE_MOVED = 0.1  # copying or transposing, read and write together, in L2 and L3
CYCLES_PER_RUN = 6.0  # starting one copied run of a block, beside its bytes
CYCLES_PER_NUMBER_SPLIT = 2.0  # splitting padded rows by a stride beyond 2, which is not vectorised
CYCLES_PER_NUMBER_HALVED = 0.4  # splitting them by 2
CYCLES_PER_SCATTERED = 2.0  # one result of a channels-first output that is stored alone
# A tile's turning to the next plane, which lies in another page. Packed panels were 1.1 times as fast for 32 channels
# of 112x112, 1.2 to 2 times for 64 and 96 channels, which are more streams than the prefetchers follow.
# Emerald Rapids: planes of 16,000 numbers, beyond L2: 32 of them 1.2 times, 64 twice as long as panels.
_CYCLES_PER_PLANE, _CYCLES_PER_FAR_PLANE, _STREAMS = 3.0, 18.0, 28
CYCLES_PER_LAUNCH = 12_000.0
# Of a tile's steps whose places are looked up together, see `tile_sweep`. With AVX-512 0.97 where the core is alone.
IN_RUNS = 0.88
DEPTH_BLOCK = 1024  # steps of depth between two visits to the results
PIXELS_PER_TASK = 512  # output pixels that pass by a panel of weights in L2
TASKS_PER_THREAD = 4  # enough to even out unequal cores


def cycles_per_transposed(stride_bytes: int) -> float:
    """One number on its way through registers to a transposed place, where rows lie `stride_bytes` apart.

    Rows a multiple of 2 KB apart (planes of 32x32) compete for the same few lines of the first-level cache.
    """
    return 2.0 if stride_bytes % 2048 == 0 else 0.6


def cycles_per_turns(planes: int, image_bytes: int) -> float:
    """A tile's turning through the planes of an image."""
    far = max(planes - _STREAMS, 0) if WIDE and image_bytes > L2_BYTES else 0
    return planes * _CYCLES_PER_PLANE + far * (_CYCLES_PER_FAR_PLANE - _CYCLES_PER_PLANE)


def cycles_per_split(stride: int) -> float:
    """One number of a padded row on its way into the plane of its phase."""
    return 0.0 if stride == 1 else CYCLES_PER_NUMBER_HALVED if stride == 2 else CYCLES_PER_NUMBER_SPLIT


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def unevenness(tasks: int, threads: int) -> float:
    """By how much equal tasks take longer than if they were shared out evenly among threads."""
    return ceil_div(tasks, threads) * threads / max(tasks, 1)


def images_at_once(image_bytes: int, batch: int, chunks: int = 1) -> int:
    """How many images are brought into another form at a time: as `chunks` chunks hold, at least one."""
    return max(min(chunks * CHUNK_BYTES // max(image_bytes, 1), batch), 1)


def split(total: int, parts: int, multiple: int) -> int:
    """Size of a share, a multiple of `multiple`, that cuts `total` into about `parts` shares."""
    return max(ceil_div(ceil_div(total, max(parts, 1)), multiple) * multiple, multiple)


def even_splits(splits: int, parts: int, threads: int) -> int:
    """The most splits, up to `splits`, whose tasks (`parts` each) leave no thread idle; `splits` if there are none.

    Three tasks take two threads as long as four (dw of one image, 64 channels, 56x56, by Winograd: 1.14 times as fast
    with two threads as with one).
    """
    return next((count for count in range(splits, 0, -1) if parts * count % threads == 0), splits)
