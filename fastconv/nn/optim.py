"""Optimizers: each `step` updates the parameters in place from their gradients, in their own dtype.

A parameter's step is one pass of a kernel: ten NumPy operations on each small array took 65 us for LeNet-5.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from fastconv import arguments, runtime
from fastconv._kernels import optimizers
from fastconv._kernels.launch import Kernel
from fastconv.nn.base import Parameter, check_state


class Optimizer:
    """Base: the parameters, the learning rate `lr` (which may be set between steps), the step count and the state.

    A subclass names its state arrays (one per parameter each) in `slots` and implements `_kernel`.

    Parameters
    ----------
    weight_decay : pulls parameters towards zero: coupled, as an L2 penalty, grad + weight_decay * w in place of grad.
    decoupled : scale the parameters by 1 - lr * weight_decay before each step instead (Loshchilov & Hutter 2019).
    decay_biases : whether biases, and scales and shifts of normalisation - parameters with one axis - decay too.
    rates : factors on `lr` of some parameters, by patterns of their names, as in `{"*.beta": 64}`; the first that fits
        counts. Weight decay goes on at the pace of `lr`.

    Raises
    ------
    ValueError, TypeError : no parameters, two of the same name, a hyperparameter out of range, a pattern of no name.
    """

    slots: tuple[str, ...] = ()

    def __init__(
        self,
        parameters: Iterable[Parameter],
        *,
        lr: float,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        decay_biases: bool = True,
        rates: Mapping[str, float] = MappingProxyType({}),
    ):
        name = type(self).__name__
        self.parameters = list(parameters)
        names = [parameter.name for parameter in self.parameters]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"{name}: parameters must be given, each with its own name, got {names}")
        self.lr = _at_least(name, "lr", lr, 0.0)
        self.weight_decay = _at_least(name, "weight_decay", weight_decay, 0.0)
        self.decoupled = bool(decoupled)
        self.decay_biases = bool(decay_biases)
        self.rates = {pattern: arguments.real(name, "rates", rate) for pattern, rate in rates.items()}
        for pattern, rate in self.rates.items():
            if rate <= 0 or not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"{name}: rates must have patterns of parameters' names and factors above 0, "
                    f"got {pattern!r}: {rate} for {', '.join(names)}"
                )
        self._factors = [
            next((rate for pattern, rate in self.rates.items() if fnmatch.fnmatchcase(parameter, pattern)), 1.0)
            for parameter in names
        ]
        self.steps = 0
        self._state = [
            tuple(np.zeros(parameter.value.shape, parameter.value.dtype.newbyteorder("=")) for _ in self.slots)
            for parameter in self.parameters
        ]
        self._flat_state = [tuple(array.reshape(-1) for array in state) for state in self._state]

    def step(self) -> None:
        """Update every parameter from its gradient.

        Raises
        ------
        RuntimeError : a parameter has no gradient yet; nothing was updated.
        """
        for parameter in self.parameters:
            if parameter.grad is None:
                raise RuntimeError(f"{type(self).__name__}.step: {parameter.name} has no gradient, call backward first")
        self.steps += 1
        kernel, (rate, *numbers) = self._kernel()
        decay = (0.0, 1 - self.lr * self.weight_decay) if self.decoupled else (self.weight_decay, 1.0)
        for parameter, state, factor in zip(self.parameters, self._flat_state, self._factors, strict=True):
            value, grad = parameter.value, parameter.grad
            assert grad is not None
            if grad.shape != value.shape:
                raise ValueError(f"{parameter.name}: grad must have shape {value.shape}, got {grad.shape}")
            in_place = value.flags.carray and value.dtype.isnative
            flat = (value if in_place else np.array(value, value.dtype.newbyteorder("="), order="C")).reshape(-1)
            grad = arguments.dense(grad, flat.dtype).reshape(-1)
            penalty, shrink = decay if self.decay_biases or value.ndim > 1 else (0.0, 1.0)
            moved = flat.size * (3 + 2 * len(state))  # read and written, but for the gradient
            numbers_of_step = rate * factor, *numbers, penalty / factor, shrink
            runtime.launch(kernel, 8 * moved, flat, grad, *state, *numbers_of_step)
            if not in_place:
                value[...] = flat.reshape(value.shape)

    def _kernel(self) -> tuple[Kernel, tuple[float, ...]]:
        """The kernel of this step, and its arguments between the state and the decay, the rate first."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Class name and hyperparameters, JSON-able."""
        hidden = ("parameters", "steps")
        numbers = {key: v for key, v in vars(self).items() if not key.startswith("_") and key not in hidden}
        return {"optimizer": type(self).__name__, **numbers}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the state: "steps", and one array per slot and parameter such as "momentum/0.weight"."""
        return {name: np.array(value) for name, value in self._named_state().items()}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state_dict` gave; the hyperparameters stay this optimizer's own.

        Raises
        ------
        ValueError : names or shapes differ; nothing was changed.
        """
        state = self._named_state()
        check_state(f"{type(self).__name__}.load_state_dict", state, arrays)
        self.steps = int(arrays["steps"])
        for name, value in state.items():
            value[...] = arrays[name]

    def _named_state(self) -> dict[str, np.ndarray]:
        named = {
            f"{slot}/{parameter.name}": value
            for parameter, state in zip(self.parameters, self._state, strict=True)
            for slot, value in zip(self.slots, state, strict=True)
        }
        return {"steps": np.array(self.steps), **named}


def _at_least(function: str, name: str, value: float, minimum: float) -> float:
    value = arguments.real(function, name, value)
    if value < minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {value}")
    return value


def _fraction(function: str, name: str, value: float) -> float:
    value = arguments.real(function, name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{function}: {name} must be at least 0 and below 1, got {value}")
    return value


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's variant as in PyTorch.

    v = momentum * v + g; w -= lr * v, or with `nesterov` w -= lr * (g + momentum * v) (Sutskever et al. 2013).

    >>> w = Parameter(np.array([1.0, 2.0]), "w", grad=np.array([2.0, -2.0]))
    >>> SGD([w], lr=0.25).step()
    >>> w.value.tolist()
    [0.5, 2.5]
    """

    slots = ("momentum",)

    def __init__(
        self,
        parameters: Iterable[Parameter],
        *,
        lr: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        decay_biases: bool = True,
        rates: Mapping[str, float] = MappingProxyType({}),
    ):
        super().__init__(
            parameters, lr=lr, weight_decay=weight_decay, decoupled=decoupled, decay_biases=decay_biases, rates=rates
        )
        self.momentum = _fraction("SGD", "momentum", momentum)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0, got 0")

    def _kernel(self) -> tuple[Kernel, tuple[float, ...]]:
        return optimizers.sgd, (self.lr, self.momentum, self.nesterov)


class RMSProp(Optimizer):
    """s = alpha * s + (1 - alpha) * g^2; w -= lr * g / (sqrt(s) + eps)  (Tieleman & Hinton 2012)."""

    slots = ("square",)

    def __init__(
        self,
        parameters: Iterable[Parameter],
        *,
        lr: float = 1e-3,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        decay_biases: bool = True,
        rates: Mapping[str, float] = MappingProxyType({}),
    ):
        super().__init__(
            parameters, lr=lr, weight_decay=weight_decay, decoupled=decoupled, decay_biases=decay_biases, rates=rates
        )
        self.alpha = _fraction("RMSProp", "alpha", alpha)
        self.eps = _at_least("RMSProp", "eps", eps, 0.0)

    def _kernel(self) -> tuple[Kernel, tuple[float, ...]]:
        return optimizers.rmsprop, (self.lr, self.alpha, self.eps)


class Adam(Optimizer):
    """m = b1 * m + (1 - b1) * g; s = b2 * s + (1 - b2) * g^2; w -= lr * m' / (sqrt(s') + eps), where m' and s' are
    divided by 1 - b1^t and 1 - b2^t  (Kingma & Ba 2015, algorithm 1).
    """

    slots = ("mean", "square")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        decay_biases: bool = True,
        rates: Mapping[str, float] = MappingProxyType({}),
    ):
        name = type(self).__name__
        super().__init__(
            parameters, lr=lr, weight_decay=weight_decay, decoupled=decoupled, decay_biases=decay_biases, rates=rates
        )
        if len(betas) != 2:
            raise ValueError(f"{name}: betas must be a pair, got {betas}")
        self.betas = (_fraction(name, "betas", betas[0]), _fraction(name, "betas", betas[1]))
        self.eps = _at_least(name, "eps", eps, 0.0)

    def _kernel(self) -> tuple[Kernel, tuple[float, ...]]:
        first, second = self.betas
        rate = self.lr / (1 - first**self.steps)
        root_correction = 1 / math.sqrt(1 - second**self.steps)
        return optimizers.adam, (rate, first, second, self.eps, root_correction)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2, as in PyTorch)."""

    def __init__(
        self,
        parameters: Iterable[Parameter],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        decay_biases: bool = True,
        rates: Mapping[str, float] = MappingProxyType({}),
    ):
        super().__init__(
            parameters,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled=True,
            decay_biases=decay_biases,
            rates=rates,
        )


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "rmsprop": RMSProp, "adam": Adam, "adamw": AdamW}
