"""Layers of convolutions along one and three axes and of transposed ones: they are the functions, with parameters."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conv_cases import normal

import fastconv
from fastconv import nn

# layer, x shape, the function of the same meaning and its options
LAYERS = {
    "Conv1d": (nn.Conv1d, (2, 4, 9), "conv1d", {"stride": 2, "padding": "same", "groups": 2}),
    "Conv1d, channels last": (nn.Conv1d, (2, 9, 4), "conv1d", {"padding": (2, 1), "layout": "NWC"}),
    "Conv3d": (nn.Conv3d, (1, 4, 4, 5, 6), "conv3d", {"padding": 1, "stride": (1, 2, 2), "activation": "relu"}),
    "Conv3d, channels last": (nn.Conv3d, (1, 4, 5, 6, 4), "conv3d", {"dilation": 1, "layout": "NDHWC"}),
    "ConvTranspose1d": (nn.ConvTranspose1d, (2, 4, 5), "conv_transpose1d", {"stride": 2, "output_padding": 1}),
    "ConvTranspose2d": (nn.ConvTranspose2d, (2, 4, 5, 3), "conv_transpose2d", {"stride": 2, "padding": 1}),
    "ConvTranspose2d, channels last": (
        nn.ConvTranspose2d, (2, 5, 3, 4), "conv_transpose2d", {"stride": (2, 1), "groups": 2, "layout": "NHWC"},
    ),
    "ConvTranspose3d": (nn.ConvTranspose3d, (1, 4, 2, 3, 3), "conv_transpose3d", {"stride": 2, "dilation": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_function(name):
    kind, x_shape, function, options = LAYERS[name]
    layer = kind(4, 6, 3, rng=0, **options)
    layer.bias.value[...] = np.arange(6)
    x = normal(1, x_shape)
    out, cache = getattr(fastconv, function + "_forward")(
        x, layer.weight.value, layer.bias.value, algorithm="fast", **options
    )
    np.testing.assert_array_equal(layer.forward(x, training=True), out)
    dout = normal(2, out.shape)
    dx, dw, db = getattr(fastconv, function + "_backward")(dout, cache)
    np.testing.assert_array_equal(layer.backward(dout), dx)
    np.testing.assert_array_equal(layer.weight.grad, dw)
    np.testing.assert_array_equal(layer.bias.grad, db)
    layer.forward(x, training=True)
    assert layer.backward(dout, input_gradient=False) is None


@pytest.mark.parametrize("name", LAYERS)
def test_configurations_rebuild_the_layer(name):
    kind, x_shape, _, options = LAYERS[name]
    layer = kind(4, 6, 3, bias=False, rng=0, **options)
    again = nn.build_layer(json.loads(json.dumps(layer.config())))
    assert type(again) is kind and repr(again) == repr(layer) and again.bias is None
    again.load_state_dict(layer.state_dict())
    x = normal(1, x_shape)
    np.testing.assert_array_equal(again(x), layer(x))


def test_representations_are_short():
    assert repr(nn.Conv1d(3, 8, 5, padding="same")) == "Conv1d(3, 8, 5, padding='same')"
    assert repr(nn.Conv1d(3, 8, 5, padding=(1, 2))) == "Conv1d(3, 8, 5, padding=(1, 2))"
    assert repr(nn.Conv3d(3, 8, 3, padding=1)) == "Conv3d(3, 8, 3, padding=1)"
    assert repr(nn.Conv3d(3, 8, (1, 3, 3), stride=2)) == "Conv3d(3, 8, (1, 3, 3), stride=2)"
    assert repr(nn.ConvTranspose2d(8, 3, 4, stride=2)) == "ConvTranspose2d(8, 3, 4, stride=2)"


@pytest.mark.parametrize("kind", [nn.Conv3d, nn.ConvTranspose2d])
def test_outputs_keep_the_variance(kind):
    """He initial values: with inputs of mean square 1, outputs of mean square 2, so that ReLU leaves 1."""
    layer = kind(64, 64, 4, stride=2, bias=False, rng=0)
    x = normal(1, (2, 64, *(8,) * layer.axes))
    out = layer(x)
    inside = out[(slice(None), slice(None), *(slice(2, -2),) * layer.axes)] if out.shape[-1] > 5 else out
    assert np.mean(inside.astype(np.float64) ** 2) == pytest.approx(2, rel=0.2)


def test_an_autoencoder_learns():
    """Down by two and up again, in a `Sequential`: the loss falls to a part of what it was."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1, activation="relu", rng=0),
        nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1, rng=1),
        input_shape=(1, 8, 8),
    )
    x = normal(3, (32, 1, 8, 8))
    optimizer = nn.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss, gradient = fastconv.mse_loss(model.forward(x, training=True), x)
        model.backward(gradient, input_gradient=False)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (nn.Conv1d, (3, 8, (3, 3)), ValueError, "Conv1d: kernel_size must be an integer or a sequence of 1"),
        (nn.Conv3d, (3, 8, 0), ValueError, "Conv3d: kernel_size must be at least 1"),
        (nn.ConvTranspose2d, (0, 8, 3), ValueError, "ConvTranspose2d: in_channels must be at least 1"),
        (nn.ConvTranspose2d, (3, 8, "3"), TypeError, "ConvTranspose2d: kernel_size must be an integer"),
    ],
)
def test_errors(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(*arguments)


def test_groups_must_divide_both_channel_counts():
    for kind in (nn.Conv1d, nn.Conv3d, nn.ConvTranspose2d):
        with pytest.raises(ValueError, match=f"{kind.__name__}: groups must divide in_channels and out_channels"):
            kind(4, 6, 3, groups=4)
