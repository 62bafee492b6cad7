"""Attributes of PyTorch's ``Tensor`` that are not here: asked for, they say so and name the nearest that is.

A ``__getattr__`` would say the same of any name, and would cost every attribute of every tensor: where a class has one,
Python 3.11 looks nothing up the short way. So the names that a user of PyTorch may type have a descriptor each. Of any
other name Python itself says that it is not there, and in a traceback which is nearest.
"""

from __future__ import annotations

from typing import Any

from ..registry import no_attribute

NAMES = frozenset(
    """
angle apply_ as_strided_scatter as_subclass bfloat16 ccol_indices cdouble cfloat chalf coalesce col_indices
    conj conj_physical conj_physical_ const_data_ptr crow_indices cuda dense_dim dequantize device
    diagonal_scatter dim_order eig fill_diagonal_ frexp geqrf get_device grad_dtype hash_tensor histogram i0 i0_
    igamma igamma_ igammac igammac_ imag index index_reduce index_reduce_ indices int_repr ipu is_coalesced
    is_conj is_cpu is_cuda is_distributed is_ipu is_maia is_meta is_mkldnn is_mps is_mtia is_neg is_nested
    is_pinned is_quantized is_set_to is_shared is_signed is_sparse is_sparse_csr is_vulkan is_xla is_xpu istft
    layout lstsq map2_ map_ module_load mtia mvlgamma mvlgamma_ name narrow_copy new new_empty_strided
    nonzero_static orgqr ormqr pin_memory polygamma_ q_per_channel_axis q_per_channel_scales
    q_per_channel_zero_points q_scale q_zero_point qscheme real record_stream reinforce resize resize_ resize_as
    resize_as_ resize_as_sparse_ resolve_conj resolve_neg row_indices select_scatter set_ share_memory_
    slice_inverse slice_scatter smm solve sparse_dim sparse_mask sparse_resize_ sparse_resize_and_clear_
    sspaddmm stft storage storage_type symeig to_dense to_mkldnn to_padded_tensor to_sparse to_sparse_bsc
    to_sparse_bsr to_sparse_coo to_sparse_csc to_sparse_csr triangular_solve type unsafe_chunk unsafe_split
    unsafe_split_with_sizes untyped_storage values volatile xpu
    """.split()
)


class Absent:
    """Stands for an attribute that is not there: ``hasattr`` says so too."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        raise no_attribute(
            f"{owner.__name__!r} object",
            self._name,
            (name for name in dir(owner) if name[0] != "_" and name not in NAMES),
        )
