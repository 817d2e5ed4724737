"""Learning-rate schedules: functions from the time in epochs (a float, 0 at the start) to a factor on the rate."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant() -> Schedule:
    """The optimizer's own rate throughout."""
    return lambda epoch: 1.0


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
