"""From problem to plan: which algorithm runs each pass, chosen by predicted cycles and kept for the next call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from fastconv import autotune, runtime
from fastconv.algorithms import ALGORITHMS, PASSES, Algorithm
from fastconv.pieces import ImagesInPieces, SumInPieces
from fastconv.problem import ConvProblem

CLASSES = ("auto", "fast")  # direct-class accuracy only; also algorithms with larger rounding errors
PLANS_KEPT = 512  # a plan holds offset tables of some ten to hundred kilobytes


def conv2d_algorithms() -> list[str]:
    """Names that `algorithm=` takes besides "auto" and "fast".

    >>> conv2d_algorithms()[:5]
    ['direct', 'im2col', 'few_channels', 'depthwise', 'grouped']
    """
    return [algorithm.name for algorithm in ALGORITHMS]


def check_algorithm(function: str, name: Any) -> str:
    """An algorithm's name or class, or the error that lists them."""
    if not isinstance(name, str):
        raise TypeError(f"{function}: algorithm must be a string, got {name!r}")
    known = [*CLASSES, *conv2d_algorithms()]
    if name not in known:
        raise ValueError(f"{function}: algorithm must be one of {', '.join(map(repr, known))}, got {name!r}")
    return name


@dataclass(frozen=True)
class Candidate:
    """One algorithm's offer for one pass: the pass and its prediction, or why it declines."""

    algorithm: Algorithm
    work: Any = None
    declined: str | None = None


def _offer(algorithm: Algorithm, problem: ConvProblem, direction: str, threads: int, relu: bool) -> Candidate:
    declined = algorithm.declines(problem, direction)
    if declined:
        return Candidate(algorithm, declined=declined)
    if direction == "forward":
        return Candidate(algorithm, algorithm.forward(problem, threads, relu))
    return Candidate(algorithm, getattr(algorithm, direction)(problem, threads))


def candidates(
    problem: ConvProblem, direction: str, threads: int, relu: bool = False, accuracy: str = "fast"
) -> list[Candidate]:
    """The offer of every algorithm that an accuracy class admits, in registry order; "fast" admits all."""
    admitted = (algorithm for algorithm in ALGORITHMS if accuracy == "fast" or algorithm.exact)
    return [_offer(algorithm, problem, direction, threads, relu) for algorithm in admitted]


def choose(offers: Sequence[Candidate], accuracy: str, bound: float = math.inf) -> Candidate:
    """The offer predicted fastest among those whose accuracy is admitted; ties go to the earlier one.

    Offers that need more than `bound` bytes of scratch are taken only if all do, and then those that need up to twice
    as much as the least: for 65,536 filters "winograd2x2" wanted 1.2 GB, where "direct" packs weights of 72 MB.
    """
    admitted = _admitted(offers, accuracy, bound)
    if not admitted:
        least = min(offer.work.workspace for offer in _admitted(offers, accuracy, math.inf))
        admitted = _admitted(offers, accuracy, 2 * least)
    return min(admitted, key=lambda offer: offer.work.cycles - getattr(offer.work, "spared", 0))


def _admitted(offers: Sequence[Candidate], accuracy: str, bound: float) -> list[Candidate]:
    """The offers of an accuracy class that need at most `bound` bytes of scratch."""
    admitted = [o for o in offers if not o.declined and (accuracy == "fast" or o.algorithm.exact)]
    return [o for o in admitted if bound == math.inf or o.work.workspace <= bound]


def _chosen(
    problem: ConvProblem, direction: str, algorithm: str, threads: int, relu: bool, bound: float = math.inf
) -> Candidate:
    accuracy = algorithm
    if algorithm not in CLASSES:
        named = next(offered for offered in ALGORITHMS if offered.name == algorithm)
        offer = _offer(named, problem, direction, threads, relu)
        if not offer.declined:
            return offer
        if direction == "forward":
            raise ValueError(f"conv2d: algorithm {algorithm!r} cannot run this problem: {offer.declined} ({problem})")
        accuracy = "auto"  # a named algorithm serves the passes it supports
    return choose(candidates(problem, direction, threads, relu, accuracy), accuracy, bound)


def _within(bound: int, problem: ConvProblem, direction: str, algorithm: str, threads: int, relu: bool) -> Candidate:
    """As many images at a time as keep the workspace within `bound`; the whole batch if not even one image does.

    What one image needs is weights brought into another form: another algorithm may need less.
    """
    how = direction, algorithm, threads, relu
    summed = direction == "gradient_w"
    dw_bytes = math.prod(problem.w_shape) * problem.dtype.itemsize if summed else 0
    images = problem.N
    while images > 1:
        images = -(-images // 2)
        part = _chosen(replace(problem, N=images), *how, bound - dw_bytes)
        if part.work.workspace + dw_bytes <= bound:
            left = problem.N % images
            rest = _chosen(replace(problem, N=left), *how, bound - dw_bytes).work if left else None
            sizes = problem.N, images, part.work, rest
            return replace(part, work=SumInPieces(*sizes, dw_bytes) if summed else ImagesInPieces(*sizes))
    return _chosen(problem, *how, bound)


@lru_cache(maxsize=PLANS_KEPT)
def _cached(
    problem: ConvProblem, direction: str, algorithm: str, threads: int, relu: bool, max_workspace: int
) -> Candidate:
    best = _chosen(problem, direction, algorithm, threads, relu)
    if best.work.workspace <= max_workspace:
        return best
    return _within(max_workspace, problem, direction, algorithm, threads, relu)


def plan(
    problem: ConvProblem, direction: str, algorithm: str, *, relu: bool = False, max_workspace: int | None = None
) -> Any:
    """The pass that runs `direction` of a problem on the current number of threads.

    Parameters
    ----------
    max_workspace : bytes of scratch memory it may use (default: the setting of `fastconv.runtime`). A pass that would
        use more runs on some images of the batch at a time.

    Raises
    ------
    ValueError : a named algorithm does not support the forward pass of this problem.
    """
    bound = runtime.get_max_workspace() if max_workspace is None else max_workspace
    threads = runtime.get_num_threads()
    if runtime.autotune_wanted and algorithm in CLASSES and runtime.get_autotune():
        algorithm = _fastest(problem, direction, algorithm, threads, bound)
    return _cached(problem, direction, algorithm, threads, relu, bound).work


def _measured_as(problem: ConvProblem, direction: str, accuracy: str, bound: int) -> str:
    """Under which name a measured choice is kept."""
    return f"{problem}; {direction}, {accuracy}, within {bound} bytes"


@lru_cache(maxsize=PLANS_KEPT)
def _fastest(problem: ConvProblem, direction: str, accuracy: str, threads: int, bound: int) -> str:
    """The algorithm that is, or was once, measured to be the fastest; the class itself if none fits `bound`."""
    part = autotune.part_of(problem)
    offers = [(o.algorithm.name, o.work) for o in _admitted(candidates(part, direction, threads), accuracy, bound)]
    if not offers:
        return accuracy
    return autotune.fastest(_measured_as(problem, direction, accuracy, bound), threads, part, direction, offers)


def forget_measured() -> int:
    """Forget what was measured, in memory and on disk; returns how many files were deleted."""
    _fastest.cache_clear()
    return autotune.clear()


@dataclass(frozen=True)
class Explanation:
    """What `explain_conv2d` found; print it, or read its fields.

    Attributes
    ----------
    problem : the normalised sizes.
    flops : floating-point operations of one pass.
    chosen : pass name -> algorithm name.
    predictions : pass name -> {algorithm name: predicted milliseconds, or the reason for declining}.
    workspace : pass name -> bytes of scratch of the chosen algorithm.
    measured : pass name -> {algorithm name: milliseconds}, for passes whose choice `runtime.set_autotune` measured.
    """

    problem: ConvProblem
    flops: int
    chosen: dict[str, str]
    predictions: dict[str, dict[str, float | str]]
    workspace: dict[str, int]
    measured: dict[str, dict[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [str(self.problem), f"{self.flops / 1e6:.1f} MFLOP each pass"]
        for direction, chosen in self.chosen.items():
            offers = [
                f"{name} {value:.3f} ms predicted" if isinstance(value, float) else f"{name} declines: {value}"
                for name, value in self.predictions[direction].items()
            ]
            times = ", ".join(f"{name} {value:.3f} ms" for name, value in self.measured.get(direction, {}).items())
            how = f", by measuring {times}" if times else ""
            bytes_of = f"workspace {self.workspace[direction]:,} bytes"
            lines.append(f"{direction}: {chosen}{how}, {bytes_of} ({'; '.join(offers)})")
        return "\n".join(lines)


# Predictions are counted in cycles of this clock; only their ratios decide anything.
NOMINAL_GHZ = 4.0


def explain(problem: ConvProblem, algorithm: str, max_workspace: int | None = None) -> Explanation:
    """Which algorithm would run each pass of a problem, and what the others predict."""
    bound = runtime.get_max_workspace() if max_workspace is None else max_workspace
    if problem.empty:
        return Explanation(problem, 0, dict.fromkeys(PASSES, "none"), {d: {} for d in PASSES}, dict.fromkeys(PASSES, 0))
    threads = runtime.get_num_threads()
    chosen, predictions, workspace, measured = {}, {}, {}, {}
    for direction in PASSES:
        named, offers = algorithm, candidates(problem, direction, threads)
        if runtime.get_autotune() and algorithm in CLASSES:
            found = autotune.remembered(_measured_as(problem, direction, algorithm, bound), threads)
            if found is not None and found["algorithm"] in {o.algorithm.name for o in offers if not o.declined}:
                named, measured[direction] = found["algorithm"], found["milliseconds"]
        best = _cached(problem, direction, named, threads, False, bound)
        chosen[direction] = best.algorithm.name
        workspace[direction] = int(best.work.workspace)
        predictions[direction] = {
            offer.algorithm.name: offer.declined or float(offer.work.cycles) / threads / NOMINAL_GHZ / 1e6
            for offer in offers
        }
    return Explanation(problem, 2 * problem.multiply_adds, chosen, predictions, workspace, measured)
