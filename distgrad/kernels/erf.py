"""The error function and its complement, without a branch for each element.

For y >= 0 the product of erfc(y) and exp(y**2) is smooth and falls slowly, so that one polynomial of
t = (y - 4) / (y + 4) gives it on the whole axis (after M. M. Shepherd and J. G. Laframboise, "Chebyshev approximation
of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf", Math. Comp. 36 (1981) 249-253). The coefficients are those of a Chebyshev
series, computed with 60 digits and truncated where float64, or float32, ends. Arrays are worked through in blocks that
stay in the processor's cache, in the memory of a few buffers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layout import is_hwnc_alone
from .select import select

Array = NDArray[Any]

_CENTRE = 4.0
_BLOCK = 1 << 15
# beyond, erfc is 0; the limit keeps infinity out of the quotient
_END = {np.dtype(np.float64): 30.0, np.dtype(np.float32): 12.0}
# Of (y + 4) / 8 * exp(y**2) * erfc(y) in powers of t, from the highest down.
_SCALED_ERFC = {
    np.dtype(np.float64): (
        1.04609655417093724e-10, -1.07664958158334349e-10, -1.90682654724860444e-9, 4.88605436051801073e-10,
        1.55467911421614333e-8, -9.93499306261416873e-9, -1.05857591435439918e-7, 1.78382425773603246e-7,
        5.86876609012172615e-7, -2.35777059991619214e-6, -4.54431803540145999e-7, 2.21016476621924823e-5,
        -5.68815758598173554e-5, -3.51198663563680879e-5, 7.64006955439682435e-4, -3.29625666664239313e-3,
        9.54768936379657852e-3, -2.1751367155046999e-2, 4.13564484847457878e-2, -6.76067289141528051e-2,
        9.66510877831547297e-2, -1.22068591135110263e-1, 1.3699945762506139e-1,
    ),
    np.dtype(np.float32): (
        -9.66092329944116833e-5, -5.38596341455312852e-5, 7.73813778898518892e-4, -3.28581629865359894e-3,
        9.54814099802486805e-3, -2.17529809605767585e-2, 4.13562108323557109e-2, -6.76066355389978448e-2,
        9.66511009276148694e-2, -1.22068592729783779e-1, 1.36999457531965599e-1,
    ),
}  # fmt: skip
# Of erf(x) / x in powers of x**2, where |x| < 1/2 and 1 - erfc(x) would lose digits.
_NEAR = 0.5
_ERF_OVER_X = {
    np.dtype(np.float64): (
        1.47263816800170314e-6, -1.48459008963758345e-5, 1.2053337222877718e-4, -8.54829779808619199e-4,
        5.22397737354218259e-3, -2.68661706329210861e-2, 1.12837916709254568e-1, -3.76126389031834748e-1,
        1.12837916709551257,
    ),
    np.dtype(np.float32): (
        4.71950535435977364e-3, -2.67579443326457906e-2, 1.12828347391514205e-1, -3.76126091733406254e-1,
        1.12837916561479422,
    ),
}  # fmt: skip


def _horner(coefficients: tuple[float, ...], x: Array, out: Array) -> None:
    np.multiply(x, coefficients[0], out=out)
    for coefficient in coefficients[1:-1]:
        out += coefficient
        out *= x
    out += coefficients[-1]


def _erfc_of_magnitude(x: Array, out: Array, y: Array, t: Array, u: Array) -> None:
    """erfc(|x|) into ``out`` and exp(-x * x) into ``u``; the others are buffers."""
    np.abs(x, out=y)
    np.minimum(y, _END[x.dtype], out=y)
    np.add(y, _CENTRE, out=u)
    np.divide(2 * _CENTRE, u, out=u)
    np.subtract(1, u, out=t)
    _horner(_SCALED_ERFC[x.dtype], t, out)
    out *= u
    # exp(-y * y) with the square of a short number, which is exact, and what is left of it: rounding y * y itself
    # would cost a relative error of y * y ulp
    np.multiply(y, 16, out=t)
    np.trunc(t, out=t)
    t *= 1 / 16
    np.subtract(t, y, out=u)
    y += t
    u *= y
    np.exp(u, out=u)
    t *= t
    np.negative(t, out=t)
    u *= np.exp(t, out=t)
    out *= u


def _erfc_block(x: Array, out: Array, y: Array, t: Array, u: Array) -> None:
    _erfc_of_magnitude(x, out, y, t, u)
    # on the left 2 - erfc(|x|)
    np.copysign(out, x, out=out)
    np.multiply(np.signbit(x), 2, out=t, dtype=x.dtype, casting="unsafe")
    out += t


def _erf_block(x: Array, out: Array, y: Array, t: Array, u: Array) -> None:
    _erfc_of_magnitude(x, out, y, t, u)
    np.subtract(1, out, out=out)
    np.copysign(out, x, out=out)
    np.clip(x, -_NEAR, _NEAR, out=y)
    np.multiply(y, y, out=t)
    _horner(_ERF_OVER_X[x.dtype], t, u)
    u *= y
    out[...] = select(np.abs(x) < _NEAR, u, out)


def _gelu_block(x: Array, out: Array, y: Array, t: Array, u: Array, v: Array) -> None:
    # erfc keeps the left tail, where 1 + erf is 0 long before it should be
    np.multiply(x, -math.sqrt(0.5), out=v)
    _erfc_block(v, out, y, t, u)
    out *= 0.5
    out *= x


def _gelu_backward_block(g: Array, x: Array, out: Array, y: Array, t: Array, u: Array, v: Array) -> None:
    np.multiply(x, -math.sqrt(0.5), out=v)
    _erfc_block(v, out, y, t, u)
    out *= 0.5
    u *= 1 / math.sqrt(2 * math.pi)
    u *= x
    out += u
    out *= g


def _in_blocks(block: Callable[..., None], buffers: int, *operands: Any) -> Array:
    """``block`` of a part of each operand after the other, all of one shape and dtype; float16 computed in float32."""
    first = operands[0]
    if all(map(is_hwnc_alone, operands)):  # in that order, which the result then has too
        return _in_blocks(block, buffers, *(x.transpose(2, 3, 0, 1) for x in operands)).transpose(2, 3, 0, 1)
    dtype = np.dtype(np.float32) if first.dtype == np.float16 else first.dtype
    flat = [np.ascontiguousarray(x, dtype).reshape(-1) for x in operands]
    out = np.empty_like(flat[0])
    memory = np.empty((buffers, min(_BLOCK, out.size)), dtype)
    for start in range(0, out.size, _BLOCK):
        parts = [x[start : start + _BLOCK] for x in flat]
        block(*parts, out[start : start + _BLOCK], *memory[:, : parts[0].size])
    return out.reshape(first.shape).astype(first.dtype, copy=False)


def erf(x: Any) -> Array:
    """2 / sqrt(pi) times the integral of exp(-t**2) from 0 to ``x``, within an ulp or two."""
    return _in_blocks(_erf_block, 3, x)


def erfc(x: Any) -> Array:
    """1 - erf(x), with all its digits also where that is tiny."""
    return _in_blocks(_erfc_block, 3, x)


def gelu(x: Any) -> Array:
    """``x`` times the distribution function of the standard normal distribution."""
    return _in_blocks(_gelu_block, 4, x)


def gelu_backward(g: Any, x: Any) -> Array:
    """``g`` times the derivative of ``gelu`` at ``x``; of one shape and dtype."""
    return _in_blocks(_gelu_backward_block, 4, g, x)


def _of_each(function: Callable[[float], float], x: Any) -> Array:
    return np.array([function(v) for v in x.reshape(-1).tolist()], np.float64).reshape(x.shape).astype(x.dtype)


def erf_reference(x: Any) -> Array:
    """``erf`` by the C library."""
    return _of_each(math.erf, x)


def erfc_reference(x: Any) -> Array:
    """``erfc`` by the C library."""
    return _of_each(math.erfc, x)


def gelu_reference(x: Any) -> Array:
    """``gelu`` by the C library's erfc."""
    return _of_each(lambda v: 0.5 * v * math.erfc(-v / math.sqrt(2)), x)


def gelu_backward_reference(g: Any, x: Any) -> Array:
    """``gelu_backward`` by the C library's functions."""

    def slope(v: float) -> float:
        return 0.5 * math.erfc(-v / math.sqrt(2)) + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi)

    return (g * _of_each(slope, x)).astype(x.dtype)  # type: ignore[no-any-return]
