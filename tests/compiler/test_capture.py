"""What a capture notes, and that it leaves no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.compiler.capture import CaptureError, Traced, capture
from distgrad.nn import functional as F


def test_operations_in_order() -> None:
    weight = distgrad.randn(3, 4, requires_grad=True)

    def function(x: Any) -> Any:
        y = F.linear(x, weight)
        with distgrad.no_grad():
            z = y * 2
        return (y + z).relu(), y.detach()

    graph = capture(function, (distgrad.randn(2, 4),), {})
    assert [o.name for o in graph.operations] == ["Linear", "Mul", "Add", "Relu", "Detach"]
    assert [o.recorded for o in graph.operations] == [True, False, True, True, False]
    assert [v.differentiable for v in graph.outputs] == [True, False]
    assert [v.tensor for v in graph.externals() if v.tensor is weight] == [weight]
    graph.outputs = graph.outputs[:1]
    graph.without_unused()
    assert [o.name for o in graph.operations] == ["Linear", "Mul", "Add", "Relu"]


def test_it_leaves_no_trace() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {key: value.numpy().copy() for key, value in network.state_dict().items()}
    state = distgrad.get_rng_state()
    x = distgrad.randn(6, 4)
    distgrad.set_rng_state(state)
    graph = capture(network, (x,), {})
    assert (distgrad.get_rng_state() == state).all()
    for key, value in network.state_dict().items():
        assert np.array_equal(value.numpy(), before[key]), key
    assert [o.name for o in graph.operations if o.effect is not None] == ["Effect", "Effect"]  # a count and a draw
    with pytest.raises(ValueError, match="boom"):
        capture(_raises, (x,), {})
    assert (x + 1).shape == x.shape and not isinstance(x + 1, Traced)


def _raises(x: Any) -> Any:
    raise ValueError("boom")


def test_in_place_operations_rename() -> None:
    def function(x: Any) -> Any:
        y = x * 2
        kept = y + 0
        y.add_(1)
        y *= 3
        return y, kept

    graph = capture(function, (distgrad.randn(3),), {})
    last = graph.operations[-1]
    assert graph.outputs[0] is last.output and last.name == "Mul"
    assert graph.outputs[1] is graph.operations[1].output


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.view(-1).add_(1), "share memory"),
        (lambda x: x.add_(1), "share memory"),
        (lambda x: (x * 2).__setitem__(0, 1), "assign|middle"),
        (lambda x: distgrad.bernoulli(x.abs().clamp(0, 1)), "random|looks at the values"),
        (lambda x: np.asarray(x), "looks at the values"),
        (lambda x: x.tolist(), "looks at the values"),
        (lambda x: (x * 2).backward(), "backward"),
        (lambda x: distgrad.autograd.grad((x * 2).sum(), [x]), "does not require grad"),
    ],
)
def test_what_a_plan_cannot_repeat(function: Any, reason: str) -> None:
    with pytest.raises((CaptureError, RuntimeError), match=reason):
        capture(function, (distgrad.randn(2, 3),), {})
    assert distgrad.autograd.grad_mode.mode.state.batching is None


def test_a_users_function_is_not_looked_into() -> None:
    class Double(distgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 3

    with pytest.raises(CaptureError, match=r"Double\.apply"):
        capture(Double.apply, (distgrad.randn(2),), {})
    fast = distgrad.compile(lambda x: Double.apply(x))
    x = distgrad.randn(2, requires_grad=True)
    fast(x).sum().backward()
    assert (x.grad == 3).all()


def test_indices_are_checked_in_every_run() -> None:
    table = nn.Embedding(5, 3)
    fast = distgrad.compile(table, fullgraph=True)
    fast(distgrad.tensor([0, 4]))
    with pytest.raises(IndexError, match="index out of range"):
        fast(distgrad.tensor([0, -1]))
