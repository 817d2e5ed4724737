"""The callbacks of a matrix product that sweeps over tiles."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastconv._kernels.isa import TileShape
from fastconv._kernels.register_tile import RUN, register_tile
from fastconv._kernels.tile_sweep import tile_sweep


def sweep_callbacks(
    tile: TileShape, itemsize: int, *, narrow: bool, several_blocks: bool, apart: int, follow: bool = True
) -> tuple[int, int, int]:
    """Addresses of the sweep, of the one that adds, and of the tile for a panel of fewer columns than it has.

    0 for those that are not needed, which are not compiled either: sums of one block are never added to, and without
    `narrow` there are no such panels.
    """
    shape = tile.rows, tile.vectors, itemsize
    return (
        tile_sweep(*shape, lane_bias=True, apart=apart, follow=follow).address,
        tile_sweep(*shape, lane_bias=True, add=True, apart=apart, follow=follow).address if several_blocks else 0,
        register_tile(*shape).address if narrow else 0,
    )


def apart_in_runs(
    acol: np.ndarray, brow: np.ndarray, tile_rows: int, tile_cols: int, segments: Iterable[Iterable[int]]
) -> int:
    """How far apart the steps of A are in all runs of all segments (first step, steps): 1 or a tile's rows.

    0, which suits any steps: they are neither, or the rows of B do not follow each other as those of a panel do.
    """
    runs = [np.arange(begin, begin + steps - steps % RUN).reshape(-1, RUN) for begin, steps in segments]
    places = np.concatenate(runs) if runs else np.empty((0, RUN), np.int64)
    if not places.size or (np.diff(brow[places]) != tile_cols).any():
        return 0
    between = np.diff(acol[places])
    return next((apart for apart in (1, tile_rows) if (between == apart).all()), 0)
