"""Only the largest numbers of a gradient travel; what is left out is added to the next step's gradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .all_reduce import allreduce_hook
from .exchange import each_block
from .report import Report, all_reduce_bytes, communicator_of, gathered_bytes, sum_error
from .state import FeedbackState

if TYPE_CHECKING:
    from ..bucket import GradBucket
    from ..communicator import Array, Communicator


class TopKState(FeedbackState):
    """What :func:`top_k_hook` needs and remembers.

    Args:
        communicator: as in ``HookState``.
        density: the part of a gradient's numbers that each rank sends, at least one number.
        start_iter: so many steps are summed whole before, while gradients change fast.
        use_error_feedback: whether what is left out is added to the gradients of the next step. Without it training
            need not converge (Karimireddy et al. 2019, "Error feedback fixes SignSGD").

    Raises:
        ValueError: ``density`` is not in (0, 1], or ``start_iter`` is negative.
    """

    def __init__(
        self,
        communicator: Communicator | None = None,
        density: float = 0.01,
        start_iter: int = 0,
        use_error_feedback: bool = True,
    ) -> None:
        super().__init__(communicator)
        if not 0 < density <= 1:
            raise ValueError(f"TopKState: density is {density}, must be above 0 and at most 1")
        if start_iter < 0:
            raise ValueError(f"TopKState: start_iter is {start_iter}, must not be negative")
        self.density = density
        self.start_iter = start_iter
        self.use_error_feedback = use_error_feedback


class _Sparse(NamedTuple):
    """A gradient of which only some numbers travel: how many, and where it begins in the buffer."""

    name: str
    gradient: Array
    kept: int
    start: int


def top_k_hook(state: TopKState, bucket: GradBucket) -> Report:
    """Sums over all ranks the ``k`` numbers of largest magnitude that each rank has in each gradient.

    With ``g_r`` the gradients and ``e_r`` the residual of rank ``r``, and ``a_r = g_r + e_r``, the rank sends of each
    gradient the ``k`` largest elements of ``a_r`` with their places, and keeps the others as its new residual. All
    ranks add up what they receive in rank order. (Stich, Cordonnier and Jaggi 2018, "Sparsified SGD with memory".)
    Which gradients share a bucket makes no difference.

    In the 2-norm the result is within ``error_bound * sum_r |a_r|`` of ``sum_r a_r``. ``error_bound`` is measured: the
    largest part that a rank has left out, ``|a_r - top_k(a_r)| / |a_r|``, for a gradient of ``n`` numbers at most
    ``sqrt(1 - k / n)``; and ``gamma(N - 1)`` for the sum. What is left out is not lost: over many steps the results add
    up to the gradients, up to the last residual.

    A gradient of which this would send no less than a sum, as of all from about ``1 / density`` ranks on, is summed
    whole. One rank alone sends nothing and leaves nothing out.

    Args:
        state: the ranks and what they remember.
        bucket: this rank's gradients, already weighted; holds the sum of what was sent afterwards.
    """
    communicator = communicator_of(state)
    buffer, size = bucket.buffer(), communicator.world_size
    place = np.dtype(np.int32 if buffer.size <= np.iinfo(np.int32).max else np.int64)
    sparse, whole = _sort(state, bucket, size, place.itemsize)
    if not sparse:
        state.add_residual(bucket.names, bucket.gradients())
        report = allreduce_hook(communicator, bucket)
        state.maybe_increase_iter(bucket)
        return report

    # A message is (what is left out, float64; the numbers; their places in the buffer).
    count = sum(entry.kept for entry in sparse)
    ends = [8, 8 + count * buffer.itemsize, 8 + count * (buffer.itemsize + place.itemsize)]
    message = np.zeros(-(-ends[2] // 8) * 8, np.uint8)  # so that the numbers of every row are aligned
    values, places = message[ends[0] : ends[1]].view(buffer.dtype), message[ends[1] : ends[2]].view(place)
    _choose(state, sparse, values, places, message[:8].view(np.float64))
    summed = np.empty(0, buffer.dtype)
    if whole:
        state.add_residual(list(whole), list(whole.values()))
        summed = np.concatenate([gradient.reshape(-1) for gradient in whole.values()])
        communicator.all_reduce(summed)

    rows = communicator.all_gather(message)  # (world_size, bytes of a message)
    buffer[...] = 0
    for row in rows:
        buffer[row[ends[1] : ends[2]].view(place)] += row[ends[0] : ends[1]].view(buffer.dtype)
    end = 0
    for gradient in whole.values():
        start, end = end, end + gradient.size
        gradient[...] = summed[start:end].reshape(gradient.shape)
    state.maybe_increase_iter(bucket)
    left_out = float(rows[:, :8].copy().view(np.float64).max())
    sent = gathered_bytes(message.size, 1, size) + all_reduce_bytes(summed.size, buffer.itemsize, size)
    return Report(sent, left_out + sum_error(size, buffer.dtype))


def _sort(
    state: TopKState, bucket: GradBucket, world_size: int, place_bytes: int
) -> tuple[list[_Sparse], dict[str, Array]]:
    """The gradients that are worth thinning out, and the others by name. Nothing here depends on the bucket."""
    sparse: list[_Sparse] = []
    whole: dict[str, Array] = {}
    start = 0
    for name, gradient in zip(bucket.names, bucket.gradients(), strict=True):
        size = gradient.size
        count = min(size, max(1, round(state.density * size)))
        thin = gathered_bytes(count, gradient.itemsize + place_bytes, world_size)
        if state.iter >= state.start_iter and thin < all_reduce_bytes(size, gradient.itemsize, world_size):
            sparse.append(_Sparse(name, gradient, count, start))
        else:
            whole[name] = gradient
        start += size
    return sparse, whole


def _choose(state: TopKState, sparse: list[_Sparse], values: Array, places: Array, left_out: Array) -> None:
    """Writes what is sent: numbers ``(count,)``, places ``(count,)`` and ``(1,)`` what is left out; keeps the rest."""
    end, squares, kept_squares = 0, 0.0, 0.0
    for name, gradient, kept, start in sparse:
        if state.use_error_feedback:
            gradient += state.residual_of(name, gradient)
        numbers = gradient.reshape(-1)
        chosen = np.sort(np.argpartition(np.abs(numbers), numbers.size - kept)[numbers.size - kept :])
        sent = numbers[chosen]
        values[end : end + kept], places[end : end + kept] = sent, chosen + start
        end += kept
        squares, kept_squares = squares + _squares(numbers), kept_squares + _squares(sent)
        if state.use_error_feedback:
            numbers[chosen] = 0
            if not np.isfinite(sent).all():  # then others may be left that are not finite, and would never go away
                numbers[~np.isfinite(numbers)] = 0
            state.residual[name][...] = gradient
    if squares != 0:
        left_out[0] = math.sqrt(max(0.0, squares - kept_squares) / squares + 1e-12)  # for the rounding of the two sums


def _squares(numbers: Array) -> float:
    """The sum of squares, in float64."""
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for block in each_block(numbers.size):
            wide = numbers[block].astype(np.float64)
            total += float(wide @ wide)
    return total
