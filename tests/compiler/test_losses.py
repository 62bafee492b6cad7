"""A model and its loss as one compiled function: the targets differ from call to call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import compiler, optim
from distgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from compiled_networks import NETWORKS

N, C = 6, 5
Generator = np.random.Generator


def _normal(generator: Generator, *shape: int) -> Any:
    return generator.standard_normal(shape or (N, C))


def _share(generator: Generator) -> Any:
    return generator.uniform(0.05, 0.95, (N, C))


def _signs(generator: Generator) -> Any:
    return generator.choice([-1.0, 1.0], (N, C))


def _classes(generator: Generator, *shape: int) -> Any:
    return generator.integers(0, C, shape or (N,))


def _soft(generator: Generator) -> Any:
    shares = generator.uniform(0.1, 1, (N, C))
    return shares / shares.sum(1, keepdims=True)


def _sets(generator: Generator) -> Any:
    """Right classes up to the first -1, and numbers behind it that count for nothing."""
    labels = np.stack([generator.permutation(C) for _ in range(N)])
    labels[np.arange(N), generator.integers(0, C, N)] = -1
    return labels


WEIGHT = distgrad.tensor([0.5, 1.0, 2.0, 0.25, 1.5], dtype=distgrad.float64)
# By name: the loss, its input and its target.
LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "cross_entropy": (F.cross_entropy, _normal, _classes),
    "cross_entropy, all it takes": (
        lambda x, y: F.cross_entropy(x, y, WEIGHT, ignore_index=2, label_smoothing=0.1), _normal, _classes,
    ),
    "cross_entropy, none": (lambda x, y: F.cross_entropy(x, y, reduction="none"), _normal, _classes),
    "cross_entropy of images": (
        F.cross_entropy, lambda g: _normal(g, 2, C, 3, 4), lambda g: _classes(g, 2, 3, 4),
    ),
    "cross_entropy of one": (F.cross_entropy, lambda g: _normal(g, C), lambda g: np.array(g.integers(0, C))),
    "cross_entropy of probabilities": (lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1), _normal, _soft),
    "nll_loss": (lambda x, y: F.nll_loss(F.log_softmax(x, 1), y, reduction="sum"), _normal, _classes),
    "multi_margin_loss": (lambda x, y: F.multi_margin_loss(x, y, p=2, weight=WEIGHT), _normal, _classes),
    "multilabel_margin_loss": (F.multilabel_margin_loss, _normal, _sets),
    "multilabel_soft_margin_loss": (F.multilabel_soft_margin_loss, _normal, _share),
    "binary_cross_entropy": (F.binary_cross_entropy, _share, _share),
    "binary_cross_entropy_with_logits": (F.binary_cross_entropy_with_logits, _normal, _share),
    "kl_div": (lambda x, y: F.kl_div(x, y, reduction="batchmean"), _normal, _soft),
    "mse_loss": (F.mse_loss, _normal, _normal),
    "smooth_l1_loss": (F.smooth_l1_loss, _normal, _normal),
    "poisson_nll_loss": (lambda x, y: F.poisson_nll_loss(x, y, full=True), _normal, lambda g: 4 * _share(g)),
    "hinge_embedding_loss": (F.hinge_embedding_loss, _normal, _signs),
    "soft_margin_loss": (F.soft_margin_loss, _normal, _signs),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_equals_eager(name: str) -> None:
    loss, make_input, make_target = LOSSES[name]
    fast = distgrad.compile(loss, fullgraph=True)
    generator = np.random.default_rng(4)
    values = set()
    for _ in range(3):  # by one plan, for targets that differ
        x, y = make_input(generator), distgrad.tensor(make_target(generator))
        ours, theirs = (distgrad.tensor(x, requires_grad=True) for _ in range(2))
        found, expected = fast(ours, y), loss(theirs, y)
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-13, atol=1e-15)
        found.sum().backward()
        expected.sum().backward()
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-12, atol=1e-14)
        values.add(float(found.detach().sum()))
    assert len(values) == 3


@pytest.mark.parametrize(
    ("name", "wrong", "error", "message"),
    [
        ("cross_entropy", np.array([0, 1, 2, 5, 0, 1]), IndexError, "Target 5 is out of bounds: there are 5 classes"),
        ("multi_margin_loss", np.array([0, 1, -1, 2, 0, 1]), RuntimeError, "target out of range: -1 with 5 classes"),
        (
            "binary_cross_entropy",
            np.full((N, C), 1.5),
            RuntimeError,
            "all elements of target should be between 0 and 1",
        ),
    ],
)
def test_every_run_checks_its_targets(name: str, wrong: Any, error: type[Exception], message: str) -> None:
    loss, make_input, make_target = LOSSES[name]
    fast = distgrad.compile(loss, fullgraph=True)
    generator = np.random.default_rng(4)
    fast(distgrad.tensor(make_input(generator)), distgrad.tensor(make_target(generator)))
    with pytest.raises(error, match=message):
        fast(distgrad.tensor(make_input(generator)), distgrad.tensor(wrong))


def test_a_model_with_its_loss_trains_as_eager_does() -> None:
    make, inputs = NETWORKS["vgg"]
    histories = []
    for compiled in (False, True):
        distgrad.manual_seed(0)
        network = make().to(distgrad.float64)

        def loss_of(x: Any, y: Any, network: Any = network) -> Any:
            return F.cross_entropy(network(x), y, label_smoothing=0.1)

        criterion = distgrad.compile(loss_of, fullgraph=True) if compiled else loss_of
        sgd = optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        histories.append([])
        for step in range(5):
            loss = criterion(inputs("float64", step), distgrad.tensor((np.arange(5) + step) % 5))
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            histories[-1].append(loss.item())
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-9)
    assert "NllLoss" not in criterion.plans() and "batch norm" in criterion.plans()


def test_positions_may_be_computed() -> None:
    def chosen(x: Any, index: Any) -> Any:
        return x.gather(1, index).sum(1) * x.index_select(1, index[:, 0]).sum(1) + x.take(index[:, 0] - 2)

    fast = distgrad.compile(chosen, fullgraph=True)
    generator = np.random.default_rng(1)
    for _ in range(3):
        x = distgrad.tensor(_normal(generator))
        index = distgrad.tensor(generator.integers(0, C, (N, 2)))
        np.testing.assert_array_equal(fast(x, index).numpy(), chosen(x, index).numpy())
    with pytest.raises(RuntimeError, match="index 5 is out of bounds for dimension 1 with size 5"):
        fast(x, index * 0 + 5)


def test_history_is_not_lost_by_a_change_without_recording() -> None:
    """``gaussian_nll_loss`` bounds the variance below, and lets the gradient of the bounded one pass."""
    x = distgrad.tensor([[1.0, 2.0]], requires_grad=True)

    def loss(x: Any, y: Any) -> Any:
        return F.gaussian_nll_loss(x, y, x * x)

    with pytest.raises(compiler.CaptureError, match=r"under no_grad\(\)"):
        distgrad.compile(loss, fullgraph=True)(x, x.detach() + 1)
