"""``ZeroRedundancyOptimizer``: an optimizer whose state is shared out among the ranks (ZeRO stage 1)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import tracing
from ..autograd import Tensor, enable_grad, no_grad
from ..errors import CommunicationError
from ..optim import LBFGS, Optimizer
from ..optim.optimizer import Params
from . import process_group
from .collective_log import labelled
from .communicator import Array, Communicator

MESSAGE_BYTES = 16 << 20
"""How much of the parameters travels at once: the memory that a step needs beside the state."""


class ZeroRedundancyOptimizer(Optimizer):
    """Wraps an optimizer so that each rank keeps the state of its share of the parameters only, as in PyTorch.

    Every parameter belongs to one rank: they are taken group by group, the largest first, each by the rank that has the
    fewest elements so far. A step updates the rank's own parameters and then hands them to the others, in messages of
    at most 16 MiB. Gradients have to be equal on all ranks, as ``DistributedDataParallel`` leaves them; then parameters
    are, bit for bit, those that the optimizer alone would give. With Adam and ``p`` ranks each keeps about ``2 / p``
    times the parameters' memory instead of twice. What one rank keeps is at least the state of its largest parameter.

    It stands wherever an optimizer does: groups, ``add_param_group``, hooks, closures, learning-rate schedules. For a
    checkpoint all ranks call ``consolidate_state_dict``, and rank ``to`` has the ``state_dict`` of the optimizer alone,
    which may be loaded by it, or by this class at any world size.

    Example::

        optimizer = ZeroRedundancyOptimizer(model.parameters(), optim.AdamW, lr=1e-3)
        optimizer.consolidate_state_dict()
        if distributed.rank() == 0:
            save(optimizer.state_dict())

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them, the same on every rank.
        optimizer_class: one of ``distgrad.optim``, or another subclass of ``Optimizer`` that updates each parameter by
            itself. Not ``LBFGS``.
        communicator: the ranks; default: those of ``distgrad.distributed.init``. PyTorch's ``process_group``.
        defaults: arguments of ``optimizer_class``.

    Attributes:
        optim: the optimizer of this rank's parameters.

    Making it, ``add_param_group``, ``step`` and ``consolidate_state_dict`` are collectives.

    Raises:
        TypeError: ``optimizer_class`` is no optimizer.
        ValueError: it cannot be shared out, or what ``optimizer_class`` refuses.
        CommunicationError: the ranks have different parameters: raised on every rank.

    Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (SC 2020), in the
    form of ``torch.distributed.optim.ZeroRedundancyOptimizer``.
    """

    optim: Optimizer

    def __init__(
        self,
        params: Params,
        optimizer_class: type[Optimizer],
        communicator: Communicator | None = None,
        **defaults: Any,
    ) -> None:
        _check_class(optimizer_class)
        self._ranks = process_group.communicator() if communicator is None else communicator
        self._class = optimizer_class
        self._arguments = defaults
        self._owners: dict[Tensor, int] = {}
        self._loads = [0] * self._ranks.world_size  # elements of each rank
        self._consolidated: dict[Tensor, dict[str, Any]] | None = None
        self.parameter_shaped = optimizer_class.parameter_shaped
        self.scalar_state = optimizer_class.scalar_state
        if not isinstance(params, Tensor | set | frozenset):
            params = list(params)  # type: ignore[assignment]
        # One without parameters knows the defaults, and checks hyperparameters.
        self._pattern = optimizer_class([_hyperparameters_of_first(params) | {"params": []}], **defaults)
        self._made = False
        super().__init__(params, self._pattern.defaults)
        self._check_same(self.param_groups)
        self._made = True

    def check_group(self, group: dict[str, Any]) -> None:
        """As the optimizer class does."""
        self._pattern.check_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As ``Optimizer.add_param_group``; the new parameters go to the ranks that have the fewest. A collective."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if self._made:
            try:
                self._check_same([group])
            except CommunicationError:
                self.param_groups.pop()
                raise
        for param in sorted(group["params"], key=lambda param: -param.numel()):
            owner = self._loads.index(min(self._loads))
            self._owners[param] = owner
            self._loads[owner] += param.numel()
        own = _hyperparameters(group) | {"params": [param for param in group["params"] if self._is_own(param)]}
        if len(self.param_groups) == 1:
            self.optim = self._class([own], **self._arguments)
            self.optim.state = self.state
        else:
            self.optim.add_param_group(own)

    def owner(self, param: Tensor) -> int:
        """The rank that keeps the state of ``param``; raises KeyError for one that is in no group."""
        return self._owners[param]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient on the rank that it belongs to, and gives all ranks the result.

        Args:
            closure: called first, with recording on; computes the gradients anew and returns the loss.

        Returns:
            What ``closure`` returned, or None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self._consolidated = None
        _copy_hyperparameters(self.param_groups, self.optim.param_groups)  # a schedule changes those of this one
        self.optim.step()
        _copy_hyperparameters(self.optim.param_groups, self.param_groups)  # an optimizer may count in its group
        if self._ranks.world_size > 1:
            with no_grad(), tracing.span("all_gather", "communication", bucket="parameters"):
                self._exchange()
        return loss

    # The state -------------------------------------------------------------------------------------------------------

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Collects the state of all parameters on rank ``to``, where ``state_dict`` then gives it. A collective.

        It holds until the next ``step``. Rank ``to`` needs memory for the whole state, the others for their own once
        more.

        Args:
            to: the rank.

        Raises:
            ValueError: there is no such rank.
            TypeError: the optimizer keeps something else than tensors, numbers, text and None.
        """
        ranks = self._ranks
        if not 0 <= to < ranks.world_size:
            raise ValueError(f"consolidate_state_dict: to is {to}, but the ranks are 0 to {ranks.world_size - 1}")
        params = [param for group in self.param_groups for param in group["params"]]
        described: list[Any] = []
        arrays: list[Array] = []
        for number, param in enumerate(params):
            for name, value in self.state[param].items() if param in self.state else ():
                described.append([number, name, *_described(value, name)])
                if isinstance(value, Tensor):
                    arrays.append(np.ascontiguousarray(value._data).reshape(-1).view(np.uint8))
        send = np.concatenate([np.empty(0, np.uint8), *arrays])  # (bytes of this rank's state,)
        descriptions = [
            json.loads(text) for text in ranks.all_gather_bytes(json.dumps([send.size, described]).encode())
        ]
        here = ranks.rank == to
        counts = [size if here else 0 for size, _ in descriptions]
        receive = np.empty(sum(counts), np.uint8)
        with labelled("ZeroRedundancyOptimizer.consolidate_state_dict"):
            ranks.all_to_all(send, [send.size * (rank == to) for rank in range(ranks.world_size)], receive, counts)
        self._consolidated = None
        if not here:
            return
        found: dict[Tensor, dict[str, Any]] = {}
        start = 0
        for number, name, value, dtype, shape in (entry for _, part in descriptions for entry in part):
            if dtype is not None:
                length = int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
                array = receive[start : start + length].view(dtype).reshape(shape)
                value = Tensor(array.copy())
                start += length
            found.setdefault(params[number], {})[name] = value
        self._consolidated = {param: found[param] for param in params if param in found}

    def state_dict(self) -> dict[str, Any]:
        """That of the optimizer alone, on the rank that ``consolidate_state_dict`` has named. Its tensors are copies.

        Raises:
            RuntimeError: the state has not been collected here since the last step.
        """
        if self._consolidated is None:
            raise RuntimeError(
                f"rank {self._ranks.rank} does not have the whole optimizer state: after the last step every rank has "
                f"to call consolidate_state_dict(to={self._ranks.rank}) before state_dict() on this one"
            )
        return super().state_dict()

    def _state_to_save(self) -> dict[Tensor, dict[str, Any]]:
        return self._consolidated or {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a whole state, of this class at any world size or of the optimizer alone; keeps this rank's part.

        Args:
            state_dict: the same on every rank.

        Raises:
            ValueError: it does not fit; nothing is changed.
        """
        self._consolidated = None
        super().load_state_dict(state_dict)

    def _adopt(self, value: Any, param: Tensor, name: Any = None) -> Any:
        return super()._adopt(value, param, name) if self._is_own(param) else None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.state = defaultdict(dict, {p: entry for p, entry in self.state.items() if self._is_own(p)})
        self.optim.state = self.state
        _copy_hyperparameters(self.param_groups, self.optim.param_groups)

    # Between the ranks -----------------------------------------------------------------------------------------------

    def _is_own(self, param: Tensor) -> bool:
        return self._owners[param] == self._ranks.rank

    def _check_same(self, groups: Sequence[dict[str, Any]]) -> None:
        """Raises on every rank unless all have been given parameters of the same shapes in the same groups."""
        mine = [[[list(param.shape), str(param.dtype)] for param in group["params"]] for group in groups]
        everywhere = [json.loads(text) for text in self._ranks.all_gather_bytes(json.dumps(mine).encode())]
        for rank, theirs in enumerate(everywhere):
            if theirs != everywhere[0]:
                raise CommunicationError(
                    f"ZeroRedundancyOptimizer: {_difference(everywhere[0], theirs, rank)}; every rank must be given "
                    "the same parameters in the same groups and order"
                )

    def _exchange(self) -> None:
        """Every rank's own parameters to all others."""
        parts: dict[np.dtype[Any], list[list[Tensor]]] = {}
        for group in self.param_groups:
            for param in group["params"]:
                by_owner = parts.setdefault(param.dtype, [[] for _ in self._loads])
                by_owner[self._owners[param]].append(param)
        for dtype, by_owner in parts.items():
            self._send(dtype, by_owner)

    def _send(self, dtype: np.dtype[Any], by_owner: list[list[Tensor]]) -> None:
        """Those of one dtype, some elements of every rank in each message."""
        ranks = self._ranks
        lengths = [sum(param.numel() for param in params) for params in by_owner]
        room = max(1, MESSAGE_BYTES // dtype.itemsize // ranks.world_size)  # elements of one rank in a message
        memory = np.empty(sum(min(length, room) for length in lengths), dtype)
        for start in range(0, max(lengths), room):
            counts = [min(max(0, length - start), room) for length in lengths]
            flat = memory[: sum(counts)]
            parts = np.split(flat, np.cumsum(counts)[:-1])  # of each rank
            for elements, where, piece in _places(by_owner[ranks.rank], start, parts[ranks.rank]):
                piece[...] = elements[where]
            with labelled("ZeroRedundancyOptimizer.step"):
                ranks.all_gather_into(flat, counts)
            for rank, params in enumerate(by_owner):
                if rank != ranks.rank:
                    for elements, where, piece in _places(params, start, parts[rank]):
                        elements[where] = piece
        for param in (param for rank, params in enumerate(by_owner) if rank != ranks.rank for param in params):
            param._changed()


def _places(params: Sequence[Tensor], start: int, flat: Array) -> Iterator[tuple[Any, slice, Array]]:
    """Where the elements of ``flat`` belong, which are those from ``start`` on of the parameters one behind the other.

    Yields:
        A parameter's elements in row-major order, a slice of them, and the piece of ``flat`` that belongs there.
    """
    begin = -start  # of the parameter, in flat
    for param in params:
        end = begin + param.numel()
        first, last = max(begin, 0), min(end, flat.size)
        if first < last:
            array = param._data
            elements = array.reshape(-1) if array.flags.c_contiguous else array.flat
            yield elements, slice(first - begin, last - begin), flat[first:last]
        begin = end


def _check_class(optimizer_class: Any) -> None:
    if not (isinstance(optimizer_class, type) and issubclass(optimizer_class, Optimizer)):
        raise TypeError(
            f"ZeroRedundancyOptimizer: optimizer_class is {optimizer_class!r}, must be a class of distgrad.optim or "
            "another subclass of Optimizer, such as optim.AdamW"
        )
    if issubclass(optimizer_class, LBFGS):
        raise ValueError(
            "ZeroRedundancyOptimizer cannot share out LBFGS: it takes one step with all parameters together, so no "
            "rank can take a part of it; use LBFGS itself"
        )
    if issubclass(optimizer_class, ZeroRedundancyOptimizer):
        raise ValueError("ZeroRedundancyOptimizer cannot share out a ZeroRedundancyOptimizer; give the optimizer class")


def _difference(here: list[list[Any]], there: list[list[Any]], rank: int) -> str:
    """What sets the groups of rank 0, shapes and dtypes, apart from those of ``rank``."""
    sizes = [[len(group) for group in groups] for groups in (here, there)]
    if sizes[0] != sizes[1]:
        return f"the groups have {sizes[0]} parameters on rank 0 but {sizes[1]} on rank {rank}"
    flat = [[param for group in groups for param in group] for groups in (here, there)]
    place = next(place for place, (a, b) in enumerate(zip(*flat, strict=True)) if a != b)
    (shape, dtype), (other_shape, other_dtype) = flat[0][place], flat[1][place]
    return f"parameter {place} is {dtype} {shape} on rank 0 but {other_dtype} {other_shape} on rank {rank}"


def _hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def _hyperparameters_of_first(params: Any) -> dict[str, Any]:
    """Those of the first group, where there are groups."""
    first = params[0] if isinstance(params, list) and params else None
    return _hyperparameters(first) if isinstance(first, dict) else {}


def _copy_hyperparameters(source: Sequence[dict[str, Any]], target: Sequence[dict[str, Any]]) -> None:
    for group, own in zip(source, target, strict=True):
        own.update(_hyperparameters(group))


def _described(value: Any, name: str) -> list[Any]:
    """A piece of state that is no tensor, or a tensor's dtype and shape."""
    if isinstance(value, Tensor):
        return [None, str(value.dtype), list(value.shape)]
    if value is None or isinstance(value, bool | int | float | str):
        return [value, None, None]
    raise TypeError(
        f"consolidate_state_dict: the state {name!r} is a {type(value).__name__}; only tensors, numbers, text and None "
        "can be collected"
    )
