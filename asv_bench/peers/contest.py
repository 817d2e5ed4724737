"""One row of the comparison: the same pass of the same layer by every contender, checked and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from measure import Call, Effort, interleaved

# Largest difference between two libraries' results, relative to their root mean square. Sums of up to a million
# float32 products differ by 1e-5; "fast" may also be products of two bfloat16 parts, 2e-5 beside a sum's own error.
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}
LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Selection:
    """What to run of a layer."""

    passes: tuple[str, ...]
    dtype: str
    layouts: tuple[str, ...]
    algorithms: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """fastconv's configurations: layout and algorithm."""
        return tuple(f"{layout} {algorithm}" for algorithm in self.algorithms for layout in self.layouts)


@dataclass(frozen=True)
class Contender:
    """A call to time, and how to read its result as an array that all contenders agree on."""

    call: Call
    read: Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Contest:
    """One pass of one layer: our configurations by column, and the peers' by name. The first peer is the reference."""

    group: str
    layer: str
    direction: str
    dtype: str
    gflop: float  # 0 where time counts, not arithmetic
    ours: dict[str, Contender]
    peers: dict[str, Contender]
    nbytes: int = 0  # read and written, where that is what takes the time
    amplification: float = 1.0  # of rounding errors, by what follows one layer


# Makes the contests of one layer, one after another, so that only one layer's arrays are in memory.
Contests = Callable[[Selection], Iterator[Contest]]


@dataclass(frozen=True)
class Entry:
    """A named layer of a group."""

    group: str
    layer: str
    contests: Contests


@dataclass(frozen=True)
class Row:
    """What a contest gave: seconds per call."""

    group: str
    layer: str
    direction: str
    dtype: str
    gflop: float
    ours: dict[str, float]
    peers: dict[str, float]
    error: float  # largest disagreement with the reference, relative to its root mean square
    copy: float = 0.0  # of a plain copy that reads and writes as many bytes; 0 where it was not timed

    @property
    def best_peer(self) -> str:
        return min(self.peers, key=lambda name: self.peers[name])

    def ratio(self, column: str) -> float:
        """The best peer's time divided by ours: above 1, fastconv is faster."""
        return self.against(self.best_peer, column)

    def against(self, peer: str, column: str) -> float:
        """One peer's time divided by ours."""
        return self.peers[peer] / self.ours[column]

    def of_a_copy(self, column: str) -> float:
        """Our bandwidth as a share of a plain copy's."""
        return self.copy / self.ours[column]

    def to_json(self) -> dict[str, Any]:
        ratios = {column: round(self.ratio(column), 4) for column in self.ours}
        return {**asdict(self), "best peer": self.best_peer, "ratios": ratios}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Row:
        return Row(**{name: values[name] for name in Row.__dataclass_fields__ if name in values})


class WrongResultError(Exception):
    """Two libraries disagree by more than rounding."""


def play(contest: Contest, effort: Effort) -> Row:
    """Check all contenders against the reference, then time them.

    Raises
    ------
    WrongResultError : a result differs by more than TOLERANCE, amplified.
    """
    contenders = contest.ours | contest.peers
    reference, *_ = contest.peers.values()
    expected = reference.read(reference.call())
    tolerance, worst = TOLERANCE[contest.dtype] * contest.amplification, 0.0
    for name, contender in contenders.items():
        error = disagreement(contender.read(contender.call()), expected)
        if not error <= tolerance:
            raise WrongResultError(
                f"{contest.layer}, {contest.direction}, {contest.dtype}: {name} differs by {error:.1e} of the root "
                f"mean square, at most {tolerance:.0e} is rounding"
            )
        worst = max(worst, error)
    calls: dict[str, Call] = {name: contender.call for name, contender in contenders.items()}
    if contest.nbytes:
        calls["copy"] = plain_copy(contest.nbytes)
    seconds = interleaved(calls, effort)
    ours, peers = ({name: seconds[name] for name in side} for side in (contest.ours, contest.peers))
    return Row(
        contest.group, contest.layer, contest.direction, contest.dtype, contest.gflop, ours, peers, worst,
        seconds.get("copy", 0.0),
    )  # fmt: skip


def plain_copy(nbytes: int) -> Call:
    """NumPy's copy, on its one thread, that reads and writes `nbytes` together, between pages that are in memory."""
    source, target = np.ones(nbytes // 2, np.uint8), np.ones(nbytes // 2, np.uint8)
    return lambda: np.copyto(target, source)


def disagreement(values: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to the root mean square."""
    if values.shape != expected.shape:
        return float("inf")
    scale = np.sqrt(np.mean(np.square(expected, dtype=np.float64)))
    return float(np.abs(values - expected).max() / scale)


def channels_first(result: np.ndarray, layout: str) -> np.ndarray:
    """Images (N, C, H, W) of either layout, as views."""
    return result.transpose(0, 3, 1, 2) if layout == "NHWC" else result


def filters_first(result: np.ndarray, layout: str) -> np.ndarray:
    """Weights (F, C, KH, KW) of either layout, as views."""
    return result.transpose(3, 2, 0, 1) if layout == "NHWC" else result


def pick(passes: Sequence[str], selection: Selection) -> list[str]:
    """Those of a layer's passes that were asked for: dx and dw also stand for an undivided backward pass."""
    wanted = {*selection.passes, *(("backward",) if {"dx", "dw"} & {*selection.passes} else ())}
    return [name for name in passes if name in wanted]
