"""Options of a command in a TOML file: read as if they stood on the command line, before its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """The values in a TOML file.

    Raises
    ------
    ImportError : Python is older than 3.11 and tomli is not installed.
    ValueError : the file is no TOML. OSError : it cannot be read.
    """
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib  # type: ignore[no-redef]
        except ImportError as error:
            raise ImportError(
                f"--config {path}: Python 3.10 has no TOML reader: use Python 3.11 or newer, or: pip install tomli"
            ) from error
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is no TOML file: {error}") from None


def as_arguments(values: Mapping[str, Any], known: Collection[str], source: str) -> list[str]:
    """The values as command-line arguments; keys are the options' names, with "_" or "-".

    Raises
    ------
    ValueError : a key is no option.

    >>> as_arguments({"batch_size": 50, "flip": True, "mirror": False}, ["batch_size", "flip", "mirror"], "x.toml")
    ['--batch-size=50', '--flip', '--no-mirror']
    """
    arguments = []
    for key, value in values.items():
        if key.replace("-", "_") not in known:
            raise ValueError(f"{source} has the unknown key {key!r}; known are {', '.join(sorted(known))}")
        option = key.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        else:
            arguments.append(f"--{option}={value if isinstance(value, str) else json.dumps(value)}")
    return arguments


def write(path: str | PathLike[str], values: Mapping[str, Any]) -> None:
    """Write a TOML file of text, numbers, truth values, lists of them, and tables of these; None is left out."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    plain = {key: value for key, value in values.items() if key not in tables and value is not None}
    sections = [_lines(plain), *(f"\n[{key}]\n{_lines(table)}" for key, table in tables.items() if table)]
    Path(path).write_text("".join(sections), encoding="utf-8")


def _lines(values: Mapping[str, Any]) -> str:
    """JSON's text, numbers, truth values and lists are TOML's as well."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
