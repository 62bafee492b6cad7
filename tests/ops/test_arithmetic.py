"""Operators between tensors and numbers, edges of division, bounds and powers, and dtypes of three operands."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor

NAN, INF = math.nan, math.inf

# Operators -----------------------------------------------------------------------------------------------------------

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "lshift", "rshift")
}
IN_PLACE = {name: getattr(operator, f"i{name.strip('_')}") for name in BINARY}
OPERANDS: list[tuple[Any, Any]] = [
    ([7, -7, 5], 2),
    ([7, -7, 5], [2, 3, 1]),
    (3, [2, 4, 1]),
    ([1.5, -2.5, 4.0], 2),
    ([1.5, -2.5, 4.0], [0.5, 2.0, -1.5]),
    (7.5, [0.5, 2.0, 1.5]),
    ([True, False, True], [True, True, False]),
    ([True, False, True], 1),
    ([3, 4, 5], 1.5),
    (True, [3, 4, 5]),
]


def made(module: Any, value: Any) -> Any:
    return module.tensor(value) if isinstance(value, list) else value


@pytest.mark.parity
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("operands", OPERANDS, ids=str)
def test_operators_are_those_of_torch(name: str, operands: tuple[Any, Any]) -> None:
    torch = pytest.importorskip("torch")
    a, b = operands
    try:
        expected = BINARY[name](made(torch, a), made(torch, b))
    except (RuntimeError, TypeError):
        if isinstance(a, bool) or isinstance(b, bool) or (isinstance(a, list) and isinstance(a[0], bool)):
            return  # of bools PyTorch lacks kernels for what has a plain meaning
        with pytest.raises((RuntimeError, TypeError)):
            BINARY[name](made(dg, a), made(dg, b))
        return
    out = BINARY[name](made(dg, a), made(dg, b))
    assert f"torch.{out.dtype}" == str(expected.dtype)
    np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("operands", [pair for pair in OPERANDS if isinstance(pair[0], list)], ids=str)
def test_operators_in_place_are_those_of_torch(name: str, operands: tuple[Any, Any]) -> None:
    torch = pytest.importorskip("torch")
    a, b = operands
    try:
        theirs = torch.tensor(a)
        IN_PLACE[name](theirs, made(torch, b))
    except (RuntimeError, TypeError):
        if isinstance(a[0], bool):
            return
        with pytest.raises((RuntimeError, TypeError)):
            IN_PLACE[name](dg.tensor(a), made(dg, b))
        return
    mine = dg.tensor(a)
    assert IN_PLACE[name](mine, made(dg, b)) is mine
    assert f"torch.{mine.dtype}" == str(theirs.dtype)
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", BINARY)
def test_operators_leave_other_types_to_python(name: str) -> None:
    x = dg.tensor([1, 2])
    for other in ("a", None, [1, 2], object()):
        with pytest.raises(TypeError):
            BINARY[name](x, other)
        if (name, other) != ("mod", "a"):  # a string formats
            with pytest.raises(TypeError):
                BINARY[name](other, x)


def test_equality_with_what_is_no_number() -> None:
    x = dg.tensor([1.0, 2.0])
    for other in ("a", None, [1.0, 2.0], object()):
        assert (x == other) is False
        assert (other == x) is False
        assert (x != other) is True
        with pytest.raises(TypeError):
            x < other  # noqa: B015
    assert operator.eq(1.0, x).tolist() == [True, False]
    assert operator.gt(2, x).tolist() == [True, False]


# Division ------------------------------------------------------------------------------------------------------------

EDGE = [5.0, -5.0, 0.0, -0.0, INF, -INF, NAN, 6.0, -6.0]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["remainder", "fmod", "floor_divide", "div floor", "div trunc"])
@pytest.mark.parametrize("divisor", [3.0, -3.0, 0.0, INF, -INF, NAN])
def test_division_at_the_edges(name: str, divisor: float) -> None:
    torch = pytest.importorskip("torch")
    function, _, mode = name.partition(" ")
    options = {"rounding_mode": mode} if mode else {}
    results = []
    for module in (dg, torch):
        x = module.tensor(EDGE, dtype=module.float64, requires_grad=not name.startswith("floor"))
        out = getattr(module, function)(x, divisor, **options)
        results.append([out.detach().numpy()])
        if out.requires_grad:
            out.sum().backward()
            results[-1].append(x.grad.numpy())
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        known = ~np.isnan(mine)
        np.testing.assert_array_equal(np.signbit(mine[known]), np.signbit(theirs[known]))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["remainder", "fmod"])
def test_gradients_of_the_divisor(name: str) -> None:
    torch = pytest.importorskip("torch")
    gradients = []
    for module in (dg, torch):
        x = module.tensor([5.0, -5.0, 4.0, -4.0, INF, 3.0], dtype=module.float64)
        y = module.tensor([3.0, 3.0, -3.0, 2.0, 3.0, INF], dtype=module.float64, requires_grad=True)
        getattr(module, name)(x, y).sum().backward()
        gradients.append(y.grad.numpy())
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
def test_integers_by_zero(dtype: str) -> None:
    x = dg.tensor([4, 5], dtype=np.dtype(dtype))
    divisions: list[Callable[[Any, Any], Any]] = [operator.floordiv, operator.mod, dg.fmod, dg.remainder]
    divisions += [lambda a, b, mode=mode: dg.div(a, b, rounding_mode=mode) for mode in ("floor", "trunc")]
    for divide in divisions:
        for a, b in ((x, 0), (x, x * 0), (7, x * 0), (x, dg.tensor(0, dtype=np.dtype(dtype)))):
            with pytest.raises(RuntimeError, match="ZeroDivisionError"):
                divide(a, b)
    assert (x / 0).tolist() == [INF, INF]
    assert (x // 0.0).tolist() == [INF, INF]


def test_floor_divide_has_no_derivative() -> None:
    x = dg.tensor([5.0], requires_grad=True)
    for out in (x // 2, dg.tensor([7.0]) // x, dg.floor_divide(x, x)):
        assert out.requires_grad
        with pytest.raises(RuntimeError, match="derivative for floor_divide is not implemented"):
            out.sum().backward()
    dg.div(x, 2, rounding_mode="floor").sum().backward()
    assert x.grad.tolist() == [0.0]


def test_heaviside_has_no_derivative() -> None:
    x = dg.tensor([5.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="derivative for heaviside is not implemented"):
        dg.heaviside(x, dg.ones(1)).sum().backward()


def test_the_derivative_of_a_step_is_zero_also_for_an_infinite_gradient() -> None:
    x = dg.tensor([1.5, -2.5], requires_grad=True)
    for function in (dg.floor, dg.ceil, dg.trunc, dg.round, dg.sign, dg.sgn):
        (gradient,) = dg.autograd.grad(function(x), x, dg.tensor([INF, NAN]))
        assert gradient.tolist() == [0.0, 0.0]


# Rounding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("decimals", [0, 1, 2, 5, 40, -1, -2])
def test_round_is_that_of_torch(dtype: str, decimals: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.array([0.125, 1.235, 123.456, -1234.567, NAN, INF, 0.5, 2.5, -0.5], dtype)
    expected = torch.round(torch.from_numpy(x), decimals=decimals).numpy()
    np.testing.assert_array_equal(dg.round(Tensor(x), decimals=decimals).numpy(), expected)


@pytest.mark.parity
def test_heaviside_and_sign_of_odd_values() -> None:
    torch = pytest.importorskip("torch")
    x = [NAN, 0.0, -0.0, INF, -INF]
    for name in ("sign", "sgn", "signbit", "frac", "isposinf", "isneginf", "isreal", "logical_not"):
        mine, theirs = (getattr(module, name)(module.tensor(x)) for module in (dg, torch))
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    mine, theirs = (module.heaviside(module.tensor(x), module.tensor(0.25)) for module in (dg, torch))
    np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


# Bounds --------------------------------------------------------------------------------------------------------------

CLAMPS: dict[str, tuple[Callable[..., Any], list[list[float]]]] = {
    "both": (lambda t, x, a, b: t.clamp(x, a, b), [[0.0, 1.0, 2.0, 3.0, NAN], [1.0] * 5, [2.0] * 5]),
    "crossed": (lambda t, x, a, b: t.clamp(x, a, b), [[0.0, 1.0, 2.0, 3.0], [2.0] * 4, [1.0] * 4]),
    "equal": (lambda t, x, a, b: t.clamp(x, a, b), [[0.0, 1.0, 2.0, 3.0], [2.0] * 4, [2.0] * 4]),
    "nan bounds": (lambda t, x, a, b: t.clamp(x, a, b), [[1.0, 2.0, NAN], [NAN, 0.0, 0.0], [3.0, NAN, 1.0]]),
    "min": (lambda t, x, a: t.clamp(x, min=a), [[0.0, 1.0, 2.0, NAN, 1.0], [1.0, 1.0, 1.0, 1.0, NAN]]),
    "max": (lambda t, x, a: t.clamp(x, max=a), [[0.0, 1.0, 2.0, NAN, 1.0], [1.0, 1.0, 1.0, 1.0, NAN]]),
    "clamp_min": (lambda t, x, a: t.clamp_min(x, a), [[0.0, 1.0, 2.0, NAN, 1.0], [1.0, 1.0, 1.0, 1.0, NAN]]),
    "clamp_max": (lambda t, x, a: t.clamp_max(x, a), [[0.0, 1.0, 2.0, NAN, 1.0], [1.0, 1.0, 1.0, 1.0, NAN]]),
    "numbers": (lambda t, x: t.clamp(x, 1, 0), [[0.0, 1.0, 2.0, NAN]]),
    "a NaN number": (lambda t, x: t.clamp(x, NAN, 0.0), [[0.0, 1.0, 2.0, NAN]]),
    "fmax": (lambda t, x, y: t.fmax(x, y), [[0.0, 1.0, NAN, 1.0, NAN], [1.0, 1.0, 0.0, NAN, NAN]]),
    "fmin": (lambda t, x, y: t.fmin(x, y), [[0.0, 1.0, NAN, 1.0, NAN], [1.0, 1.0, 0.0, NAN, NAN]]),
    "lerp": (lambda t, x, y: t.lerp(x, y, 0.25), [[INF, 1.0, NAN], [1.0, -INF, 2.0]]),
    "copysign": (lambda t, x, y: t.copysign(x, y), [[1.5, -0.0, 2.0, -3.0, 0.0], [1.0, 2.0, -0.0, 4.0, -1.0]]),
    "nan_to_num": (lambda t, x: t.nan_to_num(x), [[1.25, -0.0, NAN, INF, -INF]]),
    "base 0": (lambda t, x: t.pow(0, x), [[2.0, 0.0, -1.0]]),
    "base below 0": (lambda t, x: t.pow(-2, x), [[2.0, 0.0, -1.0]]),
    "base 1": (lambda t, x: t.pow(1, x), [[2.0, NAN, INF]]),
    "powers": (lambda t, x, y: t.pow(x, y), [[0.0, 0.0, 0.0, -1.0, NAN, 2.0], [2.0, 0.0, -1.0, 2.0, 0.0, NAN]]),
    "nextafter": (lambda t, x, y: t.nextafter(x, y), [[0.0, 1.0, 1.0, NAN], [1.0, -1.0, 1.0, 2.0]]),
    "addcdiv": (lambda t, x, a, b: t.addcdiv(x, a, b, value=2), [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", CLAMPS)
def test_edges_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    function, points = CLAMPS[name]
    results = []
    for module in (dg, torch):
        tensors = [module.tensor(v, dtype=module.float64, requires_grad=True) for v in points]
        out = function(module, *tensors)
        out.sum().backward()
        results.append([out.detach().numpy(), *(x.grad.numpy() for x in tensors)])
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-15)


@pytest.mark.parity
@pytest.mark.parametrize("bounds", [(0, 2), (0.5, 2), (0, None), (None, 1.5), (None, 2)])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"])
def test_promotion_of_clamp(dtype: str, bounds: tuple[Any, Any]) -> None:
    torch = pytest.importorskip("torch")
    x = np.array([1, 0, 1], dtype)
    expected = torch.clamp(torch.from_numpy(x), *bounds)
    out = dg.clamp(Tensor(x), *bounds)
    assert f"torch.{out.dtype}" == str(expected.dtype)
    assert out.tolist() == expected.tolist()
    wide = np.float64(0.5)
    assert dg.clamp(Tensor(x), wide).dtype == (dtype if dtype.startswith("float") else "float32")


@pytest.mark.parity
@pytest.mark.parametrize("name", ["addcmul", "addcdiv", "clamp"])
def test_promotion_of_three(name: str) -> None:
    torch = pytest.importorskip("torch")
    dtypes = ("bool", "uint8", "int64", "float16", "float32", "float64")
    for kinds in itertools.product(dtypes, repeat=3):
        for shapes in itertools.product(((2,), ()), repeat=3):
            arrays = [np.ones(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)]
            try:
                expected = getattr(torch, name)(*map(torch.from_numpy, arrays))
            except RuntimeError:
                with pytest.raises(RuntimeError):
                    getattr(dg, name)(*map(Tensor, arrays))
                continue
            out = getattr(dg, name)(*map(Tensor, arrays))
            assert (f"torch.{out.dtype}", out.shape) == (str(expected.dtype), tuple(expected.shape)), (kinds, shapes)


def test_numbers_of_numpy_do_not_widen() -> None:
    x, half = dg.ones(2), np.float64(0.5)
    results = [dg.lerp(x, x, half), dg.addcmul(x, x, x, value=half), dg.addcdiv(x, x, x, value=half)]
    results += [dg.clamp(x, -half, half), dg.add(x, x, alpha=half), dg.copysign(x, half), dg.nan_to_num(x, half)]
    results += [dg.logit(x, half), dg.xlogy(x, half), dg.remainder(x, half), dg.pow(half, x), dg.where(x > 0, x, half)]
    assert {out.dtype.name for out in results} == {"float32"}


# Powers and others ---------------------------------------------------------------------------------------------------


def test_float_power_in_place() -> None:
    x = dg.tensor([1.5, -2.0], dtype=dg.float64)
    assert x.float_power_(2) is x
    assert x.tolist() == [2.25, 4.0]
    with pytest.raises(
        RuntimeError, match="the base has dtype int64 but the operation's result requires dtype float64"
    ):
        dg.tensor([1, 2]).float_power_(2)
    with pytest.raises(RuntimeError, match="the base has dtype float32"):
        dg.tensor([1.0]).float_power_(2)


def test_integer_powers_of_a_number() -> None:
    assert (2 ** dg.tensor([3, -1, 0])).tolist() == [8, 0, 1]
    assert dg.pow(2, dg.tensor([1.5])).item() == pytest.approx(2**1.5)
    assert (2 ** dg.tensor([True, False])).tolist() == [2, 1]
    x = dg.tensor([3])
    x **= 2
    assert x.tolist() == [9]


def test_alpha_is_multiplied_in_the_dtype_of_the_result() -> None:
    x, third = dg.zeros(1, dtype=dg.float64), 1 / 3
    assert dg.add(x, dg.tensor([7]), alpha=third).item() == 7 * third
    assert dg.sub(x, dg.tensor([7]), alpha=third).item() == -7 * third
    assert dg.rsub(dg.tensor([7]), x, alpha=third).item() == -7 * third
    flags = dg.tensor([True, False])
    assert dg.add(flags, flags, alpha=True).tolist() == [True, False]
    assert dg.add(flags, flags, alpha=2).dtype == dg.bool


def test_positive_is_the_tensor_itself() -> None:
    x = dg.tensor([1.0, -2.0])
    assert dg.positive(x) is x


def test_where_on_one_argument_gives_indices() -> None:
    rows, columns = dg.where(dg.tensor([[0.0, 2.0], [3.0, 0.0]]))
    assert (rows.tolist(), columns.tolist(), rows.dtype) == ([0, 1], [1, 0], dg.int64)


def test_shifts_fill_with_the_sign() -> None:
    x = dg.tensor([-3, 5, -128], dtype=dg.int8)
    assert (x << dg.tensor([1, 7, 1], dtype=dg.int8)).tolist() == [-6, -128, 0]
    assert (x >> dg.tensor([1, 9, 100], dtype=dg.int8)).tolist() == [-2, 0, -1]
    assert (dg.tensor([250], dtype=dg.uint8) >> 7).tolist() == [1]
    assert (1 << dg.tensor([3, 0])).tolist() == [8, 1]


def test_ldexp_beyond_the_powers_that_float64_holds() -> None:
    x = dg.tensor([2.0**-1000], dtype=dg.float64)
    assert dg.ldexp(x, dg.tensor([1100])).item() == 2.0**100
    y = dg.tensor([3.0], requires_grad=True)
    dg.ldexp(y, dg.tensor([-2])).sum().backward()
    assert y.grad.tolist() == [0.25]


def test_comparison_with_a_number_that_the_dtype_cannot_hold() -> None:
    x = dg.tensor([1, 250], dtype=dg.uint8)
    assert (x < 300).tolist() == (x != -1).tolist() == (x > -1).tolist() == [True, True]
    assert (x == 256).tolist() == (x == -6).tolist() == (x >= 300).tolist() == [False, False]
    assert (x >= 250).tolist() == [False, True]
