from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.ops import metadata

from .inplace import on_a_copy, torch_method
from .row import Op, Wrong
from .shape import DIM, SCALAR, SWAPS, calls, in_order, swapped, without_ones
from .strided import X, by_strides

DIMS = "takes dims; test_in_place_keeps_the_dtype"


def on_itself(name: str, reference: Any, samples: Any, *errors: Wrong, covers: str, **more: Any) -> Op:
    return Op(
        on_a_copy(getattr(metadata, name)), reference, samples, errors, (covers,), torch=torch_method(name), **more
    )


ROWS = [
    on_itself(
        "squeeze_",
        without_ones,
        calls(((1, 3, 1),), ((1, 3, 1), 0), ((1, 3, 1), (0, -1)), (SCALAR,), ((1, 0),)),
        Wrong(IndexError, DIM, np.zeros((2, 3)), 2),
        covers="View",
    ),
    on_itself(
        "unsqueeze_",
        lambda x, dim: in_order(x, tuple(np.insert(np.array(x.shape, int), dim % (x.ndim + 1), 1))),
        calls(((2, 3), 0), ((2, 3), -1), (SCALAR, 0), ((0, 2), 1)),
        Wrong(IndexError, DIM, np.zeros((2, 3)), 3),
        covers="View",
        dtypes=DIMS,
    ),
    on_itself(
        "t_",
        np.transpose,
        calls(((2, 3),), ((3,),), (SCALAR,), ((0, 2),)),
        Wrong(RuntimeError, r"t\(\) expects a tensor with <= 2 dimensions", np.zeros((2, 3, 4))),
        covers="Permute",
    ),
    *(
        on_itself(name, swapped, SWAPS, Wrong(IndexError, DIM, np.zeros((2, 3)), 0, 2), covers="Permute", dtypes=DIMS)
        for name in ("transpose_", "swapaxes_", "swapdims_")
    ),
    on_itself(
        "as_strided_",
        by_strides,
        calls(((3, 4), (4, 3), (1, 4)), ((3, 4), (2, 3), (1, 1), 2), (SCALAR, (1,), (1,)), ((0, 2), (2, 0), (1, 1))),
        Wrong(RuntimeError, "out of bounds for storage", X, (1,), (1,), 6),
        covers="AsStrided",
        dtypes=DIMS,
    ),
]
FAMILY = metadata
EXEMPT: list[Any] = []
