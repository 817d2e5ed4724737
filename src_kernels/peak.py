"""The register tile alone, over operands that stay in the first-level cache: the machine's multiply-add peak."""

from __future__ import annotations

from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import address_of, call_address


@Kernel
def repeat_tile(slot, slots, tile, depth, a, arow, acol, b, brow, c, crow, repeats):
    """Run the tile `repeats` times into c[slot]; a, b and the tables are shared and only read."""
    if slot < 0:
        return on_every_slot(slot, slots)
    for _ in range(repeats):
        call_address(
            tile,
            (
                depth,
                address_of(a),
                address_of(arow),
                address_of(acol),
                address_of(b),
                address_of(brow),
                address_of(c[slot]),
                address_of(crow),
                arow.size,
                c.shape[1] // arow.size,
                0,
                0,
            ),
        )
