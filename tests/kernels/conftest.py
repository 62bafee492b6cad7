"""Kernels twice: by NumPy alone, and compiled."""

from __future__ import annotations

import pytest

from distgrad import backends
from distgrad.kernels.jit.machine import machine


@pytest.fixture(params=["numpy", "compiled"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with NumPy's kernels and once with compiled ones."""
    monkeypatch.setattr(backends, "jit", "auto" if request.param == "compiled" else "off")
    if request.param == "compiled" and machine() is None:
        pytest.skip("llvmlite is not installed: pip install distgrad[fast]")
    return str(request.param)
