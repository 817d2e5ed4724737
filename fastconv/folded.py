"""Passes of 3-D convolutions: depth folded into channels, some output planes at a time, for the 2-D passes.

Forward: the planes that an output plane sees are copied side by side, convolved, and with channels first the result
is copied to its place (with channels last it is computed there). Gradient of x: the 2-D gradient, whose planes are
added to those they were copied from. Gradient of w: the 2-D gradient, summed over the pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv import pieces, plan, runtime
from fastconv._kernels.depth import fold_depth, unfold_depth
from fastconv._kernels.elementwise import relu as relu_kernel
from fastconv.problem import ConvProblem
from fastconv.volume import Problem, VolumeProblem
from fastconv.workspace import Scratch

# Copies of one piece: written and read again while they are in the last-level cache.
PIECE_BYTES = 4 * 2**20
_NO_BIAS = {np.dtype(t): np.empty(0, t) for t in (np.float32, np.float64)}


class Planes(NamedTuple):
    """How the planes of an array of volumes are folded: see `fastconv._kernels.depth`."""

    starts: np.ndarray  # (images, taps)
    rows: int
    row_step: int
    run: int

    def fold(self, volumes: np.ndarray, folded: np.ndarray, images: slice, taps: slice) -> None:
        starts = np.ascontiguousarray(self.starts[images, taps])
        runtime.launch(
            fold_depth, folded.size * 8, volumes.reshape(-1), folded.reshape(-1), starts.reshape(-1), starts.shape[1],
            self.rows, self.row_step, self.run,
        )  # fmt: skip

    def unfold(self, folded: np.ndarray, volumes: np.ndarray, images: slice, taps: slice, *, add: bool) -> None:
        starts = np.ascontiguousarray(self.starts[images, taps])
        runtime.launch(
            unfold_depth, folded.size * 8, folded.reshape(-1), volumes.reshape(-1), starts.reshape(-1),
            starts.shape[1], self.rows, self.row_step, self.run, int(add),
        )  # fmt: skip


def _planes(p: VolumeProblem, channels: int, depth: int, pixels: int, places: np.ndarray, together: bool) -> Planes:
    """Folding of volumes with so many planes; `places` (OD, taps) are the planes that each image is made of, or -1.

    `together`: several taps make one image; otherwise an image is a plane of the volume.
    """
    plane = pixels * channels if p.channels_last else pixels
    starts = np.arange(p.N)[:, None, None] * (channels * depth * pixels) + places * plane
    starts = np.where(places < 0, -1, starts).reshape(-1, places.shape[1])
    if p.channels_last:
        run = channels // p.groups if together else channels
        return Planes(starts, plane // max(run, 1), run, run)
    return Planes(starts, channels, depth * pixels, pixels)


class FoldedPass:
    """What the passes share: sizes of pieces, 2-D plans, tables.

    Depth taps are convolved together, except where a channel is a group of its own: then one after the other, so that
    the 2-D convolutions are depthwise, and their results are added up.
    """

    def __init__(self, problem: VolumeProblem, direction: str, algorithm: str, relu: bool, bound: int):
        self.problem, p, depth, plane = problem, problem, problem.depth, problem.plane
        first = np.arange(depth.count)[:, None] * depth.stride - depth.pads[0]
        seen = first + np.arange(depth.taps) * depth.dilation
        seen = np.where(seen < depth.size, seen, -1)
        together = 1 if p.C == p.groups else depth.taps
        self.x_planes = _planes(p, p.C, depth.size, plane.H * plane.W, seen, together > 1)
        own = np.arange(depth.count)[:, None]
        self.out_planes = _planes(p, p.F, depth.count, plane.OH * plane.OW, own, False)
        self.taps = [slice(k, k + together) for k in range(0, depth.taps, together)]
        self.relu_after = relu and len(self.taps) > 1

        item = p.dtype.itemsize
        per_image = (plane.H * plane.W * p.C * together + plane.OH * plane.OW * p.F) * item
        weights = 2 * math.prod(p.w_shape) * item
        most = max(min(PIECE_BYTES, (bound - weights) // 2) // per_image, 1)
        count = -(-p.images // most)
        self.images = -(-p.images // count)
        self.workspace = self.images * per_image + weights

        def planned(images: int) -> Any:
            part = p.of_images(images, together)
            relu_inside = relu and not self.relu_after
            return plan.plan(part, direction, algorithm, relu=relu_inside, max_workspace=max(bound - self.workspace, 0))

        rest = p.images % self.images
        self.whole, self.rest = planned(self.images), planned(rest) if rest else None
        self.part: ConvProblem = p.of_images(self.images, together)
        self.workspace += max(work.workspace for work in (self.whole, self.rest) if work is not None)

    def _pieces(self) -> Iterator[tuple[slice, Any, int]]:
        """(images, their 2-D pass, how many)."""
        for first in range(0, self.problem.images, self.images):
            count = min(self.images, self.problem.images - first)
            yield slice(first, first + count), self.whole if count == self.images else self.rest, count

    def _plane_shape(self, images: int, channels: int, height: int, width: int) -> tuple[int, ...]:
        return (images, height, width, channels) if self.problem.channels_last else (images, channels, height, width)

    def _x_folded(self, images: int, scratch: Scratch) -> np.ndarray:
        p = self.part
        return scratch.take(self._plane_shape(images, p.C, p.H, p.W), p.dtype)

    def _results(self, out: np.ndarray, images: slice, scratch: Scratch) -> np.ndarray:
        """Where a piece's output planes are computed."""
        p = self.part
        if p.channels_last:
            return out.reshape(-1, p.OH, p.OW, p.F)[images]
        return scratch.take(self._plane_shape(images.stop - images.start, p.F, p.OH, p.OW), p.dtype)

    def _output_planes(self, dout: np.ndarray, images: slice, scratch: Scratch) -> np.ndarray:
        """A piece of dout as images."""
        planes = self._results(dout, images, scratch)
        if not self.problem.channels_last:
            self.out_planes.fold(dout, planes, images, slice(0, 1))
        return planes

    def _filters(self, w: np.ndarray) -> list[np.ndarray]:
        """The weights of each step as those of its 2-D convolution."""
        shape = self.part.w_shape
        if self.problem.channels_last:
            return [np.ascontiguousarray(w[taps].transpose(1, 2, 0, 3, 4)).reshape(shape) for taps in self.taps]
        return [np.ascontiguousarray(w[:, :, taps]).reshape(shape) for taps in self.taps]

    def _prepared(self, filters: list[np.ndarray]) -> dict[Any, list[tuple[Any, ...]]]:
        """For each 2-D pass, what it makes of the filters beforehand, if there are several pieces."""
        if self.images == self.problem.images:
            return {self.whole: [()] * len(filters)}
        result = {}
        for work in (self.whole, self.rest):
            if work is not None:
                made = [pieces.prepare(work, w) for w in filters]
                result[work] = [() if weights is None else (weights,) for weights in made]
        return result


class FoldedForward(FoldedPass):
    """`run(x, w, bias, out)` with arrays of the volumes."""

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        filters = self._filters(w)
        prepared = self._prepared(filters)
        for images, work, count in self._pieces():
            with Scratch() as scratch:
                folded, results = self._x_folded(count, scratch), self._results(out, images, scratch)
                part = scratch.take(results.shape, results.dtype) if len(self.taps) > 1 else results
                for step, taps in enumerate(self.taps):
                    self.x_planes.fold(x, folded, images, taps)
                    target, offset = (part, _NO_BIAS[x.dtype]) if step else (results, bias)
                    work.run(folded, filters[step], offset, target, *prepared[work][step])
                    if step:
                        results += part
                if self.relu_after:
                    runtime.launch(relu_kernel, results.size * 8, results.reshape(-1), results.reshape(-1))
                if not self.problem.channels_last:
                    self.out_planes.unfold(results, out, images, slice(0, 1), add=False)


class FoldedGradientX(FoldedPass):
    """`run(dout, w, bias, dx)` with arrays of the volumes."""

    def run(self, dout: np.ndarray, w: np.ndarray, bias: np.ndarray, dx: np.ndarray) -> None:
        filters = self._filters(w)
        prepared = self._prepared(filters)
        dx[...] = 0
        for images, work, count in self._pieces():
            with Scratch() as scratch:
                planes, folded = self._output_planes(dout, images, scratch), self._x_folded(count, scratch)
                for step, taps in enumerate(self.taps):
                    work.run(planes, filters[step], bias, folded, *prepared[work][step])
                    self.x_planes.unfold(folded, dx, images, taps, add=True)


class FoldedGradientW(FoldedPass):
    """`run(x, dout, dw)` with arrays of the volumes."""

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        p = self.part
        with Scratch() as scratch:
            sums = scratch.take((len(self.taps), *p.w_shape), p.dtype)
            part = scratch.take(p.w_shape, p.dtype)
            for images, work, count in self._pieces():
                with Scratch() as own:
                    planes, folded = self._output_planes(dout, images, own), self._x_folded(count, own)
                    for step, taps in enumerate(self.taps):
                        self.x_planes.fold(x, folded, images, taps)
                        target = sums[step] if images.start == 0 else part
                        work.run(folded, planes, target)
                        if target is part:
                            sums[step] += part
            for taps, total in zip(self.taps, sums, strict=True):
                if p.channels_last:
                    dw[taps] = total.reshape(p.KH, p.KW, -1, *dw.shape[3:]).transpose(2, 0, 1, 3, 4)
                else:
                    dw[:, :, taps] = total.reshape(dw[:, :, taps].shape)


_PASSES = {"forward": FoldedForward, "gradient_x": FoldedGradientX, "gradient_w": FoldedGradientW}


@lru_cache(maxsize=plan.PLANS_KEPT)
def _folded(
    problem: VolumeProblem, direction: str, algorithm: str, relu: bool, threads: int, max_workspace: int
) -> FoldedPass:
    return _PASSES[direction](problem, direction, algorithm, relu, max_workspace)


def plan_of(problem: Problem, direction: str, algorithm: str, *, relu: bool = False) -> Any:
    """The pass that runs `direction` of a 2-D or 3-D problem; see `plan.plan`."""
    if isinstance(problem, ConvProblem):
        return plan.plan(problem, direction, algorithm, relu=relu)
    threads, bound = runtime.get_num_threads(), runtime.get_max_workspace()
    return _folded(problem, direction, algorithm, relu, threads, bound)
