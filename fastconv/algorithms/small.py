"""Forward passes of small problems: one compiled call, all of its tables in one array made once per problem.

A problem is small when it runs on the calling thread anyway and its tables stay short.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import runtime
from fastconv._kernels.blocks import copy_block
from fastconv._kernels.isa import best_tile
from fastconv._kernels.register_tile import LANE_BIAS, RELU, ROW_BIAS, register_tile
from fastconv._kernels.small import Small, small
from fastconv.algorithms import costs
from fastconv.algorithms.axes import ForwardAxis
from fastconv.algorithms.tables import offsets
from fastconv.problem import ConvProblem

_MOST_ENTRIES = 4096  # of all tables: 32 KB, so that the kept plans of small problems stay below some 20 MB
_CYCLES_PER_GATHERED = 3.0  # one number of the input brought to its padded place
_CYCLES = costs.CYCLES_PER_LAUNCH / 4  # this call beside the several of the other passes
_NOTHING = np.empty(0, np.int64)


def _inside(padded: np.ndarray, before: int, size: int) -> np.ndarray:
    """Positions along a padded axis as positions in the input, -1 for padding."""
    return np.where((padded >= before) & (padded < before + size), padded - before, -1)


class SmallPass:
    """One forward pass: `run(x, w, bias, out)`."""

    @staticmethod
    def declines(problem: ConvProblem) -> bool:
        p = problem
        images, padded = (p.N if p.channels_last else 1), p.padded[0] * p.padded[1] * p.C
        rows = p.N * p.OH * p.OW if p.channels_last else p.F * (1 + p.OH)
        entries = images * padded + 2 * rows + 2 * p.C * p.taps
        return p.groups > 1 or p.multiply_adds >= runtime.SERIAL_BELOW or entries > _MOST_ENTRIES

    def __init__(self, problem: ConvProblem, relu: bool):
        self.problem, itemsize = problem, problem.dtype.itemsize
        arrange = self._rows_are_pixels if problem.channels_last else self._rows_are_filters
        tables, places = arrange(problem)
        gather, arow, acol, _, _, runs_from, _ = tables
        tile = best_tile(arow.size, places["cols"], itemsize)
        # The plan holds the addresses of these; they must live as long.
        self._callbacks = register_tile(tile.rows, tile.vectors, itemsize), copy_block(itemsize)
        addresses = [callback.address for callback in self._callbacks]
        self._plans = []
        for bias in (0, LANE_BIAS if problem.channels_last else ROW_BIAS):
            header = Small(
                *addresses, cells=gather.size, rows=arow.size, depth=acol.size, runs=runs_from.size,
                tile_rows=tile.rows, tile_cols=tile.cols, flags=bias | (RELU if relu else 0), **places,
            )  # fmt: skip
            self._plans.append(np.concatenate([np.array(header, np.int64), *tables]))
        self._scratch = gather.size + (arow.size * places["cols"] if runs_from.size else 0)
        self.workspace = self._scratch * itemsize
        moved = gather.size * _CYCLES_PER_GATHERED + runs_from.size * costs.CYCLES_PER_RUN
        self.cycles = _CYCLES + places["parts"] * (tile.cycles_for(arow.size, places["cols"], acol.size) + moved)

    @staticmethod
    def _rows_are_filters(p: ConvProblem) -> tuple[list[np.ndarray], dict[str, Any]]:
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
        plane = len(vertical.phases) * phases_w * height * width
        brow = offsets(
            np.arange(p.C) * plane,
            np.array([(phase * phases_w * height + at) * width for phase, at in vertical.tap]),
            np.array([phase * height * width + at for phase, at in horizontal.tap]),
        )
        filters, depth, cols, pixels_out = np.arange(p.F), p.C * p.taps, (p.OH - 1) * width + p.OW, p.OH * p.OW
        joined = width == p.OW or p.OH == 1
        runs_from = _NOTHING if joined else offsets(filters * cols, np.arange(p.OH) * width)
        runs_to = _NOTHING if joined else offsets(filters * pixels_out, np.arange(p.OH) * p.OW)
        crow = filters * (pixels_out if joined else cols)
        tables = [gather, filters * depth, np.arange(depth), brow, crow, runs_from, runs_to]
        return tables, {
            "parts": p.N, "x_part": p.C * p.H * p.W, "out_part": p.F * pixels_out, "cols": cols, "run_length": p.OW,
            "weights_are_rows": 1,
        }  # fmt: skip

    @staticmethod
    def _rows_are_pixels(p: ConvProblem) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Channels-last, all images at once: columns are filters, read from w as it lies in memory."""
        images, (height, width) = np.arange(p.N), p.padded
        gather = _NOTHING
        if not p.no_padding:
            down, across = _inside(np.arange(height), p.pads[0][0], p.H), _inside(np.arange(width), p.pads[1][0], p.W)
            pixels = (images[:, None, None] * p.H + down[:, None]) * p.W + across
            numbers = pixels[..., None] * p.C + np.arange(p.C)
            missing = ((down[:, None] < 0) | (across < 0))[None, :, :, None]
            gather = np.where(missing, -1, numbers).ravel()
        row = width * p.C
        arow = offsets(images * height * row, np.arange(p.OH) * p.stride[0] * row, np.arange(p.OW) * p.stride[1] * p.C)
        down, across = np.arange(p.KH) * p.dilation[0] * row, np.arange(p.KW) * p.dilation[1] * p.C
        acol = offsets(down, across, np.arange(p.C))
        tables = [gather, arow, acol, np.arange(acol.size) * p.F, np.arange(arow.size) * p.F, _NOTHING, _NOTHING]
        return tables, {
            "parts": 1, "x_part": 0, "out_part": 0, "cols": p.F, "run_length": 0, "weights_are_rows": 0,
        }  # fmt: skip

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
        """See `base`."""
        small(x, w, bias, out, np.empty(self._scratch, x.dtype), self._plans[bias.size > 0])
