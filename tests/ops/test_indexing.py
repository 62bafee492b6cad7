"""``x[index]`` as PyTorch understands it: random indices against it, and what a program may put into one."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck
from distgrad.ops.indexing import parse_index

SHAPES = [(4,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (), (0, 3), (3, 0), (1, 1, 2)]


class Sequenced:
    """An object that is an integer, as Python's protocol has it."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def random_index(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """A description of an index: parts as plain data, to be made into tensors of either library. Some are wrong."""
    common = [(), (1,), (2,), (3,), (2, 1), (2, 2), (1, 2), (0,)]
    size = common[rng.integers(len(common))]
    parts: list[Any] = []
    d = 0
    while d < len(shape) + (rng.random() < 0.05):
        n = shape[d] if d < len(shape) else 2
        wild = rng.random() < 0.03
        reach = n + 2 if wild else n
        kind = rng.choice(["int", "slice", "none", "tensor", "list", "mask", "bool", "dots", "skip", "numpy", "scalar"])
        if kind in ("int", "scalar"):
            parts.append((str(kind), int(rng.integers(-reach, max(reach, 1)))))
        elif kind == "slice":
            ends = [None if rng.random() < 0.3 else int(rng.integers(-n - 2, n + 3)) for _ in range(2)]
            step = rng.choice([None, 1, 2, 3, -1] if wild else [None, 1, 2])
            parts.append(("slice", (*ends, step)))
        elif kind in ("tensor", "list", "numpy"):
            local = size if rng.random() < 0.8 else common[rng.integers(len(common))]
            if kind == "list" and not local:
                local = (2,)
            values = rng.integers(-reach, reach, local) if n else np.zeros(local, int)
            dtype = rng.choice(["int64", "int64", "int32"])
            parts.append((str(kind), np.asarray(values).astype(dtype)))
        elif kind == "mask":
            k = int(rng.integers(1, 3))
            covered = shape[d : d + k]
            if len(covered) == k and not wild:
                parts.append(("mask", rng.random(covered) < 0.5))
                d += k - 1
            else:
                parts.append(("mask", rng.random(3) < 0.5))
        elif kind == "bool":
            parts.append(("bool", bool(rng.random() < 0.7)))
            d -= 1
        elif kind == "none":
            parts.append(("none", None))
            d -= 1
        elif kind == "dots":
            if ("dots", None) not in parts or wild:
                parts.append(("dots", None))
                d += int(rng.integers(0, 2)) - 1
            else:
                d -= 1
        else:
            break
        d += 1
        if len(parts) > 6:
            break
    return parts if len(parts) != 1 or rng.random() < 0.5 else parts[0]


def made(t: Any, part: tuple[str, Any]) -> Any:
    kind, value = part
    if kind in ("tensor", "mask", "scalar"):
        array = np.asarray(value)
        return t.tensor(array.tolist(), dtype=getattr(t, array.dtype.name)).reshape(array.shape)
    return {
        "int": lambda: value,
        "bool": lambda: value,
        "none": lambda: None,
        "dots": lambda: ...,
        "slice": lambda: slice(*value),
        "list": lambda: np.asarray(value).tolist(),
        "numpy": lambda: np.asarray(value),
    }[kind]()


def built(t: Any, description: Any) -> Any:
    return tuple(made(t, part) for part in description) if isinstance(description, list) else made(t, description)


def outcome(t: Any, shape: tuple[int, ...], description: Any) -> Any:
    """Values, shape and whether they share memory; or the exception."""
    x = t.arange(int(np.prod(shape)), dtype=t.float64).reshape(shape)
    try:
        out = x[built(t, description)]
    except (IndexError, ValueError, TypeError, RuntimeError) as error:
        return type(error)
    shares = bool(out.numel()) and x.data_ptr() <= out.data_ptr() < x.data_ptr() + x.numel() * x.element_size()
    strides = [step for n, step in zip(out.shape, out.stride(), strict=True) if n > 1]
    return tuple(out.shape), out.tolist(), shares, strides if shares else None


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(8))
def test_random_indices_as_in_torch(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    kinds = {"a view": 0, "a copy": 0, "refused": 0}
    for _ in range(500):
        shape = SHAPES[rng.integers(len(SHAPES))]
        description = random_index(rng, shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lists that count as tuples
            mine, theirs = outcome(dg, shape, description), outcome(torch, shape, description)
        assert mine == theirs, (shape, description)
        kinds["refused" if isinstance(mine, type) else "a view" if mine[2] else "a copy"] += 1
    assert min(kinds.values()) > 20, kinds


@pytest.mark.parity
def test_random_gradients_as_in_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(100)
    compared = 0
    for _ in range(500):
        shape = SHAPES[rng.integers(len(SHAPES))]
        description = random_index(rng, shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(outcome(torch, shape, description), type):
                continue
            found = []
            for t in (dg, torch):
                x = t.ones(shape, dtype=t.float64, requires_grad=True)
                out = x[built(t, description)]
                weights = np.arange(1.0, out.numel() + 1).reshape(tuple(out.shape))
                out.backward(t.tensor(weights.tolist(), dtype=t.float64).reshape(tuple(out.shape)))
                found.append(x.grad.tolist())
        assert found[0] == found[1], (shape, description)
        compared += 1
    assert compared > 300


X = np.arange(12.0).reshape(3, 4)


def test_what_counts_as_an_integer() -> None:
    x = dg.tensor(X)
    for one in (1, np.int64(1), np.array(1), np.array(1, np.int16), dg.tensor(1), dg.tensor(1, dtype=dg.int8)):
        assert x[one].tolist() == X[1].tolist()
        assert np.shares_memory(x[one].numpy(), x.numpy())
    assert x[Sequenced(2)].tolist() == x[Sequenced(2) : Sequenced(3)][0].tolist() == X[2].tolist()
    assert x[dg.tensor(1) : dg.tensor(3)].tolist() == X[1:3].tolist()
    assert x[True:].tolist() == X[1:].tolist()
    with pytest.raises(IndexError, match=r"valid indices \(got bool\)|got numpy.bool"):
        x[np.True_]


def test_what_counts_as_a_tensor() -> None:
    x = dg.tensor(X)
    rows = X[[0, 2]].tolist()
    for two in (
        [0, 2],
        (dg.tensor([0, 2]),),
        ([0, 2],),
        ((0, 2),),
        range(0, 3, 2),
        np.array([0, 2]),
        np.array([0, 2], np.int8),
        np.array([0.0, 2.0]),  # as PyTorch, which cuts the numbers of arrays and lists to integers, but not of tensors
        [0, 2.5],
        dg.tensor([0, 2], dtype=dg.int32),
        [True, False, True],
        np.array([True, False, True]),
        dg.tensor([True, False, True]),
    ):
        assert x[two].tolist() == rows
    assert x[[]].shape == (0, 4) and x[(), :].shape == (0, 4)
    assert x[[0, 1], [[0], [1]]].tolist() == [[0.0, 4.0], [1.0, 5.0]]


def test_a_list_of_more_than_numbers_counts_as_a_tuple() -> None:
    x = dg.tensor(X)
    for index in ([0, slice(1, 3)], [..., 1], [dg.tensor([0, 1]), [2, 3]], [[0, 2], [1, 1]], [0, None]):
        with pytest.warns(UserWarning, match=r"use x\[tuple\(seq\)\] instead"):
            assert x[index].tolist() == x[tuple(index)].tolist()


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_bytes_are_masks(kind: str) -> None:
    x = dg.tensor(X)
    mask: Any = np.array([1, 0, 2], np.uint8)
    mask = dg.Tensor(mask) if kind == "tensor" else mask
    with pytest.warns(UserWarning, match="dtype torch.uint8 is now deprecated"):
        assert x[mask].tolist() == X[[0, 2]].tolist()
    if kind == "tensor":
        assert x[mask[0]].shape == (1, 3, 4) and x[mask[1]].shape == (0, 3, 4)


def test_a_changed_index_does_not_change_the_gradient() -> None:
    for index in (dg.tensor([0, 2]), dg.tensor([True, False, True]), dg.tensor([0, -1])):
        x = dg.ones(3, requires_grad=True)
        y = x[index]
        index.fill_(1)
        y.sum().backward()
        assert x.grad.tolist() == [1.0, 0.0, 1.0]


def test_results_of_several_arrays_lie_in_order() -> None:
    x = dg.tensor(np.arange(24.0).reshape(2, 3, 4))
    index = dg.tensor([1, 0, 1])
    for y in (x, x.transpose(0, 2), x[:, :, ::2]):
        for one in ((index,), (slice(None), index), (..., index), (index, slice(None), index), (None, index, 0)):
            assert y[one].is_contiguous()


def test_gradients_of_repeated_positions_add_up_in_any_layout() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, 300)
    for width in (1, 3, 300):
        weights = rng.standard_normal((300, width)).astype(np.float32)
        x = dg.zeros((5, width), requires_grad=True)
        expected = np.zeros((5, width))
        for place, w in zip(rows, weights, strict=True):
            expected[place] += w
        found = []
        for w in (weights, np.asfortranarray(weights)):
            (gradient,) = dg.autograd.grad(x[dg.tensor(rows)], x, dg.Tensor(w))
            found.append(gradient.numpy())
        assert found[0].tobytes() == found[1].tobytes()
        np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def test_parse_index_takes_two_steps() -> None:
    index = parse_index((0, slice(None), dg.tensor([1, -1])), (2, 3, 4))
    assert index.basic == (0, slice(None), slice(None), ...)
    assert index.advanced is not None
    assert index.advanced[0] == slice(None) and index.advanced[1].tolist() == [1, 3]
    mask = dg.tensor([True, False])
    basic, advanced = parse_index(mask, (2, 3))
    assert basic is None and advanced is not None and advanced[0] is mask.numpy()
    assert parse_index(mask, (2, 3), own=True).advanced[0] is not mask.numpy()
    assert parse_index(slice(1, None), (2, 3)) == ((slice(1, None), ...), None)


def test_gradient_of_an_index_with_both_steps() -> None:
    x = dg.tensor(np.random.default_rng(0).standard_normal((2, 3, 4)), requires_grad=True)
    assert gradcheck(lambda v: v[1, None, dg.tensor([0, 2, 0]), 1:] ** 2, [x])


def test_a_single_element_is_a_view_that_can_be_written() -> None:
    x = dg.zeros(2, 2)
    x[0, 1].fill_(3.0)
    x[1][0].add_(1.0)
    assert x.tolist() == [[0.0, 3.0], [1.0, 0.0]]


def test_nonzero_as_an_index() -> None:
    x = dg.tensor([[0.0, 2.0], [3.0, 0.0]])
    assert x[x.nonzero(as_tuple=True)].tolist() == [2.0, 3.0]
    assert dg.nonzero(dg.tensor(5.0)).shape == (1, 0)
