from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distgrad import nn


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Upsample", {"scale_factor": 2}, (2, 3, 4)),
        ("Upsample", {"size": 7, "mode": "linear"}, (2, 3, 4)),
        ("Upsample", {"size": (5, 7)}, (2, 3, 4, 3)),
        ("Upsample", {"scale_factor": (2, 1.5), "mode": "bilinear"}, (1, 2, 3, 4)),
        ("Upsample", {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True}, (1, 2, 3, 4)),
        ("Upsample", {"size": (6, 5), "mode": "bicubic", "align_corners": True}, (1, 2, 3, 4)),
        ("Upsample", {"scale_factor": 2, "mode": "trilinear"}, (1, 2, 2, 3, 2)),
        ("UpsamplingNearest2d", {"scale_factor": 2}, (1, 2, 3, 4)),
        ("UpsamplingBilinear2d", {"size": (5, 6)}, (1, 2, 3, 4)),
        ("UpsamplingBilinear2d", {"scale_factor": 3}, (1, 2, 3, 4)),
    ],
)
def test_parity(
    against_torch: Callable[..., None], name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch")
    against_torch(getattr(nn, name)(**arguments), getattr(torch.nn, name)(**arguments), shape)


def test_text() -> None:
    assert (
        repr(nn.Upsample(scale_factor=(2, 3), mode="bilinear")) == "Upsample(scale_factor=(2.0, 3.0), mode='bilinear')"
    )
    assert repr(nn.UpsamplingBilinear2d(size=4)) == "UpsamplingBilinear2d(size=4, mode='bilinear')"
    assert nn.UpsamplingBilinear2d(4).align_corners is True
