"""Output rows and columns of a depthwise pass, and the input cells that their taps meet: no padding is laid out."""

from __future__ import annotations

from dataclasses import dataclass

from fastconv._kernels.depthwise_rows import Rows
from fastconv.algorithms.costs import ceil_div
from fastconv.problem import ConvProblem

# Rows of one tile: multiples of 7 for networks that halve 224, powers of two; few sizes, as each is compiled.
CELLS = (7, 4, 2, 1)
# Rows of taps that share their loads: one column's weights, beside 8 sums and an input vector, in 16 registers.
MOST_TAPS = 7
_MOST_READS = 22  # input rows of one tile that share their loads
# Input rows of one tile at all, each a stream from memory: 64x112x112 with stride 2 takes 1.8 (channels-first) and 1.9
# times (channels-last) as long with 15 rows as with 9 on a 2-core Zen 3.
_MOST_STREAMS = 12


@dataclass(frozen=True)
class Outputs:
    """`count` outputs first, first + step, ...: output m meets tap k at input cell m * stride + offset, if there.

    `taps` lists (k, offset) by rising offset; both grow by the same amounts from tap to tap.
    """

    first: int
    count: int
    step: int
    stride: int
    taps: tuple[tuple[int, int], ...]

    @property
    def kernel_step(self) -> int:
        return self.taps[1][0] - self.taps[0][0] if len(self.taps) > 1 else 0

    @property
    def offset_step(self) -> int:
        return self.taps[1][1] - self.taps[0][1] if len(self.taps) > 1 else 0

    @property
    def kernel_start(self) -> int:
        return self.taps[0][0] if self.taps else 0

    @property
    def offset_start(self) -> int:
        return self.taps[0][1] if self.taps else 0

    def inside(self, output: int, size: int) -> tuple[int, int]:
        """First tap and number of taps of an output that meet one of `size` input cells."""
        places = [output * self.stride + offset for _, offset in self.taps]
        inside = [tap for tap, place in enumerate(places) if 0 <= place < size]
        return (inside[0], len(inside)) if inside else (0, 0)


def axis_outputs(p: ConvProblem, axis: int, gradient: bool) -> list[Outputs]:
    """Forward: all outputs. Gradient of x: input cells by their remainder modulo the stride.

    x cell i meets dout o through tap k where i + before = o * stride + k * dilation, so the cells first, first +
    stride, ... see the same taps, at o = m + (first + before - k * dilation) / stride.
    """
    size, outputs, kernel = ((p.H, p.OH, p.KH), (p.W, p.OW, p.KW))[axis]
    stride, dilation, before = p.stride[axis], p.dilation[axis], p.pads[axis][0]
    if not gradient:
        return [Outputs(0, outputs, 1, stride, tuple((k, k * dilation - before) for k in range(kernel)))]
    phases = []
    for first in range(min(stride, size)):
        met = [(k, first + before - k * dilation) for k in reversed(range(kernel))]
        taps = tuple((k, place // stride) for k, place in met if place % stride == 0)
        phases.append(Outputs(first, ceil_div(size - first, stride), stride, 1, taps))
    return phases


def best_cells(count: int, most: int = max(CELLS)) -> int:
    """How many of `count` output rows one tile takes: the fewest rows computed, a tile counted as one more."""
    return min((cells for cells in CELLS if cells <= most), key=lambda cells: ceil_div(count, cells) * (cells + 1))


def most_cells(outputs: Outputs) -> int:
    """How many rows a tile may take, so that it does not read too many rows at once: 4 instead of 7 with stride 2."""
    return max(cells for cells in CELLS if cells == 1 or len(tile_rows(cells, outputs).reads) <= _MOST_STREAMS)


def tile_rows(cells: int, outputs: Outputs) -> Rows:
    """Rows that share their loads, if the tile's registers allow it; otherwise taps one by one."""
    taps, spacing = len(outputs.taps), outputs.offset_step
    if 2 <= taps <= MOST_TAPS and (cells - 1) * outputs.stride + (taps - 1) * spacing < _MOST_READS:
        return Rows(cells, taps, outputs.stride, spacing)
    return Rows(cells, 1, 1, 1)
