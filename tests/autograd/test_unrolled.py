"""Functions written for one kind of call against the loops that serve any call; the straight way through a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd.primitive import PRIMITIVES, Primitive
from distgrad.autograd.recorded import OperationNode
from distgrad.autograd.shortcut import number

PROGRAMS: dict[str, Callable[..., Any]] = {
    "two tensors": lambda x, w: (x * w + w / x - w).sum(),
    "broadcast": lambda x, w: (x[:, None] * w - x[0]).sum(),
    "numbers": lambda x, w: ((x * 3 - 0.5) / 2 + 0.0).sum(),
    "outputs": lambda x, w: (x.tanh() * w.exp() + x.relu()).sum(),
    "keywords": lambda x, w: (x.sum(0, keepdim=True) * w.reshape(3, 1).mean(1)).sum(),
    "residuals": lambda x, w: dg.nn.functional.layer_norm(x, (3,), w).sum(),
    "constants": lambda x, w: (x * w.detach() + w.detach() * x).sum(),
    "products": lambda x, w: (x[:, None] @ w[None] @ x).sum(),
    "without dimensions": lambda x, w: -((x[0] * w[1] + 2).tanh().exp() - (w[0] * 3).sqrt().log() * x[1]) * 0.5,
    "views": lambda x, w: (x.reshape(3, 1).T[None][0, :, 1:] * w[None, 1:].mT.permute(1, 0)).squeeze().mean(),
    "copies of views": lambda x, w: (x * w[:, None]).T.reshape(-1)[None].unsqueeze(0).sum(),
    "several outputs": lambda x, w: (x.unbind()[1] * w.split(1)[2] + w.unbind()[2]).sum(),
}


def gradients(program: Callable[..., Any], create_graph: bool) -> list[Any]:
    x = dg.tensor([0.5, -1.5, 2.0], dtype=dg.float64, requires_grad=True)
    w = dg.tensor([1.5, 0.25, -0.75], dtype=dg.float64, requires_grad=True)
    found = dg.autograd.grad(program(x, w), (x, w), create_graph=create_graph, materialize_grads=True)
    return [g.tolist() for g in found]


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_written_functions_compute_what_the_loops_do(
    program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = gradients(program, False)
    np.testing.assert_allclose(gradients(program, True), written, rtol=1e-12)
    loops: list[str] = []

    def recorder(self: Primitive, kind: int) -> Callable[..., OperationNode]:
        def record(out: Any, keywords: Any, extra: Any, state: Any, *operands: Any) -> OperationNode:
            loops.append(self.name)
            return self._record(operands, keywords, (out,), extra)

        return record

    monkeypatch.setattr(Primitive, "recorder", recorder)
    for primitive in PRIMITIVES.values():
        for kind in list(primitive.recorders):
            monkeypatch.delitem(primitive.recorders, kind)
    assert gradients(program, False) == written
    assert loops


def test_a_kind_of_call_has_a_class_of_its_own() -> None:
    x, c = dg.ones(2, requires_grad=True), dg.ones(2)
    both, first, again = (x * x).grad_fn, (x * c).grad_fn, (x * c).grad_fn
    assert type(first) is type(again) is not type(both)
    assert isinstance(both, OperationNode)
    assert (both.name(), first.name()) == ("MulBackward0", "MulBackward0")
    assert first.shapes == ((2,),)
    assert first.next_functions[1] == (None, 0)


@pytest.mark.parametrize("value", [0.0, -0.0, 1, 0.1, 1e300, float("inf")])
def test_numbers_are_what_numpy_makes_of_them(value: float) -> None:
    x = np.array([1.0, -2.0], np.float32)
    with np.errstate(all="ignore"):
        expected = x * value
    found = (dg.tensor(x) * value).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))
    np.testing.assert_array_equal(found, expected)


def test_a_number_that_is_kept_cannot_be_written_to() -> None:
    assert not number(0.5, np.dtype(np.float32)).flags.writeable


def test_an_error_says_in_which_backward_it_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(g: Any, output: Any) -> Any:
        raise ValueError("no")

    monkeypatch.setitem(PRIMITIVES["Exp"].vjps, "input", fails)
    y = dg.ones(2, requires_grad=True).exp().sum()
    with pytest.raises(ValueError, match="no") as caught:
        y.backward()
    assert caught.value.__notes__ == ["(in the backward pass of Exp, gradient of 'input')"]


def test_a_changed_parameter_is_noticed_whatever_its_version() -> None:
    w = dg.ones(2, requires_grad=True)
    x = dg.ones(2, requires_grad=True)
    with dg.no_grad():
        w.add_(1.0)
    (x * w).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    y = (x * w).sum()
    with dg.no_grad():
        w.add_(1.0)
    with pytest.raises(RuntimeError, match=r"Mul saved its operand 'other' .* at version 1; it is at version 2 now"):
        y.backward()


@pytest.mark.parametrize("share", [lambda y: y.view(-1), lambda y: y.detach(), lambda y: y[None]])
def test_a_saved_result_whose_changes_are_counted_later(share: Callable[[Any], Any]) -> None:
    y = dg.ones(2, 3, requires_grad=True).tanh()
    z = y.sum()
    other = share(y)
    z.backward(retain_graph=True)
    with dg.no_grad():
        other.zero_()
    with pytest.raises(RuntimeError, match=r"Tanh saved its output .* at version 0; it is at version 1 now"):
        z.backward()


def test_operands_of_a_node_with_several_results() -> None:
    x = dg.tensor([1.0, 2.0, 4.0], requires_grad=True)
    a, b, c = x.unbind()
    y = a * c + b
    assert y.grad_fn is not None
    assert y.grad_fn.edges[1] == (b.grad_fn, 1)
    assert y.grad_fn.next_functions[0][0].edges == ((a.grad_fn, 0), (c.grad_fn, 2))  # type: ignore[union-attr]
    y.backward()
    assert x.grad.tolist() == [4.0, 1.0, 1.0]  # type: ignore[union-attr]


def test_a_view_in_inference_mode_is_as_its_base() -> None:
    x = dg.ones(2, 3)
    with dg.inference_mode():
        view, made = x.view(-1), x * 2
        assert not view.is_inference()
        assert made.is_inference()
        assert made.view(-1).is_inference()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        dg.ones(2, 3, requires_grad=True) * made
