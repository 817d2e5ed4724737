"""Choosing an algorithm: a pure function of the problem and the number of threads, tested without running kernels."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conv_cases import CASES, LARGE_PLANE, LAYOUTS, declines

from fastconv import conv2d, conv2d_backward, conv2d_forward, explain_conv2d, runtime
from fastconv import plan as planning
from fastconv.algorithms import ALGORITHMS, PASSES
from fastconv.algorithms.axes import ForwardAxis, GradientAxis
from fastconv.algorithms.depthwise_axes import axis_outputs
from fastconv.algorithms.over_filters import OverFiltersPass
from fastconv.algorithms.sweep_callbacks import apart_in_runs
from fastconv.algorithms.tap_grids import spans
from fastconv.catalogue import EDGES, Case, case
from fastconv.plan import Candidate, candidates, choose, conv2d_algorithms, plan
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

PROBLEM = ConvProblem(2, 3, 9, 11, 5, 3, 3, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, "NCHW", np.dtype(np.float32))


def offer(name, cycles=None, exact=True, declined=None):
    algorithm = replace(ALGORITHMS[0], name=name, exact=exact)
    return Candidate(algorithm, SimpleNamespace(cycles=cycles), declined)


@pytest.mark.parametrize(
    ("offers", "accuracy", "chosen"),
    [
        ([offer("a", 5), offer("b", 4)], "auto", "b"),
        ([offer("a", 5), offer("b", 5)], "auto", "a"),  # ties go to the earlier one
        ([offer("a", 5), offer("b", 1, exact=False)], "auto", "a"),
        ([offer("a", 5), offer("b", 1, exact=False)], "fast", "b"),
        ([offer("a", 1), offer("b", 5, exact=False)], "fast", "a"),
        ([offer("a", declined="no"), offer("b", 9)], "auto", "b"),
    ],
)
def test_choose(offers, accuracy, chosen):
    assert choose(offers, accuracy).algorithm.name == chosen


def test_the_last_resort_accepts_everything():
    for options in ({}, {"groups": 3, "C": 3, "F": 3}, {"stride": (3, 2), "dilation": (2, 4), "H": 40, "W": 40}):
        problem = replace(PROBLEM, **options)
        for direction in PASSES:
            assert any(not a.declines(problem, direction) and a.exact for a in ALGORITHMS)


@pytest.fixture
def picky(monkeypatch):
    """A registry whose second algorithm declines every pass but the gradient of w."""

    def declines(problem, direction):
        return None if direction == "gradient_w" else "it is picky"

    first = ALGORITHMS[0]
    registry = (first, replace(first, name="picky", declines=declines))
    monkeypatch.setattr(planning, "ALGORITHMS", registry)
    planning._cached.cache_clear()
    yield
    planning._cached.cache_clear()


def test_a_named_algorithm_that_declines(picky):
    x, w = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"algorithm .picky. cannot run .*: it is picky \(1x2x5x5, 3 filters"):
        conv2d(x, w, algorithm="picky")
    assert plan(PROBLEM, "gradient_x", "picky") is not None  # "auto" serves the passes it does not support
    found = explain_conv2d(x.shape, w.shape)
    assert found.predictions["forward"]["picky"] == "it is picky"
    assert "picky declines: it is picky" in str(found)


def test_plans_are_kept_and_bounded():
    planning._cached.cache_clear()
    first = plan(PROBLEM, "forward", "auto")
    assert plan(replace(PROBLEM), "forward", "auto") is first
    assert planning._cached.cache_info().maxsize == planning.PLANS_KEPT
    assert plan(PROBLEM, "forward", "auto", relu=True) is not first
    if runtime.get_num_threads() > 1:
        with runtime.num_threads(1):
            assert plan(PROBLEM, "forward", "auto") is not first
    hits = planning._cached.cache_info().hits
    x, w = np.ones(PROBLEM.x_shape, np.float32), np.ones(PROBLEM.w_shape, np.float32)
    conv2d(x, w, padding=1)
    assert planning._cached.cache_info().hits == hits + 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_auto_stays_with_plain_sums(layout):
    exact = {a.name for a in ALGORITHMS if a.exact}
    for item in CASES:
        found = explain_conv2d(item.x_shape(layout), item.w_shape(layout), layout=layout, **item.options)
        assert set(found.chosen.values()) <= exact | {"none"}


def test_explain():
    item = case("resnet 64 3x3 56")
    found = explain_conv2d(item.x_shape(), item.w_shape(), **item.options)
    assert found.flops == 2 * 8 * 64 * 64 * 9 * 56 * 56
    assert set(found.chosen) == set(found.predictions) == set(found.workspace) == set(PASSES)
    for direction in PASSES:
        assert list(found.predictions[direction]) == conv2d_algorithms()
        admitted = {a.name: found.predictions[direction][a.name] for a in ALGORITHMS if a.exact}
        times = {name: value for name, value in admitted.items() if isinstance(value, float)}
        assert found.chosen[direction] == min(times, key=times.get)
        assert found.workspace[direction] >= 0
    text = str(found)
    for part in (
        "8x64x56x56, 64 filters 3x3",
        "1849.7 MFLOP",
        "forward: ",
        "gradient_w: ",
        "ms predicted",
        "workspace",
    ):
        assert part in text
    with pytest.raises(ValueError, match="algorithm must be one of"):
        explain_conv2d(item.x_shape(), item.w_shape(), algorithm="best")


@pytest.mark.parametrize("name", conv2d_algorithms())
def test_explain_a_named_algorithm(name):
    groups = {"depthwise": 8, "grouped": 2}.get(name, 1)
    channels = 8 // groups
    found = explain_conv2d((2, 8, 20, 20), (16, channels, 3, 3), groups=groups, algorithm=name)
    assert found.chosen["forward"] == name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [4, 8, 16])
def test_auto_groups_channels(channels, layout):
    """Groups of few channels, read in place, leave vectors half empty or their numbers far apart."""
    item = Case("resnext", 8, 32 * channels, 28, 28, 32 * channels, 3, 3, 1, 1, 1, 32)
    found = explain_conv2d(item.x_shape(layout), item.w_shape(layout), layout=layout, **item.options)
    assert set(found.chosen.values()) == {"grouped"}


def test_explain_with_nothing_to_multiply():
    found = explain_conv2d((0, 8, 20, 20), (16, 8, 3, 3))
    assert found.flops == 0 and set(found.workspace.values()) == {0}
    assert "0.0 MFLOP" in str(found)


@pytest.fixture
def held(monkeypatch):
    """Bytes of scratch held at once: [now, most]."""
    bytes_held, entered = [0, 0], []
    take, enter, leave = Scratch.take, Scratch.__enter__, Scratch.__exit__

    def counting_take(self, shape, dtype):
        array = take(self, shape, dtype)
        bytes_held[0] += array.nbytes
        bytes_held[1] = max(bytes_held)
        return array

    def counting_enter(self):
        entered.append(bytes_held[0])
        return enter(self)

    def counting_leave(self, *error):
        bytes_held[0] = entered.pop()
        leave(self, *error)

    for name, method in (("take", counting_take), ("__enter__", counting_enter), ("__exit__", counting_leave)):
        monkeypatch.setattr(Scratch, name, method)
    return bytes_held


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", conv2d_algorithms())
def test_scratch_stays_within_the_predicted_workspace(algorithm, layout, held, monkeypatch):
    monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    for item in (*EDGES, LARGE_PLANE):
        x, w = np.ones(item.x_shape(layout), np.float32), np.ones(item.w_shape(layout), np.float32)
        if declines(algorithm, x.shape, w.shape, layout=layout, **item.options):
            continue
        found = explain_conv2d(x.shape, w.shape, layout=layout, algorithm=algorithm, **item.options)
        most = {}
        held[1] = 0
        dout, cache = conv2d_forward(x, w, layout=layout, algorithm=algorithm, **item.options)
        most["forward"] = held[1]
        for name in ("x", "w"):
            held[1] = 0
            conv2d_backward(dout, cache, wrt=name)
            most[f"gradient_{name}"] = held[1]
        for direction, used in most.items():
            assert used <= found.workspace[direction], f"{item.name}, {direction}"
    assert held[0] == 0


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_axes_meet_every_pair_of_cells_once(stride, dilation):
    """ForwardAxis and GradientAxis list the same (input cell, tap, output) triples as the definition."""
    for size in range(1, 12):
        for kernel in range(1, 5):
            for before, after in ((0, 0), (1, 0), (0, 2), (4, 3)):
                outputs = len(range(0, size + before + after - dilation * (kernel - 1), stride))
                if outputs == 0:
                    continue
                expected = {
                    (o * stride + k * dilation - before, k, o)
                    for o in range(outputs)
                    for k in range(kernel)
                    if 0 <= o * stride + k * dilation - before < size
                }
                forward = ForwardAxis.of(kernel, stride, dilation, outputs)
                cells = [
                    ((o + offset) * stride + forward.phases[phase] - before, k, o)
                    for k, (phase, offset) in enumerate(forward.tap)
                    for o in range(outputs)
                    if o + offset < forward.length
                ]
                assert len(cells) == outputs * kernel
                assert {cell for cell in cells if 0 <= cell[0] < size} == expected

                gradient = GradientAxis.of(size, kernel, stride, dilation, before, outputs)
                rows = [phase.first + m * stride for phase in gradient.phases for m in range(phase.count)]
                assert sorted(rows) == list(range(size))
                met = set()
                for phase in gradient.phases:
                    for k, offset in phase.taps:
                        for m in range(phase.count):
                            assert 0 <= m + offset < gradient.length
                            o = m + offset - gradient.front
                            if 0 <= o < outputs:
                                met.add((phase.first + m * stride, k, o))
                assert met == expected


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 4), (2, 1), (2, 3), (3, 2)])
def test_spans_meet_all_taps_inside_and_little_else(stride, dilation):
    """Along one axis, every output is in one span; up to the most spans, a span's taps are those of all its outputs."""
    for size, kernel, before, after in ((7, 3, 1, 1), (9, 5, 2, 2), (5, 5, 9, 7), (12, 1, 0, 3), (30, 13, 6, 6)):
        pads = (before, after)
        problem = replace(
            PROBLEM, H=size, W=1, KH=kernel, KW=1, stride=(stride, 1), dilation=(dilation, 1), pads=(pads, (0, 0))
        )
        if problem.OH <= 0:
            continue
        for gradient in (False, True):
            cells = problem.OH if gradient else size
            for outputs in axis_outputs(problem, 0, gradient):
                found = spans(outputs, cells)
                assert [m for span in found for m in range(span.begin, span.begin + span.count)] == list(
                    range(outputs.count)
                )
                assert len(found) <= 7
                exact = len({outputs.inside(m, cells) for m in range(outputs.count)}) <= 7
                for span in found:
                    for m in range(span.begin, span.begin + span.count):
                        first, taps = outputs.inside(m, cells)
                        if taps:
                            assert span.first <= first and first + taps <= span.first + span.taps
                        assert not exact or taps == span.taps


@pytest.mark.parametrize("layout", LAYOUTS)
def test_taps_outside_the_image_are_not_multiplied(layout):
    """Dilated by 12 on 33 x 33 pixels, 75 of 99 pairs of a row and a tap are inside along each axis."""
    problem = replace(
        PROBLEM, N=1, C=512, H=33, W=33, F=256, KH=3, KW=3, stride=(1, 1), dilation=(12, 12), pads=((12, 12), (12, 12)),
        layout=layout,
    )  # fmt: skip
    for gradient in (False, True):
        work = OverFiltersPass(problem, 2, packed=False, gradient=gradient, pixels=True)
        assert sum(grid.pixels for grid in work.grids) == 33 * 33
        assert sum(grid.pixels * grid.taps for grid in work.grids) == 75 * 75
        assert (work.source.rows, work.source.cols) == (33, 33)  # nothing is padded


def test_candidates_offer_or_say_why():
    for problem in (PROBLEM, replace(PROBLEM, layout="NHWC"), replace(PROBLEM, stride=(2, 2), dtype=np.dtype("f8"))):
        for direction in PASSES:
            offers = candidates(problem, direction, 2)
            assert [o.algorithm.name for o in offers] == conv2d_algorithms()
            for o in offers:
                assert o.declined or (o.work.cycles > 0 and o.work.workspace >= 0 and callable(o.work.run))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_depthwise_layers_are_run_as_such(layout):
    """A layer of one channel, which `depthwise` can run too, stays with what multiplies faster."""
    for channels, size, stride in ((32, 112, 1), (128, 56, 2), (1024, 7, 1)):
        shapes = Case("layer", 8, channels, size, size, channels, 3, 3, stride, 1, 1, channels)
        found = explain_conv2d(shapes.x_shape(layout), shapes.w_shape(layout), layout=layout, **shapes.options)
        assert set(found.chosen.values()) == {"depthwise"}
    first = case("lenet first 5x5 28")
    found = explain_conv2d(first.x_shape(layout), first.w_shape(layout), layout=layout, **first.options)
    assert found.chosen["forward"] in ("direct", "few_channels")


def test_steps_come_in_runs():
    """Of whole runs only, counted from where each segment begins."""
    step, panel = np.arange(10), np.arange(10) * 16
    assert apart_in_runs(step, panel, 6, 16, [(0, 10)]) == 1
    assert apart_in_runs(step * 6, panel, 6, 16, [(0, 10)]) == 6
    assert apart_in_runs(step * 5, panel, 6, 16, [(0, 10)]) == 0
    assert apart_in_runs(step, panel * 2, 6, 16, [(0, 10)]) == 0  # weights where they lie
    assert apart_in_runs(step[:3], panel[:3], 6, 16, [(0, 3)]) == apart_in_runs(step, panel, 6, 16, []) == 0
    jump = np.where(step < 5, step, step + 90)
    assert apart_in_runs(jump, panel, 6, 16, [(0, 10)]) == 0
    assert apart_in_runs(jump, panel, 6, 16, [(0, 5), (5, 5)]) == 1
    assert apart_in_runs(step, np.where(step < 5, panel, panel + 64), 6, 16, [(0, 10)]) == 0
