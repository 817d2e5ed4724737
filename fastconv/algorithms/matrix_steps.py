"""The steps of the matrix unit's sums: what a tile's row takes of x at a time, and which weights it meets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from fastconv._kernels.bfloat_parts import SPREAD
from fastconv._kernels.matrix_tile import MOST_DEPTH
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.depthwise_axes import Outputs

_JOINED_CHANNELS = 16  # up to so many, the taps of a kernel row make one run


@dataclass(frozen=True)
class MatrixSteps:
    """Steps of `depth` parts, grid by grid of (down, across).

    Either a step takes some channels of one tap; x is then kept as `planes` of `depth` channels. Or `joined`: channels
    lie side by side, filled up to an even number, and a step takes some numbers of a run of taps; the last step of a
    run may overlap the one before it, with zeros for weights.
    """

    depth: int
    joined: bool
    pitch: int  # parts from one kept pixel to the next
    planes: int
    places: list[np.ndarray]  # of each grid, its steps: (plane, row of x, column, part) of the first output pixel
    weights: list[np.ndarray]  # `depth` for each step: kernel tap * channels + channel, -1 for zeros


def matrix_steps(
    channels: int, kernel_cols: int, down: list[Outputs], across: list[Outputs], channels_last: bool
) -> MatrixSteps:
    """Channels are the slowest to vary: neighbouring taps meet the same lines of x, in the first cache."""
    joined = channels_last and channels <= _JOINED_CHANNELS and (channels % 2 == 0 or channels in SPREAD)
    joined = joined and kernel_cols > 1 and len(across) == 1 and across[0].offset_step == 1
    pitch = channels + channels % 2 if joined else MOST_DEPTH
    run = kernel_cols * pitch if joined else channels
    count = ceil_div(run, MOST_DEPTH)
    depth = ceil_div(run, 2 * count) * 2
    if joined:
        chunks = [(0, min(i * depth, run - depth)) for i in range(count)]
    else:
        chunks = [(plane, 0) for plane in range(count)]
    places, weights = [], []
    for vertical, horizontal in product(down, across):
        runs = [horizontal.taps] if joined else [(tap,) for tap in horizontal.taps]
        here: list[tuple[int, int, int, int]] = []
        met: list[int] = []
        for number, (plane, first) in enumerate(chunks):
            done = chunks[number - 1][1] + depth if joined and number else 0
            for (kernel_row, row), taps in product(vertical.taps, runs):
                here.append((plane, row, taps[0][1], first))
                for part in range(first, first + depth):
                    tap, channel = divmod(part, pitch) if joined else (0, plane * depth + part)
                    kernel = kernel_row * kernel_cols + taps[tap][0]
                    met.append(kernel * channels + channel if channel < channels and part >= done else -1)
        places.append(np.array(here, np.int64).reshape(-1, 4))
        weights.append(np.array(met, np.int64))
    return MatrixSteps(depth, joined, pitch, 1 if joined else count, places, weights)
