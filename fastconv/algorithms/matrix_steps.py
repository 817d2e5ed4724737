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
    # Of the gradient of x, a single column may be met by some taps alone.
    joined = joined and len(across) == 1 and len(across[0].taps) == kernel_cols > 1 and across[0].offset_step == 1
    pitch = channels + channels % 2 if joined else MOST_DEPTH
    run = kernel_cols * pitch if joined else channels
    count = ceil_div(run, MOST_DEPTH)
    depth = ceil_div(run, 2 * count) * 2
    # Of each chunk of a run: its plane, its first part, and the tap and channel of its parts.
    parts = np.arange(depth)
    if joined:
        firsts = np.minimum(np.arange(count) * depth, run - depth)
        taps, channel = np.divmod(firsts[:, None] + parts, pitch)
        behind = np.concatenate([[0], firsts[:-1] + depth])  # parts before it have been met
        met = (channel < channels) & (firsts[:, None] + parts >= behind[:, None])
        plane = np.zeros(count, np.int64)
    else:
        plane, firsts = np.arange(count), np.zeros(count, np.int64)
        channel = plane[:, None] * depth + parts
        taps, met = np.zeros_like(channel), channel < channels
    places, weights = [], []
    for vertical, horizontal in product(down, across):
        kernel_rows, rows = np.array(vertical.taps, np.int64).reshape(-1, 2).T
        across_taps = np.array(horizontal.taps, np.int64).reshape(-1, 2)
        runs = (1, len(across_taps)) if joined else (len(across_taps), 1)
        kernel, cols = (column.reshape(runs) for column in across_taps.T)
        order = np.meshgrid(np.arange(count), np.arange(rows.size), np.arange(len(cols)), indexing="ij")
        chunk, line, at = (index.ravel() for index in order)
        places.append(np.stack([plane[chunk], rows[line], cols[at, 0], firsts[chunk]], axis=1))
        tap = kernel_rows[line, None] * kernel_cols + kernel[at[:, None], taps[chunk]]
        weights.append(np.where(met[chunk], tap * channels + channel[chunk], -1).ravel())
    return MatrixSteps(depth, joined, pitch, 1 if joined else count, places, weights)
