"""Wrong arguments of convolution, linear and `explain_conv2d`: the type of error, the argument and the values."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import (
    conv2d,
    conv2d_backward,
    conv2d_forward,
    depthwise_conv2d,
    depthwise_conv2d_forward,
    explain_conv2d,
)
from fastconv.fully_connected import linear, linear_backward, linear_forward

X, W, B = np.ones((2, 4, 6, 7), np.float32), np.ones((6, 4, 3, 3), np.float32), np.ones(6, np.float32)
READ_ONLY = np.zeros((2, 6, 4, 5), np.float32)
READ_ONLY.flags.writeable = False

# (x, w, b), options -> error, parts of its message
CASES = [
    # ranks and shapes
    ((X[0], W), {}, ValueError, ["x must have 4 dimensions", "(4, 6, 7)"]),
    ((X, W[0]), {}, ValueError, ["w must have 4 dimensions", "(4, 3, 3)"]),
    ((X, W, B[None]), {}, ValueError, ["b must have 1 dimensions", "(1, 6)"]),
    ((X, W, np.float32(1)), {}, ValueError, ["b must have 1 dimensions", "()"]),
    ((X, W, B[:5]), {}, ValueError, ["b must have one number per filter", "(6,)", "(5,)"]),
    ((X[:, :3], W), {}, ValueError, ["w has 4 input channels per group", "3 / 1 = 3"]),
    ((X, W), {"layout": "NHWC"}, ValueError, ["w has 3 input channels per group", "7 / 1 = 7"]),
    ((X, W), {"groups": 2}, ValueError, ["w has 4 input channels per group", "4 / 2 = 2"]),
    ((X, W[:, :, :0]), {}, ValueError, ["w must have a kernel of at least 1x1", "0x3"]),
    ((X, W[:, :, :, :0]), {}, ValueError, ["w must have a kernel of at least 1x1", "3x0"]),
    ((X[:, :, :2], W), {}, ValueError, ["not be larger than the padded input", "3x3", "2x7"]),
    ((X, W), {"dilation": (3, 1)}, ValueError, ["not be larger than the padded input", "7x3", "6x7"]),
    ((X[:, :, :0], W), {"padding": 1}, ValueError, ["not be larger than the padded input", "3x3", "2x9"]),
    # element types
    ((X.astype(complex), W), {}, TypeError, ["x must hold float16, float32, float64", "complex128"]),
    ((X, W.astype(np.complex64)), {}, TypeError, ["w must hold", "complex64"]),
    ((X, W, B * 1j), {}, TypeError, ["b must hold", "complex64"]),
    ((X.astype(object), W), {}, TypeError, ["x must hold", "object"]),
    ((X, W.astype(str)), {}, TypeError, ["w must hold", "<U"]),
    ((X.astype(np.longdouble), W), {}, TypeError, ["x must hold", "longdouble" if np.longdouble is float else "float"]),
    ((X.astype("datetime64[s]"), W), {}, TypeError, ["x must hold", "datetime64"]),
    (([[1, 2], [3]], W), {}, TypeError, ["x must be an array of numbers", "list"]),
    ((None, W), {}, TypeError, ["x must hold", "object"]),
    ((X, "w"), {}, TypeError, ["w must hold", "<U1"]),
    # stride, dilation, groups
    ((X, W), {"stride": 0}, ValueError, ["stride must be at least 1", "got 0"]),
    ((X, W), {"stride": -2}, ValueError, ["stride must be at least 1", "got -2"]),
    ((X, W), {"stride": (1, 0)}, ValueError, ["stride must be at least 1", "got 0"]),
    ((X, W), {"stride": 1.0}, TypeError, ["stride must be an integer", "1.0"]),
    ((X, W), {"stride": float("nan")}, TypeError, ["stride must be an integer", "nan"]),
    ((X, W), {"stride": True}, TypeError, ["stride must be an integer", "True"]),
    ((X, W), {"stride": (1, np.True_)}, TypeError, ["stride must be an integer", "True"]),
    ((X, W), {"stride": None}, TypeError, ["stride must be an integer", "None"]),
    ((X, W), {"stride": "2"}, TypeError, ["stride must be an integer", "'2'"]),
    ((X, W), {"stride": (1, 1, 1)}, ValueError, ["stride must be an integer or a pair", "(1, 1, 1)"]),
    ((X, W), {"stride": ()}, ValueError, ["stride must be an integer or a pair", "()"]),
    ((X, W), {"stride": np.array(2.0)}, TypeError, ["stride must be an integer", "array(2.)"]),
    ((X, W), {"stride": np.ones((2, 2), int)}, TypeError, ["stride must be an integer", "array([1, 1])"]),
    ((X, W), {"dilation": 0}, ValueError, ["dilation must be at least 1", "got 0"]),
    ((X, W), {"dilation": (1, 2.5)}, TypeError, ["dilation must be an integer", "2.5"]),
    ((X, W), {"groups": 0}, ValueError, ["groups must be at least 1", "got 0"]),
    ((X, W), {"groups": 3}, ValueError, ["groups must divide channels and filters", "3 for 4 and 6"]),
    ((X, np.ones((5, 2, 3, 3))), {"groups": 2}, ValueError, ["groups must divide", "2 for 4 and 5"]),
    ((X, W), {"groups": True}, TypeError, ["groups must be an integer", "True"]),
    ((X, W), {"groups": (1, 1)}, TypeError, ["groups must be an integer", "(1, 1)"]),
    # padding
    ((X, W), {"padding": -1}, ValueError, ["padding must be at least 0", "got -1"]),
    ((X, W), {"padding": ((0, 0), (0, -3))}, ValueError, ["padding must be at least 0", "got -3"]),
    ((X, W), {"padding": float("nan")}, TypeError, ["padding must be an integer", "nan"]),
    ((X, W), {"padding": (1, np.nan)}, TypeError, ["padding must be an integer", "nan"]),
    ((X, W), {"padding": False}, TypeError, ["padding must be an integer", "False"]),
    ((X, W), {"padding": None}, TypeError, ["padding must be an integer", "None"]),
    ((X, W), {"padding": (1, 2, 3, 4)}, ValueError, ["padding must be an integer, (vertical", "(1, 2, 3, 4)"]),
    ((X, W), {"padding": ((1, 2, 3), 1)}, ValueError, ["padding must be an integer or a pair", "(1, 2, 3)"]),
    ((X, W), {"padding": "full"}, ValueError, ["padding must be one of 'valid', 'same', 'same_lower'", "'full'"]),
    ((X, W), {"padding": ("same", 1)}, TypeError, ["padding must be an integer", "'same'"]),
    ((X, W), {"padding_mode": "mirror"}, ValueError, ["padding_mode must be one of 'zeros', 'reflect'", "'mirror'"]),
    ((X, W), {"padding_mode": 0}, TypeError, ["padding_mode must be one of", "got 0"]),
    ((X, W), {"padding": 6, "padding_mode": "reflect"}, ValueError, ["reflect padding must be smaller", "6"]),
    ((X, W), {"padding": 7, "padding_mode": "circular"}, ValueError, ["circular padding must not exceed", "7"]),
    # names
    ((X, W), {"layout": "NCWH"}, ValueError, ["layout must be one of 'NCHW', 'NHWC'", "'NCWH'"]),
    ((X, W), {"layout": None}, ValueError, ["layout must be one of", "None"]),
    ((X, W), {"layout": 3}, TypeError, ["layout must be one of", "got 3"]),
    ((X, W), {"activation": "gelu"}, ValueError, ["activation must be one of None, 'relu'", "'gelu'"]),
    ((X, W), {"activation": True}, TypeError, ["activation must be one of", "True"]),
    ((X, W), {"algorithm": "magic"}, ValueError, ["algorithm must be one of 'auto', 'fast', 'direct'", "'magic'"]),
    ((X, W), {"algorithm": None}, TypeError, ["algorithm must be a string", "None"]),
    # out
    ((X, W), {"out": np.zeros((2, 6, 4, 4), np.float32)}, ValueError, ["out must have shape (2, 6, 4, 5)", "4, 4)"]),
    ((X, W), {"out": np.zeros((2, 6, 4, 5))}, ValueError, ["out must have", "dtype float32", "float64"]),
    ((X, W), {"out": np.zeros((2, 6, 4, 5), ">f4")}, ValueError, ["out must have", "dtype float32", ">f4"]),
    ((X, W), {"out": READ_ONLY}, ValueError, ["out must be writeable"]),
    ((X, W), {"out": [0.0]}, TypeError, ["out must be a NumPy array", "list"]),
]  # fmt: skip


@pytest.mark.parametrize("function", [conv2d, conv2d_forward])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case[3])[:60])
def test_convolution(case, function):
    arrays, options, kind, parts = case
    with pytest.raises(kind) as error:
        function(*arrays, **options)
    message = str(error.value)
    assert type(error.value) is kind
    assert message.startswith(f"{function.__name__}: "), message
    for part in parts:
        assert part in message


def test_a_rejected_call_leaves_out_alone():
    out = np.full((2, 6, 4, 5), 7, np.float32)
    for options in ({"stride": 0}, {"layout": "x"}, {"algorithm": "magic"}):
        with pytest.raises(ValueError):
            conv2d(X, W, out=out, **options)
    assert (out == 7).all()


OUT, CACHE = conv2d_forward(X, W, B)


@pytest.mark.parametrize(
    ("dout", "cache", "options", "kind", "parts"),
    [
        (OUT[:1], CACHE, {}, ValueError, ["dout must have the output's shape (2, 6, 4, 5)", "(1, 6, 4, 5)"]),
        (OUT[0], CACHE, {}, ValueError, ["dout must have 4 dimensions", "(6, 4, 5)"]),
        (OUT * 1j, CACHE, {}, TypeError, ["dout must hold", "complex64"]),
        ("ones", CACHE, {}, TypeError, ["dout must hold", "<U4"]),
        (OUT, None, {}, TypeError, ["cache must come from conv2d_forward", "NoneType"]),
        (OUT, (X, W, B), {}, TypeError, ["cache must come from conv2d_forward", "tuple"]),
        (OUT, linear_forward(np.ones((2, 3)), np.ones((3, 4)))[1], {}, TypeError, ["cache", "LinearCache"]),
        (OUT, CACHE, {"wrt": "y"}, ValueError, ["wrt must be one of 'x', 'w', 'b'", "'y'"]),
        (OUT, CACHE, {"wrt": ("x", "dw")}, ValueError, ["wrt must be one of", "'dw'"]),
        (OUT, CACHE, {"wrt": "xw"}, ValueError, ["wrt must be one of", "'xw'"]),
        (OUT, CACHE, {"wrt": None}, TypeError, ["wrt must be a sequence", "None"]),
        (OUT, CACHE, {"wrt": (1,)}, TypeError, ["wrt must be one of", "got 1"]),
    ],
)  # fmt: skip
def test_backward(dout, cache, options, kind, parts):
    with pytest.raises(kind) as error:
        conv2d_backward(dout, cache, **options)
    for part in ["conv2d_backward: ", *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize("function", [depthwise_conv2d, depthwise_conv2d_forward])
def test_depthwise(function):
    with pytest.raises(TypeError, match=f"{function.__name__}: groups is always the number of channels"):
        function(X, W, groups=4)
    with pytest.raises(ValueError, match=f"{function.__name__}: x must have 4 dimensions, got shape"):
        function(X[0], W)
    with pytest.raises(ValueError, match=f"{function.__name__}: x must have at least one channel"):
        function(X[:, :0], W)
    with pytest.raises(ValueError, match=r"w has 4 input channels per group, expected .* = 4 / 4 = 1"):
        function(X, np.ones((4, 4, 3, 3)))


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "parts"),
    [
        (((2, 4, 6), W.shape), {}, ValueError, ["x_shape must have 4 entries", "(2, 4, 6)"]),
        ((X.shape, (4, 3, 3)), {}, ValueError, ["w_shape must have 4 entries", "(4, 3, 3)"]),
        ((5, W.shape), {}, TypeError, ["x_shape must be a sequence", "5"]),
        (((2, 4, -6, 7), W.shape), {}, ValueError, ["x_shape must be at least 0", "-6"]),
        (((2, 4, 6.5, 7), W.shape), {}, TypeError, ["x_shape must be an integer", "6.5"]),
        ((X.shape, W.shape), {"dtype": complex}, TypeError, ["dtype", "complex128"]),
        ((X.shape, W.shape), {"dtype": "no"}, TypeError, ["dtype", "'no'"]),
        ((X.shape, W.shape), {"stride": 0}, ValueError, ["stride must be at least 1"]),
        ((X.shape, W.shape), {"algorithm": "magic"}, ValueError, ["algorithm must be one of", "'magic'"]),
        ((X.shape, W.shape), {"layout": "CHWN"}, ValueError, ["layout must be one of", "'CHWN'"]),
        ((X.shape, (6, 3, 3, 3)), {}, ValueError, ["w has 3 input channels per group", "4 / 1 = 4"]),
    ],
)  # fmt: skip
def test_explain(arguments, options, kind, parts):
    with pytest.raises(kind) as error:
        explain_conv2d(*arguments, **options)
    for part in ["explain_conv2d: ", *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "options", "kind", "parts"),
    [
        ((np.ones((2, 5)), np.ones((4, 3))), {}, ValueError, ["x has 5 features (shape (2, 5))", "4"]),
        ((np.ones(()), np.ones((1, 3))), {}, ValueError, ["x must have a batch axis", "()"]),
        ((np.ones((2, 4)), np.ones(4)), {}, ValueError, ["w must have 2 dimensions", "(4,)"]),
        ((np.ones((2, 4)), np.ones((4, 3)), np.ones(4)), {}, ValueError, ["b must have shape (3,)", "(4,)"]),
        ((np.ones((2, 4)), np.ones((4, 3)), np.ones((1, 3))), {}, ValueError, ["b must have shape (3,)", "(1, 3)"]),
        ((np.ones((2, 4)) * 1j, np.ones((4, 3))), {}, TypeError, ["x must hold", "complex128"]),
        ((np.ones((2, 4)), np.ones((4, 3)), "abc"), {}, ValueError, ["b must have shape (3,)", "()"]),
        ((np.ones((2, 4)), np.ones((4, 3))), {"activation": "tanh"}, ValueError, ["activation must be", "'tanh'"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [linear, linear_forward])
def test_linear(arrays, options, kind, parts, function):
    with pytest.raises(kind) as error:
        function(*arrays, **options)
    for part in parts:
        assert part in str(error.value)


def test_linear_backward():
    cache = linear_forward(np.ones((2, 4)), np.ones((4, 3)))[1]
    with pytest.raises(ValueError, match=r"dout must have the output's shape \(2, 3\), got \(3, 2\)"):
        linear_backward(np.ones((3, 2)), cache)
    with pytest.raises(ValueError, match="dout must have 2 dimensions"):
        linear_backward(np.ones(6), cache)
    with pytest.raises(TypeError, match="cache must come from linear_forward, got ConvCache"):
        linear_backward(np.ones((2, 3)), CACHE)
    with pytest.raises(ValueError, match="wrt must be one of"):
        linear_backward(np.ones((2, 3)), cache, wrt="q")


@pytest.mark.parametrize("wrong", [True, 1.0, np.float32(1), (1.0, 1), (True, 1), [1, np.bool_(True)]])
@pytest.mark.parametrize("name", ["stride", "dilation", "padding"])
def test_what_equals_a_right_value_is_not_taken_for_it(name, wrong):
    """A call of this form is remembered, under a key that 1.0 and True would find."""
    x, w = np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3))
    for right in (1, (1, 1)):
        conv2d(x, w, **{name: right})
    with pytest.raises(TypeError, match=f"conv2d: {name} must be an integer"):
        conv2d(x, w, **{name: wrong})


@pytest.mark.parametrize("name", ["layout", "padding_mode", "activation", "algorithm"])
def test_names_without_a_hash(name):
    with pytest.raises(TypeError, match=f"conv2d: {name} must be"):
        conv2d(np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)), **{name: ["relu"]})
