"""A module as a function of its parameters, and the parameters of many modules as one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.func import functional_call, stack_module_state


def same(actual: Tensor, expected: Tensor) -> None:
    np.testing.assert_array_equal(actual.detach().numpy(), expected.detach().numpy())


def doubled(module: Any) -> dict[str, Tensor]:
    return {name: p.detach() * 2 for name, p in module.named_parameters()}


def test_other_parameters() -> None:
    layer, x = dg.nn.Linear(3, 2), dg.randn(5, 3)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    same(functional_call(layer, doubled(layer), (x,)), x @ (layer.weight * 2).T + layer.bias * 2)
    for name, p in layer.named_parameters():
        same(p, before[name])
        assert isinstance(p, dg.nn.Parameter)


def test_some_parameters_and_several_dictionaries() -> None:
    layer, x = dg.nn.Linear(3, 2), dg.randn(5, 3)
    zero = dg.zeros(2)
    same(functional_call(layer, {"bias": zero}, x), x @ layer.weight.T)
    same(functional_call(layer, [{"bias": zero}, {"weight": dg.ones(2, 3)}], x), x @ dg.ones(3, 2))


def test_arguments() -> None:
    class Scaled(dg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = dg.nn.Parameter(dg.ones(2))

        def forward(self, a: Tensor, b: Tensor | float = 1.0, *, c: float = 0.0) -> Tensor:
            return self.weight * a * b + c

    module, x = Scaled(), dg.randn(2)
    weights = {"weight": dg.ones(2) * 3}
    same(functional_call(module, weights, x), x * 3)
    same(functional_call(module, weights, (x, 2.0)), x * 6)
    same(functional_call(module, weights, (x,), {"c": 1.0}), x * 3 + 1)
    same(functional_call(module, weights, kwargs={"a": x, "b": 2.0}), x * 6)


def test_buffers_are_changed_in_the_ones_given() -> None:
    norm, x = dg.nn.BatchNorm1d(3), dg.randn(5, 3)
    mean = dg.zeros(3)
    functional_call(norm, {"running_mean": mean}, (x,))
    np.testing.assert_allclose(mean.numpy(), 0.1 * x.numpy().mean(0), rtol=1e-5, atol=1e-7)
    same(norm.running_mean, dg.zeros(3))


def test_the_module_is_put_back_after_an_error() -> None:
    layer = dg.nn.Linear(3, 2)
    weight = layer.weight
    with pytest.raises(RuntimeError):
        functional_call(layer, doubled(layer), (dg.randn(5, 4),))
    assert layer.weight is weight


class Tied(dg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = dg.nn.Linear(2, 2, bias=False)
        self.second = dg.nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


def test_tied_weights() -> None:
    module, x = Tied(), dg.randn(2)
    weight = dg.randn(2, 2)
    for name in ("first.weight", "second.weight"):
        same(functional_call(module, {name: weight}, x), x @ weight.T @ weight.T)
    same(functional_call(module, {"first.weight": weight}, x, tie_weights=False), x @ weight.T @ module.first.weight.T)
    both = {"first.weight": weight, "second.weight": weight * 2}
    same(functional_call(module, both, x, tie_weights=False), x @ weight.T @ (weight * 2).T)
    with pytest.raises(ValueError, match=r"multiple values for keys .* tied"):
        functional_call(module, both, x)


def test_gradients_reach_what_is_given() -> None:
    layer, x = dg.nn.Linear(3, 2), dg.randn(5, 3)
    weight = dg.ones(2, 3, requires_grad=True)
    functional_call(layer, {"weight": weight}, x).sum().backward()
    np.testing.assert_allclose(weight.grad.numpy(), np.tile(x.numpy().sum(0), (2, 1)), rtol=1e-5)  # type: ignore[union-attr]
    assert layer.weight.grad is None and layer.bias.grad is not None


def test_stacked_state() -> None:
    models = [dg.nn.Sequential(dg.nn.Linear(3, 2), dg.nn.BatchNorm1d(2)) for _ in range(4)]
    models[0][0].bias.requires_grad_(False)
    parameters, buffers = stack_module_state(models)
    assert list(parameters) == [name for name, _ in models[0].named_parameters()]
    assert parameters["0.weight"].shape == (4, 2, 3)
    assert parameters["0.weight"].is_leaf and parameters["0.weight"].requires_grad
    assert not parameters["0.bias"].requires_grad
    assert buffers["1.running_mean"].shape == (4, 2)
    assert not buffers["1.running_mean"].requires_grad
    same(parameters["0.weight"][2], models[2][0].weight)


# As PyTorch -----------------------------------------------------------------------------------------------------------

CASES: dict[str, Callable[[Any], Any]] = {
    "all": lambda n: n.call(n.layer, n.given, (n.x,)),
    "some": lambda n: n.call(n.layer, {"weight": n.given["weight"]}, n.x),
    "a list of dictionaries": lambda n: n.call(n.layer, [n.given], n.x),
    "unknown name": lambda n: n.call(n.layer, {"other": n.x}, n.x),
    "unknown part": lambda n: n.call(n.layer, {"a.weight": n.x}, n.x),
    "a part": lambda n: n.call(n.chain, {"0": n.x}, n.x),
    "unknown name of a part": lambda n: n.call(n.chain, {"0.other": n.x}, n.x),
    "unknown name, strict": lambda n: n.call(n.layer, {**n.given, "other": n.x}, n.x, strict=True),
    "missing name, strict": lambda n: n.call(n.layer, {"weight": n.given["weight"]}, n.x, strict=True),
    "strict": lambda n: n.call(n.layer, n.given, n.x, strict=True),
    "twice": lambda n: n.call(n.layer, (n.given, n.given), n.x),
    "no dictionary": lambda n: n.call(n.layer, 3, n.x),
    "no module": lambda n: n.call(3, n.given, n.x),
    "stack nothing": lambda n: n.stack([]),
    "stack others": lambda n: n.stack([n.layer, n.chain]),
    "stack modes": lambda n: n.stack([n.layer, n.t.nn.Linear(3, 2).eval()]),
    "stack": lambda n: n.stack([n.layer, n.layer])[0]["weight"],
}


def namespace(library: Any) -> SimpleNamespace:
    layer = library.nn.Linear(3, 2)
    with library.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(0.25)
    return SimpleNamespace(
        t=library,
        call=library.func.functional_call,
        stack=library.func.stack_module_state,
        layer=layer,
        chain=library.nn.Sequential(layer),
        given={"weight": library.ones(2, 3), "bias": library.zeros(2)},
        x=library.arange(3.0),
    )


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")

    def outcome(n: SimpleNamespace) -> Any:
        try:
            return CASES[name](n)
        except Exception as error:
            return error

    theirs, ours = outcome(namespace(torch)), outcome(namespace(dg))
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), ours
    else:
        assert isinstance(ours, Tensor), ours
        assert ours.requires_grad == theirs.requires_grad
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-6)
