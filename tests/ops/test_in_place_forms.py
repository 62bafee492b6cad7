"""The forms that end in an underscore: there wherever PyTorch has one, and the same values and gradients as without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.ops import (
    comparison,
    division,
    elementwise,
    extremum,
    floating,
    fused,
    power,
    rectifier,
    rounding,
    special,
    transcendental,
)

FAMILIES = (
    comparison, division, elementwise, extremum, floating, fused, power, rectifier, rounding, special, transcendental,
)  # fmt: skip
NAMES = [name for family in FAMILIES for name in getattr(family, "IN_PLACE", ())]

INTEGERS = ("bitwise_", "gcd", "lcm")
THREE = ("addcdiv", "addcmul", "lerp")
ONE = (  # operand; all others take two
    "abs absolute acos acosh arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh bitwise_not ceil cos "
    "cosh deg2rad digamma erf erfc erfinv exp exp2 expm1 fix floor frac lgamma log log10 log1p log2 logical_not logit "
    "nan_to_num neg negative rad2deg reciprocal relu round rsqrt sgn sigmoid sign sin sinc sinh sqrt square tan tanh "
    "trunc"
).split()
# in the domain of all of them, but above 1 for the second
ABOVE_ONE = ("acosh", "arccosh")
UNDEFINED = ("floor_divide", "heaviside")  # have no derivative


def operands(name: str, module: Any) -> tuple[Any, ...]:
    if name.startswith(INTEGERS):
        x: Any = module.tensor([6, 4, 9])
        y: Any = module.tensor([2, 3, 1])
    else:
        shift = 1.0 if name in ABOVE_ONE else 0.0
        x = module.tensor([0.3 + shift, 0.65 + shift, 0.8 + shift], dtype=module.float64)
        y = module.tensor([0.65, 0.4, 0.55], dtype=module.float64)
    return (x,) if name in ONE else (x, y, y + 0.2) if name in THREE else (x, y)


@pytest.mark.parity
def test_there_is_one_wherever_torch_has_it() -> None:
    torch = pytest.importorskip("torch")
    methods = [name for family in FAMILIES for name in family.METHODS if not name.endswith("_")]
    assert [name for name in NAMES if not hasattr(torch.Tensor, f"{name}_")] == []
    assert [name for name in methods if hasattr(torch.Tensor, f"{name}_") and not hasattr(Tensor, f"{name}_")] == []


@pytest.mark.parametrize("name", NAMES)
def test_same_as_out_of_place(name: str) -> None:
    x, *others = operands(name, dg)
    expected = getattr(dg, name)(x, *others)
    assert getattr(x, f"{name}_")(*others) is x
    assert x.dtype == (dg.int64 if name.startswith(INTEGERS) else dg.float64)
    np.testing.assert_array_equal(x.numpy(), expected.numpy())
    assert x._version == 1


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*comparison.IN_PLACE, *UNDEFINED, *INTEGERS)])
def test_same_gradients_as_out_of_place(name: str) -> None:
    gradients = []
    for form in (name, f"{name}_"):
        leaves = [x.clone().requires_grad_() for x in operands(name, dg)]
        changed = leaves[0] * 1.0
        out = getattr(changed, form)(*leaves[1:])
        assert out.requires_grad and (out is changed) == form.endswith("_")
        weights = dg.tensor([1.0, -2.0, 0.5], dtype=dg.float64)
        gradients.append(dg.autograd.grad((out * weights).sum(), leaves, allow_unused=True))
    for mine, expected in zip(*gradients, strict=True):
        assert (mine is None) == (expected is None)
        if mine is not None:
            np.testing.assert_array_equal(mine.numpy(), expected.numpy())


def test_a_result_of_another_kind_is_refused() -> None:
    for name in ("exp", "sqrt", "sigmoid", "sin", "reciprocal", "lgamma", "deg2rad"):
        with pytest.raises(RuntimeError, match="result type float32 can't be cast to the desired output type int64"):
            getattr(dg.tensor([1, 2]), f"{name}_")()
    for name in ("div", "copysign", "xlogy", "atan2"):
        with pytest.raises(RuntimeError, match="result type float32 can't be cast"):
            getattr(dg.tensor([1, 2]), f"{name}_")(dg.tensor([1, 2]))
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        dg.ones(1).addcmul_(dg.ones(3), dg.ones(3))


def test_comparisons_are_written_as_numbers() -> None:
    x = dg.tensor([1.0, 2.0, 3.0])
    assert x.gt_(1.5).tolist() == [0.0, 1.0, 1.0]
    assert dg.tensor([0, 3]).logical_not_().tolist() == [1, 0]
