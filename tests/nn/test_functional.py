from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad.nn import functional as F

# Functions of their own, beside those of ``distgrad.ops``, each of which has a row in the op table; with the arguments
# that they need besides the input.
IN_PLACE: dict[str, tuple[Any, ...]] = {
    "celu": (1.3,),
    "elu": (0.7,),
    "hardsigmoid": (),
    "hardswish": (),
    "hardtanh": (-0.5, 2.5),
    "leaky_relu": (0.2,),
    "mish": (),
    "relu": (),
    "relu6": (),
    "rrelu": (0.1, 0.4),
    "selu": (),
    "silu": (),
    "threshold": (0.5, -3.0),
}
WITH_A_DIM = ("log_softmax", "softmax", "softmin")
WITH_INDICES: dict[str, Any] = {
    "adaptive_max_pool1d": (1, 3, 7),
    "adaptive_max_pool2d": (1, 2, 6, 5),
    "max_pool1d": (1, 3, 7),
    "max_pool2d": (1, 2, 6, 5),
}


def test_every_function_has_a_row_or_a_test_here() -> None:
    own = {
        name for name in F.__all__ if not getattr(F, name).__module__.startswith("distgrad.ops.") or name.endswith("_")
    }
    forms = {f"{name}_" for name in IN_PLACE if hasattr(F, f"{name}_")}
    assert own == {*IN_PLACE, *forms, *WITH_A_DIM, *WITH_INDICES}


@pytest.mark.parametrize("name", IN_PLACE)
def test_forms_of_activations(name: str) -> None:
    """``inplace`` and the underscore write what the function gives over the input, and have its gradient."""

    def run(function: Any, **kwargs: Any) -> tuple[Any, Any, Any, Any]:
        leaf = distgrad.linspace(-4, 4, 11, dtype=distgrad.float64).requires_grad_()
        x = leaf * 1.0
        out = function(x, *IN_PLACE[name], **kwargs)
        out.sum().backward()
        return x, out, out.tolist(), leaf.grad.tolist()  # type: ignore[union-attr]

    x, out, values, gradient = run(getattr(F, name))
    assert out is not x and values != x.tolist()
    forms = [run(getattr(F, name), inplace=True)]
    forms += [run(getattr(F, f"{name}_"))] if hasattr(F, f"{name}_") else []
    for x, out, *found in forms:
        assert out is x and found == [values, gradient]


@pytest.mark.parity
@pytest.mark.parametrize("name", IN_PLACE)
def test_activations_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    mine, theirs = getattr(F, name), getattr(torch.nn.functional, name)
    given = np.linspace(-4, 4, 11)
    x, y = distgrad.tensor(given, requires_grad=True), torch.tensor(given, requires_grad=True)
    out, expected = mine(x, *IN_PLACE[name]), theirs(y, *IN_PLACE[name])
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    (gradient,), (other,) = distgrad.autograd.grad(out.sum(), x), torch.autograd.grad(expected.sum(), y)
    np.testing.assert_allclose(gradient.numpy(), other.numpy(), rtol=1e-7)  # theirs has 1 / 6 in float32
    defaults = [
        {p.name: p.default for p in inspect.signature(f).parameters.values() if p.name != "generator"}
        for f in (mine, theirs)
    ]
    assert defaults[0] == defaults[1]


@pytest.mark.parity
@pytest.mark.parametrize("name", WITH_A_DIM)
@pytest.mark.filterwarnings("ignore:Implicit dimension")
def test_softmax_chooses_the_dim_that_torch_does(name: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for shape in ((), (3,), (2, 3), (2, 3, 2), (2, 3, 2, 2)):
        x = rng.standard_normal(shape)
        for arguments in ({}, {"dim": -1}):
            found = getattr(F, name)(distgrad.tensor(x), **arguments)
            expected = getattr(torch.nn.functional, name)(torch.tensor(x), **arguments)
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("name", WITH_INDICES)
def test_pooling_gives_indices_when_asked(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal(WITH_INDICES[name])
    for size in (2, 3):
        expected = getattr(torch.nn.functional, name)(torch.tensor(x), size, return_indices=True)
        found = getattr(F, name)(distgrad.tensor(x), size, return_indices=True)
        assert [part.tolist() for part in found] == [part.tolist() for part in expected]
        assert getattr(F, name)(distgrad.tensor(x), size).tolist() == expected[0].tolist()


def test_every_name_is_there() -> None:
    assert all(callable(getattr(F, name)) for name in F.__all__)


def test_one_hot() -> None:
    assert F.one_hot(distgrad.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    out = F.one_hot(distgrad.tensor([[1], [0]]), 4)
    assert out.shape == (2, 1, 4) and out.dtype == np.int64 and out.sum().item() == 2
    assert F.one_hot(distgrad.tensor([], dtype=np.int64), 3).shape == (0, 3)
    with pytest.raises(RuntimeError, match="class value 3 is out of bounds: there are 3 classes"):
        F.one_hot(distgrad.tensor([3]), 3)
    with pytest.raises(RuntimeError, match="class value -1 is out of bounds"):
        F.one_hot(distgrad.tensor([-1, 1]))
    with pytest.raises(RuntimeError, match="only applicable to index tensor"):
        F.one_hot(distgrad.tensor([1.0]))
    with pytest.raises(RuntimeError, match="Can not infer"):
        F.one_hot(distgrad.tensor([], dtype=np.int64))


def test_dropout_takes_a_generator() -> None:
    x = distgrad.ones(50)
    masks = [F.dropout(x, 0.5, generator=distgrad.Generator(3)).tolist() for _ in range(2)]
    assert masks[0] == masks[1] and 0.0 in masks[0] and 2.0 in masks[0]
    assert F.dropout(x, 0.5, training=False) is x


def test_softmax_takes_a_dtype() -> None:
    x = distgrad.tensor([1.0, 2.0])
    assert F.softmax(x, 0, dtype=distgrad.float64).dtype == np.float64
    assert F.log_softmax(x, 0).exp().sum().item() == pytest.approx(1)
