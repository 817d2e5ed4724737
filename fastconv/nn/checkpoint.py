"""Saving and loading: one `.npz` file of plain arrays and a JSON header, without pickle, replaced atomically."""

from __future__ import annotations

import io
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn.base import build_layer, check_state
from fastconv.nn.history import History
from fastconv.nn.optim import Optimizer
from fastconv.nn.run import Run
from fastconv.nn.sequential import Sequential

FORMAT = "fastconv checkpoint"
VERSION = 1


def save(path: str | PathLike[str], model: Sequential, optimizer: Optimizer | None = None, **meta: Any) -> None:
    """Write a model (configuration, parameters, running statistics), an optimizer's state and notes.

    The file appears complete or not at all: a failing save leaves an older file as it was and no other file behind.

    Parameters
    ----------
    meta : JSON-able values that `read_meta` gives back, such as `epoch=3` or `classes=["cat", "dog"]`.

    Raises
    ------
    TypeError : the notes, or a layer's configuration, are not JSON-able.
    OSError : the file cannot be written.

    >>> import tempfile
    >>> from fastconv.nn import Linear
    >>> path = Path(tempfile.mkdtemp()) / "model.npz"
    >>> save(path, Sequential(Linear(2, 3, rng=0)), epoch=7)
    >>> load(path), read_meta(path)
    (Sequential(Linear(2, 3)), {'epoch': 7})
    """
    _write(path, *_contents(model, optimizer, meta))


def save_run(path: str | PathLike[str], run: Run, meta: Mapping[str, Any]) -> None:
    """Write what `save` writes of a training run, and all that `resume` needs to continue it bit for bit."""
    header, arrays = _contents(run.model, run.optimizer, meta)
    header["run"] = {
        "history": asdict(run.history),
        "step": run.step,
        "rng": run.rng.bit_generator.state,
        "callbacks": [type(callback).__name__ for callback in run.callbacks],
    }
    _write(path, header, arrays | {f"callbacks/{name}": value for name, value in _callback_state(run).items()})


def _callback_state(run: Run) -> dict[str, np.ndarray]:
    return {
        f"{index}/{name}": value
        for index, callback in enumerate(run.callbacks)
        for name, value in callback.state_dict().items()
    }


def _contents(
    model: Sequential, optimizer: Optimizer | None, meta: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": model.config(),
        "optimizer": None if optimizer is None else optimizer.config(),
        "meta": dict(meta),
    }
    arrays = {f"model/{name}": value for name, value in model.state_dict().items()}
    if optimizer is not None:
        arrays |= {f"optimizer/{name}": value for name, value in optimizer.state_dict().items()}
    return header, arrays


def _write(path: str | PathLike[str], header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    arrays = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays}
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(partial, "xb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load(path: str | PathLike[str], model: Sequential | None = None, optimizer: Optimizer | None = None) -> Sequential:
    """Read a checkpoint into `model` (rebuilt from its stored configuration if None) and return the model.

    With an `optimizer` its state is restored as well; its hyperparameters stay its own. Nothing is changed unless
    everything fits.

    Raises
    ------
    ValueError : no checkpoint, a damaged one, or one of a different model or optimizer.
    OSError : the file cannot be read (FileNotFoundError if there is none).
    """
    header, arrays = _read(path)
    model_arrays = _below("model/", arrays)
    optimizer_arrays = _below("optimizer/", arrays)
    if optimizer is not None:
        stored = (header["optimizer"] or {}).get("optimizer")
        if stored != type(optimizer).__name__:
            raise ValueError(
                f"load: {path} holds {f'the state of {stored}' if stored else 'no optimizer state'}, "
                f"but the optimizer is {type(optimizer).__name__}"
            )
        check_state(f"load: {path}: optimizer", optimizer.state_dict(), optimizer_arrays)
    if model is None:
        try:
            built = build_layer(header["model"])
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"load: {path} describes a model that cannot be rebuilt: {error}") from None
        if not isinstance(built, Sequential):
            raise ValueError(f"load: {path} must describe a Sequential, got {type(built).__name__}")
        model = built
    check_state(f"load: {path}", model.state_dict(), model_arrays)
    model.load_state_dict(model_arrays)
    if optimizer is not None:
        optimizer.load_state_dict(optimizer_arrays)
    return model


def resume(path: str | PathLike[str], run: Run) -> None:
    """Bring a run to where `save_run` left another: weights, optimizer, callbacks, random numbers, history.

    Hyperparameters, data and schedule stay the run's own. Nothing is changed unless everything fits.

    Raises
    ------
    ValueError : as `load`; the file was not written during training, or with other callbacks.
    """
    header, arrays = _read(path)
    stored = header.get("run")
    if not isinstance(stored, dict):
        raise ValueError(f"resume: {path} holds a model, but no training run; Trainer.fit(checkpoints=...) writes one")
    names = [type(callback).__name__ for callback in run.callbacks]
    if names != stored["callbacks"]:
        raise ValueError(f"resume: {path} was written with the callbacks {stored['callbacks']}, this run has {names}")
    callback_arrays = _below("callbacks/", arrays)
    check_state(f"resume: {path}: callbacks", _callback_state(run), callback_arrays)
    load(path, run.model, run.optimizer)
    for index, callback in enumerate(run.callbacks):
        callback.load_state_dict(_below(f"{index}/", callback_arrays))
    run.rng.bit_generator.state = stored["rng"]
    run.history = History(**stored["history"])
    run.step = stored["step"]


def read_meta(path: str | PathLike[str]) -> dict[str, Any]:
    """The notes that were given to `save`. Raises as `load` does."""
    return _read(path)[0]["meta"]


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and all arrays; the archive's checksums cover every value."""
    content = Path(path).read_bytes()
    try:
        arrays = {}
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                member = io.BytesIO(archive.read(name))
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
        header = json.loads(arrays.pop("header").tobytes())
    except Exception as error:  # damaged archives make zipfile, zlib, lzma, NumPy and json raise a dozen kinds
        raise ValueError(f"load: {path} is damaged or no fastconv checkpoint: {error!r}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"load: {path} is an .npz file, but no fastconv checkpoint")
    if header.get("version") != VERSION:
        raise ValueError(f"load: {path} has format version {header.get('version')}, this fastconv reads {VERSION}")
    return header, arrays
