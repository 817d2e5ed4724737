"""Convolution by Fourier transforms of overlapping tiles: what a result costs hardly grows with the kernel."""

from __future__ import annotations

import math
from functools import cached_property, partial

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import transpose_block
from fastconv._kernels.fourier import Calls, Fourier, fourier, fourier_weights
from fastconv._kernels.fourier_products import spectral_tile
from fastconv._kernels.prepare import planes_to_pixels
from fastconv.algorithms import costs
from fastconv.algorithms.base import Algorithm
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.fft_gradient import FourierGradientPass
from fastconv.algorithms.fft_tiles import CYCLES_PER_RUN, cut, declines, reach, where
from fastconv.algorithms.operands import Operand
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

WEIGHT_BYTES = 24 * 2**20  # spectra of weights held at a time, which every task reads: what the last cache holds
TILES_BYTES, SUMS_BYTES = 4 * 2**20, 2**20  # spectra of one task's tiles, and of its sums
MOST_PAIRS, MOST_SHARE = 8, 8  # of tiles, and of filters: beyond it, products wait for memory no less
CACHED_BYTES = 192 * 1024  # operands of the products of one block of positions


class FourierPass:
    """Forward, or the gradient of x, which is the same convolution of dout by the flipped kernel."""

    def __init__(self, problem: ConvProblem, threads: int, *, gradient: bool, relu: bool = False):
        p, itemsize = problem, problem.dtype.itemsize
        self.problem, self.threads = problem, threads
        (top, _), (left, _) = p.pads
        if gradient:
            channels, filters, sizes, made = p.group_filters, p.group_channels, (p.OH, p.OW), (p.H, p.W)
            top, left = reach(p)[0] - 1 - top, reach(p)[1] - 1 - left
        else:
            channels, filters, sizes, made = p.group_channels, p.group_filters, (p.H, p.W), (p.OH, p.OW)
        self.source = Operand(p.channels_last, False, channels * p.groups, *sizes, 0, 0, *sizes)
        self.made_shape = filters * p.groups, *made
        self.straight = not p.channels_last or filters * p.groups == 1
        made_bytes = 0 if self.straight else math.prod(self.made_shape) * itemsize
        image_bytes = self.source.scratch_bytes(itemsize) + made_bytes
        self.images = costs.images_at_once(image_bytes, p.N) if image_bytes else p.N

        self.cut = cut(p, made)
        t = self.cut.tiles
        number, line, positions = 2 * t.lanes, 64 // itemsize, t.high * t.wide // t.lanes
        # One cache line more keeps spectra out of each other's way: powers of two apart, they compete for few lines.
        step = channels * number + (line if channels > 1 else 0)
        spectra_bytes = positions * step * itemsize  # of one filter, or one pair
        held = max(min(WEIGHT_BYTES // spectra_bytes, filters * p.groups), 1)
        self.bands = self._bands(held, filters)
        self.held = max(groups * count for _, groups, _, count in self.bands)
        pairs = self.images * t.pairs * self.bands[0][1]
        tasks = costs.TASKS_PER_THREAD * threads if threads > 1 else 1
        # With a single filter nobody reads weights twice.
        most = 1 if filters == 1 else min(TILES_BYTES // spectra_bytes, MOST_PAIRS, pairs // tasks)
        block = max(most, 1)
        sums_step = positions * number + line
        share = max(min(SUMS_BYTES // (block * sums_step * itemsize), MOST_SHARE, filters), 1)
        rows, cols = spectral_tile()
        self.shape = min(rows, block), min(cols, share)
        self.geometry = Fourier(
            images=0, channels=channels, all_filters=filters, all_groups=p.groups, group=0, groups=0, filter=0,
            filters=0, height=sizes[0], width=sizes[1], top=top, left=left, out_height=made[0], out_width=made[1],
            block=block, share=share, positions=max(CACHED_BYTES // ((block + share) * step * itemsize), 1),
            tile_rows=self.shape[0], tile_cols=self.shape[1], tiles_step=step, tiles_pair=positions * step,
            sums_step=sums_step, w_step=step, w_filter=positions * step, relu=int(relu),
        )  # fmt: skip
        self.weights = where(p, gradient)
        self.a_rows, self.x_rows = np.arange(t.high) * t.a_stride, np.arange(t.high) * sizes[1]
        self.zero = np.zeros(1, p.dtype)
        self.slot_numbers = self.cut.scratch + block * (positions * step + share * sums_step)
        self.workspace = self.images * image_bytes + self.held * spectra_bytes + threads * self.slot_numbers * itemsize
        self.cycles = self._cycles(image_bytes)

    def _bands(self, held: int, filters: int) -> list[tuple[int, int, int, int]]:
        """(group, groups, filter, filters) whose weights are held at a time: whole groups, or a part of one."""
        groups = self.problem.groups
        if held >= filters:
            step = held // filters
            return [(g, min(step, groups - g), 0, filters) for g in range(0, groups, step)]
        return [(g, 1, f, min(held, filters - f)) for g in range(groups) for f in range(0, filters, held)]

    def _cycles(self, image_bytes: int) -> float:
        p, g, c, threads = self.problem, self.geometry, self.cut, self.threads
        pairs, results = p.N * c.tiles.pairs, p.groups * g.all_filters
        visits = sum(groups for _, groups, _, _ in self.bands)  # of a group: its tiles are transformed each time
        of_tiles = pairs * (visits * g.channels * c.loaded + results * c.stored)
        of_tiles += pairs / g.block * p.groups * c.products(g.block, g.all_filters, g.channels, self.shape)
        tasks = ceil_div(self.images * c.tiles.pairs, g.block) * self.bands[0][1]
        again = 1 if len(self.bands) == 1 else ceil_div(p.N, self.images)
        weights = c.all_weights(results * g.channels, p.dtype.itemsize)
        cycles = of_tiles * costs.unevenness(tasks, threads) + again * weights
        cycles += p.N * image_bytes * 2 * costs.CYCLES_PER_BYTE_MOVED
        return cycles + again * len(self.bands) * threads * CYCLES_PER_RUN

    @cached_property
    def _fixed(self) -> tuple[Calls, np.ndarray, np.ndarray]:
        """Callbacks and tables, compiled when first used."""
        return self.cut.calls(self.problem.dtype, self.shape), *self.cut.turns(self.problem.dtype)

    def _band(self, number: int) -> Fourier:
        group, groups, first, filters = self.bands[number]
        return self.geometry._replace(group=group, groups=groups, filter=first, filters=filters)

    def prepare(self, w: np.ndarray) -> np.ndarray | None:
        """conj F(w) of every filter and channel, unless they are too many to be held."""
        if len(self.bands) > 1:
            return None
        spectra = np.empty(self.held * self.geometry.w_filter, w.dtype)
        self._transform(w, spectra, self._band(0))
        return spectra

    def _transform(self, w: np.ndarray, spectra: np.ndarray, g: Fourier) -> None:
        t, dtype = self.cut.tiles, self.problem.dtype
        calls, *turns = self._fixed
        slots = min(runtime.slots_for(g.groups * g.filters * g.channels * t.high * t.wide * 16), self.threads)
        with Scratch() as scratch:
            runtime.run_on(
                fourier_weights, slots, calls, w.reshape(-1), spectra,
                scratch.take((slots, self.cut.scratch), dtype), *turns,
                dtype.type(1 / (t.high * t.wide)), g, self.weights, t,
            )  # fmt: skip

    def run(
        self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray, prepared: np.ndarray | None = None
    ) -> None:
        """See `base`; `prepared` is what `prepare` gave."""
        p, transformed = self.problem, prepared is not None
        with Scratch() as scratch:
            spectra = prepared
            if spectra is None:
                spectra = scratch.take((self.held * self.geometry.w_filter,), p.dtype)
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                count, slots = images.stop - first, min(runtime.slots_for(p.multiply_adds), self.threads)
                with Scratch() as chunk:
                    x = self.source.prepare(operand[images], slots, chunk)
                    made = out[images] if self.straight else chunk.take((count, *self.made_shape), p.dtype)
                    for number in range(len(self.bands)):
                        g = self._band(number)._replace(images=count)
                        if not transformed:
                            self._transform(w, spectra, g)
                            transformed = len(self.bands) == 1
                        self._multiply(x, spectra, bias, made.reshape(-1), slots, g)
                    if not self.straight:
                        transpose = transpose_block(p.dtype.itemsize).address
                        runtime.run_on(planes_to_pixels, slots, transpose, made, out[images], 0, 0)

    def _multiply(
        self, x: np.ndarray, spectra: np.ndarray, bias: np.ndarray, made: np.ndarray, slots: int, g: Fourier
    ) -> None:
        calls, *turns = self._fixed
        with Scratch() as scratch:
            own = scratch.take((slots, self.slot_numbers), self.problem.dtype)
            runtime.run_tasks(
                fourier, slots, calls, x, spectra, bias, self.zero,
                made, self.a_rows, self.x_rows, *turns, own, g, self.cut.tiles,
            )  # fmt: skip


ALGORITHM = Algorithm(
    "fft",
    "Fourier transforms of overlapping tiles: for large kernels",
    lambda problem, threads, relu: FourierPass(problem, threads, gradient=False, relu=relu),
    partial(FourierPass, gradient=True),
    FourierGradientPass,
    declines,
    exact=False,  # errors are relative to a whole tile, and NaN spreads over it
)
