from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.ops import diagonals

from .rearrange import from_places
from .row import Op, Wrong
from .shape import DIM, SCALAR, calls, in_order


def kept(x: Any, condition: Callable[[int, int], bool]) -> Any:
    return from_places(x, x.shape, lambda place: place if condition(place[-2], place[-1]) else None)


def on_diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    a, b = dim1 % x.ndim, dim2 % x.ndim
    rest = [d for d in range(x.ndim) if d not in (a, b)]
    row, column = max(-offset, 0), max(offset, 0)
    length = max(min(x.shape[a] - row, x.shape[b] - column), 0)

    def source(place: tuple[int, ...]) -> tuple[int, ...]:
        at = dict(zip(rest, place, strict=False)) | {a: place[-1] + row, b: place[-1] + column}
        return tuple(at[d] for d in range(x.ndim))

    return from_places(x, (*(x.shape[d] for d in rest), length), source)


def embedded(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    a, b = dim1 % (x.ndim + 1), dim2 % (x.ndim + 1)
    side = x.shape[-1] + abs(offset)
    size = [*x.shape[:-1]]
    for d in sorted((a, b)):
        size.insert(d, side)

    def source(place: tuple[int, ...]) -> tuple[int, ...] | None:
        others = tuple(i for d, i in enumerate(place) if d not in (a, b))
        return (*others, min(place[a], place[b])) if place[b] - place[a] == offset else None

    return from_places(x, tuple(size), source)


def diag(x: Any, diagonal: int = 0) -> Any:
    return on_diagonal(x, diagonal) if x.ndim == 2 else embedded(x, diagonal)


MATRICES = calls(
    ((3, 4),), ((4, 3), 1), ((3, 3), -1), ((2, 3, 3), 2), ((2, 2), 9), ((2, 2), -9), ((0, 3),), ((2, 0, 2),)
)
NO_MATRIX = {"0-d": "there is no matrix: an error"}

ROWS = [
    Op(
        diagonals.tril,
        lambda x, diagonal=0: kept(x, lambda i, j: j - i <= diagonal),
        MATRICES,
        (
            Wrong(RuntimeError, "tril: input tensor must have at least 2 dimensions", np.zeros(3)),
            Wrong(TypeError, "float", np.zeros((3, 3)), 0.5),
        ),
        ("Tril",),
        lacks=NO_MATRIX,
    ),
    Op(
        diagonals.triu,
        lambda x, diagonal=0: kept(x, lambda i, j: j - i >= diagonal),
        MATRICES,
        (Wrong(RuntimeError, "triu: input tensor must have at least 2 dimensions", np.zeros(3)),),
        ("Triu",),
        lacks=NO_MATRIX,
    ),
    Op(
        diagonals.diagonal,
        on_diagonal,
        calls(
            ((3, 4),),
            ((3, 4), 1),
            ((4, 3), -2),
            ((2, 3, 4), 0, -2, -1),
            ((2, 3, 4), 1, 2, 0),
            ((2, 3, 2, 2), -1, 3, 1),
            ((2, 2), 5),
            ((2, 2), -2),
            ((0, 3),),
        ),
        (
            Wrong(RuntimeError, "diagonal dimensions cannot be identical 0, -2", np.zeros((3, 3)), 0, 0, -2),
            Wrong(IndexError, DIM, np.zeros(3)),
            Wrong(IndexError, DIM, np.zeros((3, 3)), 0, 0, 2),
        ),
        ("Diagonal", "DiagonalAdjoint"),
        lacks=NO_MATRIX,
    ),
    Op(
        diagonals.diag,
        diag,
        calls(((3,),), ((2,), 1), ((2,), -2), ((3, 4),), ((3, 4), 2), ((3, 2), -1), ((2, 2), 9), ((0,),), ((0,), 2)),
        (
            Wrong(RuntimeError, r"diag\(\): Supports 1D or 2D tensors. Got 3D", np.zeros((2, 2, 2))),
            Wrong(RuntimeError, r"diag\(\): Supports 1D or 2D tensors. Got 0D", np.zeros(())),
        ),
        ("Diagonal", "DiagonalAdjoint"),
        lacks=NO_MATRIX,
    ),
    Op(
        diagonals.diag_embed,
        embedded,
        calls(
            ((3,),),
            ((2,), 1),
            ((2, 3), -2),
            ((2, 3), 0, 0, 2),
            ((2, 3), 1, -1, 0),
            ((2, 1, 2), 0, 3, 1),
            ((0,), 1),
            ((0, 2),),
        ),
        (
            Wrong(RuntimeError, "diagonal dimensions cannot be identical 0, -2", np.zeros(3), 0, 0, -2),
            Wrong(IndexError, r"range of \[-2, 1\], but got 2", np.zeros(3), 0, 2),
            Wrong(IndexError, DIM, np.zeros(())),
        ),
        ("DiagonalAdjoint", "Diagonal"),
        lacks={"0-d": "it has no diagonal to give: an error"},
    ),
    Op(
        diagonals.diagflat,
        lambda x, offset=0: embedded(in_order(x, (x.size,)), offset),
        calls(((2, 3),), ((2,), -1), (SCALAR,), (SCALAR, 2), ((0, 2), 1)),
        (Wrong(TypeError, "must be Tensor", 3), Wrong(TypeError, "float", np.zeros(3), 0.5)),
        ("DiagonalAdjoint", "Diagonal"),
    ),
]
FAMILY = diagonals
EXEMPT: list[Any] = []
