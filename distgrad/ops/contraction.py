"""Einstein summation: products of tensors of any number of dimensions, each two of them as a batch of matrix products.

``einsum`` takes what it is asked for apart: diagonals for repeated subscripts, sums for subscripts that nothing else
has, then one contraction after the other, in an order that NumPy's path search finds. A contraction of two tensors is
one primitive, and its VJPs are contractions.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, alias, define
from ..autograd.tensor import Array
from ..kernels.product import dot, product
from .diagonals import _diagonal
from .elementwise import mul
from .linalg import _refuse_bool, _refuse_others, matmul
from .linalg import dot as vector_dot
from .promotion import cast, result_type
from .reduction import _sum, sum
from .shape import _permute, _reshape, normalize_dim

__all__ = [  # what distgrad itself offers
    "einsum",
    "inner",
    "tensordot",
]
METHODS = (  # what a Tensor offers
    "inner"
).split()

Labels = tuple[int, ...]  # a name for each dimension

# Two tensors --------------------------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """How two arrays have to lie for their contraction to be a batch of matrix products."""

    swapped: bool  # the second array is the left factor, so that the result lies in memory as it is asked for
    left: tuple[int, ...]  # the order of the dimensions of the left factor: batch, rows, summed
    right: tuple[int, ...]  # of the right one: batch, summed, columns
    left_shape: tuple[int, ...]  # the left factor's, with rows and summed dimensions as one each
    right_shape: tuple[int, ...]
    result_shape: tuple[int, ...]
    result: tuple[int, ...]  # the order of the result's dimensions
    of_vectors: bool  # neither has rows or columns: scalar products


@functools.lru_cache(maxsize=1024)
def _layout(
    left: Labels, right: Labels, out: Labels, left_lengths: tuple[int, ...], right_lengths: tuple[int, ...]
) -> _Layout | None:
    """None where nothing is summed."""
    lengths = dict(zip(left + right, left_lengths + right_lengths, strict=True))

    def size(labels: Sequence[int]) -> int:
        return math.prod(lengths[label] for label in labels)

    larger = left if size(left) >= size(right) else right  # whose order of the summed dimensions costs no copy
    summed = [label for label in larger if label in left and label in right and label not in out]
    if not summed:
        return None
    batch = [label for label in out if label in left and label in right]
    rows = [label for label in out if label not in right]
    columns = [label for label in out if label not in left]
    swapped = bool(rows and columns and out.index(columns[0]) < out.index(rows[0]))
    if swapped:
        left, right, rows, columns = right, left, columns, rows
    lead = [lengths[label] for label in batch]
    made = batch + rows + columns
    of_vectors = not rows and not columns
    return _Layout(
        swapped,
        tuple(left.index(label) for label in batch + rows + summed),
        tuple(right.index(label) for label in batch + summed + columns),
        (*lead, size(summed)) if of_vectors else (*lead, size(rows), size(summed)),
        (*lead, size(summed)) if of_vectors else (*lead, size(summed), size(columns)),
        tuple(lengths[label] for label in made),
        tuple(made.index(label) for label in out),
        of_vectors,
    )


def _contracted(input: Array, other: Array, left: Labels, right: Labels, out: Labels) -> Array:
    """The sum over the dimensions that ``out`` lacks of the products of ``input`` and ``other``.

    Every label of ``out`` is one of ``left`` or ``right``, and every label of those is in ``out`` or in both.
    """
    layout = _layout(left, right, out, input.shape, other.shape)
    if layout is None:
        return np.asarray(_aligned(input, left, out) * _aligned(other, right, out))
    a, b = (other, input) if layout.swapped else (input, other)
    a = a.transpose(layout.left).reshape(layout.left_shape)
    b = b.transpose(layout.right).reshape(layout.right_shape)
    result = dot(a, b) if layout.of_vectors else product(a, b)
    return result.reshape(layout.result_shape).transpose(layout.result)


def _aligned(x: Array, labels: Labels, out: Labels) -> Array:
    """``x`` with its dimensions where ``out`` has them, and dimensions of length 1 for the others."""
    kept = x.transpose([labels.index(label) for label in out if label in labels])
    return kept[tuple(slice(None) if label in labels else None for label in out)]


_contract: Primitive = define(
    "Contract",
    _contracted,
    ("input", "other"),
    input=lambda g, other, left, right, out: _contract(g, other, left=out, right=right, out=left),
    other=lambda g, input, left, right, out: _contract(input, g, left=left, right=out, out=right),
)


def _pair(a: Tensor, b: Tensor, left: Labels, right: Labels, out: Labels) -> Tensor:
    if a.dtype != b.dtype or a.dtype == np.bool_:
        sums = bool(set(left + right) - set(out))
        if sums and a.dtype != b.dtype:
            raise RuntimeError(f"einsum(): expected scalar type {a.dtype} but found {b.dtype}")
        if sums:
            _refuse_bool("einsum", a.dtype)
        dtype = result_type(a, b)
        a, b = cast(a, dtype), cast(b, dtype)
    result: Tensor = _contract(a, b, left=left, right=right, out=out)
    return result


# The equation -------------------------------------------------------------------------------------------------------

_ELLIPSIS = 52  # labels from here on are dimensions that an ellipsis stands for, the last of them first
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _equation_of_lists(arguments: Sequence[Any]) -> tuple[str, list[Any]]:
    """The other way to call ``einsum``: operand, its list, operand, its list, ..., perhaps the list of the output."""

    def term(subscripts: Sequence[Any]) -> str:
        letters = []
        for subscript in subscripts:
            if subscript is not Ellipsis and not 0 <= operator.index(subscript) < len(_LETTERS):
                raise ValueError(
                    f"einsum(): subscript in subscript list is not within the valid range [0, 52), got {subscript}"
                )
            letters.append("..." if subscript is Ellipsis else _LETTERS[subscript])
        return "".join(letters)

    pairs = len(arguments) // 2
    equation = ",".join(term(arguments[2 * number + 1]) for number in range(pairs))
    if len(arguments) % 2:
        equation += "->" + term(arguments[-1])
    return equation, list(arguments[: 2 * pairs : 2])


def _parse_term(term: str, start: int, what: str, covered: int) -> Labels:
    """The labels of one term, with ``covered`` dimensions for an ellipsis. ``start`` is its place in the equation."""
    labels: list[int] = []
    place = 0
    while place < len(term):
        letter = term[place]
        if letter == ".":
            if term[place : place + 3] != "...":
                raise RuntimeError(f"einsum(): found '.' for {what} that is not part of any ellipsis")
            if "..." in term[:place]:
                raise RuntimeError(f"einsum(): found '.' for {what} for which an ellipsis was already found")
            labels += reversed(range(_ELLIPSIS, _ELLIPSIS + covered))
            place += 2
        elif letter in _LETTERS:
            labels.append(_LETTERS.index(letter))
        elif letter != " ":
            raise RuntimeError(
                f"einsum(): invalid subscript given at index {start + place} in the equation string, subscripts must "
                "be in [a-zA-Z]"
            )
        place += 1
    return tuple(labels)


@functools.lru_cache(maxsize=256)
def _parse(equation: str, ranks: tuple[int, ...]) -> tuple[tuple[Labels, ...], Labels]:
    """The labels of each operand, of ``ranks`` dimensions, and of the output."""
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ranks):
        raise RuntimeError(
            f"einsum(): {'fewer' if len(ranks) < len(terms) else 'more'} operands were provided than specified in the "
            f"equation: {len(ranks)} for the {len(terms)} of '{equation}'"
        )
    operands: list[Labels] = []
    start = 0
    for number, (term, rank) in enumerate(zip(terms, ranks, strict=True)):
        named = len(_parse_term(term, start, f"operand {number}", 0))
        if named > rank:
            extra = "" if "." in term else " and no ellipsis was given"
            verb = "is more than" if "." in term else "does not match"
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({named}) {verb} the number of dimensions "
                f"({rank}) for operand {number}{extra}"
            )
        if named < rank and "." not in term:
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({named}) does not match the number of dimensions "
                f"({rank}) for operand {number} and no ellipsis was given"
            )
        operands.append(_parse_term(term, start, f"operand {number}", rank - named))
        start += len(term) + 1
    every = list(itertools.chain(*operands))
    covered = max((label - _ELLIPSIS + 1 for label in every if label >= _ELLIPSIS), default=0)
    if not arrow:
        once = sorted(label for label in set(every) if label < _ELLIPSIS and every.count(label) == 1)
        return tuple(operands), (*reversed(range(_ELLIPSIS, _ELLIPSIS + covered)), *once)
    result = _parse_term(output, len(inputs) + 2, "output", covered)
    for label in result:
        if label >= _ELLIPSIS:
            continue
        if result.count(label) > 1:
            raise RuntimeError(
                f"einsum(): output subscript {_LETTERS[label]} appears more than once in the output of '{equation}'"
            )
        if label not in every:
            raise RuntimeError(
                f"einsum(): output subscript {_LETTERS[label]} does not appear in the equation for any input operand: "
                f"'{equation}'"
            )
    return tuple(operands), result


def _lengths(operands: list[Tensor], terms: Sequence[Labels]) -> dict[int, int]:
    """How long the dimension of each label is; those of length 1 broadcast."""
    lengths: dict[int, int] = {}
    for number, (x, labels) in enumerate(zip(operands, terms, strict=True)):
        own: dict[int, int] = {}
        for label, n in zip(labels, x.shape, strict=True):
            name = _LETTERS[label] if label < _ELLIPSIS else "..."
            if own.setdefault(label, n) != n:
                raise RuntimeError(
                    f"einsum(): subscript {name} is repeated for operand {number} but the sizes don't match, {n} != "
                    f"{own[label]}"
                )
            seen = lengths.get(label, 1)
            if 1 not in (seen, n) and seen != n:
                raise RuntimeError(
                    f"einsum(): subscript {name} has size {n} for operand {number} which does not broadcast with "
                    f"previously seen size {seen}"
                )
            lengths[label] = n if seen == 1 else seen
    return lengths


def _without_repeats(x: Tensor, labels: Labels) -> tuple[Tensor, Labels]:
    """Of dimensions with the same label the diagonal."""
    for label in labels:
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = _diagonal(x, offset=0, dim1=first, dim2=second)
            labels = (*(other for place, other in enumerate(labels) if place not in (first, second)), label)
    return x, labels


def _only(x: Tensor, labels: Labels, kept: set[int], wide: bool) -> tuple[Tensor, Labels]:
    """``x`` summed over the dimensions whose labels are not ``kept``."""
    dims = tuple(place for place, label in enumerate(labels) if label not in kept)
    if dims:
        x = sum(x, dims) if wide else _sum(x, dims=dims, keepdim=False, dtype=x.dtype)
    return x, tuple(label for label in labels if label in kept)


def _without_broadcast(x: Tensor, labels: Labels, lengths: dict[int, int]) -> tuple[Tensor, Labels]:
    """Without the dimensions of length 1 that the other operands have longer."""
    kept = [place for place, label in enumerate(labels) if x.shape[place] == lengths[label]]
    if len(kept) < len(labels):
        x = _reshape(x, shape=tuple(x.shape[place] for place in kept))
    return x, tuple(labels[place] for place in kept)


@functools.lru_cache(maxsize=256)
def _path(terms: tuple[Labels, ...], shapes: tuple[tuple[int, ...], ...], out: Labels) -> tuple[tuple[int, ...], ...]:
    """In which order to contract: pairs of positions in the list of operands, at whose end each result is put."""
    names = {label: number for number, label in enumerate(dict.fromkeys(itertools.chain(*terms)))}
    if len(terms) < 3 or len(names) > len(_LETTERS):  # NumPy has no more letters than einsum
        return ((0, 1), *((0, len(terms) - done) for done in range(2, len(terms))))
    arguments: list[Any] = []
    for labels, shape in zip(terms, shapes, strict=True):
        arguments += [np.broadcast_to(np.zeros(()), shape), [names[label] for label in labels]]
    # An exhaustive search is worth it for few operands only.
    strategy = "optimal" if len(terms) <= 4 else "greedy"
    path, _ = np.einsum_path(*arguments, [names[label] for label in out], optimize=(strategy, 2**62))
    pairs: list[tuple[int, ...]] = []
    count = len(terms)
    for step in path[1:]:
        positions = sorted(step)
        while len(positions) > 1:  # where more than two are to be multiplied at once, they are one after the other
            first, second, *rest = positions
            pairs.append((first, second))
            positions = [*(position - 2 for position in rest), count - 2]
            count -= 1
    return tuple(pairs)


@functools.lru_cache(maxsize=256)
def _direct(equation: str, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[Labels, Labels, Labels] | None:
    """The labels of two operands of these shapes and of the output, if that is one contraction and nothing else."""
    (left, right), out = _parse(equation, (len(first), len(second)))
    simple = (
        all(len(set(labels)) == len(labels) for labels in (left, right, out))
        and set(left) <= set(right).union(out)
        and set(right) <= set(left).union(out)
        and set(out) <= set(left).union(right)
        and all(first[left.index(label)] == second[right.index(label)] for label in left if label in right)
    )
    return (left, right, out) if simple else None


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products by Einstein's convention, as ``torch.einsum``.

    Args:
        equation: a letter for each dimension of each operand, operands separated by commas, and after ``->`` those of
            the result; without it the letters that occur once, in the order of the alphabet, capitals first. Letters
            that the result lacks are summed over; a letter that an operand has twice takes its diagonal; ``...``
            stands for any number of dimensions, which broadcast. Or ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.
        operands: the tensors, also as one list.

    Raises:
        ValueError: no equation or no operands.
        RuntimeError: an equation that cannot be read or does not fit the operands, or dtypes that differ.
    """
    if not operands or not isinstance(equation, (str, Tensor)):
        raise ValueError(
            "einsum(): must specify the equation string and at least one operand, or at least one operand and its "
            "subscripts list"
        )
    if isinstance(equation, Tensor):
        equation, tensors = _equation_of_lists((equation, *operands))
    else:
        given = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
        tensors = list(given)
    for number, x in enumerate(tensors):
        if not isinstance(x, Tensor):
            raise TypeError(f"einsum(): expected Tensor as operand {number}, but got {type(x).__name__}")
    if len(tensors) == 2:
        direct = _direct(equation, tensors[0].shape, tensors[1].shape)
        if direct is not None:
            return _pair(tensors[0], tensors[1], *direct)
    terms, out = _parse(equation, tuple(x.ndim for x in tensors))
    lengths = _lengths(tensors, terms)
    out = tuple(label for label in out if label in lengths)
    parts = []
    for number, (tensor, term) in enumerate(zip(tensors, terms, strict=True)):
        x, labels = _without_repeats(tensor, term)
        elsewhere = set(out).union(*(terms[other] for other in range(len(terms)) if other != number))
        x, labels = _without_broadcast(x, labels, lengths)
        parts.append(_only(x, labels, elsewhere, wide=len(tensors) == 1))
    last, labels = _all_contracted(parts, out)
    order = tuple(labels.index(label) for label in out)
    if order == tuple(range(len(order))):
        return alias(last) if any(last is x for x in tensors) else last
    permuted: Tensor = _permute(last, dims=order)
    return permuted


def _all_contracted(parts: list[tuple[Tensor, Labels]], out: Labels) -> tuple[Tensor, Labels]:
    """One tensor of those of ``out``, from tensors with their labels, none of which has one twice."""
    terms, shapes = tuple(labels for _, labels in parts), tuple(tuple(x.shape) for x, _ in parts)
    for first, second in _path(terms, shapes, out) if len(parts) > 1 else ():
        b, right = parts.pop(second)
        a, left = parts.pop(first)
        needed = set(out).union(*(labels for _, labels in parts))
        # what only one of the two has left once the others broadcast
        a, left = _only(a, left, needed.union(right), wide=False)
        b, right = _only(b, right, needed.union(left), wide=False)
        every = dict.fromkeys(left + right)
        result = tuple(label for label in (every if parts else out) if label in every and label in needed)
        parts.append((_pair(a, b, left, right, result), result))
    return parts[0]


# Its special cases --------------------------------------------------------------------------------------------------


def _dims_of(a: Tensor, b: Tensor, dims: Any) -> tuple[list[int], list[int]]:
    """The dimensions of each that ``tensordot`` sums over, counted from the front."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        return list(range(a.ndim - dims, a.ndim)), list(range(dims))
    first, second = dims
    if isinstance(first, int) or isinstance(second, int):
        raise TypeError(f"tensordot(): argument 'dims' must be an int or a pair of lists of ints, not {dims}")
    if len(first) != len(second):
        raise RuntimeError(f"tensordot: both dimension lists should have same length, got {first} and {second}")
    lists = [normalize_dim(d, a.ndim) for d in first], [normalize_dim(d, b.ndim) for d in second]
    for axes in lists:
        for axis in axes:
            if axes.count(axis) > 1:
                raise RuntimeError(f"tensordot: dim {axis} appears multiple times in the list of dims")
    return lists


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The sum of the products of ``a`` and ``b`` over pairs of dimensions, as ``torch.tensordot``.

    Args:
        a: any number of dimensions.
        b: likewise.
        dims: that many dimensions, the last of ``a`` and the first of ``b``; or two lists, of dimensions of ``a`` and
            of ``b``. A dimension of length 1 broadcasts.

    Returns:
        The other dimensions of ``a``, then those of ``b``.

    Raises:
        RuntimeError: lengths or dtypes that differ, or dimensions that are named twice.
        IndexError: a dimension is out of range.
    """
    _refuse_others("tensordot", a=a, b=b)
    if a.dtype != b.dtype:
        raise RuntimeError(f"tensordot: both inputs should have same dtype, got {a.dtype} and {b.dtype}")
    first, second = _dims_of(a, b, dims)
    left, right = list(range(a.ndim)), list(range(a.ndim, a.ndim + b.ndim))
    for d, e in zip(first, second, strict=True):
        if a.shape[d] != b.shape[e] and 1 not in (a.shape[d], b.shape[e]):
            raise RuntimeError(
                f"contracted dimensions need to match, but first has size {a.shape[d]} in dim {d} and second has size "
                f"{b.shape[e]} in dim {e}"
            )
        right[e] = left[d]
    out = tuple(
        [left[d] for d in range(a.ndim) if d not in first] + [right[e] for e in range(b.ndim) if e not in second]
    )
    lengths = _lengths([a, b], [tuple(left), tuple(right)])
    x, some = _without_broadcast(a, tuple(left), lengths)
    y, others = _without_broadcast(b, tuple(right), lengths)
    x, some = _only(x, some, set(out).union(others), wide=False)
    y, others = _only(y, others, set(out).union(some), wide=False)
    return _pair(x, y, some, others, out)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """The sum of products over the last dimension of both, all pairs: (..., k) and (***, k) to (..., ***).

    A 0-d tensor multiplies the other.

    Raises:
        RuntimeError: the last dimensions or the dtypes differ.
    """
    _refuse_others("inner", input=input, other=other)
    if input.dtype != other.dtype:
        raise RuntimeError(f"inner: both inputs should have same dtype, got {input.dtype} and {other.dtype}")
    if not input.ndim or not other.ndim:
        return mul(input, other)
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError(
            f"inner() the last dimension must match on both input tensors but got shapes {list(input.shape)} and "
            f"{list(other.shape)}"
        )
    if input.ndim == 1 and other.ndim == 1:
        return vector_dot(input, other)
    return matmul(input, other) if other.ndim == 1 else tensordot(input, other, ([-1], [-1]))
