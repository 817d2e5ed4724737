"""Learning-rate schedules: functions from the time in epochs (a float, 0 at the start) to a factor on the rate.

Any optimizer takes them: a `Trainer` sets its `lr` before each step.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]


def constant() -> Schedule:
    """The optimizer's own rate throughout."""
    return lambda epoch: 1.0


def exponential(factor: float) -> Schedule:
    """Multiply the rate by `factor` in each epoch, a little at every step.

    >>> [exponential(0.25)(epoch) for epoch in (0, 0.5, 1, 2)]
    [1.0, 0.5, 0.25, 0.0625]
    """
    if not 0 < factor <= 1:
        raise ValueError(f"exponential: factor must be above 0 and at most 1, got {factor}")
    return lambda epoch: factor**epoch


def milestones(epochs: Sequence[float], factor: float = 0.1) -> Schedule:
    """Multiply the rate by `factor` at each of the given times.

    >>> [milestones([2, 3], 0.5)(epoch) for epoch in (0, 1.9, 2, 4)]
    [1.0, 1.0, 0.5, 0.25]
    """
    if list(epochs) != sorted(epochs):
        raise ValueError(f"milestones: epochs must ascend, got {epochs}")
    times = list(epochs)
    return lambda epoch: factor ** bisect.bisect_right(times, epoch)


def step_decay(every: float, factor: float = 0.1) -> Schedule:
    """Multiply the rate by `factor` after each `every` epochs.

    >>> [step_decay(2, 0.5)(epoch) for epoch in (0, 1.9, 2, 4)]
    [1.0, 1.0, 0.5, 0.25]
    """
    if every <= 0:
        raise ValueError(f"step_decay: every must be above 0, got {every}")
    return lambda epoch: factor ** math.floor(epoch / every)


def cosine(epochs: float, *, warmup: float = 0.0, final: float = 0.0) -> Schedule:
    """Rise linearly for `warmup` epochs, then fall along half a cosine to `final` (Loshchilov & Hutter 2017, eq. 5).

    >>> [round(cosine(4)(epoch), 3) for epoch in (0, 2, 4)]
    [1.0, 0.5, 0.0]
    """
    if not 0 <= warmup < epochs:
        raise ValueError(f"cosine: warmup must be at least 0 and below epochs, got {warmup} and {epochs}")

    def factor(epoch: float) -> float:
        if epoch < warmup:
            return epoch / warmup
        progress = min((epoch - warmup) / (epochs - warmup), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def one_cycle(epochs: float, *, warmup: float = 0.3, start: float = 0.04, final: float = 1e-4) -> Schedule:
    """Rise from `start` to 1 in the share `warmup` of the epochs, then fall to `final`, linearly both times.

    After Smith & Topin 2018, "Super-convergence".

    >>> [round(one_cycle(10, warmup=0.2, start=0.5, final=0)(epoch), 3) for epoch in (0, 1, 2, 6, 10)]
    [0.5, 0.75, 1.0, 0.5, 0.0]
    """
    if epochs <= 0 or not 0 < warmup < 1:
        raise ValueError(f"one_cycle: epochs must be above 0 and warmup above 0 and below 1, got {epochs} and {warmup}")
    peak = warmup * epochs

    def factor(epoch: float) -> float:
        if epoch < peak:
            return start + (1 - start) * epoch / peak
        return final + (1 - final) * max(epochs - epoch, 0) / (epochs - peak)

    return factor
