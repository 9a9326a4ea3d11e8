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
            for i in range(bits.size):
                # to the nearest, of two to the even one
                rounded = bits[i] + np.uint32(0x7FFF) + ((bits[i] >> np.uint32(16)) & np.uint32(1))
                bits[i] = rounded & np.uint32(0xFFFF0000)
            for i in range(stored.size):
                stored[i] = np.uint16(bits[i] >> np.uint32(16))

        return to_half

    def same(values, stored):
        for i in range(stored.size):
            stored[i] = values[i]

    return same


# What keeps a compiler from vector instructions, and costs up to ten times as much: reads and writes that depend on a
# condition, a maximum of floats, arrays of different widths in one loop. So conditions choose between numbers, and
# maxima are taken of bits.


@njit(nogil=True, fastmath=_FAST, cache=True)
def _find_free(x, g, margin, zero, one, free):
    """1 where a variable is free, 0 where it is at a bound and pushed outward."""
    low, high = margin, one - margin
    for i in range(free.size):
        here, slope = x[i], g[i]
        above = zero if here <= low else one
        below = zero if here >= high else one
        value = above if slope > zero else one
        free[i] = below if slope < zero else value


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
def _dots(row, s, y, free_s, free_y, free_g, zero, out):
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


@njit(nogil=True, fastmath=_FAST, cache=True)
def _dots_of_two(one, two, s, y, free_s, free_y, free_g, zero, out_one, out_two):
    """`_dots` of two rows; reading the five once for both takes little more than half the time."""
    a, b, c, d, e = zero, zero, zero, zero, zero
    p, q, r, t, u = zero, zero, zero, zero, zero
    for i in range(one.size):
        v, w = one[i], two[i]
        other = s[i]
        a += v * other
        p += w * other
        other = y[i]
        b += v * other
        q += w * other
        other = free_s[i]
        c += v * other
        r += w * other
        other = free_y[i]
        d += v * other
        t += w * other
        other = free_g[i]
        e += v * other
        u += w * other
    out_one[0] += a
    out_one[1] += b
    out_one[2] += c
    out_one[3] += d
    out_one[4] += e
    out_two[0] += p
    out_two[1] += q
    out_two[2] += r
    out_two[3] += t
    out_two[4] += u


@njit(nogil=True, fastmath=_FAST, cache=True)
def _project(x, g, zero, one, out):
    """The sizes of the components of the projected gradient."""
    for i in range(out.size):
        here, slope = x[i], g[i]
        there = one - here
        room = here if slope > zero else there
        size = abs(slope)
        out[i] = size if size < room else room


def _largest(values):
    """The largest size of a block's values, as a block of one; NaN is larger than all."""


@overload(_largest)
def _largest_for(values):
    # As integers, the bits of numbers without sign are ordered as the numbers are.
    kind, sizes = (np.int32, 0x7FFFFFFF) if values.dtype == types.float32 else (np.int64, 0x7FFFFFFFFFFFFFFF)

    def largest(values):
        bits = values.view(kind)
        most = np.zeros(1, kind)
        best = most[0]
        for i in range(bits.size):
            size = bits[i] & kind(sizes)
            best = size if size > best else best
        most[0] = best
        return most.view(values.dtype)

    return largest


@njit(nogil=True, fastmath=_FAST, cache=True)
def _changed(before, after, index):
    """Where the free set is another than before; the number of such places. Few are, so they are sought two by two."""
    count = 0
    even = before.size - before.size % 2
    two_before, two_after = before[:even].view(np.uint64), after[:even].view(np.uint64)
    step = even // max(1, two_before.size)  # 1 where a number fills 64 bits
    for k in range(two_before.size):
        if two_before[k] != two_after[k]:
            for i in range(step * k, step * k + step):
                index[count] = i
                count += before[i] != after[i]
    for i in range(even, before.size):
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
    buffers = np.zeros((11, BLOCK), kind)
    index = np.empty(BLOCK, np.int64)
    picked = np.empty((old.size, BLOCK), kind)
    for start in range(0, point.shape[1], BLOCK):
        stop = min(start + BLOCK, point.shape[1])
        size = stop - start
        x, g = point[plane, start:stop], gradient[plane, start:stop]
        row, stored, free, before = buffers[0, :size], buffers[1, :size], buffers[2, :size], buffers[3, :size]
        s, y, free_s, free_y = buffers[4, :size], buffers[5, :size], buffers[6, :size], buffers[7, :size]
        free_g, second, signs = buffers[8, :size], buffers[9, :size], buffers[10]
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
        _project(x, g, zero, one, row)
        found[0] = max(found[0], _largest(row)[0])
        found[1] = max(found[1], _largest(free_g)[0])
        if slot < 0:
            products[0, 4] += _dot(stored, free_g, zero)
            continue
        _multiply(s, free, free_s)
        _multiply(y, free, free_y)
        _dots(stored, s, y, free_s, free_y, free_g, zero, products[0])
        new = 1 + 2 * slot
        _dots_of_two(s, y, s, y, free_s, free_y, free_g, zero, products[new], products[new + 1])
        if not old.size:
            continue
        count = _changed(before, free, index)
        for k in range(count):
            signs[k] = free[index[k]] - before[index[k]]
        for k in range(0, old.size, 2):  # a pair's two rows follow one another
            _widen(rows[old[k], plane, start:stop], row)
            _widen(rows[old[k] + 1, plane, start:stop], second)
            _dots_of_two(
                row, second, s, y, free_s, free_y, free_g, zero, products[old[k]], products[old[k] + 1]
            )
            _pick(row, index[:count], picked[k, :count])
            _pick(second, index[:count], picked[k + 1, :count])
        for a in range(old.size if count else 0):
            _multiply(picked[a, :count], signs[:count], row[:count])
            for b in range(a + 1):
                changes[old[a], old[b]] += _dot(row[:count], picked[b, :count], zero)


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
