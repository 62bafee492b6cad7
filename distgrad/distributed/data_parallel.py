"""``DistributedDataParallel``: one model on many ranks, each with its share of the batch."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from ..autograd import Tensor, is_grad_enabled
from ..errors import CommunicationError
from ..nn.freeze import is_frozen
from ..nn.module import Module
from . import process_group
from .communicator import Array, Communicator
from .reducer import Reducer


class DistributedDataParallel(Module):
    """Wraps a module so that ``backward`` leaves the gradient of the global mean loss on every rank.

    Each rank runs forward and backward on its own shard with a loss that is a mean over the shard; shards may differ in
    size and may be empty, and the gradients are weighted by the true number of samples. After ``backward`` all ranks
    hold the same bits, so that the same optimizer step keeps the parameters equal. Every rank has to call forward and
    backward equally often. A parameter that one rank did not use counts there as a gradient of zero; one that no rank
    used keeps the ``grad`` it had, as with PyTorch's ``find_unused_parameters=True``.

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
        communicator: the ranks; default: those of ``distgrad.distributed.init``.
        bucket_cap_mb: MiB of gradients that are reduced in one message.

    Raises:
        CommunicationError: the ranks have different models: raised on every rank, naming the first difference.
        RuntimeError: no parameter requires a gradient; or, in forward, a parameter was replaced, frozen, unfrozen or
            converted after wrapping.
        ValueError: ``bucket_cap_mb`` is not positive.
    """

    _captures = False  # forward arms the reducer; what is inside can be compiled

    def __init__(self, module: Module, communicator: Communicator | None = None, bucket_cap_mb: float = 25) -> None:
        super().__init__()
        if not bucket_cap_mb > 0:
            raise ValueError(f"DistributedDataParallel: bucket_cap_mb is {bucket_cap_mb}, must be above 0")
        self.module = module
        self._communicator = process_group.communicator() if communicator is None else communicator
        self._wrapped = _description(module)
        _verify(self._communicator, module, bucket_cap_mb)
        trainable = [p for p in module.parameters() if p.requires_grad]
        if not trainable:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters that require a "
                "gradient."
            )
        frozen = [p for p in module.parameters() if not p.requires_grad]
        moving_buffers, frozen_buffers = _split_buffers(module)
        _synchronize(self._communicator, trainable + moving_buffers, frozen + frozen_buffers)
        self._reducer = Reducer(trainable, self._communicator, bucket_cap_mb)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module; when gradients are recorded, the next ``backward`` will be reduced over all ranks."""
        if is_grad_enabled():
            _check_unchanged(self._wrapped, _description(self.module))
            self._reducer.prepare(_count_samples([*args, *kwargs.values()]))
        return self.module(*args, **kwargs)

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
        _synchronize(self._communicator, *_split_buffers(self.module))


# ---- One model everywhere


def _verify(communicator: Communicator, module: Module, bucket_cap_mb: float) -> None:
    """Raises on every rank unless names, shapes, dtypes and requires_grad agree."""
    mine = {
        "parameter": [[n, list(p.shape), str(p.dtype), p.requires_grad] for n, p in module.named_parameters()],
        "buffer": [[n, list(b.shape), str(b.dtype)] for n, b in module.named_buffers()],
        "bucket_cap_mb": bucket_cap_mb,
    }
    texts = communicator.all_gather_bytes(json.dumps(mine).encode())
    if any(text != texts[0] for text in texts):
        difference = _first_difference([json.loads(text) for text in texts])
        raise CommunicationError(f"{difference}; every rank must wrap the same model in DistributedDataParallel")


def _first_difference(descriptions: Sequence[Mapping[str, Any]]) -> str:
    for kind in ("parameter", "buffer"):
        tables = [description[kind] for description in descriptions]
        for position in range(max(map(len, tables))):
            for rank in range(1, len(tables)):
                difference = _compare(kind, position, tables[0], tables[rank], rank)
                if difference is not None:
                    return difference
    caps = [description["bucket_cap_mb"] for description in descriptions]
    rank = next(rank for rank, cap in enumerate(caps) if cap != caps[0])
    return f"bucket_cap_mb is {caps[0]} on rank 0 but {caps[rank]} on rank {rank}"


def _compare(kind: str, position: int, first: list[list[Any]], other: list[list[Any]], rank: int) -> str | None:
    """What sets rank 0's entry apart from that of ``rank``, or None."""
    if position >= min(len(first), len(other)):
        if len(first) == len(other):
            return None
        present, absent = (0, rank) if len(first) > len(other) else (rank, 0)
        name = max(first, other, key=len)[position][0]
        return (
            f"{kind} {name!r} exists on rank {present} but not on rank {absent} ({len(first)} {kind}s on rank 0, "
            f"{len(other)} on rank {rank})"
        )
    mine, theirs = first[position], other[position]
    if mine[0] != theirs[0]:
        return f"{kind} {position} is {mine[0]!r} on rank 0 but {theirs[0]!r} on rank {rank}"
    for field, a, b in zip(("shape", "dtype", "requires_grad"), mine[1:], theirs[1:], strict=False):
        if a != b:
            return f"{kind} {mine[0]!r} has {field} {a} on rank 0 but {b} on rank {rank}"
    return None


def _description(module: Module) -> list[tuple[str, Tensor, np.dtype[Any], bool]]:
    return [(name, p, p.dtype, p.requires_grad) for name, p in module.named_parameters()]


def _check_unchanged(
    before: list[tuple[str, Tensor, np.dtype[Any], bool]], now: list[tuple[str, Tensor, np.dtype[Any], bool]]
) -> None:
    """Raises if the parameters are not those that the buckets were made for."""
    cure = "change the model before DistributedDataParallel wraps it, or wrap it again"
    for (name, parameter, dtype, required), (name_now, parameter_now, dtype_now, required_now) in zip(
        before, now, strict=False
    ):
        if name != name_now or parameter is not parameter_now:
            raise RuntimeError(f"parameter {name_now!r} was replaced after wrapping; {cure}")
        if required != required_now:
            raise RuntimeError(f"requires_grad of parameter {name!r} became {required_now} after wrapping; {cure}")
        if dtype != dtype_now:
            raise RuntimeError(f"parameter {name!r} became {dtype_now} from {dtype} after wrapping; {cure}")
    if len(before) != len(now):
        raise RuntimeError(f"the module has {len(now)} parameters but had {len(before)} when wrapped; {cure}")


# ---- The same values everywhere


def _split_buffers(module: Module) -> tuple[list[Tensor], list[Tensor]]:
    """Buffers that may move, and those of modules frozen by ``nn.freeze`` or in that all their parameters are."""
    tables: dict[bool, list[Tensor]] = {False: [], True: []}
    seen: set[int] = set()
    for child in module.modules():
        own = list(child.parameters(recurse=False))
        frozen = not any(p.requires_grad for p in own) if own else is_frozen(child)
        for buffer in child.buffers(recurse=False):
            if id(buffer) not in seen:
                seen.add(id(buffer))
                tables[frozen].append(buffer)
    return tables[False], tables[True]


def _synchronize(communicator: Communicator, moving: Sequence[Tensor], frozen: Sequence[Tensor]) -> None:
    """Rank 0's values on every rank: of ``moving`` in any case, of ``frozen`` only where they differ."""
    if communicator.world_size == 1:
        return
    _broadcast(communicator, moving)
    if frozen:
        digests = communicator.all_gather_bytes(_digest(frozen))
        if any(digest != digests[0] for digest in digests):
            _broadcast(communicator, frozen)


def _broadcast(communicator: Communicator, tensors: Sequence[Tensor]) -> None:
    """All of them in one message."""
    if not tensors:
        return
    packed = np.concatenate([_bytes_of(tensor) for tensor in tensors])
    communicator.broadcast(packed)
    if communicator.rank == 0:
        return
    start = 0
    for tensor in tensors:
        array = tensor.detach().numpy()
        array[...] = packed[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        tensor._changed()
        start += array.nbytes


def _digest(tensors: Iterable[Tensor]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(_bytes_of(tensor).data)
    return digest.digest()


def _bytes_of(tensor: Tensor) -> Array:
    """The elements in row-major order as ``(bytes,)``."""
    return np.ascontiguousarray(tensor.detach().numpy()).reshape(-1).view(np.uint8)


# ---- How many samples


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
