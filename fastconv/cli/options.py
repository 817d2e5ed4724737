"""What the subcommands share: types of options, and errors that are the user's."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any


class CommandError(Exception):
    """A mistake in how the command was used, or in the files it was given: one line, exit code 2."""


@contextlib.contextmanager
def users_mistakes() -> Iterator[None]:
    """Turn the errors that arguments, files or missing packages cause here into a `CommandError`."""
    try:
        yield
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        raise CommandError(text) from error
    except (ValueError, TypeError, ImportError) as error:
        raise CommandError(str(error)) from error


def _checked(kind: Callable[[str], Any], rule: str, accept: Callable[[Any], bool]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f"must be {rule}, got {text!r}")
        return value

    return convert


positive_integer = _checked(int, "an integer of at least 1", lambda n: n >= 1)
natural = _checked(int, "an integer of at least 0", lambda n: n >= 0)
positive = _checked(float, "a number above 0", lambda value: 0 < value < math.inf)
not_negative = _checked(float, "a number of at least 0", lambda value: 0 <= value < math.inf)
fraction = _checked(float, "a number of at least 0 and below 1", lambda value: 0 <= value < 1)
table = _checked(json.loads, 'a JSON object such as {"hidden": 64}', lambda value: isinstance(value, dict))
