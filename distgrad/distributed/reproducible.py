"""The same bits at any number of ranks: each global batch is cut into fixed slices, whose gradients go through a tree.

A rank runs forward and backward for each of its slices by itself. What a slice computes depends on its samples and on
its number alone: its random numbers are keyed by that number, and it finds the buffers as they were when the step
began. The gradient of the mean loss over all ``N`` samples, ``1/N sum_v n_v g_v``, is summed through the tree of
:mod:`~distgrad.distributed.tree_sum`, to which each gradient is added as it becomes final, while it is in the cache.
During the backward pass of a rank's last slice a bucket travels as soon as it is complete. That training may give the
same bits on any number of workers is the idea of EasyScale (Li et al., SC 2023), which does it for GPUs of one kind.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tracing
from ..autograd import Tensor
from ..autograd.engine import queue_callback
from ..errors import CommunicationError
from ..kernels import kept_weights
from ..ops.random import Generator, default_generator, replace_default
from .bucket import GradBucket, make_buckets
from .channel import AtTheEnd, Task, Ticket
from .collective_log import labelled
from .comm_hooks.report import Report
from .communicator import Array, Communicator
from .progress import Progress, channel_for
from .reducer import CommHook, reached_positions, refuse_recorded
from .slice_buffers import SliceBuffers
from .tree_sum import LeafStep, TreeSum, owners_of
from .virtual_hook_state import VirtualHookState
from .virtual_ranks import VirtualCommunicator, run_virtual, virtual_communicators

# What each slice tells the other ranks: its samples, where the generator stood, 1 for each parameter it reaches.
_SAMPLES, _KEY, _REACHED = 0, 1, 2
# Elements that are scaled and added together: they and what they are added to stay in the second-level cache.
_CHUNK = 1 << 15


class _Step:
    """One step, slice by slice.

    Attributes:
        number: which of this rank's slices is at work.
        told: ``(virtual ranks, 2 + parameters)``: what each slice tells the others; complete after the exchange.
        versions: of the parameters when the step began.
        missing: of each bucket, how many gradients of the last slice are still to come.
        launched: how many buckets are on their way.
        tickets: of the exchange and the buckets.
    """

    def __init__(self, told: Array, versions: list[int]) -> None:
        self.number = 0
        self.told = told
        self.versions = versions
        self.missing: list[int] = []
        self.launched = 0
        self.tickets: list[Ticket] = []

    @property
    def total(self) -> int:
        """Samples of all slices, once they are known."""
        return int(self.told[:, _SAMPLES].sum())


class SliceReducer:
    """In place of :class:`~distgrad.distributed.reducer.Reducer` where a step has several slices.

    Args:
        parameters: those that require a gradient, in the same order on every rank.
        names: what they are called.
        buffers: those that forward passes may change.
        communicator: the ranks; messages go over a duplicate of it.
        bucket_cap_mb: size of a bucket in MiB.
        progress: who carries the buckets.
        virtual_ranks: slices in a step.

    Attributes:
        buckets: in the order in which they travel.
        reports: what the communication hook has said about each bucket in the last step.
        active: how many ranks take part: all.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        names: Sequence[str],
        buffers: Sequence[Tensor],
        communicator: Communicator,
        bucket_cap_mb: float,
        progress: Progress,
        virtual_ranks: int,
    ) -> None:
        self.reports: list[Report] = []
        self.active = communicator.world_size
        self._parameters = list(parameters)
        self._positions = {id(parameter): position for position, parameter in enumerate(parameters)}
        owners = owners_of(virtual_ranks, communicator.world_size)
        self._communicator = communicator.duplicate() if communicator.world_size > 1 else communicator
        self._channel = channel_for(progress)
        self._tree = TreeSum(owners, communicator.rank)
        self._buffers = SliceBuffers(buffers, self._tree)
        self._generators = _SliceGenerators(self._tree.leaves)
        self._hook: tuple[VirtualHookState, CommHook] | None = None
        self.buckets: list[GradBucket] = make_buckets(self._parameters, list(names), bucket_cap_mb)
        self._bucket_of = {position: bucket for bucket in self.buckets for position in bucket.positions}
        self._steps: Sequence[LeafStep] = self._tree.steps
        self._slots = [self.buckets, *([b.another() for b in self.buckets] for _ in range(1, self._tree.slots))]
        self._scratch: dict[np.dtype[Any], Array] = {}
        self._given: list[weakref.ref[Tensor] | None] = [None] * len(self._parameters)
        self._taken: set[int] = set()  # positions whose gradient of this slice has come
        self._untouched = True  # until the first forward pass
        self._armed = False  # whether there was a forward pass to come back from
        self._running = False
        self._samples: int | None = None
        self._override: int | None = None
        self._step: _Step | None = None
        own = weakref.ref(self)
        self._takers = [_taker(own, position) for position in range(len(self._parameters))]
        for parameter, taker in zip(self._parameters, self._takers, strict=True):
            parameter._taker = taker
        weakref.finalize(self, _remove, self._parameters, self._takers, self._channel)

    @property
    def communicator(self) -> Communicator:
        """What the buckets go over."""
        return self._communicator

    @property
    def samples(self) -> int | None:
        """What the slice at work counts as; None where that is not known."""
        return self._samples if self._override is None else self._override

    @property
    def slices(self) -> int:
        """How many slices a step has on this rank."""
        return len(self._tree.leaves)

    # Around a backward pass ------------------------------------------------------------------------------------------

    def prepare(self, samples: int | None) -> None:
        """Before the forward pass over the next slice, of ``samples`` samples (None: it cannot be told)."""
        if self._running:
            raise RuntimeError(
                "the backward pass of a slice has raised in the middle, so the step cannot be completed any more: go "
                "on from a checkpoint, with a new DistributedDataParallel"
            )
        versions = [parameter._version for parameter in self._parameters]
        if self._step is None:
            self._release_kept()
            told = np.zeros((len(self._tree.owners), _REACHED + len(self._parameters)), dtype=np.int64)
            self._step = _Step(told, versions)
            self._generators.begin_step()
            if self.slices > 1:
                kept_weights.keep([parameter._data for parameter in self._parameters])
        elif versions != self._step.versions:
            raise RuntimeError(
                f"parameters have changed after slice {self._step.number} of {self.slices} of a step: with "
                "reproducible=True the optimizer steps after all slices of a batch, for which "
                "data.GlobalBatchSampler(virtual_ranks=...) gives lists"
            )
        self._armed, self._untouched = True, False
        self._samples = samples
        self._buffers.begin(self._step.number)
        self._generators.begin(self._step.number)

    def set_samples(self, samples: int) -> None:
        """The next backward pass counts as one over ``samples`` samples, whatever the forward pass has seen."""
        self._override = samples

    def set_hook(self, state: Any, hook: CommHook) -> None:
        """From now on ``hook`` reduces the buckets, as on so many ranks as there are virtual ones."""
        if self._step is not None:
            raise RuntimeError("register_comm_hook: in the middle of a step; call it before the first slice")
        made = VirtualHookState(state, virtual_communicators(self._communicator, len(self._tree.owners)))
        self._hook = made, hook
        # every slice keeps gradients of its own
        self._steps = [LeafStep(number, False, ()) for number in range(self.slices)]
        while len(self._slots) < self.slices:
            self._slots.append([bucket.another() for bucket in self.buckets])

    @property
    def hook_state(self) -> VirtualHookState | None:
        """What the hook remembers, of all virtual ranks."""
        return None if self._hook is None else self._hook[0]

    def _release_kept(self) -> None:
        """The buckets are about to be overwritten: gradients that lie there get memory of their own."""
        for position, reference in enumerate(self._given):
            kept = None if reference is None else reference()
            if kept is not None:
                kept._data = kept._data.copy()
            self._given[position] = None

    # During a backward pass ------------------------------------------------------------------------------------------

    def take(self, position: int, gradient: Array) -> bool:
        """The gradient of the parameter at ``position`` is final in the backward pass that is running.

        Returns:
            Whether it is taken; not in a backward pass that has nothing to do with this wrapper.
        """
        if self._untouched:
            return False
        refuse_recorded()
        if not self._running:
            self._begin(position)
        step = self._step
        assert step is not None
        self._add(step, position, gradient)
        if step.number == self.slices - 1:
            step.missing[self._bucket_of[position].index()] -= 1
            while step.launched < len(self.buckets) and step.missing[step.launched] <= 0:
                self._launch(step)
        self._channel.poll()
        return True

    def _begin(self, position: int) -> None:
        """The first gradient of a slice has come."""
        if not self._armed or self._step is None:
            raise RuntimeError(
                "backward() without a forward pass of its own: with reproducible=True each slice of a step has one "
                "forward pass through DistributedDataParallel and then one backward pass; add up losses before it"
            )
        if self._override is not None:
            self._samples, self._override = self._override, None
        if self._samples is None:
            raise RuntimeError(
                "DistributedDataParallel cannot tell how many samples this slice had, since no argument of forward was "
                "a tensor: call set_samples(n) before backward()"
            )
        queue_callback(self._finish)
        self._running, self._armed = True, False
        self._taken = set()
        reached = reached_positions(position, self._positions)
        step = self._step
        row = step.told[self._tree.leaves[step.number]]
        row[_SAMPLES], row[_KEY] = self._samples, self._generators.mark
        row[[_REACHED + place for place in reached]] = 1
        if step.number == self.slices - 1:
            step.missing = [sum(place in reached for place in bucket.positions) for bucket in self.buckets]
            self.reports = []
            step.tickets.append(self._channel.submit(self._tell(step)))

    def _add(self, step: _Step, position: int, gradient: Array | None) -> None:
        """Adds the gradient of a slice, None for one of zeros, to the tree."""
        bucket = self._bucket_of[position]
        place = bucket.positions.index(position)
        slot, adds, merges = self._steps[step.number]
        target = self._slots[slot][bucket.index()].views[place]
        samples = self._samples or 0
        if gradient is None or samples == 0:  # the mean over no sample may be NaN, and has no say
            if adds:
                target += 0.0  # as if it were there: it makes -0 to 0
            else:
                target[...] = 0
        elif self._hook is not None or samples == 1:
            (np.add(target, gradient, out=target) if adds else np.copyto(target, gradient))
        elif adds:
            self._add_scaled(target, gradient, samples)
        else:
            np.multiply(gradient, samples, out=target)
        for into, other in merges:
            left = self._slots[into][bucket.index()].views[place]
            np.add(left, self._slots[other][bucket.index()].views[place], out=left)
        self._taken.add(position)

    def _add_scaled(self, target: Array, gradient: Array, samples: int) -> None:
        """``target += samples * gradient``, in pieces that stay in the cache in between."""
        scratch = self._scratch.get(target.dtype)
        if scratch is None:
            scratch = self._scratch[target.dtype] = np.empty(_CHUNK, target.dtype)
        if target.size <= _CHUNK or not gradient.flags.c_contiguous:
            target += gradient * samples
            return
        flat, values = target.reshape(-1), gradient.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            piece = flat[start : start + _CHUNK]
            scaled = np.multiply(values[start : start + _CHUNK], samples, out=scratch[: piece.size])
            np.add(piece, scaled, out=piece)

    def _complete(self, step: _Step, bucket: GradBucket) -> None:
        """Zeros for what the slice has not reached."""
        for position in bucket.positions:
            if position not in self._taken:
                self._add(step, position, None)

    def _finish(self) -> None:
        """At the end of a slice's backward pass; at the end of the last one's the parameters get their gradients."""
        self._running = False
        step = self._step
        assert step is not None and self._samples is not None
        self._generators.end()
        self._buffers.collect(step.number, self._samples)
        if step.number < self.slices - 1:
            for bucket in self.buckets:
                self._complete(step, bucket)
            step.number += 1
            return
        while step.launched < len(self.buckets):
            self._launch(step)
        step.tickets.append(self._channel.submit(self._combine_buffers(step)))
        self._step = None
        kept_weights.forget()
        labels = ["slices", *(bucket.label for bucket in self.buckets), "buffers"]
        for label, ticket in zip(labels, step.tickets, strict=True):
            with tracing.span("wait", "wait", bucket=label):
                self._channel.wait(ticket)
        if step.total == 0:
            raise CommunicationError(
                "no slice had a sample in this step, so there is no mean loss to take the gradient of; end the epoch "
                "when the data ends on all ranks"
            )
        for bucket in self.buckets:
            self._hand_back(step, bucket)

    def _hand_back(self, step: _Step, bucket: GradBucket) -> None:
        """Adds the sums to what the parameters have; one that no slice has used keeps that, which may be None."""
        used = step.told[:, _REACHED:].max(axis=0)
        for position, parameter, view in zip(bucket.positions, bucket.parameters(), bucket.views, strict=True):
            if not used[position]:
                continue
            if parameter.grad is None:
                parameter.grad = Tensor(view)
                self._given[position] = weakref.ref(parameter.grad)
            else:
                parameter.grad.detach().numpy()[...] += view
                parameter.grad._changed()

    # What travels ----------------------------------------------------------------------------------------------------

    def _tell(self, step: _Step) -> Task:
        """All slices' samples and reached parameters to all ranks."""
        width = step.told.shape[1]
        counts = [width * self._tree.owners.count(rank) for rank in range(self._communicator.world_size)]
        yield AtTheEnd()  # all that follows blocks: polled, it would do so at a place that only time decides
        with tracing.span("all_gather", "communication", bucket="slices", bytes=step.told.nbytes), labelled("slices"):
            self._communicator.all_gather_into(step.told.reshape(-1), counts)
        different = np.flatnonzero(step.told[:, _KEY] != step.told[0, _KEY])
        if different.size:
            rank = self._tree.owners[int(different[0])]
            raise CommunicationError(
                f"the default random generator of rank {rank} does not stand where that of rank 0 does, so dropout "
                "would depend on the number of ranks: call distgrad.manual_seed(seed) with one seed on every rank, and "
                "draw from the default generator on all ranks or on none; else from a distgrad.Generator of your own"
            )

    def _launch(self, step: _Step) -> None:
        """The next bucket goes on its way."""
        bucket = self.buckets[step.launched]
        step.launched += 1
        self._complete(step, bucket)
        step.tickets.append(self._channel.submit(self._carry(step, bucket)))

    def _carry(self, step: _Step, bucket: GradBucket) -> Task:
        if step.total > 0:
            size = bucket.flat.nbytes
            with tracing.span("tree_sum", "communication", bucket=bucket.label, bytes=size), labelled(bucket.label):
                self._sum(step, bucket)
        yield from ()

    def _sum(self, step: _Step, bucket: GradBucket) -> None:
        parts = [buckets[bucket.index()] for buckets in self._slots]
        if self._hook is None:
            flats = [part.flat for part in parts]
            with np.errstate(all="ignore"):
                self._tree.finish(flats, bucket.flat, self._communicator, divisor=step.total)
            return
        virtual, hook = self._hook

        def play(number: int, _: VirtualCommunicator) -> Report:
            flat, samples = parts[number].flat, int(step.told[self._tree.leaves[number], _SAMPLES])
            if samples != step.total:
                flat *= flat.dtype.type(samples / step.total)
            with labelled(bucket.label):
                return hook(virtual.states[number], parts[number])

        reports = run_virtual(virtual.communicators, play)
        self.reports.append(Report(sum(r.bytes_sent for r in reports), max(r.error_bound for r in reports)))

    def _combine_buffers(self, step: _Step) -> Task:
        if step.total > 0:
            with labelled("buffers"):
                self._buffers.combine(self._communicator, step.total)
        yield from ()


class _SliceGenerators:
    """Puts a stream of its own in place of the default generator while a slice is at work.

    A step's key is drawn from the default generator, which must stand at the same place on all ranks; saving and
    restoring that one (``get_rng_state``) is all that a resume needs.
    """

    def __init__(self, leaves: Sequence[int]) -> None:
        self._leaves = leaves
        self._key: list[int] = []
        self._seed = 0
        self._replaced: list[Generator | None] = []  # what was there before; empty while nothing is replaced
        self._of_slice: int | None = None
        self._thread: int | None = None

    def begin_step(self) -> None:
        self.end()
        self._key = default_generator.stream.integers(0, 2**64, 2, np.uint64).tolist()
        self._seed = default_generator.initial_seed()

    @property
    def mark(self) -> int:
        """What tells steps' keys apart, as a signed word."""
        return self._key[0] >> 1

    def begin(self, number: int) -> None:
        if self._replaced:
            return  # a second forward pass of the same slice goes on in its stream
        self._replaced = [replace_default(Generator.keyed(self._key, self._leaves[number], self._seed))]
        self._thread = threading.get_ident()

    def end(self) -> None:
        if self._replaced and self._thread == threading.get_ident():
            replace_default(self._replaced[0])
        self._replaced = []


def _taker(reducer: weakref.ref[SliceReducer], position: int) -> Callable[[Array], bool]:
    def take(gradient: Array) -> bool:
        present = reducer()
        return present is not None and present.take(position, gradient)

    return take


def _remove(parameters: Sequence[Tensor], takers: Sequence[Any], channel: Any) -> None:
    for parameter, taker in zip(parameters, takers, strict=True):
        if parameter._taker is taker:
            parameter._taker = None
    channel.close()
