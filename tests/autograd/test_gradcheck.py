"""The checks of derivatives: they accept right ones, and they find wrong ones."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck, gradgradcheck
from distgrad.autograd.gradcheck import GradcheckError
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
    with pytest.raises(RuntimeError, match=r"input 0 has elements that share memory.*Give it a clone"):
        gradcheck(dg.exp, leaf(1).expand(3))
    for function in (lambda x: 3, lambda x: (x * x, 3), lambda x: {"a": x}):
        with pytest.raises(TypeError, match="expects func to return a tensor or a sequence of tensors, not"):
            gradcheck(function, leaf(2))


def test_less_than_float64_warns_and_is_checked_with_larger_steps() -> None:
    x = dg.ones(2, requires_grad=True)
    with pytest.warns(UserWarning, match="input 0 is float32"):
        assert not gradcheck(lambda x: x * x, x, raise_exception=False)
    with pytest.warns(UserWarning, match="input 0 is float32"):
        assert gradcheck(lambda x: x * x, x, eps=1e-2, atol=1e-2)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_checks_that_are_not_here_are_refused(check: Any) -> None:
    last = "check_forward_ad" if check is gradcheck else "check_fwd_over_rev"
    for name in ("check_batched_grad", last):
        with pytest.raises(NotImplementedError, match=f"{name}: there is no check of"):
            check(dg.exp, leaf(2), **{name: True})
    only = "check_backward_ad" if check is gradcheck else "check_rev_over_rev"
    with pytest.raises(ValueError, match=f"{only}=False leaves nothing to check"):
        check(dg.exp, leaf(2), **{only: False})


@pytest.mark.parametrize("masked", [None, True])
def test_arguments_without_effect_are_taken(masked: bool | None) -> None:
    assert gradcheck(
        dg.exp, leaf(2), check_grad_dtypes=True, check_undefined_grad=False, masked=masked, nondet_tol=1e-3
    )
    assert gradgradcheck(
        dg.exp, leaf(2), check_grad_dtypes=True, check_undefined_grad=False, masked=bool(masked), nondet_tol=1e-3
    )


def test_fast_mode() -> None:
    assert gradcheck(dg.exp, leaf(3, 4), fast_mode=True)
    assert gradgradcheck(dg.exp, leaf(3, 4), fast_mode=True)
    assert gradcheck(dg.exp, leaf(0), fast_mode=True) and gradcheck(dg.exp, leaf(), fast_mode=True)
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"):
        gradcheck(wrong(first=1.01), leaf(2), fast_mode=True)
    assert not gradgradcheck(wrong(second=1.01), leaf(2), fast_mode=True, raise_exception=False)


def test_results_without_history() -> None:
    x = leaf(2)
    assert gradcheck(lambda x: dg.ones(2, dtype=dg.float64), x)
    with pytest.raises(GradcheckError, match="Numerical gradient for function expected to be zero"):
        gradcheck(lambda x: x.detach() * 2, x)
    # beside a result with history, one without it is left out, as in PyTorch; the numbers count all of them
    assert gradcheck(lambda x: (x.detach() * 2, x * x), x)
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 1"):
        gradcheck(lambda x: (x.detach() * 2, wrong(first=1.01)(x)), x)


def test_a_backward_pass_that_differs_each_time_is_found() -> None:
    count = iter(range(1000))
    drifting = Primitive("Drifting", lambda x: x * 2, ("x",), {"x": lambda g: g * (2 + 1e-7 * next(count))})
    with pytest.raises(GradcheckError, match="not reentrant"):
        gradcheck(drifting, leaf(2))
    assert gradcheck(drifting, leaf(2), nondet_tol=1e-5)


def test_a_missing_gradient_has_to_count_as_zeros() -> None:
    class Careless(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, one: Any, two: Any) -> Any:
            return two * 3 if one is None else one * 2 + (1.0 if two is None else two * 3)

    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0"):
        gradcheck(Careless.apply, leaf(2))
    assert not gradcheck(Careless.apply, leaf(2), raise_exception=False)


def test_given_vectors_for_second_derivatives() -> None:
    vector = dg.ones(2, dtype=dg.float64, requires_grad=True)
    assert gradgradcheck(lambda x: x * x, leaf(2), vector)
    assert gradgradcheck(lambda x: (x * x, x**3), leaf(2), [vector, leaf(2)])
    assert gradgradcheck(dg.exp, leaf(2, 3), gen_non_contig_grad_outputs=True)
    with pytest.raises(RuntimeError, match="shape"):
        gradgradcheck(lambda x: x * x, leaf(2), dg.ones(3, dtype=dg.float64))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["gradcheck", "gradgradcheck"])
def test_signatures_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    mine, theirs = (inspect.signature(getattr(module.autograd, name)) for module in (dg, torch))
    assert [(p.name, p.kind, p.default) for p in mine.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]
