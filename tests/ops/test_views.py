"""Which results share memory with what they are made of: the same as in PyTorch, and with the same strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

# Functions of the module, distgrad or torch, and of a (3, 4) or (2, 3, 4) tensor.
VIEWS: dict[str, Callable[[Any, Any], Any]] = {
    "reshape": lambda t, x: t.reshape(x, (2, 6)),
    "reshape that merges rows of length 1": lambda t, x: x[:1].t().reshape(4),
    "reshape_as": lambda t, x: x.reshape_as(t.zeros(6, 2)),
    "view": lambda t, x: x.view(4, -1),
    "view of a part": lambda t, x: x[:, 1:3].view(3, 2, 1),
    "view_as": lambda t, x: x.view_as(t.zeros(12)),
    "view of a dtype": lambda t, x: x.view(t.int64),
    "view of a narrower dtype": lambda t, x: x.view(t.int32),
    "flatten": lambda t, x: t.flatten(x),
    "flatten of one dimension": lambda t, x: t.flatten(x.t(), 1),
    "ravel": lambda t, x: t.ravel(x),
    "unflatten": lambda t, x: x.unflatten(1, (2, 2)),
    "unflatten of a transpose": lambda t, x: x.t().unflatten(0, (2, -1)),
    "squeeze": lambda t, x: t.squeeze(x[None, :, None]),
    "squeeze of one": lambda t, x: t.squeeze(x[:1], 0),
    "squeeze of two": lambda t, x: t.squeeze(x[:1, :1], (0, 1)),
    "squeeze of none": lambda t, x: t.squeeze(x, 0),
    "unsqueeze": lambda t, x: t.unsqueeze(x, 1),
    "permute": lambda t, x: t.permute(x, (1, 0)),
    "transpose": lambda t, x: t.transpose(x, 0, 1),
    "swapaxes": lambda t, x: t.swapaxes(x, 0, 1),
    "swapdims": lambda t, x: t.swapdims(x, 0, 1),
    "movedim": lambda t, x: t.movedim(x, 0, 1),
    "moveaxis": lambda t, x: t.moveaxis(x, 0, 1),
    "t": lambda t, x: t.t(x),
    "t of a vector": lambda t, x: t.t(x[0]),
    "T": lambda t, x: x.T,
    "mT": lambda t, x: x.mT,
    "H": lambda t, x: x.H,
    "mH": lambda t, x: x.mH,
    "expand of nothing": lambda t, x: x.expand(3, -1),
    "expand with a new dimension": lambda t, x: x.expand(1, 3, 4),
    "atleast_1d": lambda t, x: t.atleast_1d(x[0, 1]),
    "atleast_2d": lambda t, x: t.atleast_2d(x[0]),
    "atleast_3d": lambda t, x: t.atleast_3d(x),
    "split": lambda t, x: t.split(x, 2),
    "split with sizes": lambda t, x: t.split(x, (1, 3), 1),
    "split_with_sizes": lambda t, x: t.split_with_sizes(x, (1, 2)),
    "tensor_split": lambda t, x: t.tensor_split(x, 3, 1),
    "tensor_split that overlaps": lambda t, x: t.tensor_split(x, (3, 1), 1)[2],
    "chunk": lambda t, x: t.chunk(x, 2, 1),
    "hsplit": lambda t, x: t.hsplit(x, 2),
    "vsplit": lambda t, x: t.vsplit(x, 3),
    "dsplit": lambda t, x: t.dsplit(x[None], 2),
    "unbind": lambda t, x: t.unbind(x, 1),
    "unbind of one": lambda t, x: t.unbind(x[:1]),
    "iteration": lambda t, x: tuple(x),
    "narrow": lambda t, x: t.narrow(x, 1, 1, 2),
    "select": lambda t, x: t.select(x, 1, 2),
    "select of a vector": lambda t, x: t.select(x[1], 0, 2),
    "diagonal": lambda t, x: t.diagonal(x, 1),
    "as_strided": lambda t, x: t.as_strided(x, (2, 2), (1, 5), 1),
    "as_strided of a view": lambda t, x: x[1:].as_strided((2,), (2,)),
    "as_strided before a view": lambda t, x: x[2:].as_strided((4,), (3,), 0),
    "unfold": lambda t, x: x.unfold(1, 2, 2),
    "alias": lambda t, x: x[...],
    "index by nothing": lambda t, x: x[()],
    "integer": lambda t, x: x[1],
    "negative integer": lambda t, x: x[-1],
    "integers": lambda t, x: x[1, 2],
    "0-d tensor": lambda t, x: x[t.tensor(1)],
    "slice": lambda t, x: x[1:, ::2],
    "None": lambda t, x: x[:, None, 1],
    "detach": lambda t, x: x.detach(),
    "contiguous": lambda t, x: x.contiguous(),
}
# Of these several elements are one in memory.
WIDE: dict[str, Callable[[Any, Any], Any]] = {
    "expand": lambda t, x: x[:, :1].expand(-1, 3),
    "expand_as": lambda t, x: x[0].expand_as(x),
    "broadcast_to": lambda t, x: t.broadcast_to(x, (2, -1, 4)),
    "broadcast_tensors": lambda t, x: t.broadcast_tensors(x[0], t.zeros(2, 1))[0],
    "meshgrid": lambda t, x: t.meshgrid(x[0], x[1], indexing="xy"),
    "overlapping as_strided": lambda t, x: x.as_strided((2, 3), (0, 1)),
    "unfold that overlaps": lambda t, x: x.unfold(0, 2, 1),
}
REORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "reshape of a transpose": lambda t, x: x.t().reshape(12),
    "flatten of a transpose": lambda t, x: x.t().flatten(),
    "ravel of a part": lambda t, x: t.ravel(x[:, :2]),
    "unflatten and merged": lambda t, x: x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1),
    "contiguous of a transpose": lambda t, x: x.t().contiguous(),
}
COPIES: dict[str, Callable[[Any, Any], Any]] = {
    "clone": lambda t, x: x.clone(),
    "repeat": lambda t, x: x.repeat(1, 1),
    "tile": lambda t, x: t.tile(x, (1,)),
    "repeat_interleave": lambda t, x: t.repeat_interleave(x, 1, 0),
    "repeat_interleave of a row": lambda t, x: t.repeat_interleave(x[:1], 2, 0),
    "repeat_interleave by a tensor": lambda t, x: t.repeat_interleave(x, t.tensor([1, 1, 1]), 0),
    "flip": lambda t, x: t.flip(x, ()),
    "fliplr": lambda t, x: t.fliplr(x),
    "flipud": lambda t, x: t.flipud(x),
    "rot90": lambda t, x: t.rot90(x, 0),
    "rot90 by a half": lambda t, x: t.rot90(x, 2),
    "roll": lambda t, x: t.roll(x, 0, 0),
    "tril": lambda t, x: t.tril(x, 9),
    "triu": lambda t, x: t.triu(x, -9),
    "diag": lambda t, x: t.diag(x),
    "diag of a vector": lambda t, x: t.diag(x[0]),
    "diag_embed": lambda t, x: t.diag_embed(x),
    "diagflat": lambda t, x: t.diagflat(x),
    "block_diag": lambda t, x: t.block_diag(x),
    "cat": lambda t, x: t.cat([x]),
    "stack": lambda t, x: t.stack([x]),
    "hstack": lambda t, x: t.hstack([x]),
    "cartesian_prod": lambda t, x: t.cartesian_prod(x[0], x[1]),
    "combinations": lambda t, x: t.combinations(x[0], 1),
    "gather": lambda t, x: t.gather(x, 0, t.tensor([[0, 1, 2, 0]])),
    "take": lambda t, x: t.take(x, t.tensor([0, 1])),
    "take_along_dim": lambda t, x: t.take_along_dim(x, t.tensor([[0, 1, 2, 3]]), 1),
    "index_select": lambda t, x: t.index_select(x, 1, t.tensor([0, 1, 2, 3])),
    "index_fill": lambda t, x: t.index_fill(x, 0, t.tensor([0]), 1.0),
    "index_copy": lambda t, x: t.index_copy(x, 0, t.tensor([], dtype=t.int64), x[:0]),
    "index_add": lambda t, x: t.index_add(x, 0, t.tensor([0]), x[:1]),
    "index_put": lambda t, x: t.index_put(x, (t.tensor([0]),), x[0]),
    "put": lambda t, x: x.put(t.tensor([0]), x[0, :1]),
    "scatter": lambda t, x: t.scatter(x, 0, t.zeros((0, 4), dtype=t.int64), value=1),
    "scatter_add": lambda t, x: t.scatter_add(x, 0, t.tensor([[0, 1, 2, 0]]), x),
    "scatter_reduce": lambda t, x: t.scatter_reduce(x, 0, t.tensor([[0, 1, 2, 0]]), x, "amax"),
    "masked_fill": lambda t, x: t.masked_fill(x, t.tensor(False), 1),
    "masked_select": lambda t, x: t.masked_select(x, t.tensor(True)),
    "masked_scatter": lambda t, x: t.masked_scatter(x, t.tensor(False), x),
    "list": lambda t, x: x[[0, 1, 2]],
    "mask": lambda t, x: x[x == x],
    "array": lambda t, x: x[np.array([0])],
    "bool": lambda t, x: x[True],
    "slice and tensor": lambda t, x: x[1:, t.tensor([0, 2])],
    "tensor of a dtype": lambda t, x: x.to(t.float32),
    "tensor": lambda t, x: t.tensor(x.tolist()),
}
X = np.arange(12.0).reshape(3, 4)
ALL = VIEWS | WIDE | REORDERED | COPIES


def parts(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_and_can_be_written(name: str) -> None:
    for number in range(len(parts(VIEWS[name](dg, dg.tensor(X))))):
        x = dg.tensor(X)
        view = parts(VIEWS[name](dg, x))[number]
        assert np.shares_memory(view.numpy(), x.numpy())
        view.fill_(-1)
        changed = x.numpy() != X
        assert changed.sum() * x.element_size() == view.numel() * view.element_size()
        assert (view.numpy() == -1).all()


@pytest.mark.parametrize("name", WIDE)
def test_wide_views_show_their_base(name: str) -> None:
    x = dg.tensor(X)
    for view in parts(WIDE[name](dg, x)):
        assert np.shares_memory(view.numpy(), x.numpy())
        before = view.numpy().copy()
        x.add_(1.0)
        assert (view.numpy() == before + 1).all()


@pytest.mark.parametrize("name", [name for name in WIDE if name != "unfold that overlaps"])
def test_elements_that_are_one_in_memory_cannot_be_written(name: str) -> None:
    for view in parts(WIDE[name](dg, dg.tensor(X))):
        with pytest.raises(RuntimeError, match="single memory location"):
            view.add_(1.0)


@pytest.mark.parametrize("name", [*VIEWS, *WIDE])
def test_a_view_of_what_is_needed_cannot_be_changed_unnoticed(name: str) -> None:
    x = dg.tensor(X) * dg.tensor(1.0, dtype=dg.float64, requires_grad=True)
    y = (x * x).sum()
    with dg.no_grad():
        view = parts(ALL[name](dg, x))[0]
        if name in WIDE:
            x.add_(1.0)
        else:
            view.fill_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("name", [*REORDERED, *COPIES])
def test_copies_share_nothing_and_can_be_written(name: str) -> None:
    transposed = [] if name in REORDERED else [dg.tensor(X.T.copy()).t()]
    for x in (dg.tensor(X), *transposed):
        copy = ALL[name](dg, x)
        assert not np.shares_memory(copy.numpy(), x.numpy())
        copy.fill_(7.0)  # every element has memory of its own
        assert (x.numpy() == X).all()


# The others keep the order in memory of what they are made of, or turn it.
ORDERED = [name for name in COPIES if not name.startswith(("clone", "rot90", "masked_fill", "tensor of"))]


@pytest.mark.parametrize("name", ORDERED)
def test_copies_lie_in_row_major_order(name: str) -> None:
    for x in (dg.tensor(X), dg.tensor(X.T.copy()).t()):
        assert COPIES[name](dg, x).is_contiguous()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", [n for n in [*VIEWS, *WIDE] if "dtype" not in n])
def test_views_keep_the_dtype(name: str, dtype: str) -> None:
    x = dg.Tensor(X.astype(dtype))
    for view in parts(ALL[name](dg, x)):
        assert view.dtype == dtype
        assert not dtype.startswith("float") or view.requires_grad is False


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", [name for name in COPIES if not name.startswith("tensor")])
def test_new_places_keep_the_dtype(name: str, dtype: str) -> None:
    assert COPIES[name](dg, dg.Tensor(X.astype(dtype))).dtype == dtype


@pytest.mark.parity
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_memory_is_shared_where_torch_shares_it(name: str, transposed: bool) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for t in (dg, torch):
        base = t.tensor(X.T.tolist() if transposed else X.tolist(), dtype=t.float64)
        x = base.t() if transposed else base
        try:
            results = parts(ALL[name](t, x))
        except RuntimeError as error:
            found.append(type(error))
            continue
        low, high = base.data_ptr(), base.data_ptr() + base.numel() * base.element_size()
        shown = []
        for result in results:
            shape, strides = tuple(result.shape), result.stride()
            inside = low <= result.data_ptr() < high
            strides = [s for n, s in zip(shape, strides, strict=True) if n > 1] if inside else None
            shown.append((shape, inside and result.data_ptr() - low, strides, result.detach().tolist()))
        found.append(shown)
    assert found[0] == found[1]


def test_view_of_a_dtype_refuses_other_strides() -> None:
    x = dg.zeros(4, 3)
    with pytest.raises(RuntimeError, match=r"self.stride\(-1\) must be 1 to view float32 as int64"):
        x.t().view(dg.int64)
    with pytest.raises(RuntimeError, match=r"self.stride\(0\) must be divisible by 2 to view float32 as int64"):
        x[:, :2].view(dg.int64)
    assert x.t().view(dg.int32).stride() == (1, 3)
    assert x[:, :2].view(dg.int16).shape == (4, 4)


def test_a_view_of_the_same_dtype_passes_gradients() -> None:
    x = dg.ones(2, requires_grad=True)
    (x.view(dg.float32) * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    assert not x.view(dg.int32).requires_grad


def test_as_strided_of_a_view() -> None:
    """Memory before, between and after the elements of a view, and the gradients of those that are its own."""
    memory = dg.arange(12.0, dtype=dg.float64)
    x = memory[1:11:3]  # 1, 4, 7, 10
    assert x.storage_offset() == 1
    assert x.as_strided((3,), (4,), 0).tolist() == [0.0, 4.0, 8.0]
    assert x.as_strided((4, 2), (3, 0)).tolist() == [[v, v] for v in (1.0, 4.0, 7.0, 10.0)]
    leaf = dg.ones(4, dtype=dg.float64, requires_grad=True)
    y = (leaf * 2.0)[::2]
    y.as_strided((4,), (1,), 0).sum().backward()  # elements 0 and 2 are those of y
    assert leaf.grad.tolist() == [2.0, 0.0, 2.0, 0.0]


@pytest.mark.parity
def test_gradient_of_as_strided_with_shared_memory() -> None:
    torch = pytest.importorskip("torch")
    gradients = []
    for t in (dg, torch):
        x = t.tensor([1.0, 2.0, 3.0], requires_grad=True)
        wide = x.expand(2, 3)
        out = wide.as_strided((2, 2), (1, 1))
        out.backward(t.tensor([[1.0, 10.0], [100.0, 1000.0]]))
        gradients.append(x.grad.tolist())
    assert gradients[0] == gradients[1]


def test_storage_offset() -> None:
    x = dg.zeros(3, 4)
    assert [x.storage_offset(), x[1].storage_offset(), x[1:, 2:].storage_offset(), x.t()[3].storage_offset()] == [
        0, 4, 6, 3,
    ]  # fmt: skip
    assert dg.zeros(0).storage_offset() == 0


def test_broadcast_shapes() -> None:
    assert dg.broadcast_shapes((2,), (3, 1), (1,)) == (3, 2)
    assert dg.broadcast_shapes(2, [3, 1]) == (3, 2)
    assert repr(dg.broadcast_shapes()) == "torch.Size([])"
    with pytest.raises(RuntimeError, match=r"the shapes \[\(2,\), \(3,\)\] do not broadcast"):
        dg.broadcast_shapes((2,), (3,))
    with pytest.raises(ValueError, match="negative length"):
        dg.broadcast_shapes((-1,))


def test_transposes_of_vectors() -> None:
    for name in ("mT", "H", "mH"):
        with pytest.raises(RuntimeError, match="only supported on matrices"):
            getattr(dg.ones(3), name)
        assert getattr(dg.tensor(3.0), name).item() == 3.0
    with pytest.raises(RuntimeError, match="only supported on matrices"):
        _ = dg.ones(2, 2, 2).H
