"""The checks of derivatives: they accept right ones, and they find wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck, gradgradcheck
from distgrad.autograd.primitive import Primitive


def leaf(*shape: int) -> dg.Tensor:
    return dg.Tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


def wrong(first: float = 1.0, second: float = 1.0) -> Primitive:
    """x**3 whose first or second derivative is off by a factor."""
    slope = Primitive("Slope", lambda x: 3 * first * x * x, ("x",), {"x": lambda g, x: g * 6.0 * second * x})
    return Primitive("Cube", lambda x: x**3, ("x",), {"x": lambda g, x: g * slope(x)})


def test_right_derivatives() -> None:
    assert gradcheck(wrong(), leaf(2, 3))
    assert gradgradcheck(wrong(), leaf(2, 3))


def test_wrong_first_derivative() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)Jacobian mismatch for output 0 .* input 0,\nnumerical:.*analytical:"):
        gradcheck(wrong(first=1.01), leaf(2))
    assert not gradcheck(wrong(first=1.01), leaf(2), raise_exception=False)
    assert gradcheck(wrong(first=1.01), leaf(2), rtol=0.1)


def test_wrong_second_derivative() -> None:
    assert gradcheck(wrong(second=1.01), leaf(2))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradgradcheck(wrong(second=1.01), leaf(2))
    assert not gradgradcheck(wrong(second=1.01), leaf(2), raise_exception=False)


def test_several_inputs_and_outputs() -> None:
    x, y, constant = leaf(2), leaf(2), dg.ones(2, dtype=dg.float64)

    def function(x: Any, y: Any, constant: Any) -> Any:
        return x * y + constant, (x * x).sum(), x.argmax()

    assert gradcheck(function, (x, y, constant))
    assert gradgradcheck(function, (x, y, constant))
    assert x.grad is None


def test_a_missing_dependency_is_found() -> None:
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(lambda x: x * 2 + x.detach(), leaf(2))


def test_inputs_are_put_back() -> None:
    x = leaf(2, 2)
    before = x.tolist()
    gradcheck(dg.exp, x)
    assert x.tolist() == before


def test_shapes_without_dimensions_or_elements() -> None:
    assert gradcheck(dg.exp, leaf())
    assert gradgradcheck(dg.exp, leaf())
    assert gradcheck(dg.exp, leaf(0, 2))


def test_a_gradient_of_another_dtype_is_found() -> None:
    bad = Primitive("Bad", lambda x: x * 2, ("x",), {"x": lambda g: (g * 2).astype(np.float32)})
    with pytest.raises(RuntimeError, match="the gradient of input 0 is float32"):
        gradcheck(bad, leaf(2))


def test_a_gradient_of_another_shape_is_found() -> None:
    bad = Primitive("Bad", lambda x: x * 2, ("x",), {"x": lambda g: g[None]})
    with pytest.raises(RuntimeError, match=r"the gradient of input 0 is float64 \[1, 2\], the input float64 \[2\]"):
        gradcheck(bad, leaf(2))


def test_what_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradcheck(dg.exp, dg.ones(2))
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradgradcheck(dg.exp, dg.ones(2))
    with pytest.raises(ValueError, match="need float64 inputs, not float32"):
        gradcheck(dg.exp, dg.ones(2, requires_grad=True))
