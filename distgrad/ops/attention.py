"""Attention (Vaswani et al., 2017): weighted means of values, the weights from products of queries and keys."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels import attention as kernels
from .dropout import dropout
from .elementwise import sum_to, where
from .exponentials import _softmax_backward
from .join import cat
from .linalg import linear, matmul
from .promotion import cast
from .samples import is_batched
from .shape import _common_shape

_weights: Primitive = define(
    "AttentionWeights",
    lambda input, bias, hidden: kernels.attention_weights(input, bias, hidden),
    ("input", "bias"),
    # That of a softmax, whatever was hidden from it: where the weight is 0 the gradient is 0.
    input=lambda g, output: _softmax_backward(g, output, dim=output.ndim - 1),
    bias=lambda g, output, bias_shape, bias_dtype: cast(
        sum_to(_softmax_backward(g, output, dim=output.ndim - 1), bias_shape), bias_dtype
    ),
)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, hidden: Array | None, scale: float, dropout_p: float
) -> tuple[Tensor, Tensor]:
    """Attention of queries (..., L, E) to keys (..., S, E) with values (..., S, V): (..., L, V), and the weights."""
    scores = matmul(query * scale, key.transpose(-2, -1))
    weights: Tensor = _weights(scores, bias, hidden=hidden)
    if dropout_p > 0.0:
        weights = dropout(weights, dropout_p)
    return matmul(weights, value), weights


def _as_bias_or_hidden(mask: Tensor | None, true_hides: bool) -> tuple[Tensor | None, Array | None]:
    """A mask as what is added to the scores, or as what is hidden."""
    if mask is None:
        return None, None
    if mask.dtype == np.bool_:
        if is_batched(mask):
            return _as_bias(mask if true_hides else ~mask), None
        return None, mask._data if true_hides else ~mask._data
    return mask, None


def _as_bias(hidden: Tensor) -> Tensor:
    """What hides the same when it is added to the scores: for masks that differ from sample to sample of a vmap."""
    out: Tensor = where(hidden, Tensor(np.asarray(-np.inf, np.float32)), Tensor(np.zeros((), np.float32)))
    return out


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value``, as ``torch.nn.functional.scaled_dot_product_attention``.

    Args:
        query: (N, ..., H, L, E).
        key: (N, ..., H, S, E).
        value: (N, ..., H, S, V).
        attn_mask: what broadcasts to (N, ..., L, S): bools that are True where a query may look, or numbers that are
            added to the scores. A query that may look nowhere gets zeros.
        dropout_p: the probability with which a weight is dropped, also outside training.
        is_causal: a query may look at no key that has a larger index than it.
        scale: of the products, 1/sqrt(E) without it.
        enable_gqa: keys and values have fewer heads, each of which serves as many neighbouring heads of the queries.

    Returns:
        (N, ..., H, L, V).

    Raises:
        RuntimeError: dtypes or shapes that do not fit, ``attn_mask`` together with ``is_causal``, or a probability
            outside [0, 1].
    """
    _check_attention(query, key, value, attn_mask, dropout_p, is_causal)
    if enable_gqa:
        key, value = (_for_all_heads(x, query) for x in (key, value))
    for name, other in (("key", key), ("value", value)):
        _common_shape(tuple(query.shape[:-2]), tuple(other.shape[:-2]))
        if other.shape[-2] != key.shape[-2] or (name == "key" and other.shape[-1] != query.shape[-1]):
            raise RuntimeError(
                f"scaled_dot_product_attention: the {name} of shape {list(other.shape)} does not fit the query "
                f"{list(query.shape)} and the key {list(key.shape)}: (..., L, E), (..., S, E) and (..., S, V)"
            )
    scores = (*_common_shape(tuple(query.shape[:-2]), tuple(key.shape[:-2])), query.shape[-2], key.shape[-2])
    bias, hidden = _as_bias_or_hidden(attn_mask, true_hides=False)
    if is_causal:
        hidden = ~np.tri(*scores[-2:], dtype=np.bool_)
    if attn_mask is not None and _common_shape(scores, tuple(attn_mask.shape)) != scores:
        raise RuntimeError(
            f"scaled_dot_product_attention: attn_mask of shape {list(attn_mask.shape)} does not broadcast to the "
            f"scores' {list(scores)}"
        )
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    return _attend(query, key, value, bias, hidden, scale, dropout_p)[0]


def _check_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool
) -> None:
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(
            f"Expected query, key, and value to have the same dtype, but got query.dtype: {query.dtype} key.dtype: "
            f"{key.dtype} and value.dtype: {value.dtype} instead."
        )
    if not query.is_floating_point():
        raise RuntimeError(f"scaled_dot_product_attention is not defined for {query.dtype} tensors")
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            f"Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: {query.ndim} "
            f"key.dim: {key.ndim} and value.dim: {value.ndim} instead."
        )
    if attn_mask is not None:
        if is_causal:
            raise RuntimeError("scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
        if attn_mask.dtype not in (np.bool_, np.float32, query.dtype):
            raise RuntimeError(
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: "
                f"{attn_mask.dtype} and query.dtype: {query.dtype} instead."
            )
    if not 0.0 <= dropout_p <= 1.0:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")


def _for_all_heads(x: Tensor, query: Tensor) -> Tensor:
    """Keys or values with each head as often as it serves the queries' heads."""
    if query.ndim < 3 or x.ndim < 3:
        raise IndexError("scaled_dot_product_attention: enable_gqa needs a dimension of heads, the third from the end")
    heads, all_heads = x.shape[-3], query.shape[-3]
    if not heads or all_heads % heads:
        raise RuntimeError(
            "scaled_dot_product_attention: number of heads in key and value must divide the number of heads in query, "
            f"but {heads} do not divide {all_heads}"
        )
    *lead, _, length, width = x.shape
    repeated = x.unsqueeze(-3).expand(*lead, heads, all_heads // heads, length, width)
    out: Tensor = repeated.reshape(*lead, all_heads, length, width)
    return out


# Several heads ------------------------------------------------------------------------------------------------------


def _projected(
    query: Tensor, key: Tensor, value: Tensor, weights: list[Tensor | None], bias: Tensor | None
) -> list[Tensor]:
    """Queries, keys and values through their projections: one matrix for all three, or one for each."""
    together, *apart = weights
    inputs = (query, key, value)
    if together is None:
        biases = [None] * 3 if bias is None else bias.chunk(3)
        for name, weight, x in zip(("q", "k", "v"), apart, inputs, strict=True):
            if weight is None:
                raise ValueError(f"use_separate_proj_weight is True but {name}_proj_weight is None")
            if weight.shape[-1] != x.shape[-1]:
                raise RuntimeError(
                    f"multi_head_attention_forward: {name}_proj_weight of shape {list(weight.shape)} does not take "
                    f"inputs of length {x.shape[-1]}"
                )
        return [linear(x, w, b) for x, w, b in zip(inputs, apart, biases, strict=True) if w is not None]
    if query is key and key is value:
        return list(linear(query, together, bias).chunk(3, -1))
    width = query.shape[-1]
    if key is value:
        rows = together.split([width, 2 * width])
        biases = [None, None] if bias is None else bias.split([width, 2 * width])
        return [linear(query, rows[0], biases[0]), *linear(key, rows[1], biases[1]).chunk(2, -1)]
    biases = [None] * 3 if bias is None else bias.chunk(3)
    return [linear(x, w, b) for x, w, b in zip(inputs, together.chunk(3), biases, strict=True)]


def _mask_of_scores(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, batch: int, heads: int, dtype: Any
) -> tuple[Tensor | None, Array | None]:
    """What is added to the scores (N, H, L, S), and what is hidden of them."""
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(batch, heads, *attn_mask.shape[1:]))
    if key_padding_mask is not None:
        masks.append(key_padding_mask.reshape(batch, 1, 1, -1))
    masks = [_as_bias(mask) if mask.dtype == np.bool_ and is_batched(mask) else mask for mask in masks]
    biases = [cast(mask, dtype) for mask in masks if mask.dtype != np.bool_]
    hidden = [mask._data for mask in masks if mask.dtype == np.bool_]
    bias = biases[0] + biases[1] if len(biases) == 2 else biases[0] if biases else None
    return bias, hidden[0] | hidden[1] if len(hidden) == 2 else hidden[0] if hidden else None


def _check_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
) -> None:
    """What is said about the arguments before they are given a batch dimension."""
    if query.ndim not in (2, 3):
        raise RuntimeError(
            f"query should be unbatched 2D or batched 3D tensor but received {query.ndim}-D query tensor"
        )
    kind = "batched (3-D)" if query.ndim == 3 else "unbatched (2-D)"
    if not query.ndim == key.ndim == value.ndim:
        raise RuntimeError(
            f"For {kind} `query`, expected `key` and `value` to be {query.ndim}-D but found {key.ndim}-D and "
            f"{value.ndim}-D tensors respectively"
        )
    if query.shape[-1] != embed_dim:
        raise RuntimeError(f"was expecting embedding dimension of {embed_dim}, but got {query.shape[-1]}")
    if embed_dim % num_heads:
        raise RuntimeError(f"embed_dim {embed_dim} not divisible by num_heads {num_heads}")
    if key.shape[:-1] != value.shape[:-1]:
        raise RuntimeError(f"key shape {key.shape} does not match value shape {value.shape} but for the last dimension")
    if query.ndim == 3 and key.shape[1] != query.shape[1]:
        raise RuntimeError(f"the query has {query.shape[1]} samples and the key {key.shape[1]}")
    batch, heads = (query.shape[1] if query.ndim == 3 else 1), num_heads
    length, source = query.shape[0], key.shape[0]
    for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", key_padding_mask)):
        if mask is not None and mask.dtype != np.bool_ and not mask.is_floating_point():
            raise RuntimeError(f"only bool and floating types of {name} are supported, not {mask.dtype}")
    if attn_mask is not None:
        expected = (length, source) if attn_mask.ndim == 2 else (batch * heads, length, source)
        if attn_mask.ndim not in (2, 3):
            raise RuntimeError(
                f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {attn_mask.ndim}-D "
                "tensor instead"
            )
        if tuple(attn_mask.shape) != expected:
            raise RuntimeError(
                f"The shape of the {attn_mask.ndim}D attn_mask is {attn_mask.shape}, but should be {expected}."
            )
    if key_padding_mask is not None:
        if key_padding_mask.ndim != query.ndim - 1:
            raise RuntimeError(
                f"For {kind} `query`, expected `key_padding_mask` to be `None` or {query.ndim - 1}-D but found "
                f"{key_padding_mask.ndim}-D tensor instead"
            )
        padded = (batch, source) if query.ndim == 3 else (source,)
        if tuple(key_padding_mask.shape) != padded:
            raise RuntimeError(f"expected key_padding_mask of shape {padded}, but got {tuple(key_padding_mask.shape)}")


def _with_more_keys(mask: Tensor | None, number: int) -> Tensor | None:
    """``mask`` with ``number`` keys at the end that all may see."""
    if mask is None or not number:
        return mask
    more = Tensor(np.zeros((*mask.shape[:-1], number), mask.dtype))
    return cat([mask, more], -1)


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention with several heads, each with projections of its own, as PyTorch's function of this name.

    Args:
        query: (L, N, E) or (L, E).
        key: (S, N, kdim) or (S, kdim).
        value: (S, N, vdim) or (S, vdim).
        embed_dim_to_check: E.
        num_heads: H, a divisor of E.
        in_proj_weight: (3 E, E), the projections of queries, keys and values below each other.
        in_proj_bias: (3 E,).
        bias_k: (1, 1, E), one more key for all samples.
        bias_v: (1, 1, E), its value.
        add_zero_attn: one more key and value of zeros.
        dropout_p: the probability with which a weight is dropped, in ``training``.
        out_proj_weight: (E, E).
        out_proj_bias: (E,).
        training: whether weights are dropped.
        key_padding_mask: (N, S) or (S,): bools that are True for keys to be ignored, or numbers that are added.
        need_weights: return the weights too.
        attn_mask: (L, S) or (N * H, L, S): bools that are True where a query must not look, or numbers that are added.
        use_separate_proj_weight: take the three below instead of ``in_proj_weight``.
        q_proj_weight: (E, E).
        k_proj_weight: (E, kdim).
        v_proj_weight: (E, vdim).
        static_k: (N * H, S, E / H), keys to be used as they are.
        static_v: (N * H, S, E / H), values to be used as they are.
        average_attn_weights: return the mean of the weights over the heads.
        is_causal: that ``attn_mask`` is the causal one; nothing follows from it here.

    Returns:
        (L, N, E) or (L, E); and None, or the weights: (N, L, S) or (L, S), with (H,) before L unless averaged. A query
        that may look nowhere has zeros for weights.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or ``is_causal`` without ``attn_mask``.
    """
    _check_heads(query, key, value, embed_dim_to_check, num_heads, attn_mask, key_padding_mask)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    batched = query.ndim == 3
    if not batched:
        same = query is key and key is value
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key, value = (query, query) if same else (key, value)
    length, batch, width = query.shape
    head = width // num_heads
    weights = [q_proj_weight, k_proj_weight, v_proj_weight]
    together = None if use_separate_proj_weight else in_proj_weight
    q, k, v = _projected(query, key, value, [together, *weights], in_proj_bias)
    more = 0
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise RuntimeError("bias cannot be added to static key or value.")
        k, v = (cat([x, b.expand(1, batch, width)]) for x, b in ((k, bias_k), (v, bias_v)))
        more += 1
    q, k, v = (x.reshape(len(x), batch, num_heads, head).permute(1, 2, 0, 3) for x in (q, k, v))
    if static_k is not None:
        k = static_k.reshape(batch, num_heads, -1, head)
    if static_v is not None:
        v = static_v.reshape(batch, num_heads, -1, head)
    if add_zero_attn:
        nothing = Tensor(np.zeros((batch, num_heads, 1, head), q.dtype))
        k, v = cat([k, nothing], 2), cat([v, nothing], 2)
        more += 1
    attn_mask, key_padding_mask = _with_more_keys(attn_mask, more), _with_more_keys(key_padding_mask, more)
    bias, hidden = _mask_of_scores(attn_mask, key_padding_mask, batch, num_heads, q.dtype)
    # (N, H, L, head), (N, H, L, S)
    out, shares = _attend(q, k, v, bias, hidden, 1.0 / math.sqrt(head), dropout_p if training else 0.0)
    out = linear(out.permute(2, 0, 1, 3).reshape(length, batch, width), out_proj_weight, out_proj_bias)
    out = out if batched else out.squeeze(1)
    if not need_weights:
        return out, None
    if average_attn_weights:
        shares = shares.mean(1)
    return out, shares if batched else shares.squeeze(0)
