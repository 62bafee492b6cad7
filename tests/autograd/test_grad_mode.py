"""Recording on and off: as contexts, decorators and functions, a thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

import pytest

import distgrad as dg
from distgrad import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled


@pytest.fixture(autouse=True)
def recording() -> Any:
    assert is_grad_enabled()
    yield
    assert is_grad_enabled()
    assert not dg.is_inference_mode_enabled()


def recorded() -> bool:
    return bool((dg.ones(1, requires_grad=True) * 2).requires_grad)


def test_contexts_nest() -> None:
    with no_grad():
        assert not recorded()
        with enable_grad():
            assert recorded()
            with no_grad():
                assert not recorded()
            assert recorded()
        assert not recorded()
    assert recorded()


def test_one_context_may_be_entered_again() -> None:
    context = no_grad()
    with context, context:
        assert not recorded()
    assert recorded()


def test_an_exception_restores_the_mode() -> None:
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert recorded()


def test_decorators_with_and_without_parentheses() -> None:
    @no_grad()
    def a() -> bool:
        """Documented."""
        return recorded()

    @no_grad
    def b() -> bool:
        return recorded()

    @inference_mode
    def c() -> bool:
        return recorded()

    @inference_mode()
    def d() -> bool:
        return recorded()

    @set_grad_enabled(False)
    def e() -> bool:
        return recorded()

    for function in (a, b, c, d, e):
        assert recorded()
        assert not function()
    assert (a.__name__, a.__doc__) == ("a", "Documented.")

    @enable_grad
    def f() -> bool:
        return recorded()

    @enable_grad()
    def g() -> bool:
        return recorded()

    with no_grad():
        assert f()
        assert g()


def test_a_decorated_function_may_call_itself() -> None:
    @no_grad()
    def down(n: int) -> bool:
        return recorded() if n == 0 else down(n - 1)

    assert not down(5)


def test_a_decorated_generator_does_not_leak_its_mode() -> None:
    @no_grad()
    def steps() -> Generator[bool, str, str]:
        got = yield recorded()
        assert got == "sent"
        try:
            yield recorded()
        except KeyError:
            yield recorded()
        return "returned"

    generator = steps()
    assert not next(generator)
    assert recorded()
    assert not generator.send("sent")
    assert recorded()
    assert not generator.throw(KeyError())
    assert recorded()
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "returned"


def test_closing_a_decorated_generator() -> None:
    closed: list[bool] = []

    @no_grad()
    def steps() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            closed.append(recorded())

    generator = steps()
    next(generator)
    generator.close()
    assert closed == [False]


def test_an_error_in_a_decorated_generator() -> None:
    @no_grad()
    def steps() -> Generator[int, None, None]:
        yield 1
        raise ArithmeticError("inside")

    with pytest.raises(ArithmeticError, match="inside"):
        list(steps())


def test_set_grad_enabled_as_a_function_and_as_a_context() -> None:
    set_grad_enabled(False)
    try:
        assert not recorded()
        with set_grad_enabled(True):
            assert recorded()
        assert not recorded()
    finally:
        set_grad_enabled(True)
    with set_grad_enabled(False):
        assert not recorded()
    assert recorded()


def test_every_thread_starts_recording() -> None:
    seen: list[bool] = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(recorded()))
        thread.start()
        thread.join()
        assert not recorded()
    assert seen == [True]


def test_leaves_made_without_recording() -> None:
    with no_grad():
        x = dg.ones(2, requires_grad=True)
        y = x * 2
    assert x.requires_grad
    assert (y.is_leaf, y.requires_grad, y.grad_fn) == (True, False, None)
    (x * y).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_inference_mode() -> None:
    x = dg.ones(2, requires_grad=True)
    with inference_mode():
        assert dg.is_inference_mode_enabled()
        y = x * 2
        with inference_mode(False):
            assert recorded()
            assert not dg.is_inference_mode_enabled()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        x * y
    assert (x + y).requires_grad  # nothing of y has to be saved
    assert (x * y.clone()).requires_grad
    with pytest.raises(RuntimeError, match="inference tensor cannot require gradients"):
        y.requires_grad = True


@pytest.mark.parity
def test_modes_inside_one_another_as_in_torch() -> None:
    torch = pytest.importorskip("torch")

    def observed(t: Any) -> list[bool]:
        seen: list[bool] = []

        def note() -> None:
            seen.extend([t.is_grad_enabled(), t.is_inference_mode_enabled()])

        makers = [t.no_grad, t.enable_grad, t.inference_mode, lambda: t.inference_mode(False)]
        makers += [lambda: t.set_grad_enabled(True), lambda: t.set_grad_enabled(False)]
        for outer in makers:
            for inner in makers:
                with outer():
                    note()
                    with inner():
                        note()
                    note()
                note()
        return seen

    assert observed(dg) == observed(torch)
