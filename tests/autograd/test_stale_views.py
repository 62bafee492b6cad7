"""Views whose base was told something, or was changed, after they were made: what they say, and where gradients go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import distgrad as dg


def taken(t: Any, call: Callable[[], Any]) -> Any:
    with t.no_grad():
        return call()


def after_the_base_requires_grad(t: Any) -> list[Any]:
    base = t.ones(3)
    view = base[:2]
    base.requires_grad_()
    out = view * 2
    out.sum().backward()
    return [view.requires_grad, view.is_leaf, out.requires_grad, out.is_leaf, base.grad is None, view.grad is None]


def after_the_base_no_longer_does(t: Any) -> list[Any]:
    base = t.ones(3).requires_grad_()
    view = taken(t, lambda: base[:2])
    before = view.requires_grad
    base.requires_grad_(False)
    return [before, view.requires_grad, (view * 2).requires_grad]


def a_view_that_becomes_a_leaf_of_its_own(t: Any) -> list[Any]:
    base = t.ones(3).requires_grad_()
    view = taken(t, lambda: base[:2])
    (view * 2).sum().backward()
    nothing = view.grad is None
    view.requires_grad_()
    (view * 2).sum().backward()
    return [nothing, view.grad.tolist(), base.grad is None]


def a_leaf_view_of_what_requires_nothing(t: Any) -> list[Any]:
    base = t.ones(3)
    view = base[:2].requires_grad_()
    (view * 2).sum().backward()
    return [base.requires_grad, view.grad.tolist()]


def a_retained_gradient_moves_with_the_base(t: Any) -> list[Any]:
    x = t.tensor([1.0, 2.0]).requires_grad_()
    base = x * 1
    view = base.view(2)
    view.retain_grad()
    base.mul_(3)
    (view * 1).sum().backward()
    return [view.grad.tolist(), x.grad.tolist()]


def a_retained_gradient_is_not_that_of_old_values(t: Any) -> list[Any]:
    x = t.tensor([1.0, 2.0]).requires_grad_()
    view = (x * 1).view(2)
    view.retain_grad()
    old = view * 5
    view.mul_(3)
    old.sum().backward()
    return [view.grad is None, x.grad.tolist()]


def detach_after_a_change_of_shape(t: Any) -> list[Any]:
    x = t.ones(2, 3).requires_grad_()
    y = x * 2
    y.transpose_(0, 1)
    made = [y._is_view(), y._base is None]
    y.detach_()
    return [*made, y.requires_grad, y.is_leaf, tuple((y * 2).shape)]


def an_assignment_through_a_view_at_positions(t: Any) -> list[Any]:
    x = t.tensor([1.0, 2.0, 3.0]).requires_grad_()
    view = (x * 1).view(3)
    places = t.tensor([0, 1])
    view[places] = view[places] * 2
    view.sum().backward()
    return [view.tolist(), x.grad.tolist()]


def an_assignment_through_a_view_by_a_mask(t: Any) -> list[Any]:
    x = t.tensor([1.0, 2.0, 3.0]).requires_grad_()
    base = x * 1
    view = base.view(3)
    view[view > 1.5] *= 2
    (base * 3).sum().backward()
    return [base.tolist(), x.grad.tolist()]


def renorm_in_place(t: Any) -> list[Any]:
    x = t.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=t.float64).requires_grad_()
    y = x * 1
    y.renorm_(2, 0, 1.0)
    y.sum().backward()
    return [[round(v, 9) for row in value.tolist() for v in row] for value in (y, x.grad)]


CASES = [
    after_the_base_requires_grad, after_the_base_no_longer_does, a_view_that_becomes_a_leaf_of_its_own,
    a_leaf_view_of_what_requires_nothing, a_retained_gradient_moves_with_the_base,
    a_retained_gradient_is_not_that_of_old_values, detach_after_a_change_of_shape,
    an_assignment_through_a_view_at_positions, an_assignment_through_a_view_by_a_mask, renorm_in_place,
]  # fmt: skip
EXPECTED: dict[Any, list[Any]] = {
    after_the_base_requires_grad: [True, True, True, False, True, True],
    after_the_base_no_longer_does: [True, False, False],
    a_view_that_becomes_a_leaf_of_its_own: [True, [2.0, 2.0], True],
    a_leaf_view_of_what_requires_nothing: [False, [2.0, 2.0]],
    a_retained_gradient_moves_with_the_base: [[1.0, 1.0], [3.0, 3.0]],
    a_retained_gradient_is_not_that_of_old_values: [True, [5.0, 5.0]],
    detach_after_a_change_of_shape: [False, True, False, True, (3, 2)],
    an_assignment_through_a_view_at_positions: [[2.0, 4.0, 3.0], [2.0, 2.0, 1.0]],
    an_assignment_through_a_view_by_a_mask: [[1.0, 4.0, 6.0], [3.0, 6.0, 6.0]],
    renorm_in_place: [[0.6, 0.8, 0.3, 0.4], [0.032, -0.024, 1.0, 1.0]],
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case: Callable[[Any], list[Any]]) -> None:
    for found, expected in zip(case(dg), EXPECTED[case], strict=True):
        assert found == (pytest.approx(expected, abs=1e-6) if isinstance(expected, list) else expected)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("case", CASES)
def test_as_in_torch(case: Callable[[Any], list[Any]]) -> None:
    torch = pytest.importorskip("torch")
    assert repr(case(dg)) == repr(case(torch))


def test_what_asks_for_the_history_of_a_stale_view_is_refused() -> None:
    base = dg.ones(4).requires_grad_() * 1
    part = base.chunk(2)[0]
    base.mul_(2)
    for call in (part.retain_grad, lambda: part.register_hook(print), lambda: part.grad_fn):
        with pytest.raises(RuntimeError, match="modified inplace"):
            call()


def test_gradients_of_and_for_a_view_that_was_not_recorded() -> None:
    base = dg.ones(3).requires_grad_()
    view = taken(dg, lambda: base[:2])
    with pytest.raises(RuntimeError, match="does not require grad"):
        dg.autograd.grad(view, view, grad_outputs=dg.ones(2))
    out = (view * 2).sum()
    assert dg.autograd.grad(out, view, allow_unused=True, retain_graph=True) == (None,)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        dg.autograd.grad(out, view)


def test_detach_of_a_view_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Can't detach views in-place"):
        (dg.ones(3).requires_grad_() * 1)[:2].detach_()
