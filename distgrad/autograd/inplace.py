"""Changes in place and history: who may be changed, and whose history a change becomes part of."""

from __future__ import annotations

import numpy as np

from .grad_mode import mode
from .primitive import Primitive, define
from .recorded import OperationNode
from .tensor import Array, Tensor
from .view import Step, replay, take_history


def check_history(tensor: Tensor, recorded: bool) -> None:
    """Refuses a change in place of ``tensor`` that would make gradients wrong.

    Args:
        tensor: what is to be changed.
        recorded: another operand requires a gradient.

    Raises:
        RuntimeError: a leaf that requires a gradient, or a view of one; a view that was made without recording or is
            one of several results.
    """
    if tensor._inference and not mode.inference:
        raise RuntimeError(
            "Inplace update to inference tensor outside InferenceMode is not allowed. You can make a clone to get a "
            "normal tensor before doing inplace update."
        )
    if mode.enabled and (tensor.requires_grad or recorded):
        tensor._up_to_date()
        view = tensor._view
        if view is not None:
            view.check(tensor, "is being")
            if tensor.requires_grad and view.base._node is None:
                raise RuntimeError(
                    "a view of a leaf Variable that requires grad is being used in an in-place operation. Do it inside "
                    "no_grad(), or use the out-of-place form"
                )
        if tensor.requires_grad and tensor._node is None:
            raise RuntimeError(
                "a leaf Variable that requires grad is being used in an in-place operation. Do it inside no_grad(), or "
                "use the out-of-place form"
            )


def check(tensor: Tensor, recorded: bool) -> None:
    """``check_history``, and that the memory can be written, one element of the tensor at a time."""
    check_history(tensor, recorded)
    if not tensor._data.flags.writeable and not _made_writeable(tensor._data):
        raise RuntimeError(
            "unsupported operation: the written-to tensor is read-only memory or more than one of its elements refers "
            "to a single memory location (expand). Please clone() the tensor before performing the operation."
        )


def _made_writeable(array: Array) -> bool:
    """Of a part of expanded memory: whether no two of its elements share a place, and the memory can be written."""
    if any(stride == 0 and n > 1 for n, stride in zip(array.shape, array.strides, strict=True)):
        return False
    try:
        array.flags.writeable = True
    except ValueError:  # the memory itself is read-only
        return False
    return True


def overwrite(tensor: Tensor, result: Tensor) -> Tensor:
    """Gives ``tensor`` the values and the history of ``result``, an operation on it, in its own memory."""
    _save_copies(tensor, result)
    np.copyto(tensor._data, result._data, casting="unsafe")
    tensor._changed()
    return rebase(tensor, result)


def _save_copies(tensor: Tensor, result: Tensor) -> None:
    """Lets the nodes between ``tensor`` and ``result``, an operation on it, keep the values to be overwritten."""
    start = tensor._node
    pending, seen = [result._node], {None, start}
    while pending:
        node = pending.pop()
        if node in seen or not isinstance(node, OperationNode) or (start and node.sequence < start.sequence):
            continue
        seen.add(node)
        node.save_copy_of(tensor)
        pending += [target for target in node.next if target is not None]


def rebase(tensor: Tensor, result: Tensor) -> Tensor:
    """Gives ``tensor``, whose memory holds the values of ``result`` already, its history too.

    Where ``tensor`` is a view, its base gets the history: the old base outside the view, ``result`` inside. The view,
    and all others, take theirs from the base when they are next asked.
    """
    if not mode.enabled:
        return tensor
    if tensor._view is None:
        take_history(tensor, result)
    elif result._requires_grad:
        base = tensor._view.base
        take_history(base, _copy_slices(base, result, steps=tensor._view.steps(), order=_memory_order(base._data)))
        if tensor._retains_grad:
            tensor._up_to_date()  # at once: from here on it is the gradient of the new values that is kept
    return tensor


def _memory_order(array: Array) -> tuple[int, ...]:
    """The dimensions from the outermost in memory to the innermost."""
    return tuple(sorted(range(array.ndim), key=lambda d: -abs(array.strides[d])))


def _without(input: Array, steps: tuple[Step, ...], order: tuple[int, ...]) -> Array:
    """``input`` with zeros in a view of it. A copy in the base's memory order, where the same steps give a view."""
    back = tuple(int(d) for d in np.argsort(order))
    out = np.ascontiguousarray(input.transpose(order)).reshape([input.shape[d] for d in order])
    out = (out.copy() if np.shares_memory(out, input) or not out.flags.writeable else out).transpose(back)
    part = replay(out, steps)
    if part.size:
        if not part.flags.writeable:
            part.flags.writeable = True  # of a step that expands: the memory is this copy's
        part[...] = 0
    return out


_zero_slices: Primitive = define(
    "ZeroSlices",
    _without,
    ("input",),
    input=lambda g, steps, order: _zero_slices(g, steps=steps, order=order),
)
# The base's memory has been changed already, so there is nothing to compute: only history is made.
_copy_slices: Primitive = define(
    "CopySlices",
    lambda base, source, steps, order: base,
    ("base", "source"),
    base=lambda g, steps, order: _zero_slices(g, steps=steps, order=order),
    source=lambda g, steps: replay(g, steps),
)
_copy_slices.node_name = "CopySlices"
