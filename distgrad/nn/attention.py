"""Attention with several heads (Vaswani et al., 2017)."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from . import functional as F
from . import init
from .linear import NonDynamicallyQuantizableLinear
from .module import Module
from .parameter import Parameter, new_parameter


class MultiheadAttention(Module):
    """Each query gets a weighted mean of values, in several heads with projections of their own.

    Args:
        embed_dim: E, the length of queries and results.
        num_heads: H, a divisor of E.
        dropout: the probability with which a weight is dropped in training.
        bias: whether the projections have one.
        add_bias_kv: one more key and value for all samples, which are learned.
        add_zero_attn: one more key and value of zeros.
        kdim: the length of keys, E without it.
        vdim: the length of values, E without it.
        batch_first: tensors are (N, L, E) instead of (L, N, E).
        device: "cpu".
        dtype: of the parameters, the default dtype without it.

    Raises:
        ValueError: lengths that are not positive, or heads that do not divide ``embed_dim``.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and num_heads={num_heads} "
                "instead"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads}")
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn

        def parameter(*size: int, wanted: bool) -> Parameter | None:
            return new_parameter(size, device, dtype) if wanted else None

        together, apart = self._qkv_same_embed_dim, not self._qkv_same_embed_dim
        self.register_parameter("in_proj_weight", parameter(3 * embed_dim, embed_dim, wanted=together))
        self.register_parameter("q_proj_weight", parameter(embed_dim, embed_dim, wanted=apart))
        self.register_parameter("k_proj_weight", parameter(embed_dim, self.kdim, wanted=apart))
        self.register_parameter("v_proj_weight", parameter(embed_dim, self.vdim, wanted=apart))
        self.register_parameter("in_proj_bias", parameter(3 * embed_dim, wanted=bias))
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, device, dtype)
        self.register_parameter("bias_k", parameter(1, 1, embed_dim, wanted=add_bias_kv))
        self.register_parameter("bias_v", parameter(1, 1, embed_dim, wanted=add_bias_kv))
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The results, and the weights if they are needed.

        Args:
            query: (L, N, E), with ``batch_first`` (N, L, E), or (L, E).
            key: (S, N, kdim) and so on.
            value: (S, N, vdim) and so on.
            key_padding_mask: (N, S) or (S,): bools that are True for keys to be ignored, or numbers that are added to
                the scores.
            need_weights: return the weights too.
            attn_mask: (L, S) or (N * H, L, S): bools that are True where a query must not look, or numbers that are
                added to the scores.
            average_attn_weights: return the mean of the weights over the heads.
            is_causal: that ``attn_mask`` is the causal one; nothing follows from it here.

        Returns:
            A tensor of the query's shape; and None, or the weights: (N, L, S) or (L, S), with (H,) before L unless
            averaged. A query that may look nowhere has zeros for weights, not NaN as in PyTorch.
        """
        swapped = self.batch_first and query.ndim == 3
        if swapped:
            # once each, so that what is one tensor stays one: then its projections are one product
            turned = {id(x): x.transpose(0, 1) for x in (query, key, value)}
            query, key, value = (turned[id(x)] for x in (query, key, value))
        out, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return (out.transpose(0, 1) if swapped else out), weights
