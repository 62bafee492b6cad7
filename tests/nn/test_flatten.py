from __future__ import annotations

from collections.abc import Callable

import pytest

from distgrad import nn


@pytest.mark.parity
@pytest.mark.parametrize("arguments", [(), (0,), (1, 2), (-2,)])
def test_parity(against_torch: Callable[..., None], arguments: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(nn.Flatten(*arguments), torch.nn.Flatten(*arguments), (2, 3, 4, 5))
