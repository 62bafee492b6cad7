"""Anomaly mode names the line of the forward."""

from __future__ import annotations

import inspect

import pytest

import distgrad as dg
from distgrad.autograd import detect_anomaly, is_anomaly_check_nan_enabled, is_anomaly_enabled, set_detect_anomaly


def line_here() -> int:
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_nan_is_traced_to_the_line_that_recorded_the_operation() -> None:
    x = dg.zeros(2, requires_grad=True)
    with detect_anomaly():
        shifted = x * 1
        y, line = shifted.sqrt() * 0.0, line_here()
        with pytest.raises(
            RuntimeError, match="Function 'SqrtBackward0' returned nan values in its 0th output"
        ) as found:
            y.sum().backward()
    message = str(found.value)
    assert f"test_anomaly.py:{line}, in test_a_nan_is_traced" in message
    assert "y, line = shifted.sqrt() * 0.0, line_here()" in message
    assert "Traceback of the forward call" in message


def test_without_it_nan_is_a_value() -> None:
    x = dg.zeros(1, requires_grad=True)
    (x.sqrt() * 0.0).backward()
    assert x.grad.isnan().item()
    x.grad = None
    with detect_anomaly(check_nan=False):
        (x.sqrt() * 0.0).backward()
    assert x.grad.isnan().item()


def test_the_forward_was_outside() -> None:
    x = dg.zeros(1, requires_grad=True)
    y = x.sqrt() * 0.0
    with detect_anomaly(), pytest.raises(RuntimeError, match="enable detect_anomaly during the forward pass"):
        y.backward()


def test_an_exception_in_a_backward_is_noted() -> None:
    class Broken(dg.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: dg.Tensor) -> dg.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, g: dg.Tensor) -> dg.Tensor:
            raise ValueError("no")

    x = dg.ones(1, requires_grad=True)
    with detect_anomaly():
        y, line = Broken.apply(x), line_here()
        with pytest.raises(ValueError, match="no") as found:
            y.backward()
    assert any(f"test_anomaly.py:{line}" in note for note in found.value.__notes__)


def test_the_mode_is_put_back() -> None:
    assert not is_anomaly_enabled()
    with detect_anomaly(check_nan=False):
        assert is_anomaly_enabled() and not is_anomaly_check_nan_enabled()
        with set_detect_anomaly(False):
            assert not is_anomaly_enabled() and is_anomaly_check_nan_enabled()
        assert is_anomaly_enabled()
    assert not is_anomaly_enabled() and is_anomaly_check_nan_enabled()
    set_detect_anomaly(True)
    assert is_anomaly_enabled()
    set_detect_anomaly(False)
    assert not is_anomaly_enabled()


def test_nodes_keep_notes() -> None:
    x = dg.ones(1, requires_grad=True)
    y = x * 2
    y.grad_fn.metadata["mine"] = 3
    assert y.grad_fn.metadata == {"mine": 3}
