"""``Tensor``: flags, versions, leaving the graph, Python's protocols."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Size, Tensor


def leaf(*values: float) -> Tensor:
    return dg.tensor(list(values), requires_grad=True)


# Flags ---------------------------------------------------------------------------------------------------------------


def test_requires_grad_spreads() -> None:
    x, y = dg.rand((5, 5)), dg.rand((5, 5))
    z = dg.rand((5, 5), requires_grad=True)
    assert not (x + y).requires_grad
    assert (x + z).requires_grad
    assert x.is_leaf and z.is_leaf and not (x + z).is_leaf


def test_requires_grad_of_leaves_may_change() -> None:
    x = dg.ones(2)
    assert x.requires_grad_() is x
    assert x.requires_grad
    x.requires_grad = False
    y = leaf(1.0) * 2
    y.requires_grad = True
    with pytest.raises(RuntimeError, match="you can only change requires_grad flags of leaf variables"):
        y.requires_grad = False
    for dtype in (dg.int64, dg.bool):
        with pytest.raises(RuntimeError, match="floating point dtype can require gradients"):
            dg.ones(2, dtype=dtype).requires_grad_()


def test_results_that_are_not_floating_do_not_require_grad() -> None:
    x = leaf(1.0, 2.0)
    for y in (x > 1, x.argmax(), x.long(), x.max(0).indices):
        assert not y.requires_grad
        assert y.is_leaf


def test_assigned_gradients_are_checked() -> None:
    x = leaf(1.0, 2.0)
    x.grad = dg.ones(2)
    x.grad = None
    with pytest.raises(TypeError, match="expected to be a Tensor or None"):
        x.grad = 3
    with pytest.raises(RuntimeError, match=r"different size: the tensor is \[2\], the gradient \[3\]"):
        x.grad = dg.ones(3)
    with pytest.raises(RuntimeError, match="different type: the tensor is float32, the gradient float64"):
        x.grad = dg.ones(2, dtype=dg.float64)


# Changes in place ----------------------------------------------------------------------------------------------------


def test_a_saved_operand_that_was_changed_is_noticed() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1
    z = y * y
    y += 1
    with pytest.raises(
        RuntimeError,
        match=r"modified by an inplace operation: Mul saved its operand 'input' .* version 0; .* version 1",
    ):
        z.sum().backward()


def test_a_saved_output_that_was_changed_is_noticed() -> None:
    x = leaf(1.0, 2.0)
    y = x.exp()
    y += 1
    with pytest.raises(RuntimeError, match=r"inplace operation: Exp saved its output .* version 0; .* version 1"):
        y.sum().backward()
    y = x.exp()
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="Exp saved its output"):
        y.sum().backward()


def test_changes_that_do_no_harm() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y += x
    y *= 3
    y -= 1
    y.sum().backward()
    assert x.grad.tolist() == [9.0, 9.0]
    assert y.grad_fn.name() == "SubBackward0"


def test_an_operation_may_overwrite_its_own_operand() -> None:
    x, w = leaf(2.0, 3.0), leaf(5.0, 7.0)
    y = x * 1
    y *= w
    y *= y
    y.sum().backward()
    assert x.grad.tolist() == [100.0, 294.0]
    assert w.grad.tolist() == [40.0, 126.0]


def test_the_identity_of_what_is_changed() -> None:
    y = leaf(1.0) * 2
    before, pointer = y, y.data_ptr()
    y += 1
    y.mul_(2).clamp_(0, 4)
    assert y is before
    assert y.data_ptr() == pointer
    assert y.tolist() == [4.0]


@pytest.mark.parametrize(
    "change", [lambda x: x.add_(1), lambda x: x.zero_(), lambda x: x.copy_(dg.ones(2)), lambda x: x.fill_(3)]
)
def test_leaves_refuse(change: Callable[[Tensor], Any]) -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        change(x)
    assert x.tolist() == [1.0, 2.0]
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        x[0] = 3.0
    with dg.no_grad():
        change(x)
        x[0] = 5.0
    assert x.is_leaf
    assert x.requires_grad
    assert x.tolist()[0] == 5.0


def test_an_optimizer_step() -> None:
    w = leaf(1.0, 2.0)
    (w * w).sum().backward()
    with dg.no_grad():
        w -= 0.5 * w.grad
        w.add_(w.grad, alpha=0.25)
    assert w.tolist() == [0.5, 1.0]
    assert w.grad.tolist() == [2.0, 4.0]
    assert w.is_leaf


def test_a_view_of_a_leaf_refuses() -> None:
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
        leaf(1.0, 2.0)[0].add_(1)
    with dg.no_grad():
        leaf(1.0, 2.0)[0].add_(1)


def test_views_share_memory_and_version() -> None:
    base = dg.zeros(2, 3)
    for view in (base[0], base[0, 1], base.view(3, 2), base.t(), base.unbind()[1], base.narrow(1, 0, 2), base[1, 2:]):
        version = base._version
        view += 1
        assert base._version == version + 1 == view._version
    assert base.tolist() == [[4.0, 5.0, 3.0], [4.0, 4.0, 4.0]]
    assert base[[0, 1]]._version == 0


def test_memory_that_several_elements_share_is_refused() -> None:
    for tensor in (dg.ones(1).expand(3), dg.from_numpy(np.broadcast_to(np.ones(1), (3,)))):
        with pytest.raises(RuntimeError, match=r"Please clone\(\) the tensor"):
            tensor.add_(1)


def test_in_place_results_keep_dtype_and_shape() -> None:
    x = dg.ones(2, dtype=dg.int64)
    with pytest.raises(RuntimeError, match="result type float32 can't be cast to the desired output type int64"):
        x += 0.5
    with pytest.raises(RuntimeError, match=r"output with shape \[2\] doesn't match the broadcast shape \[3, 2\]"):
        x += dg.ones((3, 2), dtype=dg.int64)
    y = dg.ones(2)
    y += dg.ones(2, dtype=dg.float64)
    assert y.dtype == dg.float32


def test_copy_from_a_leaf_leads_back_to_it() -> None:
    source, target = leaf(1.0, 2.0), dg.zeros(2)
    target.copy_(source)
    assert not target.is_leaf
    (target * 3).sum().backward()
    assert source.grad.tolist() == [3.0, 3.0]


# Leaving the graph ---------------------------------------------------------------------------------------------------


def test_detach_shares_memory_and_version() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    d = x.detach()
    assert not d.requires_grad
    assert d.is_leaf
    assert d.data_ptr() == x.data_ptr()
    d.add_(1)
    assert x.tolist() == [2.0, 3.0]
    assert x._version == d._version == 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_data_changes_go_unnoticed() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    x.data.mul_(10)
    assert x._version == 0
    y.sum().backward()
    assert x.grad.tolist() == [20.0, 40.0]
    x.data = dg.zeros(3)
    assert x.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(TypeError, match="has to be a tensor, but got list"):
        x.data = [1.0]


def test_numpy_shares_memory() -> None:
    x = dg.ones(3)
    x.numpy()[0] = 5
    assert x.tolist() == [5.0, 1.0, 1.0]
    with pytest.raises(RuntimeError, match=r"Can't call numpy\(\) on Tensor that requires grad"):
        leaf(1.0).numpy()
    with pytest.raises(RuntimeError, match=r"Can't call numpy\(\)"):
        np.array(leaf(1.0))


def test_arrays_and_tensors_together() -> None:
    t, a = dg.tensor([1.0, 2.0]), np.array([3.0, 4.0], np.float32)
    assert np.array(t).tolist() == [1.0, 2.0]
    assert np.asarray(t) is t.numpy()
    assert np.array(t, dtype=np.int64).dtype == np.int64
    assert np.shares_memory(np.array(t, copy=False), t.numpy())
    assert not np.shares_memory(np.array(t, copy=True), t.numpy())
    for result in (a * t, t * a, a + t, a - t, a / t, a**t):
        assert isinstance(result, Tensor)
        assert result.dtype == np.float32
    assert isinstance(np.float32(2) * t, Tensor)
    assert (a - t).tolist() == [2.0, 2.0]
    assert (a < t).tolist() == [False, False]
    x = leaf(1.0, 2.0)
    (a * x).sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]


def test_scalars_keep_their_dtype() -> None:
    assert Tensor(np.float64(1.5)).dtype == np.float64
    assert Tensor(1.5).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.float32


# Python's protocols --------------------------------------------------------------------------------------------------


def test_numbers() -> None:
    assert dg.tensor(2.5).item() == 2.5
    assert type(dg.tensor(3).item()) is int
    assert type(dg.tensor([True]).item()) is bool
    assert float(dg.tensor([2.5])) == 2.5
    assert int(dg.tensor(2.9)) == 2
    assert [10, 20, 30][dg.tensor(1)] == 20
    assert dg.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert dg.tensor(7).tolist() == 7
    assert f"{dg.tensor(2.5):.2f}" == "2.50"
    assert f"{dg.tensor([1, 2])}" == "tensor([1, 2])"


def test_sizes() -> None:
    x = dg.zeros(2, 3)
    assert x.shape == (2, 3) == x.size()
    assert repr(x.shape) == "torch.Size([2, 3])"
    assert x.shape.numel() == x.numel() == 6
    assert isinstance(x.shape, Size)
    assert (x.size(1), x.dim(), x.ndim, len(x), x.element_size()) == (3, 2, 2, 2, 4)
    assert (x.stride(), x.t().stride(), x.stride(0)) == ((3, 1), (1, 3), 3)
    assert x.is_contiguous()
    assert not x.t().is_contiguous()


def test_iteration() -> None:
    x = leaf(1.0, 2.0)
    a, b = x
    (a * b).backward()
    assert x.grad.tolist() == [2.0, 1.0]
    assert [row.tolist() for row in dg.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]


def test_membership() -> None:
    x = dg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert 3 in x and 3.5 not in x and True in x
    assert dg.tensor([1.0, 9.0]) in x and dg.tensor(9) not in x
    assert 1 in dg.tensor(1) and 1 not in dg.ones(0)
    with pytest.raises(RuntimeError, match="only supports Tensor or scalar, but you passed in a <class 'str'>"):
        _ = "a" in x


def test_reversed() -> None:
    x = leaf(1.0, 2.0)
    back = reversed(x)
    assert back.tolist() == [2.0, 1.0] and back.requires_grad
    assert [row.tolist() for row in reversed(dg.tensor([[1, 2], [3, 4]]))] == [[3, 4], [1, 2]]
    assert reversed(dg.tensor(5)).item() == 5


def test_broadcast_to_takes_sizes_one_by_one() -> None:
    x = dg.ones(3)
    assert x.broadcast_to(2, 3).shape == x.broadcast_to((2, 3)).shape == (2, 3)


def test_hash_is_identity() -> None:
    x, y = dg.ones(2), dg.ones(2)
    assert len({x, y, x}) == 2
    assert {x: 1}[x] == 1


PROTOCOLS: dict[str, Callable[[Any], Any]] = {
    "bool of two": lambda t: bool(t.ones(2)),
    "bool of none": lambda t: bool(t.ones(0)),
    "len of 0-d": lambda t: len(t.tensor(1.0)),
    "iter of 0-d": lambda t: iter(t.tensor(1.0)),
    "format with a spec": lambda t: f"{t.ones(2):.2f}",
    "item of two": lambda t: t.ones(2).item(),
    "float of two": lambda t: float(t.ones(2)),
    "index by a float": lambda t: [1, 2][t.tensor(1.0)],
    "numpy": lambda t: t.ones(1, requires_grad=True).numpy(),
    "hook": lambda t: t.ones(1).register_hook(print),
    "post accumulate hook": lambda t: (t.ones(1, requires_grad=True) * 2).register_post_accumulate_grad_hook(print),
    "retain_grad": lambda t: t.ones(1).retain_grad(),
    "flag of a non-leaf": lambda t: setattr(t.ones(1, requires_grad=True) * 2, "requires_grad", False),
    "backward without history": lambda t: t.ones(1).backward(),
    "gradient's shape": lambda t: (t.ones(2, requires_grad=True) * 2).backward(t.ones(3)),
    "bool minus bool": lambda t: (t.ones(2) > 0) - (t.ones(2) > 0),
    "minus bool": lambda t: -(t.ones(2) > 0),
    "integer to a negative power": lambda t: t.ones(2, dtype=t.int64) ** -1,
    "reshape": lambda t: t.ones(6).reshape(4, 2),
    "dim": lambda t: t.ones(6).sum(1),
    "two -1": lambda t: t.ones(6).reshape(-1, -1),
    "unbind of 0-d": lambda t: t.tensor(1.0).unbind(),
    "narrow": lambda t: t.ones(3).narrow(0, 2, 2),
    "slice backwards": lambda t: t.ones(3)[::-1],
    "clamp": lambda t: t.ones(3).clamp(),
    "relu of bool": lambda t: (t.ones(3) > 0).relu(),
    "t": lambda t: t.ones(1, 1, 1).t(),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", PROTOCOLS)
def test_refusals_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(Exception) as theirs:
        PROTOCOLS[name](torch)
    with pytest.raises(type(theirs.value)) as mine:
        PROTOCOLS[name](dg)
    first = str(theirs.value).split(".")[0].split(";")[0].split(" from:")[0]
    assert str(mine.value).startswith(first)


# Copies --------------------------------------------------------------------------------------------------------------


def test_deepcopy() -> None:
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    a, b = copy.deepcopy([x, x])
    assert a is b
    assert a.requires_grad
    assert a.is_leaf
    assert (a.tolist(), a.grad.tolist()) == ([1.0, 2.0], [3.0, 3.0])
    with dg.no_grad():
        a.zero_()
        a.grad.zero_()
    assert (x.tolist(), x.grad.tolist()) == ([1.0, 2.0], [3.0, 3.0])
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2)


def test_casts() -> None:
    x = leaf(1.5, -2.5)
    for name, dtype in {
        "double": "float64",
        "half": "float16",
        "long": "int64",
        "int": "int32",
        "bool": "bool",
    }.items():
        assert getattr(x, name)().dtype == dtype
    assert x.float() is x
    assert x.to("cpu") is x
    (x.double() * 2).half().sum().backward()
    assert x.grad.dtype == dg.float32
    assert x.grad.tolist() == [2.0, 2.0]


@pytest.mark.parity
def test_changes_in_place_as_in_torch() -> None:
    torch = pytest.importorskip("torch")

    def observed(t: Any) -> list[Any]:
        x = t.tensor([1.0, 2.0, -3.0], dtype=t.float64, requires_grad=True)
        y = x * 2
        y += 1
        y *= x.detach()
        y.relu_()
        z = t.zeros(3, dtype=t.float64)
        z.copy_(y)
        z.add_(x, alpha=2)
        w = x * 3
        w.zero_()
        u = x * 1
        u.clamp_(-1, 1.5)
        v = x * 1
        v.mul_(x).div_(x + 5).pow_(2)
        total = (z * x).sum() + w.sum() + (u * u).sum() + v.sum()
        (g,) = t.autograd.grad(total, x, create_graph=True)
        (h,) = t.autograd.grad((g * g).sum(), x, retain_graph=True)
        total.backward()
        return [
            h.tolist(),
            x.grad.tolist(),
            y._version,
            z._version,
            w.requires_grad,
            u._version,
            u.tolist(),
            w.tolist(),
        ]

    mine, theirs = observed(dg), observed(torch)
    np.testing.assert_allclose(mine[0] + mine[1], theirs[0] + theirs[1], rtol=1e-12)
    assert mine[2:] == theirs[2:]
