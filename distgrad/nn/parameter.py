"""``Parameter``: a tensor that a module owns and an optimizer changes. ``Buffer``: one that it owns as it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..ops.arguments import check_device, dtype_or_default


def _given(data: Any) -> Any:
    """What ``Tensor`` is to be made of: no data is an empty vector, as in PyTorch."""
    if data is None:
        return np.empty(0, dtype_or_default(None))
    return data._data if isinstance(data, Tensor) else data


class Parameter(Tensor):
    """A tensor that becomes part of ``module.parameters()`` when it is assigned to an attribute of a module.

    Args:
        data: a Tensor or an ``ndarray``, whose memory is shared, or what ``Tensor`` takes.
        requires_grad: whether ``backward`` computes its gradient.

    Raises:
        RuntimeError: ``requires_grad`` with a dtype that is not floating point.
    """

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        super().__init__(_given(data), requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        # without the gradient, unlike a plain tensor: that is how PyTorch copies a model
        memo[id(self)] = copy = type(self)(self._data.copy(), self._requires_grad)
        return copy


class Buffer(Tensor):
    """A tensor that becomes part of ``module.buffers()`` when it is assigned to an attribute of a module.

    Args:
        data: a Tensor or an ``ndarray``, whose memory is shared, or what ``Tensor`` takes.
        persistent: whether it is part of ``state_dict``.
    """

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        super().__init__(_given(data), isinstance(data, Tensor) and data.requires_grad)
        self.persistent = persistent

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        memo[id(self)] = copy = type(self)(self._data.copy(), persistent=self.persistent)
        return copy

    def __repr__(self) -> str:
        return repr(self.data)  # as any tensor

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _unpickled_buffer, (self._data, self.persistent)


def _unpickled_buffer(data: Any, persistent: bool) -> Buffer:
    return Buffer(data, persistent=persistent)


def new_parameter(size: Iterable[int], device: Any = None, dtype: Any = None) -> Parameter:
    """A parameter without values yet, as the layers make it from their arguments ``device`` and ``dtype``."""
    check_device(device)
    return Parameter(np.empty(tuple(size), dtype_or_default(dtype)))


def new_buffer(size: Iterable[int], fill_value: float, device: Any = None, dtype: Any = None) -> Tensor:
    """A tensor of one value, as the layers make their running statistics."""
    check_device(device)
    return Tensor(np.full(tuple(size), fill_value, dtype_or_default(dtype)))
