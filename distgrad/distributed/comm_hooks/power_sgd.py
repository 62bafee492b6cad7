"""PowerSGD: each matrix of gradients travels as a product of two thin ones.

Source: Vogels, Karimireddy and Jaggi 2019, "PowerSGD: Practical low-rank gradient compression for distributed
optimization", with the names and defaults of PyTorch's ``powerSGD_hook``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .all_reduce import allreduce_hook
from .exchange import BLOCK
from .report import Report, all_reduce_bytes, communicator_of, sum_error
from .state import FeedbackState

if TYPE_CHECKING:
    from ..bucket import GradBucket
    from ..communicator import Array, Communicator


class PowerSGDState(FeedbackState):
    """What :func:`powerSGD_hook` needs and remembers.

    The residual and the warm start are kept by parameter name, so that they survive another size of the buckets.

    Args:
        communicator: as in ``HookState``.
        matrix_approximation_rank: columns of the thin matrices; more are more exact and cost more.
        start_powerSGD_iter: so many steps are summed whole before, while gradients change fast.
        min_compression_rate: a gradient ``(n, m)`` is compressed where ``(n + m) rank`` numbers, times this, are fewer
            than its ``n m``; all others travel whole.
        use_error_feedback: whether what is left out is added to the gradients of the next step.
        warm_start: whether the search begins from the last step's matrix; otherwise from a random one.
        random_seed: of the random matrices, which are the same on every rank.

    PyTorch's ``orthogonalization_epsilon`` is not needed, since a column without length is left out; there
    ``start_powerSGD_iter`` has to be above 1, and may be 0 here.

    Raises:
        ValueError: a rank or a compression rate that is not positive, or a negative step.
    """

    def __init__(
        self,
        communicator: Communicator | None = None,
        matrix_approximation_rank: int = 1,
        start_powerSGD_iter: int = 1000,
        min_compression_rate: float = 2,
        use_error_feedback: bool = True,
        warm_start: bool = True,
        random_seed: int = 0,
    ) -> None:
        super().__init__(communicator)
        if matrix_approximation_rank < 1:
            raise ValueError(
                f"PowerSGDState: matrix_approximation_rank is {matrix_approximation_rank}, must be at least 1"
            )
        if start_powerSGD_iter < 0:
            raise ValueError(f"PowerSGDState: start_powerSGD_iter is {start_powerSGD_iter}, must not be negative")
        if not min_compression_rate > 0:
            raise ValueError(f"PowerSGDState: min_compression_rate is {min_compression_rate}, must be above 0")
        self.matrix_approximation_rank = matrix_approximation_rank
        self.start_powerSGD_iter = start_powerSGD_iter
        self.min_compression_rate = min_compression_rate
        self.use_error_feedback = use_error_feedback
        self.warm_start = warm_start
        self.random_seed = random_seed
        self.start: dict[str, Array] = {}  # by parameter name (m, rank): where the search begins; the same on all ranks
        self.total_numel_before_compression = 0
        self.total_numel_after_compression = 0

    def compression_stats(self) -> tuple[float, int, int]:
        """Numbers before compression for one after it, and both counts, since the first compression."""
        before, after = self.total_numel_before_compression, self.total_numel_after_compression
        return before / after if after else 0.0, before, after

    def state_dict(self) -> dict[str, Any]:
        """As ``FeedbackState.state_dict``; ``"start"`` has for each parameter ``(m, rank)``, the same on all ranks."""
        return {**super().state_dict(), "start": {name: start.copy() for name, start in self.start.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As ``FeedbackState.load_state_dict``."""
        super().load_state_dict(state_dict)
        self.start = {name: start.copy() for name, start in state_dict["start"].items()}


class _Matrix(NamedTuple):
    """A gradient that is compressed, as ``(n, m)``, and its rank."""

    name: str
    gradient: Array
    rank: int


def powerSGD_hook(state: PowerSGDState, bucket: GradBucket) -> Report:
    """Sums the bucket over all ranks, matrices to a low rank.

    With ``g_r`` the gradients and ``e_r`` the residual of rank ``r``, ``M_r = g_r + e_r`` as ``(shape[0], m)``, and
    ``Q`` ``(m, rank)`` orthonormal: ``P = sum_r M_r Q``, made orthonormal; ``Q_r = M_r^T P``; the result is
    ``P sum_r Q_r^T``, the sum projected on ``P``. The new residual of the rank is ``M_r - P Q_r^T``, what the
    projection leaves of its own matrix: over all ranks the same sum as with PyTorch's ``M_r - result``, and never
    longer than ``M_r``. What is too small or too narrow to compress travels with the first of the two sums.

    For a compressed matrix the Frobenius norm of ``result - sum_r M_r`` is at most ``error_bound * sum_r |M_r|``; all
    else is as exact as ``allreduce_hook``. With error feedback ``error_bound`` is measured: the largest
    ``|M_r - P Q_r^T| / |M_r|`` of a matrix and a rank, at most 1, and ``rank (N + rank + 3) u`` for the roundings of
    the sum and of two products with ``P``, whose norm is ``sqrt(rank)``. Without it the bound is that of a projection,
    1. What is left out is not lost with error feedback: over many steps the results add up to the gradients, up to the
    last residual.

    What follows the sums is done element by element, so that all ranks have the same bits also where their processors,
    and with them their matrix products, are not alike.

    One rank alone sends nothing and leaves nothing out.

    Args:
        state: the ranks and what they remember.
        bucket: this rank's gradients, already weighted; holds the approximate sum afterwards.
    """
    communicator = communicator_of(state)
    buffer, size = bucket.buffer(), communicator.world_size
    if size == 1 or state.iter < state.start_powerSGD_iter:
        state.add_residual(bucket.names, bucket.gradients())
        report = allreduce_hook(communicator, bucket)
        state.maybe_increase_iter(bucket)
        return report

    matrices, whole = _sort(state, bucket)
    for matrix in matrices:
        if state.use_error_feedback:
            matrix.gradient[...] += state.residual_of(matrix.name, matrix.gradient)

    # One message: what travels whole, and P of each matrix.
    whole_size = sum(gradient.size for gradient in whole)
    first = np.empty(whole_size + sum(m.gradient.shape[0] * m.rank for m in matrices), buffer.dtype)
    if whole:
        np.concatenate([gradient.reshape(-1) for gradient in whole], out=first[:whole_size])
    lefts = _cut(first[whole_size:], [(matrix.gradient.shape[0], matrix.rank) for matrix in matrices])
    with np.errstate(all="ignore"):
        for matrix, left in zip(matrices, lefts, strict=True):
            np.matmul(_flat(matrix.gradient), _start_of(state, matrix).astype(buffer.dtype), out=left)
        communicator.all_reduce(first)
        for gradient, summed in zip(whole, _cut(first[:whole_size], [g.shape for g in whole]), strict=True):
            gradient[...] = summed
        for left in lefts:
            left[...] = _orthonormal(left)

        # The other: Q of each matrix, and for each rank the largest part that it leaves out.
        second = np.zeros(sum(_flat(m.gradient).shape[1] * m.rank for m in matrices) + size, buffer.dtype)
        rights = _cut(second[:-size], [(_flat(m.gradient).shape[1], m.rank) for m in matrices])
        parts = [0.0]
        for matrix, left, right in zip(matrices, lefts, rights, strict=True):
            values = _flat(matrix.gradient)
            np.matmul(values.T, left, out=right)
            if state.use_error_feedback and np.isfinite(left).all():  # else this step is lost, and leaves no trace
                rest = _flat(state.residual[matrix.name])
                np.matmul(left, right.T, out=rest)
                np.subtract(values, rest, out=rest)
                parts.append(_norm(rest) / (_norm(values) or 1.0))
        second[len(second) - size + communicator.rank] = max(parts)
        communicator.all_reduce(second)
        for matrix, left, right in zip(matrices, lefts, rights, strict=True):
            _multiply(left, right, _flat(matrix.gradient))
            if state.warm_start and np.isfinite(right).all():
                state.start[matrix.name] = right.copy()

    state.total_numel_before_compression += buffer.size
    state.total_numel_after_compression += first.size + second.size - size
    state.maybe_increase_iter(bucket)
    sent = all_reduce_bytes(first.size, buffer.itemsize, size) + all_reduce_bytes(second.size, buffer.itemsize, size)
    unit = float(np.finfo(buffer.dtype).eps) / 2
    bound = sum_error(size, buffer.dtype)
    if matrices:
        rank = max(matrix.rank for matrix in matrices)
        left_out = float(second[-size:].max()) if state.use_error_feedback else 1.0
        bound = left_out + rank * (size + rank + 3) * unit
    return Report(sent, bound)


def _sort(state: PowerSGDState, bucket: GradBucket) -> tuple[list[_Matrix], list[Array]]:
    """The gradients that are worth compressing, and the others."""
    matrices, whole = [], []
    for name, gradient in zip(bucket.names, bucket.gradients(), strict=True):
        rows = gradient.shape[0] if gradient.ndim > 1 else 0
        columns = gradient.size // rows if rows else 0
        rank = min(rows, columns, state.matrix_approximation_rank)
        if rank and (rows + columns) * rank * state.min_compression_rate < rows * columns:
            matrices.append(_Matrix(name, gradient, rank))
        else:
            whole.append(gradient)
    return matrices, whole


def _flat(gradient: Array) -> Array:
    """``(shape[0], the rest)``, a view."""
    return gradient.reshape(gradient.shape[0], -1)


def _cut(flat: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
    """Views of ``flat``, one behind the other."""
    views, end = [], 0
    for shape in shapes:
        start, end = end, end + math.prod(shape)
        views.append(flat[start:end].reshape(shape))
    return views


def _start_of(state: PowerSGDState, matrix: _Matrix) -> Array:
    """``(m, rank)`` float64 with orthonormal columns, where the search begins; the same on every rank."""
    columns = matrix.gradient.size // matrix.gradient.shape[0]
    start = state.start.get(matrix.name)
    if start is not None and start.shape == (columns, matrix.rank):
        orthonormal = _orthonormal(start)
        if orthonormal.any(axis=0).all():
            return orthonormal
    # From the name and the step, not from a stream: nothing has to be remembered, and no order has to be kept.
    digest = hashlib.blake2b(matrix.name.encode(), digest_size=16).digest()
    key = [state.random_seed, state.iter, *np.frombuffer(digest, np.uint32).tolist()]
    random = np.random.default_rng(key).standard_normal((columns, matrix.rank))
    if start is not None and start.shape == random.shape:  # columns that have died are begun anew
        random = np.where(_orthonormal(start).any(axis=0), start, random)
    return _orthonormal(random)


def _orthonormal(columns: Array) -> Array:
    """``(n, rank)`` as float64 with orthonormal columns; one that depends on those before it becomes zero.

    Modified Gram-Schmidt, twice (Giraud et al. 2005: twice is enough). No matrix product of a library, whose bits may
    differ between processors.
    """
    rows = np.array(columns.T, np.float64, order="C")  # (rank, n): one vector is one run of memory
    for place, row in enumerate(rows):
        with np.errstate(all="ignore"):
            before = math.sqrt(np.add.reduce(row * row))
            for _ in range(2):
                for other in rows[:place]:
                    row -= np.add.reduce(row * other) * other
            after = math.sqrt(np.add.reduce(row * row))
            if after <= 1e-6 * before:  # what float32 leaves of a column that is none of its own
                row[...] = 0
            else:  # also where it is not a number, which is not to be hidden
                row /= after
    return rows.T


def _norm(values: Array) -> float:
    """The Frobenius norm, summed in float64."""
    flat = values.reshape(-1)
    total = 0.0
    for start in range(0, flat.size, BLOCK):
        wide = flat[start : start + BLOCK].astype(np.float64)
        total += float(wide @ wide)
    return math.sqrt(total)


def _multiply(left: Array, right: Array, out: Array) -> None:
    """``(n, rank) (m, rank)^T`` into ``(n, m)``, element by element, in blocks of rows that stay in the cache."""
    columns = np.ascontiguousarray(right.T)  # (rank, m)
    step = max(1, BLOCK // out.shape[1])
    term = np.empty((step, out.shape[1]), out.dtype)
    for start in range(0, out.shape[0], step):
        rows, block = left[start : start + step], out[start : start + step]
        np.multiply(rows[:, :1], columns[0], out=block)
        for index in range(1, columns.shape[0]):
            part = term[: len(rows)]
            np.multiply(rows[:, index : index + 1], columns[index], out=part)
            block += part
