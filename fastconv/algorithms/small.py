"""Passes of small problems: one compiled call, all of its tables in one array made once per problem.

A problem is small when its tables are short and it takes some microseconds. Besides small convolutions these are the
matrix products of a small network's last layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block, transpose_block
from fastconv._kernels.isa import best_tile
from fastconv._kernels.register_tile import LANE_BIAS, RELU, ROW_BIAS, register_tile
from fastconv._kernels.small import Small, small
from fastconv.algorithms import costs
from fastconv.algorithms.axes import ForwardAxis, GradientAxis
from fastconv.algorithms.costs import ceil_div
from fastconv.algorithms.tables import offsets
from fastconv.problem import ConvProblem

_MOST_ENTRIES = 4096  # of all tables: 32 KB, so that the kept plans of small problems stay below some 20 MB
_MOST_WORK = 8  # times the work below which the thread pool is left alone: 3 million multiply-adds take 27 us
_MOST_DEPTH = 512  # pixels in one sum of the gradient of w: longer ones need blocks to be accurate
_CYCLES_PER_GATHERED = 3.0  # one number of the input brought to its padded place
# This call, and what others take in Python around their launches (0.5 and 15 us measured).
_CYCLES = 2_000
_CYCLES_OF_OTHERS = 60_000
_CYCLES_TO_SHARE = 36_000  # waking the pool, and what its threads take from each other: 5 to 14 us measured
_NOTHING = np.empty(0, np.int64)
_NO_BIAS = {np.dtype(t): np.empty(0, t) for t in (np.float32, np.float64)}

Tables = tuple[list[np.ndarray], dict[str, Any]]  # in the order of the kernel's plan; fields of its header


def faster(pass_: Any, problem: ConvProblem, direction: str, threads: int, relu: bool = False) -> Any:
    """The small pass where there is one that is predicted to beat `pass_`, else `pass_`."""
    if SmallPass.declines(problem, direction):
        return pass_
    found = SmallPass(problem, direction, threads, relu)
    return found if found.cycles - found.spared <= pass_.cycles else pass_


class SmallPass:
    """One pass of a small problem."""

    @staticmethod
    def declines(problem: ConvProblem, direction: str) -> bool:
        p = problem
        if p.groups > 1 or p.multiply_adds >= _MOST_WORK * runtime.SERIAL_BELOW:
            return True
        plain = p.no_padding and (p.channels_last or p.stride == (1, 1))
        padded = 0 if plain else p.padded[0] * p.padded[1] * p.C
        pixels, depth = p.N * p.OH * p.OW, p.C * p.taps
        if direction == "gradient_x":
            if p.stride != (1, 1):
                return True
            reach = [n + gap * (k - 1) for n, k, gap in zip((p.H, p.W), (p.KH, p.KW), p.dilation, strict=True)]
            if p.channels_last:
                copied = 0 if p.no_padding and p.taps == 1 else p.N * p.F * reach[0] * reach[1]
                return copied + 2 * (p.N * p.H * p.W + p.F * p.taps) > _MOST_ENTRIES
            return p.F * reach[0] * reach[1] + 2 * (p.C * (1 + p.H) + p.F * p.taps) > _MOST_ENTRIES
        if direction == "gradient_w":
            copied = p.N * padded if p.channels_last else pixels * depth
            return pixels > _MOST_DEPTH or copied + 2 * (pixels + depth + p.F) > _MOST_ENTRIES
        rows, images = (pixels, p.N) if p.channels_last else (p.F * (1 + p.OH), 1)
        return images * padded + 2 * (rows + depth) > _MOST_ENTRIES

    def __init__(self, problem: ConvProblem, direction: str, threads: int, relu: bool = False):
        self.problem, itemsize = problem, problem.dtype.itemsize
        if direction == "gradient_x":
            tables, places = (_rows_are_cells if problem.channels_last else _rows_are_channels)(problem)
        elif direction == "gradient_w":
            tables, places = (_rows_are_taps if problem.channels_last else _columns_are_taps)(problem)
        else:
            tables, places = (_rows_are_pixels if problem.channels_last else _rows_are_filters)(problem)
        gather, arow, acol, _, _, runs_from, _ = tables
        cols, weights = places["cols"], places["taps"] * places["filters"] * places["cols"]  # that are transposed
        tile = best_tile(arow.size, cols, itemsize)
        # The plan holds the addresses of these; they must live as long.
        self._callbacks = (
            register_tile(tile.rows, tile.vectors, itemsize),
            copy_block(itemsize),
            transpose_block(itemsize),
        )
        addresses = [callback.address for callback in self._callbacks]
        self._plans = []
        for bias in (0, ROW_BIAS if places["second_is_a"] else LANE_BIAS):
            header = Small(
                *addresses[:2], cells=gather.size, rows=arow.size, depth=acol.size, runs=runs_from.size,
                tile_rows=tile.rows, tile_cols=tile.cols, flags=bias | (RELU if relu else 0),
                transpose=addresses[2] if weights else 0, **places,
            )  # fmt: skip
            self._plans.append(np.concatenate([np.array(header, np.int64), *tables]))
        moved = gather.size * _CYCLES_PER_GATHERED + runs_from.size * costs.CYCLES_PER_RUN
        cycles = places["parts"] * (tile.cycles_for(arow.size, cols, acol.size) + moved) + _CYCLES
        cycles += weights * costs.cycles_per_transposed(places["filters"] * itemsize)
        shares = ceil_div(cols, tile.cols) if weights else ceil_div(arow.size, tile.rows)
        alone = gather.size or places["second_is_a"]
        slots = 1 if alone else min(threads, shares)
        shared = cycles / slots + _CYCLES_TO_SHARE
        self._slots = slots if shared < cycles else 1
        panels = self._slots * acol.size * tile.cols if weights else 0
        self._scratch = gather.size + panels + (arow.size * cols if runs_from.size else 0)
        self.workspace = self._scratch * itemsize
        self.cycles = threads * min(cycles, shared)  # predictions are compared as if all threads shared the work
        self.spared = _CYCLES_OF_OTHERS * threads
        self.run = self._run_gradient_w if direction == "gradient_w" else self._run

    def _run(self, operand: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """See `base`; the weights are read as they are."""
        self._launch(operand, w, bias, out, np.empty(self._scratch, w.dtype), self._plans[bias.size > 0])

    def _run_gradient_w(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """See `base`."""
        self._launch(x, dout, _NO_BIAS[x.dtype], dw, np.empty(self._scratch, x.dtype), self._plans[0])

    def _launch(self, *arrays: np.ndarray) -> None:
        if self._slots == 1:
            small.compiled(0, 1, *arrays)
        else:
            runtime.run_on(small, min(runtime.slots_for(self.problem.multiply_adds), self._slots), *arrays)


def _inside(padded: np.ndarray, before: int, size: int) -> np.ndarray:
    """Positions along a padded axis as positions in the input, -1 for padding."""
    return np.where((padded >= before) & (padded < before + size), padded - before, -1)


def _rows_are_filters(p: ConvProblem) -> Tables:
    """Channels-first, one image at a time: columns run through the rows of its padded planes, split by stride."""
    vertical = ForwardAxis.of(p.KH, p.stride[0], p.dilation[0], p.OH)
    horizontal = ForwardAxis.of(p.KW, p.stride[1], p.dilation[1], p.OW)
    height, width, phases_w = vertical.length, horizontal.length, len(horizontal.phases)
    gather = _NOTHING
    if p.no_padding and p.stride == (1, 1):
        height, width = p.H, p.W
    else:
        down = np.add.outer(vertical.phases, np.arange(height) * p.stride[0])
        across = np.add.outer(horizontal.phases, np.arange(width) * p.stride[1])
        down, across = _inside(down, p.pads[0][0], p.H), _inside(across, p.pads[1][0], p.W)
        planes = np.arange(p.C)[:, None, None, None, None] * p.H * p.W
        pixels = planes + down[:, None, :, None] * p.W + across[:, None, :]  # (C, phases_h, phases_w, rows, cols)
        gather = np.where((down[:, None, :, None] < 0) | (across[:, None, :] < 0), -1, pixels).ravel()
    brow = offsets(
        np.arange(p.C) * len(vertical.phases) * phases_w * height * width,
        np.array([(phase * phases_w * height + at) * width for phase, at in vertical.tap]),
        np.array([phase * height * width + at for phase, at in horizontal.tap]),
    )
    filters, depth, cols, pixels_out = np.arange(p.F), p.C * p.taps, (p.OH - 1) * width + p.OW, p.OH * p.OW
    joined = width == p.OW or p.OH == 1
    runs_from = _NOTHING if joined else offsets(filters * cols, np.arange(p.OH) * width)
    runs_to = _NOTHING if joined else offsets(filters * pixels_out, np.arange(p.OH) * p.OW)
    crow = filters * (pixels_out if joined else cols)
    return [gather, filters * depth, np.arange(depth), brow, crow, runs_from, runs_to], {
        "parts": p.N, "x_part": p.C * p.H * p.W, "out_part": p.F * pixels_out, "cols": cols, "run_length": p.OW,
        "second_is_a": 1, "taps": 0, "filters": 0,
    }  # fmt: skip


def _rows_are_channels(p: ConvProblem) -> Tables:
    """The gradient of x at stride 1, channels-first, one image at a time: sums over filters and taps of padded dout."""
    vertical = GradientAxis.of(p.H, p.KH, 1, p.dilation[0], p.pads[0][0], p.OH)
    horizontal = GradientAxis.of(p.W, p.KW, 1, p.dilation[1], p.pads[1][0], p.OW)
    (down,), (across,), width = vertical.phases, horizontal.phases, horizontal.length
    filters, channels, plane = np.arange(p.F), np.arange(p.C), vertical.length * width
    gather = _NOTHING
    if (vertical.length, width) != (p.OH, p.OW):
        rows, columns = (
            _inside(np.arange(axis.length), axis.front, outputs)
            for axis, outputs in ((vertical, p.OH), (horizontal, p.OW))
        )
        numbers = (filters[:, None, None] * p.OH + rows[:, None]) * p.OW + columns
        gather = np.where((rows[:, None] < 0) | (columns < 0), -1, numbers).ravel()
    kernel_h, at_h = np.array(down.taps, np.int64).T
    kernel_w, at_w = np.array(across.taps, np.int64).T
    acol = offsets(filters * p.C * p.taps, kernel_h * p.KW, kernel_w)
    brow = offsets(filters * plane, at_h * width, at_w)
    cols, joined = (p.H - 1) * width + p.W, width == p.W or p.H == 1
    runs_from = _NOTHING if joined else offsets(channels * cols, np.arange(p.H) * width)
    runs_to = _NOTHING if joined else offsets(channels * p.H * p.W, np.arange(p.H) * p.W)
    crow = channels * (p.H * p.W if joined else cols)
    return [gather, channels * p.taps, acol, brow, crow, runs_from, runs_to], {
        "parts": p.N, "x_part": p.F * p.OH * p.OW, "out_part": p.C * p.H * p.W, "cols": cols, "run_length": p.W,
        "second_is_a": 1, "taps": 0, "filters": 0,
    }  # fmt: skip


_ALL_AT_ONCE = {"parts": 1, "x_part": 0, "out_part": 0, "run_length": 0, "second_is_a": 0, "taps": 0, "filters": 0}


def _padded_pixels(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Where the numbers of all pixels (rows, columns) of all images of a channels-last `shape` lie; -1 as in those."""
    images, height, width, channels = shape
    pixels = (np.arange(images)[:, None, None] * height + rows[:, None]) * width + columns
    numbers = pixels[..., None] * channels + np.arange(channels)
    return np.where(((rows[:, None] < 0) | (columns < 0))[None, :, :, None], -1, numbers).ravel()


def _windows(p: ConvProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Channels-last input of all images: (gather, where the windows of the pixels start, where taps lie in them)."""
    images, (height, width) = np.arange(p.N), p.padded
    gather = _NOTHING
    if not p.no_padding:
        down, across = _inside(np.arange(height), p.pads[0][0], p.H), _inside(np.arange(width), p.pads[1][0], p.W)
        gather = _padded_pixels(down, across, p.x_shape)
    row = width * p.C
    starts = offsets(images * height * row, np.arange(p.OH) * p.stride[0] * row, np.arange(p.OW) * p.stride[1] * p.C)
    taps = offsets(np.arange(p.KH) * p.dilation[0] * row, np.arange(p.KW) * p.dilation[1] * p.C, np.arange(p.C))
    return gather, starts, taps


def _rows_are_pixels(p: ConvProblem) -> Tables:
    """Channels-last, all images at once: columns are filters, read from w as it lies in memory."""
    gather, starts, taps = _windows(p)
    tables = [gather, starts, taps, np.arange(taps.size) * p.F, np.arange(starts.size) * p.F, _NOTHING, _NOTHING]
    return tables, {**_ALL_AT_ONCE, "cols": p.F}


def _rows_are_taps(p: ConvProblem) -> Tables:
    """The gradient of w, channels-last: sums over the pixels of all images; columns are filters."""
    gather, starts, taps = _windows(p)
    tables = [gather, taps, starts, np.arange(starts.size) * p.F, np.arange(taps.size) * p.F, _NOTHING, _NOTHING]
    return tables, {**_ALL_AT_ONCE, "cols": p.F}


def _columns_are_taps(p: ConvProblem) -> Tables:
    """The gradient of w, channels-first: rows are filters; the windows of all pixels are gathered side by side."""
    down = np.add.outer(np.arange(p.OH) * p.stride[0], np.arange(p.KH) * p.dilation[0])
    across = np.add.outer(np.arange(p.OW) * p.stride[1], np.arange(p.KW) * p.dilation[1])
    down, across = _inside(down, p.pads[0][0], p.H), _inside(across, p.pads[1][0], p.W)
    rows, columns = down[:, None, None, :, None], across[:, None, None, :]  # (OH, OW, C, KH, KW)
    planes = np.arange(p.N * p.C).reshape(p.N, 1, 1, p.C, 1, 1)
    gather = np.where((rows < 0) | (columns < 0), -1, (planes * p.H + rows) * p.W + columns).ravel()
    filters, pixels, depth = np.arange(p.F), p.OH * p.OW, p.C * p.taps
    acol = offsets(np.arange(p.N) * p.F * pixels, np.arange(pixels))
    tables = [gather, filters * pixels, acol, np.arange(acol.size) * depth, filters * depth, _NOTHING, _NOTHING]
    return tables, {**_ALL_AT_ONCE, "second_is_a": 1, "cols": depth}


def _rows_are_cells(p: ConvProblem) -> Tables:
    """The gradient of x at stride 1, channels-last, all images at once: windows of padded dout times w transposed.

    w is (kh kw, c, f) and becomes panels of columns c, (kh kw f, tile columns).
    """
    vertical = GradientAxis.of(p.H, p.KH, 1, p.dilation[0], p.pads[0][0], p.OH)
    horizontal = GradientAxis.of(p.W, p.KW, 1, p.dilation[1], p.pads[1][0], p.OW)
    (down,), (across,) = vertical.phases, horizontal.phases
    images, filters, row = np.arange(p.N), np.arange(p.F), horizontal.length * p.F
    gather = _NOTHING
    if (vertical.length, horizontal.length) != (p.OH, p.OW):
        rows, columns = (
            _inside(np.arange(axis.length), axis.front, outputs)
            for axis, outputs in ((vertical, p.OH), (horizontal, p.OW))
        )
        gather = _padded_pixels(rows, columns, p.out_shape)
    cells = offsets(images * vertical.length * row, np.arange(p.H) * row, np.arange(p.W) * p.F)
    (_, at_h), (_, at_w) = np.array(down.taps, np.int64).T, np.array(across.taps, np.int64).T  # of all taps, in order
    acol = offsets(at_h * row, at_w * p.F, filters)
    brow = np.arange(acol.size) * best_tile(cells.size, p.C, p.dtype.itemsize).cols
    tables = [gather, cells, acol, brow, np.arange(cells.size) * p.C, _NOTHING, _NOTHING]
    return tables, {**_ALL_AT_ONCE, "cols": p.C, "taps": p.taps, "filters": p.F}
