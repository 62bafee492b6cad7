"""Sums of float64 numbers without any rounding, so that neither order nor the number of ranks can be seen in them.

A float64 is an integer times a power of two, so a sum of them is one too. Here it is a Python integer in units of
``2**UNIT``, far below the smallest product of two float64 numbers; only what is read from it is rounded, once, to the
nearest float64. Kulisch described such a register as part of a processor ("Computer Arithmetic and Validity", 2008);
Python's integers grow as they have to, and most of the work is NumPy's: the parts of a batch that have the same
exponent are added as floats that hold integers, below ``2**53`` and therefore exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

UNIT = -2400
_PIECE = 1 << 18  # elements at a time: 2**18 parts of 27 bits are below 2**53, and what is worked on stays in cache
_SPLITTER = 2.0**27 + 1  # Dekker's: cuts a float64 into halves whose products are exact


class ExactSum:
    """One running sum, or an array of them.

    Infinities and NaN are summed apart, as IEEE 754 does: infinities of both signs give NaN.

    Args:
        shape: of the array of sums; () is one.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.shape = shape
        self.size = math.prod(shape)
        self.reset()

    def reset(self) -> None:
        """Back to 0."""
        self._totals = [0] * self.size  # in units of 2**UNIT
        self._special = np.zeros(self.size)  # the sum of what is not finite

    def add(self, values: Any) -> None:
        """Adds numbers.

        Args:
            values: float64 or what becomes float64, (..., *shape); the leading dimensions are summed.

        Raises:
            ValueError: the last dimensions are not ``shape``.
        """
        if self._add_number(values, 1.0):
            return
        for piece in self._pieces(values):
            mantissas, exponents = np.frexp(self._finite(piece))
            self._add_parts(mantissas, exponents)

    def add_products(self, left: Any, right: Any) -> None:
        """Adds ``left * right``, the products exact as well.

        Args:
            left: (..., *shape).
            right: of the same shape.
        """
        if np.size(right) == 1 and self._add_number(left, float(np.reshape(right, ()))):
            return
        for a, b in zip(self._pieces(left), self._pieces(right), strict=True):
            with np.errstate(all="ignore"):
                finite = np.isfinite(a) & np.isfinite(b)
                if not finite.all():
                    self._special += np.where(finite, 0.0, a * b).sum(axis=0)
                    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
            (a, of_a), (b, of_b) = np.frexp(a), np.frexp(b)
            high, low = _product(a, b)
            for part in (high, low):
                mantissas, exponents = np.frexp(part)
                self._add_parts(mantissas, exponents + of_a + of_b)

    def add_count(self, count: int) -> None:
        """Adds an integer of any size to every sum."""
        self._totals = [total + (count << -UNIT) for total in self._totals]

    def merge(self, other: ExactSum) -> None:
        """Adds the sums of another one, of the same shape."""
        self._totals = [mine + theirs for mine, theirs in zip(self._totals, other._totals, strict=True)]
        with np.errstate(invalid="ignore"):
            self._special = self._special + other._special

    def value(self) -> Doubles:
        """The sums, each rounded once: float64 ``shape``."""
        return self.over([1 << -UNIT] * self.size)

    def over(self, divisors: list[int]) -> Doubles:
        """The sums divided by integers in units of ``2**UNIT``, each quotient rounded once; NaN where one is 0."""
        quotients = [quotient(total, divisor) for total, divisor in zip(self._totals, divisors, strict=True)]
        return np.where(self._special == 0, quotients, self._special).reshape(self.shape)

    def integers(self) -> list[int]:
        """The sums of all finite numbers in units of ``2**UNIT``, in row-major order."""
        return list(self._totals)

    def is_finite(self) -> Array:
        """Which sums had neither an infinity nor a NaN: bool ``shape``."""
        return np.asarray(self._special == 0).reshape(self.shape)

    def state_dict(self) -> dict[str, Any]:
        """The sums as text, integers and floats: ``{"totals": [["-1f", -3], ...], "special": [0.0, ...]}``.

        A total is a hexadecimal integer times a power of two.
        """
        return {"totals": [_short(total) for total in self._totals], "special": self._special.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave.

        Raises:
            ValueError: it is that of sums of another shape.
        """
        if len(state_dict["totals"]) != self.size:
            raise ValueError(f"{len(state_dict['totals'])} sums do not fit into an ExactSum of shape {self.shape}")
        self._totals = [int(digits, 16) << (exponent - UNIT) for digits, exponent in state_dict["totals"]]
        self._special = np.array(state_dict["special"], np.float64)

    def _pieces(self, values: Any) -> list[Doubles]:
        """The values as float64 (rows, size), at most about ``_PIECE`` elements at a time."""
        array = np.asarray(values)
        leading = array.ndim - len(self.shape)
        if leading < 0 or array.shape[leading:] != self.shape:
            raise ValueError(f"sums of shape {self.shape} need values (..., *{self.shape}), not {array.shape}")
        rows = array.reshape(math.prod(array.shape[:leading]), self.size)
        step = max(1, _PIECE // max(1, self.size))
        return [rows[start : start + step].astype(np.float64) for start in range(0, len(rows), step) if self.size]

    def _add_number(self, value: Any, factor: float) -> bool:
        """Adds ``value * factor`` the short way, if it is one finite number for one sum; whether it did."""
        if self.shape or np.size(value) != 1:
            return False
        number = float(np.reshape(value, ()))
        if not (math.isfinite(number) and math.isfinite(factor)):
            return False
        (a, of_a), (b, of_b) = number.as_integer_ratio(), factor.as_integer_ratio()  # over powers of two
        self._totals[0] += (a * b) << (2 - UNIT - of_a.bit_length() - of_b.bit_length())
        return True

    def _finite(self, piece: Doubles) -> Doubles:
        """The piece, with 0 for what is not finite, which is summed apart."""
        finite = np.isfinite(piece)
        if finite.all():
            return piece
        with np.errstate(invalid="ignore"):
            self._special += np.where(finite, 0.0, piece).sum(axis=0)
        return np.where(finite, piece, 0.0)

    def _add_parts(self, mantissas: Doubles, exponents: Array) -> None:
        """Adds ``mantissas * 2.0**exponents``, (rows, size), the mantissas below 1 and of 53 bits."""
        if not mantissas.size:
            return
        lowest = int(exponents.min())
        span = int(exponents.max()) - lowest + 1
        bins = (exponents + (np.arange(self.size) * span - lowest)).reshape(-1)
        scaled = mantissas.reshape(-1) * 2.0**27
        high = np.trunc(scaled)
        low = (scaled - high) * 2.0**26
        count = self.size * span
        highs, lows = (np.bincount(bins, weights=part, minlength=count) for part in (high, low))
        for index in np.flatnonzero((highs != 0) | (lows != 0)).tolist():
            which, offset = divmod(index, span)
            integer = (int(highs[index]) << 26) + int(lows[index])
            self._totals[which] += integer << (lowest + offset - 53 - UNIT)


def quotient(dividend: int, divisor: int) -> float:
    """``dividend / divisor`` to the nearest float64; NaN for a divisor of 0, infinity beyond the range."""
    if divisor == 0:
        return math.nan
    try:
        return dividend / divisor
    except OverflowError:
        return math.inf if (dividend > 0) == (divisor > 0) else -math.inf


def _product(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    """``a * b`` as a rounded product and its error (Dekker, 1971), exact for numbers below 1 and not tiny."""
    halves = []
    for x in (a, b):
        large = x * _SPLITTER
        high = large - (large - x)
        halves.append((high, x - high))
    (a_high, a_low), (b_high, b_low) = halves
    product = a * b
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, error


def _short(total: int) -> list[Any]:
    """A total as a hexadecimal integer, odd or 0, and the power of two that it is multiplied by."""
    zeros = (total & -total).bit_length() - 1 if total else 0
    return [f"{total >> zeros:x}", UNIT + zeros if total else 0]
