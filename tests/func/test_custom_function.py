"""A user's own Function inside the transforms: with a generated rule, with one of its own, and with none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Function, Tensor
from distgrad.func import grad, hessian, jacrev, vmap

X = np.random.default_rng(0).standard_normal((4, 3))


def same(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


class Cubes(Function):
    """x**3 * w, with a derivative that says so by an extra factor: 6 instead of 3."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor, power: int = 3) -> Tensor:
        return x**power * w

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], None, inputs[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, nothing, w = ctx.saved_tensors
        assert nothing is None
        return g * 6 * x**2 * w, (g * x**3).sum() if ctx.needs_input_grad[1] else None, None


def x() -> Tensor:
    return Tensor(X.copy())


W = Tensor(np.asarray(2.0))


def test_generated_rule() -> None:
    same(vmap(lambda a: Cubes.apply(a, W, 3))(x()), 2 * X**3)
    same(vmap(lambda a: Cubes.apply(a, W, 3), in_dims=1, out_dims=1)(x()), 2 * X**3)


def test_generated_rule_is_differentiated() -> None:
    f = lambda a, w: Cubes.apply(a, w, 3).sum()  # noqa: E731
    a, w = vmap(grad(f, argnums=(0, 1)), in_dims=(0, None))(x(), W)
    same(a, 12 * X**2)
    same(w, (X**3).sum(1))
    leaf, shared = x().requires_grad_(), W.clone().requires_grad_()
    vmap(f, in_dims=(0, None))(leaf, shared).sum().backward()
    same(leaf.grad, 12 * X**2)
    same(shared.grad, (X**3).sum())
    same(vmap(hessian(lambda a: f(a, W)))(x())[1], np.diag(24 * X[1]))
    same(vmap(jacrev(lambda a: Cubes.apply(a, W, 3)))(x())[2], np.diag(12 * X[2] ** 2))
    same(vmap(vmap(grad(lambda a: Cubes.apply(a, W, 3))))(x()), 12 * X**2)


class Exponential(Function):
    """Saves its output, and gives a second result without a derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.exp(), x.round()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output[0], inputs[0] * 0 + 1)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(True)

    @staticmethod
    def backward(ctx: Any, g: Tensor, unused: Tensor) -> Tensor:
        out, one = ctx.saved_tensors
        return g * out * one


def test_saved_outputs_have_a_second_derivative() -> None:
    leaf = x().requires_grad_()
    first, rounded = vmap(Exponential.apply)(leaf)
    assert first.requires_grad and not rounded.requires_grad
    (slope,) = dg.autograd.grad(first.sum(), leaf, create_graph=True)
    assert slope is not None
    same(dg.autograd.grad(slope.sum(), leaf)[0], np.exp(X))


class Doubled(Function):
    seen: Any = None

    @staticmethod
    def forward(x: Tensor, label: str) -> Tensor:
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * 2, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, label: str) -> Any:
        Doubled.seen = (info.batch_size, info.randomness, in_dims)
        return Doubled.apply(x.movedim(in_dims[0], -1), label), -1


def test_rule_of_its_own() -> None:
    same(vmap(lambda a: Doubled.apply(a, "label"), randomness="same")(x()), 2 * X)
    assert Doubled.seen == (4, "same", (0, None))
    same(vmap(vmap(lambda a: Doubled.apply(a, "label")))(x()), 2 * X)
    leaf = x().requires_grad_()
    vmap(lambda a: Doubled.apply(a, "label"))(leaf).sum().backward()
    same(leaf.grad, np.full((4, 3), 2.0))


def test_refusals() -> None:
    class Without(Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

    class Both(Doubled):
        generate_vmap_rule = True

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor, label: str) -> Any:
            return x, 0

    class Old(Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1

    class One(Without):
        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
            return x

    class Dirty(Without):
        generate_vmap_rule = True

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.mark_dirty(inputs[0])

    for function, message in (
        (Without, "does not have vmap support"),
        (Old, "must override the setup_context staticmethod"),
        (One, "to have two returns, an output and out_dims"),
        (Dirty, "mark_dirty inside vmap"),
    ):
        with pytest.raises(RuntimeError, match=message):
            vmap(function.apply)(x())
    with pytest.raises(RuntimeError, match="both generate_vmap_rule=True and an overriden vmap"):
        vmap(lambda a: Both.apply(a, "label"))(x())


def test_outside_of_vmap_nothing_changes() -> None:
    same(grad(lambda a: Cubes.apply(a, W, 3).sum())(x()), 12 * X**2)
    same(vmap(lambda a: a * Cubes.apply(W, W, 1))(x()), 4 * X)  # not an argument that differs
