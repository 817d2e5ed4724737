"""Prepared convolutions, and passes cut into pieces of the batch: the same numbers as the plain call."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conv_cases import BY_NAME, CASES, DTYPES, LAYOUTS, answers, filters, images, lengths, normal
from tolerances import assert_close

from fastconv import conv2d, conv2d_algorithms, conv2d_backward, conv2d_forward, explain_conv2d, prepare_conv2d, runtime
from fastconv import plan as planning
from fastconv.algorithms import ALGORITHMS
from fastconv.pieces import ImagesInPieces, SumInPieces
from fastconv.prepared import PASSES_KEPT
from fastconv.problem import ConvProblem

ACCURACY = {algorithm.name: "auto" if algorithm.exact else "fast" for algorithm in ALGORITHMS}
NAMES = ("auto", "fast", *conv2d_algorithms())


def supported(case, layout, algorithm, dtype="float32"):
    if algorithm in ("auto", "fast") or 0 in (case.N, case.C, case.F):
        return True
    shapes = case.x_shape(layout), case.w_shape(layout)
    found = explain_conv2d(*shapes, layout=layout, dtype=dtype, **case.options).predictions
    return isinstance(found["forward"][algorithm], float)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", NAMES)
def test_prepared_is_bit_identical(algorithm, layout):
    for case in CASES:
        if not supported(case, layout, algorithm):
            continue
        known = answers(case.name)
        x, w = images(known.x, layout), filters(known.w, layout)
        options = {"layout": layout, "algorithm": algorithm, "activation": "relu", **case.options}
        for b in (None, known.b):
            f = prepare_conv2d(w, b, **options)
            for _ in range(2):
                np.testing.assert_array_equal(f(x), conv2d(x, w, b, **options), err_msg=case.name)


def test_prepared_takes_any_x_and_out():
    w, b = normal(1, (6, 4, 3, 3)), normal(2, (6,))
    f = prepare_conv2d(w, b, x_shape=(2, 4, 40, 40), padding=1, padding_mode="reflect")
    for x in (normal(3, (2, 4, 40, 40)), normal(4, (1, 4, 9, 7)).astype(np.float64), normal(5, (3, 4, 8, 8))[::-1]):
        expected = conv2d(x, w, b, padding=1, padding_mode="reflect")
        out = np.full(expected.shape, np.nan, expected.dtype)
        assert f(x, out=out) is out
        np.testing.assert_array_equal(out, expected)
    w[...] = b[...] = 0
    np.testing.assert_array_equal(f(x), expected)


def test_prepared_weights_are_bounded():
    f = prepare_conv2d(normal(1, (6, 4, 3, 3)))
    for size in range(3, 3 + 2 * PASSES_KEPT):
        f(np.ones((1, 4, size, size), np.float32))
    assert len(f._packed) == PASSES_KEPT


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"w": np.ones((3, 3))}, ValueError, "prepare_conv2d: w must have 4 dimensions"),
        ({"stride": 0}, ValueError, "prepare_conv2d: stride must be at least 1, got 0"),
        ({"layout": "CHWN"}, ValueError, "prepare_conv2d: layout must be one of"),
        ({"algorithm": 3}, TypeError, "prepare_conv2d: algorithm must be a string"),
        ({"x_shape": (1, 5, 8, 8)}, ValueError, "w has 4 input channels per group, expected x's channels"),
        ({"x_shape": 8}, TypeError, "x_shape must be a sequence of 4 integers"),
    ],
)
def test_prepare_checks_its_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        prepare_conv2d(arguments.pop("w", np.ones((6, 4, 3, 3))), **arguments)


@pytest.fixture
def bounded():
    """A function that sets the bound on scratch memory until the test ends."""
    before = runtime.get_max_workspace()
    yield runtime.set_max_workspace
    runtime.set_max_workspace(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", conv2d_algorithms())
def test_pieces_of_the_batch_give_the_same(algorithm, layout, dtype, bounded):
    bounded(0)  # even then one image at a time is not cut
    for name in ("3x3 same", "stride 2 padded", "groups", "lenet second", "small planes, many filters"):
        case, known, length, accuracy = BY_NAME[name], answers(name), lengths(BY_NAME[name]), ACCURACY[algorithm]
        if not supported(case, layout, algorithm, dtype):
            continue
        x, w = images(known.x, layout).astype(dtype), filters(known.w, layout).astype(dtype)
        dout, b = images(known.dout, layout).astype(dtype), known.b.astype(dtype)
        options = {"layout": layout, "algorithm": algorithm, **case.options}
        for images_at_once in (1, 2):
            alone = explain_conv2d((images_at_once, *x.shape[1:]), w.shape, dtype=dtype, max_workspace=0, **options)
            bounded(max(alone.workspace.values()) + w.nbytes)
            out, cache = conv2d_forward(x, w, b, **options)
            assert_close(out, images(known.forward(True, None), layout), length[0] + 1, accuracy)
            expected = known.backward(True, None)
            dx, dw, _ = conv2d_backward(dout, cache)
            assert_close(dx, images(expected[0], layout), length[1], accuracy)
            assert_close(dw, filters(expected[1], layout), length[2], accuracy)
            np.testing.assert_array_equal(prepare_conv2d(w, b, **options)(x), out)


def test_workspace_is_bounded_where_one_image_fits():
    problem = ConvProblem(7, 64, 56, 56, 64, 3, 3, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, "NCHW", np.dtype(np.float32))
    for direction, kind in (("forward", ImagesInPieces), ("gradient_x", ImagesInPieces), ("gradient_w", SumInPieces)):
        free = planning.plan(problem, direction, "auto", max_workspace=2**40)
        bound = free.workspace * 2 // 3
        cut = planning.plan(problem, direction, "auto", max_workspace=bound)
        assert isinstance(cut, kind) and cut.workspace <= bound < free.workspace
        assert cut.cycles > 0 and cut.images * (7 // cut.images) + 7 % cut.images == 7
        assert planning.plan(problem, direction, "auto", max_workspace=0).workspace <= free.workspace


def test_the_setting_is_checked_and_seen(bounded):
    assert runtime.get_max_workspace() == 64 * 2**20
    shapes = (8, 64, 56, 56), (64, 64, 3, 3)
    usual = explain_conv2d(*shapes, padding=1).workspace["forward"]
    bounded(np.int64(usual // 2))
    assert 0 < explain_conv2d(*shapes, padding=1).workspace["forward"] <= usual // 2
    assert explain_conv2d(*shapes, padding=1, max_workspace=usual).workspace["forward"] == usual
    with pytest.raises(ValueError, match="max_workspace must be at least 0 bytes, got -1"):
        bounded(-1)
    for wrong in (1.0, "1", None, True):
        with pytest.raises(TypeError, match="max_workspace must be an integer"):
            bounded(wrong)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_default_bound_holds_for_network_layers(layout):
    for case in CASES:
        found = explain_conv2d(case.x_shape(layout), case.w_shape(layout), layout=layout, **case.options)
        assert max(found.workspace.values()) <= max(64 * 2**20, 4 * math.prod(case.w_shape()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_beyond_the_bound_take_little_more_than_their_size(layout):
    for channels, count in ((32, 65_536), (65_536, 32)):
        x_shape, w_shape = (2, channels, 16, 16), (count, channels, 3, 3)
        if layout == "NHWC":
            x_shape, w_shape = (2, 16, 16, channels), (3, 3, channels, count)
        found = explain_conv2d(x_shape, w_shape, padding=1, layout=layout)
        # Packed weights, as many bytes of padded dout, and the tasks' own scratch.
        assert max(found.workspace.values()) <= 2 * 4 * math.prod(w_shape) + 2**18
