"""`fastconv.compat.cs231n`'s layers: the course's printed values, independent oracles, central differences."""

from __future__ import annotations

import importlib
import inspect
import sys

import numpy as np
import pytest
from oracles import convolution as conv_oracle
from oracles import normalization as norm_oracle

from fastconv.compat import cs231n
from fastconv.compat.cs231n import fast_layers, gradient_check, layer_utils, layers, vis_utils
from fastconv.testing import check_gradients

POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


def test_the_courses_convolution():
    x = np.linspace(-0.1, 0.5, num=96).reshape(2, 3, 4, 4)
    w = np.linspace(-0.2, 0.3, num=144).reshape(3, 3, 4, 4)
    out, _ = cs231n.conv_forward_naive(x, w, np.linspace(-0.1, 0.2, num=3), {"stride": 2, "pad": 1})
    correct = [
        [[[-0.08759809, -0.10987781], [-0.18387192, -0.2109216]],
         [[0.21027089, 0.21661097], [0.22847626, 0.23004637]],
         [[0.50813986, 0.54309974], [0.64082444, 0.67101435]]],
        [[[-0.98053589, -1.03143541], [-1.19128892, -1.24695841]],
         [[0.69108355, 0.66880383], [0.59480972, 0.56776003]],
         [[2.36270298, 2.36904306], [2.38090835, 2.38247847]]],
    ]  # fmt: skip
    assert cs231n.rel_error(out, correct) < 3e-8  # the course's own: 2.2e-8, these are rounded to eight places


def test_the_courses_pooling():
    x = np.linspace(-0.3, 0.4, num=96).reshape(2, 3, 4, 4)
    correct = [
        [[[-0.26315789, -0.24842105], [-0.20421053, -0.18947368]],
         [[-0.14526316, -0.13052632], [-0.08631579, -0.07157895]],
         [[-0.02736842, -0.01263158], [0.03157895, 0.04631579]]],
        [[[0.09052632, 0.10526316], [0.14947368, 0.16421053]],
         [[0.20842105, 0.22315789], [0.26736842, 0.28210526]],
         [[0.32631579, 0.34105263], [0.38526316, 0.4]]],
    ]  # fmt: skip
    assert cs231n.rel_error(cs231n.max_pool_forward_naive(x, POOL)[0], correct) < 5e-8


@pytest.mark.parametrize("stride, pad", [((2, 1), ((1, 0), (2, 3))), (1, (2, 0)), (np.int64(3), 1)])
def test_strides_by_axis_and_padding_by_side(stride, pad):
    x, w, b = normal(2, 3, 7, 6), normal(4, 3, 3, 2), normal(4)
    sizes = {"stride": stride if isinstance(stride, tuple) else int(stride), "padding": pad}
    out, cache = cs231n.conv_forward_im2col(x, w, b, {"stride": stride, "pad": pad})
    np.testing.assert_allclose(out, conv_oracle.conv2d(x, w, b, **sizes), atol=1e-13)
    dout = normal(*out.shape)
    gradients = cs231n.conv_backward_strides(dout, cache)
    for got, expected in zip(gradients, conv_oracle.conv2d_gradients(x, w, dout, **sizes), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-13)


def test_extras_beyond_the_course():
    x, w = normal(1, 4, 9, 9), normal(6, 2, 3, 3)
    param = {"stride": 1, "pad": 2, "dilation": 2, "groups": 2, "algorithm": "direct"}
    expected = conv_oracle.conv2d(x, w, np.ones(6), padding=2, dilation=2, groups=2)
    np.testing.assert_allclose(cs231n.conv_forward_fast(x, w, np.ones(6), param)[0], expected, atol=1e-13)
    x = normal(1, 2, 5, 7)
    out, _ = cs231n.max_pool_forward_fast(x, {"pool_height": 1, "pool_width": 3, "stride": (2, 1), "pad": (0, 1)})
    assert out.shape == (1, 2, 3, 7) and out[0, 0, 1, 0] == x[0, 0, 2, :2].max()


def test_every_name_of_the_course():
    for direction in ("forward", "backward"):
        convolutions = {getattr(fast_layers, f"conv_{direction}_{name}") for name in ("fast", "im2col", "strides")}
        assert convolutions == {getattr(layers, f"conv_{direction}_naive")}
        poolings = {getattr(fast_layers, f"max_pool_{direction}_{name}") for name in ("fast", "im2col", "reshape")}
        assert poolings == {getattr(layers, f"max_pool_{direction}_naive")}
    pairs = "affine_relu affine_bn_relu conv_relu conv_relu_pool conv_bn_relu conv_bn_relu_pool".split()
    pairs += "affine relu batchnorm spatial_batchnorm layernorm spatial_groupnorm dropout".split()
    others = "softmax_loss svm_loss eval_numerical_gradient eval_numerical_gradient_array rel_error visualize_grid"
    others += " batchnorm_backward_alt ThreeLayerConvNet VGGlikeConvNet Solver sgd sgd_momentum rmsprop adam"
    names = [f"{pair}_{direction}" for pair in pairs for direction in ("forward", "backward")]
    assert all(callable(getattr(cs231n, name)) for name in (*names, *others.split(), "get_CIFAR10_data"))
    arguments = list(inspect.signature(layer_utils.conv_bn_relu_forward).parameters)
    assert arguments == ["x", "w", "b", "gamma", "beta", "conv_param", "bn_param"]


def test_a_notebooks_imports_need_no_change(monkeypatch):
    monkeypatch.setitem(sys.modules, "cs231n", cs231n)
    for (
        module
    ) in "layers fast_layers layer_utils optim solver gradient_check vis_utils data_utils classifiers.cnn".split():
        monkeypatch.delitem(sys.modules, f"cs231n.{module}", raising=False)
        names: dict = {}
        exec(f"from cs231n.{module} import *", names)
        assert set(importlib.import_module(f"fastconv.compat.cs231n.{module}").__all__) <= set(names)
    for module in [name for name in sys.modules if name.startswith("cs231n.")]:
        monkeypatch.delitem(sys.modules, module)


CONV = {"stride": 1, "pad": 1}
X, IMAGES = normal(4, 6), normal(2, 3, 6, 6)
W_CONV, B_CONV = normal(4, 3, 3, 3), normal(4)
GAMMA, BETA = normal(4), normal(4)
W_AFFINE, B_AFFINE = normal(6, 4), normal(4)
KEEP = {"mode": "train", "p": 0.6, "seed": 3}
RUNNING = {"running_mean": np.arange(6.0), "running_var": np.arange(1.0, 7.0)}

CHECKS = {
    "affine": ([normal(4, 2, 3), W_AFFINE, B_AFFINE], ()),
    "relu": ([X], ()),
    "affine_relu": ([X, W_AFFINE, B_AFFINE], ()),
    "affine_bn_relu": ([X, W_AFFINE, B_AFFINE, GAMMA, BETA], ({"mode": "train"},)),
    "batchnorm": ([X, normal(6), normal(6)], ({"mode": "train"},)),
    "batchnorm in test mode": ([X, normal(6), normal(6)], ({"mode": "test", **RUNNING},)),
    "spatial_batchnorm": ([IMAGES, normal(3), normal(3)], ({"mode": "train"},)),
    "layernorm": ([X, normal(6), normal(6)], ({},)),
    "spatial_groupnorm": ([normal(2, 6, 3, 3), normal(1, 6, 1, 1), normal(1, 6, 1, 1)], (2, {})),
    "spatial_groupnorm of vectors": ([normal(2, 6, 3, 3), normal(6), normal(6)], (3, {"eps": 1e-3})),
    "dropout": ([X], (KEEP,)),
    "conv": ([IMAGES, W_CONV, B_CONV], ({"stride": 2, "pad": ((1, 0), (2, 1))},)),
    "conv_relu": ([IMAGES, W_CONV, B_CONV], (CONV,)),
    "conv_relu_pool": ([IMAGES, W_CONV, B_CONV], (CONV, POOL)),
    "conv_bn_relu": ([IMAGES, W_CONV, B_CONV, GAMMA, BETA], (CONV, {"mode": "train"})),
    "conv_bn_relu_pool": ([IMAGES, W_CONV, B_CONV, GAMMA, BETA], (CONV, {"mode": "train"}, POOL)),
}


@pytest.mark.parametrize("name", CHECKS)
def test_gradients(name):
    arrays, params = CHECKS[name]
    forward = getattr(cs231n, f"{name.split()[0]}_forward", cs231n.conv_forward_naive)
    backward = getattr(cs231n, f"{name.split()[0]}_backward", cs231n.conv_backward_naive)
    # "running" statistics change from call to call, but not what training mode computes
    check_gradients(lambda *inputs: forward(*inputs, *params), backward, arrays, tolerance=1e-8)


def test_pooling_gradients():
    x, param = normal(3, 2, 8, 8), {"pool_height": 3, "pool_width": 2, "stride": 2}
    check_gradients(
        lambda x: cs231n.max_pool_forward_naive(x, param), cs231n.max_pool_backward_fast, [x], tolerance=1e-8
    )
    out, cache = cs231n.max_pool_forward_reshape(np.zeros((1, 1, 2, 2)), POOL)
    assert cs231n.max_pool_backward_im2col(np.ones_like(out), cache).ravel().tolist() == [1, 0, 0, 0]


def test_fused_layers_are_their_parts():
    def relu(a):
        return a * (a > 0)

    a = conv_oracle.conv2d(IMAGES, W_CONV, B_CONV, padding=1)
    everywhere = np.ones(a.shape)
    normal_a = norm_oracle.forward(
        a, everywhere * GAMMA[:, None, None], everywhere * BETA[:, None, None], norm_oracle.channels(a.shape)
    )

    def pool(a):
        return a.reshape(2, 4, 3, 2, 3, 2).max(axis=(3, 5))

    bn = {"mode": "train"}
    got = {
        "conv_relu": (relu(a), (CONV,)),
        "conv_relu_pool": (pool(relu(a)), (CONV, POOL)),
        "conv_bn_relu": (relu(normal_a), (CONV, bn)),
        "conv_bn_relu_pool": (pool(relu(normal_a)), (CONV, bn, POOL)),
    }
    for name, (expected, params) in got.items():
        arrays = (GAMMA, BETA) if "bn" in name else ()
        out, _ = getattr(cs231n, f"{name}_forward")(IMAGES, W_CONV, B_CONV, *arrays, *params)
        np.testing.assert_allclose(out, expected, atol=1e-12, err_msg=name)
    affine = X @ W_AFFINE + B_AFFINE
    np.testing.assert_allclose(cs231n.affine_relu_forward(X, W_AFFINE, B_AFFINE)[0], relu(affine), atol=1e-13)
    out, _ = cs231n.affine_bn_relu_forward(X, W_AFFINE, B_AFFINE, GAMMA, BETA, {"mode": "train"})
    expected = norm_oracle.forward(affine, GAMMA, BETA, norm_oracle.channels(affine.shape))
    np.testing.assert_allclose(out, relu(expected), atol=1e-12)


@pytest.mark.parametrize("name", ["affine_relu", "affine_bn_relu", "conv", "conv_relu_pool", "conv_bn_relu_pool"])
def test_a_first_layer_may_leave_out_dx(name):
    arrays, params = CHECKS[name]
    out, cache = getattr(cs231n, f"{name}_forward", cs231n.conv_forward_naive)(*arrays, *params)
    backward = getattr(cs231n, f"{name}_backward", cs231n.conv_backward_naive)
    whole, part = backward(np.ones_like(out), cache), backward(np.ones_like(out), cache, wrt=("w", "b"))
    assert part[0] is None and whole[0].shape == arrays[0].shape
    for one, other in zip(whole[1:], part[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_running_statistics():
    first, second = normal(5, 6) * 3 + 1, normal(7, 6)
    ones, zeros = np.ones(6), np.zeros(6)
    param = {"mode": "train", "momentum": 0.8}
    cs231n.batchnorm_forward(first, ones, zeros, param)
    np.testing.assert_allclose(param["running_mean"], 0.2 * first.mean(axis=0))
    np.testing.assert_allclose(param["running_var"], 0.2 * first.var(axis=0))  # from zero, as in the course
    before = param["running_mean"]
    kept = before.copy()
    cs231n.batchnorm_forward(second, ones, zeros, param)
    np.testing.assert_array_equal(before, kept)  # a new array, not the old one changed
    np.testing.assert_allclose(param["running_var"], 0.16 * first.var(axis=0) + 0.2 * second.var(axis=0))
    param["mode"] = "test"
    out, _ = cs231n.batchnorm_forward(second, 2 * ones, 3 + zeros, param)
    expected = 2 * (second - param["running_mean"]) / np.sqrt(param["running_var"] + 1e-5) + 3
    np.testing.assert_allclose(out, expected)
    assert cs231n.batchnorm_forward(first.astype(np.float32), np.float32(ones), np.float32(zeros), param)[0].dtype == (
        np.float32
    )


def test_norms_of_one_example():
    gamma, beta = normal(6), normal(6)
    expected = norm_oracle.forward(X, gamma, beta, norm_oracle.examples(X.shape))
    np.testing.assert_allclose(cs231n.layernorm_forward(X, gamma, beta, {})[0], expected, atol=1e-12)
    images = normal(2, 6, 3, 4)
    column = (1, 6, 1, 1)
    sets = norm_oracle.channel_groups(images.shape, 2)
    everywhere = np.ones(images.shape)
    expected = norm_oracle.forward(images, everywhere * gamma.reshape(column), everywhere * beta.reshape(column), sets)
    got, _ = cs231n.spatial_groupnorm_forward(images, gamma.reshape(column), beta.reshape(column), 2, {})
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_dropout_keeps_with_probability_p():
    x = normal(20, 30).astype(np.float32) + 10
    np.random.seed(123)
    mask = (np.random.rand(*x.shape) < 0.3) / 0.3  # the course's line
    for param in ({"mode": "train", "p": 0.3, "seed": 123}, {"mode": "train", "p": 0.3}):
        np.random.seed(123)
        out, cache = cs231n.dropout_forward(x, param)
        np.testing.assert_allclose(out, x * mask, rtol=1e-6)
        np.testing.assert_allclose(cs231n.dropout_backward(np.ones_like(x), cache), mask, rtol=1e-6)
        assert out.dtype == np.float32
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    cs231n.dropout_forward(x, {"mode": "train", "p": 0.3, "seed": 123})
    assert np.random.rand() == expected  # a seed leaves the global generator alone
    out, cache = cs231n.dropout_forward(x, {"mode": "test", "p": 0.3})
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(cs231n.dropout_backward(x, cache), x)
    assert not np.shares_memory(out, x)


def test_losses():
    scores, y = 1e-3 * normal(50, 10), RNG.integers(0, 10, 50)
    loss, dscores = cs231n.softmax_loss(scores, y)
    assert abs(loss - np.log(10)) < 2e-3
    numbers = gradient_check.eval_numerical_gradient(lambda s: cs231n.softmax_loss(s, y)[0], scores, verbose=False)
    assert cs231n.rel_error(dscores, numbers) < 1e-7
    loss, dscores = cs231n.svm_loss(scores, y)
    assert abs(loss - 9) < 2e-2
    numbers = gradient_check.eval_numerical_gradient(lambda s: cs231n.svm_loss(s, y)[0], scores, verbose=False)
    assert cs231n.rel_error(dscores, numbers) < 1e-7


def test_numerical_gradients(capsys):
    x = np.array([[1.0, 2.0]])
    gradient = gradient_check.eval_numerical_gradient(lambda x: (x**3).sum(), x)
    np.testing.assert_allclose(gradient, [[3, 12]], rtol=1e-8)
    assert [line.split(") ")[0] for line in capsys.readouterr().out.splitlines()] == ["(0, 0", "(0, 1"]
    np.testing.assert_array_equal(x, [[1, 2]])
    gradient = gradient_check.eval_numerical_gradient_array(lambda x: x**2, x, np.array([[1.0, -1.0]]))
    np.testing.assert_allclose(gradient, [[2, -4]], rtol=1e-8)


def test_a_grid_of_images():
    images = np.stack([np.arange(12.0).reshape(2, 3, 2) * scale for scale in (1, -3, 0)])
    grid = vis_utils.visualize_grid(images, ubound=22, padding=2)
    assert grid.shape == (6, 8, 2)
    np.testing.assert_allclose(grid[:2, :3], images[0] * 2)
    np.testing.assert_allclose(grid[:2, 5:], 22 + images[1] / 3 * 2)
    assert not grid[2:4].any() and not grid[:, 3:5].any() and not grid[4:].any()  # gaps, the flat image, no image
    with pytest.raises(ValueError, match="Xs must not be empty"):
        vis_utils.visualize_grid(np.zeros((0, 2, 3, 1)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: cs231n.conv_forward_fast(IMAGES, W_CONV, B_CONV, {"stride": 1, "padding": 1}),
         r"conv_param must have the key 'pad', got \['padding', 'stride'\]"),
        (lambda: cs231n.max_pool_forward_fast(IMAGES, {"pool_height": 2, "stride": 2}), "the key 'pool_width'"),
        (lambda: cs231n.batchnorm_forward(X, X[0], X[0], {}), "bn_param must have the key 'mode'"),
        (lambda: cs231n.batchnorm_forward(X, X[0], X[0], {"mode": "eval"}), "must be one of .*, got 'eval'"),
        (lambda: cs231n.batchnorm_forward(IMAGES, X[0], X[0], {"mode": "train"}), "x must have 2 dimensions"),
        (lambda: cs231n.spatial_batchnorm_forward(X, X[0], X[0], {"mode": "train"}), "x must have 4 dimensions"),
        (lambda: cs231n.dropout_forward(X, {"mode": "train", "p": 0}), "the share to keep, must be above 0"),
        (lambda: cs231n.dropout_backward(X[0], cs231n.dropout_forward(X, KEEP)[1]), "the output's shape"),
    ],
)  # fmt: skip
def test_errors_name_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
