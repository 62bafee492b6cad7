"""Weights divided by their largest singular value (Miyato et al., 2018)."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from ...autograd import Tensor, no_grad
from ...autograd.tensor import Array
from ...ops.random import default_generator
from ..conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..module import Module
from ..parameter import Parameter

M = TypeVar("M", bound=Module)


def _unit(vector: Array, eps: float) -> Array:
    length = np.sqrt(np.dot(vector, vector))
    return (vector / max(float(length), eps)).astype(vector.dtype)


class SpectralNorm:
    """The hook that divides the weight before every forward pass.

    In training the two singular vectors, which are buffers, come nearer to the right ones each time.

    Args:
        name: what the weight is called.
        n_power_iterations: steps of the power method a forward pass.
        dim: the dimension of the outputs, which is the matrix's first.
        eps: the smallest length that is divided by.
    """

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.name = name
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def as_matrix(self, weight: Tensor) -> Tensor:
        """The weight with the outputs in front, and everything else in one dimension."""
        turned = weight.movedim(self.dim, 0) if self.dim else weight
        matrix: Tensor = turned.reshape(turned.shape[0], -1)
        return matrix

    def iterate(self, module: Module, steps: int) -> None:
        """Brings the singular vectors nearer to the right ones, in place."""
        u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        with no_grad():
            matrix = self.as_matrix(getattr(module, f"{self.name}_orig"))._data
            for _ in range(steps):
                v.copy_(Tensor(_unit(matrix.T @ u._data, self.eps)))
                u.copy_(Tensor(_unit(matrix @ v._data, self.eps)))

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        """The weight, with a history that leads to the parameter; the singular vectors count as constants."""
        if do_power_iteration:
            self.iterate(module, self.n_power_iterations)
        weight = getattr(module, f"{self.name}_orig")
        u, v = (Tensor(getattr(module, f"{self.name}_{end}")._data.copy()) for end in ("u", "v"))
        largest = u @ (self.as_matrix(weight) @ v)
        divided: Tensor = weight / largest
        return divided

    def __call__(self, module: Module, args: Any) -> None:
        """Before a forward pass: gives the module its weight."""
        setattr(module, self.name, self.compute_weight(module, do_power_iteration=module.training))


def _found(module: Module, name: str) -> tuple[int, SpectralNorm] | None:
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook.function, SpectralNorm) and hook.function.name == name:
            return key, hook.function
    return None


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divides a parameter by its largest singular value before every forward pass; returns the module.

    The parameter is then called ``name + "_orig"``, and ``name`` is a plain attribute. The singular vectors are the
    buffers ``name + "_u"`` and ``name + "_v"``.

    Args:
        module: the layer.
        name: of the parameter.
        n_power_iterations: steps of the power method a forward pass in training.
        eps: the smallest length that is divided by.
        dim: the dimension of the outputs; without it 1 for transposed convolutions and 0 for everything else.

    Raises:
        RuntimeError: this was done already.
        ValueError: ``n_power_iterations`` is not positive.
    """
    if _found(module, name) is not None:
        raise RuntimeError(f"Cannot register two spectral_norm hooks on the same parameter {name}")
    if dim is None:
        dim = 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0
    hook = SpectralNorm(name, n_power_iterations, dim, eps)
    weight = module.get_parameter(name)
    rows, columns = hook.as_matrix(weight.detach()).shape
    del module._parameters[name]
    module.register_parameter(f"{name}_orig", weight)
    for end, length in (("u", rows), ("v", columns)):
        drawn = default_generator.stream.standard_normal(length).astype(weight.dtype)
        module.register_buffer(f"{name}_{end}", Tensor(_unit(drawn, eps)))
    setattr(module, name, weight.detach())
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Makes the divided weight the parameter; returns the module.

    Raises:
        ValueError: it is not one of ``spectral_norm``.
    """
    found = _found(module, name)
    if found is None:
        raise ValueError(f"spectral_norm of '{name}' not found in {module}")
    key, hook = found
    with no_grad():
        weight = hook.compute_weight(module, do_power_iteration=False)
    for part in (name, f"{name}_u", f"{name}_v", f"{name}_orig"):
        delattr(module, part)
    module.register_parameter(name, Parameter(weight.detach()))
    del module._forward_pre_hooks[key]
    return module
