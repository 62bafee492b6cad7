"""Post-local SGD: after a while ranks go their own way, and their parameters are averaged now and then.

Source: Lin et al. 2018, "Don't use large mini-batches, use local SGD", with the names of PyTorch's
``post_localSGD_hook``, ``PeriodicModelAverager`` and ``PostLocalSGDOptimizer``::

    state = PostLocalSGDState(subgroup=None, start_localSGD_iter=100)
    model.register_comm_hook(state, post_localSGD_hook)
    averager = PeriodicModelAverager(period=4, warmup_steps=100)
    optimizer = PostLocalSGDOptimizer(SGD(model.parameters(), lr=0.01), averager)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...autograd import Tensor
from ...optim import Optimizer
from .. import process_group
from .all_reduce import allreduce_hook
from .report import Report, all_reduce_bytes, communicator_of, sum_error
from .state import HookState

if TYPE_CHECKING:
    from ..bucket import GradBucket
    from ..communicator import Communicator

_MESSAGE_BYTES = 25 << 20


class PostLocalSGDState(HookState):
    """When gradients are summed over all ranks, and over whom later.

    Args:
        communicator: all ranks; as in ``HookState``.
        subgroup: the ranks whose gradients are summed from ``start_localSGD_iter`` on; None: those on this host.
        start_localSGD_iter: so many steps are plain data-parallel ones. ``PeriodicModelAverager`` begins to average at
            the same step: give it the same ``warmup_steps``.
        post_local_gradient_allreduce: False: from then on gradients are summed over nobody.

    Attributes:
        iter: steps so far.

    Raises:
        ValueError: ``start_localSGD_iter`` is negative.
    """

    def __init__(
        self,
        communicator: Communicator | None = None,
        subgroup: Communicator | None = None,
        start_localSGD_iter: int = 0,
        post_local_gradient_allreduce: bool = True,
    ) -> None:
        super().__init__(communicator)
        if start_localSGD_iter < 0:
            raise ValueError(f"PostLocalSGDState: start_localSGD_iter is {start_localSGD_iter}, must not be negative")
        self.subgroup = subgroup
        self.start_localSGD_iter = start_localSGD_iter
        self.post_local_gradient_allreduce = post_local_gradient_allreduce
        self.iter = 0

    def maybe_increase_iter(self, bucket: GradBucket) -> None:
        """Counts the step when its last bucket is done."""
        if bucket.is_last():
            self.iter += 1

    def state_dict(self) -> dict[str, Any]:
        """The number of steps."""
        return {"iter": self.iter}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over the number of steps."""
        self.iter = int(state_dict["iter"])


def post_localSGD_hook(state: PostLocalSGDState, bucket: GradBucket) -> Report:
    """Sums the bucket over all ranks until ``start_localSGD_iter``, then over the subgroup or over nobody.

    A sum over ``G`` of ``N`` ranks is multiplied by ``N / G``. Gradients come weighted by ``n_r / sum n``, so that a
    group with an equal share of the samples gets the mean over them, and one with a larger share takes as much larger a
    step: the average over all ranks of one such step is the plain data-parallel step, with shards of any size.

    The error bound, element by element and relative to ``N / G sum_r |g_r|`` over those who take part, is that of a sum
    in any order, and two roundings for the factor: ``gamma(G + 1)``. From ``start_localSGD_iter`` on the result differs
    between groups on purpose.

    Args:
        state: the ranks.
        bucket: this rank's gradients, already weighted; holds the sum afterwards.

    Raises:
        RuntimeError: ranks are virtual (``reproducible=True``): those of one process share their parameters.
    """
    communicator = communicator_of(state)
    if communicator.backend == "virtual":
        raise RuntimeError(
            "post_localSGD_hook: each rank goes its own way, but with reproducible=True the virtual ranks of a process "
            "share one model: use another hook, or set reproducible=False"
        )
    buffer, size = bucket.buffer(), communicator.world_size
    if state.iter < state.start_localSGD_iter:
        report = allreduce_hook(communicator, bucket)
    else:
        group = 1
        if state.post_local_gradient_allreduce:
            if state.subgroup is None:
                state.subgroup = _of_this_host(communicator)
            state.subgroup.all_reduce(buffer)
            group = state.subgroup.world_size
        buffer *= buffer.dtype.type(size / group)
        report = Report(all_reduce_bytes(buffer.size, buffer.itemsize, group), sum_error(group + 2, buffer.dtype))
    state.maybe_increase_iter(bucket)
    return report


def _of_this_host(communicator: Communicator) -> Communicator:
    names = communicator.all_gather_bytes(communicator.hostname.encode())
    group = communicator.split(names.index(names[communicator.rank]))
    return communicator if group is None else group


class PeriodicModelAverager:
    """Averages parameters over ranks in every ``period``-th call after a warm-up.

    Args:
        period: calls from one averaging to the next.
        warmup_steps: calls before the first, in which ranks are taken to be equal.
        communicator: the ranks; None: those of ``distgrad.distributed.init``, when first called.

    Attributes:
        step: calls so far.

    Raises:
        ValueError: ``warmup_steps`` is negative, or ``period`` below 1.
    """

    def __init__(self, period: int, warmup_steps: int = 0, communicator: Communicator | None = None) -> None:
        if warmup_steps < 0:
            raise ValueError(f"PeriodicModelAverager: warmup_steps is {warmup_steps}, must not be negative")
        if period < 1:
            raise ValueError(
                f"PeriodicModelAverager: period is {period}, must be at least 1, which averages after every step"
            )
        self.period = period
        self.warmup_steps = warmup_steps
        self.communicator = communicator
        self.step = 0

    def average_parameters(self, params: Iterable[Tensor] | Iterable[dict[str, Any]]) -> None:
        """Averages now if it is time, in place; a collective then. Frozen parameters are left alone.

        Args:
            params: parameters, or an optimizer's ``param_groups``; the same on every rank.
        """
        if self.step >= self.warmup_steps and (self.step - self.warmup_steps) % self.period == 0:
            communicator = process_group.communicator() if self.communicator is None else self.communicator
            average_parameters(params, communicator)
        self.step += 1


def average_parameters(params: Iterable[Tensor] | Iterable[dict[str, Any]], communicator: Communicator) -> None:
    """Replaces parameters by their means over all ranks, in place and with the same bits everywhere; a collective.

    Args:
        params: parameters, or an optimizer's ``param_groups``; those that require no gradient are left alone.
        communicator: the ranks.
    """
    if communicator.world_size == 1:
        return
    tensors: list[Tensor] = []
    for entry in params:
        tensors += entry["params"] if isinstance(entry, dict) else [entry]
    waiting: list[Tensor] = []
    for tensor in tensors:
        if not tensor.requires_grad:
            continue
        if waiting and (waiting[0].dtype != tensor.dtype or sum(_bytes(t) for t in waiting) >= _MESSAGE_BYTES):
            _average(waiting, communicator)
            waiting = []
        waiting.append(tensor)
    if waiting:
        _average(waiting, communicator)


def _average(tensors: list[Tensor], communicator: Communicator) -> None:
    """All of them, of one dtype, in one message."""
    flat = np.concatenate([tensor.detach().numpy().reshape(-1) for tensor in tensors])
    flat /= communicator.world_size  # before the sum, so that it cannot overflow
    communicator.all_reduce(flat)
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.numel()
        values = tensor.detach().numpy()
        values[...] = flat[start:end].reshape(values.shape)
        tensor._changed()  # a backward that has saved the old values must notice


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class PostLocalSGDOptimizer(Optimizer):
    """An optimizer of this rank alone, and the averaging of its parameters after its steps.

    Everything else is the wrapped optimizer's: its groups, its state, its hooks.

    Args:
        optim: what takes the steps.
        averager: what averages after them, such as ``PeriodicModelAverager``.
    """

    def __init__(self, optim: Optimizer, averager: PeriodicModelAverager) -> None:
        self._make_hook_tables()
        self.optim = optim
        self.averager = averager

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of the wrapped optimizer."""
        return self.optim.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The state of the wrapped optimizer."""
        return self.optim.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The hyperparameters of the wrapped optimizer."""
        return self.optim.defaults

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of the wrapped optimizer, and the averaging if it is time; a collective then."""
        loss = self.optim.step(closure)
        self.averager.average_parameters(self.optim.param_groups)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimizer."""
        self.optim.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As the wrapped optimizer."""
        self.optim.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """That of the wrapped optimizer, and under ``"step"`` the averager's count of steps."""
        return {**self.optim.state_dict(), "step": self.averager.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the wrapped optimizer and the averager's count; warns, and begins at 0, where there is none."""
        given = dict(state_dict)
        step = given.pop("step", None)
        self.optim.load_state_dict(given)
        if step is None:
            warnings.warn(
                "Loaded state dict does not contain a step counter for an averager. Setting step counter to 0.",
                stacklevel=2,
            )
        self.averager.step = 0 if step is None else int(step)

    def __repr__(self) -> str:
        return repr(self.optim)
