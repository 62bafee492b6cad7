"""``x[index] = value``: where and what it writes, which dtypes it takes, and the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg

MASK, ONE = [True, False, True], [False, True, False]


def assigned(t: Any, shape: tuple[int, ...], index: Any, value: Any, dtype: str = "float32") -> Any:
    x = t.zeros(shape, dtype=getattr(t, dtype))
    try:
        x[index(t) if callable(index) else index] = value(t) if callable(value) else value
    except Exception as error:
        return type(error).__name__
    return x.tolist()


CASES: dict[str, tuple[Any, ...]] = {
    "an integer beside positions": ((2, 3, 4), lambda t: (0, slice(None), t.tensor([1, 2])), lambda t: t.ones(3, 2)),
    "positions apart": ((2, 3, 4), lambda t: (t.tensor([0, 1]), slice(None), t.tensor([1, 2])), lambda t: t.ones(2, 3)),
    "leading ones": ((3,), slice(0, 2), lambda t: t.ones(1, 1, 2)),
    "another dtype in a slice": ((3,), slice(0, 2), lambda t: t.tensor(1)),
    "another dtype at positions": ((3,), lambda t: t.tensor([0, 1]), lambda t: t.tensor(1)),
    "another dtype in a list": ((3,), [0, 1], lambda t: t.tensor(1)),
    "one value of another dtype for a mask": ((3,), lambda t: t.tensor(MASK), lambda t: t.tensor([1])),
    "values of another dtype for a mask": ((3,), lambda t: t.tensor(MASK), lambda t: t.tensor([1, 2])),
    "two masks and another dtype": ((3, 3), lambda t: (t.tensor(MASK), t.tensor(ONE)), lambda t: t.tensor(1)),
    "a number that wraps": ((2,), 0, -1, "uint8"),
    "a number that does not fit": ((2,), 0, 300, "uint8"),
    "a negative fraction in uint8": ((2,), 0, -1.5, "uint8"),
    "a fraction": ((2,), 0, 2.7, "int64"),
    "too many values": ((3,), slice(0, 2), lambda t: t.ones(3)),
    "too many values for positions": ((3,), lambda t: t.tensor([0, 1]), lambda t: t.ones(3)),
}
EXPECTED = {
    "another dtype in a slice": [1.0, 1.0, 0.0], "another dtype at positions": "RuntimeError",
    "one value of another dtype for a mask": [1.0, 0.0, 1.0], "values of another dtype for a mask": "RuntimeError",
    "a number that wraps": [255, 0], "a number that does not fit": "RuntimeError", "a fraction": [2, 0],
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_dtypes(name: str) -> None:
    assert assigned(dg, *CASES[name]) == EXPECTED[name]


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    assert assigned(dg, *CASES[name]) == assigned(torch, *CASES[name])


def test_an_integer_beside_positions() -> None:
    """NumPy counts the integer among the positions, which puts their dimension in front."""
    x = dg.zeros(2, 3, 4)
    values = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    x[0, :, [1, 3]] = dg.from_numpy(values)
    expected = np.zeros((2, 3, 4), np.float32)
    for column, place in enumerate((1, 3)):
        expected[0, :, place] = values[:, column]
    assert np.array_equal(x.numpy(), expected)


def test_of_several_values_for_one_place_the_last_has_the_gradient() -> None:
    x = dg.zeros(3).requires_grad_() * 1
    values = dg.tensor([1.0, 2.0, 3.0]).requires_grad_()
    x[dg.tensor([1, 1, 0])] = values
    x.sum().backward()
    assert x.tolist() == [3.0, 2.0, 0.0]
    assert values.grad is not None and values.grad.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(("value", "expected"), [(-1, 255), (200, 200), (2.7, 2), (True, 1)])
def test_fill_of_bytes(value: float, expected: int) -> None:
    assert dg.zeros(2, dtype=dg.uint8).fill_(value).tolist() == [expected] * 2


@pytest.mark.parametrize("value", [300, -1.5 - 255, float("nan")])
def test_fill_refuses_what_does_not_fit(value: float) -> None:
    with pytest.raises(RuntimeError, match="without overflow"):
        dg.zeros(2, dtype=dg.uint8).fill_(value)
