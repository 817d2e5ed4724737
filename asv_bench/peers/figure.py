"""What the single figures share: the options that select layers."""

from __future__ import annotations

import argparse

from contest import LAYOUTS
from layers import GROUPS, matching
from measure import Effort

from fastconv.catalogue import Case


def parser(description: str, groups: tuple[str, ...] = ("",)) -> argparse.ArgumentParser:
    """Options of every figure; `groups` are those it shows when none is named."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--group", nargs="+", metavar="NAME", default=groups, help="groups whose name contains these")
    result.add_argument("--layer", nargs="+", metavar="NAME", default=[""], help="layers whose name contains these")
    result.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    result.add_argument("--layout", nargs="+", choices=LAYOUTS, default=["NCHW"])
    result.add_argument("--rounds", type=int, default=Effort.rounds, help=f"blocks each (default: {Effort.rounds})")
    return result


def cases(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Case]:
    """The convolutions that the options select."""
    names = matching((case.name for members in GROUPS.values() for case in members), options.layer)
    groups = matching(GROUPS, options.group)
    found = [case for group in GROUPS if group in groups for case in GROUPS[group] if case.name in names]
    if not found:
        parser.error(f"no such group and layer; groups are {', '.join(GROUPS)}")
    return found
