"""Optimizers and schedules against their formulas, written out in plain NumPy."""

import numpy as np
import pytest

from fastconv.nn import SGD, Adam, AdamW, Parameter, RMSProp, schedules

STEPS = 5


def sgd(w, gradients, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    v = 0
    for g in gradients:
        g = g + weight_decay * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v if nesterov else v)
    return w


def rmsprop(w, gradients, lr, alpha=0.99, eps=1e-8, weight_decay=0.0):
    s = 0
    for g in gradients:
        g = g + weight_decay * w
        s = alpha * s + (1 - alpha) * g**2
        w = w - lr * g / (np.sqrt(s) + eps)
    return w


def adam(w, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m = s = 0
    for t, g in enumerate(gradients, 1):
        if decoupled:
            w = w - lr * weight_decay * w
        else:
            g = g + weight_decay * w
        m = betas[0] * m + (1 - betas[0]) * g
        s = betas[1] * s + (1 - betas[1]) * g**2
        w = w - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(s / (1 - betas[1] ** t)) + eps)
    return w


CASES = [
    (SGD, sgd, {"lr": 0.1}),
    (SGD, sgd, {"lr": 0.1, "weight_decay": 0.2}),
    (SGD, sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}),
    (SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, sgd, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    (RMSProp, rmsprop, {"lr": 0.01}),
    (RMSProp, rmsprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    (Adam, adam, {"lr": 0.01}),
    (Adam, adam, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (AdamW, lambda *a, **k: adam(*a, **k, decoupled=True), {"lr": 0.01, "weight_decay": 0.1}),
]


def parameters(dtype):
    rng = np.random.default_rng(1)
    shapes = {"a": (3, 4), "b": (2,), "c": (2, 3, 2, 2)}
    made = [Parameter(rng.normal(size=shape).astype(dtype), name) for name, shape in shapes.items()]
    return made, [[rng.normal(size=p.value.shape).astype(dtype) for p in made] for _ in range(STEPS)]


def run(optimizer, gradients):
    for step in gradients:
        for parameter, gradient in zip(optimizer.parameters, step, strict=True):
            parameter.grad = gradient.copy()
        optimizer.step()
        for parameter, gradient in zip(optimizer.parameters, step, strict=True):
            np.testing.assert_array_equal(parameter.grad, gradient)  # gradients are only read


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("kind, formula, options", CASES)
def test_steps_follow_the_formula(kind, formula, options, dtype, tolerance):
    params, gradients = parameters(dtype)
    arrays, before = [p.value for p in params], [p.value.astype("float64") for p in params]
    run(kind(params, **options), gradients)
    for i, parameter in enumerate(params):
        expected = formula(before[i], [step[i].astype("float64") for step in gradients], **options)
        assert parameter.value is arrays[i] and parameter.value.dtype == dtype
        np.testing.assert_allclose(parameter.value, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind, formula, options", CASES)
def test_state_continues_bit_for_bit(kind, formula, options):
    params, gradients = parameters("float32")
    run(kind(params, **options), gradients)

    others, _ = parameters("float32")
    first = kind(others, **options)
    run(first, gradients[:2])
    second = kind(others, **options)
    second.load_state_dict(first.state_dict())
    assert second.steps == 2
    run(second, gradients[2:])
    for a, b in zip(params, others, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_mixed_dtypes_keep_theirs():
    params = [Parameter(np.ones(5, "f4"), "a", np.ones(5, "f4")), Parameter(np.ones(3), "b", np.ones(3))]
    Adam(params).step()
    assert [p.value.dtype for p in params] == [np.float32, np.float64]


def test_state_of_another_shape_or_kind_is_refused():
    params, _ = parameters("float32")
    optimizer = SGD(params, momentum=0.9)
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"missing .*mean/a.*unexpected .*momentum/a"):
        Adam(params).load_state_dict(state)
    with pytest.raises(ValueError, match=r"momentum/b must have shape \(2,\), got \(7,\)"):
        optimizer.load_state_dict({**state, "momentum/b": np.zeros(7)})


def test_step_without_gradients_updates_nothing():
    params, gradients = parameters("float32")
    params[0].grad = gradients[0][0]
    before = params[0].value.copy()
    with pytest.raises(RuntimeError, match=r"SGD\.step: b has no gradient"):
        SGD(params).step()
    np.testing.assert_array_equal(params[0].value, before)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: SGD(p, lr=-1), "lr must be at least 0.0, got -1.0"),
        (lambda p: SGD(p, momentum=1), "momentum must be at least 0 and below 1, got 1.0"),
        (lambda p: SGD(p, nesterov=True), "nesterov needs a momentum above 0"),
        (lambda p: Adam(p, betas=(0.9, 1.0)), "betas must be at least 0 and below 1, got 1.0"),
        (lambda p: Adam([]), "parameters must be given"),
        (lambda p: Adam([p[0], p[0]]), "each with its own name"),
        (lambda p: RMSProp(p, lr=float("nan")), "lr must be finite"),
    ],
)
def test_hyperparameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make(parameters("float32")[0])


def test_cosine_with_warmup():
    factor = schedules.cosine(10, warmup=2, final=0.1)
    assert [factor(epoch) for epoch in (0, 1, 2)] == [0, 0.5, 1]
    assert factor(6) == pytest.approx(0.55)
    assert factor(10) == factor(12) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="warmup must be at least 0 and below epochs, got 3 and 3"):
        schedules.cosine(3, warmup=3)


def test_step_decay_and_constant():
    assert [schedules.step_decay(3, 0.1)(epoch) for epoch in (0, 2.99)] == [1, 1]
    assert schedules.step_decay(3, 0.1)(7) == pytest.approx(0.01)
    assert schedules.constant()(5) == 1
    with pytest.raises(ValueError, match="every must be above 0, got 0"):
        schedules.step_decay(0)
