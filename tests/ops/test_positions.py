"""Elements and slices at positions from tensors: places named twice, numbers converted, forms in place, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck, gradgradcheck
from distgrad.ops import indexing, masked, positions, slices

PLACES = np.array([[2, 0, 2, 1], [2, 0, 0, 1]])


def leaf(*size: int, seed: int = 0) -> dg.Tensor:
    return dg.tensor(np.random.default_rng(seed).standard_normal(size), requires_grad=True)


# Places named twice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
def test_scatter_keeps_the_last_of_several_in_any_layout(order: Any) -> None:
    src = np.arange(1.0, 9.0).reshape(2, 4)
    expected = np.zeros((3, 4))
    for i, j in np.ndindex(2, 4):
        expected[PLACES[i, j], j] = src[i, j]
    values = dg.tensor(np.asarray(src, order=order), requires_grad=True)
    out = positions.scatter(dg.zeros((3, 4), dtype=dg.float64), 0, dg.Tensor(np.asarray(PLACES, order=order)), values)
    assert (out.detach().numpy() == expected).all()


TWICE: dict[str, Callable[[dg.Tensor, dg.Tensor], dg.Tensor]] = {
    "scatter": lambda x, src: positions.scatter(x, 0, dg.tensor(PLACES), src),
    "index_copy": lambda x, src: slices.index_copy(x, 0, dg.tensor([1, 1]), src),
    "index_copy of columns": lambda x, src: slices.index_copy(x.t(), 1, dg.tensor([1, 1]), src.t()),
    "index_put": lambda x, src: indexing.index_put(x, (dg.tensor([1, 1]),), src),
    "index_put of columns": lambda x, src: indexing.index_put(
        x, (dg.tensor([True, False, True]), dg.tensor([3, 3])), src[0, :2]
    ),
    "index_put between": lambda x, src: indexing.index_put(
        x[:, None].expand(3, 2, 4), (dg.tensor([0, 0]), dg.tensor([1, 1]), dg.tensor([[2], [3]])), src[:, 1:3]
    ),
    "put": lambda x, src: positions.put(x, dg.tensor([[0, 1, 0, 5], [5, 2, 3, 1]]), src),
}


@pytest.mark.parametrize("name", TWICE)
def test_gradient_of_what_is_overwritten_is_zero(name: str) -> None:
    x, src = leaf(3, 4), leaf(2, 4, seed=1)

    def written(*_: Any) -> Any:
        return TWICE[name](x, src) ** 2

    assert gradcheck(written, [x, src])
    assert gradgradcheck(written, [x, src])


def test_gradient_of_what_scatter_overwrites() -> None:
    x, src = leaf(3, 4), leaf(2, 4)
    positions.scatter(x, 0, dg.tensor(PLACES), src).sum().backward()
    assert src.grad.tolist() == [[0, 0, 1, 0], [1, 1, 1, 1]]


def test_scatter_to_no_place() -> None:
    x, src = dg.ones((3, 4), requires_grad=True), dg.ones((2, 2), requires_grad=True)
    for scatter in (positions.scatter, positions.scatter_add):
        for size in ((0, 9), (9, 0), (0,)):
            out = scatter(x, 0, dg.zeros(size, dtype=dg.int64), src)
            gradients = dg.autograd.grad(out.sum(), [x, src])
            assert [g.sum().item() for g in gradients] == [12.0, 0.0] and out.tolist() == x.tolist()


def test_gather_from_no_place() -> None:
    x = dg.ones((3, 4), requires_grad=True)
    out = positions.gather(x, 0, dg.zeros((0, 9), dtype=dg.int64))
    assert out.shape == (0, 9)
    assert dg.autograd.grad(out.sum(), x)[0].tolist() == dg.zeros(3, 4).tolist()


def test_a_later_change_of_the_index_is_noticed() -> None:
    x = dg.ones(3, requires_grad=True)
    index = dg.tensor([0, 0])
    out = slices.index_select(x, 0, index)
    index.fill_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


# Reductions ----------------------------------------------------------------------------------------------------------


def test_product_where_something_is_zero() -> None:
    """The product of the others is not zero where a single element is, but where two are."""
    index = dg.tensor([0, 0, 1, 1, 2])
    x = dg.tensor([2.0, 0.0, 0.0], dtype=dg.float64, requires_grad=True)
    src = dg.tensor([0.0, 3.0, 4.0, 5.0, 0.0], dtype=dg.float64, requires_grad=True)
    out = positions.scatter_reduce(x, 0, index, src, "prod")
    out.sum().backward()
    assert x.grad.tolist() == [0.0, 20.0, 0.0]
    assert src.grad.tolist() == [6.0, 0.0, 0.0, 0.0, 0.0]


def test_ties_share_the_gradient() -> None:
    x = dg.tensor([3.0, 1.0], requires_grad=True)
    src = dg.tensor([3.0, 3.0, 1.0, 0.0], requires_grad=True)
    positions.scatter_reduce(x, 0, dg.tensor([0, 0, 1, 1]), src, "amax").sum().backward()
    assert x.grad.tolist() == pytest.approx([1 / 3, 1 / 2])
    assert src.grad.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 2, 0.0])


def test_nan_is_passed_on_and_has_no_gradient() -> None:
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    out = positions.scatter_reduce(x, 0, dg.tensor([0]), dg.tensor([float("nan")]), "amax")
    assert np.isnan(out.detach().numpy()).tolist() == [True, False]
    out.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
def test_reductions_of_every_dtype(reduce: str, dtype: str, include_self: bool) -> None:
    torch = pytest.importorskip("torch")
    if dtype == "bool" and reduce == "mean":
        pytest.skip("there is none")
    rng = np.random.default_rng(0)
    low = 0 if dtype in ("bool", "uint8") else -3
    x, src = (rng.integers(low, 2 if dtype == "bool" else 4, size).astype(dtype) for size in ((4, 3), (6, 3)))
    index = rng.integers(0, 3, (6, 3))
    mine = positions.scatter_reduce(
        dg.tensor(x), 0, dg.tensor(index), dg.tensor(src), reduce, include_self=include_self
    )
    theirs = torch.from_numpy(x.copy()).scatter_reduce(
        0, torch.from_numpy(index), torch.from_numpy(src), reduce, include_self=include_self
    )
    assert str(theirs.dtype) == f"torch.{mine.dtype}"
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-3 if dtype == "float16" else 1e-6)


# Numbers -------------------------------------------------------------------------------------------------------------


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
        out = masked.masked_fill(dg.zeros(2, dtype=dtype), mask, value)
        assert out.dtype == dtype and out.tolist() == [expected, 0]
    for value in (65510.0, 1e9):
        with pytest.raises(RuntimeError, match="overflow"):
            masked.masked_fill(dg.zeros(2, dtype=dg.float16), mask, value)


def test_gradients_reach_the_value_of_masked_fill() -> None:
    value = dg.tensor(2.0, requires_grad=True)
    masked.masked_fill(dg.zeros((2, 3)), dg.tensor([True, False, True]), value).sum().backward()
    assert value.grad.item() == 4.0


# In place ------------------------------------------------------------------------------------------------------------

INDEX, ROWS = [[0, 2, 1, 0]], [[1.0, 2.0, 3.0, 4.0]]
IN_PLACE: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "index_add": lambda t, s: (0, t.tensor([1]), s),
    "index_copy": lambda t, s: (0, t.tensor([1]), s),
    "index_fill": lambda t, s: (1, t.tensor([0, 3]), 7.0),
    "index_put": lambda t, s: ((t.tensor([0, 2]), t.tensor([1, 1])), s[0, :2]),
    "masked_fill": lambda t, s: (t.tensor([True, False, False, True]), -1.0),
    "masked_scatter": lambda t, s: (t.tensor([[True], [False], [False]]), s),
    "put": lambda t, s: (t.tensor([0, -1, 5, 6]), s),
    "scatter": lambda t, s: (0, t.tensor(INDEX), s),
    "scatter_add": lambda t, s: (0, t.tensor(INDEX), s),
    "scatter_reduce": lambda t, s: (0, t.tensor(INDEX), s, "amax"),
    "tril": lambda t, s: (1,),
    "triu": lambda t, s: (1,),
}


def changed(t: Any, name: str) -> list[Any]:
    """The result of the form in place and its gradients, for distgrad or PyTorch as ``t``."""
    x, s = (t.tensor(v, requires_grad=True) for v in (np.arange(12.0, dtype=np.float32).reshape(3, 4).tolist(), ROWS))
    y = x * 1.0
    out = getattr(y, f"{name}_")(*IN_PLACE[name](t, s))
    assert out is y
    (y * y).sum().backward()
    return [y.tolist(), *(None if v.grad is None else v.grad.tolist() for v in (x, s))]


@pytest.mark.parametrize("name", IN_PLACE)
def test_forms_in_place_do_the_same(name: str) -> None:
    x, s = dg.arange(12.0).reshape(3, 4), dg.tensor(ROWS)
    expected = getattr(x, name)(*IN_PLACE[name](dg, s)).tolist()
    assert getattr(x, f"{name}_")(*IN_PLACE[name](dg, s)) is x
    assert x.tolist() == expected and x._version >= 1


@pytest.mark.parity
@pytest.mark.parametrize("name", IN_PLACE)
def test_forms_in_place_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    assert changed(dg, name) == changed(torch, name)


def test_a_form_in_place_does_not_grow_the_tensor() -> None:
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        dg.zeros(3).masked_fill_(dg.tensor([[True, False, True]] * 2), 1.0)
