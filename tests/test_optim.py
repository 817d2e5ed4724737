"""Optimizers and schedules against their formulas, written out in plain NumPy."""

import numpy as np
import pytest

from fastconv import runtime
from fastconv.nn import SGD, Adam, AdamW, Parameter, RMSProp, clipping, schedules

STEPS = 5


def decayed(w, g, lr, weight_decay, decoupled):
    return (w - lr * weight_decay * w, g) if decoupled else (w, g + weight_decay * w)


def sgd(w, gradients, lr, momentum=0.0, nesterov=False, weight_decay=0.0, decoupled=False):
    v = 0
    for g in gradients:
        w, g = decayed(w, g, lr, weight_decay, decoupled)
        v = momentum * v + g
        w = w - lr * (g + momentum * v if nesterov else v)
    return w


def rmsprop(w, gradients, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, decoupled=False):
    s = 0
    for g in gradients:
        w, g = decayed(w, g, lr, weight_decay, decoupled)
        s = alpha * s + (1 - alpha) * g**2
        w = w - lr * g / (np.sqrt(s) + eps)
    return w


def adam(w, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m = s = 0
    for t, g in enumerate(gradients, 1):
        w, g = decayed(w, g, lr, weight_decay, decoupled)
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
    (SGD, sgd, {"lr": 0.1, "weight_decay": 0.2, "decoupled": True}),
    (SGD, sgd, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "decoupled": True}),
    (RMSProp, rmsprop, {"lr": 0.01, "weight_decay": 0.1, "decoupled": True}),
    (Adam, adam, {"lr": 0.01, "weight_decay": 0.1, "decoupled": True}),
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


@pytest.mark.parametrize("decoupled", [False, True])
def test_biases_are_spared_on_request(decoupled):
    params, gradients = parameters("float64")
    before = [p.value.copy() for p in params]
    options = {"lr": 0.1, "momentum": 0.9}
    run(SGD(params, **options, weight_decay=0.5, decoupled=decoupled, decay_biases=False), gradients)
    for i, parameter in enumerate(params):
        decay = {"weight_decay": 0.5, "decoupled": decoupled} if parameter.value.ndim > 1 else {}
        np.testing.assert_allclose(
            parameter.value, sgd(before[i], [step[i] for step in gradients], **options, **decay), rtol=1e-12
        )


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("kind", "formula"), [(SGD, sgd), (RMSProp, rmsprop), (Adam, adam)])
def test_rates_are_factors_of_the_parameters_they_name(kind, formula, decoupled):
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(6), rng.standard_normal((STEPS, 6))
    parameters = [Parameter(start.copy(), name) for name in ("0.weight", "1.beta", "1.gamma", "2.beta")]
    decay = 0.2 if decoupled else 0.0
    optimizer = kind(
        parameters, lr=0.01, weight_decay=decay, decoupled=decoupled, rates={"1.b*": 5, "*.beta": 3, "1.*": 2}
    )
    for g in gradients:
        for parameter in parameters:
            parameter.grad = g
        optimizer.step()
    for parameter, factor in zip(parameters, (1, 5, 2, 3), strict=True):
        # decoupled decay: lr * 0.2 whatever the factor
        known = formula(start, gradients, 0.01 * factor, weight_decay=decay / factor, decoupled=decoupled)
        np.testing.assert_allclose(parameter.value, known, rtol=1e-12)


def test_coupled_decay_keeps_its_pace_beside_a_rate():
    w = Parameter(np.array([2.0]), "w", grad=np.array([1.0]))
    SGD([w], lr=0.1, weight_decay=0.5, rates={"w": 10}).step()
    np.testing.assert_allclose(w.value, 2 - 0.1 * 10 * 1 - 0.1 * 0.5 * 2)


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clipping_by_the_common_norm(dtype):
    params, (gradients, *_) = parameters(dtype)
    gradients[0] = np.asfortranarray(gradients[0])
    everything = np.concatenate([g.ravel() for g in gradients]).astype("float64")
    norm = np.sqrt(np.sum(everything**2))

    def clipped(limit):
        for parameter, gradient in zip(params, gradients, strict=True):
            parameter.grad = gradient.copy()
        assert clipping.clip_norm(params, limit) == pytest.approx(norm, rel=1e-12)
        assert all(parameter.grad.dtype == dtype for parameter in params)
        return np.concatenate([parameter.grad.ravel() for parameter in params])

    np.testing.assert_array_equal(clipped(norm * 1.01), everything.astype(dtype))
    np.testing.assert_allclose(clipped(0.5), everything * (0.5 / norm), rtol=1e-6)
    params[1].grad = None  # a layer that was not run takes no part
    params[0].grad, params[2].grad = np.full((3, 4), 2.0, dtype), np.zeros((2, 3, 2, 2), dtype)
    assert clipping.clip_norm(params, 1.0) == pytest.approx(np.sqrt(48))


def test_norms_do_not_depend_on_the_number_of_threads():
    w = Parameter(np.zeros(1), "w", grad=np.random.default_rng(0).normal(size=300_000).astype("f4"))
    norm = clipping.gradient_norm([w])
    with runtime.num_threads(1):
        assert clipping.gradient_norm([w]) == norm
    assert norm == pytest.approx(np.linalg.norm(w.grad.astype("f8")), rel=1e-12)


def test_clipping_by_value_and_what_it_refuses():
    w = Parameter(np.zeros(4, "f4"), "w", grad=np.array([-3, 0.5, np.nan, 7], "f4"))
    clipping.clip_value([w], 1.5)
    np.testing.assert_array_equal(w.grad, np.array([-1.5, 0.5, np.nan, 1.5], "f4"))
    with pytest.raises(FloatingPointError, match="norm of the gradients must be finite, got nan"):
        clipping.clip_norm([w], 1.0)
    for clip in (clipping.clip_norm, clipping.clip_value):
        with pytest.raises(ValueError, match="limit must be above 0, got 0"):
            clip([w], 0)


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


def test_exponential_and_milestones():
    assert schedules.exponential(0.9)(3.5) == pytest.approx(0.9**3.5)
    assert [schedules.milestones((1, 4), 0.1)(epoch) for epoch in (0.99, 1, 4)] == pytest.approx([1, 0.1, 0.01])
    for factor in (0, 1.5):
        with pytest.raises(ValueError, match=f"factor must be above 0 and at most 1, got {factor}"):
            schedules.exponential(factor)
    with pytest.raises(ValueError, match=r"epochs must ascend, got \[4, 1\]"):
        schedules.milestones([4, 1])


def test_one_cycle_is_three_straight_points():
    factor = schedules.one_cycle(20, warmup=0.25, start=0.2, final=0.1)
    times, factors = [0, 5, 20], [0.2, 1.0, 0.1]
    for epoch in np.linspace(0, 20, 41):
        assert factor(epoch) == pytest.approx(np.interp(epoch, times, factors))
    assert factor(25) == pytest.approx(0.1)
    for epochs, warmup in ((10, 0), (10, 1), (0, 0.3)):
        with pytest.raises(ValueError, match=f"got {epochs} and {warmup}"):
            schedules.one_cycle(epochs, warmup=warmup)
