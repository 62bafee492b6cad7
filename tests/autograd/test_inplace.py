"""Changes in place whose history is recorded: of bases and of views of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck, gradgradcheck


def leaf(*values: float) -> dg.Tensor:
    return dg.tensor(list(values), dtype=dg.float64, requires_grad=True)


# Programs over a tensor x (3, 4), a leaf w (4,) and the module; each ends in a tensor that depends on both.
def base_then_view(t: Any, x: Any, w: Any) -> Any:
    y = x * 2
    view = y[1]
    y.mul_(w)
    return view * y


def view_then_base(t: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y[1].mul_(w)
    return y * y


def view_of_view(t: Any, x: Any, w: Any) -> Any:
    y = x * 2
    inner = y.t()[1:3].unsqueeze(0)
    inner.mul_(w[1:3].reshape(1, 2, 1))
    return y.exp() + inner.sum()


def sibling(t: Any, x: Any, w: Any) -> Any:
    y = x * 2
    a, b = y[0], y.view(-1)[2:6]
    b.add_(w)
    return y * a + b


def zeros_filled(t: Any, x: Any, w: Any) -> Any:
    y = t.zeros(3, 4, dtype=t.float64)
    for i in range(3):
        y[i] = x[i] * w if i else w
    return y * y


def chained(t: Any, x: Any, w: Any) -> Any:
    y = x.clone()
    y[0] += w
    y[:, 1] += y[:, 2]
    y[y > 0] = 0.5
    y[[0, 2], [1, 3]] = w[:2]
    return y.sin()


def transposed(t: Any, x: Any, w: Any) -> Any:
    y = (x * 1).t()
    y[2:].mul_(3).add_(w[2:, None])
    y.relu_()
    return y @ x


def filled_diagonal(t: Any, x: Any, w: Any) -> Any:
    y = x * w
    y.diagonal().zero_()
    y.narrow(1, 1, 2).copy_(w[:2])
    return y * x


def saved_before(t: Any, x: Any, w: Any) -> Any:
    y = x * 1
    z = y * 3  # saves neither y nor z
    y[0] = w
    return z * y


def expanded_source(t: Any, x: Any, w: Any) -> Any:
    y = x * 1
    y.view(2, 6)[1].copy_(w[0].expand(6))
    y.unsqueeze_(0) if False else None
    return y * w


def detached(t: Any, x: Any, w: Any) -> Any:
    y = x * w
    y.detach()[0] = 7.0
    return y * 2


PROGRAMS = [
    base_then_view, view_then_base, view_of_view, sibling, zeros_filled, chained, transposed, filled_diagonal,
    saved_before, expanded_source, detached,
]  # fmt: skip


def arguments(t: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((3, 4)), rng.uniform(0.5, 2, 4)
    if t is dg:
        return dg.tensor(x, requires_grad=True), dg.tensor(w, requires_grad=True)
    return t.tensor(x, requires_grad=True), t.tensor(w, requires_grad=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_derivatives(program: Callable[..., Any]) -> None:
    """Against differences: independent of how the change was recorded."""
    x, w = arguments(dg)
    if program in (chained, detached):  # an assignment by mask or behind autograd's back is no smooth function
        program(dg, x, w).sum().backward()
        assert x.grad is not None
        return
    assert gradcheck(lambda x, w: program(dg, x, w), (x, w))
    assert gradgradcheck(lambda x, w: program(dg, x, w), (x, w))


@pytest.mark.parity
@pytest.mark.parametrize("program", PROGRAMS)
def test_as_in_torch(program: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    results = []
    for t in (dg, torch):
        x, w = arguments(t)
        out = program(t, x, w)
        seed = np.random.default_rng(4).standard_normal(tuple(out.shape))
        grads = t.autograd.grad(out, (x, w), t.tensor(seed), create_graph=True, allow_unused=True)
        norm = sum((g * g).sum() for g in grads if g is not None)
        second = t.autograd.grad(norm, x, allow_unused=True, retain_graph=True) if norm.requires_grad else ()
        out.backward(t.tensor(seed))
        results.append([None if a is None else a.detach().numpy() for a in (out, *grads, *second, x.grad, w.grad)])
    for mine, theirs in zip(*results, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_view_follows_its_base() -> None:
    x = leaf(1.0, 2.0)
    y = dg.zeros(2, dtype=dg.float64)
    view = y[1]
    assert view.is_leaf and not view.requires_grad
    y.copy_(x)
    assert view.requires_grad and not view.is_leaf and view.item() == 2.0
    (view * 3).backward()
    assert x.grad.tolist() == [0.0, 3.0]
    assert view._base is y and view._is_view() and not y._is_view()


def test_a_base_follows_its_view() -> None:
    x = leaf(1.0, 2.0)
    y = dg.ones(3, 2, dtype=dg.float64)
    y[1] = x
    assert y.requires_grad and y.grad_fn.name() == "CopySlices"
    (y * dg.arange(6).reshape(3, 2)).sum().backward()
    assert x.grad.tolist() == [2.0, 3.0]


REFUSED = {
    "a leaf": (lambda t, x: x.mul_(2), "a leaf Variable that requires grad"),
    "a view of a leaf": (lambda t, x: x[0].mul_(2), "a view of a leaf Variable that requires grad"),
    "one of several": (lambda t, x: (x * 1).unbind(0)[0].mul_(2), "output of a function that returns multiple views"),
    "of a split": (lambda t, x: (x * 1).split(2, 1)[0].mul_(2), "output of a function that returns multiple views"),
    "of a chunk": (lambda t, x: (x * 1).chunk(2, 1)[0].mul_(2), "output of a function that returns multiple views"),
    "made without recording": (lambda t, x: _unrecorded(t, x).mul_(x[0]), "A view was created in no_grad mode"),
    "several's base": (lambda t, x: _several(t, x)[0] * 2, "output of a function that returns multiple views"),
    "expanded": (lambda t, x: (x * 1)[:1].expand(3, 4).mul_(2), "single memory location"),
    "a saved operand": (lambda t, x: _saved(t, x).backward(), "modified by an inplace operation"),
    "a saved output": (lambda t, x: _output(t, x).backward(), "modified by an inplace operation"),
}


def _unrecorded(t: Any, x: Any) -> Any:
    y = x * 1
    with t.no_grad():
        return y[0]


def _several(t: Any, x: Any) -> Any:
    y = x * 1
    views = y.unbind(0)
    y.mul_(2)
    return views


def _saved(t: Any, x: Any) -> Any:
    y = x * 1
    z = y * y
    y[0].zero_()
    return z.sum()


def _output(t: Any, x: Any) -> Any:
    y = x.exp()
    y.view(-1)[3:].add_(1)
    return y.sum()


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    program, message = REFUSED[name]
    with pytest.raises(RuntimeError, match=message):
        program(dg, arguments(dg)[0])


@pytest.mark.parity
@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    program, message = REFUSED[name]
    with pytest.raises(RuntimeError, match=message):
        program(torch, arguments(torch)[0])


def test_what_is_refused_is_not_changed() -> None:
    x = leaf(1.0, 2.0)
    for change in (lambda: x.mul_(2), lambda: x[0].fill_(5), lambda: x.__setitem__(0, 3.0)):
        with pytest.raises(RuntimeError):
            change()
    assert x.tolist() == [1.0, 2.0] and x._version == 0


def test_a_change_in_place_makes_no_temporary() -> None:
    """Where the gradient does not need the old values, the result is written straight over them."""
    x = dg.ones(3, requires_grad=True)
    for change in (lambda y: y.add_(1), lambda y: y.relu_(), lambda y: y.mul_(2.0), lambda y: y.sub_(x.detach())):
        y = x * 1
        memory = y.data_ptr()
        saved = change(y).grad_fn._saved
        assert y.data_ptr() == memory
        arrays = [entry[0][0] for entry in saved if isinstance(entry, tuple) and entry and isinstance(entry[0], tuple)]
        assert all(np.shares_memory(array, y.detach().numpy()) for array in arrays)
        y.sum().backward()
    assert x.grad.tolist() == [5.0, 5.0, 5.0]


def test_an_operand_that_shares_the_memory() -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = x * 1
    y.sub_(y)
    assert y.tolist() == [0.0, 0.0, 0.0]
    y = x * 1
    y += y[0]  # the operand is overwritten, but an addition does not need it
    assert y.tolist() == [2.0, 3.0, 4.0]
    y.sum().backward()
    assert x.grad.tolist() == [4.0, 1.0, 1.0]
    y = x * 1
    y *= y[0]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_versions_in_a_view_of_a_saved_operand() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1
    y.add_(1)
    z = (y * y).sum()  # saved at version 1
    z.backward()
    assert x.grad.tolist() == [4.0, 6.0]


def test_an_inference_tensor_is_not_changed_outside() -> None:
    with dg.inference_mode():
        x = dg.ones(2)
        x.add_(1)
    for block in (dg.enable_grad, dg.no_grad):
        with block(), pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
            x.add_(1)
    assert x.tolist() == [2.0, 2.0]
