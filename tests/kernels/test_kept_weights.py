"""What is made of weights is made once as long as they are kept, and anew afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.autograd import Tensor
from distgrad.kernels import kept_weights


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    kept_weights.forget()


class Maker:
    def __init__(self, weight: np.ndarray) -> None:  # type: ignore[type-arg]
        self.weight = weight
        self.calls = 0

    def __call__(self) -> np.ndarray:  # type: ignore[type-arg]
        self.calls += 1
        return self.weight * 2


def test_nothing_is_kept_unless_asked_for() -> None:
    make = Maker(np.ones(3))
    for _ in range(2):
        kept_weights.kept(make.weight, make, "use", make)
    assert make.calls == 2


def test_a_weight_is_made_once_for_each_owner_and_use() -> None:
    weight, other = np.ones((2, 3)), np.ones((2, 3))
    make = Maker(weight)
    kept_weights.keep([weight])
    first = kept_weights.kept(weight, make, "use", make)
    assert kept_weights.kept(weight, make, "use", make) is first and make.calls == 1
    kept_weights.kept(weight, make, "another use", make)
    kept_weights.kept(weight, object(), "use", make)
    kept_weights.kept(weight.T, make, "use", make)
    assert make.calls == 4
    for _ in range(2):
        kept_weights.kept(other, make, "use", make)  # nobody has said that it stays
    assert make.calls == 6
    kept_weights.forget()
    kept_weights.keep([weight])
    assert kept_weights.kept(weight, make, "use", make) is not first


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_have_the_same_bits_with_kept_weights(compiled: bool, stride: int) -> None:
    distgrad.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 16, 3, stride, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride, 1, bias=False))
    run = distgrad.compile(model) if compiled else model
    x = Tensor(np.random.default_rng(0).standard_normal((6, 16, 16, 16)).astype(np.float32), requires_grad=True)

    def passes(keeps: bool) -> list[bytes]:
        found = []
        if keeps:
            kept_weights.keep([p.detach().numpy() for p in model.parameters()])
        for _ in range(2):
            x.grad = None
            model.zero_grad()
            out = run(x)
            (out * out).sum().backward()
            found += [out.detach().numpy().tobytes(), x.grad.numpy().tobytes()]  # type: ignore[union-attr]
            found += [p.grad.numpy().tobytes() for p in model.parameters()]
        kept_weights.forget()
        return found

    assert passes(True) == passes(False)
