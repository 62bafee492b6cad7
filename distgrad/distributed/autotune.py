"""Which buckets and which hook are fastest here: found out in the first steps, by taking them.

How long an all-reduce takes depends on the network, the MPI library, the number of hosts and what the cores do
meanwhile, so nothing but steps of the training itself can tell. First the sizes of the buckets are tried, each for some
steps, then with the best of them the other hooks. The slowest rank counts, and every rank takes the same decision.

Another size or another exact hook adds the same numbers in another order, so a run that tunes itself may differ in the
last bits from the same run tuned otherwise. Pin what was printed where that matters.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import CommunicationError
from .collective_log import labelled
from .comm_hooks.catalogue import HOOKS, make
from .comm_hooks.hierarchical import HierarchicalState
from .communicator import Communicator

if TYPE_CHECKING:
    from .comm_hooks.state import HookState
    from .reducer import Reducer

BUCKET_CAPS_MB = (25.0, 1.0, 5.0, 100.0)
"""What is tried where the size is left open; the first is the default, which another has to beat."""

WARM_UP_STEPS = 2
STEPS_EACH = 5

MARGIN = 0.02
"""Another candidate than the first has to be faster by this part: less is noise."""


class Candidate(NamedTuple):
    """A way to exchange gradients.

    Attributes:
        bucket_cap_mb: size of the buckets in MiB.
        comm_hook: name of the hook, as in ``comm_hooks.HOOKS``.
    """

    bucket_cap_mb: float
    comm_hook: str

    def __str__(self) -> str:
        return f"{self.bucket_cap_mb:g} MiB {self.comm_hook}"


class Autotune:
    """Goes through candidates while training goes on.

    It knows nothing of gradients: whoever takes the steps asks ``candidate`` what to use, and tells ``record`` how long
    each step took.

    Args:
        communicator: the ranks, all of which tell the same number of steps.
        bucket_caps_mb: sizes to try, the default first.
        comm_hooks: names of hooks to try, the default first.
        steps_each: steps of each candidate that count; the median is taken.
        warm_up_steps: steps of each candidate before, which do not count.
        report: called on rank 0 with a line that names the choice and all figures; default: printed to stderr.

    Attributes:
        comm_hooks: the hooks to choose from.
        choice: what was chosen; None as long as it is not known.

    Raises:
        ConfigError: there is no such hook.
        ValueError: several hooks of which one would change more than speed and rounding; nothing to try; no steps.
    """

    def __init__(
        self,
        communicator: Communicator,
        bucket_caps_mb: Sequence[float] = BUCKET_CAPS_MB,
        comm_hooks: Sequence[str] = ("all_reduce",),
        steps_each: int = STEPS_EACH,
        warm_up_steps: int = WARM_UP_STEPS,
        report: Callable[[str], None] | None = None,
    ) -> None:
        if not bucket_caps_mb or not comm_hooks:
            raise ValueError("Autotune: bucket_caps_mb and comm_hooks must each have an entry")
        if steps_each < 1 or warm_up_steps < 0:
            raise ValueError(
                f"Autotune: steps_each is {steps_each} and warm_up_steps {warm_up_steps}; at least 1 and 0 are needed"
            )
        for name in comm_hooks:
            if not HOOKS[name].interchangeable and len(comm_hooks) > 1:
                raise ValueError(
                    f"Autotune: the hook {name!r} changes what is learned, not only how fast: register it by "
                    "register_comm_hook instead of letting the clock choose"
                )
        self._communicator = communicator
        self._sizes = [float(size) for size in bucket_caps_mb]
        self.comm_hooks = list(comm_hooks)
        self._steps = steps_each
        self._warm_up = warm_up_steps
        self._report = _print if report is None else report
        self._times: list[float] = []
        self._to_warm_up = warm_up_steps
        self._figures: dict[Candidate, float] = {}
        self._waiting = [Candidate(size, self.comm_hooks[0]) for size in self._sizes]
        self._candidate = self._waiting.pop(0)
        self._in_sizes = True
        self.choice: Candidate | None = None
        if len(self._sizes) == len(self.comm_hooks) == 1:
            self.choice = self._candidate

    @property
    def candidate(self) -> Candidate:
        """What the next step is to be taken with."""
        return self._candidate

    @property
    def figures(self) -> dict[Candidate, float]:
        """Seconds of a step with each candidate so far: the median on the slowest rank."""
        return dict(self._figures)

    @property
    def pin(self) -> dict[str, Any] | None:
        """The arguments of ``DistributedDataParallel`` that mean the choice; None as long as nothing was measured."""
        return None if self.choice is None or not self._figures else self.choice._asdict()

    def record(self, seconds: float) -> bool:
        """Takes in how long a step with ``candidate`` took. A collective when a candidate has had its steps.

        Returns:
            Whether ``candidate`` is another one now.
        """
        if self.choice is not None:
            return False
        if self._to_warm_up > 0:
            self._to_warm_up -= 1
            return False
        self._times.append(seconds)
        if len(self._times) < self._steps:
            return False
        slowest = np.array([statistics.median(self._times)])
        with labelled("autotune"):
            self._communicator.all_reduce(slowest, "max")
        self._figures[self._candidate] = float(slowest[0])
        self._times, self._to_warm_up = [], self._warm_up
        before = self._candidate
        if not self._waiting and self._in_sizes:
            self._in_sizes = False
            size = self._best().bucket_cap_mb
            self._waiting = [Candidate(size, name) for name in self.comm_hooks[1:]]
        if self._waiting:
            self._candidate = self._waiting.pop(0)
        else:
            self._candidate = self.choice = self._best()
            if self._communicator.rank == 0:
                self._report(self.summary())
        return self._candidate != before

    def _best(self) -> Candidate:
        first = next(iter(self._figures))
        best = min(self._figures, key=lambda candidate: self._figures[candidate])
        return best if self._figures[best] < (1 - MARGIN) * self._figures[first] else first

    def summary(self) -> str:
        """The choice, how to pin it, and the figures, in one line."""
        if self.choice is None:
            return f"autotune: trying {self._candidate}"
        figures = ", ".join(f"{candidate} {1000 * seconds:.1f}" for candidate, seconds in self._figures.items())
        return (
            f"autotune: bucket_cap_mb={self.choice.bucket_cap_mb:g}, comm_hook={self.choice.comm_hook!r} "
            f"(ms of forward and backward on the slowest rank: {figures}); give these two to pin the choice"
        )


def sizes_worth_trying(gradient_bytes: int) -> list[float]:
    """The sizes of ``BUCKET_CAPS_MB`` that cut so many bytes differently: one of those that hold all is enough."""
    whole = [size for size in BUCKET_CAPS_MB if size * (1 << 20) >= gradient_bytes]
    return [size for size in BUCKET_CAPS_MB if size not in whole[1:]]


def hooks_worth_trying(communicator: Communicator) -> list[str]:
    """The exact hooks that make sense on these ranks, the default first. A collective.

    "hierarchical" needs a host with several ranks, and memory that they can share.
    """
    names = [name for name in HOOKS if HOOKS[name].exact and name != "hierarchical"]
    together = np.array([communicator.local_world_size])
    communicator.all_reduce(together, "max")
    if int(together[0]) > 1:
        state = HierarchicalState(communicator)
        works = np.ones(1, np.int64)
        try:
            state.levels()
        except (CommunicationError, OSError):
            works[...] = 0
        communicator.all_reduce(works, "min")
        if int(works[0]):
            state.free()
            names.append("hierarchical")
    return names


class StepTuner:
    """Lets an :class:`Autotune` choose for a reducer: times its steps, and changes it between two of them.

    A step is what lies between the beginning of the forward pass and the end of the backward pass, with all sums there.

    Args:
        autotune: what chooses.
        reducer: what it chooses for; works with the first candidate's buckets, and without a hook.
    """

    def __init__(self, autotune: Autotune, reducer: Reducer) -> None:
        self.autotune = autotune
        self._reducer = reducer
        self._began: float | None = None
        self.hook_state: HookState | None = None
        self._present = Candidate(autotune.candidate.bucket_cap_mb, "all_reduce")
        self._use(autotune.candidate)

    @property
    def chooses_hook(self) -> bool:
        """Whether there are several hooks to choose from."""
        return len(self.autotune.comm_hooks) > 1

    def step(self) -> None:
        """A forward pass begins, the same on every rank. A collective when a candidate has had its steps."""
        reducer = self._reducer
        if self._began is not None and reducer.finished is not None:
            self.autotune.record(reducer.finished - self._began)
            self._use(self.autotune.candidate)
        reducer.finished = None
        self._began = time.perf_counter() if self.autotune.choice is None else None

    def skip(self) -> None:
        """The step that begins does not count."""
        self._began = None

    def _use(self, candidate: Candidate) -> None:
        before, self._present = self._present, candidate
        if candidate.bucket_cap_mb != before.bucket_cap_mb:
            self._reducer.rebuild(candidate.bucket_cap_mb)
        if candidate.comm_hook == before.comm_hook:
            return
        if isinstance(self.hook_state, HierarchicalState):
            self.hook_state.free()
        if candidate.comm_hook == "all_reduce":  # in the way that suits the channel
            self.hook_state = None
            self._reducer.set_hook(None, None)
        else:
            self.hook_state, hook = make(candidate.comm_hook, self._reducer.communicator)
            self._reducer.set_hook(self.hook_state, hook)


def autotune_for(
    communicator: Communicator,
    bucket_cap_mb: float | Sequence[float] | str,
    comm_hook: str | Sequence[str] | None,
    gradient_bytes: int,
) -> Autotune | None:
    """What is left open by the arguments of ``DistributedDataParallel``; None if nothing is. A collective.

    Args:
        communicator: the ranks; what is chosen is used on them.
        bucket_cap_mb: a size in MiB, several to choose from, or "auto".
        comm_hook: a name, several to choose from, "auto" for the exact ones, or None for "all_reduce".
        gradient_bytes: of all gradients together.

    Raises:
        ConfigError: there is no such hook.
        ValueError: another text, or a hook whose choice would change more than speed and rounding.
    """
    if isinstance(bucket_cap_mb, int | float) and comm_hook != "auto" and isinstance(comm_hook, str | None):
        return None
    if isinstance(bucket_cap_mb, str):
        if bucket_cap_mb != "auto":
            raise ValueError(f"bucket_cap_mb is {bucket_cap_mb!r}, must be a number of MiB, several, or 'auto'")
        sizes = sizes_worth_trying(gradient_bytes)
    else:
        sizes = [bucket_cap_mb] if isinstance(bucket_cap_mb, int | float) else list(bucket_cap_mb)
    if comm_hook == "auto":
        names = hooks_worth_trying(communicator)
    else:
        names = [comm_hook or "all_reduce"] if isinstance(comm_hook, str | None) else list(comm_hook)
    if communicator.world_size == 1:  # nothing travels
        sizes, names = sizes[:1], names[:1]
    return Autotune(communicator, sizes, names)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
