"""How far results may lie from the float64 oracles: one rule per dtype, scaled by the reduction length.

Operands of the tests are standard normal. A running sum of k products then has a root mean square of sqrt(k), each
addition rounds it by up to eps / 2, and `length` such errors add up like a random walk: eps * length * 0.15 for one
result, about seven times that for the largest of 100 000, where sums are large as well. Twice that is allowed. Sums
made of blocks stay below; short sums are dominated by the largest product, which 16 * sqrt(length) covers.
"""

from __future__ import annotations

import numpy as np

# Spacing of numbers at 1, of the dtype sums are computed in and of the dtype they are returned in.
EPSILON = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
COMPUTED_IN = {"float16": "float32", "float32": "float32", "float64": "float64"}

# Winograd's tiles of 6x6, FFT and products of two bfloat16 parts, which only "fast" admits: largest error 2e-5 of the
# results' rms, 4e-6 for plain sums. Two parts leave up to 1.1e-5 of a product, which decides where few are summed.
FACTOR = {"auto": 1.0, "fast": 20.0}


def allowed(dtype: np.dtype, length: int, accuracy: str = "auto") -> float:
    """Largest error of one sum of `length` products of standard normal numbers, before it is rounded to `dtype`."""
    return FACTOR[accuracy] * EPSILON[COMPUTED_IN[np.dtype(dtype).name]] * (16 * max(length, 1) ** 0.5 + 2 * length)


def assert_close(got: np.ndarray, expected: np.ndarray, length: int, accuracy: str = "auto") -> None:
    """Every number of `got` within `allowed` of the float64 `expected`; NaN and infinities in the same places."""
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    limit = allowed(got.dtype, length, accuracy) + EPSILON[got.dtype.name] * np.abs(expected)
    with np.errstate(invalid="ignore"):
        error = np.abs(got.astype(np.float64) - expected)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))  # infinities compare equal, their difference is NaN
    wrong = ~(same | (error <= limit))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} numbers are wrong, first at {place}: {got[place]}, expected "
            f"{expected[place]} (largest error {np.nanmax(error)}, allowed {np.max(limit)})"
        )
