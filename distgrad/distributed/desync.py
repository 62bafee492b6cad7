"""Whether all ranks still have the same model: parameters, buffers and optimizer state, by digest.

Data-parallel ranks never send their parameters again: they stay equal because each takes the same step. A rank with a
flaky memory, another library, or a program that does something on one rank only, goes its own way without a word. A
check costs one pass over the memory and a message of 16 bytes; only a difference costs more.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..errors import CommunicationError
from ..nn.batchnorm import _BatchNorm
from ..nn.module import Module
from ..optim.optimizer import Optimizer
from . import process_group
from .collective_log import labelled
from .communicator import Array, Communicator
from .data_parallel import DistributedDataParallel
from .same_model import split_buffers
from .sync_batch_norm import SyncBatchNorm
from .zero_redundancy_optimizer import ZeroRedundancyOptimizer

PIECE = 1 << 22  # elements that are sent at a time to find out how much values differ
SHOWN = 4  # differences that a message names


@dataclass
class _Item:
    """Something that all ranks must have the same of.

    Attributes:
        name: "parameter layer1.0.conv1.weight".
        tensor: its values; None: a plain value.
        value: a plain value that JSON can hold.
        store: puts a new tensor or value in its place.
    """

    name: str
    tensor: Tensor | None
    value: Any
    store: Callable[[Any], None]

    @property
    def kind(self) -> list[Any]:
        """Shape and dtype, or the value itself."""
        return ["value", self.value] if self.tensor is None else [list(self.tensor.shape), str(self.tensor.dtype)]

    def digest(self) -> str:
        """16 hexadecimal digits of the values and more of the kind."""
        if self.tensor is None:
            return json.dumps(self.kind)
        return f"{json.dumps(self.kind)} {digest(self.tensor.detach().numpy())}"


def digest(array: Array) -> str:
    """24 hexadecimal digits that stand for the elements of ``array`` in row-major order.

    A checksum (CRC-32, which sees every change of up to 32 neighbouring bits) and the sum of the 64-bit words: nearly
    as fast as memory, and good against accidents, not against an adversary. Bits are compared: 0 and -0 differ.
    """
    octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    words = octets[: octets.size // 8 * 8].view(np.uint64)
    return f"{zlib.crc32(octets.data):08x}{int(words.sum(dtype=np.uint64)):016x}"


class DesyncCheck:
    """Compares the ranks' models every so many steps; a difference is an error on every rank, or is healed.

    Example::

        check = DesyncCheck(model, optimizer, every=100)
        for images, labels in loader:
            ...
            optimizer.step()
            check.step()

    The running statistics of ``BatchNorm`` layers in training mode are left out by default, but not those of
    ``SyncBatchNorm``: ``DistributedDataParallel`` leaves them to each rank until ``broadcast_buffers``. Ranks that
    train apart on purpose (post-local SGD) are equal only after they have averaged: ``every`` is a multiple of that.

    Args:
        model: the model, the same on every rank; inside ``DistributedDataParallel`` its names are those of the module.
        optimizer: whose state and hyperparameters are compared too. Of one that shards its state over the ranks
            (``ZeroRedundancyOptimizer``) only the hyperparameters are.
        every: steps between two checks; 0: only when ``check`` is called.
        heal: instead of raising, give every rank rank 0's values, in place, and say so.
        buffers: True: all; False: none; None: all that have to be equal.
        frozen: whether what is frozen is compared too: parameters that need no gradient, and buffers of such modules.
        communicator: the ranks; default: those of ``distgrad.distributed.init``.

    Attributes:
        steps: how often ``step`` was called; set it when training goes on from a checkpoint.
        equal_at: the step at which all ranks were last found, or made, equal; -1: never.

    Raises:
        ValueError: ``every`` is negative.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer | None = None,
        *,
        every: int = 100,
        heal: bool = False,
        buffers: bool | None = None,
        frozen: bool = True,
        communicator: Communicator | None = None,
    ) -> None:
        if every < 0:
            raise ValueError(f"DesyncCheck: every is {every}, must be a number of steps; 0: only when asked")
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.optimizer = optimizer
        self.every = every
        self.heal = heal
        self.buffers = buffers
        self.frozen = frozen
        self.steps = 0
        self.equal_at = -1
        self._communicator = process_group.communicator() if communicator is None else communicator

    def step(self) -> bool:
        """Counts one step of training, and checks after every ``every``-th; see :meth:`check`."""
        self.steps += 1
        return True if not self.every or self.steps % self.every else self.check()

    def check(self) -> bool:
        """Compares now. A collective.

        Returns:
            Whether all ranks were equal; False: they are now, by healing.

        Raises:
            CommunicationError: they were not, on every rank: it names what differs, on which rank, by how much, and
                since when. With ``heal`` only where parameters or buffers have other shapes.
        """
        if self._communicator.world_size == 1:
            return True
        with labelled(f"desync check at step {self.steps}"):
            items = list(self._items())
            whole = hashlib.blake2b(digest_size=16)
            digests = [item.digest() for item in items]
            for item, text in zip(items, digests, strict=True):
                whole.update(f"{item.name} {text}\n".encode())
            found = self._communicator.all_gather(np.frombuffer(whole.digest(), dtype=np.uint8))
            if (found == found[0]).all():
                self.equal_at = self.steps
                return True
            self._differ(items, digests)
        self.equal_at = self.steps
        return False

    # ---- What is compared

    def _items(self) -> Iterator[_Item]:
        names: dict[Tensor, str] = {}
        for name, parameter in self.model.named_parameters():
            names[parameter] = name
            if self.frozen or parameter.requires_grad:
                yield _Item(f"parameter {name}", parameter, None, _refuse)
        own = self._own_buffers()
        for name, buffer in self.model.named_buffers():
            if id(buffer) not in own:
                yield _Item(f"buffer {name}", buffer, None, _refuse)
        if self.optimizer is not None:
            yield from self._optimizer_items(self.optimizer, names)

    def _own_buffers(self) -> set[int]:
        """Buffers that are not compared."""
        frozen = set() if self.frozen else {id(buffer) for buffer in split_buffers(self.model)[1]}
        if self.buffers is True:
            return frozen
        return frozen | {
            id(buffer)
            for module in self.model.modules()
            if self.buffers is False
            or (module.training and isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm))
            for buffer in module.buffers(recurse=False)
        }

    def _optimizer_items(self, optimizer: Optimizer, names: dict[Tensor, str]) -> Iterator[_Item]:
        sharded = isinstance(optimizer, ZeroRedundancyOptimizer)
        for number, group in enumerate(optimizer.param_groups):
            for key in sorted(group):
                if key not in ("params", "param_names") and _is_plain(group[key]):
                    yield _Item(f"optimizer group {number}, {key}", None, group[key], _storing(group, key))
                elif isinstance(group[key], Tensor):
                    yield _Item(f"optimizer group {number}, {key}", group[key], None, _storing(group, key))
            for position, parameter in enumerate(group["params"]):
                state = None if sharded else optimizer.state.get(parameter)
                owner = names.get(parameter, f"number {position} of group {number}")
                for key in sorted(state or ()):
                    assert state is not None
                    name = f"optimizer state {key} of {owner}"
                    if isinstance(state[key], Tensor):
                        yield _Item(name, state[key], None, _storing(state, key))
                    elif _is_plain(state[key]):
                        yield _Item(name, None, state[key], _storing(state, key))

    # ---- A difference

    def _differ(self, items: Sequence[_Item], digests: Sequence[str]) -> None:
        """Raises or heals; all ranks know by now that they are not equal."""
        mine = [[item.name, text, item.kind] for item, text in zip(items, digests, strict=True)]
        tables: list[dict[str, tuple[str, Any]]] = [
            {name: (text, kind) for name, text, kind in json.loads(sent)}
            for sent in self._communicator.all_gather_bytes(json.dumps(mine).encode())
        ]
        order = list(dict.fromkeys(name for table in tables for name in table))
        different = [name for name in order if len({_text(table, name) for table in tables}) > 1]
        by_name = {item.name: item for item in items}
        lines = [self._line(name, by_name, tables) for name in different[:SHOWN]]
        if len(different) > SHOWN:
            lines.append(f"and {len(different) - SHOWN} more")
        since = f"they were equal at step {self.equal_at}" if self.equal_at >= 0 else "this is the first check"
        message = f"step {self.steps}: " + "; ".join(lines) + f"; {since}"
        if not self.heal:
            raise CommunicationError(
                f"{message}. A rank has gone its own way: look for what only it does, or heal from rank 0 (heal=True)"
            )
        self._heal(different, by_name, tables, message)

    def _line(self, name: str, items: dict[str, _Item], tables: Sequence[dict[str, tuple[str, Any]]]) -> str:
        """One difference: who is the odd one, and by how much. A collective, if all have values of the same shape."""
        texts = [_text(table, name) for table in tables]
        reference, odd = _odd_ones(texts)
        missing = [rank for rank in odd if texts[rank] is None]
        if texts[reference] is None or missing:
            has, lacks = (odd[0], reference) if texts[reference] is None else (reference, missing[0])
            return f"{name} exists on rank {has} but not on rank {lacks}"
        kinds = [table[name][1] for table in tables]
        of, is_plain = (
            ("ranks " if len(odd) > 1 else "rank ") + ", ".join(map(str, odd)),
            kinds[reference][0] == "value",
        )
        if any(kind != kinds[reference] for kind in kinds):
            rank = next(rank for rank in odd if kinds[rank] != kinds[reference])
            word = "is" if is_plain else "has shape and dtype"
            said = [
                kind[1] if kind[0] == "value" else f"{kind[0]}, {kind[1]}" for kind in (kinds[rank], kinds[reference])
            ]
            return f"{name} {word} {said[0]} on rank {rank} but {said[1]} on rank {reference}"
        tensor = items[name].tensor
        assert tensor is not None
        by, where = self._distance(tensor.detach().numpy(), reference, odd)
        return f"{name} of {of} differ{'s' * (len(odd) == 1)} from rank {reference} ({by}{where})"

    def _distance(self, array: Array, reference: int, odd: Sequence[int]) -> tuple[str, str]:
        """How far this rank's values are from those of rank ``reference``, over all ranks. A collective."""
        flat = np.ascontiguousarray(array).reshape(-1)
        largest, place, count = 0.0, -1, 0
        for start in range(0, flat.size, PIECE):
            mine = flat[start : start + PIECE]
            theirs = mine.copy()
            self._communicator.broadcast(theirs, reference)
            unequal = mine.view(f"V{mine.itemsize}") != theirs.view(f"V{mine.itemsize}")  # the bits: NaN equals NaN
            if not unequal.any():
                continue
            count += int(unequal.sum())
            with np.errstate(all="ignore"):
                apart = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
            apart = np.where(unequal, np.where(np.isnan(apart), np.inf, apart), -1.0)
            if place < 0 or apart.max() > largest:
                largest, place = float(apart.max()), start + int(apart.argmax())
        results = self._communicator.all_gather(np.array([largest, place, count], dtype=np.float64))
        worst = max(odd, key=lambda rank: results[rank, 0])
        largest, place, count = float(results[worst, 0]), int(results[worst, 1]), int(results[worst, 2])
        index = [int(i) for i in np.unravel_index(place, array.shape)] if array.ndim else []
        by = "one of them is NaN or infinite" if np.isinf(largest) else f"max difference {largest:.3g}"
        return by, f" at {index}, {count} of {flat.size} elements" if array.ndim else ""

    def _heal(
        self,
        different: Sequence[str],
        items: dict[str, _Item],
        tables: Sequence[dict[str, tuple[str, Any]]],
        message: str,
    ) -> None:
        """Gives every rank what rank 0 has. A collective."""
        fixed = [name for name in different if not name.startswith("optimizer")]
        for name in fixed:
            if len({json.dumps(table[name][1]) if name in table else "" for table in tables}) > 1:
                raise CommunicationError(f"{message}. It cannot be healed: {name} has another shape or is missing")
        for name in different:
            if name not in tables[0]:
                self._remove(name)
                continue
            kind = tables[0][name][1]
            item = items.get(name)
            if kind[0] == "value":
                (item or self._made(name)).store(kind[1])
                continue
            tensor = None if item is None else item.tensor
            if tensor is None or [list(tensor.shape), str(tensor.dtype)] != kind:
                tensor = Tensor(np.zeros(kind[0], dtype=kind[1]))
                (item or self._made(name)).store(tensor)
            self._communicator.broadcast(tensor.detach().numpy())
            tensor._changed()
        if self._communicator.rank == 0:
            print(f"{message}. Healed: every rank has rank 0's values", file=sys.stderr, flush=True)

    def _made(self, name: str) -> _Item:
        """An entry of the optimizer that rank 0 has and this one does not."""
        assert self.optimizer is not None
        for table, prefix in self._tables():
            if name.startswith(prefix[0]) and name.endswith(prefix[1]):
                return _Item(name, None, None, _storing(table, name[len(prefix[0]) : len(name) - len(prefix[1])]))
        raise CommunicationError(f"{name} exists on rank 0 but there is no such parameter or group on this rank")

    def _remove(self, name: str) -> None:
        """Takes away an entry of the optimizer that rank 0 does not have."""
        for table, (start, end) in self._tables():
            if name.startswith(start) and name.endswith(end):
                table.pop(name[len(start) : len(name) - len(end)], None)

    def _tables(self) -> Iterator[tuple[dict[str, Any], tuple[str, str]]]:
        """The dictionaries of the optimizer, each with what stands before and behind its keys in a name."""
        if self.optimizer is None:
            return
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for number, group in enumerate(self.optimizer.param_groups):
            yield group, (f"optimizer group {number}, ", "")
            for position, parameter in enumerate(group["params"]):
                owner = names.get(parameter, f"number {position} of group {number}")
                yield self.optimizer.state[parameter], ("optimizer state ", f" of {owner}")


def _text(table: dict[str, tuple[str, Any]], name: str) -> str | None:
    return table[name][0] if name in table else None


def _odd_ones(texts: Sequence[str | None]) -> tuple[int, list[int]]:
    """A rank of the majority, and the ranks unlike it; where there is no majority, rank 0 is right."""
    counts = Counter(texts).most_common(2)
    right = counts[0][0] if counts[0][1] > len(texts) / 2 else texts[0]
    return texts.index(right), [rank for rank, text in enumerate(texts) if text != right]


def _is_plain(value: Any) -> bool:
    """Whether JSON brings it back; a tuple as a list."""
    return (
        value is None
        or isinstance(value, bool | int | float | str)
        or (isinstance(value, tuple) and all(map(_is_plain, value)))
    )


def _storing(table: dict[str, Any], key: str) -> Callable[[Any], None]:
    def store(value: Any) -> None:
        table[key] = tuple(value) if isinstance(value, list) else value

    return store


def _refuse(value: Any) -> None:
    raise AssertionError("a parameter or buffer is written in place")
