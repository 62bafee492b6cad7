"""Points at which a plain formula of a value or a gradient fails, and the ends of the domains."""

from __future__ import annotations

import math

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.ops import transcendental


def gradients_of(name: str, *operands: float) -> list[float]:
    tensors = [Tensor(np.array(v, np.float64), requires_grad=True) for v in operands]
    getattr(transcendental, name)(*tensors).backward()
    return [t.grad.item() for t in tensors if t.grad is not None]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["atan2", "logaddexp", "hypot"])
@pytest.mark.parametrize("at", [(0.0, 0.0), (0.0, -1.0), (np.inf, -np.inf), (-np.inf, -np.inf), (np.inf, 1.0)])
def test_gradients_at_singular_points_are_those_of_torch(name: str, at: tuple[float, float]) -> None:
    torch = pytest.importorskip("torch")
    theirs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in at]
    getattr(torch, name)(*theirs).backward()
    np.testing.assert_array_equal(gradients_of(name, *at), [t.grad.item() for t in theirs])


def test_gradients_of_huge_operands() -> None:
    assert gradients_of("atan2", 1e200, 1e200) == pytest.approx([5e-201, -5e-201], rel=1e-14)
    assert gradients_of("hypot", 3e200, 4e200) == pytest.approx([0.6, 0.8], rel=1e-14)
    assert gradients_of("logaddexp", 1e300, 1e300) == [0.5, 0.5]


def test_gradient_of_asin_near_the_end() -> None:
    x = 1 - 2.0**-50
    (gradient,) = gradients_of("asin", x)
    assert gradient == pytest.approx(1 / math.sqrt(2.0**-50 * (2 - 2.0**-50)), rel=1e-15)


def test_gradients_of_inverse_hyperbolic_functions_far_out() -> None:
    assert gradients_of("asinh", 1e300) == pytest.approx([1e-300], rel=1e-14)
    assert gradients_of("acosh", 1e300) == pytest.approx([1e-300], rel=1e-14)
    x = 1 - 2.0**-50
    assert gradients_of("atanh", x) == pytest.approx([1 / (2.0**-50 * (2 - 2.0**-50))], rel=1e-15)


@pytest.mark.parametrize("x", [0.0, 1e-9, -1e-9, 1e-4, 0.299999, 0.300001, -0.1])
def test_the_derivatives_of_sinc_near_zero(x: float) -> None:
    """By its power series, which PyTorch's quotient loses to cancellation."""
    t = math.pi * x
    first = math.pi * sum((-1) ** k * 2 * k * t ** (2 * k - 1) / math.factorial(2 * k + 1) for k in range(1, 12))
    second = math.pi**2 * sum(
        (-1) ** k * 2 * k * (2 * k - 1) * t ** (2 * k - 2) / math.factorial(2 * k + 1) for k in range(1, 12)
    )
    point = Tensor(np.array(x), requires_grad=True)
    (slope,) = dg.autograd.grad(transcendental.sinc(point), [point], create_graph=True)
    assert slope.item() == pytest.approx(first, rel=1e-13)
    assert dg.autograd.grad(slope, [point])[0].item() == pytest.approx(second, rel=1e-12)


EDGES: dict[str, list[list[float]]] = {
    "logit": [[0.0, 1.0, 0.5, -1.0, 2.0, np.nan]],
    "acosh": [[1.0, 0.5, np.inf, np.nan]],
    "asinh": [[0.0, -0.0, np.inf, -np.inf, np.nan]],
    "atanh": [[1.0, -1.0, 2.0, 0.0]],
    "xlogy": [[0.0, 0.0, 0.0, 1.0, np.nan, 2.0, 0.0], [0.0, np.nan, -1.0, 0.0, 1.0, 2.0, np.inf]],
    "logaddexp2": [[1.0, -1e5, np.inf, -np.inf, np.inf], [2.0, 3.0, 5.0, -np.inf, np.inf]],
    "exp2": [[-np.inf, 0.0, 2000.0, np.nan]],
    "sinc": [[np.inf, np.nan, 0.0, -0.0]],
}


@pytest.mark.parity
@pytest.mark.parametrize("name", EDGES)
def test_values_and_gradients_at_the_edges_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    mine = [Tensor(np.array(v), requires_grad=True) for v in EDGES[name]]
    theirs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in EDGES[name]]
    out, other = getattr(transcendental, name)(*mine), getattr(torch, name)(*theirs)
    np.testing.assert_allclose(out.detach().numpy(), other.detach().numpy(), rtol=1e-14)
    out.sum().backward()
    other.sum().backward()
    for x, y in zip(mine, theirs, strict=True):
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-13)


@pytest.mark.parity
@pytest.mark.parametrize("eps", [0.0, 0.3, -1.0, 0.7])
def test_logit_with_eps_is_that_of_torch(eps: float) -> None:
    torch = pytest.importorskip("torch")
    points = [0.0, 1.0, 0.5, 0.25, -1.0, 2.0, np.nan, 0.3, 0.7]
    mine = Tensor(np.array(points), requires_grad=True)
    theirs = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    out, other = transcendental.logit(mine, eps), torch.logit(theirs, eps)
    np.testing.assert_allclose(out.detach().numpy(), other.detach().numpy(), rtol=1e-13, atol=1e-15)
    out.sum().backward()
    other.sum().backward()
    assert mine.grad is not None
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), rtol=1e-13)


ALIASES = {
    "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan", "arctan2": "atan2",
    "arctanh": "atanh", "absolute": "abs", "clip": "clamp", "divide": "div", "true_divide": "div", "fix": "trunc",
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "multiply": "mul", "negative": "neg",
    "not_equal": "ne", "subtract": "sub",
}  # fmt: skip


@pytest.mark.parametrize(("other", "name"), ALIASES.items())
def test_other_names(other: str, name: str) -> None:
    assert getattr(dg, other) is getattr(dg, name)
    assert getattr(Tensor, other) is getattr(Tensor, name)
    assert hasattr(Tensor, f"{other}_")
