"""One call of `Trainer.fit`, as callbacks see it and as checkpoints keep it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastconv.nn.history import History
from fastconv.nn.optim import Optimizer
from fastconv.nn.sequential import Sequential

if TYPE_CHECKING:
    from fastconv.nn.callbacks import Callback


@dataclass
class Run:
    """A training run.

    Attributes
    ----------
    model, optimizer, callbacks : what is trained, by what, and who looks on.
    rng : the generator of everything that is random in training.
    epochs : how many there will be in all, those of a resumed run included.
    steps_per_epoch : batches of an epoch, the last and smaller one included.
    history : of the epochs so far; `len(run.history)` of them are finished.
    step : steps made, those of a resumed run included.
    loss : of the last batch, before its update.
    stopped : set by `stop`: no further epoch begins.
    """

    model: Sequential
    optimizer: Optimizer
    callbacks: tuple[Callback, ...]
    rng: np.random.Generator
    epochs: int
    steps_per_epoch: int
    history: History = field(default_factory=History)
    step: int = 0
    loss: float = math.nan
    stopped: bool = False

    @property
    def progress(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        return self.step / (self.epochs * self.steps_per_epoch)

    def stop(self) -> None:
        """End training after the current epoch."""
        self.stopped = True
