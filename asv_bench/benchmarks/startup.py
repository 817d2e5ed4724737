"""What a fresh process pays: importing, and the first call with compiled kernels on disk. One process per sample."""

from __future__ import annotations

_ARRAYS = """
import numpy as np
import fastconv
x, w = np.ones((8, 16, 28, 28), np.float32), np.ones((16, 16, 3, 3), np.float32)
"""
_FORWARD = "fastconv.conv2d(x, w, padding=1)"
_BACKWARD = "out, cache = fastconv.conv2d_forward(x, w, padding=1); fastconv.conv2d_backward(out, cache)"


class Startup:
    timeout = 300
    number = 1
    repeat = 5

    def setup_cache(self) -> None:
        """Compile in a process of its own, so that even the first sample finds the kernels on disk."""
        exec(f"{_ARRAYS}\n{_BACKWARD}", {})

    def timeraw_import(self) -> str:
        return "import fastconv"

    def timeraw_first_forward(self) -> tuple[str, str]:
        return _FORWARD, _ARRAYS

    def timeraw_first_forward_and_backward(self) -> tuple[str, str]:
        return _BACKWARD, _ARRAYS
