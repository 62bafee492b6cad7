"""New tensors: the dtype and the memory they get, ranges to the last bits, and limits of dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg

# What ``tensor`` is given, written for distgrad or torch as ``t``.
DATA: dict[str, Any] = {
    "bool": lambda t: True,
    "int": lambda t: 3,
    "float": lambda t: 2.5,
    "list of ints": lambda t: [1, 2],
    "ints and a float": lambda t: [1, 2.5],
    "bools and an int": lambda t: [True, 2],
    "bools and a float": lambda t: [True, 2.0],
    "nothing": lambda t: [],
    "NumPy's float64": lambda t: [np.float64(1.0)],
    "NumPy's float32 and a float": lambda t: [np.float32(1.0), 2.5],
    "NumPy's int8": lambda t: np.int8(1),
    "NumPy's int8 and an int": lambda t: [np.int8(1), 2],
    "an int and NumPy's float32": lambda t: [1, np.float32(2)],
    "NumPy's bool and a float": lambda t: [np.bool_(True), 2.0],
    "an array of float64": lambda t: np.ones((2, 1)),
    "an array of float16": lambda t: np.ones((2, 1), np.float16),
    "an array of uint8": lambda t: np.ones(3, np.uint8),
    "an array in Fortran's order": lambda t: np.ones((2, 3), order="F"),
    "an array and a list": lambda t: [np.ones(2, np.float32), [1, 2]],
    "tensors": lambda t: [t.tensor(1, dtype=t.int8), t.tensor(2)],
    "tensors of one element": lambda t: [t.tensor([1.5]), t.tensor([2.0])],
    "a tensor and a float": lambda t: [t.tensor(1.0, dtype=t.float64), 2.0],
    "nested": lambda t: [[[1], [2]], [[3], [4]]],
    "tuples": lambda t: ((1, 2), [3, 4]),
    "a range": lambda t: [range(2), range(2, 4)],
    "bytes that can change": lambda t: bytearray(b"ab"),
    "a large number": lambda t: [1e300],
    "a negative number in uint8": lambda t: (-1, t.uint8),
    "a fraction in int64": lambda t: ([1.7, -1.7], t.int64),
    "numbers in bool": lambda t: ([0.0, 0.5, 2.0], t.bool),
    "bools in float16": lambda t: ([True, False], t.float16),
}


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy.ndarrays")
@pytest.mark.parametrize("name", DATA)
def test_inferred_dtypes(name: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for t in (dg, torch):
        data = DATA[name](t)
        asked = isinstance(data, tuple) and isinstance(data[1], (np.dtype, torch.dtype))
        out = t.tensor(data[0], dtype=data[1]) if asked else t.tensor(data)
        found.append((str(out.dtype).removeprefix("torch."), tuple(out.shape), out.tolist()))
    assert found[0] == found[1]


def test_the_default_dtype_counts() -> None:
    dg.set_default_dtype(dg.float64)
    try:
        made = [
            dg.tensor(1.5), dg.tensor([1, 2.5]), dg.zeros(1), dg.full((1,), 2.0), dg.arange(1.0), dg.linspace(0, 1, 2),
            dg.rand(1), dg.randn(1), dg.normal(0.0, 1.0, (1,)), dg.eye(1), dg.empty(1), dg.scalar_tensor(1),
        ]  # fmt: skip
        assert {x.dtype.name for x in made} == {"float64"}
        assert dg.finfo().bits == 64
    finally:
        dg.set_default_dtype(dg.float32)


def test_devices() -> None:
    class Device:
        type = "cpu"

    for device in ("cpu", "cpu:0", Device(), None):
        assert dg.zeros(2, device=device).shape == (2,)
        assert dg.zeros_like(dg.ones(3), device=device).shape == (3,)
        assert dg.tensor(1, device=device).item() == 1
    for call in (
        lambda: dg.ones(2, device="cuda"),
        lambda: dg.as_tensor([1], device="mps"),
        lambda: dg.ones_like(dg.ones(1), device="cuda:1"),
        lambda: dg.arange(3, device="cuda"),
        lambda: dg.eye(3, device="cuda"),
        lambda: dg.ones(1).new_zeros(2, device="cuda"),
        lambda: dg.tril_indices(2, 2, device="cuda"),
    ):
        with pytest.raises(RuntimeError, match="distgrad computes on the cpu"):
            call()


def test_empty() -> None:
    assert (dg.empty(2, 3).shape, dg.empty((2,), dtype=dg.int64).dtype) == ((2, 3), dg.int64)
    assert dg.empty(size=(2,), requires_grad=True).requires_grad
    x = dg.ones((2, 3), dtype=dg.float16)
    assert dg.empty_like(x).shape == (2, 3) and dg.empty_like(x).dtype == dg.float16
    assert x.new_empty(4).dtype == dg.float16 and x.new_empty((4, 1), dtype=dg.int64).shape == (4, 1)
    with pytest.raises(RuntimeError, match="negative dimension"):
        dg.empty(-1)
    with pytest.raises(TypeError, match="must be Tensor, not list"):
        dg.empty_like([1])


@pytest.mark.parity
def test_order_in_memory_of_what_is_like_another() -> None:
    torch = pytest.importorskip("torch")
    for function in ("empty_like", "zeros_like", "ones_like"):
        for layout in (
            lambda x: x,
            lambda x: x.t(),
            lambda x: x[:, ::2],
            lambda x: x.t()[:, ::2],
            lambda x: x[0].expand(3, 4),
        ):
            strides = [getattr(t, function)(layout(t.ones(3, 4))).stride() for t in (dg, torch)]
            assert strides[0] == strides[1]


def test_from_numpy() -> None:
    a = np.zeros(3)
    x = dg.from_numpy(a)
    a[0] = 1
    x[1] = 2.0
    assert x.tolist() == a.tolist() == [1.0, 2.0, 0.0]
    with pytest.raises(TypeError, match=r"expected np.ndarray \(got list\)"):
        dg.from_numpy([1])
    with pytest.raises(TypeError, match=r"can't convert np.ndarray of type complex128"):
        dg.from_numpy(np.zeros(1, complex))
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match=r"can't convert np.ndarray of type float(96|128)"):
            dg.from_numpy(np.zeros(1, np.longdouble))
    with pytest.raises(ValueError, match="byte order different from the native"):
        dg.from_numpy(np.zeros(1, np.dtype(np.int32).newbyteorder()))
    assert dg.tensor(np.ones(1, np.dtype(np.int32).newbyteorder()), dtype=dg.int32).tolist() == [1]


def test_who_shares_memory() -> None:
    a, x = np.ones((2, 3)), dg.ones(2)
    assert not np.shares_memory(dg.tensor(a).numpy(), a)
    assert not np.shares_memory(dg.tensor(x).numpy(), x.numpy())
    assert np.shares_memory(dg.as_tensor(a).numpy(), a)
    assert dg.as_tensor(x) is x
    assert dg.as_tensor(a, dtype=dg.float32).dtype == dg.float32
    assert dg.tensor(a.T).is_contiguous()
    assert np.shares_memory(dg.asarray(a).numpy(), a)
    assert not np.shares_memory(dg.asarray(a, copy=True).numpy(), a)
    assert np.shares_memory(dg.asarray(x, copy=False).numpy(), x.numpy())
    assert dg.asarray(x, requires_grad=True).is_leaf and not x.requires_grad
    leaf = dg.ones(2, requires_grad=True)
    assert not dg.asarray(leaf).requires_grad and dg.asarray(leaf, requires_grad=True).requires_grad


def test_gradients_of_new_tensors() -> None:
    like = dg.zeros(2)
    for x in (
        dg.zeros(2, requires_grad=True),
        dg.ones_like(like, requires_grad=True),
        dg.full_like(like, 2, requires_grad=True),
        dg.tensor([1.0], requires_grad=True),
        dg.arange(3.0, requires_grad=True),
        dg.linspace(0, 1, 3, requires_grad=True),
        dg.logspace(0, 1, 3, requires_grad=True),
        dg.eye(2, requires_grad=True),
        like.new_tensor([1], requires_grad=True),
        like.new_ones(2, requires_grad=True),
        like.new_full((2,), 1, requires_grad=True),
    ):
        assert x.requires_grad
        assert x.is_leaf


# Ranges --------------------------------------------------------------------------------------------------------------


def of_each_library(name: str, *arguments: Any, dtype: str) -> Any:
    torch = pytest.importorskip("torch")
    mine = getattr(dg, name)(*arguments, dtype=np.dtype(dtype)).numpy()
    theirs = getattr(torch, name)(*arguments, dtype=getattr(torch, dtype)).numpy()
    assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
    return mine, theirs


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int32", "int64"])
def test_random_ranges_as_in_torch(dtype: str) -> None:
    """To the last bit, with PyTorch's kernels for processors of 32-byte vectors; else a bit may differ."""
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(300):
        start, step = float(rng.uniform(-5, 5)), float(rng.choice([0.1, 0.25, 1 / 3, 1.0, 1.5, -0.7, -2.0]))
        if not dtype.startswith("float") and abs(step) < 1:
            step *= 10.0
        end = start + step * float(rng.uniform(0, 60))
        if not dtype.startswith("float") and (int(end) - int(start)) * step < 0:
            continue
        mine, theirs = of_each_library("arange", start, end, step, dtype=dtype)
        different += int((mine != theirs).sum())
        if dtype.startswith("float"):
            scale = float(np.abs([start, end, 1e-3]).max())
            assert np.abs(mine.astype(float) - theirs.astype(float)).max(initial=0) <= scale * np.finfo(dtype).eps
    assert not dtype.startswith("int") or different == 0
    torch = pytest.importorskip("torch")
    assert different == 0 or not torch.backends.cpu.get_cpu_capability().startswith("AVX")


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
def test_random_linspaces_as_in_torch(dtype: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        start, end = rng.uniform(-50, 50, 2).tolist()
        steps = int(rng.integers(0, 70))
        if not dtype.startswith("float"):
            start, end = int(start), int(end)
        mine, theirs = of_each_library("linspace", start, end, steps, dtype=dtype)
        if dtype == "float16":
            assert np.abs(mine.astype(float) - theirs).max(initial=0) <= max(abs(start), abs(end)) * 2**-10
        elif np.finfo(np.longdouble).nmant > 60:  # where such a type is there, to the last bit
            assert (mine == theirs).all()


@pytest.mark.parity
def test_logspaces_as_in_torch() -> None:
    for arguments in ((0, 3, 10), (-2.0, 1.5, 7, 2.0), (0, 8, 5, 3), (1, 1, 1), (0, 1, 0)):
        mine, theirs = of_each_library("logspace", *arguments, dtype="float64")
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)
        mine, theirs = of_each_library("logspace", *arguments, dtype="float32")
        np.testing.assert_allclose(mine, theirs, rtol=3e-6)


def test_ranges_of_tensors_and_names() -> None:
    assert dg.arange(dg.tensor(3)).tolist() == dg.arange(end=3).tolist() == [0, 1, 2]
    assert dg.arange(start=1, end=4, step=2).tolist() == [1, 3]
    assert dg.arange(dg.tensor(3.0)).dtype == dg.float32
    assert dg.arange(np.int32(3)).dtype == dg.int64
    assert dg.linspace(dg.tensor(0.0), dg.tensor(1.0), 3).tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(TypeError, match="needs an end"):
        dg.arange()


def test_meshgrid_warns_without_indexing() -> None:
    with pytest.warns(UserWarning, match="required to pass the indexing argument"):
        a, b = dg.meshgrid(dg.arange(2), dg.arange(3))
    assert a.tolist() == [[0, 0, 0], [1, 1, 1]] and b.tolist() == [[0, 1, 2], [0, 1, 2]]


# Questions -----------------------------------------------------------------------------------------------------------


def test_is_tensor() -> None:
    assert dg.is_tensor(dg.ones(1)) and dg.is_tensor(dg.nn.Parameter(dg.ones(1)))
    assert not any(dg.is_tensor(x) for x in (1.0, np.ones(1), [dg.ones(1)], None))


def test_numel() -> None:
    assert [dg.numel(dg.zeros(2, 3)), dg.numel(dg.tensor(1)), dg.numel(dg.zeros(0, 3))] == [6, 1, 0]
    with pytest.raises(TypeError, match="must be Tensor, not list"):
        dg.numel([1])


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
def test_limits(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    for info, names in (
        ("finfo", "bits eps max min tiny smallest_normal resolution dtype"),
        ("iinfo", "bits max min dtype"),
    ):
        try:
            theirs = getattr(torch, info)(getattr(torch, dtype))
        except TypeError:
            with pytest.raises(TypeError, match=f"{info}\\(\\) requires"):
                getattr(dg, info)(np.dtype(dtype))
            continue
        mine = getattr(dg, info)(np.dtype(dtype))
        for name in names.split():
            assert getattr(mine, name) == getattr(theirs, name), name
            assert type(getattr(mine, name)) in (int, float, str)
        assert repr(mine) == repr(theirs)


@pytest.mark.parity
@pytest.mark.parametrize("a", DTYPES)
def test_casts(a: str) -> None:
    torch = pytest.importorskip("torch")
    for b in DTYPES:
        pair, theirs = (np.dtype(a), np.dtype(b)), (getattr(torch, a), getattr(torch, b))
        assert dg.can_cast(*pair) == torch.can_cast(*theirs), b
        assert f"torch.{dg.promote_types(*pair)}" == str(torch.promote_types(*theirs)), b
