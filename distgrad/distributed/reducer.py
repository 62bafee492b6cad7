"""Makes the gradients of all ranks one: after a backward pass every rank holds the gradient of the global mean loss.

The loss of rank ``r`` is a mean over its ``n_r`` samples, so the mean over all samples of all ranks has the gradient
``sum_r w_r g_r`` with ``w_r = n_r / sum n``. Ragged shards are thereby exact, and a rank without samples has no say: it
contributes zeros, not ``0 * NaN``. The weights are applied before the sum, so that one rank alone, or a power of two of
equal ones, rounds nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import numpy as np

from ..autograd import Tensor, is_grad_enabled
from ..autograd.engine import queue_callback
from ..autograd.tensor import Handle
from ..errors import CommunicationError
from .bucket import Bucket, make_buckets
from .communicator import Array, Communicator


class Reducer:
    """Watches the gradients of some parameters and all-reduces them at the end of each backward pass.

    Args:
        parameters: those that require a gradient, in the same order on every rank.
        communicator: the ranks.
        bucket_cap_mb: size of a bucket in MiB.
    """

    def __init__(self, parameters: Sequence[Tensor], communicator: Communicator, bucket_cap_mb: float) -> None:
        self.buckets: list[Bucket] = make_buckets(parameters, bucket_cap_mb)
        self._communicator = communicator
        self._used = np.zeros(len(parameters), dtype=np.int64)  # whether a gradient has arrived in this backward pass
        self._armed = False  # whether there was a forward pass to come back from
        self._samples: int | None = None  # in the last one; None: it did not say
        self._override: int | None = None  # what the user said about the next backward pass
        self._running = False
        # The hooks live as long as the parameters, the reducer only as long as its wrapper.
        handles = [p.register_post_accumulate_grad_hook(_hook(weakref.ref(self), i)) for i, p in enumerate(parameters)]
        weakref.finalize(self, _remove, handles)

    def prepare(self, samples: int | None) -> None:
        """Arms the reducer: the next backward passes are those of a forward pass over ``samples`` samples here."""
        self._armed = True
        self._samples = samples
        self._running = False  # a backward pass that raised has left it set
        self._used[...] = 0

    def set_samples(self, samples: int) -> None:
        """The next backward pass counts as one over ``samples`` samples, whatever the forward pass has seen."""
        self._override = samples

    def ready(self, index: int) -> None:
        """The gradient of parameter ``index`` is final in the backward pass that is running."""
        if not self._armed:
            return
        if is_grad_enabled():
            raise RuntimeError(
                "backward(create_graph=True) through DistributedDataParallel: the average over ranks cannot be "
                "recorded; use the wrapped module itself for higher derivatives"
            )
        self._used[index] = 1
        if not self._running:
            self._running = True
            queue_callback(self._finish)

    def _finish(self) -> None:
        """The same sequence of collectives on every rank, whatever has been used there."""
        self._running = False
        if self._override is not None:
            self._samples, self._override = self._override, None
        samples = self._samples
        if samples is None:
            raise RuntimeError(
                "DistributedDataParallel cannot tell how many samples this rank had, since no argument of forward was "
                "a tensor: call set_samples(n) before backward()"
            )
        header = np.concatenate([[samples], self._used])  # (1 + parameters,)
        self._used[...] = 0
        self._communicator.all_reduce(header)
        total, used_anywhere = int(header[0]), header[1:] > 0
        if total == 0:
            raise CommunicationError(
                "no rank had a sample in this step, so there is no mean loss to take the gradient of; end the epoch "
                "when the data ends on all ranks"
            )
        if self._communicator.world_size == 1:
            return
        for bucket in self.buckets:
            self._launch(bucket, samples / total)
        for bucket in self.buckets:
            _write_back(bucket, used_anywhere)

    def _launch(self, bucket: Bucket, weight: float) -> None:
        """Sums the weighted gradients of all ranks into the bucket's flat array."""
        if weight == 0:
            bucket.flat[...] = 0  # also where the gradient is NaN, the mean over no sample
        else:
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                if parameter.grad is None:
                    view[...] = 0
                else:
                    np.multiply(_values(parameter.grad), weight, out=view)
        self._communicator.all_reduce(bucket.flat)


def _write_back(bucket: Bucket, used_anywhere: Array) -> None:
    """Hands the sums to the parameters; one that no rank has used keeps what it had, which may be None."""
    for index, parameter, view in zip(bucket.indices, bucket.parameters, bucket.views, strict=True):
        if not used_anywhere[index]:
            continue
        if parameter.grad is None:
            parameter.grad = Tensor(view.copy())
        else:
            _values(parameter.grad)[...] = view
            parameter.grad._changed()


def _values(gradient: Tensor) -> Array:
    return gradient.detach().numpy()


def _remove(handles: Sequence[Handle]) -> None:
    for handle in handles:
        handle.remove()


def _hook(reducer: weakref.ref[Reducer], index: int) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        present = reducer()
        if present is not None:
            present.ready(index)

    return hook
