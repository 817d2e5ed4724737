"""What a training run tells others: callbacks, and one that ends a run which no longer improves."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np

from fastconv import arguments
from fastconv.nn.history import direction
from fastconv.nn.run import Run


class Callback:
    """Base: override what is needed. All are called in the order in which they were given to `Trainer.fit`.

    >>> class PrintLoss(Callback):
    ...     def on_step_end(self, run):
    ...         if run.step % 100 == 0:
    ...             print(run.step, run.loss)
    """

    def on_fit_begin(self, run: Run) -> None:
        """Before the first epoch (and before a resumed run's state is restored)."""

    def on_step_end(self, run: Run) -> None:
        """After each update of the parameters."""

    def evaluation(self, run: Run) -> contextlib.AbstractContextManager[object]:
        """Entered while the model is validated, and saved as the best: for weights other than those being trained."""
        return contextlib.nullcontext()

    def on_epoch_end(self, run: Run) -> None:
        """After validation, when `run.history` has the epoch; `run.stop()` makes it the last one."""

    def on_fit_end(self, run: Run) -> None:
        """After the last epoch, not after an error."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """Arrays that an exact resume needs."""
        return {}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state_dict` gave: the same names and shapes."""


class EarlyStopping(Callback):
    """Ends training after `patience` epochs in a row that were not better than the best before them.

    Parameters
    ----------
    monitor : a list of `History`, such as "val_loss"; None for its `monitor()`. Losses should fall, accuracies rise.
    min_delta : what counts as better.

    Raises
    ------
    ValueError, TypeError : `patience` is below 1, `min_delta` below 0, `monitor` no loss or accuracy.
    """

    def __init__(self, patience: int, *, monitor: str | None = None, min_delta: float = 0.0):
        self.patience = arguments.integer("EarlyStopping", "patience", patience, 1)
        self.min_delta = arguments.real("EarlyStopping", "min_delta", min_delta)
        if self.min_delta < 0:
            raise ValueError(f"EarlyStopping: min_delta must be at least 0, got {min_delta}")
        if monitor is not None:
            direction(monitor)
        self.monitor = monitor

    def on_epoch_end(self, run: Run) -> None:
        name = self.monitor or run.history.monitor()
        values = getattr(run.history, name)
        if not values:
            raise ValueError(f"EarlyStopping: monitor {name!r} needs validation data")
        best, waited = -np.inf, 0
        for value in values:  # from the history alone, so that a resumed run counts on
            if direction(name) * value > best + self.min_delta:
                best, waited = direction(name) * value, 0
            else:
                waited += 1
        if waited >= self.patience:
            run.stop()
