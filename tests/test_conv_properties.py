"""Hypothesis: any sizes, strides, sides of padding, dilation, groups, layout, dtype, algorithm, against the oracle."""

from __future__ import annotations

import numpy as np
from conv_cases import LAYOUTS, filters, images
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import conv2d_algorithms, conv2d_backward, conv2d_forward, explain_conv2d
from fastconv.algorithms import ALGORITHMS
from fastconv.arguments import output_length, pads, resolve_pads
from fastconv.plan import CLASSES

PLAIN = {a.name for a in ALGORITHMS if a.exact} | {"auto"}


@st.composite
def axes(draw):
    """One axis: size, kernel, stride, dilation and padding with at least one window."""
    kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    before, after = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    least = max(dilation * (kernel - 1) + 1 - before - after, 1)
    return draw(st.integers(least, least + 20)), kernel, draw(st.integers(1, 4)), dilation, (before, after)


@st.composite
def problems(draw):
    (H, KH, *vertical), (W, KW, *horizontal) = draw(axes()), draw(axes())
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    C, F = groups * draw(st.integers(1, 18)), groups * draw(st.integers(1, 35))
    stride, dilation, padding = zip(vertical, horizontal, strict=True)
    padding = draw(st.sampled_from([padding, padding, padding, "same", "same_lower"]))
    sizes = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    return (draw(st.integers(1, 3)), C, H, W), (F, C // groups, KH, KW), sizes


@settings(max_examples=300)
@given(
    problem=problems(),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(["float32", "float64", "float16"]),
    algorithm=st.sampled_from([*CLASSES, *conv2d_algorithms()]),
    bias=st.booleans(),
    relu=st.booleans(),
)
def test_any_problem(problem, layout, dtype, algorithm, bias, relu):
    x_shape, w_shape, sizes = problem
    rng = np.random.default_rng(sum(x_shape) + sum(w_shape))
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    b = rng.standard_normal(w_shape[0]).astype(dtype) if bias else None
    mine = images(x, layout), filters(w, layout)
    options = {"layout": layout, **sizes}
    if algorithm in conv2d_algorithms():
        found = explain_conv2d(mine[0].shape, mine[1].shape, dtype=dtype, **options)
        if isinstance(found.predictions["forward"][algorithm], str):
            algorithm = "auto"
    options |= {"algorithm": algorithm, "activation": "relu" if relu else None}
    accuracy = "auto" if algorithm in PLAIN else "fast"
    expected = oracle.conv2d(x, w, b, **sizes)
    out, cache = conv2d_forward(*mine, b, **options)
    products = w_shape[1] * w_shape[2] * w_shape[3]
    assert_close(out, images(np.maximum(expected, 0) if relu else expected, layout), products + 1, accuracy)

    dout = (rng.standard_normal(expected.shape) * (np.abs(expected) > 0.01)).astype(dtype)
    dx, dw, db = oracle.conv2d_gradients(x, w, dout * (expected > 0) if relu else dout, **sizes)
    got = conv2d_backward(images(dout, layout), cache)
    assert_close(got[0], images(dx, layout), w_shape[0] // sizes["groups"] * w_shape[2] * w_shape[3], accuracy)
    assert_close(got[1], filters(dw, layout), dout[:, 0].size, accuracy)
    assert (got[2] is None) == (b is None)
    if b is not None:
        assert_close(got[2], db, dout[:, 0].size)


@given(axis=axes(), named=st.sampled_from(["same", "same_lower"]))
def test_output_length_and_same_padding(axis, named):
    size, kernel, stride, dilation, (before, after) = axis
    padded = size + before + after
    starts = [o for o in range(padded) if o % stride == 0 and o + dilation * (kernel - 1) < padded]
    assert output_length(padded, kernel, stride, dilation) == len(starts)

    (before, after), other = resolve_pads(pads("f", named), (size, 1), (kernel, 1), (stride, 1), (dilation, 1))
    assert other == (0, 0)
    assert output_length(size + before + after, kernel, stride, dilation) == -(-size // stride)
    assert (0 <= after - before <= 1) if named == "same" else (0 <= before - after <= 1)
    if before + after:  # not one cell more than needed
        assert output_length(size + before + after - 1, kernel, stride, dilation) < -(-size // stride)
