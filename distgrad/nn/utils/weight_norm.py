"""Weights as a length and a direction (Salimans and Kingma, 2016)."""

from __future__ import annotations

from typing import Any, TypeVar

from ...autograd import Tensor
from ...ops.distance import _norm_along
from ..module import Module
from ..parameter import Parameter

M = TypeVar("M", bound=Module)


def _lengths(weight: Tensor, dim: int) -> Tensor:
    """The norms over all dimensions but ``dim``, which are kept with length 1; of everything for -1."""
    if dim == -1:
        return _norm_along(weight.reshape(-1), 2.0, 0, keepdim=False)
    return _norm_along(weight, 2.0, [d for d in range(weight.ndim) if d != dim % weight.ndim], keepdim=True)


class WeightNorm:
    """The hook that makes the weight from its two parts before every forward pass.

    Args:
        name: what the weight is called.
        dim: each slice along it has a length of its own; -1 for one length of the whole.
    """

    def __init__(self, name: str, dim: int) -> None:
        self.name = name
        self.dim = dim

    def compute_weight(self, module: Module) -> Tensor:
        """The weight, with a history that leads to its parts."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        weight: Tensor = v * (g / _lengths(v, self.dim))
        return weight

    def __call__(self, module: Module, args: Any) -> None:
        """Before a forward pass: gives the module its weight."""
        setattr(module, self.name, self.compute_weight(module))


def _found(module: Module, name: str) -> tuple[int, WeightNorm] | None:
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook.function, WeightNorm) and hook.function.name == name:
            return key, hook.function
    return None


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Replaces a parameter by its lengths, ``name + "_g"``, and a direction, ``name + "_v"``; returns the module.

    The parameter becomes a plain attribute that is computed before every forward pass.

    Args:
        module: the layer.
        name: of the parameter.
        dim: each slice along it has a length of its own; None for one length of the whole.

    Raises:
        RuntimeError: this was done already.
    """
    if _found(module, name) is not None:
        raise RuntimeError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, -1 if dim is None else dim)
    weight = module.get_parameter(name)
    del module._parameters[name]
    module.register_parameter(f"{name}_g", Parameter(_lengths(weight.detach(), hook.dim)))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    hook(module, ())
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Makes the weight one parameter again, with the values that it has; returns the module.

    Raises:
        ValueError: it is not one of ``weight_norm``.
    """
    found = _found(module, name)
    if found is None:
        raise ValueError(f"weight_norm of '{name}' not found in {module}")
    key, hook = found
    weight = hook.compute_weight(module).detach()
    for part in (name, f"{name}_g", f"{name}_v"):
        delattr(module, part)
    module.register_parameter(name, Parameter(weight))
    del module._forward_pre_hooks[key]
    return module
