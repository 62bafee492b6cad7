"""Recomputation: the same gradients, less memory, and a function that computes something else is found out."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad import nn
from distgrad.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential


def model() -> nn.Sequential:
    dg.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)
    )


def gradients(net: nn.Module, out: dg.Tensor, x: dg.Tensor) -> list[Any]:
    for tensor in (*net.parameters(), x):
        tensor.grad = None
    (out * out).sum().backward()
    return [tensor.grad.numpy().copy() for tensor in (*net.parameters(), x)]


def test_the_gradients_are_the_same_also_with_dropout() -> None:
    net, x = model(), dg.randn(5, 4, requires_grad=True)
    results = []
    for run in (net, lambda x: checkpoint(net, x), lambda x: checkpoint_sequential(net, 3, x)):
        dg.manual_seed(7)
        out = run(x)
        before = dg.default_generator.get_state()
        results.append(gradients(net, out, x))
        assert repr(before) == repr(dg.default_generator.get_state()), "the recomputation must not move the stream"
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nothing_is_kept_and_it_runs_twice() -> None:
    calls, alive = [], []

    def part(x: dg.Tensor) -> dg.Tensor:
        calls.append(1)
        hidden = x.exp()
        alive.append(weakref.ref(hidden.detach().numpy()))
        return hidden.sin()

    x = dg.ones(3, requires_grad=True)
    y = checkpoint(part, x)
    gc.collect()
    assert [reference() for reference in alive] == [None]
    y.sum().backward()
    assert len(calls) == 2
    np.testing.assert_allclose(x.grad.numpy(), np.e * np.cos(np.e) * np.ones(3), rtol=1e-6)
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_higher_derivatives_and_two_passes() -> None:
    x = dg.tensor([0.3, 0.7], dtype=dg.float64, requires_grad=True)

    def part(x: dg.Tensor) -> dg.Tensor:
        return (x.exp() * x).sin()

    for early_stop in (True, False):
        for run in (part, lambda x, stop=early_stop: checkpoint(part, x, early_stop=stop)):
            y = run(x).sum()
            (first,) = dg.autograd.grad(y, x, retain_graph=True)
            (again,) = dg.autograd.grad(y, x, create_graph=True)
            (second,) = dg.autograd.grad(again.sum(), x)
            assert first.tolist() == again.tolist()
            if run is part:
                expected = second.tolist()
        assert second.tolist() == expected


def test_nested() -> None:
    x = dg.tensor([0.3], dtype=dg.float64, requires_grad=True)
    y = checkpoint(lambda x: checkpoint(lambda x: x.exp().exp(), x.sin()).cos(), x)
    y.sum().backward()
    z = x.detach().requires_grad_()
    z.sin().exp().exp().cos().sum().backward()
    assert x.grad.tolist() == z.grad.tolist()


def test_a_function_that_changes_is_found_out() -> None:
    count = [0]

    def grows(x: dg.Tensor) -> dg.Tensor:
        count[0] += 1
        for _ in range(count[0]):
            x = x.exp()
        return x

    def shrinks(x: dg.Tensor) -> dg.Tensor:
        count[0] += 1
        return (x.exp() if count[0] < 2 else x).mul(2)

    def reshapes(x: dg.Tensor) -> dg.Tensor:
        count[0] += 1
        return x[: count[0]].exp().sum()

    for function, message in ((shrinks, "different number of tensors"), (reshapes, "different metadata")):
        count[0] = 0
        x = dg.ones(3, requires_grad=True)
        with pytest.raises(CheckpointError, match=message):
            checkpoint(function, x).sum().backward()
    count[0] = 0
    with pytest.raises(CheckpointError, match="different number of tensors"):
        checkpoint(grows, dg.ones(3, requires_grad=True), early_stop=False).sum().backward()


def test_contexts_and_keywords() -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def noted(name: str) -> Iterator[None]:
        seen.append(name)
        yield

    x = dg.ones(2, requires_grad=True)
    y = checkpoint(
        lambda x, *, factor: (x * factor).exp(), x, factor=2.0, context_fn=lambda: (noted("first"), noted("second"))
    )
    y.sum().backward()
    assert seen == ["first", "second"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="use_reentrant=False computes the same"):
        checkpoint(lambda x: x, dg.ones(1), use_reentrant=True)
    with pytest.raises(ValueError, match="determinism_check is"):
        checkpoint(lambda x: x, dg.ones(1), determinism_check="strict")
    with pytest.raises(ValueError, match="between 1 and the 2 layers, not 3"):
        checkpoint_sequential([lambda x: x, lambda x: x], 3, dg.ones(1))
