"""CS231n's `solver.py`: the loop that trains any object with `params` and `loss(X, y=None)`."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.compat.cs231n.optim import RULES

__all__ = ["Solver"]

PARTS = ("X_train", "y_train", "X_val", "y_val")


def _samples(name: str, count: Any) -> int | None:
    return None if count is None else arguments.integer("Solver", name, count, 1)


class Solver:
    """Trains a model by stochastic gradient descent, with the course's keywords, printed lines and histories.

    Four faults of the course's class are mended. (1) It draws every batch with replacement, so that an epoch leaves out
    a third of the images and repeats others; here each epoch runs through a new permutation of them, whose remainder
    (fewer than `batch_size` images) is left out. (2) It brings back the best parameters without the running statistics
    of batch normalisation, those of the last epoch stay; here `model.bn_params`, if there is one, comes back too.
    (3) Samples for the accuracies are drawn with replacement as well; here they are not. (4) If no validation image
    was ever right, the model ends without parameters; here the first ones count as the best until others are better.

    Parameters
    ----------
    model : `model.params` is a dict of arrays; `model.loss(X, y)` returns (loss, grads), `model.loss(X)` scores.
    data : {"X_train", "y_train", "X_val", "y_val"}, images (N, ...) and labels (N,).
    update_rule : "sgd", "sgd_momentum", "rmsprop" or "adam", the functions of `optim`.
    optim_config : hyperparameters of the rule, such as {"learning_rate": 1e-3}.
    lr_decay : factor on the learning rate after each epoch.
    batch_size, num_epochs : images of a step, passes over the training images.
    num_train_samples, num_val_samples : how many images the accuracies are measured on, None for all.
    checkpoint_name : if given, "<name>_epoch_<n>.pkl" is written with each accuracy: a pickled dict, as in the course.
    print_every : iterations between printed losses.
    verbose : whether anything is printed.

    Batches and samples are drawn from NumPy's global generator, so that `np.random.seed` governs them as in the course.

    Attributes
    ----------
    loss_history : the loss of every iteration.
    train_acc_history, val_acc_history : after the first iteration, each epoch and the last iteration.
    best_val_acc, best_params : the best validation accuracy and its parameters, which `train` leaves in the model.

    Raises
    ------
    ValueError : unknown keyword or update rule, data that lack a key or do not match, numbers below 1.

    >>> from fastconv.compat.cs231n.classifiers.cnn import ThreeLayerConvNet
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((20, 1, 8, 8)), rng.integers(0, 2, 20)
    >>> data = {"X_train": X, "y_train": y, "X_val": X, "y_val": y}
    >>> model = ThreeLayerConvNet((1, 8, 8), num_filters=4, filter_size=3, num_classes=2, weight_scale=0.1)
    >>> solver = Solver(
    ...     model, data, update_rule="adam", optim_config={"learning_rate": 1e-2}, num_epochs=20, batch_size=5,
    ...     verbose=False,
    ... )
    >>> solver.train()
    >>> solver.check_accuracy(X, y), len(solver.loss_history)
    (1.0, 80)
    """

    def __init__(self, model: Any, data: Mapping[str, Any], **kwargs: Any):
        self.model = model
        for key in PARTS:
            if key not in data:
                raise ValueError(f"Solver: data must have the key {key!r}, got {sorted(data)}")
        self.X_train, self.y_train, self.X_val, self.y_val = (np.asarray(data[key]) for key in PARTS)
        for X, y, part in ((self.X_train, self.y_train, "train"), (self.X_val, self.y_val, "val")):
            if len(X) != len(y) or not len(X):
                raise ValueError(f"Solver: X_{part} and y_{part} must be as many and some, got {len(X)} and {len(y)}")

        rule = kwargs.pop("update_rule", "sgd")
        self.update_rule = RULES[arguments.choice("Solver", "update_rule", rule, tuple(RULES))]
        self.optim_config = dict(kwargs.pop("optim_config", {}))
        self.lr_decay = arguments.real("Solver", "lr_decay", kwargs.pop("lr_decay", 1.0))
        self.batch_size = arguments.integer("Solver", "batch_size", kwargs.pop("batch_size", 100), 1)
        self.num_epochs = arguments.integer("Solver", "num_epochs", kwargs.pop("num_epochs", 10), 0)
        self.num_train_samples = _samples("num_train_samples", kwargs.pop("num_train_samples", 1000))
        self.num_val_samples = _samples("num_val_samples", kwargs.pop("num_val_samples", None))
        self.checkpoint_name = kwargs.pop("checkpoint_name", None)
        self.print_every = arguments.integer("Solver", "print_every", kwargs.pop("print_every", 10), 1)
        self.verbose = kwargs.pop("verbose", True)
        if kwargs:
            raise ValueError(f"Solver: unrecognized arguments {', '.join(map(repr, kwargs))}")

        self.epoch = 0
        self.best_val_acc = 0.0
        self.best_params: dict[str, np.ndarray] = {}
        self.loss_history: list[float] = []
        self.train_acc_history: list[float] = []
        self.val_acc_history: list[float] = []
        self.optim_configs = {name: copy.deepcopy(self.optim_config) for name in model.params}
        self._best_bn_params: Any = None

    def train(self) -> None:
        """Train for `num_epochs`; the model then has the parameters of the best validation accuracy."""
        num_train = len(self.X_train)
        iterations_per_epoch = max(num_train // self.batch_size, 1)
        num_iterations = self.num_epochs * iterations_per_epoch
        for t in range(num_iterations):
            place = t % iterations_per_epoch
            if place == 0:
                order = np.random.permutation(num_train)
            self._step(order[place * self.batch_size : (place + 1) * self.batch_size])
            if self.verbose and t % self.print_every == 0:
                print(f"(Iteration {t + 1} / {num_iterations}) loss: {self.loss_history[-1]:f}")
            epoch_end = place == iterations_per_epoch - 1
            if epoch_end:
                self.epoch += 1
                for config in self.optim_configs.values():
                    config["learning_rate"] *= self.lr_decay
            if t == 0 or epoch_end:
                self._assess()
        if self.best_params:
            self.model.params = self.best_params
            if self._best_bn_params is not None:
                self.model.bn_params = self._best_bn_params

    def _step(self, batch: np.ndarray) -> None:
        """One gradient update."""
        loss, grads = self.model.loss(self.X_train[batch], self.y_train[batch])
        self.loss_history.append(loss)
        params = self.model.params
        for name in params:
            params[name], self.optim_configs[name] = self.update_rule(
                params[name], grads[name], self.optim_configs[name]
            )

    def _assess(self) -> None:
        """Measure and print the accuracies, write a checkpoint, remember the best parameters."""
        train_acc = self.check_accuracy(self.X_train, self.y_train, num_samples=self.num_train_samples)
        val_acc = self.check_accuracy(self.X_val, self.y_val, num_samples=self.num_val_samples)
        self.train_acc_history.append(train_acc)
        self.val_acc_history.append(val_acc)
        self._save_checkpoint()
        if self.verbose:
            print(f"(Epoch {self.epoch} / {self.num_epochs}) train acc: {train_acc:f}; val_acc: {val_acc:f}")
        if val_acc > self.best_val_acc or not self.best_params:
            self.best_val_acc = val_acc
            self.best_params = {name: value.copy() for name, value in self.model.params.items()}
            self._best_bn_params = copy.deepcopy(getattr(self.model, "bn_params", None))

    def _save_checkpoint(self) -> None:
        if self.checkpoint_name is None:
            return
        names = (
            "model", "update_rule", "lr_decay", "optim_config", "batch_size", "num_train_samples", "num_val_samples",
            "epoch", "loss_history", "train_acc_history", "val_acc_history",
        )  # fmt: skip
        filename = f"{self.checkpoint_name}_epoch_{self.epoch}.pkl"
        if self.verbose:
            print(f'Saving checkpoint to "{filename}"')
        with open(filename, "wb") as file:
            pickle.dump({name: getattr(self, name) for name in names}, file)

    def check_accuracy(self, X: Any, y: Any, num_samples: int | None = None, batch_size: int = 100) -> float:
        """The share of images X (N, ...) whose largest score is that of the label in y (N,).

        Parameters
        ----------
        num_samples : measure on that many of them, drawn at random; None for all.
        batch_size : images of a forward pass.
        """
        X, y = np.asarray(X), np.asarray(y)
        if num_samples is not None and len(X) > num_samples:
            sample = np.random.choice(len(X), num_samples, replace=False)
            X, y = X[sample], y[sample]
        starts = range(0, len(X), batch_size)
        predicted = [self.model.loss(X[start : start + batch_size]).argmax(axis=1) for start in starts]
        return float(np.mean(np.concatenate(predicted) == y))
