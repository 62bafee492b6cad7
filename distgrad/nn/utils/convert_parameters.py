"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from ...autograd import Tensor
from ...ops.join import cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters one after another; gradients pass through."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Gives the parameters the values that ``parameters_to_vector`` put into ``vec``, whose memory they then share.

    Raises:
        TypeError: ``vec`` is no tensor.
        RuntimeError: it has too few elements.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    place = 0
    for parameter in parameters:
        count = parameter.numel()
        parameter.data = vec.detach()[place : place + count].view(tuple(parameter.shape))
        place += count
