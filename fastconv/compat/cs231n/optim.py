"""The update rules of CS231n's `optim.py`: rule(w, dw, config) -> (next_w, config).

`config` is a dict of hyperparameters and state; what is missing in it gets the course's default, and its state is
updated. w itself is not changed. The work is done in w's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import arguments, runtime, workspace
from fastconv._kernels import optimizers
from fastconv._kernels.launch import Kernel

__all__ = ["adam", "rmsprop", "sgd", "sgd_momentum"]

Config = dict[str, Any]
Updated = tuple[np.ndarray, Config]


def _settings(w: Any, dw: Any, config: Config | None, rule: str, **defaults: float) -> tuple[Any, Any, Config]:
    w, dw = arguments.array(rule, "w", w), arguments.array(rule, "dw", dw)
    if dw.shape != w.shape:
        raise ValueError(f"{rule}: dw must have w's shape {w.shape}, got {dw.shape}")
    config = {} if config is None else config
    for name, value in defaults.items():
        config[name] = arguments.real(rule, f'config["{name}"]', config.get(name, value))
    return w, dw, config


def _state(rule: str, config: Config, name: str, w: np.ndarray) -> np.ndarray:
    """The state array of that name, made of zeros at first, in the dtype to compute in."""
    dtype = arguments.dtypes(w)[0]
    if config.get(name) is None:
        config[name] = np.zeros(w.shape, dtype)
    state = arguments.array(rule, f'config["{name}"]', config[name])
    if state.shape != w.shape:
        raise ValueError(f'{rule}: config["{name}"] must have w\'s shape {w.shape}, got {state.shape}')
    if not (state.dtype == dtype and state.flags.carray):
        state = np.array(state, dtype, order="C")
    config[name] = state
    return state


def _apply(kernel: Kernel, w: np.ndarray, dw: np.ndarray, states: list[np.ndarray], *numbers: float) -> np.ndarray:
    """A new w from a kernel that updates a copy of it in place, and the states."""
    dtype, result_dtype = arguments.dtypes(w)
    value = workspace.empty(w.shape, dtype)
    value[...] = w
    flat = [array.reshape(-1) for array in (value, arguments.dense(dw, dtype), *states)]
    runtime.launch(kernel, 8 * value.size, *flat, *numbers)
    return value.astype(result_dtype, copy=False)


def sgd(w: Any, dw: Any, config: Config | None = None) -> Updated:
    """w - learning_rate * dw. config: learning_rate (1e-2).

    >>> sgd(np.array([1.0, 2.0]), np.array([2.0, -2.0]), {"learning_rate": 0.25})[0].tolist()
    [0.5, 2.5]
    """
    w, dw, config = _settings(w, dw, config, "sgd", learning_rate=1e-2)
    dtype, result_dtype = arguments.dtypes(w)
    return (w - config["learning_rate"] * dw.astype(dtype, copy=False)).astype(result_dtype, copy=False), config


def sgd_momentum(w: Any, dw: Any, config: Config | None = None) -> Updated:
    """velocity = momentum * velocity - learning_rate * dw, next_w = w + velocity.

    config: learning_rate (1e-2), momentum (0.9), velocity (zeros).
    """
    w, dw, config = _settings(w, dw, config, "sgd_momentum", learning_rate=1e-2, momentum=0.9)
    velocity = _state("sgd_momentum", config, "velocity", w)
    velocity *= config["momentum"]
    velocity -= config["learning_rate"] * dw.astype(velocity.dtype, copy=False)
    return (w + velocity).astype(arguments.dtypes(w)[1], copy=False), config


def rmsprop(w: Any, dw: Any, config: Config | None = None) -> Updated:
    """cache = decay_rate * cache + (1 - decay_rate) * dw^2, next_w = w - learning_rate * dw / (sqrt(cache) + epsilon).

    config: learning_rate (1e-2), decay_rate (0.99), epsilon (1e-8), cache (zeros). (Tieleman & Hinton 2012)
    """
    w, dw, config = _settings(w, dw, config, "rmsprop", learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8)
    states = [_state("rmsprop", config, "cache", w)]
    numbers = config["learning_rate"], config["decay_rate"], config["epsilon"], 0.0, 1.0
    return _apply(optimizers.rmsprop, w, dw, states, *numbers), config


def adam(w: Any, dw: Any, config: Config | None = None) -> Updated:
    """Adam with bias correction (Kingma & Ba 2015, algorithm 1).

    config: learning_rate (1e-3), beta1 (0.9), beta2 (0.999), epsilon (1e-8), m and v (zeros), t (0, steps made).
    """
    w, dw, config = _settings(
        w, dw, config, "adam", learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8
    )  # fmt: skip
    config["t"] = arguments.integer("adam", 'config["t"]', config.get("t", 0), 0) + 1
    states = [_state("adam", config, name, w) for name in ("m", "v")]
    first, second = config["beta1"], config["beta2"]
    rate = config["learning_rate"] / (1 - first ** config["t"])
    root = 1 / math.sqrt(1 - second ** config["t"])
    return _apply(optimizers.adam, w, dw, states, rate, first, second, config["epsilon"], root, 0.0, 1.0), config


RULES: dict[str, Callable[..., Updated]] = {
    "sgd": sgd,
    "sgd_momentum": sgd_momentum,
    "rmsprop": rmsprop,
    "adam": adam,
}
