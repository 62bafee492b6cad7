from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import attention

from .row import Constant, Op, Sample, Wrong

INF = math.inf


def attended(
    q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, *,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Query by query, over the keys that each may see."""
    if enable_gqa:
        k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3) for x in (k, v))
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    q, k, v = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (q, k, v))
    scale = (1 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0) if scale is None else scale
    mask = np.broadcast_to(True if attn_mask is None else attn_mask, (*lead, q.shape[-2], k.shape[-2]))
    out = np.zeros((*lead, q.shape[-2], v.shape[-1]))
    for place in np.ndindex(out.shape[:-1]):
        *batch, row = place
        scores = []
        for key in range(k.shape[-2]):
            allowed = mask[(*place, key)]
            if (allowed is np.False_) or (is_causal and key > row):
                scores.append(-INF)
            else:
                added = 0.0 if allowed is np.True_ else float(allowed)
                scores.append(scale * float(q[place] @ k[(*batch, key)]) + added)
        powers = [math.exp(s) for s in scores]
        total = math.fsum(powers)
        for key, power in enumerate(powers if total else ()):
            out[place] += power / total * v[(*batch, key)]
    return out


def queries(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*lead: int, length: int = 2, source: int = 3) -> list[Any]:
        return [rng.standard_normal((*lead, n, e)) for n, e in ((length, 2), (source, 2), (source, 1))]

    allowed = np.array([[True, False, True], [False, False, False]])
    numbers = rng.standard_normal((2, 3))
    yield Sample(*draw())
    yield Sample(*draw(2, 2, length=1))
    yield Sample(*draw(1, 2), is_causal=True)
    yield Sample(*draw(length=4), is_causal=True, scale=0.7)
    yield Sample(*draw(2, 1), attn_mask=allowed)
    yield Sample(*draw(2, 1), attn_mask=rng.uniform(0, 1, (2, 1, 2, 3)) < 0.6)
    yield Sample(*draw(2, 1), attn_mask=numbers)
    yield Sample(*draw(), numbers[:1], scale=-0.5)
    yield Sample(*draw(1), Constant(np.where(allowed, numbers, -INF)))
    q, k, v = draw(2, 2, length=1)
    yield Sample(q, k[:1], v[:1])
    yield Sample(rng.standard_normal((1, 4, 1, 2)), k[:1], v[:1, :1], enable_gqa=True)
    yield Sample(*draw(2, source=0))
    yield Sample(*draw(2, length=0))
    yield Sample(*(x[..., :0] if n < 2 else x for n, x in enumerate(draw())))


def heads(
    query: Any, key: Any, value: Any, embed_dim: int, num_heads: int, in_proj_weight: Any, in_proj_bias: Any,
    bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, out_weight: Any, out_bias: Any, *,
    training: bool = True, key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Any = None, k_proj_weight: Any = None,
    v_proj_weight: Any = None, average_attn_weights: bool = True, static_k: Any = None, static_v: Any = None,
) -> Any:  # fmt: skip
    """Sample by sample and head by head."""
    batched, head = query.ndim == 3, embed_dim // num_heads
    query, key, value = ((x if batched else x[:, None]).swapaxes(0, 1) for x in (query, key, value))
    w = [q_proj_weight, k_proj_weight, v_proj_weight] if use_separate_proj_weight else np.split(in_proj_weight, 3)
    b = [0.0] * 3 if in_proj_bias is None else np.split(in_proj_bias, 3)
    if not len(query):
        return np.zeros((query.shape[1], 0, embed_dim))
    outs, shares = [], []
    for n in range(len(query)):
        q, k, v = (x[n] @ w.T + b for x, w, b in zip((query, key, value), w, b, strict=True))
        if bias_k is not None:
            k, v = np.concatenate([k, bias_k[0]]), np.concatenate([v, bias_v[0]])
        parts, weights = [], []
        for h in range(num_heads):
            columns = slice(h * head, (h + 1) * head)
            kh = k[:, columns] if static_k is None else static_k[n * num_heads + h]
            vh = v[:, columns] if static_v is None else static_v[n * num_heads + h]
            if add_zero_attn:
                kh, vh = (np.concatenate([x, np.zeros((1, head))]) for x in (kh, vh))
            scores = q[:, columns] @ kh.T / math.sqrt(head)
            masks = [] if attn_mask is None else [attn_mask if attn_mask.ndim == 2 else attn_mask[n * num_heads + h]]
            if key_padding_mask is not None:
                masks.append(np.broadcast_to(np.atleast_2d(key_padding_mask)[n], (len(scores), len(key[n]))))
            for mask in masks:
                scores[:, : mask.shape[1]] += np.where(mask, -INF, 0.0) if mask.dtype == bool else mask
            powers = np.exp(scores - np.max(np.where(np.isinf(scores), -1e9, scores), axis=1, keepdims=True))
            weights.append(powers / np.maximum(powers.sum(1, keepdims=True), 1e-300))
            parts.append(weights[-1] @ vh)
        outs.append(np.concatenate(parts, 1) @ out_weight.T + (0.0 if out_bias is None else out_bias))
        shares.append(np.mean(weights, axis=0) if average_attn_weights else np.stack(weights))
    out, share = np.stack(outs, 1), np.stack(shares)
    if not need_weights:
        return out if batched else out[:, 0]
    return (out, share) if batched else (out[:, 0], share[0])


def with_weights(*args: Any, **kwargs: Any) -> Any:
    """The function without the None for weights that are not needed."""
    out, weights = attention.multi_head_attention_forward(*args, **kwargs)
    return out if weights is None else (out, weights)


with_weights.__wrapped__ = attention.multi_head_attention_forward  # type: ignore[attr-defined]


def torch_with_weights(torch: Any, *args: Any, **kwargs: Any) -> Any:
    out, weights = torch.nn.functional.multi_head_attention_forward(*args, **kwargs)
    return out if weights is None else (out, weights)


def several_heads(rng: np.random.Generator) -> Iterator[Sample]:
    """Two heads of one number each: the derivatives of more take long to check."""

    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    def call(
        query: Any, key: Any, value: Any, bias: bool = False, more: bool = False, out: Any = None, **options: Any
    ) -> Sample:
        separate = options.get("use_separate_proj_weight", False)
        if separate:
            options |= {f"{n}_proj_weight": draw(2, x.shape[-1]) for n, x in (("q", query), ("k", key), ("v", value))}
        weights = [None if separate else draw(6, 2), draw(6) if bias else None]
        weights += [draw(1, 1, 2), draw(1, 1, 2)] if more else [None, None]
        out = Constant(draw(2, 2)) if out is None else out
        return Sample(query, key, value, 2, 2, *weights, more, 0.0, out, draw(2) if bias else None, **options)

    x, y, z = draw(2, 2, 2), draw(3, 2, 2), draw(3, 2, 2)
    padding = np.array([[False, True, False], [False, False, True]])
    numbers, bools = draw(2, 3), np.array([[False, False, True], [True, False, False]])
    yield call(x[:1, :1], y[:2, :1], z[:2, :1], bias=True, out=draw(2, 2))
    yield call(x[:1], Constant(y), Constant(z), need_weights=False)
    yield call(Constant(x), y, Constant(z), average_attn_weights=False, attn_mask=numbers)
    yield call(Constant(x), Constant(y), z, attn_mask=bools, key_padding_mask=padding)
    added = Constant(np.where(padding, -1.5, 0.5))
    yield call(Constant(x), Constant(y), Constant(z), more=True, attn_mask=draw(4, 2, 3), key_padding_mask=added)
    yield call(x[:1, :1], draw(2, 1, 1), draw(2, 1, 2), use_separate_proj_weight=True, need_weights=False)
    yield call(x[:, 0], Constant(y[:, 0]), Constant(z[:, 0]), key_padding_mask=padding[0])
    yield call(x[:1], Constant(y), Constant(z), static_k=draw(4, 3, 1), static_v=draw(4, 3, 1))
    yield call(draw(2, 0, 2), draw(3, 0, 2), draw(3, 0, 2), need_weights=False)


Q, K, V = np.zeros((2, 2, 3, 4)), np.zeros((2, 2, 5, 4)), np.zeros((2, 2, 5, 6))
X, W = np.zeros((2, 3, 4)), np.zeros((12, 4))
MHA = (4, 2, W, None, None, None, False, 0.0, np.zeros((4, 4)), None)
ERROR = RuntimeError

ROWS = [
    Op(
        attention.scaled_dot_product_attention,
        attended,
        queries,
        (
            Wrong(
                ERROR, "Explicit attn_mask should not be set when is_causal=True", Q, K, V, np.zeros((3, 5)), 0.0, True
            ),
            Wrong(ERROR, "query.dtype: float64 key.dtype: int64 and value", Q, K.astype(int), V),
            Wrong(ERROR, "is not defined for int64", Q.astype(int), K.astype(int), V.astype(int)),
            Wrong(ERROR, "attn_mask.dtype: int64 and query.dtype: float64", Q, K, V, np.zeros((3, 5), int)),
            Wrong(ERROR, r"attn_mask of shape \[2, 1, 3, 5, 5\]|size of tensor a", Q, K, V, np.zeros((4, 5))),
            Wrong(ERROR, r"does not broadcast to the scores' \[2, 2, 3, 5\]", Q, K, V, np.zeros((7, 1, 1, 3, 5))),
            Wrong(ERROR, "at least 2 dimensional, but got query.dim: 1", Q[0, 0, 0], K, V),
            Wrong(ERROR, r"the key of shape \[2, 2, 5, 6\] does not fit", Q, V, V),
            Wrong(ERROR, r"the value of shape \[2, 2, 4, 6\] does not fit", Q, K, V[:, :, :4]),
            Wrong(ERROR, "size of tensor a", Q, np.zeros((3, 2, 5, 4)), V),
            Wrong(ERROR, "dropout probability has to be between 0 and 1, but got 1.5", Q, K, V, None, 1.5),
            Wrong(ERROR, "3 do not divide 2", Q, np.zeros((2, 3, 5, 4)), V, enable_gqa=True),
            Wrong(IndexError, "enable_gqa needs a dimension of heads", Q[0, 0], K[0, 0], V[0, 0], enable_gqa=True),
        ),
        ("AttentionWeights", "Matmul"),
        dtypes="takes several tensors of one dtype; test_floats_stay",
        torch="scaled_dot_product_attention",
        tolerance=(1e-11, 1e-4),
        lacks={"0-d": "it takes rows of vectors"},
    ),
    Op(
        with_weights,
        heads,
        several_heads,
        (
            Wrong(ERROR, "query should be unbatched 2D or batched 3D tensor but received 4-D", Q, Q, Q, *MHA),
            Wrong(ERROR, r"For batched \(3-D\) `query`, expected `key` and `value` to be 3-D", X, X[0], X[0], *MHA),
            Wrong(ERROR, "was expecting embedding dimension of 4, but got 3", X[..., :3], X, X, *MHA),
            Wrong(ERROR, "embed_dim 4 not divisible by num_heads 3", X, X, X, 4, 3, *MHA[2:]),
            Wrong(ERROR, "key shape .* does not match value shape", X, X, X[:1], *MHA),
            Wrong(ERROR, "the query has 3 samples and the key 2", X, X[:, :2], X[:, :2], *MHA),
            Wrong(ERROR, r"The shape of the 2D attn_mask is .* but should be \(2, 2\)", X, X, X, *MHA, attn_mask=X[0]),
            Wrong(ERROR, r"The shape of the 3D attn_mask is .* but should be \(6, 2, 2\)", X, X, X, *MHA, attn_mask=X),
            Wrong(ERROR, "to be `None`, 2-D or 3-D but found 1-D", X, X, X, *MHA, attn_mask=np.zeros(2)),
            Wrong(ERROR, "`None` or 2-D but found 1-D", X, X, X, *MHA, key_padding_mask=np.zeros(2)),
            Wrong(ERROR, r"key_padding_mask of shape \(3, 2\), but got \(3, 4\)", X, X, X, *MHA, key_padding_mask=X[0]),
            Wrong(ERROR, "types of key_padding_mask are supp", X, X, X, *MHA, key_padding_mask=np.zeros((3, 2), int)),
            Wrong(ERROR, "Need attn_mask if specifying the is_causal hint", X, X, X, *MHA, is_causal=True),
            Wrong(ValueError, "but q_proj_weight is None", X, X, X, *MHA, use_separate_proj_weight=True),
            Wrong(
                ERROR,
                "bias cannot be added to static key or value",
                X,
                X,
                X,
                4,
                2,
                W,
                None,
                X[:1, :1],
                X[:1, :1],
                False,
                0.0,
                np.zeros((4, 4)),
                None,
                static_k=np.zeros((6, 2, 2)),
            ),
            Wrong(
                ERROR,
                r"k_proj_weight of shape \[4, 3\] does not take inputs of length 4",
                X,
                X,
                X,
                *MHA,
                use_separate_proj_weight=True,
                q_proj_weight=W[:4],
                k_proj_weight=W[:4, :3],
                v_proj_weight=W[:4],
            ),
        ),
        ("AttentionWeights", "Matmul"),
        name="multi_head_attention_forward",
        dtypes="takes several tensors of one dtype; test_floats_stay",
        torch=torch_with_weights,
        tolerance=(1e-11, 1e-4),
        lacks={"0-d": "it takes rows of vectors"},
    ),
]
FAMILY = attention
EXEMPT: list[Any] = []
