"""Run by .ci/run with the wheel installed alone: does what was built work, away from its sources?

usage: python smoke.py SOURCE_FOLDER
"""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

import fastconv
import fastconv._kernels

ALLOWED = {"fastconv", "numpy", "numba", "llvmlite", "pip", "setuptools"}


def main() -> None:
    source, package = Path(sys.argv[1]).resolve(), Path(fastconv.__file__).resolve().parent
    assert not package.is_relative_to(source), f"fastconv was imported from its sources, {package}"
    assert Path(fastconv._kernels.__file__).resolve().parent == package / "_kernels"
    assert (package / "py.typed").is_file(), "py.typed is not in the wheel"
    assert metadata.version("fastconv") == fastconv.__version__
    installed = {distribution.name.lower() for distribution in metadata.distributions()}
    assert installed <= ALLOWED, f"the wheel brings more than it should: {sorted(installed - ALLOWED)}"
    tops = {str(file).split("/")[0] for file in metadata.files("fastconv") or []}
    assert all(top == "fastconv" or top.startswith(("fastconv-", "..")) for top in tops), f"the wheel installs {tops}"

    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 3, 8, 9)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    out, cache = fastconv.conv2d_forward(x, w, b, padding=1)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.einsum("nchwkl,fckl->nfhw", windows, w) + b[:, None, None]
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-10)
    dx, dw, db = fastconv.conv2d_backward(out, cache)
    # The adjoint identity: <conv(x, w), d> = <x, dx> = <w, dw>.
    inner = np.vdot(out - b[:, None, None], out)
    np.testing.assert_allclose([np.vdot(x, dx), np.vdot(w, dw)], inner, rtol=1e-10)
    np.testing.assert_allclose(db, out.sum(axis=(0, 2, 3)), rtol=1e-10)

    command = Path(sys.executable).with_name("fastconv")
    for line in ([str(command), "info"], [sys.executable, "-m", "fastconv", "--version"]):
        printed = subprocess.run(line, check=True, capture_output=True, text=True).stdout
        assert fastconv.__version__ in printed, printed
    print(f"the wheel of fastconv {fastconv.__version__} works in {package.parent}")


if __name__ == "__main__":
    main()
