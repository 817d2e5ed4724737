"""Where taps land along one axis: the index arithmetic of strided, dilated, padded convolution and its gradient."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ForwardAxis:
    """One axis of the padded input, split by stride so that each tap reads every cell of its phase in turn.

    Padded cell i = o * stride + k * dilation lies in phase i % stride at index i // stride. `tap[k]` is
    (position of its phase in `phases`, offset), so output o reads index o + offset of that phase.
    """

    phases: tuple[int, ...]
    length: int
    tap: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, kernel: int, stride: int, dilation: int, outputs: int) -> ForwardAxis:
        cells = [k * dilation for k in range(kernel)]
        phases = tuple(sorted({cell % stride for cell in cells}))
        length = outputs + max(cell // stride for cell in cells)
        return cls(phases, length, tuple((phases.index(cell % stride), cell // stride) for cell in cells))


@dataclass(frozen=True)
class GradientPhase:
    """`count` input cells first, first + stride, ...: cell m gets tap k of padded dout[m + offset] for (k, offset)."""

    first: int
    count: int
    taps: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class GradientAxis:
    """One axis of the gradient of x: padded dout and the phases of input cells.

    x cell i meets dout o through tap k where i + before = o * stride + k * dilation. So the cells with
    (i + before) % stride == r see only the taps with k * dilation % stride == r, at
    o = (i + before) // stride - k * dilation // stride: `stride` correlations of stride 1, no zeros multiplied.
    """

    front: int  # zeros before dout
    length: int
    phases: tuple[GradientPhase, ...]

    @classmethod
    def of(cls, size: int, kernel: int, stride: int, dilation: int, before: int, outputs: int) -> GradientAxis:
        raw = []
        for r in range(stride):
            begin = max(-(-(before - r) // stride), 0)  # smallest j with stride * j + r - before >= 0
            first = stride * begin + r - before
            count = max(-(-(size - first) // stride), 0)
            shifts = [(k, begin - k * dilation // stride) for k in range(kernel) if k * dilation % stride == r]
            if count:
                raw.append((first, count, shifts))
        lowest = min((offset for _, _, shifts in raw for _, offset in shifts), default=0)
        highest = max((count - 1 + offset for _, count, shifts in raw for _, offset in shifts), default=0)
        front = max(-lowest, 0)
        phases = tuple(
            GradientPhase(first, count, tuple((k, offset + front) for k, offset in shifts))
            for first, count, shifts in raw
        )
        return cls(front, front + max(outputs, highest + 1), phases)
