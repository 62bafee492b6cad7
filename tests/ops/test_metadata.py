"""Shape and strides of a tensor itself: what it becomes, its history, and when it is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg

CHANGES: dict[str, tuple[Any, ...]] = {
    "t_": (),
    "transpose_": (0, 1),
    "swapaxes_": (0, -1),
    "swapdims_": (1, 0),
    "unsqueeze_": (1,),
    "squeeze_": (),
    "as_strided_": ((2, 2), (1, 3), 1),
}
every_change = pytest.mark.parametrize("name", CHANGES)


@every_change
def test_the_memory_stays(name: str) -> None:
    x = dg.arange(6.0).reshape(2, 3).clone()
    where, expected = x.data_ptr(), getattr(x, name[:-1])(*CHANGES[name]).tolist()
    assert getattr(x, name)(*CHANGES[name]) is x
    assert x.tolist() == expected
    assert 0 <= x.data_ptr() - where < 24


@pytest.mark.parity
@every_change
def test_history_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for t in (dg, torch):
        leaf = t.arange(6.0, dtype=t.float64).reshape(2, 3).clone().requires_grad_()
        x = leaf * 2.0
        getattr(x, name)(*CHANGES[name])
        x.mul_(t.arange(float(x.numel()), dtype=t.float64).reshape(tuple(x.shape)))
        (x * x).sum().backward()
        found.append((tuple(x.shape), x.stride(), x.tolist(), leaf.grad.tolist()))
    assert found[0] == found[1]


def test_a_view_of_another() -> None:
    leaf = dg.ones((2, 3), requires_grad=True)
    base = leaf * 1.0
    x = base[:1]
    x.squeeze_(0)
    x.mul_(3.0)
    assert base.tolist() == [[3.0] * 3, [1.0] * 3]
    base.sum().backward()
    assert leaf.grad.tolist() == [[3.0] * 3, [1.0] * 3]


def test_a_leaf_is_refused() -> None:
    x = dg.ones((2, 3), requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        x.t_()
    with dg.no_grad():
        assert x.t_().shape == (3, 2) and x.requires_grad


@pytest.mark.parity
@pytest.mark.parametrize("name", [name for name in CHANGES if name != "as_strided_"])  # which leaves elements out
def test_views_taken_before_stay_what_they_are(name: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for t in (dg, torch):
        leaf = t.arange(6.0, dtype=t.float64).reshape(2, 3).clone().requires_grad_()
        x = leaf * 2.0
        row = x[1]
        getattr(x, name)(*CHANGES[name])
        row.mul_(3.0)
        x.add_(1.0)
        (x.sum() + (row * row).sum()).backward()
        found.append((x.tolist(), row.tolist(), leaf.grad.tolist()))
    assert found[0] == found[1]


def test_a_backward_pass_notices() -> None:
    leaf = dg.ones((2, 3), requires_grad=True)
    x = leaf * 1.0
    y = (x * x).sum()
    x.t_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_it_counts_as_a_change() -> None:
    x = dg.tensor(np.ones((2, 3)))
    before = x._version
    x.unsqueeze_(0)
    assert x._version > before
