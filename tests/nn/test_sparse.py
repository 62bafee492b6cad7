from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.nn import functional as F

INDICES = np.array([[1, 3, 1], [0, 1, 4]])


def both(name: str, options: dict[str, Any], torch: Any) -> tuple[Any, Any]:
    """The same layer here and in PyTorch, with the same values."""
    ours, theirs = getattr(nn, name)(5, 3, **options).double(), getattr(torch.nn, name)(5, 3, **options).double()
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    if options.get("padding_idx") is not None:
        assert ours.weight[options["padding_idx"]].tolist() == [0.0] * 3
    values = 2 * np.random.default_rng(0).standard_normal((5, 3))
    ours.load_state_dict({"weight": values})
    theirs.load_state_dict({"weight": torch.tensor(values)})
    return ours, theirs


def compare(ours: Any, theirs: Any, torch: Any, *args: Any) -> None:
    mine = [distgrad.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
    out, expected = ours(*mine), theirs(*(torch.tensor(a) if isinstance(a, np.ndarray) else a for a in args))
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    g = np.random.default_rng(1).standard_normal(tuple(out.shape))
    out.backward(distgrad.tensor(g))
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.weight.detach().numpy(), theirs.weight.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding_idx": 1},
        {"padding_idx": -1, "scale_grad_by_freq": True},
        {"scale_grad_by_freq": True},
        {"max_norm": 1.0, "norm_type": 1.0},
    ],
)
@pytest.mark.parametrize("indices", [INDICES, INDICES[0].astype(np.int32), np.array(2), np.zeros((0, 2), int)])
def test_embedding_parity(options: dict[str, Any], indices: Any) -> None:
    torch = pytest.importorskip("torch")
    compare(*both("Embedding", options, torch), torch, indices)


@pytest.mark.parity
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "sum", "padding_idx": 1},
        {"mode": "max"},
        {"mode": "max", "padding_idx": -1},
        {"max_norm": 1.0},
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_embedding_bag_parity(options: dict[str, Any], flat: bool) -> None:
    torch = pytest.importorskip("torch")
    args = (INDICES.reshape(-1), np.array([0, 2, 2, 5])) if flat else (INDICES,)
    compare(*both("EmbeddingBag", options, torch), torch, *args)


@pytest.mark.parity
def test_embedding_bag_with_weights_and_a_last_offset() -> None:
    torch = pytest.importorskip("torch")
    factors = np.random.default_rng(2).standard_normal(6)
    compare(*both("EmbeddingBag", {"mode": "sum"}, torch), torch, INDICES, None, factors.reshape(2, 3))
    options = {"mode": "sum", "include_last_offset": True}
    compare(*both("EmbeddingBag", options, torch), torch, INDICES.reshape(-1), np.array([0, 2, 6]), factors)


def test_embedding_bag_scales_by_frequency() -> None:
    """Not compared with PyTorch, which divides the gradients of some rows by the counts of others."""
    gradients = []
    for scaled in (False, True):
        weight = distgrad.zeros(5, 2, requires_grad=True)
        out = F.embedding_bag(distgrad.tensor(INDICES), weight, mode="sum", scale_grad_by_freq=scaled)
        out.backward(distgrad.tensor([[1.0, 2.0], [3.0, 5.0]]))
        gradients.append(weight.grad.numpy())
    counts = np.array([1, 3, 1, 1, 1])  # 2 does not occur, and 1 may stand for that
    np.testing.assert_allclose(gradients[1], gradients[0] / counts[:, None], rtol=1e-6)


def test_many_repetitions_are_added_exactly() -> None:
    rng = np.random.default_rng(0)
    indices, gradients = rng.integers(0, 7, (40, 50)), rng.integers(-8, 9, (40, 50, 300)).astype(np.float32)
    weight = distgrad.zeros(9, 300, requires_grad=True)
    F.embedding(distgrad.tensor(indices), weight, padding_idx=6).backward(distgrad.tensor(gradients))
    expected = np.zeros((9, 300))
    for row in range(6):
        expected[row] = gradients[indices == row].astype(np.float64).sum(0)
    assert np.array_equal(weight.grad.numpy(), expected) and weight.grad.dtype == np.float32


def test_padding_stays_out_of_the_gradient_whatever_comes() -> None:
    weight = distgrad.zeros(3, 2, requires_grad=True)
    gradient = distgrad.tensor([[1.0, 2.0], [float("nan"), float("inf")]])
    F.embedding(distgrad.tensor([0, 2]), weight, padding_idx=2).backward(gradient)
    assert weight.grad is not None and weight.grad.tolist() == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]


def test_initial_values() -> None:
    distgrad.manual_seed(0)
    values = nn.Embedding(300, 40).weight.detach().numpy()
    assert abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.03
    assert not nn.Embedding(2, 3, _freeze=True).weight.requires_grad


def test_from_pretrained() -> None:
    table = distgrad.randn(4, 3)
    layer = nn.Embedding.from_pretrained(table, padding_idx=1)
    assert layer.weight.tolist() == table.tolist() and not layer.weight.requires_grad
    assert np.shares_memory(layer.weight.numpy(), table.numpy()) and repr(layer) == "Embedding(4, 3, padding_idx=1)"
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad
    bag = nn.EmbeddingBag.from_pretrained(table, mode="sum")
    assert not bag.weight.requires_grad and repr(bag) == "EmbeddingBag(4, 3, mode='sum')"
    for kind in (nn.Embedding, nn.EmbeddingBag):
        with pytest.raises(ValueError, match="expected to be 2-dimensional, but its shape is"):
            kind.from_pretrained(table[0])
        with pytest.raises(ValueError, match="Shape of weight does not match num_embeddings and embedding_dim"):
            kind(2, 3, _weight=table)
        with pytest.raises(ValueError, match="Padding_idx must be within num_embeddings: 9 is not"):
            kind(2, 3, padding_idx=9)
        with pytest.raises(NotImplementedError, match="sparse gradients are not supported"):
            kind(2, 3, sparse=True)
