"""The input as padded planes in which every tap of an output row is a run of neighbours."""

from __future__ import annotations

import numpy as np

from fastconv.algorithms.axes import ForwardAxis
from fastconv.algorithms.operands import Operand
from fastconv.algorithms.tables import offsets
from fastconv.problem import ConvProblem


def tap_planes(p: ConvProblem) -> tuple[Operand, np.ndarray]:
    """x as padded planes split by stride, and the offset of each tap: (c, kh, kw), or (kh, kw, c) for channels-last."""
    vertical = ForwardAxis.of(p.KH, p.stride[0], p.dilation[0], p.OH)
    horizontal = ForwardAxis.of(p.KW, p.stride[1], p.dilation[1], p.OW)
    plain = p.no_padding and p.stride == (1, 1)
    rows, cols = (p.H, p.W) if plain else (vertical.length, horizontal.length)
    (top, _), (left, _) = p.pads
    channels = np.arange(p.group_channels)
    phase_w, at_w = np.array(horizontal.tap).T
    if p.channels_last and p.stride[1] > 1 and p.C > 1:
        # A row of pixels, split by stride * C, falls into planes (phase, c).
        phases = tuple(phase * p.C + c for phase in horizontal.phases for c in range(p.C))
        source = Operand(
            False, False, 1, p.H, p.W * p.C, top, left * p.C, rows, cols, (p.stride[0], p.stride[1] * p.C),
            vertical.phases, phases,
        )  # fmt: skip
        channel, phase = rows * cols, p.C * rows * cols
    else:
        source = Operand(
            p.channels_last, False, p.C, p.H, p.W, top, left, rows, cols, p.stride, vertical.phases, horizontal.phases
        )
        channel, phase = source.plane, rows * cols
    down = np.array([(i * len(source.phases_w) * rows + at) * cols for i, at in vertical.tap])
    across = phase_w * phase + at_w
    if p.channels_last:
        return source, offsets(down, across, channels * channel)
    return source, offsets(channels * channel, down, across)
