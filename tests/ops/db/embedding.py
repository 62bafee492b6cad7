from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import embedding

from .row import Constant, Op, Sample, Wrong


def limited(weight: Any, used: Any, max_norm: float | None, norm_type: float) -> None:
    """Rows that are too long are scaled down, in place."""
    for row in set(np.ravel(used).tolist()) if max_norm is not None else ():
        length = (np.abs(weight[row]) ** norm_type).sum() ** (1 / norm_type)
        if length > max_norm:
            weight[row] *= max_norm / (length + 1e-7)


def looked_up(
    indices: Any, weight: Any, padding_idx: Any = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
) -> Any:  # fmt: skip
    limited(weight, indices, max_norm, norm_type)
    out = np.empty((*indices.shape, weight.shape[1]))
    for place in np.ndindex(indices.shape):
        out[place] = weight[int(indices[place])]
    return out


def look_ups(rng: np.random.Generator) -> Iterator[Sample]:
    def table() -> Any:
        return rng.standard_normal((4, 3))

    for indices in (np.array([1, 3, 1, 1]), np.array([[0, 1], [2, 0]]), np.array(2), np.zeros((0, 2), np.int64)):
        yield Sample(indices, table())
    yield Sample(np.array([3, 0, 3], np.int32), table())
    yield Sample(np.array([1, 3, 1, 0]), table(), max_norm=9.0)
    yield Sample(np.array([1, 3, 1, 0]), Constant(table(), True), max_norm=0.5, norm_type=3.0)


def bagged(
    indices: Any, weight: Any, offsets: Any = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, per_sample_weights: Any = None,
    include_last_offset: bool = False, padding_idx: Any = None,
) -> Any:  # fmt: skip
    limited(weight, indices, max_norm, norm_type)
    if indices.ndim == 2:
        bags = [list(range(i * indices.shape[1], (i + 1) * indices.shape[1])) for i in range(indices.shape[0])]
    else:
        ends = [*offsets.tolist(), *([] if include_last_offset else [indices.size])]
        bags = [list(range(a, b)) for a, b in itertools.pairwise(ends)]
    flat, out = indices.reshape(-1).tolist(), np.zeros((len(bags), weight.shape[1]))
    factors = np.ones(len(flat)) if per_sample_weights is None else per_sample_weights.reshape(-1)
    padding = None if padding_idx is None else padding_idx % len(weight)
    for number, bag in enumerate(bags):
        rows = [weight[flat[i]] * factors[i] for i in bag if flat[i] != padding]
        if rows:
            out[number] = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode](rows, axis=0)
    return out


def bags(rng: np.random.Generator) -> Iterator[Sample]:
    def table() -> Any:
        return rng.standard_normal((5, 3))

    flat, offsets = np.array([1, 3, 1, 0, 4, 4]), np.array([0, 2, 2, 5])
    for mode in ("sum", "mean", "max"):
        yield Sample(np.array([[0, 1], [2, 0]]), table(), mode=mode)
        yield Sample(flat, table(), offsets, mode=mode)
        yield Sample(flat, table(), np.array([0, 2, 2, 6]), mode=mode, include_last_offset=True)
        yield Sample(flat, table(), offsets, mode=mode, padding_idx=-1)
        yield Sample(flat, table(), np.array([0, 6]), mode=mode, max_norm=9.0)
        yield Sample(np.zeros(0, np.int64), table(), np.array([0, 0]), mode=mode)
    yield Sample(flat, table(), offsets, mode="sum", per_sample_weights=rng.standard_normal(6), padding_idx=3)
    yield Sample(np.array([[0, 1], [2, 0]]), table(), mode="sum", per_sample_weights=rng.standard_normal((2, 2)))
    yield Sample(flat, Constant(table(), True), offsets, 0.5)


TABLE, INDICES, OFFSETS = np.zeros((4, 3)), np.array([0, 1, 1]), np.array([0, 2])

ROWS = [
    Op(
        embedding.embedding,
        looked_up,
        look_ups,
        (
            Wrong(IndexError, "index out of range in self: 4 of 4 embeddings", np.array([0, 4]), TABLE),
            Wrong(IndexError, "index out of range in self: -1", np.array([3, -1]), TABLE),
            Wrong(RuntimeError, "types: Long, Int; but got float64 instead", np.zeros(2), TABLE),
            Wrong(RuntimeError, "'weight' must be 2-D", INDICES, np.zeros(3)),
            Wrong(ValueError, "Padding_idx must be within num_embeddings: 4 is not", INDICES, TABLE, 4),
            Wrong(ValueError, "Padding_idx must be within num_embeddings: -5 is not", INDICES, TABLE, -5),
            Wrong(NotImplementedError, "sparse gradients are not supported", INDICES, TABLE, sparse=True),
        ),
        ("Embedding", "EmbeddingDenseBackward"),
        dtypes="takes indices; test_floats_stay",
        torch="embedding",
    ),
    Op(
        embedding.embedding_bag,
        bagged,
        bags,
        (
            Wrong(
                RuntimeError,
                "Expected idx >= 0 && idx < num_embeddings but found idx to be 4",
                INDICES + 3,
                TABLE,
                OFFSETS,
            ),
            Wrong(RuntimeError, "types: Long, Int; but got float64 instead", np.zeros(2), TABLE, OFFSETS),
            Wrong(ValueError, "if input is 2D, then offsets has to be None", np.zeros((2, 2), int), TABLE, OFFSETS),
            Wrong(ValueError, "offsets has to be a 1D Tensor but got None", INDICES, TABLE),
            Wrong(ValueError, r"a 1D Tensor but got one of shape \[1, 2\]", INDICES, TABLE, OFFSETS[None]),
            Wrong(RuntimeError, "'offsets' to have one of the following .* float64", INDICES, TABLE, np.zeros(1)),
            Wrong(
                ValueError, "input has to be 1D or 2D Tensor, but got Tensor of dimension 3", INDICES[None, None], TABLE
            ),
            Wrong(RuntimeError, r"offsets\[0\] has to be 0.* However, got 1", INDICES, TABLE, OFFSETS + 1),
            Wrong(
                RuntimeError,
                r"offsets\[-1\] can not be greater .* 3 but got offsets\[-1\] of 4",
                INDICES,
                TABLE,
                2 * OFFSETS,
            ),
            Wrong(
                RuntimeError, r"offsets have to ascend, but they are \[0, 2, 1\]", INDICES, TABLE, np.array([0, 2, 1])
            ),
            Wrong(ValueError, "mode has to be one of sum, mean or max", INDICES, TABLE, OFFSETS, mode="min"),
            Wrong(ValueError, "max mode does not support scaling", INDICES, TABLE, OFFSETS, None, 2.0, True, "max"),
            Wrong(
                NotImplementedError,
                "only supported for mode='sum'",
                INDICES,
                TABLE,
                OFFSETS,
                per_sample_weights=np.ones(3),
            ),
            Wrong(
                ValueError,
                "must have the same shape as the input",
                INDICES,
                TABLE,
                OFFSETS,
                mode="sum",
                per_sample_weights=np.ones(2),
            ),
            Wrong(
                RuntimeError,
                "to have the dtype of the weight, float64, not int64",
                INDICES,
                TABLE,
                OFFSETS,
                mode="sum",
                per_sample_weights=np.ones(3, np.int64),
            ),
            Wrong(NotImplementedError, "sparse gradients are not supported", INDICES, TABLE, OFFSETS, sparse=True),
        ),
        ("Embedding", "EmbeddingDenseBackward", "EmbeddingDenseDoubleBackward", "Gather"),
        dtypes="takes indices; test_floats_stay",
        torch="embedding_bag",
        lacks={"0-d": "it takes bags"},
    ),
]
FAMILY = embedding
EXEMPT: list[Any] = []
