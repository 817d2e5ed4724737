"""Averages of the weights along the way of training: smoother than the last step, and usually better."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fastconv import arguments
from fastconv.nn.callbacks import Callback
from fastconv.nn.run import Run


class _Average(Callback):
    """A second set of parameters and running statistics, drawn towards the model's every `every` steps."""

    def __init__(self, every: int):
        self.every = arguments.integer(type(self).__name__, "every", every, 1)
        self._average: dict[str, np.ndarray] = {}

    def on_fit_begin(self, run: Run) -> None:
        self._average = run.model.state_dict()

    def _approach(self, run: Run, share: float) -> None:
        """average += share * (model - average), in each array's dtype."""
        for entry in run.model.state():
            average = self._average[entry.name]
            average += average.dtype.type(share) * (entry.value - average)

    def state_dict(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._average.items()}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, average in self._average.items():
            average[...] = arrays[name]


class EMA(_Average):
    """Exponential moving average of the weights: average = decay * average + (1 - decay) * weights at each step.

    The run is validated, and the best checkpoint saved, with the average; training goes on with the weights
    themselves; at the end of the run the model holds the average. With `every` > 1 the average moves every so many
    steps only, as far as it would have in one of them to the power `every`.

    Early in training, a decay of min(decay, (1 + step) / (10 + step)) keeps the initial weights out.

    Raises
    ------
    ValueError, TypeError : `decay` is not from 0 to below 1, `every` is below 1.
    """

    def __init__(self, decay: float = 0.999, *, every: int = 1):
        super().__init__(every)
        self.decay = arguments.real("EMA", "decay", decay)
        if not 0 <= self.decay < 1:
            raise ValueError(f"EMA: decay must be at least 0 and below 1, got {decay}")

    def on_step_end(self, run: Run) -> None:
        if run.step % self.every == 0:
            self._approach(run, 1 - min(self.decay, (1 + run.step) / (10 + run.step)) ** self.every)

    @contextlib.contextmanager
    def evaluation(self, run: Run) -> Iterator[None]:
        trained = run.model.state_dict()
        run.model.load_state_dict(self._average)
        try:
            yield
        finally:
            run.model.load_state_dict(trained)

    def on_fit_end(self, run: Run) -> None:
        run.model.load_state_dict(self._average)


class Lookahead(_Average):
    """Every `every` steps the slow weights go the share `alpha` of the way to the model's, which restart from there.

    Source: M. Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", 2019.

    Parameters
    ----------
    alpha : from 0 to 1, or a function from the share of the run that is done, 0 to 1, to such a number.

    Raises
    ------
    ValueError, TypeError : `alpha` is out of range, `every` is below 1.
    """

    def __init__(self, every: int = 5, *, alpha: float | Callable[[float], float] = 0.5):
        super().__init__(every)
        if not callable(alpha):
            constant = arguments.real("Lookahead", "alpha", alpha)
            if not 0 <= constant <= 1:
                raise ValueError(f"Lookahead: alpha must be from 0 to 1, got {alpha}")
        self.alpha = alpha

    def on_step_end(self, run: Run) -> None:
        if run.step % self.every == 0:
            self._approach(run, self.alpha(run.progress) if callable(self.alpha) else self.alpha)
            run.model.load_state_dict(self._average)
