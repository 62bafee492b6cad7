"""Hooks on what is saved, hooks on several gradients, and looking at edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd.graph import (
    disable_saved_tensors_hooks,
    get_gradient_edge,
    increment_version,
    register_multi_grad_hook,
    saved_tensors_hooks,
)


def leaf(*values: float) -> dg.Tensor:
    return dg.tensor(list(values), dtype=dg.float64, requires_grad=True)


def program(x: Any, w: Any) -> Any:
    h = (x * w).exp()
    return (h.tanh() * x).sum() + dg.nn.functional.batch_norm(h.reshape(2, 2), None, None, training=True).pow(2)[
        0
    ].sum()


def test_what_is_saved_goes_through_the_hooks() -> None:
    x, w = leaf(0.1, 0.2, 0.3, 0.4), leaf(1.0, 2.0, 3.0, 4.0)
    expected = dg.autograd.grad(program(x, w), (x, w))
    log: list[str] = []

    def pack(tensor: dg.Tensor) -> Any:
        log.append("pack")
        return tensor.detach().numpy().copy()  # elsewhere

    def unpack(array: Any) -> dg.Tensor:
        log.append("unpack")
        return dg.from_numpy(array)

    with saved_tensors_hooks(pack, unpack):
        out = program(x, w)
    packed = log.count("pack")
    assert packed >= 7 and "unpack" not in log
    got = dg.autograd.grad(out, (x, w))
    assert log.count("unpack") == packed == log.count("pack")
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert not dg.autograd.grad_mode.mode.state.saved_hooks


def test_compressed_residuals_give_other_gradients() -> None:
    """The hooks are really what the backward sees: halved residuals halve the gradient of a product."""
    x, w = leaf(1.0), leaf(3.0)
    with saved_tensors_hooks(lambda t: t * 0.5, lambda t: t):
        y = x * w
    y.backward()
    assert x.grad.item() == 1.5 and w.grad.item() == 0.5


def test_hooks_with_create_graph() -> None:
    x = leaf(2.0)
    with saved_tensors_hooks(lambda t: t.detach().numpy(), dg.from_numpy):
        y = x * x
        (g,) = dg.autograd.grad(y * y.exp(), x, create_graph=True)  # values come back, and their history with them
        (h,) = dg.autograd.grad(g, x)
    with_hooks = h.item()
    y = x * x
    (g,) = dg.autograd.grad(y * y.exp(), x, create_graph=True)
    assert dg.autograd.grad(g, x)[0].item() == with_hooks != 0


def test_the_innermost_counts_and_a_pack_hook_is_not_packed() -> None:
    inner: list[int] = []

    def pack(tensor: dg.Tensor) -> Any:
        inner.append(1)
        return tensor.exp().log()

    x = leaf(2.0)
    with saved_tensors_hooks(lambda t: pytest.fail("the outer"), lambda t: t), saved_tensors_hooks(pack, lambda t: t):
        y = x * x
    y.backward()
    assert len(inner) == 2
    np.testing.assert_allclose(x.grad.numpy(), [4.0])


def test_wrong_hooks() -> None:
    x = leaf(2.0)
    with saved_tensors_hooks(lambda t: t, lambda t: 5):  # type: ignore[arg-type, return-value]
        y = x * x
    with pytest.raises(TypeError, match="unpack_hook expected to be a Tensor but got result of type int"):
        y.backward()
    with disable_saved_tensors_hooks("not here"), pytest.raises(RuntimeError, match="not here"):
        saved_tensors_hooks(lambda t: t, lambda t: t).__enter__()
    with saved_tensors_hooks(lambda t: t, lambda t: t), pytest.raises(RuntimeError, match="not here"):
        disable_saved_tensors_hooks("not here").__enter__()


def test_edges() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    assert get_gradient_edge(y).node is y.grad_fn and get_gradient_edge(y).output_nr == 0
    assert get_gradient_edge(x).node.name() == "AccumulateGrad"
    assert get_gradient_edge(x.unbind()[1]).output_nr == 1
    with pytest.raises(RuntimeError, match="does not require gradients"):
        get_gradient_edge(dg.ones(1))


def test_edges_stand_for_tensors() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    z = (y * 3).sum()
    at_x, at_y = get_gradient_edge(x), get_gradient_edge(y)
    found = dg.autograd.grad(z, [at_x, at_y], retain_graph=True)
    assert [g.tolist() for g in found] == [[6.0, 12.0], [3.0, 3.0]]
    (from_y,) = dg.autograd.grad(at_y, at_x, dg.tensor([1.0, 2.0], dtype=dg.float64), retain_graph=True)
    assert from_y.tolist() == [2.0, 8.0]
    dg.autograd.backward(z, inputs=at_x, retain_graph=True)
    assert x.grad.tolist() == [6.0, 12.0]
    with pytest.raises(RuntimeError, match=r"input 0 of backward\(\) is the edge of MulBackward0, which is no leaf"):
        z.backward(inputs=[at_y], retain_graph=True)
    with pytest.raises(RuntimeError, match="a gradient has to be given for element 0 of tensors: it is a GradientEdge"):
        dg.autograd.backward(at_y)
    unused = get_gradient_edge(leaf(1.0))
    with pytest.raises(RuntimeError, match="materialize_grads cannot be used for input 0, which is a GradientEdge"):
        dg.autograd.grad(z, unused, materialize_grads=True)


def test_a_change_behind_its_back_can_be_noted() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1
    z = (y * y).sum()
    y.detach().numpy()[0] = 5.0
    increment_version([y])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_a_hook_on_several_gradients() -> None:
    a, b, c = leaf(1.0), leaf(2.0), leaf(3.0)
    seen: list[Any] = []
    handle = register_multi_grad_hook([a, b], lambda grads: seen.append([g and g.item() for g in grads]))
    first: list[float] = []
    with register_multi_grad_hook([a, b], lambda g: first.append(g.item()), mode="any"):
        for _ in range(2):
            (a * b * c).backward()
        (a * c).backward()  # not all of them
    handle.remove()
    (a * b).backward()
    assert seen == [[6.0, 3.0], [6.0, 3.0], [3.0, None]]
    assert len(first) == 3
    with pytest.raises(ValueError, match="'all', 'any'"):
        register_multi_grad_hook([a], lambda g: None, mode="some")


def test_multi_grad_hook_gives_none_for_what_a_pass_does_not_reach() -> None:
    a, b = (dg.ones(1, requires_grad=True) for _ in range(2))
    seen: list[list[bool]] = []
    register_multi_grad_hook([a, b], lambda gradients: seen.append([g is None for g in gradients]))
    (a * 2).sum().backward()
    (b * 2).sum().backward()
    (a * b).sum().backward()
    assert seen == [[False, True], [True, False], [False, False]]


def test_multi_grad_hook_forgets_a_pass_that_failed() -> None:
    a, b = (dg.ones(1, requires_grad=True) for _ in range(2))
    seen: list[list[float]] = []
    register_multi_grad_hook([a, b], lambda gradients: seen.append([g.item() for g in gradients]))
    broken = a * 2
    handle = broken.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (b + a * 5 + broken).sum().backward()
    handle.remove()
    seen.clear()
    (a * 3 + b * 4).sum().backward()
    assert seen == [[3.0, 4.0]]
