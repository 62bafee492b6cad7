"""Rows of a table by their index, and their sums, means and maxima over bags of indices.

The gradient of a table is dense: the gradients of the rows that were looked up, added where an index occurs several
times.
"""

from __future__ import annotations

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.scatter import add_rows
from .distance import _norm_forward
from .elementwise import where
from .positions import gather
from .samples import all_values, check_values, each_sample, is_batched
from .shape import reshape

_embedding: Primitive = define(
    "Embedding",
    lambda weight, indices, padding_idx, by_frequency: np.take(weight, indices, axis=0),
    ("weight", "indices"),
    weight=lambda g, indices, weight_shape, padding_idx, by_frequency: _add_to_rows(
        g, indices, rows=weight_shape[0], padding_idx=padding_idx, by_frequency=by_frequency
    ),
)


def _counts(indices: Array, rows: int) -> Array:
    """How often each index occurs, where it occurs: the shape of ``indices``."""
    return np.bincount(indices.reshape(-1), minlength=rows)[indices]


def _added(input: Array, indices: Array, rows: int, padding_idx: int, by_frequency: bool) -> Array:
    """Zeros (rows, ...) to which each entry of ``input`` is added at its index, in float32 for half precision."""
    width = input.shape[indices.ndim :]
    flat, places = input.reshape(indices.size, -1 if indices.size else int(np.prod(width))), indices.reshape(-1)
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    if by_frequency:
        flat = flat / _counts(places, rows)[:, None].astype(flat.dtype)
    if padding_idx >= 0 and (places == padding_idx).any():
        kept = places != padding_idx
        flat, places = flat[kept], places[kept]
    out = np.zeros((rows, flat.shape[1]), flat.dtype)
    add_rows(out, places, flat)
    return out.reshape(rows, *width).astype(input.dtype, copy=False)


def _looked_up(input: Array, indices: Array, padding_idx: int, by_frequency: bool) -> Array:
    out = np.take(input, indices, axis=0)
    if by_frequency:
        out /= _counts(indices, len(input)).reshape(*indices.shape, *(1,) * (input.ndim - 1)).astype(out.dtype)
    if padding_idx >= 0:
        out[indices == padding_idx] = 0
    return out


_add_to_rows: Primitive = define(  # the adjoint of a look-up, but for what padding and frequency change in it
    "EmbeddingDenseBackward",
    _added,
    ("input", "indices"),
    input=lambda g, indices, padding_idx, by_frequency: _look_up_gradient(
        g, indices, padding_idx=padding_idx, by_frequency=by_frequency
    ),
)
_look_up_gradient: Primitive = define(  # the adjoint of that
    "EmbeddingDenseDoubleBackward",
    _looked_up,
    ("input", "indices"),
    input=lambda g, indices, input_shape, padding_idx, by_frequency: _add_to_rows(
        g, indices, rows=input_shape[0], padding_idx=padding_idx, by_frequency=by_frequency
    ),
)


def _check_indices(name: str, what: str, indices: Tensor) -> None:
    if indices.dtype not in (np.int64, np.int32):
        raise RuntimeError(
            f"Expected tensor for argument #1 '{what}' to have one of the following scalar types: Long, Int; but got "
            f"{indices.dtype} instead (while checking arguments for {name})"
        )


def _outside(indices: Array, rows: int) -> int | None:
    """An index that is no row, if there is one."""
    if not indices.size or (indices.min() >= 0 and indices.max() < rows):
        return None
    return int(indices.min() if indices.min() < 0 else indices.max())


def _padding(padding_idx: int | None, rows: int) -> int:
    """``padding_idx`` counted from the front; -1 for None."""
    if padding_idx is None:
        return -1
    if not -rows <= padding_idx < rows:
        raise ValueError(f"Padding_idx must be within num_embeddings: {padding_idx} is not, of {rows} embeddings")
    return padding_idx % rows


def _check_table(name: str, weight: Tensor, sparse: bool) -> None:
    if weight.ndim != 2:
        raise RuntimeError(f"{name}: 'weight' must be 2-D, but its shape is {list(weight.shape)}")
    if sparse:
        raise NotImplementedError(f"{name}: sparse gradients are not supported; leave sparse=False for a dense one")


def _limit_norms(weight: Tensor, indices: Array, max_norm: float, norm_type: float) -> None:
    """Scales down, in place, the rows looked up whose norm is above ``max_norm``."""
    rows = np.unique(indices)
    norms = _norm_forward(weight._data[rows], float(norm_type), (1,))[:, 0]
    long = norms > max_norm
    if not long.any():
        return
    weight._data[rows[long]] *= (max_norm / (norms[long] + 1e-7))[:, None].astype(weight.dtype)
    weight._changed()


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of ``weight`` at the indices in ``input``, as ``torch.nn.functional.embedding``.

    Args:
        input: int64 or int32, any shape (*).
        weight: (num_embeddings, embedding_dim).
        padding_idx: this row gets no gradient.
        max_norm: rows that are looked up and longer than this are first scaled down to it, in place.
        norm_type: of the norm.
        scale_grad_by_freq: divide the gradient of a row by how often it was looked up.
        sparse: PyTorch's sparse gradients, which there are none of here.

    Returns:
        (*, embedding_dim).

    Raises:
        IndexError: an index that is no row.
        ValueError: ``padding_idx`` is no row.
        NotImplementedError: ``sparse``.
        RuntimeError: other dtypes or shapes.
    """
    _check_table("embedding", weight, sparse)
    _check_indices("embedding", "indices", input)
    padding = _padding(padding_idx, weight.shape[0])
    rows = weight.shape[0]

    def check(indices: Array) -> None:
        wrong = _outside(indices, rows)
        if wrong is not None:
            raise IndexError(f"index out of range in self: {wrong} of {rows} embeddings")

    check_values(check, input)
    if max_norm is not None:
        _limit_norms(weight, all_values(input), max_norm, norm_type)
    out: Tensor = _embedding(weight, input, padding_idx=padding, by_frequency=scale_grad_by_freq)
    return out


# Bags ---------------------------------------------------------------------------------------------------------------


def _bags(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[Array, int]:
    """For each of the flattened indices the number of its bag; and how many bags there are."""
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
                f"sequences. However, found offsets of type {type(offsets)}"
            )
        return np.repeat(np.arange(input.shape[0]), input.shape[1]), input.shape[0]
    if input.ndim != 1:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    if offsets is None or offsets.ndim != 1:
        what = "None" if offsets is None else f"one of shape {list(offsets.shape)}"
        raise ValueError(f"offsets has to be a 1D Tensor but got {what}")
    _check_indices("embedding_bag", "offsets", offsets)
    starts = offsets._data
    if starts.size and starts[0] != 0:
        raise RuntimeError(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. However, "
            f"got {starts[0]}"
        )
    if (np.diff(starts) < 0).any():
        raise RuntimeError(f"embedding_bag: offsets have to ascend, but they are {starts.tolist()}")
    if starts.size and starts[-1] > input.numel():
        raise RuntimeError(
            f"offsets[-1] can not be greater than input's length {input.numel()} but got offsets[-1] of {starts[-1]}"
        )
    ends = starts[1:] if include_last_offset else np.append(starts[1:], input.numel())
    lengths = ends - starts[: len(ends)]
    return np.repeat(np.arange(len(lengths)), lengths), len(lengths)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of the rows of each bag of indices, as ``torch.nn.functional.embedding_bag``.

    Args:
        input: int64 or int32: (B, N), each row a bag; or (N,), cut into bags by ``offsets``.
        weight: (num_embeddings, embedding_dim).
        offsets: (B,), where each bag begins, ascending from 0.
        max_norm: rows that are looked up and longer than this are first scaled down to it, in place.
        norm_type: of the norm.
        scale_grad_by_freq: divide the gradient of a row by how often it was looked up; not of a maximum.
        mode: "sum", "mean" or "max"; a bag without indices gives zeros.
        sparse: PyTorch's sparse gradients, which there are none of here.
        per_sample_weights: of the shape of ``input``, a factor for each row; only for "sum".
        include_last_offset: ``offsets`` has one more entry, where the last bag ends.
        padding_idx: this index counts for nothing and gets no gradient.

    Returns:
        (B, embedding_dim).

    Raises:
        ValueError: arguments that do not fit each other.
        NotImplementedError: ``sparse``, or weights with another mode than "sum".
        RuntimeError: an index that is no row, or other dtypes or shapes.
    """
    if is_batched(input, weight, offsets, per_sample_weights):
        of_each: Tensor = each_sample(
            embedding_bag,
            input,
            weight,
            offsets,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            per_sample_weights,
            include_last_offset,
            padding_idx,
        )
        return of_each
    _check_table("embedding_bag", weight, sparse)
    _check_indices("embedding_bag", "indices", input)
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"mode has to be one of sum, mean or max, not {mode!r}")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if per_sample_weights is not None:
        if mode != "sum":
            raise NotImplementedError(
                "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
                f"(got mode='{mode}')."
            )
        if per_sample_weights.shape != input.shape:
            raise ValueError(
                f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, then it must have the "
                f"same shape as the input ({input.shape})"
            )
        if per_sample_weights.dtype != weight.dtype:
            raise RuntimeError(
                f"embedding_bag: expected per_sample_weights to have the dtype of the weight, {weight.dtype}, not "
                f"{per_sample_weights.dtype}"
            )
    padding = _padding(padding_idx, weight.shape[0])
    bags, number = _bags(input, offsets, include_last_offset)
    indices = input._data.reshape(-1)[: len(bags)]
    wrong = _outside(indices, weight.shape[0])
    if wrong is not None:
        raise RuntimeError(
            f"embedding_bag: Expected idx >= 0 && idx < num_embeddings but found idx to be {wrong} of {weight.shape[0]}"
        )
    factors = None if per_sample_weights is None else reshape(per_sample_weights, (-1, 1))[: len(bags)]
    if padding >= 0 and (indices == padding).any():
        kept = indices != padding
        indices, bags = indices[kept], bags[kept]
        factors = None if factors is None else factors[Tensor(kept)]
    if max_norm is not None:
        _limit_norms(weight, indices, max_norm, norm_type)
    rows: Tensor = _embedding(weight, Tensor(indices), padding_idx=-1, by_frequency=scale_grad_by_freq)
    if mode == "max" and len(bags):
        return _largest(rows, bags, number)
    if factors is not None:
        rows = rows * factors
    out: Tensor = _add_to_rows(rows, bags, rows=number, padding_idx=-1, by_frequency=False)
    if mode == "mean":
        sizes = np.maximum(np.bincount(bags, minlength=number), 1)
        out = out / Tensor(sizes[:, None].astype(out.dtype))
    return out


def _largest(rows: Tensor, bags: Array, number: int) -> Tensor:
    """The maximum of each bag, of which the first element that is the largest gets the gradient."""
    width = rows.shape[1]
    filled, starts = np.unique(bags, return_index=True)
    values = rows._data
    largest = np.zeros((number, width), values.dtype)
    largest[filled] = np.maximum.reduceat(values, starts, axis=0)
    found = np.where(values == largest[bags], np.arange(len(bags))[:, None], len(bags) - 1)
    first = np.zeros((number, width), np.int64)
    first[filled] = np.minimum.reduceat(found, starts, axis=0)
    empty = np.ones((number, 1), np.bool_)
    empty[filled] = False
    out: Tensor = where(Tensor(empty), 0.0, gather(rows, 0, Tensor(first)))
    return out
