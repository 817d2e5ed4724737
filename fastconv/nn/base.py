"""What every layer is: named state, a forward and a backward pass, and a configuration that rebuilds it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DTYPES = ("float32", "float64")
LAYOUTS = ("NCHW", "NHWC")

_classes: dict[str, type[Layer]] = {}


@dataclass(eq=False)
class Buffer:
    """An array that belongs to a layer, is saved with it and is not trained (running statistics).

    Attributes
    ----------
    value : the array; updates are written into it, it is never replaced.
    name : unique in the outermost `Sequential`, such as "3.running_mean".
    """

    value: np.ndarray
    name: str = ""


@dataclass(eq=False)
class Parameter(Buffer):
    """A trained array; `grad` has its shape and dtype and holds the last backward pass's gradient (None before)."""

    grad: np.ndarray | None = None


class Layer:
    """Base of all layers.

    A subclass implements `forward` and `backward`, keeps what backward needs through `_remember`, and sets
    `Parameter` and `Buffer` attributes. It stores each constructor argument (but `rng`) in a JSON-able attribute of
    the same name, from which `config` and `build_layer` rebuild it.
    """

    _cache: Any = None

    def __init_subclass__(cls) -> None:
        _classes[cls.__name__] = cls

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.forward(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._described_arguments())})"

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        """The layer's output; only a call with `training=True` can be followed by `backward`."""
        raise NotImplementedError

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        """Store the parameters' gradients and return the gradient of x (None without `input_gradient`).

        Raises
        ------
        RuntimeError : not preceded by `forward(x, training=True)`, whose saved arrays it uses up.
        """
        raise NotImplementedError

    def _remember(self, cache: Any, training: bool) -> None:
        self._cache = (cache,) if training else None

    def _recall(self) -> Any:
        if self._cache is None:
            raise RuntimeError(f"{type(self).__name__}.backward: call forward(x, training=True) before each backward")
        (cache,) = self._cache
        self._cache = None
        return cache

    def children(self) -> tuple[Layer, ...]:
        """The layers directly inside this one, in order."""
        return ()

    def all_layers(self) -> Iterator[Layer]:
        """This layer and all inside it, in order."""
        yield self
        for child in self.children():
            yield from child.all_layers()

    def state(self) -> Iterator[Buffer]:
        """Everything that is saved: parameters and buffers, those of the layers inside as well."""
        for value in vars(self).values():
            if isinstance(value, Buffer):
                yield value
        for child in self.children():
            yield from child.state()

    def parameters(self) -> Iterator[Parameter]:
        """Everything that is trained."""
        return (entry for entry in self.state() if isinstance(entry, Parameter))

    def set_names(self, prefix: str = "") -> None:
        """Name the state by attribute, after the prefix: "weight" or "0.weight"."""
        for attribute, value in vars(self).items():
            if isinstance(value, Buffer):
                value.name = prefix + attribute
        for index, child in enumerate(self.children()):
            child.set_names(f"{prefix}{index}.")

    def seed(self, rng: np.random.Generator) -> None:
        """Draw what is random in training (dropout masks) from `rng` from now on."""
        for child in self.children():
            child.seed(rng)

    def forget(self) -> None:
        """Drop what the last forward pass saved for a backward pass that will not come."""
        self._cache = None
        for child in self.children():
            child.forget()

    def config(self) -> dict[str, Any]:
        """The JSON-able description that `build_layer` turns into a layer of the same kind, weights drawn anew."""
        names = [name for name in inspect.signature(type(self)).parameters if name != "rng"]
        return {"layer": type(self).__name__, **{name: getattr(self, name) for name in names}}

    def _described_arguments(self) -> Iterator[str]:
        """The constructor's arguments as text, without those left at their default."""
        config = self.config()
        for name, argument in inspect.signature(type(self)).parameters.items():
            if name in config and (value := _collapse(config[name])) != argument.default:
                yield f"{value}" if argument.default is argument.empty else f"{name}={value!r}"

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers by name."""
        return {entry.name: entry.value.copy() for entry in self.state()}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write what `state_dict` gave into this layer's arrays; nothing is written if anything does not fit.

        Raises
        ------
        ValueError : names are missing or left over, or a shape differs.
        """
        entries = {entry.name: entry for entry in self.state()}
        check_state("load_state_dict", {name: entry.value for name, entry in entries.items()}, arrays)
        for name, entry in entries.items():
            entry.value[...] = arrays[name]


def _collapse(value: Any) -> Any:
    """(a,), (a, a) and (a, a, a) as a, at every level: the short form of a kernel size or of paddings."""
    if not isinstance(value, (tuple, list)):
        return value
    parts = [_collapse(part) for part in value]
    return parts[0] if parts and all(part == parts[0] for part in parts) else tuple(parts)


def check_state(function: str, expected: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless both mappings have the same names and, name by name, the same shapes."""
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    if missing or unknown:
        raise ValueError(f"{function}: arrays belong to something else: missing {missing}, unexpected {unknown}")
    for name, value in expected.items():
        if value.shape != np.shape(given[name]):
            raise ValueError(f"{function}: {name} must have shape {value.shape}, got {np.shape(given[name])}")


def build_layer(config: Mapping[str, Any]) -> Layer:
    """The layer that a `config()` describes.

    Raises
    ------
    ValueError : not such a description, or of a class that is not defined in this process.

    >>> build_layer({"layer": "Dropout", "p": 0.5})
    Dropout(0.5)
    """
    arguments = dict(config)
    name = arguments.pop("layer", None)
    if name not in _classes:
        raise ValueError(f"build_layer: config['layer'] must be one of {', '.join(sorted(_classes))}, got {name!r}")
    children = [build_layer(child) for child in arguments.pop("layers", ())]
    try:
        return _classes[name](*children, **arguments)
    except TypeError as error:
        raise ValueError(f"build_layer: {name} cannot be built from {arguments}: {error}") from None
