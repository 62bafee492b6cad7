from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import distgrad
from distgrad import nn
from distgrad.nn import functional as F


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("PairwiseDistance", {}, ((3, 4), (3, 4))),
        ("PairwiseDistance", {"p": 1.0, "keepdim": True}, ((3, 4), (4,))),
        ("PairwiseDistance", {"p": math.inf, "eps": 0.1}, ((4,), (4,))),
        ("CosineSimilarity", {}, ((3, 4), (3, 4))),
        ("CosineSimilarity", {"dim": -1}, ((3, 1, 4), (2, 4))),
    ],
)
def test_parity(
    against_torch: Callable[..., None], name: str, options: dict[str, Any], shapes: tuple[tuple[int, ...], ...]
) -> None:
    torch = pytest.importorskip("torch")
    against_torch(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), *shapes)


@pytest.mark.parametrize("p", [0, 1, 1.5, 2, 3, math.inf, -math.inf, 0.5, -1])
def test_a_vector_of_zeros_has_no_direction(p: float) -> None:
    x = distgrad.zeros(2, 3, requires_grad=True)
    distance = F.pairwise_distance(x, distgrad.zeros(2, 3), p, eps=0.0)
    assert distance.tolist() == [0.0, 0.0]
    distance.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0.0] * 3] * 2


def test_equal_extremes_share_the_gradient() -> None:
    x = distgrad.tensor([[2.0, -2.0, 1.0]], requires_grad=True)
    F.pairwise_distance(x, distgrad.zeros(1, 3), math.inf, eps=0.0).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0.5, -0.5, 0.0]]


def test_normalize_writes_where_it_is_told() -> None:
    out = distgrad.empty(2, 2)
    assert F.normalize(distgrad.tensor([[3.0, 4.0], [0.0, 0.0]]), out=out) is out
    assert out.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
