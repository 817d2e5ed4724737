"""Benchmarks for asv: convolution passes, pooling, padding, filters, other layers, a training step, start-up, memory.

Compiled kernels are kept per environment and commit, so that no commit runs another one's machine code. Numba reads
the variable when it is first imported, which is after this file.
"""

import os
from pathlib import Path

if "ASV_ENV_DIR" in os.environ and "ASV_COMMIT" in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = str(Path(os.environ["ASV_ENV_DIR"]) / "kernel-cache" / os.environ["ASV_COMMIT"])
