"""Where elements go: memory that is shared or not, dtypes, and places named twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck, gradgradcheck
from distgrad.ops import indexing, rearrange, shape

X = np.arange(12.0).reshape(3, 4)
PLACES = np.array([[2, 0, 2, 1], [2, 0, 0, 1]])
VIEWS = {
    "movedim": lambda x: shape.movedim(x, 0, 1),
    "select": lambda x: shape.select(x, 1, 2),
    "select of a vector": lambda x: shape.select(shape.select(x, 0, 1), 0, 2),
    "chunk": lambda x: shape.chunk(x, 2, 1)[1],
    "diagonal": lambda x: rearrange.diagonal(x, 1),
}
COPIES = {
    "repeat": lambda x: rearrange.repeat(x, 1, 1),
    "repeat of length 1": lambda x: rearrange.repeat(x[:, :1], 1, 3),
    "tile": lambda x: rearrange.tile(x, ()),
    "flip": lambda x: rearrange.flip(x, ()),
    "flip of both": lambda x: rearrange.flip(x, 0, 1),
    "roll": lambda x: rearrange.roll(x, 0, 0),
    "tril": lambda x: rearrange.tril(x, 9),
    "triu": lambda x: rearrange.triu(x, -9),
    "diag": lambda x: rearrange.diag(x),
    "diag of a vector": lambda x: rearrange.diag(x[0]),
    "index_select": lambda x: indexing.index_select(x, 1, dg.tensor([0, 1, 2, 3])),
    "take_along_dim": lambda x: indexing.take_along_dim(x, dg.tensor([[0, 1, 2, 3]]), 1),
    "scatter": lambda x: indexing.scatter(x, 0, dg.zeros((0, 4), dtype=dg.int64), value=1),
    "scatter of a number": lambda x: indexing.scatter(x, 0, dg.tensor(PLACES), value=1),
    "scatter_add": lambda x: indexing.scatter_add(x, 0, dg.tensor(PLACES), x),
    "masked_fill": lambda x: indexing.masked_fill(x, dg.tensor(False), 1),
    "masked_select": lambda x: indexing.masked_select(x, dg.tensor(True)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_and_can_be_written(name: str) -> None:
    x = dg.tensor(X)
    view = VIEWS[name](x)
    assert np.shares_memory(view.numpy(), x.numpy())
    view.fill_(-1.0)
    expected = X.copy()
    changed = x.numpy() != expected
    assert changed.sum() == view.numel() and (x.numpy()[changed] == -1).all()


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_what_is_needed_cannot_be_changed_unnoticed(name: str) -> None:
    x = dg.tensor(X) * dg.tensor(1.0, requires_grad=True)
    y = (x * x).sum()
    with dg.no_grad():
        VIEWS[name](x).fill_(0.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("name", COPIES)
def test_copies_share_nothing_and_lie_in_order(name: str) -> None:
    for x in (dg.tensor(X), dg.tensor(X.T.copy()).t()):
        copy = COPIES[name](x)
        assert not np.shares_memory(copy.numpy(), x.numpy())
        copy.fill_(7.0)  # every element has memory of its own
        assert (x.numpy() == X).all()
    assert COPIES[name](dg.tensor(X)).is_contiguous()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", [*VIEWS, *COPIES])
def test_new_places_keep_the_dtype(name: str, dtype: str) -> None:
    assert (VIEWS | COPIES)[name](dg.Tensor(X.astype(dtype))).dtype == dtype


def test_diagonal_of_read_only_memory_stays_read_only() -> None:
    wide = dg.tensor([[1.0, 2.0]]).expand(2, 2)
    with pytest.raises(RuntimeError, match="read-only memory"):
        rearrange.diagonal(wide).fill_(0.0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_scatter_keeps_the_last_of_several_in_any_layout(order: Any) -> None:
    src = np.arange(1.0, 9.0).reshape(2, 4)
    expected = np.zeros((3, 4))
    for i, j in np.ndindex(2, 4):
        expected[PLACES[i, j], j] = src[i, j]
    values = dg.tensor(np.asarray(src, order=order), requires_grad=True)
    out = indexing.scatter(dg.zeros((3, 4), dtype=dg.float64), 0, dg.Tensor(np.asarray(PLACES, order=order)), values)
    assert (out.detach().numpy() == expected).all()


def test_gradient_of_what_scatter_overwrites_is_zero() -> None:
    rng = np.random.default_rng(0)
    x, src = (dg.tensor(rng.standard_normal(size), requires_grad=True) for size in ((3, 4), (2, 4)))
    index = dg.tensor(PLACES)

    def scattered(*_: Any) -> Any:
        return indexing.scatter(x, 0, index, src) ** 2

    assert gradcheck(scattered, [x, src])
    assert gradgradcheck(scattered, [x, src])
    indexing.scatter(x, 0, index, src).sum().backward()
    assert src.grad.tolist() == [[0, 0, 1, 0], [1, 1, 1, 1]]


def test_scatter_to_no_place() -> None:
    x, src = dg.ones((3, 4), requires_grad=True), dg.ones((2, 2), requires_grad=True)
    for scatter in (indexing.scatter, indexing.scatter_add):
        for size in ((0, 9), (9, 0)):
            out = scatter(x, 0, dg.zeros(size, dtype=dg.int64), src)
            gradients = dg.autograd.grad(out.sum(), [x, src])
            assert [g.sum().item() for g in gradients] == [12.0, 0.0] and out.tolist() == x.tolist()


def test_a_later_change_of_the_index_is_noticed() -> None:
    x = dg.ones(3, requires_grad=True)
    index = dg.tensor([0, 0])
    out = indexing.index_select(x, 0, index)
    index.fill_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_numbers_are_converted_as_in_pytorch() -> None:
    mask = dg.tensor([True, False])
    for dtype, value, expected in (
        (dg.int64, 1.9, 1),
        (dg.int64, -1.9, -1),
        (dg.uint8, -1, 255),
        (dg.bool, 0.5, True),
        (dg.float16, -65504.0, -65504.0),
        (dg.float32, float("inf"), float("inf")),
        (dg.int32, True, 1),
    ):
        out = indexing.masked_fill(dg.zeros(2, dtype=dtype), mask, value)
        assert out.dtype == dtype and out.tolist() == [expected, 0]
    for value in (65510.0, 1e9):
        with pytest.raises(RuntimeError, match="overflow"):
            indexing.masked_fill(dg.zeros(2, dtype=dg.float16), mask, value)


def test_nonzero_as_an_index() -> None:
    x = dg.tensor([[0.0, 2.0], [3.0, 0.0]])
    assert x[indexing.nonzero(x, as_tuple=True)].tolist() == [2.0, 3.0]
    assert indexing.nonzero(dg.tensor(5.0)).shape == (1, 0)


def test_gradients_reach_the_value_of_masked_fill() -> None:
    value = dg.tensor(2.0, requires_grad=True)
    indexing.masked_fill(dg.zeros((2, 3)), dg.tensor([True, False, True]), value).sum().backward()
    assert value.grad.item() == 4.0
