"""Sums over virtual ranks in one fixed order, whatever the number of real ranks that hold them.

``V`` arrays are the leaves of one binary tree: leaf ``2k`` and leaf ``2k + 1`` make a node, two such nodes the next,
and what has no neighbour goes up alone. A real rank adds up those nodes of which it holds all leaves, as its leaves
come, like the carries of a binary counter; what is left are the largest such nodes of each rank. They change hands so
that each rank has all of them for its piece of the array, which climbs the rest of the tree there and is handed to
all. Where the number of ranks is a power of two that divides ``V``, as much is sent as by a ring all-reduce. Each
addition of the tree is made once, of the same two operands, whoever makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .communicator import Array, Communicator

_LONGEST = 1 << 28  # elements of one exchange: MPI counts in C ints, and the pieces of all ranks have to fit


def block(virtual_ranks: int, world_size: int, rank: int) -> range:
    """The virtual ranks of real rank ``rank``: one run of them, of ``virtual_ranks / world_size`` up to rounding.

    Raises:
        ValueError: there are more real than virtual ranks, or fewer than one.
    """
    if not 1 <= world_size <= virtual_ranks:
        raise ValueError(
            f"{virtual_ranks} virtual rank{'s' * (virtual_ranks != 1)} cannot be shared by {world_size} ranks: each "
            f"needs at least one. Raise virtual_ranks to {max(world_size, 1)} or more, and keep it then, as results "
            "depend on it; or start fewer ranks"
        )
    return range(rank * virtual_ranks // world_size, (rank + 1) * virtual_ranks // world_size)


def owners_of(virtual_ranks: int, world_size: int) -> list[int]:
    """The real rank of each virtual rank; see :func:`block`."""
    return [rank for rank in range(world_size) for _ in block(virtual_ranks, world_size, rank)]


def tree_sum(leaves: Sequence[Array], ufunc: np.ufunc = np.add) -> Array:
    """The sum of ``leaves`` through the tree, in one place: what all of this file comes to. Leaves stay as they are."""
    nodes = [np.array(leaf) for leaf in leaves]
    while len(nodes) > 1:
        pairs = zip(nodes[0::2], nodes[1::2], strict=False)
        nodes = [ufunc(left, right) for left, right in pairs] + nodes[len(nodes) - len(nodes) % 2 :]
    return nodes[0]


class LeafStep(NamedTuple):
    """What becomes of one leaf that a rank has computed.

    Attributes:
        slot: the number of the array that it goes to.
        adds: whether it is added to what is there; otherwise it replaces it.
        merges: then, in order, ``(into, other)``: slot ``other`` is added to slot ``into``.
    """

    slot: int
    adds: bool
    merges: tuple[tuple[int, int], ...]


class _Node(NamedTuple):
    """A part of the tree whose leaves, from ``start`` to before ``stop``, one rank owns; as large as can be."""

    owner: int
    start: int
    stop: int


class TreeSum:
    """One rank's part in the sums over virtual ranks.

    Args:
        owners: the real rank of each virtual rank.
        rank: this one.

    Attributes:
        leaves: this rank's virtual ranks, in rising order.
        steps: for each of them what to do with its array when it is there; in this order.
        slots: how many arrays that needs: at most about ``log2`` of the number of leaves.
        nodes: how many of them (the first ones) hold something when the last leaf has been dealt with.
    """

    def __init__(self, owners: Sequence[int], rank: int) -> None:
        self.owners = tuple(owners)
        self.rank = rank
        self.leaves = tuple(leaf for leaf, owner in enumerate(owners) if owner == rank)
        self._frontier: list[_Node] = []
        height = (len(owners) - 1).bit_length()
        self._joins: list[tuple[int, int]] = []  # of numbers of frontier nodes: the second is added to the first
        self._descend(0, height)
        mine = [node for node in self._frontier if node.owner == rank]
        self.nodes = len(mine)
        steps = [step for number, node in enumerate(mine) for step in _leaf_steps(node, number)]
        self.steps = tuple(steps)
        self.slots = max((step.slot + 1 for step in steps), default=0)
        # In the j-th exchange each rank sends its j-th node, if it has one; which are these, by their sender?
        self._rounds: list[dict[int, int]] = []
        counts: dict[int, int] = {}
        for number, node in enumerate(self._frontier):
            turn = counts[node.owner] = counts.get(node.owner, -1) + 1
            if turn == len(self._rounds):
                self._rounds.append({})
            self._rounds[turn][node.owner] = number
        self._received = np.empty(0, dtype=np.uint8)

    def _descend(self, start: int, height: int) -> int:
        """Finds the largest nodes of one owner each, in order; returns the number of the first in this one."""
        stop = min(start + (1 << height), len(self.owners))
        first = len(self._frontier)
        if len(set(self.owners[start:stop])) == 1:
            self._frontier.append(_Node(self.owners[start], start, stop))
            return first
        self._descend(start, height - 1)
        middle = start + (1 << (height - 1))
        if middle < stop:
            self._joins.append((first, self._descend(middle, height - 1)))
        return first

    def add(self, leaf: int, values: Array, slots: Sequence[Array], ufunc: np.ufunc = np.add) -> None:
        """Puts ``values`` of the ``leaf``-th of this rank's leaves into ``slots``, arrays of the same shape."""
        step = self.steps[leaf]
        if step.adds:
            ufunc(slots[step.slot], values, out=slots[step.slot])
        else:
            slots[step.slot][...] = values
        self.merge(leaf, slots, ufunc)

    def merge(self, leaf: int, slots: Sequence[Array], ufunc: np.ufunc = np.add) -> None:
        """Makes the nodes that the ``leaf``-th leaf, which is in its slot, completes."""
        for into, other in self.steps[leaf].merges:
            ufunc(slots[into], slots[other], out=slots[into])

    def finish(
        self,
        slots: Sequence[Array],
        out: Array,
        communicator: Communicator,
        *,
        divisor: float | None = None,
        ufunc: np.ufunc = np.add,
    ) -> None:
        """The whole sum on every rank: a collective, after the last leaf of each.

        Args:
            slots: this rank's arrays, at least the first ``nodes`` of them: (elements,), contiguous. They are read.
            out: (elements,), contiguous, of the same dtype; the result. It may be one of ``slots``.
            communicator: of the ranks that ``owners`` counts.
            divisor: the result is divided by it.
            ufunc: what joins two nodes, ``numpy.add`` for a sum.
        """
        for start in range(0, max(1, out.size), _LONGEST):
            part = slice(start, start + _LONGEST)
            self._finish([slot[part] for slot in slots[: self.nodes]], out[part], communicator, divisor, ufunc)

    def _finish(
        self, slots: list[Array], out: Array, communicator: Communicator, divisor: float | None, ufunc: np.ufunc
    ) -> None:
        if len(self._frontier) == 1 and communicator.world_size == 1:
            if divisor is not None:
                np.divide(slots[0], divisor, out=out)
            elif out is not slots[0]:
                out[...] = slots[0]
            return
        world_size = communicator.world_size
        short, longer = divmod(out.size, world_size)
        counts = [short + (rank < longer) for rank in range(world_size)]
        mine = counts[self.rank]
        begin = sum(counts[: self.rank])
        rows = self._room(len(self._frontier) * mine, out.dtype)
        pieces: dict[int, Array] = {}
        taken = 0
        for turn, senders in enumerate(self._rounds):
            end = taken + len(senders) * mine
            sends = self.rank in senders
            communicator.all_to_all(
                slots[turn] if sends else out[:0],
                counts if sends else [0] * world_size,
                rows[taken:end],
                [mine if rank in senders else 0 for rank in range(world_size)],
            )
            for place, rank in enumerate(sorted(senders)):
                pieces[senders[rank]] = rows[taken + place * mine : taken + (place + 1) * mine]
            taken = end
        for into, other in self._joins:
            ufunc(pieces[into], pieces[other], out=pieces[into])
        result = out[begin : begin + mine]
        if divisor is not None:
            np.divide(pieces[0], divisor, out=result)
        else:
            result[...] = pieces[0]
        communicator.all_gather_into(out, counts)

    def _room(self, elements: int, dtype: np.dtype[np.generic]) -> Array:
        """Memory that is kept from one sum to the next."""
        octets = elements * dtype.itemsize
        if self._received.size < octets:
            self._received = np.empty(octets, dtype=np.uint8)
        return self._received[:octets].view(dtype)


def _leaf_steps(node: _Node, number: int) -> list[LeafStep]:
    """The leaves of one node that is to end in slot ``number``, below which other nodes lie."""
    steps = []
    for leaf in range(node.stop - node.start):
        depth = number + leaf.bit_count()  # nodes that wait for their neighbour: one for each digit of the counter
        adds = bool(leaf & 1)
        slot = depth - 1 if adds else depth
        carries = slot - number if leaf == node.stop - node.start - 1 else _trailing_ones(leaf) - 1
        steps.append(LeafStep(slot, adds, tuple((slot - carry - 1, slot - carry) for carry in range(carries))))
    return steps


def _trailing_ones(number: int) -> int:
    return (~number & (number + 1)).bit_length() - 1
