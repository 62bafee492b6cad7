"""Limiting gradients, by their norm or one by one, before an optimizer uses them."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...autograd import Tensor, no_grad
from ...ops.promotion import result_type

Tensors = Tensor | Iterable[Tensor]


def _gradients(parameters: Tensors) -> list[Tensor]:
    """The gradients that there are of one parameter or of several."""
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    generator = isinstance(parameters, types.GeneratorType)
    parameters = list(parameters)
    if generator and not parameters:
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norm(values: Any, norm_type: float) -> float:
    """Of all elements of an array; half precision is computed in float32, or squares would overflow."""
    flat = values.reshape(-1)
    flat = flat.astype(np.float32) if flat.dtype == np.float16 else flat
    if not flat.size:
        return 0.0
    if norm_type == 2.0:
        return math.sqrt(float(np.dot(flat, flat)))
    return float(np.linalg.norm(flat, norm_type))


@no_grad()
def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """The norm of all elements of some tensors: that of the vector of the tensors' norms.

    Args:
        tensors: one or several; of none the norm is 0.
        norm_type: any number, also ``math.inf``.
        error_if_nonfinite: raise where the norm is infinite or NaN.
        foreach: a choice of PyTorch's implementation; nothing follows from it here.

    Returns:
        A tensor without dimensions, in the dtype that the tensors have in common.

    Raises:
        RuntimeError: the norm is not finite, if ``error_if_nonfinite``.
    """
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not given:
        return Tensor(np.zeros((), np.float32))
    order = float(norm_type)
    dtype = result_type(*given)
    total = np.asarray(_norm(np.array([_norm(tensor._data, order) for tensor in given]), order)).astype(dtype)
    if error_if_nonfinite and not np.isfinite(total):
        raise RuntimeError(
            f"The total norm of order {order} for gradients from `parameters` is non-finite, so it cannot be clipped. "
            "To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return Tensor(total)


def _scale(gradients: Iterable[Tensor], max_norm: float, total_norm: Tensor) -> None:
    with np.errstate(all="ignore"):
        wanted = float(max_norm) / (total_norm._data.astype(np.float64) + 1e-6)
    scale = float(np.minimum(wanted, 1.0))  # NaN stays
    for gradient in gradients:
        gradient.mul_(scale)


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scales the gradients of ``parameters``, in place, by ``max_norm / total_norm`` where that is below 1.

    Args:
        parameters: one or several; those without a gradient are left out.
        max_norm: the norm that the gradients are to have at most.
        total_norm: the norm that they have, as ``get_total_norm`` gives it.
        foreach: a choice of PyTorch's implementation; nothing follows from it here.
    """
    _scale(_gradients(parameters), max_norm, total_norm)


@no_grad()
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales the gradients of ``parameters``, in place, so that together they have at most the norm ``max_norm``.

    Args:
        parameters: one or several; those without a gradient are left out.
        max_norm: the limit.
        norm_type: any number, also ``math.inf``.
        error_if_nonfinite: raise where the norm is infinite or NaN; without it the gradients then become NaN or 0.
        foreach: a choice of PyTorch's implementation; nothing follows from it here.

    Returns:
        The norm that they had before.

    Raises:
        RuntimeError: the norm is not finite, if ``error_if_nonfinite``.
    """
    gradients = _gradients(parameters)
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    _scale(gradients, max_norm, total)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Limits each element of the gradients of ``parameters``, in place, to [-clip_value, clip_value].

    Args:
        parameters: one or several; those without a gradient are left out.
        clip_value: the limit.
        foreach: a choice of PyTorch's implementation; nothing follows from it here.
    """
    limit = float(clip_value)
    for gradient in _gradients(parameters):
        gradient.clamp_(-limit, limit)
