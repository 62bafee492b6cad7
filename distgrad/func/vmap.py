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
from .batched import Batched, Interpreter, batched_at, levels_of
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
        in_dims: which dimension of each positional argument to map over; None for one that all samples share. A number
            for all, or nested as the arguments are. Keyword arguments are shared, as in PyTorch.
        out_dims: where the mapped dimension goes in each result; None for one that is the same for all samples.
        randomness: "error": random operations raise; "same": all samples see the same numbers; "different": each its
            own.
        chunk_size: how many samples at once, for less memory; all by default.

    Returns:
        A function whose mapped arguments and results have one dimension more.

    Raises:
        ValueError: the mapped dimensions differ in length or do not exist, there is none, ``in_dims`` or ``out_dims``
            do not fit the arguments or results, or these are no tensors.
        RuntimeError: another ``randomness``; inside, an operation that has to see values or that draws random numbers.
    """
    if randomness not in ("error", "same", "different"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, structure, dims, size = _mapped_leaves(_name(func), args, in_dims)
        run = functools.partial(_run, func, structure, kwargs, dims, out_dims=out_dims, randomness=randomness)
        if chunk_size is None or chunk_size >= size:
            return run(leaves, size)
        results = []
        for start in range(0, size, chunk_size):
            length = min(chunk_size, size - start)
            part = [
                ops.narrow(x, dim, start, length) if dim is not None else x for x, dim in zip(leaves, dims, strict=True)
            ]
            results.append(run(part, length))
        return _joined(results, out_dims)

    return mapped


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", type(func).__name__)


def _joined(results: list[Any], out_dims: Any) -> Any:
    """The results of chunks, one behind the other where they were mapped."""
    outs, structure = [flatten(result)[0] for result in results], flatten(results[0])[1]
    places = broadcast_prefix(out_dims, results[0], "vmap: out_dims")
    joined = [
        parts[0] if place is None else ops.cat(list(parts), place)
        for parts, place in zip(zip(*outs, strict=True), places, strict=True)
    ]
    return unflatten(joined, structure)


def _mapped_leaves(name: str, args: Any, in_dims: Any) -> tuple[list[Any], Any, list[int | None], int]:
    """The positional arguments as leaves, which dimension of each is mapped, and how many samples there are."""
    where = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>)"
    if not isinstance(in_dims, (int, tuple)):
        raise ValueError(
            f"{where}: expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, "
            f"got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a "
            "function with no inputs. The latter is unsupported."
        )
    wanted = broadcast_prefix(in_dims, args, f"{where}: in_dims is not compatible with the structure of `inputs`: it")
    leaves, structure = flatten(args)
    dims: list[int | None] = []
    sizes = []
    for x, dim in zip(leaves, wanted, strict=True):
        if dim is None:
            dims.append(None)
            continue
        if not isinstance(dim, int):
            raise ValueError(f"{where}: Got in_dim={dim} for an input but in_dim must be either an integer or None.")
        if not isinstance(x, Tensor):
            raise ValueError(
                f"{where}: Got in_dim={dim} for an input but the input is of type {type(x)}. We cannot vmap over "
                "non-Tensor arguments, please use None as the respective in_dim"
            )
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(
                f"{where}: Got in_dim={dim} for some input, but that input is a Tensor of dimensionality {x.ndim} so "
                f"expected in_dim to satisfy -{x.ndim} <= in_dim < {x.ndim}."
            )
        axis = normalize_dim(dim, x.ndim)
        dims.append(axis)
        sizes.append(x.shape[axis])
    if not sizes:
        raise ValueError(f"{where}: at least one argument has to be mapped over, and in_dims is None for all of them")
    if len(set(sizes)) > 1:
        raise ValueError(
            "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
            f"{sizes} for the mapped dimension"
        )
    return leaves, structure, dims, sizes[0]


def _run(
    func: Callable[..., Any],
    structure: Any,
    kwargs: dict[str, Any],
    dims: list[int | None],
    leaves: list[Any],
    size: int,
    out_dims: Any,
    randomness: str,
) -> Any:
    state = mode.state
    before = state.batching
    interpreter = before if isinstance(before, Interpreter) else Interpreter()
    level = next(_levels)
    inside = [x if dim is None else Batched(ops.movedim(x, dim, 0), level) for x, dim in zip(leaves, dims, strict=True)]
    args = unflatten(inside, structure)
    interpreter.sizes[level] = size
    interpreter.randomness[level] = randomness
    state.batching = interpreter
    try:
        result = func(*args, **kwargs)
        outs, out_structure = flatten(result)
        places = _places(_name(func), result, out_dims)
        values = [_value(_name(func), out, place, level, size) for out, place in zip(outs, places, strict=True)]
    finally:
        del interpreter.sizes[level]
        del interpreter.randomness[level]
        state.batching = before
    moved = [x if place is None else ops.movedim(x, 0, place) for x, place in zip(values, places, strict=True)]
    return unflatten(moved, out_structure)


def _places(name: str, result: Any, out_dims: Any) -> list[int | None]:
    """Where each result's mapped dimension goes."""
    if isinstance(out_dims, tuple) and len(out_dims) == 1 and isinstance(result, Tensor):
        out_dims = out_dims[0]  # of a single result, as PyTorch takes it
    where = f"vmap({name}, ..., out_dims={out_dims})"
    places = broadcast_prefix(
        out_dims, result, f"{where}(<inputs>): out_dims is not compatible with the structure of `outputs`: it"
    )
    for place in places:
        if place is not None and not isinstance(place, int):
            raise ValueError(
                f"{where}: `out_dims` must be an int, None or a python collection of ints representing where in the "
                "outputs the vmapped dimension should appear."
            )
    return places


def _value(name: str, out: Any, place: int | None, level: int, size: int) -> Any:
    """A result with its batch in front; without one where ``place`` is None."""
    if place is None:
        if isinstance(out, Tensor) and level in levels_of(out):
            raise ValueError(
                f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim is None: the result differs "
                "from sample to sample"
            )
        return out
    if not isinstance(out, Tensor):
        raise ValueError(
            f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(out)}. Did you mean to set "
            "out_dims= to None for output?"
        )
    return batched_at(out, level, size)._value
