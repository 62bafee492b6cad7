from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.nn import init


@pytest.mark.parametrize(
    ("fill", "mean", "std", "bound"),
    [
        (lambda w, g: init.uniform_(w, -1, 3, generator=g), 1, 4 / math.sqrt(12), None),
        (lambda w, g: init.normal_(w, 2, 0.5, generator=g), 2, 0.5, None),
        (lambda w, g: init.xavier_uniform_(w, 2.0, generator=g), 0, 2 * math.sqrt(2 / 500), 2 * math.sqrt(6 / 500)),
        (lambda w, g: init.xavier_normal_(w, generator=g), 0, math.sqrt(2 / 500), None),
        (lambda w, g: init.kaiming_uniform_(w, math.sqrt(5), generator=g), 0, 0.1 / math.sqrt(3), 0.1),
        (lambda w, g: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=g), 0, 0.0707107, None),
        (lambda w, g: init.trunc_normal_(w, 0, 1, -2, 2, generator=g), 0, 0.8796, 2),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_and_bounds(
    fill: Callable[..., Any], mean: float, std: float, bound: float | None, dtype: type[np.generic]
) -> None:
    weight = nn.Parameter(distgrad.empty(400, 100, dtype=dtype))
    assert fill(weight, distgrad.Generator(5)) is weight
    values = weight.detach().numpy()
    assert values.dtype == dtype and weight.requires_grad and weight.is_leaf
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(values.size)
    assert abs(values.std() / std - 1) < 0.02
    if bound is not None:
        assert 0.99 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    again = distgrad.empty(400, 100, dtype=dtype)
    fill(again, distgrad.Generator(5))
    assert distgrad.equal(again, weight)


def test_the_default_generator_decides() -> None:
    distgrad.manual_seed(3)
    first = init.normal_(distgrad.empty(5)).tolist()
    second = init.normal_(distgrad.empty(5)).tolist()
    distgrad.manual_seed(3)
    assert init.normal_(distgrad.empty(5)).tolist() == first != second


@pytest.mark.parametrize(
    ("low", "high"), [(-0.1, 0.2), (0.5, math.inf), (-math.inf, -0.5), (4, 5), (-6, -5), (3, math.inf), (7, 1e9)]
)
def test_truncated_normal_in_the_tails(low: float, high: float) -> None:
    values = init.trunc_normal_(distgrad.empty(4000, dtype=np.float64), 1.0, 2.0, 1 + 2 * low, 1 + 2 * high).numpy()
    z = (values - 1) / 2
    assert z.min() >= low - 1e-12 and z.max() <= high + 1e-12
    grid = np.linspace(max(low, -12.0), min(high, max(low, 0) + 12.0), 200_001)
    density = np.exp(-0.5 * (grid**2 - np.min(grid**2)))
    expected = (grid * density).sum() / density.sum()
    spread = math.sqrt(((grid - expected) ** 2 * density).sum() / density.sum())
    assert abs(z.mean() - expected) < 5 * spread / math.sqrt(z.size)
    assert abs(z.std() / spread - 1) < 0.15


def test_constants() -> None:
    assert init.constant_(distgrad.empty(2), 3).tolist() == [3.0, 3.0]
    assert init.ones_(distgrad.empty(2)).tolist() == [1.0, 1.0]
    assert init.zeros_(nn.Parameter(distgrad.ones(2))).tolist() == [0.0, 0.0]
    assert init.uniform_(distgrad.empty((), dtype=np.float64), 2, 2).item() == 2
    assert init.normal_(distgrad.empty((), dtype=np.float64), 2, 0).item() == 2


def test_errors() -> None:
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        init.xavier_uniform_(distgrad.empty(3))
    with pytest.raises(ValueError, match="Mode both not supported, please use one of"):
        init.kaiming_normal_(distgrad.empty(3, 3), mode="both")
    with pytest.raises(ValueError, match="Unsupported nonlinearity mish"):
        init.calculate_gain("mish")
    with pytest.raises(ValueError, match="negative_slope x not a valid number"):
        init.calculate_gain("leaky_relu", "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a must be below b"):
        init.trunc_normal_(distgrad.empty(3), a=2, b=1)
    for fill in (init.kaiming_uniform_, init.kaiming_normal_):
        with pytest.warns(UserWarning, match="zero-element tensors is a no-op"):
            fill(distgrad.empty(0, 3))


@pytest.mark.parity
def test_gains_and_fans_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    for name in ("linear", "conv1d", "conv2d", "conv3d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)
    assert init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)
    for shape in ((3, 4), (5, 2, 3, 3)):
        fans = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
        assert init._calculate_fan_in_and_fan_out(distgrad.empty(*shape)) == fans


def test_identity_matrices_and_kernels() -> None:
    assert init.eye_(nn.Parameter(distgrad.ones(2, 3))).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    layer = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
    init.dirac_(layer.weight, groups=2)
    x = distgrad.randn(1, 4, 3, 3)
    assert layer(x).tolist() == x.tolist()
    assert init.dirac_(distgrad.empty(3, 2, 2)).tolist() == [[[0, 1], [0, 0]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (1, 6), (3, 3)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    values = init.orthogonal_(distgrad.empty(*shape, dtype=np.float64), gain=2.0).numpy().reshape(shape[0], -1)
    short = values if values.shape[0] <= values.shape[1] else values.T
    np.testing.assert_allclose(short @ short.T, 4.0 * np.eye(len(short)), atol=1e-12)
    assert init.orthogonal_(distgrad.empty(0, 3)).shape == (0, 3)


def test_orthogonal_matrices_are_drawn_uniformly() -> None:
    """The first element of a random direction in the plane has mean 0 and variance 1/2."""
    generator = distgrad.Generator(0)
    first = [init.orthogonal_(distgrad.empty(2, 2), generator=generator)[0, 0].item() for _ in range(2000)]
    assert abs(np.mean(first)) < 0.06 and abs(np.var(first) - 0.5) < 0.03


def test_sparse_columns() -> None:
    values = init.sparse_(distgrad.empty(10, 300, dtype=np.float64), 0.25, std=0.5).numpy()
    assert ((values == 0).sum(0) == 3).all()
    assert abs(values[values != 0].std() - 0.5) < 0.03 and len({tuple(c) for c in (values == 0).T}) > 20
    assert not init.sparse_(distgrad.empty(3, 2), 2.0).numpy().any()


@pytest.mark.parametrize(
    ("fill", "error", "message"),
    [
        (lambda: init.eye_(distgrad.empty(3)), ValueError, "Only tensors with 2 dimensions are supported"),
        (lambda: init.sparse_(distgrad.empty(3), 0.1), ValueError, "Only tensors with 2 dimensions are supported"),
        (lambda: init.dirac_(distgrad.empty(3, 2)), ValueError, "Only tensors with 3, 4, or 5 dimensions"),
        (lambda: init.dirac_(distgrad.empty(3, 2, 1), 2), ValueError, "dim 0 must be divisible by groups, .* 3 and 2"),
        (lambda: init.orthogonal_(distgrad.empty(3)), ValueError, "Only tensors with 2 or more dimensions"),
        (lambda: init.uniform_(distgrad.empty(3), 2, 1), RuntimeError, "found from=2 > to=1"),
        (lambda: init.normal_(distgrad.empty(3), 0, -1), RuntimeError, "normal expects std >= 0.0, but found std -1"),
    ],
)
def test_what_is_refused(fill: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fill()


@pytest.mark.parity
def test_identities_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    for shape in ((2, 3), (4, 2)):
        assert init.eye_(distgrad.empty(*shape)).tolist() == torch.nn.init.eye_(torch.empty(shape)).tolist()
    for shape, groups in (((4, 2, 3), 2), ((3, 5, 2, 4), 1), ((6, 2, 3, 3, 2), 3)):
        expected = torch.nn.init.dirac_(torch.empty(shape), groups)
        assert init.dirac_(distgrad.empty(*shape), groups).tolist() == expected.tolist()
    for name in ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"):
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
