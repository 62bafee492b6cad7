"""What the optimizers' tests share: a small network that both sides train, and a run against a written-out rule."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from distgrad import optim
from distgrad.autograd import Tensor

Arrays = list[np.ndarray[Any, Any]]
STEPS = 30
# Longer than a block of the update and not a multiple of it; a 0-d and an empty parameter too.
SHAPES = [(3, 5), (40_003,), (), (2, 0)]


def network(seed: int = 0) -> tuple[Arrays, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Initial parameters of a network with one hidden layer, inputs and targets, all float64."""
    generator = np.random.default_rng(seed)
    parameters = [generator.standard_normal(shape) * 0.5 for shape in ((6, 8), (8,), (8, 3), (3,))]
    return parameters, generator.standard_normal((16, 6)), np.tanh(generator.standard_normal((16, 3)))


def loss_of(parameters: list[Any], x: Any, y: Any) -> Any:
    """Bounded, so that ascending it does not overflow; the same expression for both sides."""
    w1, b1, w2, b2 = parameters
    return (((((x @ w1 + b1).tanh() @ w2 + b2).tanh() - y) ** 2).mean(0) * 3).sum()


def groups_of(parameters: list[Any], second: dict[str, Any] | None) -> list[dict[str, Any]]:
    if second is None:
        return [{"params": parameters}]
    return [{"params": parameters[:2]}, {"params": parameters[2:], **second}]


class Ours:
    """The network and an optimizer of ours."""

    def __init__(self, name: str, options: dict[str, Any], second: dict[str, Any] | None) -> None:
        values, x, y = network()
        self.parameters = [Tensor(value, requires_grad=True) for value in values]
        self.x, self.y = Tensor(x), Tensor(y)
        self.optimizer: Any = getattr(optim, name)(groups_of(self.parameters, second), **options)

    def values(self) -> Arrays:
        return [parameter._data.copy() for parameter in self.parameters]

    def step(self) -> float:
        def closure() -> Any:
            self.optimizer.zero_grad()
            loss = loss_of(self.parameters, self.x, self.y)
            loss.backward()
            return loss

        return float(self.optimizer.step(closure).item())


class Theirs(Ours):
    """The same in PyTorch."""

    def __init__(self, torch: ModuleType, name: str, options: dict[str, Any], second: dict[str, Any] | None) -> None:
        values, x, y = network()
        self.parameters = [torch.tensor(value, requires_grad=True) for value in values]
        self.x, self.y = torch.tensor(x), torch.tensor(y)
        self.optimizer = getattr(torch.optim, name)(groups_of(self.parameters, second), **options)

    def values(self) -> Arrays:
        return [parameter.detach().numpy().copy() for parameter in self.parameters]


def converted(state: Any, make: Callable[[Any], Any]) -> Any:
    """A state_dict with its tensors made into others."""
    if isinstance(state, dict):
        return {key: converted(value, make) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(converted(value, make) for value in state)
    return make(state) if hasattr(state, "numpy") else state


def assert_same(ours: Ours, theirs: Ours, tolerance: float, step: Any) -> None:
    for mine, its in zip(ours.values(), theirs.values(), strict=True):
        error = np.abs(mine - its).max() / max(1e-3, np.abs(its).max())
        assert error <= tolerance, f"step {step}: {error:.1e}"


def assert_same_state(ours: Any, theirs: Any, tolerance: float) -> None:
    """The same entries of the same kind, shapes and values."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same_state(ours[key], theirs[key], tolerance)
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for mine, its in zip(ours, theirs, strict=True):
            assert_same_state(mine, its, tolerance)
    elif hasattr(theirs, "numpy") and not isinstance(ours, float):  # L-BFGS's t is now a float, now a tensor there
        assert ours.numpy().dtype == theirs.numpy().dtype and tuple(ours.shape) == tuple(theirs.shape)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=tolerance, atol=tolerance)
    elif isinstance(ours, float):
        assert ours == pytest.approx(float(theirs), rel=tolerance)
    else:
        assert ours == theirs


@pytest.fixture
def follows_pytorch() -> Callable[..., None]:
    """Trains with both sides: equal parameters, losses and state, and a state that either takes from the other."""
    torch = pytest.importorskip("torch")

    def check(
        name: str, second: dict[str, Any] | None = None, steps: int = STEPS, tolerance: float = 1e-12, **options: Any
    ) -> None:
        ours, theirs = Ours(name, options, second), Theirs(torch, name, options, second)
        start = ours.values()
        for step in range(steps):
            assert ours.step() == pytest.approx(theirs.step(), rel=tolerance)
            assert_same(ours, theirs, tolerance, step)
        moved = [np.abs(before - after).max() for before, after in zip(start, ours.values(), strict=True)]
        assert min(moved) > 1e-6, "a parameter has not moved: the comparison says nothing"
        mine, its = ours.optimizer.state_dict(), theirs.optimizer.state_dict()
        for entry in its["state"].values():
            entry.pop("al", None)  # L-BFGS's scratch memory
        assert_same_state(mine, its, tolerance)

        # each side goes on from the other's state
        for taker, giver, make in (
            (Ours(name, options, second), theirs, lambda tensor: tensor.detach().numpy().copy()),
            (Theirs(torch, name, options, second), ours, lambda tensor: torch.tensor(tensor.numpy())),
        ):
            for target, value in zip(taker.parameters, giver.values(), strict=True):
                target.data = Tensor(value) if type(taker) is Ours else torch.tensor(value)
            taker.optimizer.load_state_dict(converted(giver.optimizer.state_dict(), make))
            unbroken = Theirs(torch, name, options, second)
            for _ in range(steps):
                unbroken.step()
            rounds = 5 if type(taker) is Ours or name != "NAdam" else 0  # PyTorch casts NAdam's mu_product on loading
            for step in range(rounds):
                taker.step()
                unbroken.step()
                assert_same(taker, unbroken, 10 * tolerance, f"{step} after loading")

    return check


Rule = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any], dict[str, Any], int], np.ndarray[Any, Any]]


@pytest.fixture
def follows_rule() -> Callable[..., None]:
    """Runs an optimizer on random gradients beside ``rule(p, g, state, t)``, which returns the new ``p``."""

    def check(
        make: Callable[[list[Tensor]], Any], rule: Rule, dtype: Any = np.float64, tolerance: float = 1e-13
    ) -> None:
        generator = np.random.default_rng(5)
        values = [np.asarray(generator.standard_normal(shape), dtype) for shape in SHAPES]
        tensors = [Tensor(value.copy(), requires_grad=True) for value in values]
        memories: list[dict[str, Any]] = [{} for _ in SHAPES]
        counts = [0] * len(SHAPES)
        optimizer = make(tensors)
        for step in range(15):
            for number, tensor in enumerate(tensors):
                if number == 0 and step == 4:  # a parameter that took no part in the loss is left alone
                    tensor.grad = None
                    continue
                grad = np.asarray(generator.standard_normal(SHAPES[number]), dtype)
                counts[number] += 1
                values[number] = rule(values[number], grad, memories[number], counts[number])
                tensor.grad = Tensor(grad)
                grad.flags.writeable = False
            optimizer.step()
        for tensor, value in zip(tensors, values, strict=True):
            assert tensor.dtype == dtype
            scale = max(1.0, float(np.abs(value).max(initial=0)))
            np.testing.assert_allclose(tensor._data, value, rtol=0, atol=tolerance * scale)

    return check
