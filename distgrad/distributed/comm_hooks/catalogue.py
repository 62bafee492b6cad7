"""Hooks by the name that a config gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ...registry import Registry
from .all_reduce import allreduce_hook
from .bfloat16 import bf16_compress_hook
from .fp16 import fp16_compress_hook
from .hierarchical import HierarchicalState, hierarchical_hook
from .post_local_sgd import PostLocalSGDState, post_localSGD_hook
from .power_sgd import PowerSGDState, powerSGD_hook
from .reduce_scatter import reduce_scatter_hook
from .report import Report
from .state import HookState
from .top_k import TopKState, top_k_hook

if TYPE_CHECKING:
    from ..communicator import Communicator


class HookKind(NamedTuple):
    """A hook and what it works on.

    Attributes:
        hook: ``hook(state, bucket)``, which leaves the sum over all ranks in the bucket.
        state: the class of its state; its first argument is a communicator or None.
        exact: whether the sum is rounded only as any sum is, so that it may be chosen without being asked.
        interchangeable: whether it may follow and be followed by another hook in any step: nothing is remembered, and
            nothing left out.
    """

    hook: Callable[[Any, Any], Report]
    state: Callable[..., HookState]
    exact: bool
    interchangeable: bool


HOOKS: Registry[HookKind] = Registry("comm_hook")
for _name, _kind in {
    "all_reduce": HookKind(allreduce_hook, HookState, True, True),
    "reduce_scatter": HookKind(reduce_scatter_hook, HookState, True, True),
    "hierarchical": HookKind(hierarchical_hook, HierarchicalState, True, True),
    "fp16": HookKind(fp16_compress_hook, HookState, False, True),
    "bfloat16": HookKind(bf16_compress_hook, HookState, False, True),
    "top_k": HookKind(top_k_hook, TopKState, False, False),
    "power_sgd": HookKind(powerSGD_hook, PowerSGDState, False, False),
    "post_local_sgd": HookKind(post_localSGD_hook, PostLocalSGDState, False, False),
}.items():
    HOOKS.register(_name)(_kind)


def make(
    name: str, communicator: Communicator | None = None, **options: Any
) -> tuple[HookState, Callable[[Any, Any], Report]]:
    """The state and the hook called ``name``, as ``register_comm_hook`` takes them.

    Args:
        name: "all_reduce", "reduce_scatter", "hierarchical", "fp16", "bfloat16", "top_k", "power_sgd" or
            "post_local_sgd", whose optimizer has to be a ``PostLocalSGDOptimizer``, or ranks drift apart.
        communicator: what it works on; None: ``register_comm_hook`` gives it one.
        options: further arguments of the state, such as ``density=0.001``.

    Raises:
        ConfigError: there is no such hook; the message lists all.
        TypeError: an option that the state does not have.
    """
    kind = HOOKS[name]
    return kind.state(communicator, **options), kind.hook
