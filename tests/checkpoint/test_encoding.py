from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distgrad.checkpoint.encoding import decode, encode, pack, unpack


def same(a: Any, b: Any) -> bool:
    """Equal in value and in type, NaN included."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        keys = list(zip(a, b, strict=True))
        return all(type(x) is type(y) and x == y for x, y in keys) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def through(state: Any) -> Any:
    document, arrays = encode(state)
    json.loads(document, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return decode(document, unpack(pack(arrays)))


def test_sgd_state_with_integer_keys() -> None:
    state = {
        "state": {0: {"momentum_buffer": np.arange(6.0).reshape(2, 3)}, 10: {"momentum_buffer": None}},
        "param_groups": [{"lr": 0.1, "momentum": 0.9, "nesterov": False, "params": [0, 1, 2], "betas": (0.9, 0.999)}],
    }
    document, arrays = encode(state)
    assert list(arrays) == ["state.0.momentum_buffer"]  # names that a person can read in the file
    assert b'"lr": 0.1' in document
    assert same(through(state), state)


def test_random_state_of_numpy() -> None:
    for bits in (np.random.PCG64(3), np.random.MT19937(3), np.random.Philox(3)):
        generator = np.random.Generator(bits)
        generator.normal(size=5)
        state = through(bits.state)
        expected = generator.random(4)
        fresh = type(bits)(0)
        fresh.state = state
        assert (np.random.Generator(fresh).random(4) == expected).all()


@pytest.mark.parametrize(
    "state",
    [
        None, True, 7, 2**127 - 1, -0.1, 1e-308, math.nan, math.inf, -math.inf, "☃ \ud800", [], (), {}, np.zeros(()),
        {"__array__": "no array"}, {"__tuple__": [1]}, {"__dict__": 1}, {"__float__": "nan"},
        {1: "a", "1": "b"}, {True: 1, None: 2, 0.5: 3, math.inf: 4}, [(1, [2, (3,)]), {"": np.ones(1)}],
        {"a.b": np.zeros(1), "a": {"b": np.ones(1)}}, [np.zeros((0, 3)), np.array(True)],
    ],
    ids=repr,
)  # fmt: skip
def test_round_trip(state: Any) -> None:
    assert same(through(state), state)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
keys = st.text(max_size=5) | st.sampled_from(["__array__", "__dict__", "__tuple__", "__float__"]) | st.integers()
arrays = st.sampled_from([np.zeros(2, np.float32), np.array(3, np.int64), np.array([[True]]), np.zeros((0,))])
nested = st.recursive(
    scalars | arrays,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(nested)
def test_any_nesting_round_trips(state: Any) -> None:
    assert same(through(state), state)


def test_numpy_scalars_become_python_s() -> None:
    state = through({"loss": np.float32(0.1), "step": np.int64(3), "done": np.bool_(True)})
    assert state == {"loss": float(np.float32(0.1)), "step": 3, "done": True}
    assert [type(value) for value in state.values()] == [float, int, bool]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": {1, 2}}}, "has a set at 'a.b'; only numbers, text, lists, dicts and NumPy arrays"),
        ({"a": [0, object()]}, "has a object at 'a.1'"),
        (b"x", "has a bytes at 'its root'"),
        ({"a": {(1, 2): 3}}, "has a key of type tuple in 'a'"),
    ],
)
def test_other_things_are_refused_by_place(state: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode(state)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint64", "bool"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4), (2, 0, 4)])
def test_arrays_of_every_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.array(np.random.default_rng(0).normal(size=shape) * 9, dtype=dtype)
    found = unpack(pack({"x": array}))["x"]
    assert same(found, array)
    assert found.flags.writeable and found.flags.owndata


def test_memory_order_does_not_matter() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    expected = pack({"x": array.transpose(2, 0, 1).copy()})
    assert pack({"x": array.transpose(2, 0, 1)}) == expected  # the library alone would write the wrong order
    assert pack({"x": np.asfortranarray(array.transpose(2, 0, 1))}) == expected
    assert pack({"x": array.transpose(2, 0, 1).astype(">f4")}) == expected
    assert (unpack(pack({"x": array[:, ::-2]}))["x"] == array[:, ::-2]).all()


def test_order_of_names_does_not_matter() -> None:
    a, b, c = np.zeros(2, np.float32), np.ones(3), np.array(4)
    assert pack({"a": a, "b": b, "c": c}) == pack({"c": c, "a": a, "b": b})
    assert pack({}) == pack({}) and unpack(pack({})) == {}


@pytest.mark.parametrize("bad", [np.array(["x"]), np.array([None]), np.zeros(2, complex), [1.0], 3.0])
def test_what_is_no_array_of_numbers_is_named(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"'fc\.weight' cannot be written to a checkpoint: it is of"):
        pack({"fc.weight": bad})


def test_damaged_bytes() -> None:
    content = pack({"x": np.ones(4)})
    for broken in (b"", content[:9], content[:-1], b"\xff" * 64):
        with pytest.raises(ValueError, match=r"rror while deserializing"):
            unpack(broken)
