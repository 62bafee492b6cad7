"""Tensors that share memory in HWNC order, so that its order can be changed under all of them.

PyTorch gives the result of a convolution in row-major order, and programs rely on it: ``x.view(len(x), -1)``. Here it
may be in HWNC order, which is nobody's business but ours. Where a view is impossible for that reason alone, the memory
is put into row-major order first (``repack``); tensors that share it take part. Arrays that ``numpy()`` has given keep
the memory as it was.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.layout import is_hwnc_alone
from .view import replay

if TYPE_CHECKING:
    from .tensor import Tensor

_MANY = 64  # when so many have been entered, those that are gone are struck out


def join(source: Tensor, other: Tensor) -> None:
    """Remembers that ``other`` shares the memory of ``source``, if that is in HWNC order."""
    group = source._group
    if group is None:
        if not is_hwnc_alone(source._data):
            return
        group = source._group = [weakref.ref(source)]
    elif len(group) % _MANY == 0:
        group[:] = [one for one in group if one() is not None]
    group.append(weakref.ref(other))
    other._group = group


def repack(tensor: Tensor) -> bool:
    """Puts the memory of ``tensor``, and of all that share it, into row-major order.

    Returns:
        Whether it was in HWNC order before; else nothing is done.
    """
    base = tensor if tensor._view is None else tensor._view.base
    array = base._data
    if not is_hwnc_alone(array) or not array.flags.writeable:
        return False
    base._versions()  # before the memory is another: whoever saved it is told of changes from here on
    packed = np.ascontiguousarray(array)
    members = [one() for one in base._group or ()]
    for member in {id(one): one for one in (base, tensor, *members) if one is not None}.values():
        if member._data is array:
            member._data = packed
        elif member._view is not None:
            member._data = replay(packed, member._view.steps())
    return True
