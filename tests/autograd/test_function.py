"""Operations of a user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Function, gradcheck, gradgradcheck
from distgrad.autograd.function import once_differentiable


def leaf(*values: float) -> dg.Tensor:
    return dg.tensor(list(values), dtype=dg.float64, requires_grad=True)


def functions(t: Any, once: Any) -> dict[str, Any]:
    """The same classes over distgrad and PyTorch."""
    base = t.autograd.Function

    class Cube(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * 3 * x**2

    class Exp(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[0]

    class Scaled(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(x: Any, factor: float) -> Any:
            return x * factor

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.factor = inputs[1]

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.factor, None

    class Both(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            ctx.save_for_backward(x, y)
            return x * y, x + y, t.tensor([1, 2])

        @staticmethod
        def backward(ctx: Any, product: Any, total: Any, unused: Any) -> Any:
            x, y = ctx.saved_tensors
            return (
                product * y + total if ctx.needs_input_grad[0] else None,
                product * x + total if ctx.needs_input_grad[1] else None,
            )

    class Double(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    class Identity(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 5

    class Parts(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.set_materialize_grads(False)
            mask = (x > 0).to(x.dtype)
            ctx.mark_non_differentiable(mask)
            return x * 2, x * 3, mask

        @staticmethod
        def backward(ctx: Any, a: Any, b: Any, mask: Any) -> Any:
            assert mask is None
            return sum(part * factor for part, factor in ((a, 2), (b, 3)) if part is not None)

    class Once(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2 * ctx.saved_tensors[0]

    class Wide(base):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            return x + y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g, g  # the engine sums to the shape of x

    return {k.__name__: k for k in (Cube, Exp, Scaled, Both, Double, Identity, Parts, Once, Wide)}


OURS = functions(dg, once_differentiable)


def test_derivatives() -> None:
    x, y = leaf(0.5, -1.5), leaf(2.0, 0.3)
    for function, arguments in (
        (OURS["Cube"].apply, (x,)),
        (OURS["Exp"].apply, (x,)),
        (lambda x: OURS["Scaled"].apply(x, 2.5), (x,)),
        (OURS["Both"].apply, (x, y)),
        (lambda x: OURS["Double"].apply(x * x), (x,)),
    ):
        assert gradcheck(function, arguments)
        assert gradgradcheck(function, arguments)


def observed(t: Any, named: dict[str, Any]) -> list[Any]:
    def fresh() -> Any:
        return t.tensor([0.5, -1.5], dtype=t.float64, requires_grad=True)

    seen: list[Any] = []
    x = fresh()
    y = named["Cube"].apply(x)
    seen += [type(y.grad_fn).__name__ == "x" or y.grad_fn.name(), y.requires_grad, y.is_leaf]
    y.sum().backward()
    seen.append(x.grad.tolist())
    x = fresh()
    a, b, c = named["Both"].apply(x, t.ones(2, dtype=t.float64))
    seen += [a.requires_grad, b.requires_grad, c.requires_grad, a.grad_fn is b.grad_fn]
    (a * b).sum().backward()
    seen.append(x.grad.tolist())
    x = fresh()
    inner = x * 1
    out = named["Double"].apply(inner)
    seen += [out is inner, inner.tolist(), inner._version]
    (out * inner).sum().backward()
    seen.append(x.grad.tolist())
    x = fresh()
    same = named["Identity"].apply(x)
    seen += [same is x, same.data_ptr() == x.data_ptr()]
    same.sum().backward()
    seen.append(x.grad.tolist())
    x = fresh()
    a, b, mask = named["Parts"].apply(x)
    seen += [mask.requires_grad, b.requires_grad]
    b.sum().backward()
    seen.append(x.grad.tolist())
    x = fresh()
    named["Wide"].apply(x, t.ones(3, 2, dtype=t.float64)).sum().backward()
    seen.append(x.grad.tolist())
    with t.no_grad():
        seen.append(named["Cube"].apply(fresh()).requires_grad)
    return seen


def test_behaviour() -> None:
    assert observed(dg, OURS) == [
        "CubeBackward", True, False, [0.75, 6.75],
        True, True, False, True, [2.0, -2.0],
        True, [1.0, -3.0], 2, [4.0, -12.0],
        False, True, [5.0, 5.0],
        False, True, [3.0, 3.0],
        [3.0, 3.0],
        False,
    ]  # fmt: skip


@pytest.mark.parity
def test_behaviour_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    from torch.autograd.function import once_differentiable as theirs

    assert observed(dg, OURS) == observed(torch, functions(torch, theirs))


def test_once_differentiable() -> None:
    x = leaf(2.0)
    (g,) = dg.autograd.grad(OURS["Once"].apply(x) ** 2, x, create_graph=True)
    assert g.tolist() == [32.0] and g.requires_grad
    with pytest.raises(RuntimeError, match=r"differentiate twice .* marked with @once_differentiable"):
        dg.autograd.grad(g, x)
    x = leaf(2.0)
    OURS["Once"].apply(x).backward()
    assert x.grad.tolist() == [4.0] and not x.grad.requires_grad


def test_saved_tensors_are_checked_and_freed() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1
    z = OURS["Cube"].apply(y)
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"CubeBackward saved a float64 .* at version 0; it is at version 1"):
        z.sum().backward()
    z = OURS["Exp"].apply(x)
    z.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        z.sum().backward()
    z = OURS["Exp"].apply(x)
    z.mul_(2)
    with pytest.raises(RuntimeError, match="ExpBackward saved"):
        z.sum().backward()


def test_the_context_is_not_a_cycle() -> None:
    import gc
    import weakref

    gc.disable()
    try:
        y = OURS["Exp"].apply(leaf(1.0))
        node = weakref.ref(y.grad_fn)
        del y
        assert node() is None
    finally:
        gc.enable()


class Returning(Function):
    """A backward that returns what it is told."""

    @staticmethod
    def forward(ctx: Any, x: Any, what: Any) -> Any:
        ctx.what = what
        return x * 1

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return ctx.what


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (None, RuntimeError, r"incorrect number of gradients \(expected 2, got 1\)"),
        ((dg.ones(3), None), RuntimeError, r"invalid gradient at index 0 - got \[3\] but expected .* \[2\]"),
        ((1.0, None), TypeError, r"expected Variable or None \(got float\)"),
        ((None, dg.ones(1)), RuntimeError, "different from None at position 2"),
    ],
)
def test_wrong_gradients(what: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Returning.apply(leaf(1.0, 2.0), what).sum().backward()


def test_a_gradient_is_cast_and_extra_nones_are_dropped() -> None:
    x = leaf(1.0, 2.0)
    Returning.apply(x, (dg.ones(2, dtype=dg.float32), None, None)).sum().backward()
    assert x.grad.dtype == dg.float64 and x.grad.tolist() == [1.0, 1.0]


def test_refusals() -> None:
    with pytest.raises(RuntimeError, match="use static methods"):
        Function()
    with pytest.raises(NotImplementedError, match="implement the forward"):
        Function.apply(leaf(1.0))

    class NoBackward(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

    with pytest.raises(NotImplementedError, match="backward"):
        NoBackward.apply(leaf(1.0)).backward()

    class Lost(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x * 2

    with pytest.raises(RuntimeError, match=r"mark_dirty are not outputs of Lost.forward"):
        Lost.apply(leaf(1.0) * 1)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        OURS["Double"].apply(leaf(1.0))

    class Saves(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(3)
            return x

    with pytest.raises(TypeError, match="can only save variables"):
        Saves.apply(leaf(1.0))


def test_hooks_and_values() -> None:
    x = leaf(2.0)
    y = OURS["Cube"].apply(x)
    seen: list[float] = []
    y.register_hook(lambda g: seen.append(g.item()))
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append(inputs[0].item()))
    (y * 2).backward()
    np.testing.assert_allclose(seen, [2.0, 24.0])
