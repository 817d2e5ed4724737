"""Initial weights: uniform distributions scaled so that activations keep their variance through the layers."""

from __future__ import annotations

import math

import numpy as np

Seed = int | np.random.Generator | None


def he_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """Variance 2 / fan_in, for layers followed by ReLU (He et al. 2015, eq. 10); float64."""
    bound = math.sqrt(6 / max(fan_in, 1))
    return rng.uniform(-bound, bound, shape)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """Variance 2 / (fan_in + fan_out), for sigmoid, tanh and output layers (Glorot & Bengio 2010, eq. 16); float64."""
    bound = math.sqrt(6 / max(fan_in + fan_out, 1))
    return rng.uniform(-bound, bound, shape)


def xavier_sigmoid(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """Four times `xavier_uniform`: the slope of the logistic function at 0 is 1/4, and each layer of it would divide
    signals and gradients by 4 again (five layers: by 1000); float64.
    """
    return 4 * xavier_uniform(rng, shape, fan_in, fan_out)


INITIALIZERS = {"he": he_uniform, "xavier": xavier_uniform, "xavier_sigmoid": xavier_sigmoid}
