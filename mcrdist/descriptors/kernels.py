"""Passes over spectra that no library has in one go, compiled for a CPU.

Each number is made of the same few others by the same operations, wherever it stands: no sum is taken here whose order
could depend on how many slices come at once.
"""

# Plain functions of arrays for numba: it infers their types, and needs the loops spelled out.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True)
def _sum_and_difference(ahead, back, even, odd):
    for k in range(even.size):
        a = ahead[2 * k] * ahead[2 * k] + ahead[2 * k + 1] * ahead[2 * k + 1]
        b = back[2 * k] * back[2 * k] + back[2 * k + 1] * back[2 * k + 1]
        even[k] = a + b
        odd[k] = a - b


@njit(nogil=True, cache=True)
def _alone(row, even, odd):
    for k in range(even.size):
        even[k] = row[2 * k] * row[2 * k] + row[2 * k + 1] * row[2 * k + 1]
        odd[k] = even[k]  # times a sine that is zero, or nearly


@njit(nogil=True, cache=True)
def fold(spectra, even, odd):
    """P(k1) + P(−k1) and P(k1) − P(−k1), P = |F|², for 0 ≤ k1 ≤ H/2; P alone where −k1 is k1.

    `spectra` (S, H, 2K) has real and imaginary parts by turns; `even` and `odd` (S, H//2 + 1, K) are overwritten.
    """
    height = spectra.shape[1]
    for s in range(spectra.shape[0]):
        for k in range(height // 2 + 1):
            if k == 0 or 2 * k == height:
                _alone(spectra[s, k], even[s, k], odd[s, k])
            else:
                _sum_and_difference(spectra[s, k], spectra[s, height - k], even[s, k], odd[s, k])


@njit(nogil=True, cache=True)
def _multiply(ahead, back, even, odd):
    for k in range(even.size):
        a, b = even[k] + odd[k], even[k] - odd[k]
        ahead[2 * k] *= a
        ahead[2 * k + 1] *= a
        back[2 * k] *= b
        back[2 * k + 1] *= b


@njit(nogil=True, cache=True)
def _multiply_alone(row, even, odd):
    for k in range(even.size):
        a = even[k] + odd[k]
        row[2 * k] *= a
        row[2 * k + 1] *= a


@njit(nogil=True, cache=True)
def unfold(spectra, even, odd):
    """Multiply F(k1) by even + odd, and F(−k1) by even − odd, in place; the shapes are those of `fold`."""
    height = spectra.shape[1]
    for s in range(spectra.shape[0]):
        for k in range(height // 2 + 1):
            if k == 0 or 2 * k == height:
                _multiply_alone(spectra[s, k], even[s, k], odd[s, k])
            else:
                _multiply(spectra[s, k], spectra[s, height - k], even[s, k], odd[s, k])
