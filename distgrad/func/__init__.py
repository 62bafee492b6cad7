"""Functions of functions, as ``torch.func``: derivatives as functions, and a function over one more dimension."""

from __future__ import annotations

from ..registry import no_attribute
from .functional_call import functional_call, stack_module_state
from .transforms import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, value_and_grad, vjp
from .vmap import vmap

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "stack_module_state",
    "value_and_grad",
    "vjp",
    "vmap",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.func'", name, __all__)
