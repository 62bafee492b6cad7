"""How an operation is made known: what a call records, saves and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck, gradgradcheck
from distgrad.autograd.primitive import PRIMITIVES, Primitive, alias, define


@pytest.fixture
def registry() -> Iterator[dict[str, Primitive]]:
    before = dict(PRIMITIVES)
    yield PRIMITIVES
    PRIMITIVES.clear()
    PRIMITIVES.update(before)


def leaf(*values: float) -> dg.Tensor:
    return dg.tensor(list(values), dtype=dg.float64, requires_grad=True)


def test_define_registers_once(registry: dict[str, Primitive]) -> None:
    cube = define("Cube", lambda input: input**3, ("input",), input=lambda g, input: g * 3.0 * input * input)
    assert registry["Cube"] is cube
    x = leaf(1.0, 2.0)
    y = cube(x)
    assert y.grad_fn.name() == "CubeBackward0"
    assert gradcheck(cube, x)
    assert gradgradcheck(cube, x)
    with pytest.raises(ValueError, match="'Cube' is defined twice"):
        define("Cube", np.abs, ("input",))


def test_vjps_belong_to_operands() -> None:
    with pytest.raises(ValueError, match=r"primitive P: a VJP for \['other'\], but the operands are \('input',\)"):
        Primitive("P", np.abs, ("input",), {"other": lambda g: g})


def test_arrays_give_arrays() -> None:
    double = Primitive("Double", lambda input: input * 2, ("input",), {"input": lambda g: g * 2})
    assert isinstance(double(np.ones(2)), np.ndarray)
    assert isinstance(double(dg.ones(2)), dg.Tensor)
    both = Primitive("Both", lambda input: (input * 2, (input,)), ("input",), {}, residuals=("kept",))
    assert both(np.ones(2)).tolist() == [2.0, 2.0]


def test_an_operand_without_a_vjp() -> None:
    first = Primitive("First", lambda a, b: a + b, ("a", "b"), {"a": lambda g: g})
    x, y = leaf(1.0), leaf(2.0)
    first(x, y.detach()).sum().backward()
    assert x.grad.item() == 1.0
    with pytest.raises(
        RuntimeError, match=r"First is not differentiable with respect to 'b'; detach\(\) that argument"
    ):
        first(x, y)


def test_no_vjps_no_graph() -> None:
    floor = Primitive("Floor", np.floor, ("input",), {})
    y = floor(leaf(1.5))
    assert y.is_leaf
    assert not y.requires_grad


def test_what_a_vjp_may_ask_for() -> None:
    asked: list[Any] = []

    def vjp(
        g: Any, input: Any, output: Any, input_shape: Any, other_dtype: Any, scale: Any, twice: Any, extra: Any
    ) -> Any:
        asked.extend([input, output, input_shape, other_dtype, scale, twice, extra])
        return g

    def forward(input: Any, other: Any, scale: float, twice: bool = True) -> Any:
        return input * scale, (input + 1,)

    p = Primitive("All", forward, ("input", "other"), {"input": vjp}, residuals=("extra",))
    p(leaf(2.0), dg.ones(1), scale=3.0).backward()
    input, output, shape, dtype, scale, twice, extra = asked
    assert (input.tolist(), output.tolist(), shape, dtype, scale, twice, extra.tolist()) == (
        [2.0], [6.0], (1,), np.dtype("float32"), 3.0, True, [3.0],
    )  # fmt: skip
    assert all(isinstance(x, np.ndarray) for x in (input, output, extra))


def test_a_vjp_that_asks_for_what_is_not_there() -> None:
    p = Primitive("Odd", np.abs, ("input",), {"input": lambda g, missing: g})
    with pytest.raises(RuntimeError, match="primitive Odd: a VJP asks for 'missing', which the call does not have"):
        p(leaf(1.0))


def test_plain_passes_use_arrays_and_recorded_ones_tensors() -> None:
    kinds: list[set[type]] = []

    def vjp(g: Any, input: Any, output: Any) -> Any:
        kinds.append({type(g), type(input), type(output)})
        return g * 2.0 * input

    square = Primitive("Square", np.square, ("input",), {"input": vjp})
    x = leaf(3.0)
    dg.autograd.grad(square(x), x)
    dg.autograd.grad(square(x), x, create_graph=True)
    assert kinds == [{np.ndarray}, {dg.Tensor}]


def test_a_starred_operand() -> None:
    total = Primitive(
        "Total",
        lambda *terms: sum(terms),
        ("terms*",),
        {"terms": lambda g, index, terms, terms_shape: g * float(index + 1) * terms[index] / terms[index]},
    )
    xs = [leaf(1.0, 2.0), dg.ones(2, dtype=dg.float64), leaf(3.0, 4.0)]
    total(*xs).sum().backward()
    assert (xs[0].grad.tolist(), xs[1].grad, xs[2].grad.tolist()) == ([1.0, 1.0], None, [3.0, 3.0])


def test_several_results() -> None:
    def vjp(g: tuple[Any, Any], output: tuple[Any, Any]) -> Any:
        seen.append(tuple(part is None for part in g))
        return sum(part * out for part, out in zip(g, output, strict=True) if part is not None)

    seen: list[Any] = []
    both = Primitive("Both", lambda input: (input, -input), ("input",), {"input": vjp}, multiple=True)
    x = leaf(2.0)
    _, minus = both(x)
    assert minus.output_nr == 1
    minus.backward()
    assert seen == [(True, False)]
    assert x.grad.item() == -2.0


def test_a_decomposition_differentiates_a_fast_kernel() -> None:
    """The VJP itself sees arrays only; the recorded pass goes through the decomposition."""

    def fast(g: Any, input: Any) -> Any:
        assert isinstance(input, np.ndarray)
        return g * np.cos(input) * np.float64(2.0)

    p = Primitive(
        "Fast",
        lambda input, factor: factor * np.sin(input),
        ("input",),
        {"input": fast},
        decomposition=lambda input, factor: dg.sin(input) * factor,
    )
    x = leaf(0.3, 0.7)
    assert gradcheck(lambda x: p(x, factor=2.0), x)
    assert gradgradcheck(lambda x: p(x, factor=2.0), x)
    (g,) = dg.autograd.grad(p(x, factor=2.0).sum(), x, create_graph=True)
    (h,) = dg.autograd.grad(g.sum(), x)
    np.testing.assert_allclose(h.numpy(), -2 * np.sin([0.3, 0.7]), rtol=1e-14)


def test_alias_is_the_identity() -> None:
    x = leaf(1.0)
    y = alias(x)
    assert y.data_ptr() == x.data_ptr()
    assert y is not x
    (y * 2).backward()
    assert x.grad.item() == 2.0


def test_views_of_views_share_one_base() -> None:
    base = dg.zeros(2, 2)
    inner = base[0][1:]
    assert inner._base is base
    inner.fill_(7)
    assert base.tolist() == [[0.0, 7.0], [0.0, 0.0]]
    assert base._version == 1
