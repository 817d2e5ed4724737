"""From a naive loop to fastconv: the same numbers in five lines, thousands of times as fast.

python examples/from_loop_to_fastconv.py
"""

from __future__ import annotations

import time

import numpy as np

import fastconv


def naive_convolution(x, w, b, stride, padding):
    """A convolution from its definition: x (N, C, H, W), w (F, C, KH, KW), b (F,)."""
    N, _, H, W = x.shape
    F, _, KH, KW = w.shape
    OH, OW = (H + 2 * padding - KH) // stride + 1, (W + 2 * padding - KW) // stride + 1
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    out = np.zeros((N, F, OH, OW), x.dtype)
    for n in range(N):
        for f in range(F):
            for i in range(OH):
                for j in range(OW):
                    window = padded[n, :, i * stride : i * stride + KH, j * stride : j * stride + KW]
                    out[n, f, i, j] = np.sum(window * w[f]) + b[f]
    return out


def main():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 32, 32), np.float32)  # four colour pictures
    w = rng.standard_normal((16, 3, 3, 3), np.float32)  # sixteen filters
    b = rng.standard_normal(16, np.float32)

    started = time.perf_counter()
    expected = naive_convolution(x, w, b, stride=1, padding=1)
    naive_seconds = time.perf_counter() - started

    # The five lines: forward, and the gradients that the naive loop would need a second page for.
    out, cache = fastconv.conv2d_forward(x, w, b, stride=1, padding=1)
    loss = np.sum(out**2) / 2
    dx, dw, db = fastconv.conv2d_backward(out, cache)  # the gradient of that loss by `out` is `out` itself
    w_after = w - 1e-5 * dw
    loss_after = np.sum(fastconv.conv2d(x, w_after, b, padding=1) ** 2) / 2

    started = time.perf_counter()
    for _ in range(10):
        fastconv.conv2d(x, w, b, padding=1)
    seconds = (time.perf_counter() - started) / 10

    print(f"largest difference   {np.abs(out - expected).max():.1e}")
    print(f"naive loop           {1e3 * naive_seconds:.2f} ms")
    print(f"fastconv             {1e3 * seconds:.3f} ms, {naive_seconds / seconds:,.0f} times as fast")
    print(f"gradients            dx {dx.shape}, dw {dw.shape}, db {db.shape}")
    print(f"a step down          the loss went from {loss:,.0f} to {loss_after:,.0f}")
    return out, expected, loss, loss_after


if __name__ == "__main__":
    main()
