"""Makes the gradients of all ranks one: after a backward pass every rank holds the gradient of the global mean loss.

The loss of rank ``r`` is a mean over its ``n_r`` samples, so the mean over all samples of all ranks has the gradient
``sum_r w_r g_r`` with ``w_r = n_r / sum n``. Ragged shards are thereby exact, and a rank without samples has no say: it
contributes zeros, not ``0 * NaN``. The weights are applied before the sum, so that one rank alone, or a power of two of
equal ones, rounds nothing.

Gradients lie in buckets from the start: a bucket is a flat array, and each parameter's gradient a view of it, which the
backward pass writes to. A backward pass begins with one small message, the numbers of samples and which parameters the
pass will reach; then the buckets follow, each as soon as its last gradient is final and those before it have been
launched. Their order is the same on every rank, whatever becomes ready first. What a rank does not reach is known from
its graph at the beginning, so nobody waits for it, and the graph may be another one in each step and on each rank.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import tracing
from ..autograd import Tensor, is_grad_enabled
from ..autograd.engine import queue_callback, reachable_leaves
from ..autograd.tensor import Handle
from ..errors import CommunicationError
from .bucket import GradBucket, make_buckets
from .channel import AtTheEnd, Task, Ticket
from .collective_log import labelled
from .comm_hooks.report import Report
from .communicator import Array, Communicator
from .progress import Progress, channel_for

CommHook = Callable[[Any, GradBucket], Report]

# The message that a backward pass begins with: samples, 1 from a rank that still has batches, 1 for each parameter that
# the pass will reach.
SAMPLES, ACTIVE, REACHED = 0, 1, 2


class _Pass:
    """A backward pass that is being reduced.

    Attributes:
        samples: of this rank.
        header: the message, of this rank and then of all.
        missing: of each bucket, how many gradients are still to come.
        launched: how many buckets are on their way.
        tickets: of the message and the buckets.
    """

    def __init__(self, samples: int, header: Array, missing: list[int]) -> None:
        self.samples = samples
        self.header = header
        self.missing = missing
        self.launched = 0
        self.tickets: list[Ticket] = []

    @property
    def total(self) -> int:
        """Samples of all ranks, once the header is here."""
        return int(self.header[SAMPLES])

    def reached_anywhere(self, position: int) -> bool:
        return bool(self.header[REACHED + position])


class Reducer:
    """Watches the gradients of some parameters and all-reduces them during each backward pass.

    Args:
        parameters: those that require a gradient, in the same order on every rank.
        names: what they are called.
        communicator: the ranks; messages go over a duplicate of it.
        bucket_cap_mb: size of a bucket in MiB.
        progress: who carries the buckets.
        views: let gradients lie in the buckets; else they are copied in and out.

    Attributes:
        buckets: in the order in which they travel.
        reports: what the communication hook has said about each bucket in the last backward pass.
        finished: when the last backward pass that was reduced had all sums, on the clock of ``time.perf_counter``.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        names: Sequence[str],
        communicator: Communicator,
        bucket_cap_mb: float,
        progress: Progress,
        views: bool = True,
    ) -> None:
        self.reports: list[Report] = []
        self.finished: float | None = None
        self._parameters = list(parameters)
        self._names = list(names)
        self._positions = {id(parameter): position for position, parameter in enumerate(parameters)}
        self._bucket_cap_mb = bucket_cap_mb
        self._alone = communicator.world_size == 1
        self._communicator = communicator if self._alone else communicator.duplicate()
        self._channel = channel_for(progress)
        self._hook: tuple[Any, CommHook] | None = None
        self._views = views and not self._alone
        self._given: list[weakref.ref[Tensor] | None] = [None] * len(self._parameters)
        self._order: list[int] | None = []  # in which gradients became final in the first pass; None: that is over
        self._armed = False  # whether there was a forward pass to come back from
        self._synchronized = True  # whether its gradients are to be reduced
        self._samples: int | None = None  # in that forward pass; None: it did not say
        self._override: int | None = None  # what the user said about the next backward pass
        self._accumulated = 0  # samples of backward passes that were not reduced
        self._running = False
        self._active = communicator.world_size
        self._pass: _Pass | None = None
        self._take_buckets(make_buckets(self._parameters, self._names, bucket_cap_mb))
        # The hooks live as long as the parameters, the reducer only as long as its wrapper.
        handles = [p.register_post_accumulate_grad_hook(_hook(weakref.ref(self), i)) for i, p in enumerate(parameters)]
        weakref.finalize(self, _remove, handles, self._parameters, self._channel)

    @property
    def communicator(self) -> Communicator:
        """What the buckets go over."""
        return self._communicator

    @property
    def active(self) -> int:
        """How many ranks had batches in the last backward pass that was reduced."""
        return self._active

    @property
    def samples(self) -> int | None:
        """What this rank's backward pass counts as, the one that runs or the next; None where that is not known."""
        return self._samples if self._override is None else self._override

    # Around a backward pass ------------------------------------------------------------------------------------------

    def prepare(self, samples: int | None, synchronized: bool = True) -> None:
        """Arms the reducer: the next backward passes are those of a forward pass over ``samples`` samples here.

        Args:
            samples: of this rank; None if it cannot be told.
            synchronized: False leaves the gradients of those passes to this rank alone, to be reduced with later ones.
        """
        if self._pass is not None:
            self._abandon()
        self._running = False  # a backward pass that raised has left it set
        self._armed = True
        self._synchronized = synchronized
        self._samples = samples
        self._release_kept()

    def set_samples(self, samples: int) -> None:
        """The next backward pass counts as one over ``samples`` samples, whatever the forward pass has seen."""
        self._override = samples

    def set_hook(self, state: Any, hook: CommHook | None) -> None:
        """From now on ``hook`` reduces the buckets; None: the channel."""
        self._hook = None if hook is None else (state, hook)

    def rebuild(self, bucket_cap_mb: float, order: Sequence[int] | None = None) -> None:
        """Distributes the parameters over other buckets, the same on every rank; between two backward passes.

        Args:
            bucket_cap_mb: size of a bucket in MiB.
            order: positions of the parameters in the order in which they become final; default: as it is now.
        """
        if order is None:
            order = [position for bucket in self.buckets for position in bucket.positions]
        self._bucket_cap_mb = bucket_cap_mb
        buckets = make_buckets(self._parameters, self._names, bucket_cap_mb, order)
        if [b.positions for b in buckets] != [b.positions for b in self.buckets]:
            self._take_buckets(buckets)

    def _take_buckets(self, buckets: list[GradBucket]) -> None:
        """Gradients lie in ``buckets`` from now on."""
        before = {p: view for b in getattr(self, "buckets", []) for p, view in zip(b.positions, b.views, strict=True)}
        self.buckets: list[GradBucket] = buckets
        self._bucket_of = {position: bucket for bucket in buckets for position in bucket.positions}
        if not self._views:
            return
        for bucket in buckets:
            for position, parameter, view in _each(bucket):
                gradient = parameter.grad
                if gradient is not None and gradient._data is before.get(position):
                    view[...] = gradient._data
                    gradient._data = view
                parameter._grad_slot = view

    def _release_kept(self) -> None:
        """Gives a gradient that somebody keeps, but its parameter does not, memory of its own."""
        for position, (reference, parameter) in enumerate(zip(self._given, self._parameters, strict=True)):
            kept = None if reference is None else reference()
            if kept is not None and kept is not parameter._grad:
                kept._data = kept._data.copy()
                self._given[position] = None

    # During a backward pass ------------------------------------------------------------------------------------------

    def ready(self, position: int) -> None:
        """The gradient of the parameter at ``position`` is final in the backward pass that is running."""
        if not self._armed:
            return
        if not self._running:
            self._begin(position)
        run = self._pass
        if run is None:
            return
        if self._order is not None:
            self._order.append(position)
        if self._views:
            self._given[position] = weakref.ref(self._parameters[position].grad)  # type: ignore[arg-type]
        run.missing[self._bucket_of[position].index()] -= 1
        self._launch_complete(run)
        self._channel.poll()

    def _begin(self, position: int) -> None:
        """The first gradient has come: who has how many samples, and what will be reached?"""
        refuse_recorded()
        self._running = True
        queue_callback(self._finish)
        if self._override is not None:
            self._samples, self._override = self._override, None
        if self._samples is None:
            raise RuntimeError(
                "DistributedDataParallel cannot tell how many samples this rank had, since no argument of forward was "
                "a tensor: call set_samples(n) before backward()"
            )
        if not self._synchronized:
            self._accumulated += self._samples
            return
        samples, self._accumulated = self._samples + self._accumulated, 0
        reached = reached_positions(position, self._positions)
        header = np.zeros(REACHED + len(self._parameters), dtype=np.int64)
        header[SAMPLES], header[ACTIVE] = samples, 1
        header[[REACHED + place for place in reached]] = 1
        self._start(samples, header)

    def _start(self, samples: int, header: Array) -> _Pass:
        """Sends the header off; a bucket that nothing is to come for may follow at once."""
        missing = [sum(int(header[REACHED + place]) for place in bucket.positions) for bucket in self.buckets]
        self._pass = run = _Pass(samples, header, missing)
        self.reports = []
        run.tickets.append(self._channel.submit(self._count(run)))
        return run

    def _launch_complete(self, run: _Pass) -> None:
        while run.launched < len(self.buckets) and run.missing[run.launched] <= 0:
            self._launch(run)

    def _launch(self, run: _Pass) -> None:
        """The next bucket goes on its way, with zeros for what this rank has no gradient of."""
        if self._alone and self._hook is None:
            run.launched = len(self.buckets)
            return
        bucket = self.buckets[run.launched]
        run.launched += 1
        for _, parameter, view in _each(bucket):
            gradient = parameter.grad
            if gradient is None:
                view[...] = 0
            elif gradient._data is not view:
                np.copyto(view, _values(gradient))
        run.tickets.append(self._channel.submit(self._carry(run, bucket)))

    def _count(self, run: _Pass) -> Task:
        with tracing.span("all_reduce", "communication", bucket="samples", bytes=run.header.nbytes):
            yield from self._channel.reduce(self._communicator, run.header, "samples and reached parameters")

    def _carry(self, run: _Pass, bucket: GradBucket) -> Task:
        """Sums the weighted gradients of all ranks in the bucket's memory."""
        if run.total == 0:
            return
        kept = [
            (view, view.copy())
            for position, parameter, view in _each(bucket)
            if not run.reached_anywhere(position) and parameter.grad is not None
        ]
        if run.samples == 0:
            bucket.flat[...] = 0  # also where the gradient is NaN, the mean over no sample
        elif run.samples != run.total:
            with np.errstate(all="ignore"):
                bucket.flat *= bucket.flat.dtype.type(run.samples / run.total)
        if self._hook is not None:
            # A hook blocks. Polled, it would do so at another place of the backward pass than on the other ranks, which
            # may be in a collective of a layer, or of the user's, there.
            yield AtTheEnd()
        with tracing.span("all_reduce", "communication", bucket=bucket.label, bytes=bucket.flat.nbytes):
            if self._hook is None:
                yield from self._channel.reduce(self._communicator, bucket.flat, bucket.label)
            else:
                state, hook = self._hook
                with labelled(bucket.label):
                    self.reports.append(hook(state, bucket))
        for view, values in kept:  # a gradient from before that no rank has added to stays as it is, to the bit
            view[...] = values

    def _finish(self) -> None:
        """At the end of the backward pass: launches what is left, waits for all, hands the sums to the parameters."""
        self._running = False
        run = self._pass
        if run is None:
            return
        try:
            self._wait(run)
        finally:
            self._pass = None
        self._active = int(run.header[ACTIVE])
        if run.total == 0:
            raise CommunicationError(
                "no rank had a sample in this step, so there is no mean loss to take the gradient of; end the epoch "
                "when the data ends on all ranks"
            )
        if not self._alone or self._hook is not None:  # a hook may remember what it left out on more ranks
            for bucket in self.buckets:
                self._hand_back(run, bucket)
        if not self._alone:
            self._learn_order()
        self.finished = time.perf_counter()

    def _wait(self, run: _Pass) -> None:
        while run.launched < len(self.buckets):
            self._launch(run)
        for number, ticket in enumerate(run.tickets):
            label = self.buckets[number - 1].label if number else "samples"
            with tracing.span("wait", "wait", bucket=label):
                self._channel.wait(ticket)

    def _abandon(self) -> None:
        """A backward pass raised in the middle: the other ranks still get what they wait for, and it is forgotten."""
        run, self._pass = self._pass, None
        assert run is not None
        self._wait(run)

    def _hand_back(self, run: _Pass, bucket: GradBucket) -> None:
        """Hands the sums to the parameters; one that no rank has used keeps what it had, which may be None."""
        for position, parameter, view in _each(bucket):
            if not run.reached_anywhere(position):
                continue
            if parameter.grad is None:
                parameter.grad = Tensor(view if self._views else view.copy())
                if self._views:
                    self._given[position] = weakref.ref(parameter.grad)
                continue
            if parameter.grad._data is not view:
                _values(parameter.grad)[...] = view
            parameter.grad._changed()

    def _learn_order(self) -> None:
        """After the first pass: buckets in the order in which the gradients of rank 0 became final."""
        if self._order is None or len(self.buckets) == 1:
            return
        rest = [position for bucket in self.buckets for position in bucket.positions]  # those that were not reached
        order = np.array(list(dict.fromkeys(self._order + rest)), dtype=np.int64)
        self._order = None
        with labelled("order of the buckets"):
            self._communicator.broadcast(order)
        self.rebuild(self._bucket_cap_mb, order.tolist())

    # Without a backward pass -----------------------------------------------------------------------------------------

    def shadow(self) -> int:
        """Takes part in a backward pass of the other ranks with nothing to contribute.

        Returns:
            How many ranks still have batches; with 0 there was no pass, and all have come to their end.
        """
        header = np.zeros(REACHED + len(self._parameters), dtype=np.int64)
        run = self._start(0, header)
        self._channel.wait(run.tickets[0])
        if header[ACTIVE]:
            self._wait(run)
            if not self._alone:
                self._learn_order()
        self._pass = None
        return int(header[ACTIVE])


def refuse_recorded() -> None:
    """Raises RuntimeError where the running backward pass is itself recorded."""
    if is_grad_enabled():
        raise RuntimeError(
            "backward(create_graph=True) through DistributedDataParallel: the average over ranks cannot be "
            "recorded; use the wrapped module itself for higher derivatives"
        )


def reached_positions(position: int, positions: Mapping[int, int]) -> set[int]:
    """Which parameters the running backward pass reaches.

    Args:
        position: of the one that it has reached first, and now.
        positions: of each parameter's ``id``, its position.
    """
    return {position, *(positions[id(leaf)] for leaf in reachable_leaves() if id(leaf) in positions)}


def _each(bucket: GradBucket) -> list[tuple[int, Tensor, Array]]:
    return list(zip(bucket.positions, bucket.parameters(), bucket.views, strict=True))


def _values(gradient: Tensor) -> Array:
    return gradient.detach().numpy()


def _remove(handles: Sequence[Handle], parameters: Sequence[Tensor], channel: Any) -> None:
    for handle in handles:
        handle.remove()
    for parameter in parameters:
        parameter._grad_slot = None
    channel.close()


def _hook(reducer: weakref.ref[Reducer], position: int) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        present = reducer()
        if present is not None:
            present.ready(position)

    return hook
