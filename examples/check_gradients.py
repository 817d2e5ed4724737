"""Checking gradients: of a function of the library, of a layer of your own, and of one with a mistake.

python examples/check_gradients.py
"""

from __future__ import annotations

import numpy as np

import fastconv
from fastconv.testing import check_gradients


def swish_forward(x):
    """A layer of your own: x * sigmoid(x), and what its gradient needs."""
    gate = fastconv.sigmoid(x)
    return x * gate, (x, gate)


def swish_backward(dout, cache):
    x, gate = cache
    return dout * (gate + x * gate * (1 - gate))


def wrong_backward(dout, cache):
    """The product rule forgotten."""
    return dout * cache[1]


def main():
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 3, 5, 5)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)

    # Central differences need float64: in float32 they have no correct digit left.
    errors = check_gradients(
        lambda x, w, b: fastconv.conv2d_forward(x, w, b, stride=2, padding=1),
        fastconv.conv2d_backward,
        {"x": x, "w": w, "b": b},
    )
    print("conv2d   " + "   ".join(f"d{name} {error:.0e}" for name, error in errors.items()))

    errors["swish"] = check_gradients(swish_forward, swish_backward, [x])["0"]
    print(f"swish    dx {errors['swish']:.0e}")

    try:
        check_gradients(swish_forward, wrong_backward, [x])
        message = "not found"
    except AssertionError as error:
        message = str(error)
    print(f"mistake  {message}")
    return errors, message


if __name__ == "__main__":
    main()
