"""The callbacks that all convolution kernels are made of, called by address: register tiles, block copy, transpose."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fastconv._kernels import isa
from fastconv._kernels.blocks import copy_block, interleave_pairs, separate_pairs, transpose_block
from fastconv._kernels.dot_tile import dot_tile, fold_lanes
from fastconv._kernels.isa import MACHINE, TileShape, best_tile
from fastconv._kernels.register_tile import ADD, LANE_BIAS, RELU, ROW_BIAS, RUN, register_tile
from fastconv._kernels.tile_sweep import tile_sweep

SHAPES = [(rows, vectors) for rows, vectors, _ in MACHINE.tiles]
DTYPES = [np.float32, np.float64]


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def run_tile(shape, dtype, depth, rows, cols, flags):
    """One call with scattered offsets, and what it should leave behind; cells that are not of the tile hold NaN."""
    itemsize = np.dtype(dtype).itemsize
    width = shape[1] * MACHINE.lanes(itemsize)
    rng = np.random.default_rng(depth * 1000 + rows * 100 + cols)
    arow, acol = 7 * rng.permutation(max(rows, 1)), rng.permutation(depth)
    brow, crow = (width + 3) * rng.permutation(depth), (width + 5) * rng.permutation(max(rows, 1))
    a = rng.standard_normal(7 * rows + depth).astype(dtype)
    b = np.full((width + 3) * max(depth, 1), np.nan, dtype)
    for start in brow:
        b[start : start + cols] = rng.standard_normal(cols)
    bias = rng.standard_normal(cols if flags & LANE_BIAS else rows).astype(dtype)
    c = np.full((width + 5) * rows, np.nan, dtype)
    if flags & ADD:
        for start in crow[:rows]:
            c[start : start + cols] = rng.standard_normal(cols)
    expected = c.astype(np.float64)
    for m, start in enumerate(crow[:rows]):
        cells = slice(start, start + cols)
        total = np.zeros(cols)
        for k in range(depth):
            total += float(a[arow[m] + acol[k]]) * b[brow[k] : brow[k] + cols]
        if flags & (ROW_BIAS | LANE_BIAS):
            total += bias if flags & LANE_BIAS else float(bias[m])
        if flags & ADD:
            total += expected[cells]
        expected[cells] = np.maximum(total, 0) if flags & RELU else total
    tables = [np.ascontiguousarray(table, np.int64) for table in (arow, acol, brow, crow)]
    arow, acol, brow, crow = map(address, tables)
    register_tile(*shape, itemsize).ctypes(
        depth, address(a), arow, acol, address(b), brow, address(c), crow, rows, cols, address(bias), flags
    )
    return c, expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tail_of_a_tile(shape, dtype):
    """All row counts, and all column counts around every vector of the tile: nothing else is read or written."""
    lanes = MACHINE.lanes(np.dtype(dtype).itemsize)
    cols = {v * lanes + d for v in range(shape[1]) for d in (1, lanes // 2, lanes - 1, lanes)} - {0}
    for rows, width in product(range(1, shape[0] + 1), sorted(cols)):
        got, expected = run_tile(shape, dtype, 5, rows, width, 0)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, equal_nan=True, err_msg=f"{rows} x {width}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flags_and_depths(shape, dtype):
    full = shape[1] * MACHINE.lanes(np.dtype(dtype).itemsize)
    for add, bias, relu in product((0, ADD), (0, ROW_BIAS, LANE_BIAS), (0, RELU)):
        for depth, cols in product((0, 1, 40), (full, full - 1)):
            got, expected = run_tile(shape, dtype, depth, shape[0], cols, add | bias | relu)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", [1, 3])
def test_copy_block(step, dtype):
    rng = np.random.default_rng(0)
    copy = copy_block(np.dtype(dtype).itemsize).ctypes
    for rows, n in product((0, 1, 4), (0, 1, 3, 4, 7, 8, 15, 16, 17, 33)):
        source = rng.standard_normal(200).astype(dtype)
        srow, drow = rng.integers(0, 160, rows), np.arange(rows)[::-1].copy() * (n * step + 2)
        target = np.full(rows * (n * step + 2) + 1, np.nan, dtype)
        expected = target.copy()
        for r in range(rows):
            expected[drow[r] : drow[r] + n * step : step] = source[srow[r] : srow[r] + n]
        copy(address(target), address(drow), address(source), address(srow), rows, n, step)
        np.testing.assert_array_equal(target, expected, err_msg=f"{rows} x {n}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_block(dtype):
    lengths = (0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 33)
    transpose = transpose_block(np.dtype(dtype).itemsize).ctypes
    for rows, cols in product(lengths, lengths):
        source = np.arange(rows * (cols + 2), dtype=dtype).reshape(rows, cols + 2)
        target = np.full((cols, rows + 3), np.nan, dtype)
        expected = target.copy()
        expected[:, :rows] = source[:, :cols].T
        transpose(address(target), rows + 3, address(source), cols + 2, rows, cols)
        np.testing.assert_array_equal(target, expected, err_msg=f"{rows} x {cols}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [shape[:2] for shape in MACHINE.dots], ids=str)
def test_dot_tile(shape, dtype):
    """Whole and masked steps at scattered offsets; what lies outside the steps is NaN."""
    itemsize = np.dtype(dtype).itemsize
    lanes, (rows, cols) = MACHINE.lanes(itemsize), shape
    rng = np.random.default_rng(0)
    for full, tails, tail, add in product((0, 3), (0, 2), (1, lanes - 1), (0, 1)):
        steps = full + tails
        acol, bcol = ((lanes + 1) * rng.permutation(steps) for _ in range(2))
        length = (lanes + 1) * max(steps, 1)
        widths = [lanes] * full + [tail] * tails
        matrices = []
        for count, places in ((rows, acol), (cols, bcol)):
            matrix = np.full((count, length), np.nan, dtype)
            for place, width in zip(places, widths, strict=True):
                matrix[:, place : place + width] = rng.standard_normal((count, width))
            matrices.append(matrix)
        sums = rng.standard_normal((rows, cols, lanes)).astype(dtype)
        expected = sums.astype(np.float64) if add else np.zeros(sums.shape)
        for i, j, width in zip(acol, bcol, widths, strict=True):
            expected[:, :, :width] += matrices[0][:, None, i : i + width] * matrices[1][None, :, j : j + width]
        arow, brow = np.arange(rows) * length, np.arange(cols) * length
        a, b = map(address, matrices)
        dot_tile(rows, cols, itemsize).ctypes(
            steps, full, tail, a, address(arow), address(acol), b, address(brow), address(bcol), address(sums), add
        )
        np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
        folded = np.full(rows * cols + 1, np.nan, dtype)
        fold_lanes(itemsize).ctypes(address(folded), address(sums), rows * cols)
        np.testing.assert_allclose(folded[:-1], sums.sum(axis=2).ravel(), rtol=1e-4, atol=1e-4)
        assert np.isnan(folded[-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tile_sweep(shape, dtype):
    """Tiles that move along B or along A, vectors at any place; cells that are not of the tiles hold NaN."""
    itemsize = np.dtype(dtype).itemsize
    lanes, (rows, vectors), tiles = MACHINE.lanes(itemsize), shape, 3
    rng = np.random.default_rng(1)
    for along_b, depth, relu, add in product((True, False), (0, 1, 7), (0, 1), (False, True)):
        count, places = (rows, tiles * vectors) if along_b else (tiles * rows, vectors)
        bcol, ccol = (2 * lanes * rng.permutation(places) for _ in range(2))
        a, bias = (
            rng.standard_normal((count, depth + 1)).astype(dtype),
            rng.standard_normal(rows if along_b else vectors * lanes).astype(dtype),
        )
        b = np.full((depth, 2 * lanes * places), np.nan, dtype)
        c = np.full((count, 2 * lanes * places), np.nan, dtype)
        expected = c.astype(np.float64)
        for v, (source, target) in enumerate(zip(bcol, ccol, strict=True)):
            start = np.resize(bias, (count, 1)) if along_b else bias[v * lanes : (v + 1) * lanes]
            b[:, source : source + lanes] = rng.standard_normal((depth, lanes))
            total = a[:, :depth].astype(np.float64) @ b[:, source : source + lanes] + start
            if add:
                c[:, target : target + lanes] = rng.standard_normal((count, lanes))
                total += c[:, target : target + lanes]
            expected[:, target : target + lanes] = np.maximum(total, 0) if relu else total
        arow, acol = np.arange(count) * (depth + 1), np.arange(depth)
        brow, crow = np.arange(depth) * b.shape[1], np.arange(count) * c.shape[1]
        down, right = (0, vectors) if along_b else (rows, 0)
        tile_sweep(rows, vectors, itemsize, lane_bias=not along_b, add=add).ctypes(
            tiles, down, right, depth, address(a), address(arow), address(acol), address(b), address(brow),
            address(bcol), address(c), address(crow), address(ccol), address(bias), relu, address(a), 2,
        )  # fmt: skip
        np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_steps_in_runs(shape):
    """Of a whole run only the first place is looked up, of the steps behind the last one each: the same bits."""
    lanes, (rows, vectors) = MACHINE.lanes(4), shape
    width = vectors * lanes
    rng = np.random.default_rng(2)
    arow, vector, bias = np.arange(rows), np.arange(vectors) * lanes, np.zeros(width, np.float32)
    crow = arow * width
    for apart, depth in product((1, rows), (0, 1, RUN - 1, RUN, 3 * RUN + 2)):
        runs = -(-depth // RUN)
        first, step = rng.permutation(runs + 1)[:runs], np.arange(RUN)
        acol, brow = ((first[:, None] * RUN + step).ravel()[:depth] * each for each in (apart, width))
        a = rng.standard_normal((runs + 1) * RUN * apart + rows).astype(np.float32)
        b = rng.standard_normal((runs + 1) * RUN * width).astype(np.float32)
        results = []
        for known in (0, apart):
            c = np.full((rows, width), np.nan, np.float32)
            tile_sweep(rows, vectors, 4, lane_bias=True, apart=known).ctypes(
                1, rows, 0, depth, address(a), address(arow), address(acol), address(b), address(brow),
                address(vector), address(c), address(crow), address(vector), address(bias), 0, 0, 0,
            )  # fmt: skip
            results.append(c)
            behind = depth % RUN
            acol[: depth - behind].reshape(-1, RUN)[:, 1:] = brow[: depth - behind].reshape(-1, RUN)[:, 1:] = -(2**60)
        np.testing.assert_array_equal(*results)
        assert np.isfinite(results[0]).all() and (results[0].any() or depth == 0)


def test_rows_of_a_sweep_repeat():
    """A row that comes twice within a tile is added to C once."""
    itemsize, lanes, (rows, vectors) = 4, MACHINE.lanes(4), SHAPES[0]
    a, b = np.arange(1, rows + 1, dtype=np.float32), np.ones(vectors * lanes, np.float32)
    c, bias = np.full((rows, vectors * lanes), 100, np.float32), np.zeros(vectors * lanes, np.float32)
    arow = np.minimum(np.arange(rows), rows - 3)
    crow, ccol, zero = arow * c.shape[1], np.arange(vectors) * lanes, np.zeros(1, np.int64)
    tile_sweep(rows, vectors, itemsize, lane_bias=True, add=True).ctypes(
        1, rows, 0, 1, address(a), address(arow), address(zero), address(b), address(zero), address(ccol), address(c),
        address(crow), address(ccol), address(bias), 0, 0, 0,
    )  # fmt: skip
    assert (c[: rows - 2] == 100 + a[: rows - 2, None]).all() and (c[rows - 2 :] == 100).all()


def test_tile_sweep_keeps_nan():
    """ReLU makes no zero of NaN."""
    itemsize, lanes = 4, MACHINE.lanes(4)
    rows, vectors = SHAPES[0]
    a, b = np.ones((rows, 1), np.float32), np.full(lanes, np.nan, np.float32)
    c, bias, zeros = np.zeros((rows, lanes), np.float32), np.zeros(rows, np.float32), np.zeros(vectors, np.int64)
    arow, crow = np.arange(rows), np.arange(rows) * lanes
    tile_sweep(rows, vectors, itemsize, lane_bias=False).ctypes(
        1, 0, vectors, 1, address(a), address(arow), address(zeros), address(b), address(zeros), address(zeros),
        address(c), address(crow), address(zeros), address(bias), 1, 0, 0,
    )  # fmt: skip
    assert np.isnan(c).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs(dtype):
    itemsize = np.dtype(dtype).itemsize
    for pairs, single in product((0, 1, 3, 4, 7, 8, 15, 16, 17, 40), (0, 1)):
        numbers = np.arange(2 * pairs + single, dtype=dtype)
        a, b = np.full(pairs + 2, np.nan, dtype), np.full(pairs + 1, np.nan, dtype)
        separate_pairs(itemsize).ctypes(address(a), address(b), address(numbers), pairs)
        np.testing.assert_array_equal(a, [*numbers[0 : 2 * pairs : 2], np.nan, np.nan])
        np.testing.assert_array_equal(b, [*numbers[1 : 2 * pairs : 2], np.nan])
        a[pairs] = 2 * pairs
        merged = np.full(numbers.size + 1, np.nan, dtype)
        interleave_pairs(itemsize).ctypes(address(merged), address(a), address(b), pairs, single)
        np.testing.assert_array_equal(merged, [*numbers, np.nan])


@pytest.mark.parametrize("itemsize", [4, 8])
def test_best_tile_covers_with_the_fewest_cycles(itemsize):
    for rows, cols in product((1, 2, 3, 5, 6, 8, 9, 64), (1, 8, 16, 17, 48, 64, 784, 100_000)):
        tile = best_tile(rows, cols, itemsize)
        assert (tile.rows, tile.vectors) in SHAPES and tile.cols == tile.vectors * MACHINE.lanes(itemsize)
        for r, v, cycles in MACHINE.tiles:
            other = TileShape(r, v, v * MACHINE.lanes(itemsize), cycles)
            assert tile.cycles_for(rows, cols, 256) <= other.cycles_for(rows, cols, 256)


@pytest.mark.parametrize(
    ("name", "features", "unit"),
    [
        ("haswell", "+avx2,+fma", ("AVX2", 256, True)),
        ("haswell", "+avx2,-fma", ("128-bit", 128, False)),
        ("bdver2", "+avx,+fma", ("128-bit", 128, True)),
        ("haswell", "-avx,-avx2,+fma", ("128-bit", 128, False)),  # NUMBA_ENABLE_AVX=0
        ("skylake-avx512", "+avx512f,+avx2,+fma", ("AVX-512", 512, True)),
        ("generic", "", ("128-bit", 128, False)),
    ],
)
def test_the_machine_follows_numbas_settings(name, features, unit, monkeypatch):
    monkeypatch.setattr(isa.config, "CPU_NAME", name)
    monkeypatch.setattr(isa.config, "CPU_FEATURES", features)
    monkeypatch.setattr(isa.platform, "machine", lambda: "x86_64")
    machine = isa._detect()
    assert (machine.name, machine.vector_bits, machine.fma) == unit
    registers = 32 if unit[1] == 512 else 16
    for rows, vectors, _ in machine.tiles:  # accumulators and one row of B fit; broadcasts may come from memory
        assert rows * vectors + vectors <= registers
    for rows, cols, _ in machine.dots:  # accumulators, the narrower operand and a passing vector
        assert rows * cols + min(rows, cols) + 1 <= registers
