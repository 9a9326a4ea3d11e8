"""Passes over voxels and spectra that no library has in one go, compiled for a CPU."""

# Plain functions of arrays for numba: it infers their types, and needs the loops spelled out.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math

from numba import njit

#: Frequencies that are worked on at a time: those of all planes of a block stay in the cache.
_TILE = 256


@njit(nogil=True, cache=True)
def count_chords(lines, periodic, every, whole):
    """Count runs of truth along the last axis of `lines` (a, b, n) by length.

    `every` and `whole` (n + 1,) int64 are added to: all chords, and those that no border cuts. In a periodic line the
    walk begins behind a point outside the phase and goes once around, so that no chord is cut.
    """
    depth, height, n = lines.shape
    for a in range(depth):
        for b in range(height):
            line = lines[a, b]
            first = 0
            while first < n and line[first]:
                first += 1
            if first == n:
                every[n] += 1
                whole[n] += periodic
                continue
            length = 0
            for k in range(first + 1, n):
                if line[k]:
                    length += 1
                elif length:
                    every[length] += 1
                    whole[length] += 1
                    length = 0
            if periodic:  # what leaves at the end goes on at the beginning
                length += first
                if length:
                    every[length] += 1
                    whole[length] += 1
            else:
                every[first] += first > 0
                every[length] += length > 0


@njit(nogil=True, cache=True)
def cross_spectra(real, imaginary, own, out_real, out_imaginary):
    """Σ_z conj(F(z, k)) F(z + lag, k) over the first `own` planes, for every lag and frequency.

    Parameters
    ----------
    real, imaginary : (planes, n) float32
        F. Planes beyond the last one do not count.
    own : int
    out_real, out_imaginary : (L + 1, n) float32
        Zero; the sums are added.
    """
    planes, n = real.shape
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        for lag in range(out_real.shape[0]):
            sum_real, sum_imaginary = out_real[lag, start:stop], out_imaginary[lag, start:stop]
            for z in range(min(own, planes - lag)):
                a, b = real[z, start:stop], imaginary[z, start:stop]
                c, d = real[z + lag, start:stop], imaginary[z + lag, start:stop]
                for k in range(stop - start):
                    sum_real[k] += a[k] * c[k] + b[k] * d[k]
                    sum_imaginary[k] += a[k] * d[k] - b[k] * c[k]


@njit(nogil=True, cache=True)
def tally(squares, inside, less, width, counts):
    """Sum and maximum of √squares − less over the voxels `inside`, and a histogram of it.

    Parameters
    ----------
    squares : (p, q, r) float32
        Squared distances; infinite ones are left out.
    inside : (p, q, r) bool
    less : (p, q, r) float32
        What is taken off, down to zero.
    width : float
        Of a bin.
    counts : (n,) int64
        The histogram, which is added to; the last bin holds what is beyond.

    Returns
    -------
    (float, float, float)
        The sum, the maximum, and the largest √squares, infinite ones among them.
    """
    total, largest, furthest = 0.0, 0.0, 0.0
    depth, height, length = squares.shape
    last = counts.size - 1
    for a in range(depth):
        for b in range(height):
            for k in range(length):
                if inside[a, b, k]:
                    distance = math.sqrt(squares[a, b, k])
                    furthest = max(furthest, distance)
                    if distance < math.inf:
                        own = max(distance - less[a, b, k], 0.0)
                        total += own
                        largest = max(largest, own)
                        counts[min(int(own / width), last)] += 1
    return total, largest, furthest


@njit(nogil=True, cache=True)
def relax(field, inverse, weights, factor, first, count):
    """Sweeps of successive over-relaxation, in place, over one colour of a chessboard after the other.

    Parameters
    ----------
    field : (n + 2, m + 2, k + 2) float32
        With a margin that is not changed.
    inverse : (n, m, k) float32
        One over the sum of the weights of the neighbours inside the phase; 0 outside the phase.
    weights : (3,) float32
        Of neighbours along each axis.
    factor : float32
        Of over-relaxation.
    first, count : int
        Sweeps first, ..., first + count - 1: the even ones change voxels with an even sum of indices.
    """
    a, b, c = weights
    n, m, k = inverse.shape
    for sweep in range(first, first + count):
        for x in range(n):
            for y in range(m):
                for z in range((sweep + x + y) % 2, k, 2):
                    share = inverse[x, y, z]
                    if share > 0:
                        near = (
                            a * (field[x, y + 1, z + 1] + field[x + 2, y + 1, z + 1])
                            + b * (field[x + 1, y, z + 1] + field[x + 1, y + 2, z + 1])
                            + c * (field[x + 1, y + 1, z] + field[x + 1, y + 1, z + 2])
                        )
                        own = field[x + 1, y + 1, z + 1]
                        field[x + 1, y + 1, z + 1] = own + factor * (near * share - own)
