"""One clock for all ranks: by how much each rank's differs from rank 0's, and how sure that is.

No rank leaves a barrier before every rank has entered it. So if rank ``r`` enters at ``a_r`` and leaves at ``b_r`` of
its own clock, and that clock is ahead of rank 0's by ``d``, then ``a_r - d <= b_0`` and ``a_0 <= b_r - d``, which puts
``d`` between ``a_r - b_0`` and ``b_r - a_0``. What several barriers say is true at once, so the narrowest bounds count,
as the exchange of least delay does in NTP and in Cristian's algorithm ("Probabilistic clock synchronization", 1989).
Clocks also run at different speeds: they are compared before and after, and in between the difference is a line.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import tracing
from ..distributed import Communicator

ROUNDS = 30


class Offsets(NamedTuple):
    """How far the clocks are ahead of rank 0's at one moment.

    Attributes:
        moment: ns of this rank's own clock.
        ahead: of each rank, ns.
        error: of each rank, ns: the difference is at most so far from ``ahead``.
    """

    moment: int
    ahead: list[int]
    error: list[int]


def compare_clocks(communicator: Communicator, rounds: int = ROUNDS) -> Offsets:
    """Compares the clocks of all ranks by so many barriers. A collective."""
    moments = np.empty((rounds, 2), dtype=np.int64)  # (rounds, before and after)
    for row in moments:
        row[0] = tracing.clock()
        communicator.barrier()
        row[1] = tracing.clock()
    every = communicator.all_gather(moments)  # (world_size, rounds, 2)
    least = (every[:, :, 0] - every[0, :, 1]).max(axis=1)
    most = (every[:, :, 1] - every[0, :, 0]).min(axis=1)
    least[0] = most[0] = 0
    return Offsets(int(moments[-1, 1]), ((least + most) // 2).tolist(), (-(-(most - least) // 2)).tolist())


class Alignment:
    """Moments of one rank's clock on that of rank 0.

    Args:
        before: what was found before the events, by that rank.
        after: what was found after them, by that rank.
        rank: whose clock it is.

    Attributes:
        error: ns by which a moment may be wrong, where the clock's speed did not change in between.
    """

    def __init__(self, before: Offsets, after: Offsets, rank: int) -> None:
        self._start, self._first = before.moment, before.ahead[rank]
        self._slope = (after.ahead[rank] - self._first) / max(1, after.moment - self._start)
        self.error = max(before.error[rank], after.error[rank])

    def __call__(self, moment: int) -> int:
        """The same moment on rank 0's clock, ns."""
        return moment - self._first - round(self._slope * (moment - self._start))
