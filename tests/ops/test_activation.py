"""What finite differences cannot see of the smooth activations: where a formula could overflow, the ends, chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.nn import functional as F
from distgrad.ops import activation, rectifier

SMOOTH = ("logsigmoid", "softplus", "gelu", "silu", "mish", "tanhshrink", "softsign")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in SMOOTH] + [("gelu", {"approximate": "tanh"}), ("softplus", {"threshold": 1e9})],
)
def test_nothing_overflows(name: str, options: dict[str, Any], dtype: Any) -> None:
    """Values, gradients and second derivatives where exp, a square or a cube alone would be infinite."""
    largest = float(np.finfo(dtype).max) / 8
    x = Tensor(np.array([-largest, -300, -90, 90, 300, largest], dtype), requires_grad=True)
    out = getattr(activation, name)(x, **options)
    (first,) = dg.autograd.grad(out.sum(), [x], create_graph=True)
    (second,) = dg.autograd.grad(first.sum(), [x])
    for value in (out, first, second):
        assert value.dtype == dtype
        assert np.isfinite(value.detach().numpy()).all(), value
    left = {"logsigmoid": 1, "tanhshrink": 1}.get(name, 0)
    right = {"logsigmoid": 0, "softsign": 0}.get(name, 1)
    np.testing.assert_allclose(first.detach().numpy(), 3 * [left] + 3 * [right], rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(second.numpy(), 0, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("name", [*SMOOTH, "sigmoid", "tanh"])
def test_the_ends_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    points = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30])
    mine, theirs = Tensor(points, requires_grad=True), torch.tensor(points, requires_grad=True)
    out, other = getattr(F, name)(mine), getattr(torch.nn.functional, name)(theirs)
    np.testing.assert_allclose(out.detach().numpy(), other.detach().numpy(), rtol=1e-12, atol=0)
    (a,) = dg.autograd.grad(out.sum(), [mine])
    (b,) = torch.autograd.grad(other.sum(), [theirs])
    finite = np.isfinite(points)  # at infinity PyTorch's softsign has NaN for 0
    np.testing.assert_allclose(a.numpy()[finite], b.numpy()[finite], rtol=1e-12, atol=1e-50)


def test_the_left_tail_of_gelu() -> None:
    """1 + erf(x) is 0 there; the value is -x * Q(-x), here with the first terms of Q's asymptotic series."""
    x = -20.0
    series = 1 - 1 / x**2 + 3 / x**4 - 15 / x**6 + 105 / x**8
    expected = -np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * series
    assert activation.gelu(Tensor(np.array(x))).item() == pytest.approx(expected, rel=1e-7)


def test_the_left_tail_of_sigmoid() -> None:
    for dtype, x in ((np.float32, -80.0), (np.float64, -700.0), (np.float16, -9.0)):
        value = dg.sigmoid(Tensor(np.array(x, dtype)))
        assert value.dtype == dtype
        assert value.item() == pytest.approx(np.exp(x), rel=4 * np.finfo(dtype).eps + np.exp(x))


def test_names_of_the_nodes() -> None:
    x = Tensor(np.ones(2), requires_grad=True)
    both = {**vars(activation), **vars(rectifier)}
    named = {name: both[name](x).grad_fn.name() for name in ("gelu", "silu", "selu", "logsigmoid", "glu", "relu6")}
    assert named == {
        "gelu": "GeluBackward0",
        "silu": "SiluBackward0",
        "selu": "EluBackward0",
        "logsigmoid": "LogSigmoidBackward0",
        "glu": "GluBackward0",
        "relu6": "HardtanhBackward0",
    }


# Gumbel softmax ------------------------------------------------------------------------------------------------------


def test_gumbel_softmax() -> None:
    logits = dg.tensor(np.log([0.5, 0.3, 0.2])).expand(20000, 3)
    soft = F.gumbel_softmax(logits, tau=0.5, generator=dg.Generator().manual_seed(1))
    assert soft.dtype == dg.float64
    np.testing.assert_allclose(soft.sum(1).numpy(), 1)
    # the largest of logits and Gumbel noise is distributed as the softmax of the logits
    shares = np.bincount(soft.argmax(1).numpy(), minlength=3) / 20000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.015)
    hard = F.gumbel_softmax(logits, tau=0.5, hard=True, generator=dg.Generator().manual_seed(1))
    np.testing.assert_allclose(hard.numpy(), np.eye(3)[soft.argmax(1).numpy()], atol=1e-12)


def test_gumbel_softmax_along_another_dimension() -> None:
    for hard in (False, True):
        out = F.gumbel_softmax(dg.zeros(3, 4, 2), hard=hard, dim=1)
        assert out.shape == (3, 4, 2) and out.dtype == dg.float32
        np.testing.assert_allclose(out.sum(1).numpy(), 1, rtol=1e-5)
    assert F.gumbel_softmax(dg.zeros(()), hard=True).item() == 1
    assert F.gumbel_softmax(dg.zeros(2, 0), hard=True).shape == (2, 0)


def test_the_hard_choice_has_the_gradient_of_the_soft_one() -> None:
    x = dg.tensor([[0.1, -0.4, 0.7]], dtype=dg.float64, requires_grad=True)
    weights = dg.tensor([1.0, -2.0, 0.5], dtype=dg.float64)
    gradients = []
    for hard in (False, True):
        out = F.gumbel_softmax(x, tau=0.7, hard=hard, generator=dg.Generator().manual_seed(5))
        gradients.append(dg.autograd.grad((out * weights).sum(), x)[0].numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-12)
    assert np.abs(gradients[0]).max() > 1e-3


def test_gumbel_softmax_refuses() -> None:
    with pytest.raises(RuntimeError, match="gumbel_softmax is not defined for int64 tensors"):
        F.gumbel_softmax(dg.tensor([1, 2]))
    with pytest.raises(TypeError, match="argument 'logits' must be Tensor"):
        F.gumbel_softmax([1.0, 2.0])
    with pytest.warns(UserWarning, match="`eps` parameter is deprecated"):
        F.gumbel_softmax(dg.zeros(2), eps=1.0)
