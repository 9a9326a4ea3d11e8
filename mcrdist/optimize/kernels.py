"""The two passes of projected L-BFGS over its history, compiled: everything that one plane needs, block by block.

A block of each row stays in the cache while all products with it are taken, so an iteration reads the history twice
from memory and writes three rows of it. Rows may be stored as bfloat16 (here uint16, the upper half of a float32).
Sums of a block are in the fields' precision, of a plane in float64; blocks are cut the same in every plane, so a
plane's sums do not depend on who holds it. `sweeps` says what the passes compute.
"""

# Plain functions of arrays for numba: it infers their types, and needs the loops spelled out.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

#: Voxels of a block: 8 kB of float32.
BLOCK = 2048
#: A sum may be taken in vector lanes, and a product and a sum rounded at once; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz"}


def _widen(stored, values):
    """Read a block of a row."""


def _narrow(values, stored):
    """Store a block of a row; `values` become what was stored, the nearest."""


@overload(_widen)
def _widen_for(stored, values):
    if stored.dtype == types.uint16:

        def from_half(stored, values):
            bits = values.view(np.uint32)
            for i in range(stored.size):
                bits[i] = np.uint32(stored[i]) << np.uint32(16)

        return from_half

    def same(stored, values):
        for i in range(stored.size):
            values[i] = stored[i]

    return same


@overload(_narrow)
def _narrow_for(values, stored):
    if stored.dtype == types.uint16:

        def to_half(values, stored):
            bits = values.view(np.uint32)
            for i in range(stored.size):
                # to the nearest, of two to the even one
                rounded = bits[i] + np.uint32(0x7FFF) + ((bits[i] >> np.uint32(16)) & np.uint32(1))
                stored[i] = np.uint16(rounded >> np.uint32(16))
                bits[i] = rounded & np.uint32(0xFFFF0000)

        return to_half

    def same(values, stored):
        for i in range(stored.size):
            stored[i] = values[i]

    return same


@njit(nogil=True, fastmath=_FAST, cache=True)
def _find_free(x, g, margin, zero, one, free):
    """1 where a variable is free, 0 where it is at a bound and pushed outward."""
    low, high = margin, one - margin
    for i in range(x.size):
        bound = ((x[i] <= low) & (g[i] > zero)) | ((x[i] >= high) & (g[i] < zero))
        free[i] = zero if bound else one


@njit(nogil=True, fastmath=_FAST, cache=True)
def _subtract(a, b, out):
    for i in range(out.size):
        out[i] = a[i] - b[i]


@njit(nogil=True, fastmath=_FAST, cache=True)
def _multiply(a, b, out):
    for i in range(out.size):
        out[i] = a[i] * b[i]


@njit(nogil=True, fastmath=_FAST, cache=True)
def _add(factor, a, out):
    for i in range(out.size):
        out[i] += factor * a[i]


@njit(nogil=True, fastmath=_FAST, cache=True)
def _step(x, g, free, direction, step, zero, one, out):
    """From `x` along the direction, or the way to the bound where a variable is not free; within the bounds."""
    for i in range(x.size):
        here, way = x[i], direction[i]
        low, high = -here, one - here
        to_bound = low if g[i] > zero else high
        way = way if free[i] > zero else to_bound
        there = here + step * way
        there = there if there > zero else zero
        out[i] = there if there < one else one


@njit(nogil=True, fastmath=_FAST, cache=True)
def _dot(a, b, zero):
    total = zero
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(nogil=True, fastmath=_FAST, cache=True)
def _five_dots(row, s, y, free_s, free_y, free_g, zero, out):
    """Add the inner products of a row with five others; all are read once."""
    a, b, c, d, e = zero, zero, zero, zero, zero
    for i in range(row.size):
        v = row[i]
        a += v * s[i]
        b += v * y[i]
        c += v * free_s[i]
        d += v * free_y[i]
        e += v * free_g[i]
    out[0] += a
    out[1] += b
    out[2] += c
    out[3] += d
    out[4] += e


# Maxima are taken place by place: one number for the block would keep a compiler from vector instructions, as do reads
# that depend on a condition, and too many arrays in one loop. What becomes of NaN is of no interest here.


@njit(nogil=True, fastmath=_FAST, cache=True)
def _raise_projected(x, g, zero, one, most):
    """Raise `most` to the components of the projected gradient."""
    for i in range(x.size):
        here, slope, before = x[i], g[i], most[i]
        there = one - here
        room = here if slope > zero else there
        size = abs(slope)
        least = size if size < room else room
        most[i] = least if least > before else before


@njit(nogil=True, fastmath=_FAST, cache=True)
def _raise_size(values, most):
    """Raise `most` to absolute values."""
    for i in range(values.size):
        size, before = abs(values[i]), most[i]
        most[i] = size if size > before else before


@njit(nogil=True, fastmath=_FAST, cache=True)
def _changed(before, after, index):
    """Where the free set is another than before; the number of such places."""
    count = 0
    for i in range(before.size):
        index[count] = i
        count += before[i] != after[i]
    return count


@njit(nogil=True, fastmath=_FAST, cache=True)
def _pick(values, index, out):
    for i in range(index.size):
        out[i] = values[index[i]]


@njit(nogil=True, fastmath=_FAST, cache=True)
def learn(rows, plane, slot, old, point, last, gradient, margin, found, products, changes):
    """See `sweeps.learn`; `rows` (R, planes, voxels), `point`, `last` and `gradient` (planes, voxels)."""
    kind = point.dtype
    zero, one = np.zeros(1, kind)[0], np.ones(1, kind)[0]
    buffers = np.zeros((10, BLOCK), kind)
    projected, inside = np.zeros(BLOCK, kind), np.zeros(BLOCK, kind)
    index = np.empty(BLOCK, np.int64)
    picked = np.empty((old.size, BLOCK), kind)
    for start in range(0, point.shape[1], BLOCK):
        stop = min(start + BLOCK, point.shape[1])
        size = stop - start
        x, g = point[plane, start:stop], gradient[plane, start:stop]
        row, stored, free, before = buffers[0, :size], buffers[1, :size], buffers[2, :size], buffers[3, :size]
        s, y, free_s, free_y = buffers[4, :size], buffers[5, :size], buffers[6, :size], buffers[7, :size]
        free_g, signs = buffers[8, :size], buffers[9]
        found[2] += _dot(g, g, zero)
        if slot >= 0:
            _widen(rows[0, plane, start:stop], row)
            _find_free(last[plane, start:stop], row, margin, zero, one, before)
            _subtract(x, last[plane, start:stop], s)
            _subtract(g, row, y)
            _narrow(s, rows[1 + 2 * slot, plane, start:stop])
            _narrow(y, rows[2 + 2 * slot, plane, start:stop])
        stored[:] = g
        _narrow(stored, rows[0, plane, start:stop])
        _find_free(x, stored, margin, zero, one, free)
        _multiply(stored, free, free_g)
        _raise_projected(x, g, zero, one, projected[:size])
        _raise_size(free_g, inside[:size])
        if slot < 0:
            products[0, 4] += _dot(stored, free_g, zero)
            continue
        _multiply(s, free, free_s)
        _multiply(y, free, free_y)
        _five_dots(stored, s, y, free_s, free_y, free_g, zero, products[0])
        _five_dots(s, s, y, free_s, free_y, free_g, zero, products[1 + 2 * slot])
        _five_dots(y, s, y, free_s, free_y, free_g, zero, products[2 + 2 * slot])
        if not old.size:
            continue
        count = _changed(before, free, index)
        for k in range(count):
            signs[k] = free[index[k]] - before[index[k]]
        for k in range(old.size):
            _widen(rows[old[k], plane, start:stop], row)
            _five_dots(row, s, y, free_s, free_y, free_g, zero, products[old[k]])
            _pick(row, index[:count], picked[k, :count])
        for a in range(old.size if count else 0):
            _multiply(picked[a, :count], signs[:count], row[:count])
            for b in range(a + 1):
                changes[old[a], old[b]] += _dot(row[:count], picked[b, :count], zero)
    found[0], found[1] = projected.max(), inside.max()


@njit(nogil=True, fastmath=_FAST, cache=True)
def move(rows, plane, numbers, factors, step, point, margin, trial):
    """See `sweeps.move`; returns the plane's part of the slope."""
    kind = point.dtype
    zero, one = np.zeros(1, kind)[0], np.ones(1, kind)[0]
    buffers = np.zeros((4, BLOCK), kind)
    slope = 0.0
    for start in range(0, point.shape[1], BLOCK):
        stop = min(start + BLOCK, point.shape[1])
        size = stop - start
        x, there = point[plane, start:stop], trial[plane, start:stop]
        row, total, g, free = buffers[0, :size], buffers[1, :size], buffers[2, :size], buffers[3, :size]
        _widen(rows[0, plane, start:stop], g)
        _find_free(x, g, margin, zero, one, free)
        total[:] = zero
        for k in range(numbers.size):
            _widen(rows[numbers[k], plane, start:stop], row)
            _add(factors[k], row, total)
        _step(x, g, free, total, step, zero, one, there)
        _subtract(there, x, row)
        slope += _dot(g, row, zero)
    return slope
