"""What finite differences cannot see of the activations: their kinks, and values at which a formula could overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.ops import activation

KINKS = {
    "leaky_relu": (0,),
    "elu": (0,),
    "selu": (0,),
    "hardtanh": (-1, 1),
    "hardsigmoid": (-3, 3),
    "hardswish": (-3, 3),
}
SMOOTH = ("logsigmoid", "softplus", "gelu", "silu", "mish")
STRAIGHT = ("leaky_relu", "hardtanh", "hardsigmoid")  # in pieces: their gradient does not depend on the input


@pytest.mark.parity
@pytest.mark.parametrize("name", KINKS)
def test_gradients_at_kinks_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    points = np.array([*KINKS[name], np.nan, np.inf, -np.inf], np.float64)
    mine = Tensor(points, requires_grad=True)
    theirs = torch.tensor(points, requires_grad=True)
    (a,) = dg.autograd.grad(getattr(activation, name)(mine).sum(), [mine], create_graph=True)
    (b,) = torch.autograd.grad(getattr(torch.nn.functional, name)(theirs).sum(), [theirs], create_graph=True)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-7)
    if name not in STRAIGHT:
        seed = np.arange(1.0, 1 + points.size)
        (a,) = dg.autograd.grad(a, [mine], [Tensor(seed)])
        (b,) = torch.autograd.grad(b, [theirs], [torch.from_numpy(seed)])
        finite = np.isfinite(points)
        np.testing.assert_allclose(a.numpy()[finite], b.numpy()[finite], rtol=1e-12)


AT_KINKS = {
    "leaky_relu": [0.01],
    "elu": [1],
    "selu": [1.0507009873554805 * 1.6732632423543772],
    "hardtanh": [0, 0],
    "hardsigmoid": [0, 0],
    "hardswish": [0, 1],
}


@pytest.mark.parametrize(("name", "at_kinks"), AT_KINKS.items())
def test_gradients_at_kinks(name: str, at_kinks: list[float]) -> None:
    x = Tensor(np.array(KINKS[name], np.float64), requires_grad=True)
    getattr(activation, name)(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), at_kinks, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in (*SMOOTH, *KINKS)] + [("gelu", {"approximate": "tanh"}), ("softplus", {"threshold": 1e9})],
)
def test_nothing_overflows(name: str, options: dict[str, Any], dtype: Any) -> None:
    """Values, gradients and second derivatives where exp, a square or a cube alone would be infinite."""
    largest = float(np.finfo(dtype).max) / 8
    x = Tensor(np.array([-largest, -300, -90, 90, 300, largest], dtype), requires_grad=True)
    out = getattr(activation, name)(x, **options)
    (first,) = dg.autograd.grad(out.sum(), [x], create_graph=True)
    assert first.requires_grad != (name in STRAIGHT)
    second = dg.autograd.grad(first.sum(), [x])[0] if first.requires_grad else Tensor(np.zeros(6, dtype))
    for value in (out, first, second):
        assert value.dtype == dtype
        assert np.isfinite(value.detach().numpy()).all(), value
    left = {"logsigmoid": 1, "leaky_relu": 0.01}.get(name, 0)
    right = {"logsigmoid": 0, "selu": 1.0507009873554805, "hardtanh": 0, "hardsigmoid": 0}.get(name, 1)
    np.testing.assert_allclose(first.detach().numpy(), 3 * [left] + 3 * [right], rtol=1e-3, atol=1e-30)
    np.testing.assert_allclose(second.numpy(), 0, atol=1e-30)


def test_the_left_tail_of_gelu() -> None:
    """1 + erf(x) is 0 there; the value is -x * Q(-x), here with the first terms of Q's asymptotic series."""
    x = -20.0
    series = 1 - 1 / x**2 + 3 / x**4 - 15 / x**6 + 105 / x**8
    expected = -np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * series
    assert activation.gelu(Tensor(np.array(x))).item() == pytest.approx(expected, rel=1e-7)


def test_names_of_the_nodes() -> None:
    x = Tensor(np.ones(2), requires_grad=True)
    named = {name: getattr(activation, name)(x).grad_fn.name() for name in ("gelu", "silu", "selu", "logsigmoid")}
    assert named == {
        "gelu": "GeluBackward0",
        "silu": "SiluBackward0",
        "selu": "EluBackward0",
        "logsigmoid": "LogSigmoidBackward0",
    }
