"""``vmap``: a function of one sample as a function of many at once."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

from .. import ops
from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..ops.shape import normalize_dim
from . import batching  # noqa: F401  the rules
from .batched import Batched, Interpreter, batched_at
from .pytree import broadcast_prefix, flatten, unflatten

_levels = itertools.count(1)


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """``func`` mapped over a dimension of its arguments, all samples at once, as ``torch.func.vmap``.

    Args:
        func: from tensors (nested in tuples, lists and dictionaries, and mixed with anything else) to tensors.
        in_dims: which dimension of each argument to map over; None for one that all samples share. A number for all,
            or nested as the arguments are.
        out_dims: where the mapped dimension goes in each result.
        randomness: "error": random operations raise; "same": all samples see the same numbers; "different": each its
            own.
        chunk_size: how many samples at once, for less memory; all by default.

    Returns:
        A function whose arguments and results have one dimension more.

    Raises:
        ValueError: the mapped dimensions differ in length, there is none, or ``in_dims`` does not fit the arguments.
    """
    if randomness not in ("error", "same", "different"):
        raise RuntimeError(
            f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness!r}"
        )
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, structure, dims, size = _mapped_leaves(args, kwargs, in_dims)
        if chunk_size is None or chunk_size >= size:
            return _run(func, leaves, structure, dims, size, out_dims, randomness)
        results = []
        for start in range(0, size, chunk_size):
            length = min(chunk_size, size - start)
            part = [
                ops.narrow(x, dim, start, length) if dim is not None else x for x, dim in zip(leaves, dims, strict=True)
            ]
            results.append(_run(func, part, structure, dims, length, 0, randomness))
        flat = [flatten(result)[0] for result in results]
        outs = [ops.cat(parts, 0) for parts in zip(*flat, strict=True)]
        result = unflatten(outs, flatten(results[0])[1])
        places = broadcast_prefix(out_dims, result, "out_dims")
        moved = [ops.movedim(x, 0, place) for x, place in zip(outs, places, strict=True)]
        return unflatten(moved, flatten(results[0])[1])

    return mapped


def _mapped_leaves(args: Any, kwargs: Any, in_dims: Any) -> tuple[list[Any], Any, list[int | None], int]:
    """All arguments as leaves, which dimension of each is mapped, and how many samples there are."""
    if not isinstance(in_dims, (int, tuple, list)):
        raise ValueError(f"vmap: expected in_dims to be int or a (potentially nested) tuple, got {type(in_dims)}")
    positional = broadcast_prefix(in_dims if isinstance(in_dims, int) else tuple(in_dims), args, "vmap: in_dims")
    leaves, structure = flatten((args, kwargs))
    # as in PyTorch, keyword arguments are mapped over their first dimension
    wanted = positional + [0] * (len(leaves) - len(positional))
    keywords = range(len(positional), len(leaves))
    dims: list[int | None] = []
    sizes = set()
    for number, (x, dim) in enumerate(zip(leaves, wanted, strict=True)):
        if dim is None or (not isinstance(x, Tensor) and number in keywords):
            dims.append(None)
            continue
        if not isinstance(x, Tensor):
            if isinstance(in_dims, int):
                dims.append(None)
                if len(leaves) == 1:
                    raise ValueError(f"vmap: got in_dim={dim} for an input of type {type(x).__name__}, not a Tensor")
                continue
            raise ValueError(
                f"vmap: Got in_dim={dim} for an input but the input is of type {type(x).__name__}. We cannot vmap over "
                "non-Tensor arguments, please use None as the respective in_dim"
            )
        if x.ndim == 0:
            raise ValueError(f"vmap: Got in_dim={dim} for an input of no dimension: there is nothing to map over")
        axis = normalize_dim(dim, x.ndim)
        dims.append(axis)
        sizes.add(x.shape[axis])
    if not sizes:
        raise ValueError("vmap: at least one argument has to be mapped over, and none is")
    if len(sizes) > 1:
        raise ValueError(
            "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
            f"{[x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None]} for the mapped dimension"
        )
    return leaves, structure, dims, sizes.pop()


def _run(
    func: Callable[..., Any],
    leaves: list[Any],
    structure: Any,
    dims: list[int | None],
    size: int,
    out_dims: Any,
    randomness: str,
) -> Any:
    state = mode.state
    before = state.batching
    interpreter = before if isinstance(before, Interpreter) else Interpreter()
    level = next(_levels)
    inside = [x if dim is None else Batched(ops.movedim(x, dim, 0), level) for x, dim in zip(leaves, dims, strict=True)]
    args, kwargs = unflatten(inside, structure)
    interpreter.sizes[level] = size
    interpreter.randomness.append(randomness)
    state.batching = interpreter
    try:
        result = func(*args, **kwargs)
        outs, out_structure = flatten(result)
        for out in outs:
            if not isinstance(out, Tensor):
                raise ValueError(
                    f"vmap: the function must return tensors (in tuples, lists or dictionaries), got "
                    f"{type(out).__name__}"
                )
        values = [batched_at(out, level, size)._value for out in outs]
    finally:
        del interpreter.sizes[level]
        interpreter.randomness.pop()
        state.batching = before
    places = broadcast_prefix(out_dims, result, "vmap: out_dims")
    return unflatten([ops.movedim(x, 0, p) for x, p in zip(values, places, strict=True)], out_structure)
