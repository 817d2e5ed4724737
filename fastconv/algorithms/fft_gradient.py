"""The gradient of w by Fourier transforms: spectra of tiles of x and of dout, their products summed over all tiles."""

from __future__ import annotations

from itertools import product

import numpy as np

from fastconv import runtime
from fastconv._kernels.fourier import Weights
from fastconv._kernels.fourier_gradient import Sums, fourier_gradient, fourier_spectra
from fastconv._kernels.fourier_products import spectral_tile
from fastconv.algorithms import costs
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.fft_tiles import CYCLES_PER_RUN, cut, where
from fastconv.algorithms.operands import Operand
from fastconv.problem import ConvProblem
from fastconv.workspace import Scratch

SPECTRA_BYTES = 32 * 2**20  # of tiles of x and dout held at a time; more tiles cost another way back from the sums
SUMS_BYTES, MOST_AT_ONCE = 2**20, 8  # spectra of one task's sums; channels and filters of one task
CACHED_BYTES = 192 * 1024  # operands of the products of one block of positions


class FourierGradientPass:
    """Two tiles, a + i b of x and d + i e of dout, make one product: (a + i b) conj(d + i e) = a d + b e + i (...)."""

    def __init__(self, problem: ConvProblem, threads: int):
        p, itemsize = problem, problem.dtype.itemsize
        self.problem, self.threads = problem, threads
        self.cut = cut(p, (p.OH, p.OW), gradient_w=True)
        t = self.cut.tiles
        self.x = Operand(p.channels_last, False, p.C, p.H, p.W, 0, 0, p.H, p.W)
        self.dout = Operand(p.channels_last, False, p.F, p.OH, p.OW, 0, 0, p.OH, p.OW)
        image_bytes = self.x.scratch_bytes(itemsize) + self.dout.scratch_bytes(itemsize)
        number, line, positions = 2 * t.lanes, 64 // itemsize, t.high * t.wide // t.lanes
        pair_bytes = (p.group_channels + p.group_filters) * positions * number * itemsize  # of one pair and group
        self.groups = max(min(SPECTRA_BYTES // pair_bytes, p.groups), 1)
        spectra_bytes = self.groups * pair_bytes
        self.images = costs.images_at_once(image_bytes, p.N) if image_bytes else p.N
        self.pairs = max(min(SPECTRA_BYTES // spectra_bytes, self.images * t.pairs), 1)
        # One cache line more keeps positions out of each other's way.
        self.step = self.pairs * number + line
        rows, cols = spectral_tile()
        sums_step = positions * number + line
        fitting = max(SUMS_BYTES // (sums_step * itemsize), 1)
        tasks = costs.TASKS_PER_THREAD * threads if threads > 1 else 1
        channels, filters = min(MOST_AT_ONCE, p.group_channels), min(MOST_AT_ONCE, p.group_filters)
        while channels * filters > fitting or (
            channels * filters > rows * cols
            and self.groups * ceil_div(p.group_channels, channels) * ceil_div(p.group_filters, filters) < tasks
        ):
            if channels >= filters:
                channels = ceil_div(channels, 2)
            else:
                filters = ceil_div(filters, 2)
        self.shape = min(rows, channels), min(cols, filters)
        self.geometry = Sums(
            group=0, groups=0, channels=p.group_channels, filters=p.group_filters, depth=0, step=self.step,
            sums_step=sums_step, most_channels=channels, most_filters=filters,
            positions=max(CACHED_BYTES // ((channels + filters) * self.step * itemsize), 1),
            tile_rows=self.shape[0], tile_cols=self.shape[1], add=0,
        )  # fmt: skip
        self.weights: Weights = where(p, gradient=False)
        self.a_rows = np.arange(t.high) * t.a_stride
        self.x_rows, self.dout_rows = np.arange(t.high) * p.W, np.arange(t.high) * p.OW
        self.slot_numbers = self.cut.scratch + channels * filters * sums_step
        self.spectra = positions * self.step
        self.workspace = (
            self.images * image_bytes
            + (self.groups * (p.group_channels + p.group_filters) * self.spectra + threads * self.slot_numbers)
            * itemsize
        )
        self.cycles = self._cycles(image_bytes)

    def _cycles(self, image_bytes: int) -> float:
        p, g, c, threads = self.problem, self.geometry, self.cut, self.threads
        pairs, chunks = p.N * c.tiles.pairs, ceil_div(p.N * c.tiles.pairs, self.pairs)
        tasks = self.groups * ceil_div(g.channels, g.most_channels) * ceil_div(g.filters, g.most_filters)
        of_sums = chunks * p.F * g.channels * c.stored
        of_sums += p.groups * c.products(g.channels, g.filters, pairs, self.shape)
        cycles = pairs * (p.C + p.F) * (c.loaded + c.scattered) + of_sums * costs.unevenness(tasks, threads)
        cycles += p.N * image_bytes * 2 * costs.CYCLES_PER_BYTE_MOVED
        return cycles + chunks * ceil_div(p.groups, self.groups) * threads * CYCLES_PER_RUN

    def run(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """See `base`."""
        p, t, dtype = self.problem, self.cut.tiles, self.problem.dtype
        slots = min(runtime.slots_for(p.multiply_adds), self.threads)
        calls, turns = self.cut.calls(dtype, self.shape), self.cut.turns(dtype)
        with Scratch() as scratch:
            tiles = scratch.take((self.groups * p.group_channels * self.spectra,), dtype)
            douts = scratch.take((self.groups * p.group_filters * self.spectra,), dtype)
            own = scratch.take((slots, self.slot_numbers), dtype)
            for first in range(0, p.N, self.images):
                images = slice(first, min(first + self.images, p.N))
                with Scratch() as chunk:
                    given = self.x.prepare(x[images], slots, chunk), self.dout.prepare(dout[images], slots, chunk)
                    total = (images.stop - first) * t.pairs
                    for pair, group in product(range(0, total, self.pairs), range(0, p.groups, self.groups)):
                        count, groups = min(self.pairs, total - pair), min(self.groups, p.groups - group)
                        runtime.run_tasks(
                            fourier_spectra, slots, calls, given[0], tiles, self.a_rows,
                            self.x_rows, *turns, own, pair, count, group * p.group_channels,
                            groups * p.group_channels, p.C, p.H, p.W, p.pads[0][0], p.pads[1][0], t.high, t.wide,
                            False, self.step, t,
                        )  # fmt: skip
                        runtime.run_tasks(
                            fourier_spectra, slots, calls, given[1], douts, self.a_rows,
                            self.dout_rows, *turns, own, pair, count, group * p.group_filters,
                            groups * p.group_filters, p.F, p.OH, p.OW, 0, 0, t.step_h, t.step_w, True, self.step, t,
                        )  # fmt: skip
                        add = int(first + pair > 0)
                        runtime.run_tasks(
                            fourier_gradient, slots, calls, tiles, douts, dw.reshape(-1),
                            *turns, own, dtype.type(1 / (t.high * t.wide)),
                            self.geometry._replace(group=group, groups=groups, depth=count, add=add), self.weights, t,
                        )  # fmt: skip
