"""Communication hooks: how a bucket of gradients becomes its sum over all ranks.

A hook is a plain function ``hook(state, bucket) -> Report``, one file a hook. ``all_reduce`` is the naive one that all
others are held against. Each says in its docstring how far its result may be from the exact sum, and in its report how
far it may be this time and what it has sent. Register one by ``DistributedDataParallel.register_comm_hook``.
"""

from __future__ import annotations

from ...registry import no_attribute
from . import catalogue, report, state
from .all_reduce import allreduce_hook
from .bfloat16 import bf16_compress_hook
from .catalogue import HOOKS, HookKind, make
from .fp16 import fp16_compress_hook
from .hierarchical import HierarchicalState, hierarchical_hook
from .post_local_sgd import (
    PeriodicModelAverager,
    PostLocalSGDOptimizer,
    PostLocalSGDState,
    average_parameters,
    post_localSGD_hook,
)
from .power_sgd import PowerSGDState, powerSGD_hook
from .reduce_scatter import reduce_scatter_hook
from .report import Report
from .state import FeedbackState, HookState
from .top_k import TopKState, top_k_hook

__all__ = [
    "HOOKS",
    "FeedbackState",
    "HierarchicalState",
    "HookKind",
    "HookState",
    "PeriodicModelAverager",
    "PostLocalSGDOptimizer",
    "PostLocalSGDState",
    "PowerSGDState",
    "Report",
    "TopKState",
    "allreduce_hook",
    "average_parameters",
    "bf16_compress_hook",
    "catalogue",
    "fp16_compress_hook",
    "hierarchical_hook",
    "make",
    "post_localSGD_hook",
    "powerSGD_hook",
    "reduce_scatter_hook",
    "report",
    "state",
    "top_k_hook",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.distributed.comm_hooks'", name, __all__)
