from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import contraction

from .linalg import ONE_DTYPE, integers, shapes, together
from .row import Op, Sample, Samples, Wrong


def einstein(equation: Any, *operands: Any) -> Any:
    """Every product of elements added where it belongs: loops over all values of all subscripts."""
    if not isinstance(equation, str):
        equation, operands = from_lists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], list):
        operands = tuple(operands[0])
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    covered = [x.ndim - len(t.replace("...", "")) for t, x in zip(terms, operands, strict=True)]
    most = max(c for t, c in zip(terms, covered, strict=True) if "..." in t) if "..." in inputs else 0
    digits = "0123456789"[:most]
    terms = [t.replace("...", digits[most - c :] if c else "") for t, c in zip(terms, covered, strict=True)]
    if "->" in equation:
        output = output.replace("...", digits)
    else:
        joined = "".join(terms)
        output = digits + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in digits))
    lengths: dict[str, int] = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, n in zip(term, x.shape, strict=True):
            lengths[letter] = n if lengths.get(letter, 1) == 1 else lengths[letter]
    letters = list(lengths)
    out = np.zeros([lengths[letter] for letter in output], np.result_type(*operands))
    for values in itertools.product(*(range(lengths[letter]) for letter in letters)):
        at = dict(zip(letters, values, strict=True))
        value = 1
        for term, x in zip(terms, operands, strict=True):
            place = tuple(at[c] if n > 1 else 0 for c, n in zip(term, x.shape, strict=True))
            value = value * x[place]
        out[tuple(at[letter] for letter in output)] += value
    return out


def from_lists(arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    def term(subscripts: Any) -> str:
        return "".join("..." if s is Ellipsis else chr(ord("A") + s) for s in subscripts)

    if len(arguments) % 2:
        return (
            ",".join(term(s) for s in arguments[1:-1:2]) + "->" + term(arguments[-1]),
            arguments[:-1:2],
        )
    return ",".join(term(s) for s in arguments[1::2]), arguments[::2]


def equations(*cases: tuple[str, tuple[tuple[int, ...], ...]]) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for equation, sizes in cases:
            yield Sample(equation, *(rng.standard_normal(size) for size in sizes))

    return samples


def other_calls(rng: np.random.Generator) -> Iterator[Sample]:
    a, b = rng.standard_normal((2, 3)), rng.standard_normal((3, 2))
    yield Sample("ij,jk->ik", [a, b])
    yield Sample(a, [0, 1], b, [1, 2], [0, 2])
    yield Sample(a, [1, 0])
    yield Sample(rng.standard_normal((2, 2, 3)), [..., 1], b, [1, 0], [0, ...])
    yield Sample("ij,jk->ik", np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2))


def doted(a: Any, b: Any, dims: Any = 2) -> Any:
    if isinstance(dims, int):
        dims = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    letters = "abcdefghij"
    left, right = letters[: a.ndim], list(letters[a.ndim : a.ndim + b.ndim])
    for d, e in zip(*dims, strict=True):
        right[e] = left[d]
    shared = {left[d] for d in dims[0]}
    out = "".join(c for c in left + "".join(right) if c not in shared)
    return einstein(f"{left},{''.join(right)}->{out}", a, b)


def pairs_of_dims(*cases: tuple[tuple[int, ...], tuple[int, ...], Any]) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for first, second, dims in cases:
            yield Sample(rng.standard_normal(first), rng.standard_normal(second), dims)

    return samples


def inner_products(a: Any, b: Any) -> Any:
    if not a.ndim or not b.ndim:
        return a * b
    return doted(a, b, ([-1], [-1]))


TWO = (np.zeros((2, 3)), np.zeros((3, 2)))
ONE = np.zeros((2, 3))

ROWS = [
    Op(
        contraction.einsum,
        einstein,
        together(
            equations(
                # one operand: permutation, sums, diagonals
                ("ij", ((2, 3),)),
                ("ji", ((2, 3),)),
                ("bA", ((2, 3),)),
                ("ij->", ((2, 3),)),
                ("ij->j", ((2, 3),)),
                ("ii->i", ((3, 3),)),
                ("ii", ((3, 3),)),
                ("iji->j", ((2, 3, 2),)),
                ("iiij->ij", ((2, 2, 2, 3),)),
                ("->", ((),)),
                # two: products of matrices, elementwise, outer
                ("ij,jk", ((2, 3), (3, 4))),
                ("ij,jk->ki", ((2, 3), (3, 4))),
                ("ij,kj->ik", ((2, 3), (4, 3))),
                ("bij,bjk->bik", ((2, 2, 3), (2, 3, 2))),
                ("ij,ij->ij", ((2, 3), (2, 3))),
                ("ij,ij->", ((2, 3), (2, 3))),
                ("ij,ij->i", ((2, 3), (2, 3))),
                ("i,j->ij", ((2,), (3,))),
                ("i,j->", ((2,), (3,))),
                ("ij,k->jk", ((2, 3), (2,))),
                (",i->i", ((), (3,))),
                ("Ba,aC", ((2, 3), (3, 2))),
                (" i j , j k -> i k ", ((2, 3), (3, 2))),
                ("ii,ij->j", ((3, 3), (3, 2))),
                ("bhqd,bhkd->bhqk", ((2, 1, 2, 3), (2, 1, 3, 3))),
                ("abcd,cbe->dae", ((2, 3, 2, 1), (2, 3, 2))),
                # ellipsis
                ("...i->...", ((2, 2, 3),)),
                ("...i->i", ((2, 2, 3),)),
                ("...i", ((2, 3),)),
                ("...ii->...i", ((2, 3, 3),)),
                ("i...->...i", ((2, 1, 3),)),
                ("...ij,...jk->...ik", ((2, 1, 2, 3), (2, 3, 1))),
                ("...ij,jk", ((2, 2, 3), (3, 2))),
                ("ij->...ij", ((2, 3),)),
                # lengths of 1 broadcast
                ("ij,ij->ij", ((2, 3), (1, 3))),
                ("ij,jk->ik", ((2, 3), (1, 2))),
                ("ij,ij->i", ((1, 3), (2, 1))),
                # several
                ("ij,jk,kl->il", ((2, 3), (3, 2), (2, 2))),
                ("ij,jk,kl->li", ((2, 3), (3, 1), (4, 2))),
                ("bi,bj,bk->bijk", ((2, 2), (2, 1), (2, 3))),
                ("i,i,i,i->", ((3,), (3,), (3,), (3,))),
                ("ij,jk,kl,lm,mi->", ((2, 2), (2, 1), (1, 2), (2, 2), (2, 2))),
                ("nx,ny,xyo->no", ((2, 3), (2, 2), (3, 2, 2))),
                # nothing to sum, and nothing
                ("ij,jk->ik", ((2, 0), (0, 3))),
                ("ij,jk->ik", ((0, 2), (2, 3))),
            ),
            other_calls,
        ),
        (
            Wrong(ValueError, "must specify the equation string and at least one operand", "ij"),
            Wrong(ValueError, "must specify the equation", 3, ONE),
            Wrong(ValueError, r"not within the valid range \[0, 52\), got 52", ONE, [0, 52]),
            Wrong(RuntimeError, "fewer operands were provided", "ij,jk", ONE),
            Wrong(RuntimeError, "more operands were provided", "ij", *TWO),
            Wrong(RuntimeError, r"subscripts in the equation \(3\) does not match .* \(2\) for operand 0", "ijk", ONE),
            Wrong(RuntimeError, r"\(1\) does not match .* and no ellipsis was given", "i", ONE),
            Wrong(RuntimeError, r"\(3\) is more than the number of dimensions \(2\)", "ijk...", ONE),
            Wrong(RuntimeError, "subscript j has size 2 for operand 1 which does not broadcast", "ij,jk", ONE, ONE),
            Wrong(RuntimeError, "subscript i is repeated for operand 0 but the sizes don't match, 3 != 2", "ii", ONE),
            Wrong(RuntimeError, "output subscript i appears more than once", "ij->ii", ONE),
            Wrong(RuntimeError, "output subscript k does not appear in the equation", "ij->ik", ONE),
            Wrong(RuntimeError, "invalid subscript given at index 1 in", "i1->i", ONE),
            Wrong(RuntimeError, "invalid subscript given at index 5 in", "ij->i1", ONE),
            Wrong(RuntimeError, "found '.' for operand 0 that is not part of any ellipsis", "i..", ONE),
            Wrong(RuntimeError, "found '.' for operand 0 for which an ellipsis was already found", "...i...", ONE),
            Wrong(RuntimeError, "expected scalar type float64 but found int64", "ij,jk", ONE, np.ones((3, 2), int)),
            Wrong(TypeError, "expected Tensor as operand 1, but got int", "i,i", np.zeros(2), 3),
            Wrong(NotImplementedError, "for 'Bool'", "ij,jk", np.ones((2, 3), bool), np.ones((3, 2), bool)),
        ),
        ("Contract",),
        dtypes=ONE_DTYPE,
    ),
    Op(
        contraction.tensordot,
        doted,
        together(
            pairs_of_dims(
                ((2, 3, 2), (3, 2, 1), 2),
                ((2, 3), (3, 2), 1),
                ((2, 3), (2,), 0),
                ((2, 3), (2, 3), 2),
                ((), (), 0),
                ((2, 3, 2), (2, 3), ([1, 2], [1, 0])),
                ((2, 3), (2, 3), ([-1], [1])),
                ((2, 1), (3, 2), 1),
                ((2, 3), (1, 2), ([1], [0])),
                ((2, 0), (0, 3), 1),
            ),
            integers(((2, 3), (2, 3))),
        ),
        (
            Wrong(RuntimeError, "first has size 3 in dim 1 and second has size 2 in dim 0", ONE, ONE, 1),
            Wrong(RuntimeError, "dims >= 0, but got dims=-1", ONE, ONE, -1),
            Wrong(RuntimeError, "dims < ndim_a or ndim_b, but got dims=3", ONE, ONE, 3),
            Wrong(RuntimeError, "both dimension lists should have same length", ONE, ONE, ([0], [0, 1])),
            Wrong(RuntimeError, "dim 0 appears multiple times", np.zeros((2, 2)), np.zeros((2, 2)), ([0, 0], [0, 1])),
            Wrong(IndexError, "out of range", ONE, ONE, ([2], [0])),
            Wrong(RuntimeError, "both inputs should have same dtype", ONE, np.ones((3, 2), int), 1),
            Wrong(TypeError, "must be an int or a pair of lists", ONE, ONE, (1, 0)),
        ),
        ("Contract",),
        dtypes=ONE_DTYPE,
    ),
    Op(
        contraction.inner,
        inner_products,
        shapes(
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (2, 3)),
            ((2, 3), (4, 3)),
            ((2, 2, 3), (2, 3)),
            ((), (2, 3)),
            ((2, 3), ()),
            ((), ()),
            ((0, 3), (2, 3)),
            ((2, 0), (3, 0)),
        ),
        (
            Wrong(RuntimeError, r"last dimension must match .* shapes \[2, 3\] and \[2\]", ONE, np.zeros(2)),
            Wrong(RuntimeError, "both inputs should have same dtype", ONE, np.ones(3, int)),
        ),
        ("Contract", "Dot", "Mv"),
        dtypes=ONE_DTYPE,
    ),
]
FAMILY = contraction
EXEMPT: list[Any] = []
