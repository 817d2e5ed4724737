"""Filtering a picture: rows come in as they are, become padded floats in scratch, and go out rounded.

The picture as a whole never exists as floats. Passes over whole pictures (convert, pad, convolve, round) took 3 to
4.6 ms for 768x1024x3 bytes and a 3x3 kernel, half of it in page faults; these take 1.
"""

from __future__ import annotations

import numpy as np

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, on_every_slot

CHUNK = 1024  # numbers of a row at a time: sums and the lines that they read stay in the L1 cache


@helper
def _load(row, p, P, col_from, inner, line):
    """line = plane p of a row of P planes side by side: from column col_from[j], 0 for -1; inner is a plain copy."""
    for j in range(inner[0]):
        line[j] = row[col_from[j] * P + p] if col_from[j] >= 0 else 0
    middle = line[inner[0] : inner[1]]
    if P == 1:  # the loop that is vectorised
        for j in range(middle.size):
            middle[j] = row[j]
    else:
        for j in range(middle.size):
            middle[j] = row[j * P + p]
    for j in range(inner[1], line.size):
        line[j] = row[col_from[j] * P + p] if col_from[j] >= 0 else 0


@helper
def _store(total, largest, f, F, target):
    """Plane f of a row of F planes = total, rounded and kept in 0 to `largest` unless that is 0."""
    if largest > 0:
        zero = largest - largest  # of total's type, as `largest` is: other numbers would be converted to and fro
        for j in range(total.size):
            value = np.rint(total[j])
            value = value if value > zero else zero
            total[j] = value if value < largest else largest
    if F == 1:
        for j in range(total.size):
            target[j] = total[j]
    else:
        for j in range(total.size):
            target[j * F + f] = total[j]


@helper
def _line(lines, i, place):
    """The line and plane of `lines`, and its first number, that one tap reads for row i."""
    return (i + place[0]) % lines.shape[0], place[1], place[2]


@helper
def _sum(lines, i, places, weights, start, total):
    """total += each tap's weight times its line; three taps in one pass, which takes two thirds of the time."""
    end, threes = start + total.size, places.shape[0] // 3 * 3
    for t in range(0, threes, 3):
        row, plane, first = _line(lines, i, places[t])
        u, a = weights[t], lines[row, plane, start + first : end + first]
        row, plane, first = _line(lines, i, places[t + 1])
        v, b = weights[t + 1], lines[row, plane, start + first : end + first]
        row, plane, first = _line(lines, i, places[t + 2])
        w, c = weights[t + 2], lines[row, plane, start + first : end + first]
        for j in range(total.size):
            total[j] += u * a[j] + v * b[j] + w * c[j]
    for t in range(threes, places.shape[0]):
        row, plane, first = _line(lines, i, places[t])
        u, a = weights[t], lines[row, plane, start + first : end + first]
        for j in range(total.size):
            total[j] += u * a[j]


@Kernel
def filter_rows(slot, slots, source, weights, places, offset, row_from, col_from, inner, largest, ring, sums, out):
    """source (H, L * P) -> out (H, L * F), P and F numbers side by side; tasks are rows, each written by one slot.

    weights (F, T), offset (F,); places (T, 3) are row, plane and column of each tap, relative to the padded cell that a
    sum begins with. Padded row i comes from source row row_from[i], column j from col_from[j] (-1: zeros, see `_load`).
    ring (slots, KH, P, padded columns) holds the rows that one row of out needs, padded row i in line i % KH; sums is
    (slots, CHUNK). Neither needs to be initialised.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    KH, P = ring.shape[1:3]
    F = weights.shape[0]
    H, length = source.shape[0], source.shape[1] // P
    begin, end = slot * H // slots, (slot + 1) * H // slots
    lines = ring[slot]
    for i in range(begin, end):
        for row in range(i if i == begin else i + KH - 1, i + KH):
            for p in range(P):
                line = lines[row % KH, p]
                if row_from[row] < 0:
                    line[:] = 0
                else:
                    _load(source[row_from[row]], p, P, col_from, inner, line)
        for start in range(0, length, CHUNK):
            total = sums[slot, : min(CHUNK, length - start)]
            for f in range(F):
                total[:] = offset[f]
                _sum(lines, i, places, weights[f], start, total)
                _store(total, largest, f, F, out[i, start * F :])


@Kernel
def edge_strength(slot, slots, dx, dy, offset, largest, out):
    """out = sqrt(dx^2 + dy^2) + offset, all flat, rounded and kept in 0 to `largest` as by `_store`; dx is used up."""
    if slot < 0:
        return on_every_slot(slot, slots)
    begin, end = slot * dx.size // slots, (slot + 1) * dx.size // slots
    for start in range(begin, end, CHUNK):
        total, other = dx[start : min(start + CHUNK, end)], dy[start : min(start + CHUNK, end)]
        for j in range(total.size):
            total[j] = np.sqrt(total[j] * total[j] + other[j] * other[j]) + offset
        _store(total, largest, 0, 1, out[start : start + total.size])
