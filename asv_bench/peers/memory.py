"""Memory of a forward pass beyond its input, weights and output (Linux).

Each layer runs in a process of its own, with x, w and out allocated and written beforehand. The first call loads the
kernels. Then the system's record of the process's peak is reset (/proc/self/clear_refs) and a second call made: the
figure is its peak (VmHWM) less what was resident before it (VmRSS), plus the scratch memory that fastconv kept from
the first call, as the second one uses that again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import figure
import numpy as np
from layers import GROUPS

from fastconv import conv2d, explain_conv2d, workspace
from fastconv.catalogue import Case

_MIB = 2**20


def _status(name: str) -> int:
    """Bytes that /proc/self/status shows."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def bytes_beyond(case: Case, dtype: str, layout: str, algorithm: str) -> int:
    """The figure, for this process."""
    x, w = np.ones(case.x_shape(layout), dtype), np.ones(case.w_shape(layout), dtype)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    out = conv2d(x, w, **options)
    kept, before = workspace.held_bytes(), _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    conv2d(x, w, out=out, **options)
    return _status("VmHWM") - before + kept


def _in_child(*arguments: str) -> int:
    command = [sys.executable, __file__, "--child", *arguments]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        layer, dtype, layout, algorithm = sys.argv[2:]
        cases = {case.name: case for members in GROUPS.values() for case in members}
        print(bytes_beyond(cases[layer], dtype, layout, algorithm))
        return 0
    parser = figure.parser(__doc__)
    parser.add_argument("--algorithm", default="auto", help="auto, fast, or a name from conv2d_algorithms()")
    options = parser.parse_args()
    print(f"MiB, {options.dtype}, algorithm {options.algorithm}; share: measured / (x, w and out)")
    print(f"{'layer':30}{'layout':8}{'x, w, out':>10}{'planned':>10}{'measured':>10}{'share':>8}")
    for case in figure.cases(options, parser):
        for layout in options.layout:
            explained = explain_conv2d(
                case.x_shape(layout), case.w_shape(layout), dtype=options.dtype, layout=layout,
                algorithm=options.algorithm, **case.options,
            )  # fmt: skip
            problem = explained.problem
            shapes = (problem.x_shape, problem.w_shape, problem.out_shape)
            held = sum(int(np.prod(shape)) for shape in shapes) * problem.dtype.itemsize
            beyond = _in_child(case.name, options.dtype, layout, options.algorithm)
            cells = f"{held / _MIB:10.2f}{explained.workspace['forward'] / _MIB:10.2f}{beyond / _MIB:10.2f}"
            print(f"{case.name:30}{layout:8}{cells}{beyond / held:8.0%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
