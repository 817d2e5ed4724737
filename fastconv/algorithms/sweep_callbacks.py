"""The callbacks of a matrix product that sweeps over tiles."""

from __future__ import annotations

from fastconv._kernels.isa import TileShape
from fastconv._kernels.register_tile import register_tile
from fastconv._kernels.tile_sweep import tile_sweep


def sweep_callbacks(tile: TileShape, columns: int, itemsize: int, *, several_blocks: bool) -> tuple[int, int, int]:
    """Addresses of the sweep, of the one that adds, and of the tile for a panel of fewer columns than it has.

    0 for those that are not needed, which are not compiled either: sums of one block are never added to.
    """
    shape = tile.rows, tile.vectors, itemsize
    return (
        tile_sweep(*shape, lane_bias=True).address,
        tile_sweep(*shape, lane_bias=True, add=True).address if several_blocks else 0,
        register_tile(*shape).address if columns % tile.cols else 0,
    )
