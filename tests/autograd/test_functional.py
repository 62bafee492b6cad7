"""Products with Jacobians and Hessians, and these matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import functional


def inputs(t: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return tuple(t.tensor(rng.uniform(0.5, 1.5, shape), dtype=t.float64) for shape in ((2, 3), (3,)))


def matrix(x: Any, w: Any) -> Any:
    return x.exp() @ w * w.sum()


def several(x: Any, w: Any) -> Any:
    return (x * w).sin(), w**3


def scalar(x: Any, w: Any) -> Any:
    return (x.exp() @ w * w[0]).sum() + (w**3).sum()


def single(x: Any) -> Any:
    return (x**3).sum(0)


def linear(x: Any, w: Any) -> Any:
    return x @ w


def flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [part for item in value for part in flat(item)]
    return [value.detach().numpy()]


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "vjp": lambda f, t: f.vjp(matrix, inputs(t), t.tensor([1.0, -2.0], dtype=t.float64)),
    "vjp of several": lambda f, t: f.vjp(several, inputs(t), inputs(t)),
    "vjp of a scalar": lambda f, t: f.vjp(scalar, inputs(t)),
    "jvp": lambda f, t: f.jvp(matrix, inputs(t), inputs(t)),
    "jvp of several": lambda f, t: f.jvp(several, inputs(t), inputs(t)),
    "jvp of one": lambda f, t: f.jvp(single, inputs(t)[0], inputs(t)[0]),
    "jvp of a linear function": lambda f, t: f.jvp(lambda x: x * 2, inputs(t)[0], inputs(t)[0]),
    "jacobian": lambda f, t: f.jacobian(matrix, inputs(t)),
    "jacobian of one": lambda f, t: f.jacobian(single, inputs(t)[0]),
    "jacobian of several": lambda f, t: f.jacobian(several, inputs(t)),
    "jacobian of a scalar": lambda f, t: f.jacobian(scalar, inputs(t)),
    "jacobian with unused": lambda f, t: f.jacobian(lambda x, w: w * 2, inputs(t)),
    "hessian": lambda f, t: f.hessian(scalar, inputs(t)),
    "hessian of one": lambda f, t: f.hessian(lambda x: (x**3).sum(), inputs(t)[0]),
    "hessian of a linear function": lambda f, t: f.hessian(lambda x: x.sum(), inputs(t)[0]),
    "hvp": lambda f, t: f.hvp(scalar, inputs(t), inputs(t)),
    "vhp": lambda f, t: f.vhp(scalar, inputs(t), inputs(t)),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", CALLS)
def test_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    mine, theirs = CALLS[name](functional, dg), CALLS[name](torch.autograd.functional, torch)
    a, b = flat(mine), flat(theirs)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


def test_jacobians_against_differences() -> None:
    x, w = inputs(dg)
    eps = 1e-6
    for function in (matrix, linear):
        jacobian_x, jacobian_w = functional.jacobian(function, (x, w))
        for which, found in ((0, jacobian_x), (1, jacobian_w)):
            given = [x.numpy().copy(), w.numpy().copy()]
            expected = np.zeros(tuple(found.shape))
            for place in np.ndindex(given[which].shape):
                ends = []
                for step in (eps, -eps):
                    moved = [array.copy() for array in given]
                    moved[which][place] += step
                    ends.append(function(*map(dg.from_numpy, moved)).numpy())
                expected[(..., *place)] = (ends[0] - ends[1]) / (2 * eps)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7, atol=1e-8)


def test_forward_mode_gives_the_same() -> None:
    for function in (matrix, several, scalar):
        a = flat(functional.jacobian(function, inputs(dg)))
        b = flat(functional.jacobian(function, inputs(dg), strategy="forward-mode"))
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-13)


def test_create_graph() -> None:
    x = dg.tensor([0.5, 1.5], dtype=dg.float64, requires_grad=True)
    jacobian = functional.jacobian(lambda x: x**3, x, create_graph=True)
    assert jacobian.requires_grad
    jacobian.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [3.0, 9.0])
    assert not functional.jacobian(lambda x: x**3, x).requires_grad
    value, product = functional.vjp(lambda x: (x**2).sum(), x, create_graph=True)
    (second,) = dg.autograd.grad(product.sum(), x)
    np.testing.assert_allclose(second.numpy(), [2.0, 2.0])
    assert value.requires_grad
    assert x.grad is not None


def test_nothing_of_the_caller_is_touched() -> None:
    x = dg.tensor([0.5, 1.5], dtype=dg.float64, requires_grad=True)
    functional.hessian(lambda x: (x**3).sum(), x)
    assert x.grad is None
    with dg.no_grad():
        assert functional.jacobian(lambda x: x**2, x).tolist() == [[1.0, 0.0], [0.0, 3.0]]


def test_refusals() -> None:
    x = dg.ones(2, dtype=dg.float64)
    with pytest.raises(RuntimeError, match="vector v can only be None"):
        functional.vjp(lambda x: x * 2, x)
    with pytest.raises(RuntimeError, match=r"invalid size at entry 0: should be \[2\] as the output, but got \[3\]"):
        functional.vjp(lambda x: x * 2, x, dg.ones(3))
    with pytest.raises(RuntimeError, match="v has 1 tensors and the input 2"):
        functional.jvp(lambda a, b: a * b, (x, x), (x,))
    with pytest.raises(TypeError, match="inputs must be a Tensor"):
        functional.vjp(lambda x: x, 3.0)
    with pytest.raises(TypeError, match="the output of func must be a Tensor"):
        functional.jacobian(lambda x: 3.0, x)
    with pytest.raises(RuntimeError, match="should contain a single element, not 2"):
        functional.hessian(lambda x: x * 2, x)
    with pytest.raises(ValueError, match="strategy is"):
        functional.jacobian(lambda x: x, x, strategy="sideways")
    with pytest.raises(RuntimeError, match="does not require gradients"):
        functional.jacobian(lambda x: dg.ones(2), x, strict=True)
    with pytest.raises(RuntimeError, match="independent of input 1"):
        functional.jacobian(lambda a, b: a * 2, (x, x), strict=True)
