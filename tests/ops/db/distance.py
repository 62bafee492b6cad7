from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import distance

from .loss import LEGACY, reduced
from .row import Constant, Op, Sample, Wrong

INF = math.inf


def norm(values: Any, p: float) -> float:
    """Of one vector, in Python's floats."""
    magnitudes = [abs(float(v)) for v in values]
    if p == 0:
        return float(sum(v != 0 for v in magnitudes))
    if math.isinf(p):
        return max(magnitudes, default=0.0) if p > 0 else min(magnitudes)
    if p < 0 and 0.0 in magnitudes:
        return 0.0
    return sum(v**p for v in magnitudes) ** (1 / p)


def normalized(x: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Any:
    dims = [d % x.ndim for d in ([dim] if isinstance(dim, int) else dim)] if x.ndim else []
    out = np.array(x)
    for place in np.ndindex(*(1 if d in dims else n for d, n in enumerate(x.shape))):
        vector = tuple(slice(None) if d in dims else i for d, i in enumerate(place))
        out[vector] = out[vector] / max(norm(np.ravel(x[vector]), p), eps)
    return out


def vectors(rng: np.random.Generator) -> Iterator[Sample]:
    for p in (2.0, 1.0, 3.0, 1.5, 0.5, -1.0, INF, -INF):
        yield Sample(rng.standard_normal((2, 3)), p=p)
    yield Sample(rng.standard_normal((2, 3)), 2.0, 0)
    yield Sample(rng.standard_normal((2, 3)), dim=-1, eps=1.7)
    yield Sample(rng.standard_normal((2, 2, 2)), dim=(0, 2))
    yield Sample(rng.standard_normal(()), dim=0)
    yield Sample(np.zeros((0, 3)))
    yield Sample(np.zeros((2, 0)))


def distances(x: Any, y: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    x, y = np.broadcast_arrays(x, y)
    out = np.array(
        [norm(a - b + eps, p) for a, b in zip(x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1]), strict=True)]
    )
    return out.reshape((*x.shape[:-1], 1) if keepdim else x.shape[:-1])


def pairs_of_vectors(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    for p in (2.0, 1.0, 3.0, 0.5, INF, -INF):
        yield Sample(draw(3, 2), draw(3, 2), p)
    yield Sample(draw(3, 2), draw(2), keepdim=True)
    yield Sample(draw(2), draw(2), eps=0.1)
    yield Sample(draw(2, 1, 3), draw(2, 3))
    yield Sample(np.zeros((0, 3)), np.zeros((0, 3)))


def cosine(x: Any, y: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    x, y = (np.moveaxis(v, dim, -1) for v in (x, y))
    out = np.zeros(x.shape[:-1])
    for place in np.ndindex(out.shape):
        a, b = x[place], y[place]
        out[place] = math.fsum(a * b) / (max(norm(a, 2), eps) * max(norm(b, 2), eps))
    return out


def angles(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(3, 2), draw(3, 2))
    yield Sample(draw(3, 2), draw(3, 2), 0)
    yield Sample(draw(2, 1, 3), draw(2, 3), -1)
    # without gradients: PyTorch's pass through the limit on the length, as if there were none
    yield Sample(Constant(draw(3)), Constant(draw(3)), dim=0, eps=2.5)
    yield Sample(Constant(np.zeros((1, 2))), draw(1, 2))
    yield Sample(np.zeros((0, 3)), np.zeros((0, 3)))


def signs(rng: np.random.Generator, *size: int) -> Any:
    return np.asarray(rng.choice([-1, 1], size))


def embedded(x: Any, y: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    similar = np.asarray(cosine(x, y, dim=x.ndim - 1))
    return reduced(np.where(target == 1, 1 - similar, np.maximum(0, similar - margin)), reduction)


def embeddings(rng: np.random.Generator) -> Iterator[Sample]:
    for extra in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"margin": 0.3}, {"margin": -0.4}):
        yield Sample(rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), np.array([1, -1, -1, 1]), **extra)
    yield Sample(rng.standard_normal(3), rng.standard_normal(3), np.array(1))
    yield Sample(rng.standard_normal((0, 3)), rng.standard_normal((0, 3)), np.zeros(0, np.int64), reduction="none")


def hinge(x: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    x, target = np.broadcast_arrays(x, target)
    far = [max(0.0, margin - v) for v in x.flat]
    values = [v if t == 1 else f if t == -1 else v + f for v, f, t in zip(x.flat, far, target.flat, strict=True)]
    return reduced(np.reshape(values, x.shape), reduction)


def hinges(rng: np.random.Generator) -> Iterator[Sample]:
    for extra in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"margin": 0.3}):
        yield Sample(rng.standard_normal((2, 3)), signs(rng, 2, 3), **extra)
    yield Sample(rng.standard_normal((2, 3)), np.array([0, 1, -1]), reduction="none")
    yield Sample(rng.standard_normal(()), np.array(-1))
    yield Sample(np.zeros(0), np.zeros(0, np.int64), reduction="sum")


def ranked(x: Any, y: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    return reduced(np.maximum(0, -target * (x - y) + margin), reduction)


def rankings(rng: np.random.Generator) -> Iterator[Sample]:
    for extra in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"margin": 0.3}):
        yield Sample(rng.standard_normal(4), rng.standard_normal(4), np.array([1, -1, -1, 1]), **extra)
    yield Sample(rng.standard_normal((2, 3)), rng.standard_normal((1, 3)), signs(rng, 2, 1))
    yield Sample(rng.standard_normal(()), rng.standard_normal(()), np.array(-1))
    yield Sample(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), reduction="sum")


def triplet(
    a: Any, b: Any, c: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-6, swap: bool = False,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    far = distances(a, c, p, eps)
    far = np.minimum(far, distances(b, c, p, eps)) if swap else far
    return reduced(np.maximum(0, margin + distances(a, b, p, eps) - far), reduction)


def triplets(rng: np.random.Generator) -> Iterator[Sample]:
    for extra in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"margin": 0.3}, {"p": 1}, {"swap": True}):
        yield Sample(*rng.standard_normal((3, 4, 3)), **extra)
    yield Sample(*rng.standard_normal((3, 3)), eps=0.1, reduction="none")
    yield Sample(*np.zeros((3, 0, 2)), reduction="sum")


def manhattan(a: Any, b: Any) -> Any:
    return abs(a - b).sum(-1)


def with_distance(a: Any, b: Any, c: Any, distance_function: Any = distances, **options: Any) -> Any:
    margin, swap = options.get("margin", 1.0), options.get("swap", False)
    far = distance_function(a, c)
    far = np.minimum(far, distance_function(b, c)) if swap else far
    return reduced(np.maximum(0, margin + distance_function(a, b) - far), options.get("reduction", "mean"))


def triplets_with_distance(rng: np.random.Generator) -> Iterator[Sample]:
    for extra in ({}, {"reduction": "none", "swap": True}, {"distance_function": manhattan, "margin": 0.4}):
        yield Sample(*rng.standard_normal((3, 4, 3)), **extra)
    yield Sample(*np.zeros((3, 0, 2)), reduction="sum")


X, T = np.zeros((2, 3)), np.ones(2, np.int64)
SHAPES = "size of tensor a|do not broadcast"
AVG = "'avg' is not a valid value for reduction"
NO_0D = {"0-d": "it takes vectors"}

ROWS = [
    Op(
        distance.normalize,
        normalized,
        vectors,
        (
            Wrong(IndexError, "Dimension out of range", X, dim=2),
            Wrong(RuntimeError, "expected a floating point tensor as input. Got int64", np.zeros((2, 2), np.int64)),
        ),
        ("PNorm", "Div"),
        dtypes="floating point only; test_losses_promote",
        torch="normalize",
        tolerance=(1e-11, 1e-4),
    ),
    Op(
        distance.pairwise_distance,
        distances,
        pairs_of_vectors,
        (Wrong(RuntimeError, SHAPES, X, np.zeros(2)),),
        ("PNorm", "Sub"),
        dtypes="promotes as sub does; test_losses_promote",
        torch="pairwise_distance",
        tolerance=(1e-11, 1e-4),
        lacks=NO_0D,
    ),
    Op(
        distance.cosine_similarity,
        cosine,
        angles,
        (
            Wrong(RuntimeError, SHAPES, X, np.zeros(2)),
            Wrong(IndexError, "Dimension out of range", np.zeros(2), np.zeros(2)),
            Wrong(RuntimeError, "common dtype is int64", *np.zeros((2, 2, 2), np.int64)),
        ),
        ("PNorm", "Div"),
        dtypes="floating point only; test_losses_promote",
        torch="cosine_similarity",
        lacks=NO_0D,
    ),
    Op(
        distance.cosine_embedding_loss,
        embedded,
        embeddings,
        (
            Wrong(RuntimeError, r"1D target tensor expects 2D input tensors .* sizes \[3\] and \[3\]", X[0], X[0], T),
            Wrong(RuntimeError, "2D target tensor", X, X, X),
            Wrong(RuntimeError, SHAPES, X, X, np.ones(3, np.int64)),
            Wrong(ValueError, LEGACY, X, X, T, size_average=False),
            Wrong(ValueError, AVG, X, X, T, reduction="avg"),
        ),
        ("Sqrt", "Where"),
        dtypes="promotes as mul does",
        torch="cosine_embedding_loss",
        tolerance=(1e-11, 1e-4),
    ),
    Op(
        distance.hinge_embedding_loss,
        hinge,
        hinges,
        (
            Wrong(RuntimeError, SHAPES, X, T),
            Wrong(ValueError, LEGACY, X, X, size_average=False),
            Wrong(ValueError, AVG, X, X, reduction="avg"),
        ),
        ("Where", "Clamp"),
        dtypes="promotes as where does",
        torch="hinge_embedding_loss",
    ),
    Op(
        distance.margin_ranking_loss,
        ranked,
        rankings,
        (
            Wrong(RuntimeError, "All input tensors should have same dimension but got sizes: input1", X, X, T),
            Wrong(RuntimeError, SHAPES, X, X, X[:, :2]),
            Wrong(ValueError, LEGACY, X, X, X, size_average=False),
            Wrong(ValueError, AVG, X, X, X, reduction="avg"),
        ),
        ("Mul", "Clamp"),
        dtypes="promotes as mul does",
        torch="margin_ranking_loss",
    ),
    Op(
        distance.triplet_margin_loss,
        triplet,
        triplets,
        (
            Wrong(ValueError, "margin must be greater than 0, got 0", X, X, X, 0),
            Wrong(RuntimeError, "anchor 2D, positive 1D, and negative 2D inputs", X, X[0], X),
            Wrong(RuntimeError, SHAPES, X, X, X[:, :2]),
            Wrong(ValueError, LEGACY, X, X, X, size_average=False),
            Wrong(ValueError, AVG, X, X, X, reduction="avg"),
        ),
        ("PNorm", "Minimum", "Clamp"),
        dtypes="promotes as sub does",
        torch="triplet_margin_loss",
        tolerance=(1e-11, 1e-4),
        lacks=NO_0D,
    ),
    Op(
        distance.triplet_margin_with_distance_loss,
        with_distance,
        triplets_with_distance,
        (
            Wrong(ValueError, "margin must be greater than 0, got 0", X, X, X, margin=0),
            Wrong(RuntimeError, "anchor 2D, positive 1D, and negative 2D inputs", X, X[0], X),
            Wrong(ValueError, AVG, X, X, X, reduction="avg"),
        ),
        ("PNorm", "Minimum", "Clamp"),
        dtypes="promotes as sub does",
        torch="triplet_margin_with_distance_loss",
        tolerance=(1e-11, 1e-4),
        lacks=NO_0D,
    ),
]
FAMILY = distance
EXEMPT: list[Any] = []
