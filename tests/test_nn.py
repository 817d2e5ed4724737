"""Layers and `Sequential`: gradients against central differences, bookkeeping of state, names and configurations."""

import json

import numpy as np
import pytest

from fastconv import losses
from fastconv.nn import (
    GELU,
    Adam,
    AvgPool2d,
    BatchNorm,
    Buffer,
    Conv2d,
    CrossEntropy,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Identity,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Multiply,
    Normalize,
    Parameter,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    build_layer,
    models,
)
from fastconv.nn.initial import he_uniform, xavier_uniform
from fastconv.testing import numerical_gradient


def small_nets():
    def options(seed, layout="NCHW"):
        return {"dtype": "float64", "rng": seed, "layout": layout}

    def dense(inputs, outputs, **more):
        return Linear(inputs, outputs, dtype="float64", rng=9, **more)

    yield (
        "relu-maxpool",
        (2, 2, 6, 6),
        Sequential(Conv2d(2, 3, 3, padding=1, activation="relu", **options(0)), MaxPool2d(2), Flatten(), dense(27, 4)),
    )
    yield (
        "sigmoid-avgpool-stride",
        (2, 3, 7, 7),
        Sequential(Conv2d(3, 4, 3, stride=2, padding=1, **options(1)), Sigmoid(), AvgPool2d(2), dense(16, 4)),
    )
    yield (
        "groups-dilation-tanh",
        (2, 4, 7, 7),
        Sequential(Conv2d(4, 4, 3, dilation=2, groups=2, bias=False, **options(2)), Tanh(), dense(36, 4, bias=False)),
    )
    yield (
        "channels-last",
        (2, 6, 6, 2),
        Sequential(Conv2d(2, 3, 3, **options(3, "NHWC")), ReLU(), MaxPool2d(2, layout="NHWC"), dense(12, 4)),
    )
    yield (
        "batchnorm",
        (4, 2, 5, 5),
        Sequential(
            Conv2d(2, 3, 3, bias=False, **options(4)),
            BatchNorm(3, dtype="float64"),
            Sigmoid(),
            Flatten(),
            dense(27, 5),
            BatchNorm(5, dtype="float64"),
            dense(5, 4),
        ),
    )
    yield (
        "nested-hidden-relu",
        (3, 8),
        Sequential(Sequential(dense(8, 6, activation="relu")), dense(6, 5), Tanh(), dense(5, 4)),
    )
    yield (
        "residual-projected",
        (2, 3, 5, 5),
        Sequential(
            Normalize([0.1, 0.2, 0.3], [0.5, 1.0, 2.0]),
            Residual(
                Sequential(Conv2d(3, 4, 3, padding=1, **options(5)), GELU()),
                Conv2d(3, 4, 1, bias=False, **options(6)),
            ),
            LeakyReLU(0.2),
            GlobalAvgPool2d(),
            dense(4, 4),
        ),
    )
    yield (
        "residual-identity-channels-last",
        (2, 5, 5, 3),
        Sequential(
            Normalize([0.1, 0.2, 0.3], [0.5, 1.0, 2.0], layout="NHWC"),
            Residual(Sequential(Conv2d(3, 3, 3, padding=1, **options(7, "NHWC")), GELU(approximate="tanh"))),
            Residual(Identity(), LeakyReLU()),
            GlobalMaxPool2d(layout="NHWC"),
            dense(3, 4),
            Multiply(0.3),
        ),
    )


NETS = {name: (shape, net) for name, shape, net in small_nets()}


@pytest.mark.parametrize("name", NETS)
def test_gradients_match_central_differences(name):
    shape, net = NETS[name]
    rng = np.random.default_rng(5)
    x = rng.normal(size=shape)
    y = rng.integers(0, 4, len(x))
    for parameter in net.parameters():  # no ReLU exactly at its kink, no BatchNorm at its initial 1 and 0
        parameter.value += 0.1 * rng.normal(size=parameter.value.shape)

    def loss():
        return losses.softmax_cross_entropy(net.forward(x, training=True), y)[0]

    scores = net.forward(x, training=True)
    dx = net.backward(losses.softmax_cross_entropy(scores, y)[1])
    checked = [("x", x, dx), *((p.name, p.value, p.grad) for p in net.parameters())]
    for label, value, gradient in checked:
        assert gradient.dtype == np.float64
        numeric = numerical_gradient(lambda _: loss(), value)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-8, err_msg=label)


def test_skipping_the_input_gradient_changes_no_parameter_gradient():
    rng = np.random.default_rng(0)
    x, dout = rng.normal(size=(3, 1, 12, 12)), rng.normal(size=(3, 4))
    net = Sequential(
        Dropout(0.0), Conv2d(1, 2, 5, dtype="float64", rng=0), MaxPool2d(2), Linear(32, 4, dtype="float64", rng=1)
    )
    net.forward(x, training=True)
    assert net.backward(dout).shape == x.shape
    full = [parameter.grad.copy() for parameter in net.parameters()]
    net.forward(x, training=True)
    assert net.backward(dout, input_gradient=False) is None
    for parameter, expected in zip(net.parameters(), full, strict=True):
        np.testing.assert_array_equal(parameter.grad, expected)


def test_backward_needs_a_training_forward_each_time():
    layer = Linear(3, 2, rng=0)
    x, dout = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    with pytest.raises(RuntimeError, match=r"Linear\.backward: call forward\(x, training=True\)"):
        layer.backward(dout)
    layer.forward(x)
    with pytest.raises(RuntimeError):
        layer.backward(dout)
    layer.forward(x, training=True)
    layer.backward(dout)
    with pytest.raises(RuntimeError):
        layer.backward(dout)


def test_lenet5_layers_and_size():
    model = models.lenet5()
    shapes = {parameter.name: parameter.value.shape for parameter in model.parameters()}
    assert shapes == {
        "0.weight": (6, 1, 5, 5),
        "0.bias": (6,),
        "2.weight": (16, 6, 5, 5),
        "2.bias": (16,),
        "5.weight": (400, 120),
        "5.bias": (120,),
        "6.weight": (120, 84),
        "6.bias": (84,),
        "7.weight": (84, 10),
        "7.bias": (10,),
    }
    assert sum(parameter.value.size for parameter in model.parameters()) == 61_706
    assert {parameter.value.dtype for parameter in model.parameters()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("channels, size", [(1, 28), (3, 32)])
def test_models_by_name(name, channels, size):
    model = models.build(name, classes=7, in_channels=channels, size=size, seed=3)
    assert model.input_shape == (channels, size, size)
    out = model.predict(np.ones((3, channels, size, size), np.float32))
    assert out.shape == (3, 7) and out.dtype == np.float32
    again = models.build(name, classes=7, in_channels=channels, size=size, seed=3).state_dict()
    assert all(np.array_equal(value, again[key]) for key, value in model.state_dict().items())


def test_unknown_model_and_impossible_size():
    with pytest.raises(ValueError, match=r"name must be one of 'lenet5'.*got 'resnet'"):
        models.build("resnet")
    with pytest.raises(ValueError, match="size must be at least 12, got 8"):
        models.lenet5(size=8)
    with pytest.raises(ValueError, match="size must be at least 8, got 4"):
        models.vgg_like(size=4)


def test_vgg_like_with_a_depth_per_block():
    model = models.vgg_like(widths=(4, 8), depths=(1, 3), size=8)
    filters = [parameter.value.shape[:2] for parameter in model.parameters() if parameter.value.ndim == 4]
    assert filters == [(4, 3), (8, 4), (8, 8), (8, 8)]
    assert model.predict(np.ones((2, 3, 8, 8), np.float32)).shape == (2, 10)
    assert repr(models.vgg_like(widths=(4, 8), depths=2)) == repr(models.vgg_like(widths=(4, 8)))
    with pytest.raises(ValueError, match=r"depths must have one number per width, got \(1,\) for widths \(4, 8\)"):
        models.vgg_like(widths=(4, 8), depths=(1,))
    with pytest.raises(ValueError, match="depths must be at least 1, got 0"):
        models.vgg_like(widths=(4, 8), depths=(1, 0))


def test_predict_in_batches_equals_one_pass_and_converts_dtype():
    model = models.lenet5(dtype="float64")
    x = np.random.default_rng(0).random((11, 1, 28, 28), np.float32)
    np.testing.assert_allclose(model.predict(x, batch_size=4), model.forward(x.astype(np.float64)), rtol=1e-10)
    assert model.predict(x).dtype == np.float64
    assert model.predict(x[:0]).shape == (0, 10)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        model.predict(x, batch_size=0)


def test_residual_adds_its_branches_and_refuses_what_does_not_fit():
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    layer = Linear(4, 4, rng=0)
    np.testing.assert_array_equal(Residual(layer)(x), layer(x) + x)
    assert [entry.name for entry in Sequential(Residual(layer)).state()] == ["0.0.weight", "0.0.bias"]
    with pytest.raises(ValueError, match=r"must give one shape, got \(2, 3\) and \(2, 4\)"):
        Residual(Linear(4, 3, rng=0))(x)
    with pytest.raises(ValueError, match="must be two layer objects"):
        Residual(layer, layer)
    with pytest.raises(TypeError, match="body must be a layer, got function"):
        Residual(lambda x: x)


def test_resnet9_has_nine_weights_and_two_blocks():
    model = models.resnet9(widths=(4, 8, 16, 32))
    weights = [p.value.shape[:2] for p in model.parameters() if p.value.ndim > 1]
    assert weights == [(4, 3), (8, 4), (8, 8), (8, 8), (16, 8), (32, 16), (32, 32), (32, 32), (32, 10)]
    assert sum(isinstance(layer, Residual) for layer in model.all_layers()) == 2
    assert "GELU" in repr(models.resnet9(widths=(4, 4, 4, 4), activation="gelu"))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_airbench_starts_as_the_identity_on_whitened_patches(layout):
    images = np.random.default_rng(0).random((40, 3, 12, 12)).astype(np.float32)
    images = (images + np.roll(images, 1, axis=3)).cumsum(axis=1)  # neighbours and channels are correlated
    images = images if layout == "NCHW" else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    model = models.airbench(widths=(32, 16), layout=layout)
    weight = model.layers[2].weight.value
    start = weight[:24, :, 1, 1] if layout == "NCHW" else weight[1, 1, :, :24].T
    np.testing.assert_array_equal(start, np.eye(24, dtype=np.float32))
    models.whiten(model, images, eps=0.0)
    out = np.moveaxis(model.layers[0](images), 1 if layout == "NCHW" else 3, 0).reshape(24, -1)
    np.testing.assert_allclose(out[:12], -out[12:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.cov(out[:12].astype(np.float64)), np.eye(12), atol=1e-3)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet9", {"widths": (4, 4, 4, 4)}),
        ("airbench", {"widths": (4, 8)}),
        ("vgg_like", {"widths": (4, 8), "depths": 1}),
        ("lenet5", {"in_channels": 3, "pooling": "average"}),
        ("three_layer_convnet", {"filters": 4, "kernel_size": 3}),
    ],
)
def test_models_of_either_layout_learn(name, options, layout):
    model = models.build(name, classes=3, size=16, layout=layout, **options)
    x = np.random.default_rng(0).random((6, *model.input_shape)).astype(np.float32)
    assert x.shape[3 if layout == "NHWC" else 1] == 3 and model.layout == layout
    optimizer = Adam(model.parameters(), lr=0.01)
    curve = []
    for _ in range(8):
        loss, dscores = losses.softmax_cross_entropy(model.forward(x, training=True), np.arange(6) % 3)
        model.backward(dscores, input_gradient=False)
        optimizer.step()
        curve.append(loss)
    assert curve[-1] < 0.9 * curve[0]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_predict_with_mirror_images(layout):
    rng = np.random.default_rng(0)
    x = rng.random((5, 2, 6, 6)).astype(np.float32)
    x = x if layout == "NCHW" else x.transpose(0, 2, 3, 1)
    model = Sequential(Sequential(ReLU()), Conv2d(2, 3, 3, layout=layout, rng=0), Linear(48, 4, rng=0))
    flipped = np.flip(x, 3 if layout == "NCHW" else 2)
    expected = (model.predict(x) + model.predict(flipped)) / 2
    np.testing.assert_allclose(model.predict(x, mirror=True, batch_size=2), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - model.predict(x)).max() > 1e-3
    with pytest.raises(ValueError, match="x must have 4 dimensions"):
        model.predict(x[0], mirror=True)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("mirror", [False, True])
def test_predict_with_shifted_images(mirror, layout):
    rng = np.random.default_rng(0)
    images = rng.random((3, 2, 6, 7)).astype(np.float32)
    model = Sequential(Conv2d(2, 3, 3, layout=layout, rng=0), Linear(60, 4, rng=0))
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    expected = 0
    for weight, start in ((0.5, 2), (0.25, 4), (0.25, 0)):
        view = padded[:, :, start : start + 6, start : start + 7]
        for seen, share in ((view, 1 - mirror / 2), (view[..., ::-1], mirror / 2)):
            expected += weight * share * model.predict(seen if layout == "NCHW" else seen.transpose(0, 2, 3, 1))
    x = images if layout == "NCHW" else images.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(model.predict(x, shift=2, mirror=mirror), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="shift must be at least 0"):
        model.predict(x, shift=-1)


def test_state_includes_running_statistics_and_restores_them():
    model = Sequential(Linear(3, 4, rng=0), BatchNorm(4))
    model.forward(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), training=True)
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "1.gamma", "1.beta", "1.running_mean", "1.running_var"]
    assert isinstance(model.layers[1].running_mean, Buffer) and not isinstance(model.layers[1].running_mean, Parameter)
    other = Sequential(Linear(3, 4, rng=1), BatchNorm(4))
    arrays = [entry.value for entry in other.state()]
    other.load_state_dict(state)
    for array, (name, value) in zip(arrays, state.items(), strict=True):
        np.testing.assert_array_equal(array, value, err_msg=name)  # written in place


def test_loading_a_state_that_does_not_fit_changes_nothing():
    model = Sequential(Linear(3, 4, rng=0))
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"missing \['0.bias'\], unexpected \['bias'\]"):
        model.load_state_dict({"0.weight": np.ones((3, 4)), "bias": np.ones(4)})
    with pytest.raises(ValueError, match=r"0.bias must have shape \(4,\), got \(5,\)"):
        model.load_state_dict({"0.weight": np.ones((3, 4)), "0.bias": np.ones(5)})
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())


def test_nested_names_are_unique():
    model = Sequential(Sequential(Linear(2, 2, rng=0), ReLU()), Sequential(Linear(2, 2, rng=0)))
    assert [parameter.name for parameter in model.parameters()] == ["0.0.weight", "0.0.bias", "1.0.weight", "1.0.bias"]


def test_sequential_refuses_strangers_and_repeats():
    layer = ReLU()
    with pytest.raises(TypeError, match="argument 1 must be a layer, got str"):
        Sequential(layer, "relu")
    with pytest.raises(ValueError, match="each layer object may come once"):
        Sequential(layer, layer)


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(4, 6, (3, 5), stride=2, padding=((1, 0), (2, 1)), groups=2, bias=False, activation="relu"),
        Conv2d(3, 2, 3, padding="same", layout="NHWC", dtype="float64", algorithm="auto", init="xavier"),
        Linear(3, 2, bias=False, activation="relu"),
        BatchNorm(3, momentum=0.8, eps=1e-3),
        MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        AvgPool2d((2, 3)),
        Dropout(0.25),
        Sequential(Flatten(), Sequential(ReLU(), Sigmoid()), Tanh(), input_shape=(3, 4, 4)),
        Residual(Sequential(Conv2d(2, 3, 1), GELU(approximate="tanh")), Conv2d(2, 3, 1)),
        Residual(Sequential(LeakyReLU(0.3), Identity(), Multiply(0.5))),
        Normalize([0.5, 0.25], [1.5, 2.0], layout="NHWC"),
        GlobalAvgPool2d(),
        GlobalMaxPool2d(layout="NHWC"),
    ],
    ids=repr,
)
def test_configuration_survives_json_and_rebuilds_the_layer(layer):
    config = json.loads(json.dumps(layer.config()))
    rebuilt = build_layer(config)
    assert type(rebuilt) is type(layer)
    assert repr(rebuilt) == repr(layer)
    assert json.dumps(rebuilt.config()) == json.dumps(layer.config())
    assert [(e.name, e.value.shape, e.value.dtype) for e in rebuilt.state()] == [
        (e.name, e.value.shape, e.value.dtype) for e in layer.state()
    ]


def test_rebuilding_reports_what_is_wrong():
    with pytest.raises(ValueError, match=r"config\['layer'\] must be one of .*Conv2d.*, got 'Conv4d'"):
        build_layer({"layer": "Conv4d"})
    with pytest.raises(ValueError, match="Dropout cannot be built from"):
        build_layer({"layer": "Dropout", "q": 1})


def test_a_layer_of_ones_own_takes_part():
    class Scale(Layer):
        def __init__(self, factor: float):
            self.factor = factor
            self.offset = Parameter(np.zeros(1, np.float32))
            self.set_names()

        def forward(self, x, *, training=False):
            return x * np.float32(self.factor) + self.offset.value

        def backward(self, dout, *, input_gradient=True):
            self.offset.grad = dout.sum(keepdims=True).reshape(1)
            return dout * np.float32(self.factor) if input_gradient else None

    model = Sequential(Linear(2, 2, rng=0), Scale(2.0))
    assert [parameter.name for parameter in model.parameters()][-1] == "1.offset"
    assert repr(build_layer(model.config()).layers[1]) == "Scale(2.0)"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Conv2d(3, 4, 3, groups=2), "groups must divide in_channels and out_channels, got 2, 3 and 4"),
        (lambda: Conv2d(0, 4, 3), "in_channels must be at least 1, got 0"),
        (lambda: Conv2d(1, 4, 0), "kernel_size must be at least 1, got 0"),
        (lambda: Conv2d(1, 4, 3, activation="gelu"), "activation must be one of None, 'relu'"),
        (lambda: Conv2d(1, 4, 3, layout="CHWN"), "layout must be one of 'NCHW', 'NHWC', got 'CHWN'"),
        (lambda: Linear(2, 2, dtype="float16"), "dtype must be one of 'float32', 'float64', got 'float16'"),
        (lambda: Linear(2, 2, init="zeros"), "init must be one of 'he', 'xavier', 'xavier_sigmoid', got 'zeros'"),
        (lambda: Dropout(1.0), "p must be at least 0 and below 1, got 1.0"),
        (lambda: MaxPool2d(2, stride=0), "stride must be at least 1, got 0"),
        (lambda: GELU(approximate="fast"), "approximate must be one of 'none', 'tanh', got 'fast'"),
        (lambda: GlobalAvgPool2d(layout="CHWN"), "layout must be one of 'NCHW', 'NHWC', got 'CHWN'"),
        (lambda: Normalize([0.5], [0.0]), r"std above 0, got \[0.5\], \[0.0\]"),
        (lambda: Normalize([0.5, 0.5], [1.0]), "must have one number per channel"),
        (lambda: Normalize([0.5], [1.0])(np.ones((1, 3, 4, 4))), r"images of 1 channels, got shape \(1, 3, 4, 4\)"),
        (lambda: models.resnet9(widths=(4, 4)), r"widths must have 4 entries, got \(4, 4\)"),
        (lambda: models.airbench(size=8), "size must be at least 9, got 8"),
        (lambda: models.whiten(models.lenet5(), np.ones((1, 1, 28, 28))), "whiten: model must start with"),
    ],
)
def test_constructors_name_the_broken_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_initial_weights_have_the_stated_variance():
    rng = np.random.default_rng(0)
    assert he_uniform(rng, (400, 500), 400, 500).var() == pytest.approx(2 / 400, rel=0.02)
    assert xavier_uniform(rng, (400, 500), 400, 500).var() == pytest.approx(2 / 900, rel=0.02)
    layer = Conv2d(8, 64, 5, rng=0)
    assert layer.weight.value.var() == pytest.approx(2 / (8 * 25), rel=0.05)
    assert not layer.bias.value.any()
    np.testing.assert_array_equal(
        layer.weight.value, Conv2d(8, 64, 5, rng=0, dtype="float64").weight.value.astype("f4")
    )


def test_dropout_follows_its_seed_and_rests_in_inference():
    x = np.ones((50, 40), np.float32)
    layer = Dropout(0.25, rng=0)
    out = layer.forward(x, training=True)
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (out == 0).mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(layer.backward(x), out)
    layer.seed(np.random.default_rng(0))
    np.testing.assert_array_equal(layer.forward(x, training=True), out)
    np.testing.assert_array_equal(layer(x), x)


def test_summary_lists_shapes_and_counts():
    text = models.lenet5().summary()
    assert "2  Conv2d(6, 16, 5, activation='relu')" in text and "16 x 10 x 10" in text
    assert text.splitlines()[-1].split() == ["total", "61,706"]
    with pytest.raises(ValueError, match="input_shape must be given"):
        Sequential(ReLU()).summary()


@pytest.mark.parametrize("activation, layer", [("tanh", Tanh), ("sigmoid", Sigmoid)])
def test_lenet5_of_1998(activation, layer):
    model = models.lenet5(activation=activation, pooling="average")
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(layer) == 4 and kinds.count(AvgPool2d) == 2 and MaxPool2d not in kinds
    assert sum(parameter.value.size for parameter in model.parameters()) == 61_706
    assert not any(getattr(layer, "activation", None) for layer in model.layers)
    assert model.predict(np.ones((2, 1, 28, 28), np.float32)).shape == (2, 10)
    with pytest.raises(ValueError, match="activation must be one of 'relu', 'tanh', 'sigmoid', got 'gelu'"):
        models.lenet5(activation="gelu")
    with pytest.raises(ValueError, match="pooling must be one of 'max', 'average', got 'mean'"):
        models.lenet5(pooling="mean")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_and_cross_entropy_together_are_softmax_cross_entropy(dtype):
    rng = np.random.default_rng(0)
    scores, y = rng.standard_normal((6, 5)).astype(dtype), rng.integers(0, 5, 6)
    layer = Softmax()
    loss, gradient = CrossEntropy()(layer.forward(scores, training=True), y)
    expected_loss, dscores = losses.softmax_cross_entropy(scores, y)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert loss == pytest.approx(expected_loss, rel=tolerance) and gradient.dtype == dtype
    np.testing.assert_allclose(layer.backward(gradient), dscores, rtol=tolerance, atol=tolerance)


def test_cross_entropy_gradient_and_limits():
    p = np.random.default_rng(0).dirichlet(np.ones(4), 5)
    y = np.array([0, 3, 1, 1, 2])
    loss, gradient = CrossEntropy()(p, y)
    assert loss == pytest.approx(-sum(np.log(p[n, y[n]]) for n in range(5)) / 5)
    expected = numerical_gradient(lambda p: CrossEntropy()(p, y)[0], p.copy(), h=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)
    loss, gradient = CrossEntropy()(np.array([[0.0, 1.0]], np.float32), np.array([0]))
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert np.isnan(CrossEntropy()(np.empty((0, 3)), np.empty(0, int))[0])
    with pytest.raises(ValueError, match="y must hold 5 labels from 0 to 3"):
        CrossEntropy()(p, y + 1)
    with pytest.raises(TypeError, match="y must hold integer class labels, got dtype float64"):
        CrossEntropy()(p, y.astype(float))


def test_sigmoids_start_with_weights_of_four_times_the_size():
    plain, sigmoid = (models.lenet5(activation=name, seed=0) for name in ("tanh", "sigmoid"))
    for name, value in plain.state_dict().items():
        factor = 1 if name.startswith("11.") else 4  # the last layer has no sigmoid after it
        np.testing.assert_allclose(sigmoid.state_dict()[name], factor * value, rtol=1e-6)
