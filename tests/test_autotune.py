"""Choices by measurement: what is measured, what is remembered, and that nothing on disk can break a call."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import children
import pytest
from conv_cases import normal
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import autotune, conv2d, explain_conv2d, plan, runtime
from fastconv._kernels import jit
from fastconv.algorithms import ALGORITHMS

SHAPES = (2, 3, 10, 12), (4, 3, 3, 3)
PROBLEM = explain_conv2d(*SHAPES, padding=1).problem


def forget():
    plan._fastest.cache_clear()
    autotune._choices.clear()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Choices are kept here, and none is known."""
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "choices"))
    forget()
    yield tmp_path / "choices"
    forget()


@pytest.fixture
def measured(monkeypatch):
    """The measurements made, (problem, pass, names of the algorithms); im2col always wins them."""
    made = []

    def measure(problem, direction, offers):
        names = [name for name, _ in offers]
        made.append((problem, direction, names))
        return {name: 1.0 if name == "im2col" else 2.0 for name in names}

    monkeypatch.setattr(autotune, "_measure", measure)
    return made


def run(problem=PROBLEM, direction="forward", accuracy="auto", **options):
    return plan.plan(problem, direction, accuracy, **options)


def stored(folder):
    (path,) = folder.glob("autotune-*.json")
    return json.loads(path.read_text())["choices"]


def test_off_at_first(measured, folder):
    assert not runtime.get_autotune()
    run()
    assert not measured and not folder.exists()
    assert explain_conv2d(*SHAPES, padding=1).measured == {}


def test_the_fastest_is_measured_and_chosen(folder):
    x, w = normal(1, SHAPES[0]), normal(2, SHAPES[1])
    with runtime.autotune():
        assert_close(conv2d(x, w, padding=1), oracle.conv2d(x, w, padding=1), 27)
        found = explain_conv2d(*SHAPES, padding=1)
    times = found.measured["forward"]
    assert set(found.measured) == {"forward"} and len(times) > 1
    assert found.chosen["forward"] == min(times, key=times.get) and min(times.values()) > 0
    assert f"forward: {found.chosen['forward']}, by measuring " in str(found) and "gradient_x: " in str(found)
    (choice,) = stored(folder).values()
    assert choice == {"algorithm": found.chosen["forward"], "milliseconds": times}


def test_once_for_each_problem_pass_and_class(measured):
    with runtime.autotune():
        for _ in range(3):
            assert run() is run(accuracy="im2col")
            run(direction="gradient_x"), run(accuracy="fast"), run(replace(PROBLEM, N=3)), run(max_workspace=2**20)
    assert len(measured) == 5
    exact = {algorithm.name for algorithm in ALGORITHMS if algorithm.exact}
    (_, _, auto), (_, _, fast) = measured[0], measured[2]
    assert set(auto) <= exact and "winograd4x4" in fast
    run(replace(PROBLEM, N=9))  # off again
    assert len(measured) == 5


def test_named_algorithms_are_not_measured(measured):
    with runtime.autotune():
        run(accuracy="direct")
    assert not measured


def test_another_process_reads_what_was_found(measured):
    with runtime.autotune():
        run()
        forget()
        assert run() is run(accuracy="im2col")
        assert explain_conv2d(*SHAPES, padding=1).chosen["forward"] == "im2col"
    assert len(measured) == 1


def test_threads_and_machines_have_their_own_files(monkeypatch):
    files = {autotune.file(1), autotune.file(2)}
    monkeypatch.setattr(autotune, "_machine", lambda: "another one")
    assert len(files | {autotune.file(1)}) == 3


def test_choices_of_other_processes_are_kept(measured, folder):
    with runtime.autotune():
        run()
        theirs = {"algorithm": "direct", "milliseconds": {"direct": 1.0}}
        path = autotune.file(runtime.get_num_threads())
        path.write_text(json.dumps({"choices": {**stored(folder), "theirs": theirs}}))
        run(replace(PROBLEM, N=3))
    choices = stored(folder)
    assert len(choices) == 3 and choices["theirs"] == theirs
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\x00", b"[]", b'{"choices": 3}', b'{"choices": {"k": {"algorithm": "direct"}}}', b"[" * 10**5],
)
def test_damaged_files_are_ignored_and_replaced(content, measured, folder):
    folder.mkdir()
    autotune.file(runtime.get_num_threads()).write_bytes(content)
    with runtime.autotune():
        assert explain_conv2d(*SHAPES, padding=1).measured == {}
        run()
    assert len(measured) == 1 and len(stored(folder)) == 1


def test_a_name_that_does_not_exist_is_measured_again(measured, folder):
    with runtime.autotune():
        run()
        path = autotune.file(runtime.get_num_threads())
        path.write_text(path.read_text().replace('"algorithm": "im2col"', '"algorithm": "perfect"'))
        forget()
        assert "perfect" not in explain_conv2d(*SHAPES, padding=1).chosen.values()
        run()
    assert len(measured) == 2 and {choice["algorithm"] for choice in stored(folder).values()} == {"im2col"}


def test_a_folder_that_cannot_be_written(measured, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "file" / "below"))
    with runtime.autotune():
        assert run() is run(accuracy="im2col")
    assert len(measured) == 1


def test_the_file_stays_small(measured, folder, monkeypatch):
    monkeypatch.setattr(autotune, "MOST_CHOICES", 3)
    with runtime.autotune():
        for n in range(1, 6):
            run(replace(PROBLEM, N=n))
    assert [key[:2] for key in stored(folder)] == ["3x", "4x", "5x"]


def test_large_batches_are_measured_in_part(measured, monkeypatch):
    monkeypatch.setattr(autotune, "OPERAND_BYTES", 10_000)
    with runtime.autotune():
        run(replace(PROBLEM, N=1000))
    ((problem, _, _),) = measured
    assert problem == replace(PROBLEM, N=2)  # an image and its result have 3360 bytes


def test_only_what_fits_the_workspace_is_measured(measured):
    with runtime.autotune():
        run(max_workspace=0)
    needs = {o.algorithm.name: o for o in plan.candidates(PROBLEM, "forward", runtime.get_num_threads())}
    assert all(needs[name].work.workspace == 0 for _, _, names in measured for name in names)


def test_python_threads_measure_once(measured):
    barrier, works = threading.Barrier(4), []

    def call():
        with runtime.autotune():
            barrier.wait()
            works.append(run())

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(measured) == 1 and all(work is works[0] for work in works) and len(works) == 4


def test_clear_cache_forgets(measured, folder, monkeypatch):
    monkeypatch.setattr(jit, "clear_cache", lambda: 0)  # not the kernels of the other tests
    with runtime.autotune():
        run()
        assert runtime.clear_cache() == 1 and not list(folder.glob("*.json"))
        assert explain_conv2d(*SHAPES, padding=1).measured == {}
        run()
    assert len(measured) == 2


def test_settings():
    runtime.set_autotune(True)
    try:
        with runtime.autotune(False):
            assert not runtime.get_autotune()
            with runtime.autotune():
                assert runtime.get_autotune()
        assert runtime.get_autotune()
    finally:
        runtime.set_autotune(False)
    for wrong in (1, None, "on"):
        with pytest.raises(TypeError, match="autotune must be True or False, got"):
            runtime.set_autotune(wrong)
    code = "from fastconv import runtime; print(runtime.get_autotune())"
    for value, expected in (("1", "True"), ("0", "False")):
        assert children.output_of("-c", code, FASTCONV_AUTOTUNE=value) == f"{expected}\n"


def test_slow_algorithms_are_not_called_again(monkeypatch):
    """One call to compile, one to see how long it takes."""
    calls = {"a": 0, "b": 0, "never": 0}

    class Work:
        def __init__(self, name, cycles):
            self.name, self.cycles = name, cycles

        def run(self, *arguments):
            calls[self.name] += 1

    seconds = {"a": 0.001, "b": 0.1}

    def timed(call):
        call()
        return seconds[call.func.__self__.name]

    monkeypatch.setattr(autotune, "_seconds", timed)
    offers = [("a", Work("a", 1e5)), ("b", Work("b", 2e5)), ("never", Work("never", 1e7))]
    assert autotune._measure(PROBLEM, "forward", offers) == {"a": 1.0, "b": 100.0}
    assert calls["b"] == 2 and calls["never"] == 0 and calls["a"] > autotune.CALLS
