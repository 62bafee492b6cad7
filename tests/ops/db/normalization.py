from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import normalization

from .row import Constant, Op, Sample, Wrong


def by_channel(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Channel by channel, in Python's floats; the running statistics are written as the definition says."""
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c].reshape(-1).tolist()
        if training:
            centre = math.fsum(values) / len(values)
            spread = math.fsum((v - centre) ** 2 for v in values) / len(values)
            if mean is not None:
                mean[c] = (1 - momentum) * mean[c] + momentum * centre
                var[c] = (1 - momentum) * var[c] + momentum * spread * len(values) / (len(values) - 1)
        else:
            centre, spread = float(mean[c]), float(var[c])
        scale, shift = 1.0 if weight is None else float(weight[c]), 0.0 if bias is None else float(bias[c])
        scaled = [(v - centre) / math.sqrt(spread + eps) * scale + shift for v in values]
        out[:, c] = np.array(scaled).reshape(x[:, c].shape)
    return out


def batches(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    def running(changes: bool) -> tuple[Constant, Constant]:
        return Constant(draw(2), changes), Constant(rng.uniform(0.5, 2.0, 2), changes)

    for size in ((3, 2), (2, 2, 2), (1, 2, 2, 2)):
        yield Sample(draw(*size), None, None, draw(2), draw(2), True)
        yield Sample(draw(*size), *running(False), draw(2), draw(2))
    yield Sample(draw(3, 2), *running(True), None, None, True, 0.3, 1e-3)
    yield Sample(draw(3, 2), *running(True), draw(2), None, True)
    yield Sample(draw(3, 2), *running(False), None, draw(2), eps=0.1)
    yield Sample(np.zeros((0, 2, 2)), *running(False), draw(2), draw(2))


def grouped(x: Any, groups: Any, weight: Any, bias: Any, eps: float, centred: bool = True) -> Any:
    """``groups`` yields index expressions of what is normalized together, and the scale and shift of its elements."""
    out = np.empty_like(x)
    for where in groups:
        values = x[where].reshape(-1).tolist()
        centre = math.fsum(values) / len(values) if centred else 0.0
        spread = math.fsum((v - centre) ** 2 for v in values) / len(values)
        out[where] = np.array([(v - centre) / math.sqrt(spread + eps) for v in values]).reshape(x[where].shape)
    return out * (1.0 if weight is None else weight) + (0.0 if bias is None else bias)


def by_row(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return grouped(x, np.ndindex(*x.shape[: x.ndim - len(shape)]), weight, bias, eps)


def by_mean_square(x: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    smallest = np.finfo(np.float64).eps if eps is None else eps
    return grouped(x, np.ndindex(*x.shape[: x.ndim - len(shape)]), weight, None, smallest, False)


def along_channels(parameter: Any, x: Any) -> Any:
    return None if parameter is None else parameter.reshape(-1, *[1] * (x.ndim - 2))


def by_group(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    width = x.shape[1] // num_groups
    groups = [(n, slice(g * width, (g + 1) * width)) for n in range(len(x)) for g in range(num_groups)]
    return grouped(x, groups, along_channels(weight, x), along_channels(bias, x), eps)


def by_instance(
    x: Any, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    if not use_input_stats:
        return by_channel(x, mean, var, weight, bias, False, momentum, eps)
    flat = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    for c in range(x.shape[1] if mean is not None else 0):
        means = [math.fsum(flat[n, c]) / flat.shape[2] for n in range(len(x))]
        spreads = [math.fsum((flat[n, c] - m) ** 2) / (flat.shape[2] - 1) for n, m in enumerate(means)]
        mean[c] = (1 - momentum) * mean[c] + momentum * math.fsum(means) / len(x)
        var[c] = (1 - momentum) * var[c] + momentum * math.fsum(spreads) / len(x)
    groups = [(n, c) for n in range(len(x)) for c in range(x.shape[1])]
    return grouped(x, groups, along_channels(weight, x), along_channels(bias, x), eps)


def response(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        nearest = range(max(0, c - size // 2), min(x.shape[1], c + (size - 1) // 2 + 1))
        out[:, c] = x[:, c] / (k + alpha * sum(x[:, j] ** 2 for j in nearest) / size) ** beta
    return out


def rows_of(with_bias: bool) -> Any:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        def draw(*size: int) -> Any:
            return rng.standard_normal(size)

        for shape, size in (((3,), (2, 3)), ((2, 2), (3, 2, 2)), ((4,), (4,)), ((2,), (2, 2, 2))):
            parameters = (draw(*shape), draw(*shape)) if with_bias else (draw(*shape),)
            yield Sample(draw(*size), shape)
            yield Sample(draw(*size), shape, *parameters)
        yield Sample(draw(2, 3), [3], draw(3), eps=0.1)
        if with_bias:
            yield Sample(draw(2, 3), (3,), None, draw(3))
        yield Sample(100 + draw(2, 3), (3,), draw(3))
        yield Sample(np.zeros((0, 3)), (3,), draw(3))

    return samples


def groups(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    for size, number in (((2, 4), 2), ((2, 4, 2), 1), ((2, 4, 1, 2), 2), ((2, 4, 3), 4)):
        yield Sample(draw(*size), number)
        yield Sample(draw(*size), number, draw(4), draw(4))
    yield Sample(Constant(draw(2, 4, 2)), 2, None, Constant(draw(4)), eps=0.1)  # nor here
    yield Sample(draw(2, 4, 2), 2, draw(4))
    yield Sample(Constant(np.zeros((0, 4, 2))), 2)  # PyTorch has no gradient of nothing here


def instances(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    def running(changes: bool) -> tuple[Constant, Constant]:
        return Constant(draw(2), changes), Constant(rng.uniform(0.5, 2.0, 2), changes)

    for size in ((2, 2, 3), (3, 2, 2, 2)):
        yield Sample(draw(*size))
        yield Sample(draw(*size), None, None, draw(2), draw(2), eps=0.1)
        yield Sample(draw(*size), *running(False), draw(2), draw(2), False)
    yield Sample(draw(3, 2, 4), *running(True), draw(2), None, True, 0.3)
    yield Sample(np.zeros((0, 2, 3)))


def neighbours(rng: np.random.Generator) -> Iterator[Sample]:
    for size in (1, 2, 3, 4, 5, 9):
        yield Sample(rng.standard_normal((2, 4, 2)), size, 0.5)
    yield Sample(rng.standard_normal((1, 3, 2, 2)), 2, alpha=2.0, beta=0.5, k=2.0)
    yield Sample(np.zeros((0, 3, 2)), 2)


X, INTEGERS = np.zeros((2, 4, 3)), np.zeros((2, 4, 3), np.int64)

ROWS = [
    Op(
        normalization.batch_norm,
        by_channel,
        batches,
        (
            Wrong(RuntimeError, r"expected an input \(N, C, ...\), got \[2\]", np.zeros(2), None, None),
            Wrong(RuntimeError, "weight should contain 2 elements not 3", np.zeros((3, 2)), None, None, np.ones(3)),
            Wrong(
                RuntimeError, "running_mean should contain 2 elements not 1", np.zeros((3, 2)), np.ones(1), np.ones(2)
            ),
            Wrong(ValueError, "Expected more than 1 value per channel", np.zeros((1, 2)), None, None, None, None, True),
            Wrong(RuntimeError, "Expected running_mean and running_var to be defined", np.zeros((3, 2)), None, None),
            Wrong(RuntimeError, "batch_norm is not defined for int64", INTEGERS, None, None, None, None, True),
        ),
        ("NativeBatchNorm", "BatchNormEval", "Alias"),
        dtypes="takes several tensors of one dtype; test_floats_stay",
        tolerance=(1e-10, 1e-4),
        torch="batch_norm",
        lacks={"0-d": "it takes batches of channels"},
    ),
    Op(
        normalization.layer_norm,
        by_row,
        rows_of(True),
        (
            Wrong(
                RuntimeError,
                r"expected input with shape \[\*, 5\], but got input of size\[2, 4, 3\]|\[\*, 5\]",
                X,
                (5,),
            ),
            Wrong(
                RuntimeError,
                r"expected weight to be of same shape .* shape \[4\] and norm.* \[4, 3\]",
                X,
                (4, 3),
                np.ones(4),
            ),
            Wrong(RuntimeError, "expected bias to be of same shape", X, (3,), None, np.ones(4)),
            Wrong(RuntimeError, "at least 1-dimensional", X, ()),
            Wrong(TypeError, "'normalized_shape' .* must be tuple of ints, not int", X, 3),
            Wrong(RuntimeError, "layer_norm is not defined for int64", INTEGERS, (3,)),
            Wrong(RuntimeError, "the weight is int64 and the input float64", X, (3,), np.ones(3, np.int64)),
        ),
        ("NativeLayerNorm",),
        dtypes="takes several tensors of one dtype; test_floats_stay",
        tolerance=(1e-10, 1e-4),
        torch="layer_norm",
        lacks={"0-d": "it takes dimensions"},
    ),
    Op(
        normalization.rms_norm,
        by_mean_square,
        rows_of(False),
        (
            Wrong(RuntimeError, r"\[\*, 5\]", X, (5,)),
            Wrong(RuntimeError, "expected weight to be of same shape", X, (4, 3), np.ones(4)),
            Wrong(RuntimeError, "rms_norm is not defined for int64", INTEGERS, (3,)),
        ),
        ("FusedRmsNorm",),
        dtypes="takes several tensors of one dtype; test_floats_stay",
        tolerance=(1e-10, 1e-4),
        torch="rms_norm",
        lacks={"0-d": "it takes dimensions"},
    ),
    Op(
        normalization.group_norm,
        by_group,
        groups,
        (
            Wrong(RuntimeError, r"divisible by num_groups, .* shape \[2, 4, 3\] and num_groups=3", X, 3),
            Wrong(RuntimeError, "num_groups=0", X, 0),
            Wrong(RuntimeError, r"Expected weight to be a vector .* shape \[3\]", X, 2, np.ones(3)),
            Wrong(RuntimeError, r"Expected bias to be a vector .* shape \[3\]", X, 2, None, np.ones(3)),
            Wrong(RuntimeError, "at least 2 dimensions for input tensor but received 1", np.zeros(4), 2),
            Wrong(ValueError, "Expected more than 1 value per channel", np.zeros((1, 4)), 4),
            Wrong(RuntimeError, "group_norm is not defined for int64", INTEGERS, 2),
        ),
        ("NativeGroupNorm",),
        dtypes="takes several tensors of one dtype; test_floats_stay",
        tolerance=(1e-10, 1e-4),
        torch="group_norm",
        lacks={"0-d": "it takes batches of channels"},
    ),
    Op(
        normalization.instance_norm,
        by_instance,
        instances,
        (
            Wrong(ValueError, "Expected more than 1 spatial element when training", np.zeros((2, 3))),
            Wrong(RuntimeError, "to be defined when use_input_stats is false", X, use_input_stats=False),
            Wrong(RuntimeError, "weight should contain 4 elements not 3", X, weight=np.ones(3)),
            Wrong(RuntimeError, r"expected an input \(N, C, ...\)", np.zeros(4)),
            Wrong(RuntimeError, "instance_norm is not defined for int64", INTEGERS),
        ),
        ("NativeGroupNorm", "BatchNormEval"),
        dtypes="takes several tensors of one dtype; test_floats_stay",
        tolerance=(1e-10, 1e-4),
        torch="instance_norm",
        lacks={"0-d": "it takes batches of channels"},
    ),
    Op(
        normalization.local_response_norm,
        response,
        neighbours,
        (
            Wrong(ValueError, "Expected 3D or higher dimensionality input .got 2 dimensions", np.zeros((2, 3)), 2),
            Wrong(RuntimeError, "size should be greater than zero, but got 0", X, 0),
        ),
        ("ChannelWindow", "Pow"),
        dtypes="floating point only; test_floats_stay",
        torch="local_response_norm",
        lacks={"0-d": "it takes batches of channels"},
    ),
]
FAMILY = normalization
EXEMPT: list[Any] = []
