"""Python in processes of their own: for what would end, fork, or configure the process that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
TIMEOUT = 300  # seconds; a deadlock is a failure


def run(*arguments: str | Path, cwd: Path = TESTS, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python arguments...` with the tests importable; keywords are set in its environment ("" unsets one).

    `-c` puts the working directory first on the path, so that must not hold the source tree.
    """
    variables = dict(os.environ)
    paths = [str(TESTS), variables.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    variables.update(environment)
    variables = {name: value for name, value in variables.items() if value}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=variables, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT)


def output_of(*arguments: str | Path, cwd: Path = TESTS, **environment: str) -> str:
    """What a process printed that must end well."""
    child = run(*arguments, cwd=cwd, **environment)
    assert child.returncode == 0, f"exit code {child.returncode}\n{child.stdout[-2000:]}\n{child.stderr[-4000:]}"
    return child.stdout
