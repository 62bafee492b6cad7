"""Images in HWNC order: every op of the table gives what it gives of row-major ones, and those of networks keep it."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as dg
import distgrad.nn.functional as F
from distgrad import nn
from distgrad.autograd import Tensor
from distgrad.kernels.layout import empty_hwnc, is_hwnc_alone


def _table() -> Any:
    """The op table; its module, not collected again."""
    if "test_table" in sys.modules:
        return sys.modules["test_table"]
    spec = importlib.util.spec_from_file_location("distgrad_layout_table", Path(__file__).parent / "test_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


table = _table()


def hwnc(array: Any) -> Any:
    """The values in HWNC order where they have four dimensions, else as they are."""
    if array.ndim != 4:
        return array
    out = empty_hwnc(array.shape, array.dtype)
    out[...] = array
    return out


def _arrays(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, table.row.Constant):
        return [value.array]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for item in value for array in _arrays(item)] if isinstance(value, (list, tuple)) else []


def _with_images(op: Any) -> list[Any]:
    """The samples of a row in which something has four dimensions."""
    return [s for s in table.samples(op) if any(a.ndim == 4 and a.size > 1 for a in _arrays([s.args, s.kwargs]))]


# Their results depend on the strides by definition, or are not a function of the values.
EXCEPT = ("as_strided", "stride", "is_contiguous", "data_ptr", "empty_like", "empty", "new_empty", "view", "view_as")
ROWS = [
    (op, name)
    for op, name in zip(table.ROWS, table.IDS, strict=True)
    if op.label not in EXCEPT and "layouts" not in op.lacks and _with_images(op)
]


@pytest.mark.parametrize("op", [op for op, _ in ROWS], ids=[name for _, name in ROWS])
def test_values_and_gradients_do_not_depend_on_the_order(op: Any) -> None:
    for sample in _with_images(op):
        plain, ordered = table.Call(op, sample), table.Call(op, sample, layout=hwnc)
        dg.manual_seed(0)
        expected = plain.outputs()
        dg.manual_seed(0)
        actual = ordered.outputs()
        for ours, theirs in zip(actual, expected, strict=True):
            if isinstance(theirs, Tensor):
                assert ours.dtype == theirs.dtype
                table.assert_close(table.array_of(ours), table.array_of(theirs), 1e-11)
            else:
                assert type(ours) is type(theirs)
        wanted = table.gradients(plain, expected)
        for ours, theirs in zip(table.gradients(ordered, actual), wanted, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                table.assert_close(table.array_of(ours), table.array_of(theirs), 1e-10)


def test_the_table_has_many_rows_with_images() -> None:
    assert len(ROWS) > 40


# Order ----------------------------------------------------------------------------------------------------------------


def images(*shape: int, requires_grad: bool = True, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape or (3, 4, 6, 8)).astype(np.float32)
    tensor = Tensor(hwnc(values))
    return tensor.requires_grad_() if requires_grad else tensor


def gradient_at(x: Tensor, out: Tensor, g: Tensor) -> Tensor:
    """The gradient that arrives at ``x``, no leaf, those of which are row-major."""
    found: list[Tensor] = []
    x.register_hook(found.append)
    out.backward(g)
    return found[0]


def _batch_norm(training: bool) -> Callable[[Tensor], Tensor]:
    layer = nn.BatchNorm2d(4)
    return layer.train(training)


KEEPING: dict[str, Callable[[Tensor], Any]] = {
    "add a number": lambda x: x + 1,
    "multiply channels": lambda x: x * dg.ones(4, 1, 1),
    "residual": lambda x: x + images(seed=1, requires_grad=False),
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x * 1, inplace=True),
    "add in place": lambda x: (x * 1).add_(images(seed=1, requires_grad=False)),
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp in place": lambda x: (x * 1).clamp_(-0.5, 0.5),
    "leaky relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, dg.full((4,), 0.25)),
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": lambda x: x.sigmoid(),
    "tanh": lambda x: x.tanh(),
    "exp": lambda x: x.exp(),
    "where": lambda x: dg.where(x > 0, x, x * 0.5),
    "masked": lambda x: x.masked_fill(x > 1, 0.0),
    "clone": lambda x: x.clone(),
    "to float64": lambda x: x.double(),
    "softmax of channels": lambda x: F.softmax(x, 1),
    "concatenation of channels": lambda x: dg.cat([x, images(3, 2, 6, 8, seed=1), x], 1),
    "concatenation of images": lambda x: dg.cat([x, x]),
    "dropout": F.dropout,
    "dropout of channels": F.dropout2d,
    "batch norm, training": _batch_norm(True),
    "batch norm, evaluation": _batch_norm(False),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "average pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "pool to 2x3": lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
    "pad": lambda x: F.pad(x, (1, 1, 2, 0)),
    "pad by reflection": lambda x: F.pad(x, (1, 1, 2, 0), mode="reflect"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, (5, 9), mode="bilinear"),
}


@pytest.mark.parametrize("name", KEEPING)
def test_order_is_kept_forward_and_backward(name: str) -> None:
    x = images() * 1
    out = KEEPING[name](x)
    assert is_hwnc_alone(out._data)
    g = images(*out.shape, seed=2, requires_grad=False).to(out.dtype)
    grad = gradient_at(x, out, g)
    assert is_hwnc_alone(grad._data) and grad.dtype == np.float32


@pytest.mark.parametrize("name", ["max pool to a pixel", "average pool to a pixel", "adaptive", "mean"])
def test_a_gradient_of_single_pixels_takes_the_order_of_the_images(name: str) -> None:
    pools: dict[str, Callable[[Tensor], Tensor]] = {
        "max pool to a pixel": lambda x: F.max_pool2d(x, (6, 8)),
        "average pool to a pixel": lambda x: F.avg_pool2d(x, (6, 8)),
        "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1),
        "mean": lambda x: F.relu(x).mean((2, 3)),
    }
    x = images() * 1
    out = pools[name](x)
    assert is_hwnc_alone(gradient_at(x, out, dg.randn(*out.shape))._data)


def test_a_row_major_input_gives_row_major_results() -> None:
    for name, op in KEEPING.items():
        x = dg.randn(3, 4, 6, 8)
        if "residual" in name or "concatenation" in name or name == "add in place":
            continue  # they take an image in HWNC order too
        assert op(x).is_contiguous(), name


# View -----------------------------------------------------------------------------------------------------------------


def test_view_of_images_is_a_view_as_in_pytorch() -> None:
    x = images(requires_grad=False)
    values = np.array(x._data, order="C")
    flat = x.view(3, -1)
    np.testing.assert_array_equal(flat.numpy(), values.reshape(3, -1))
    assert np.shares_memory(flat._data, x._data) and x.is_contiguous()
    flat[1] = 7
    np.testing.assert_array_equal(x.numpy()[1], np.full((4, 6, 8), 7, np.float32))


def test_a_change_in_place_through_the_view_reaches_the_base_and_its_history() -> None:
    x = images()
    expected = Tensor(np.array(x._data, order="C")).requires_grad_()
    for leaf in (x, expected):
        y = leaf * 2
        y.view(3, -1)[:, :50].mul_(3)
        (y * y).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-6)


def test_what_shares_the_memory_goes_along() -> None:
    x = images(requires_grad=False)
    detached, data, part = x.detach(), x.data, x[:, 1:3]
    of_part = part.transpose(2, 3)
    detached.view(-1).zero_()
    for tensor in (x, detached, data, part, of_part):
        assert np.shares_memory(tensor._data, x._data)
        assert not tensor.numpy().any()
    x.add_(1)
    assert (of_part.numpy() == 1).all()


def test_a_view_of_a_part_is_one_where_pytorch_has_one() -> None:
    x = images(requires_grad=False)
    values = np.array(x._data, order="C")
    np.testing.assert_array_equal(x[1:].view(2, -1).numpy(), values[1:].reshape(2, -1))
    y = images(requires_grad=False)
    for refused in (lambda: y[:, :, :3].view(3, -1), lambda: y.permute(0, 2, 3, 1).view(3, -1)):
        with pytest.raises(RuntimeError, match="view size is not compatible"):
            refused()


def test_saved_results_still_notice_changes_through_the_view() -> None:
    x = images()
    y = F.relu(x)
    y.view(3, -1)
    z = (y * 2).sum()
    (grad,) = dg.autograd.grad(z, x)
    np.testing.assert_array_equal(grad.numpy(), 2.0 * (x.detach().numpy() > 0))
    y = x.sigmoid()
    flat = y.view(3, -1)
    with dg.no_grad():
        flat.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_flattened_results_of_convolutions() -> None:
    layer = nn.Conv2d(3, 32, 3, padding=1)
    x = dg.randn(8, 3, 16, 16)
    out = F.max_pool2d(F.relu(layer(x)), 2)
    values = np.array(out.detach()._data, order="C")
    np.testing.assert_array_equal(out.view(out.size(0), -1).detach().numpy(), values.reshape(8, -1))
    np.testing.assert_array_equal(out.flatten(1).detach().numpy(), values.reshape(8, -1))
    np.testing.assert_array_equal(out.reshape(-1).detach().numpy(), values.reshape(-1))


# Leaving --------------------------------------------------------------------------------------------------------------


def test_copies_and_files_hold_the_values_in_their_logical_order(tmp_path: Path) -> None:
    x = images(requires_grad=False)
    values = np.array(x._data, order="C")
    again = pickle.loads(pickle.dumps(x))
    np.testing.assert_array_equal(again.numpy(), values)
    assert again.is_contiguous() and x.contiguous().is_contiguous() and not x.is_contiguous()
    np.testing.assert_array_equal(x.contiguous().numpy(), values)
    assert x.stride() == (4, 1, 96, 12)
    np.testing.assert_array_equal(x.ravel().numpy(), values.reshape(-1))
    assert x.tolist() == values.tolist()


def test_gradients_in_hwnc_order_move_parameters_as_others_do() -> None:
    start = np.random.default_rng(1).standard_normal((3, 4, 6, 8)).astype(np.float32)
    gradient = np.random.default_rng(2).standard_normal(start.shape).astype(np.float32)
    for optimizer in (dg.optim.SGD, dg.optim.Adam, dg.optim.AdamW, dg.optim.RMSprop):
        found = []
        for order in (np.array, hwnc):
            parameter = nn.Parameter(Tensor(start.copy()))
            step = optimizer([parameter], lr=0.1)
            for _ in range(3):
                parameter.grad = Tensor(order(gradient))
                nn.utils.clip_grad_norm_([parameter], 1.0)
                step.step()
            found.append(parameter.detach().numpy())
        np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-7)
