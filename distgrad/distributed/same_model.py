"""One model on all ranks: that they have built the same one is checked, and its values are those of rank 0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..errors import CommunicationError
from ..nn.freeze import is_frozen
from ..nn.module import Module
from .communicator import Array, Communicator

# ---- The same model


def verify(communicator: Communicator, module: Module, options: Mapping[str, Any]) -> None:
    """Raises on every rank unless names, shapes, dtypes and requires_grad agree, and ``options`` do. A collective.

    Raises:
        CommunicationError: names the first difference.
    """
    mine = {
        "parameter": [[n, list(p.shape), str(p.dtype), p.requires_grad] for n, p in module.named_parameters()],
        "buffer": [[n, list(b.shape), str(b.dtype)] for n, b in module.named_buffers()],
        "options": dict(options),
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
    options = [description["options"] for description in descriptions]
    rank, name = next((r, n) for r, given in enumerate(options) for n in options[0] if given[n] != options[0][n])
    return f"{name} is {options[0][name]} on rank 0 but {options[rank][name]} on rank {rank}"


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


def describe(module: Module) -> list[tuple[str, Tensor, np.dtype[Any], bool]]:
    """Names and parameters as they are now, for ``check_unchanged``."""
    return [(name, p, p.dtype, p.requires_grad) for name, p in module.named_parameters()]


def check_unchanged(
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


# ---- The same values


def split_buffers(module: Module) -> tuple[list[Tensor], list[Tensor]]:
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


def synchronize(communicator: Communicator, moving: Sequence[Tensor], frozen: Sequence[Tensor], src: int = 0) -> None:
    """Rank ``src``'s values on every rank: of ``moving`` always, of ``frozen`` only where they differ. A collective."""
    if communicator.world_size == 1:
        return
    _broadcast(communicator, moving, src)
    if frozen:
        digests = communicator.all_gather_bytes(_digest(frozen))
        if any(digest != digests[0] for digest in digests):
            _broadcast(communicator, frozen, src)


def _broadcast(communicator: Communicator, tensors: Sequence[Tensor], src: int) -> None:
    """All of them in one message."""
    if not tensors:
        return
    packed = np.concatenate([_bytes_of(tensor) for tensor in tensors])
    communicator.broadcast(packed, src)
    if communicator.rank == src:
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
