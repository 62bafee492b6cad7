"""What PyTorch does where there is little or nothing to do: no elements, no dimensions, one piece, half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import distgrad as dg


def raised(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return type(error).__name__


def second_pass(t: Any, function: Callable[[Any], Any]) -> bool:
    y = function(t.tensor([0.3, 2.0]).requires_grad_())
    y.sum().backward()
    return raised(lambda: y.sum().backward()) is None


CASES: dict[str, Callable[[Any], Any]] = {
    "integers by 0, of which there are none": lambda t: [
        raised(lambda f=f: list(f(t.zeros(0, 2, dtype=t.int64), t.zeros(1, dtype=t.int64)).shape))
        for f in (t.floor_divide, t.fmod, t.remainder, lambda a, b: t.div(a, b, rounding_mode="trunc"))
    ],
    "roll of nothing": lambda t: list(t.zeros(0, 2).roll(1, 5).shape),
    "roll of a number": lambda t: raised(lambda: t.zeros(()).roll(1, 0)),
    "mT of a number": lambda t: [(x := t.ones(()).requires_grad_()).mT is x, x.H is x, x.mH is x],
    "ravel copies what is not in order": lambda t: [
        (x := t.zeros(2, 3)).diagonal().ravel().data_ptr() == x.data_ptr(), x.ravel().data_ptr() == x.data_ptr()
    ],
    "broadcast_tensors gives what fits already": lambda t: [
        y is x for x in [t.ones(2, 3)] for y in t.broadcast_tensors(x, t.ones(3))
    ],
    "einsum that changes nothing is a view": lambda t: [
        (y := t.einsum("i...->...i", x)) is x or (y._is_view() and not y.is_leaf) for x in [t.ones(3).requires_grad_()]
    ],
    "a piece of tensor_split may be changed": lambda t: [
        raised(lambda x=x: x.tensor_split(2)[0].mul_(2).tolist()) for x in [t.ones(3).requires_grad_() * 1]
    ],
    "repeat_interleave of nothing is a copy": lambda t: raised(
        lambda: list(t.zeros(0).requires_grad_().repeat_interleave(2).exp_().shape)
    ),
    "gather of nothing is a copy": lambda t: raised(
        lambda: list(t.zeros(3).requires_grad_().gather(0, t.zeros(0, dtype=t.int64)).exp_().shape)
    ),
    "channel_shuffle is no view": lambda t: t.channel_shuffle(t.ones(1, 4, 2, 2), 2)._is_view(),
    "sinc in half precision": lambda t: t.tensor([-1.0, 0.0, 2.0], dtype=t.float16).sinc().abs().tolist(),
    "limits of hardtanh in uint8": lambda t: [
        raised(lambda low=low: t.nn.functional.hardtanh(t.tensor([0, 3], dtype=t.uint8), low, 2).tolist())
        for low in (-0.5, -1)
    ],
    "erfinv may be overwritten": lambda t: raised(
        lambda: (t.zeros(2).requires_grad_() * 1).erfinv().mul_(2).sum().backward()
    ),
    "products with constants save nothing": lambda t: [
        second_pass(t, f)
        for f in (t.rad2deg, t.deg2rad, lambda x: t.add(x, x, alpha=2), lambda x: x.lerp(x, 0.3), lambda x: x * 2)
    ],
    "a part of expanded memory": lambda t: [
        (y.__setitem__(0, 5.0), (y * 2).sum().backward(), x.grad.tolist())[2]
        for x in [t.ones(3).requires_grad_()]
        for y in [(x * 1).expand(1, 3)]
    ],
    "the base of an expanded view in place": lambda t: [
        (wide[0].mul_(3), base.sum().backward(), x.grad.tolist())[2]
        for x in [t.ones(3).requires_grad_()]
        for base in [x * 1]
        for wide in [base.expand(2, 3)]
    ],
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    assert CASES[name](dg) == CASES[name](torch)
