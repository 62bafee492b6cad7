"""What finite differences cannot see of the activations in pieces: their kinks. And what is drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.nn import functional as F
from distgrad.ops import rectifier

KINKS: dict[str, tuple[float, ...]] = {
    "leaky_relu": (0,),
    "elu": (0,),
    "selu": (0,),
    "celu": (0,),
    "rrelu": (0,),
    "hardtanh": (-1, 1),
    "relu6": (0, 6),
    "hardsigmoid": (-3, 3),
    "hardswish": (-3, 3),
    "threshold": (0.25,),
    "hardshrink": (-0.5, 0.5),
    "softshrink": (-0.5, 0.5),
}
ARGUMENTS: dict[str, tuple[float, ...]] = {"threshold": (0.25, -2.0), "celu": (2.0,)}
# in pieces that are straight: their gradient does not depend on the input
CURVED = ("elu", "selu", "celu", "hardswish")
AT_KINKS = {
    "leaky_relu": [0.01],
    "elu": [1],
    "selu": [1.0507009873554805 * 1.6732632423543772],
    "celu": [1],
    "rrelu": [(1 / 8 + 1 / 3) / 2],
    "hardtanh": [0, 0],
    "relu6": [0, 0],
    "hardsigmoid": [0, 0],
    "hardswish": [0, 1],
    "threshold": [0],
    "hardshrink": [0, 0],
    "softshrink": [0, 0],
}


@pytest.mark.parity
@pytest.mark.parametrize("name", KINKS)
def test_gradients_at_kinks_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    points = np.array([*KINKS[name], np.nan, np.inf, -np.inf], np.float64)
    mine, theirs = Tensor(points, requires_grad=True), torch.tensor(points, requires_grad=True)
    arguments = ARGUMENTS.get(name, ())
    out, other = getattr(rectifier, name)(mine, *arguments), getattr(torch.nn.functional, name)(theirs, *arguments)
    np.testing.assert_allclose(out.detach().numpy(), other.detach().numpy(), rtol=1e-7)
    (a,) = dg.autograd.grad(out.sum(), [mine], create_graph=True)
    (b,) = torch.autograd.grad(other.sum(), [theirs], create_graph=True)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-7)
    if name in CURVED:
        seed = np.arange(1.0, 1 + points.size)
        (a,) = dg.autograd.grad(a, [mine], [Tensor(seed)])
        (b,) = torch.autograd.grad(b, [theirs], [torch.from_numpy(seed)])
        finite = np.isfinite(points)
        np.testing.assert_allclose(a.numpy()[finite], b.numpy()[finite], rtol=1e-7)


@pytest.mark.parametrize(("name", "at_kinks"), AT_KINKS.items())
def test_gradients_at_kinks(name: str, at_kinks: list[float]) -> None:
    x = Tensor(np.array(KINKS[name], np.float64), requires_grad=True)
    getattr(rectifier, name)(x, *ARGUMENTS.get(name, ())).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), at_kinks, rtol=1e-15)


@pytest.mark.parity
def test_prelu_at_its_kink() -> None:
    torch = pytest.importorskip("torch")
    points = [0.0, -2.0, 3.0, np.nan, np.inf]
    x, weight = dg.tensor(points, requires_grad=True), dg.tensor([0.25], requires_grad=True)
    a, b = torch.tensor(points, requires_grad=True), torch.tensor([0.25], requires_grad=True)
    rectifier.prelu(x, weight).sum().backward()
    torch.prelu(a, b).sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), a.grad.numpy())
    np.testing.assert_array_equal(weight.grad.numpy(), b.grad.numpy())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", KINKS)
def test_nothing_overflows(name: str, dtype: Any) -> None:
    """Values, gradients and second derivatives where exp alone would be infinite."""
    largest = float(np.finfo(dtype).max) / 8
    x = Tensor(np.array([-largest, -300, -90, 90, 300, largest], dtype), requires_grad=True)
    out = getattr(rectifier, name)(x, *ARGUMENTS.get(name, ()))
    (first,) = dg.autograd.grad(out.sum(), [x], create_graph=True)
    assert first.requires_grad == (name in CURVED)
    second = dg.autograd.grad(first.sum(), [x])[0] if first.requires_grad else Tensor(np.zeros(6, dtype))
    for value in (out, first, second):
        assert value.dtype == dtype
        assert np.isfinite(value.detach().numpy()).all(), value
    slopes = {"leaky_relu": 0.01, "rrelu": (1 / 8 + 1 / 3) / 2, "hardshrink": 1, "softshrink": 1}
    right = {"selu": 1.0507009873554805, "hardtanh": 0, "hardsigmoid": 0, "relu6": 0}.get(name, 1)
    np.testing.assert_allclose(first.detach().numpy(), 3 * [slopes.get(name, 0)] + 3 * [right], rtol=1e-3, atol=1e-18)
    np.testing.assert_allclose(second.numpy(), 0, atol=1e-18)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "float16", "float32", "float64"])
def test_threshold_keeps_the_dtype(dtype: str) -> None:
    x = dg.tensor([1, 5, 9], dtype=np.dtype(dtype))
    for value in (2, 2.5, np.float64(2.5), True):
        out = rectifier.threshold(x, np.float64(4), value)
        assert out.dtype == dtype
        assert out.tolist() == [int(value) if "int" in dtype else float(value), 5, 9]


def test_numbers_of_numpy_do_not_widen() -> None:
    x = dg.tensor([-1.0, 0.25, 2.0])
    half = np.float64(0.5)
    results = [F.leaky_relu(x, half), F.elu(x, half), F.celu(x, half), F.hardtanh(x, -half, half)]
    results += [F.hardshrink(x, half), F.softshrink(x, half), F.softplus(x, half)]
    results += [F.rrelu(x, half, half), F.rrelu(x, half, half, True)]
    assert {out.dtype.name for out in results} == {"float32"}


def test_rrelu_in_training() -> None:
    x = dg.full((1000,), -1.0, dtype=dg.float64)
    x[::2] = 3.0
    x.requires_grad = True
    out = rectifier.rrelu(x, 0.25, 0.5, True, dg.Generator().manual_seed(7))
    out.sum().backward()
    slopes = x.grad.numpy()
    assert (slopes[::2] == 1).all()
    assert (slopes[1::2] >= 0.25).all() and (slopes[1::2] <= 0.5).all()
    assert len(set(slopes[1::2].tolist())) > 490
    np.testing.assert_array_equal(out.detach().numpy(), x.detach().numpy() * slopes)
    again = rectifier.rrelu(x, 0.25, 0.5, True, dg.Generator().manual_seed(7))
    assert again.tolist() == out.tolist()
    assert rectifier.rrelu(x, 0.25, 0.5, True).tolist() != out.tolist()
    assert rectifier.rrelu(x.half(), 0.25, 0.5, True).dtype == dg.float16


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("relu_", ()),
        ("leaky_relu_", (0.2,)),
        ("rrelu_", (0.25, 0.25)),
        ("elu_", (0.5,)),
        ("selu_", ()),
        ("celu_", (0.5,)),
        ("hardtanh_", (-0.5, 0.5)),
        ("threshold_", (0.1, 7.0)),
    ],
)
def test_forms_with_an_underscore(name: str, arguments: tuple[float, ...]) -> None:
    leaf = dg.tensor([-2.0, -0.3, 0.0, 0.4, 3.0], requires_grad=True)
    x = leaf * 1.0
    expected = getattr(F, name[:-1])(leaf, *arguments)
    assert getattr(F, name)(x, *arguments) is x
    assert x.tolist() == expected.tolist()
    mine, other = (dg.autograd.grad(out.sum(), leaf)[0].tolist() for out in (x, expected))
    assert mine == other


def test_methods() -> None:
    x = dg.tensor([[-2.0, 0.25], [0.75, -0.3]])
    assert x.hardshrink().tolist() == F.hardshrink(x).tolist()
    assert x.prelu(dg.tensor([0.5, 0.25])).tolist() == [[-1.0, 0.25], [0.75, pytest.approx(-0.075)]]
    assert dg.threshold(x, 0.5, 9.0).tolist() == [[9.0, 9.0], [0.75, 9.0]]
