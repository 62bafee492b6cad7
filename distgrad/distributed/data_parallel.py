"""``DistributedDataParallel``: one model on many ranks, each with its share of the batch."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, cast

import numpy as np

from .. import tracing
from ..autograd import Tensor, is_grad_enabled
from ..nn.module import Module
from . import process_group
from .autotune import Autotune, StepTuner, autotune_for
from .comm_hooks.catalogue import make
from .comm_hooks.report import Report
from .communicator import Communicator
from .progress import Progress, choose_progress
from .reducer import CommHook, Reducer
from .reproducible import SliceReducer
from .same_model import check_unchanged, describe, split_buffers, synchronize, verify
from .same_numerics import check_same_numerics, pin_threads
from .sync_batch_norm import SyncBatchNorm
from .tree_sum import owners_of


class DistributedDataParallel(Module):
    """Wraps a module so that ``backward`` leaves the gradient of the global mean loss on every rank.

    Each rank runs forward and backward on its own shard with a loss that is a mean over the shard; shards may differ in
    size and may be empty, and the gradients are weighted by the true number of samples. After ``backward`` all ranks
    hold the same bits, so that the same optimizer step keeps the parameters equal. Every rank has to call forward and
    backward equally often, or to leave early inside ``join``. A parameter that one rank did not use counts there as a
    gradient of zero; one that no rank used keeps the ``grad`` it had, as with ``find_unused_parameters=True`` in
    PyTorch, which costs nothing here. The graph may differ from step to step and from rank to rank.

    Gradients travel in buckets while the backward pass goes on; ``progress`` says who carries them. They lie in the
    buckets' memory: as with PyTorch's ``gradient_as_bucket_view``, but a gradient tensor that you keep after
    ``zero_grad`` gets memory of its own before the next backward pass (views of it, and NumPy arrays, do not).

    On construction all ranks check that they have built the same model, and then receive rank 0's values: trainable
    parameters, and the buffers of modules that are not frozen, by one broadcast. What is frozen (``requires_grad`` is
    False) normally comes from the same file everywhere: only a digest of its bytes travels, and the values follow only
    if a digest differs. Frozen parameters are in no bucket and have no hook.

    A forward pass is counted when gradients are recorded, in ``train()`` and in ``eval()`` mode alike; one under
    ``no_grad`` leaves no trace. Its number of samples is the length of the first dimension of the first tensor among
    the arguments; ``set_samples`` overrides it for a loss that is a mean over something else. Buffers such as running
    statistics stay those of each rank until ``broadcast_buffers``.

    As in PyTorch, keys of ``state_dict`` begin with ``module.``; save ``ddp.module.state_dict()`` for keys without.

    Args:
        module: the model, the same on every rank; attribute ``module``.
        communicator: the ranks; default: those of ``distgrad.distributed.init``. Messages go over a duplicate of it.
        bucket_cap_mb: MiB of gradients that are reduced in one message; the first message is of at most 1 MiB. Several,
            or "auto": the one with which the first steps are fastest; see :mod:`distgrad.distributed.autotune`.
        progress: "thread": a thread that spends its time inside of MPI, for which a core should be free; "patient": a
            thread that looks in and sleeps; "poll": the backward pass looks in after each gradient (communication
            hooks, which block, wait for its end); "none": all at the end; "auto": what a short trial finds fastest
            here. The attribute of this name says what and why.
        gradient_as_bucket_view: let gradients lie in the buckets; False copies them in and out.
        comm_hook: how a bucket is summed: a name in ``comm_hooks.HOOKS``, such as "fp16"; None: "all_reduce". Several,
            or "auto" for all that are exact: the one with which the first steps are fastest. What was chosen is in the
            attribute ``autotune`` and printed on rank 0. ``register_comm_hook`` takes options, and hooks of your own.
        reproducible: the same bits at any number of ranks, see below.
        virtual_ranks: with ``reproducible``, into how many slices each global batch is cut; results depend on it.
        blas_threads: with ``reproducible``, the number of threads of BLAS, on which bits depend, in this process.

    **The same bits at any number of ranks.** With ``reproducible=True`` a step has ``virtual_ranks`` slices, of which
    each rank has its share, up to one forward and one backward pass for each; after the last one parameters have
    their gradients, and the optimizer steps::

        sampler = GlobalBatchSampler(data, 64, virtual_ranks=8)
        ddp = DistributedDataParallel(model, reproducible=True, virtual_ranks=8)
        for slices in DataLoader(data, batch_sampler=sampler):
            optimizer.zero_grad()
            for images, labels in slices:
                criterion(ddp(images), labels).backward()
            optimizer.step()

    Gradients are summed through one tree, whatever the number of ranks. Random numbers that a slice draws from the
    default generator, from its forward pass to the end of its backward pass, are keyed by its number and by where that
    generator stood when the step began, so that a resume restores the generator and no more. Running statistics and
    other buffers are combined in fixed order and equal on all ranks. A communication hook works on ``virtual_ranks``
    ranks, each with a state of its own; ``comm_hook_state`` saves and loads all of them. ``no_sync`` changes nothing
    here: gradients of several steps add up all the same. What decides bits besides, such as BLAS's kernels, is compared
    at the beginning.

    Raises:
        CommunicationError: the ranks have different models: raised on every rank, naming the first difference.
        RuntimeError: no parameter requires a gradient; or, in forward, a parameter was replaced, frozen, unfrozen or
            converted after wrapping.
        ValueError: ``bucket_cap_mb`` is not positive, or there is no such ``progress``.
    """

    _captures = False  # forward arms the reducer; what is inside can be compiled

    def __init__(
        self,
        module: Module,
        communicator: Communicator | None = None,
        bucket_cap_mb: float | Sequence[float] | str = 25,
        progress: str = "auto",
        gradient_as_bucket_view: bool = True,
        comm_hook: str | Sequence[str] | None = None,
        reproducible: bool = False,
        virtual_ranks: int = 8,
        blas_threads: int = 1,
    ) -> None:
        super().__init__()
        _check_sizes(bucket_cap_mb)
        self.module = module
        self._communicator = process_group.communicator() if communicator is None else communicator
        self._wrapped = describe(module)
        options = {
            "bucket_cap_mb": bucket_cap_mb,
            "progress": progress,
            "reproducible": reproducible,
            "comm_hook": comm_hook,
        }
        if reproducible:
            owners_of(virtual_ranks, self._communicator.world_size)
            pin_threads(blas_threads)
            check_same_numerics(self._communicator)
            options["virtual_ranks"] = virtual_ranks
        verify(self._communicator, module, options)
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters that require a "
                "gradient."
            )
        names, trainable = [name for name, _ in named], [p for _, p in named]
        frozen = [p for p in module.parameters() if not p.requires_grad]
        moving_buffers, frozen_buffers = split_buffers(module)
        synchronize(self._communicator, trainable + moving_buffers, frozen + frozen_buffers)
        octets = sum(p.numel() * p.element_size() for p in trainable)
        self.progress: Progress = choose_progress(progress, self._communicator, octets)
        self.autotune: Autotune | None = autotune_for(self._communicator, bucket_cap_mb, comm_hook, octets)
        if self.autotune is not None:
            if reproducible:
                raise ValueError(
                    "DistributedDataParallel: with reproducible=True nothing can be left to the clock: give one "
                    "bucket_cap_mb and one comm_hook, such as those that a run without it has chosen"
                )
            cap_mb = self.autotune.candidate.bucket_cap_mb
        else:
            cap_mb = cast(float, bucket_cap_mb)
        self._reducer: Reducer | SliceReducer
        if reproducible:
            self._reducer = SliceReducer(
                trainable, names, moving_buffers, self._communicator, cap_mb, self.progress, virtual_ranks
            )
        else:
            self._reducer = Reducer(
                trainable, names, self._communicator, cap_mb, self.progress, gradient_as_bucket_view
            )
        for name, layer in module.named_modules():
            if isinstance(layer, SyncBatchNorm):
                if isinstance(self._reducer, SliceReducer):
                    raise ValueError(
                        f"DistributedDataParallel: {name or 'the module'} is a SyncBatchNorm, but with "
                        "reproducible=True statistics are those of a slice: use BatchNorm, and fewer virtual_ranks for "
                        "larger slices"
                    )
                layer.weigh_by(self._reducer)
        self._comm_hook_state: Any = None
        self._synchronizes = True
        self._joining: _Join | None = None
        self._tuner: StepTuner | None = None
        if self.autotune is not None and isinstance(self._reducer, Reducer):
            self._tuner = StepTuner(self.autotune, self._reducer)
            self._comm_hook_state = self._tuner.hook_state
        elif comm_hook not in (None, "all_reduce"):
            self.register_comm_hook(*make(cast(str, comm_hook)))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module; when gradients are recorded, the next ``backward`` will be reduced over all ranks."""
        if is_grad_enabled():
            check_unchanged(self._wrapped, describe(self.module))
            if self._tuner is not None and self._synchronizes:
                self._tune(self._tuner)
            samples = _count_samples([*args, *kwargs.values()])
            if isinstance(self._reducer, SliceReducer):
                self._reducer.prepare(samples)
            else:
                self._reducer.prepare(samples, self._synchronizes)
            if self._joining is not None and self._synchronizes:
                self._joining.step()
        with tracing.span("forward"):
            return self.module(*args, **kwargs)

    def _tune(self, tuner: StepTuner) -> None:
        if self._joining is not None:  # where ranks take different numbers of steps
            tuner.skip()
            return
        tuner.step()
        if tuner.chooses_hook:
            self._comm_hook_state = tuner.hook_state
        if tuner.autotune.choice is not None:
            self._tuner = None

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside, gradients add up on each rank; the first backward pass of a forward outside reduces their sums.

        For large batches in several parts, as in PyTorch. The samples of all parts count: where every part's loss is
        divided by the number of parts, and they are of equal size, the result is the gradient of the mean over all.
        """
        before, self._synchronizes = self._synchronizes, False
        try:
            yield
        finally:
            self._synchronizes = before

    @contextlib.contextmanager
    def join(self, enable: bool = True, throw_on_early_termination: bool = False) -> Iterator[None]:
        """For ranks with uneven numbers of batches: who comes to the end early keeps the others company.

        Wrap the loop over batches. A rank that leaves the loop takes part in the gradients of the others with no sample
        until all have left; then all receive parameters and buffers of the rank that took the most steps. Its own
        optimizer has not taken those steps, so its momentum is behind, as in PyTorch. Only what this wrapper
        communicates is matched: no other collective may be called inside. Not needed with ``data.GlobalBatchSampler``,
        which gives every rank the same number of batches.

        Args:
            enable: False changes nothing.
            throw_on_early_termination: raise RuntimeError on every rank as soon as one runs out of batches.
        """
        if not enable:
            yield
            return
        if isinstance(self._reducer, SliceReducer):
            raise RuntimeError(
                "join: with reproducible=True every rank has its part of each step; cut the batches with "
                "data.GlobalBatchSampler(virtual_ranks=...), which gives all ranks the same number"
            )
        joining = self._joining = _Join(self._reducer, throw_on_early_termination)
        try:
            yield
        finally:
            self._joining = None
        steps = joining.finish()
        ranks = self._communicator
        furthest = int(ranks.all_gather(np.array(steps)).argmax())  # the first of those with the most
        moving_buffers, _ = split_buffers(self.module)
        trained = [p for p in self.module.parameters() if p.requires_grad]
        synchronize(ranks, trained + moving_buffers, [], src=furthest)

    def register_comm_hook(self, state: Any, hook: CommHook) -> None:
        """Lets ``hook(state, bucket)`` reduce the buckets from now on; see :mod:`distgrad.distributed.comm_hooks`.

        The hook is called by the channel that ``progress`` names, so maybe in another thread, with the same buckets in
        the same order on every rank. It overwrites ``bucket.buffer()`` by the sum over all ranks, or what it takes for
        it, the same bits on every rank, and returns a :class:`~distgrad.distributed.comm_hooks.Report`.

        Args:
            state: what the hook keeps, or None. A ``communicator`` attribute of it that is None is set to the one that
                buckets go over; None as a whole becomes that communicator.
            hook: the function.

        Raises:
            RuntimeError: a hook is being chosen.
        """
        if self._tuner is not None and self._tuner.chooses_hook:
            raise RuntimeError(
                "register_comm_hook: DistributedDataParallel was told to choose a hook, and is at it; leave comm_hook "
                "out to register one"
            )
        if isinstance(self._reducer, SliceReducer):
            self._reducer.set_hook(state, hook)
            self._comm_hook_state = self._reducer.hook_state
            return
        if state is None:
            state = self._reducer.communicator
        elif getattr(state, "communicator", self) is None:
            state.communicator = self._reducer.communicator
        self._reducer.set_hook(state, hook)
        self._comm_hook_state = state

    @property
    def comm_hook_state(self) -> Any:
        """What the registered hook remembers, for checkpoints; None without a hook.

        The state that was registered, or with ``reproducible=True`` that of all virtual ranks; see
        :mod:`distgrad.distributed.comm_hooks.state` for its methods.
        """
        return self._comm_hook_state

    @property
    def reports(self) -> list[Report]:
        """What the communication hook has said about each bucket of the last backward pass, in their order."""
        return list(self._reducer.reports)

    def set_samples(self, samples: SupportsIndex) -> None:
        """Weights this rank's next backward pass by ``samples``; called at any time before that ``backward``.

        For a loss that is a mean over fewer or other things than the samples of the batch: those whose label is not
        ignored, or the tokens of a text.

        Raises:
            ValueError: ``samples`` is negative.
        """
        count = operator.index(samples)
        if count < 0:
            raise ValueError(f"set_samples: {count} samples; the number cannot be negative")
        self._reducer.set_samples(count)

    def broadcast_buffers(self) -> None:
        """Gives every rank the buffers of rank 0; a collective, to be called before evaluation and saving.

        Buffers of frozen modules are compared by digest and sent only if they differ.
        """
        synchronize(self._communicator, *split_buffers(self.module))


def _check_sizes(bucket_cap_mb: float | Sequence[float] | str) -> None:
    """Raises ValueError unless all are positive."""
    if isinstance(bucket_cap_mb, str):
        return
    for size in [bucket_cap_mb] if isinstance(bucket_cap_mb, int | float) else bucket_cap_mb:
        if not size > 0:
            raise ValueError(f"DistributedDataParallel: bucket_cap_mb is {size}, must be above 0")


class _Join:
    """A loop that ranks may leave early."""

    def __init__(self, reducer: Reducer, strict: bool) -> None:
        self._reducer = reducer
        self._strict = strict
        self._steps = 0

    def step(self) -> None:
        """Counts a step that this rank begins."""
        self._check(self._reducer.active)
        self._steps += 1

    def finish(self) -> int:
        """Keeps the others company until all have left; how many steps this rank took."""
        while active := self._reducer.shadow():
            self._check(active)
        return self._steps

    def _check(self, active: int) -> None:
        if self._strict and active < self._reducer.communicator.world_size:
            raise RuntimeError(
                f"join: {self._reducer.communicator.world_size - active} of {self._reducer.communicator.world_size} "
                "ranks have no batches left (throw_on_early_termination=True)"
            )


def _count_samples(values: Iterable[Any]) -> int | None:
    """The length of the first dimension of the first tensor, also inside lists, tuples and dictionaries; else None."""
    for value in values:
        found: int | None = None
        if isinstance(value, Tensor):
            found = value.shape[0] if value.dim() > 0 else None
        elif isinstance(value, Mapping):
            found = _count_samples(value.values())
        elif isinstance(value, list | tuple):
            found = _count_samples(value)
        if found is not None:
            return found
    return None
