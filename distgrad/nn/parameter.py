"""``Parameter``: a tensor that a module owns and an optimizer changes."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor


class Parameter(Tensor):
    """A tensor that becomes part of ``module.parameters()`` when it is assigned to an attribute of a module.

    Args:
        data: a Tensor or an ``ndarray``, whose memory is shared, or what ``Tensor`` takes.
        requires_grad: whether ``backward`` computes its gradient.

    Raises:
        RuntimeError: ``requires_grad`` with a dtype that is not floating point.
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data._data if isinstance(data, Tensor) else data, requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        # without the gradient, unlike a plain tensor: that is how PyTorch copies a model
        memo[id(self)] = copy = type(self)(self._data.copy(), self._requires_grad)
        return copy
