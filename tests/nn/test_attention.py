from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.nn import functional as F


def filled(ours: Any, theirs: Any, torch: Any) -> None:
    """Gives both modules the same values and compares what they are and have."""
    ours.double()
    theirs.double()
    assert repr(ours) == repr(theirs)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for value in state.values():
            value.copy_(torch.from_numpy(np.asarray(rng.standard_normal(tuple(value.shape)))))
    ours.load_state_dict({name: value.numpy() for name, value in state.items()})


def compare(ours: Any, theirs: Any, torch: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Outputs and all gradients."""

    def made(value: Any, module: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        tensor = module.tensor(value)
        return tensor.requires_grad_() if value.dtype == np.float64 else tensor

    shared = {id(a): [made(a, m) for m in (distgrad, torch)] for a in args}
    first, second = ([shared[id(a)][side] for a in args] for side in (0, 1))
    options = {key: [made(v, m) for m in (distgrad, torch)] for key, v in kwargs.items()}
    results = [
        module(*values, **{key: pair[side] for key, pair in options.items()})
        for side, (module, values) in enumerate(((ours, first), (theirs, second)))
    ]
    outs, expected = ([r for r in (x if isinstance(x, tuple) else (x,)) if r is not None] for x in results)
    for out, value in zip(outs, expected, strict=True):
        np.testing.assert_allclose(out.detach().numpy(), value.detach().numpy(), rtol=1e-10, atol=1e-11)
    sum(((out * out).sum() for out in outs), start=0.0).backward()
    sum(((out * out).sum() for out in expected), start=0.0).backward()
    for pair in (*shared.values(), *options.values()):
        if isinstance(pair[0], distgrad.Tensor) and pair[1].grad is not None:
            np.testing.assert_allclose(pair[0].grad.numpy(), pair[1].grad.numpy(), rtol=1e-9, atol=1e-10)
    for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None), name
        if other.grad is not None:
            np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-9, atol=1e-10, err_msg=name)


def draw(*size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(size)


X, Y, Z = draw(5, 3, 8), draw(4, 3, 8, seed=1), draw(4, 3, 8, seed=2)
PADDING = np.zeros((3, 4), bool)
PADDING[0, 2:] = PADDING[2, 1] = True
CAUSAL = np.triu(np.ones((5, 4), bool), 1)
CASES: list[tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]]] = [
    ({}, (X, X, X), {}),
    ({}, (X, Y, Y), {"need_weights": False}),
    ({}, (X, Y, Z), {"average_attn_weights": False}),
    ({"bias": False}, (X, Y, Z), {"key_padding_mask": PADDING}),
    ({}, (X, Y, Y), {"attn_mask": CAUSAL, "key_padding_mask": PADDING}),
    ({}, (X, Y, Z), {"attn_mask": draw(5, 4), "need_weights": False}),
    ({}, (X, Y, Z), {"attn_mask": draw(6, 5, 4)}),
    ({}, (X, Y, Z), {"attn_mask": np.stack([CAUSAL] * 6), "need_weights": False}),
    ({}, (X[:4], Y, Y), {"attn_mask": np.triu(np.full((4, 4), -np.inf), 1), "is_causal": True}),
    ({"kdim": 6, "vdim": 7}, (X, draw(4, 3, 6), draw(4, 3, 7)), {}),
    ({"kdim": 6, "bias": False}, (X, draw(4, 3, 6), Z), {"need_weights": False}),
    ({"add_bias_kv": True}, (X, Y, Z), {"key_padding_mask": PADDING, "attn_mask": CAUSAL}),
    ({"add_zero_attn": True}, (X, Y, Z), {"attn_mask": CAUSAL}),
    ({"add_bias_kv": True, "add_zero_attn": True, "kdim": 8}, (X, Y, Z), {}),
    ({"batch_first": True}, (X, X, X), {"need_weights": False}),
    ({"batch_first": True}, (draw(3, 5, 8), draw(3, 4, 8), draw(3, 4, 8)), {"key_padding_mask": PADDING}),
    ({}, (X[:, 0], Y[:, 0], Y[:, 0]), {"key_padding_mask": PADDING[0]}),
    ({"batch_first": True}, (X[:, 0], X[:, 0], X[:, 0]), {"average_attn_weights": False}),
]


@pytest.mark.parity
@pytest.mark.parametrize(("options", "args", "kwargs"), CASES, ids=[str(n) for n in range(len(CASES))])
def test_parity(options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = nn.MultiheadAttention(8, 2, **options), torch.nn.MultiheadAttention(8, 2, **options)
    filled(ours, theirs, torch)
    compare(ours, theirs, torch, args, kwargs)


def test_initial_values() -> None:
    distgrad.manual_seed(0)
    layer = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    weight = layer.in_proj_weight.detach().numpy()
    bound = np.sqrt(6 / (64 + 3 * 64))
    assert 0.98 * bound < np.abs(weight).max() <= bound * (1 + 1e-6)
    assert not layer.in_proj_bias.detach().numpy().any() and not layer.out_proj.bias.detach().numpy().any()
    assert layer.bias_k.detach().numpy().std() > 0
    assert nn.MultiheadAttention(4, 2, dtype=distgrad.float64).out_proj.weight.dtype == np.float64


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="embed_dim must be divisible by num_heads, got 8 and 3"):
        nn.MultiheadAttention(8, 3)
    with pytest.raises(ValueError, match="must be greater than 0, got embed_dim=0 and num_heads=1"):
        nn.MultiheadAttention(0, 1)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_query_that_may_look_nowhere_gets_zeros(need_weights: bool) -> None:
    distgrad.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, bias=False)
    x = distgrad.randn(3, 2, 4, requires_grad=True)
    padding = distgrad.tensor([[True, True, True], [False, False, True]])
    out, weights = layer(x, x, x, key_padding_mask=padding, need_weights=need_weights)
    assert not out[:, 0].detach().numpy().any() and out[:, 1].detach().numpy().all()
    assert weights is None or not weights[0].detach().numpy().any()
    out.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_dropout_of_weights_in_training_only() -> None:
    distgrad.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, dropout=0.5)
    x = distgrad.randn(6, 2, 8)
    _, weights = layer(x, x, x, average_attn_weights=False)
    assert (weights.detach().numpy() == 0).any()
    layer.eval()
    out, weights = layer(x, x, x)
    assert (weights.detach().numpy() > 0).all() and distgrad.equal(out, layer(x, x, x)[0])
    q = distgrad.randn(2, 4, 3)
    assert (F.scaled_dot_product_attention(q, q, q, dropout_p=1.0) == 0).all()


def test_one_projection_serves_all_three() -> None:
    """Queries, keys and values that are one tensor take one product, also with the batch in front."""
    for batch_first in (False, True):
        layer = nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=False)
        x = distgrad.randn(3, 2, 8)
        joint, _ = layer(x, x, x)
        apart, _ = layer(x, x.clone(), x.clone())
        np.testing.assert_allclose(joint.detach().numpy(), apart.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_half_precision() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (distgrad.tensor(rng.standard_normal((2, 5, 8)).astype(np.float16)) for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.numpy(), exact.numpy(), rtol=2e-2, atol=2e-3)
