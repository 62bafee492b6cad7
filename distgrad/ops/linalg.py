"""Products of matrices and vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.shortcut import binary
from ..autograd.tensor import Array
from ..kernels import product as kernels
from . import diagonals as _diagonals
from .arguments import tensor_argument
from .elementwise import _FEW_ROWS, mul, sum_to
from .power import pow
from .promotion import cast, same_floating
from .reduction import _sum, sum
from .shape import _permute, _reshape, normalize_dim, unsqueeze

__all__ = [  # what distgrad itself offers
    "adjoint",
    "bmm",
    "chain_matmul",
    "dot",
    "ger",
    "kron",
    "matmul",
    "mm",
    "mv",
    "outer",
    "trace",
    "vdot",
]
METHODS = (  # what a Tensor offers
    "adjoint bmm dot ger kron matmul mm mv outer trace vdot"
).split()


# Up to so many rows BLAS adds them as exactly as a sum does, and faster.
_MANY = 4096


def _adjoint(x: Any) -> Any:
    """The last two dimensions exchanged."""
    return x.mT


def _product_of(left: Any, right: Any) -> Any:
    """``_matmul``; of arrays without the way through the primitive."""
    if type(left) is np.ndarray and type(right) is np.ndarray:
        return kernels.product(left, right)
    return _matmul(left, right)


def _rows(x: Any) -> Any:
    """All dimensions but the last as one: (..., n) as a matrix."""
    if x.ndim == 2:
        return x
    return _reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1]))


def _column(x: Any) -> Any:
    return _reshape(x, shape=(*x.shape, 1))


def _beside(x: Any) -> Any:
    """The matrices (..., n, m) of a batch beside each other: (n, batch * m)."""
    last = x.ndim - 2
    side = _permute(x, dims=(last, *range(last), last + 1))
    return _reshape(side, shape=(x.shape[-2], math.prod(x.shape[:-2]) * x.shape[-1]))


def _gradient_of_left(g: Any, right: Any, shape: tuple[int, ...]) -> Any:
    """Of ``left``, of this shape, in ``left @ right``: g right^T, summed over what was broadcast."""
    if type(g) is np.ndarray and g.ndim == right.ndim == 2:  # sooner
        return kernels.product(g, right.T)
    if len(shape) == 2 and right.ndim > 2:
        # (n, k) @ (..., k, m) -> (..., n, m): the sum over the batch and m is one product
        return _matmul(_beside(g), _rows(_adjoint(right)))
    return sum_to(_product_of(g, _adjoint(right)), shape)


def _gradient_of_right(g: Any, left: Any, shape: tuple[int, ...]) -> Any:
    """Of ``right``, of this shape, in ``left @ right``: left^T g, summed over what was broadcast."""
    if type(g) is np.ndarray and g.ndim == left.ndim == 2:  # sooner
        return kernels.product(left.T, g)
    if len(shape) == 2 and left.ndim > 2:
        # (..., n, k) @ (k, m) -> (..., n, m): the sum over the batch and n is one product
        return _matmul(_adjoint(_rows(left)), _rows(g))
    return sum_to(_product_of(_adjoint(left), g), shape)


_matmul: Primitive = define(  # of matrices, batched
    "Matmul",
    kernels.product,
    ("input", "other"),
    input=lambda g, other, input_shape: _gradient_of_left(g, other, input_shape),
    other=lambda g, input, other_shape: _gradient_of_right(g, input, other_shape),
)
_mv: Primitive = define(  # (..., n, k) @ (k) -> (..., n)
    "Mv",
    kernels.product,
    ("matrix", "vector"),
    matrix=lambda g, vector: _column(g) * vector,
    vector=lambda g, matrix: _mv(_adjoint(_rows(matrix)), _reshape(g, shape=(math.prod(g.shape),))),
)
_dot: Primitive = define(
    "Dot",
    kernels.dot,
    ("input", "other"),
    input=lambda g, other: g * other,
    other=lambda g, input: g * input,
)


def _sum_of_rows(x: Any) -> Any:
    """(..., n) summed to (n)."""
    if x.ndim == 1:
        return x
    rows = _rows(x)
    if type(rows) is np.ndarray and rows.shape[0] <= _FEW_ROWS:
        return sum_to(rows, rows.shape[1:])
    if rows.shape[0] > _MANY:
        return _sum(rows, dims=(0,), keepdim=False, dtype=x.dtype)
    return _mv(_adjoint(rows), np.ones(rows.shape[0], x.dtype))


def _affine(input: Array, weight: Array, bias: Array | None) -> Array:
    out = kernels.product(input, weight.T)
    if bias is not None:
        out += bias
    return out


_linear: Primitive = define(
    "Linear",
    _affine,
    ("input", "weight", "bias"),
    # (..., out) @ (out, in) -> (..., in)
    input=lambda g, weight, input_shape: (
        _product_of(g, weight) if g.ndim > 1 else _reshape(_matmul(_rows(g), weight), shape=input_shape)
    ),
    # (out, rows) @ (rows, in) -> (out, in), the transpose a view
    weight=lambda g, input: _product_of(_adjoint(_rows(g)), _rows(input)),
    bias=lambda g, bias_shape: _sum_of_rows(g) if bias_shape == g.shape[-1:] else sum_to(g, bias_shape),
)


# Checks -------------------------------------------------------------------------------------------------------------


def _refuse_others(name: str, **arguments: Any) -> None:
    """Raises the TypeError for arguments, in the order of their positions, that are no tensors."""
    for position, (argument, value) in enumerate(arguments.items(), 1):
        tensor_argument(value, name, argument, position)


def _refuse_bool(name: str, dtype: Any) -> None:
    if dtype == np.bool_:
        raise NotImplementedError(f"\"{name}\" not implemented for 'Bool': cast the tensors to numbers first")


def _same_dtype(name: str, first: Tensor, second: Tensor) -> None:
    if first.dtype != second.dtype:
        raise RuntimeError(
            f"{name}: expected m1 and m2 to have the same dtype, but got: {first.dtype} != {second.dtype}"
        )
    _refuse_bool(name, first.dtype)


def _dimensions(x: Tensor, ndim: int, message: str) -> None:
    if x.ndim != ndim:
        raise RuntimeError(f"{message}, but its shape is {list(x.shape)}")


def _check_expandable(name: str, argument: str, x: Tensor, shape: tuple[int, ...]) -> None:
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        raise RuntimeError(
            f"{name}: The expanded size of the tensor {list(shape)} must match the existing size {list(x.shape)} of "
            f"'{argument}' at every dimension that is not 1"
        )


# Products -----------------------------------------------------------------------------------------------------------


@binary(_matmul, rank=2)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product, batched over leading dimensions, which broadcast; vectors as in ``torch.matmul``.

    Raises:
        RuntimeError: an operand is 0-d, dtypes differ or are bool, or the inner lengths differ.
    """
    _refuse_others("matmul", input=input, other=other)
    if input.ndim == 0 or other.ndim == 0:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {input.ndim}D and {other.ndim}D"
        )
    _same_dtype("matmul", input, other)
    left, right = input.shape, other.shape
    inner = right[-2] if other.ndim > 1 else right[0]
    if left[-1] != inner:
        raise RuntimeError(
            f"matmul: mat1 and mat2 shapes cannot be multiplied ({list(left)} and {list(right)}): {left[-1]} columns "
            f"meet {inner} rows"
        )
    try:
        return _product(input, other)
    except ValueError:
        raise RuntimeError(f"matmul: the batch dimensions of {list(left)} and {list(right)} do not broadcast") from None


def _product(input: Tensor, other: Tensor) -> Tensor:
    """``matmul`` of operands that fit."""
    out: Tensor
    if input.ndim > 1 and other.ndim > 1:
        out = _matmul(input, other)
    elif other.ndim == 1 and not input._batched and not other._batched:
        out = _dot(input, other) if input.ndim == 1 else _mv(input, other)
    else:
        # A row, or a column, is a matrix of one. (Inside vmap any vector is: products of matrices know about batches.)
        left = _reshape(input, shape=(1, *input.shape)) if input.ndim == 1 else input
        right = _column(other) if other.ndim == 1 else other
        out = _matmul(left, right)
        shape = list(out.shape)
        if input.ndim == 1:
            del shape[-2]
        if other.ndim == 1:
            del shape[-1]
        out = _reshape(out, shape=tuple(shape))
    return out


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices: (n, p) @ (p, m) -> (n, m)."""
    _refuse_others("mm", input=input, mat2=mat2)
    _dimensions(input, 2, "mm: self must be a matrix")
    _dimensions(mat2, 2, "mm: mat2 must be a matrix")
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector: (n, m) @ (m) -> (n)."""
    _refuse_others("mv", input=input, vec=vec)
    if input.ndim != 2 or vec.ndim != 1:
        raise RuntimeError(
            f"mv: matrix @ vector expected, got {input.ndim}D {list(input.shape)} and {vec.ndim}D {list(vec.shape)}"
        )
    return matmul(input, vec)


def _check_batches(name: str, first: Tensor, second: Tensor) -> None:
    _dimensions(first, 3, f"{name}: batch1 must be a 3D tensor")
    _dimensions(second, 3, f"{name}: batch2 must be a 3D tensor")
    (b, _, k), given = first.shape, list(second.shape[:2])
    if given != [b, k]:
        raise RuntimeError(
            f"{name}: Expected size for first two dimensions of batch2 tensor to be: [{b}, {k}] but got: {given}."
        )


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of the matrices of two batches: (b, n, p) @ (b, p, m) -> (b, n, m). Nothing is broadcast."""
    _refuse_others("bmm", input=input, mat2=mat2)
    _check_batches("bmm", input, mat2)
    return matmul(input, mat2)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of the products of two vectors' elements: (n) and (n) to a 0-d tensor."""
    _refuse_others("dot", input=input, tensor=tensor)
    if input.ndim != 1 or tensor.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors")
    if input.dtype != tensor.dtype:
        raise RuntimeError(
            f"dot : expected both vectors to have same dtype, but found {input.dtype} and {tensor.dtype}"
        )
    if input.shape != tensor.shape:
        raise RuntimeError(
            f"inconsistent tensor size, expected tensor {list(input.shape)} and src {list(tensor.shape)} to have the "
            f"same number of elements, but got {input.numel()} and {tensor.numel()} elements respectively"
        )
    return matmul(input, tensor)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """``dot``; of complex vectors it would conjugate the first, and there are none here."""
    _refuse_others("vdot", input=input, other=other)
    return dot(input, other)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The products of vectors along ``dim``, batched over the other dimensions, which broadcast. ``linalg.vecdot``.

    Raises:
        RuntimeError: the dtypes differ or are not floating point, or the shapes do not broadcast.
    """
    _refuse_others("linalg_vecdot", x=x, y=y)
    if not x.is_floating_point():
        raise RuntimeError(f"linalg.vecdot: Expected a floating point or complex tensor as input. Got {x.dtype}")
    if x.dtype != y.dtype:
        raise RuntimeError(
            f"linalg.vecdot: Expected x and y to have the same dtype, but found x of type {x.dtype} and y of type "
            f"{y.dtype} instead"
        )
    return sum(mul(x, y), dim)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of an element of one vector with one of another: (n) and (m) to (n, m)."""
    _refuse_others("outer", input=input, vec2=vec2)
    for name, x in (("self", input), ("vec2", vec2)):
        if x.ndim != 1:
            raise RuntimeError(f"outer: Expected 1-D argument {name}, but got {x.ndim}-D")
    column: Tensor = _column(input)
    return mul(column, vec2)


def ger(input: Tensor, vec2: Tensor) -> Tensor:
    """The older name of ``outer``."""
    return outer(input, vec2)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``. Shapes: (..., in), (out, in), (out,) -> (..., out).

    Raises:
        RuntimeError: lengths or dtypes that differ, or a bias that does not broadcast to the result.
    """
    out: Tensor
    if _plainly_affine(input, weight, bias):
        out = _linear(input, weight, bias)
        return out
    _refuse_others("linear", input=input, weight=weight, **({} if bias is None else {"bias": bias}))
    if weight.ndim == 1 and bias is None:
        return matmul(input, weight)
    if weight.ndim != 2 or not input.ndim or input.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            f"linear: mat1 and mat2 shapes cannot be multiplied: the input is {list(input.shape)}, the weight "
            f"{list(weight.shape)}, and the input's last dimension must equal the weight's last"
        )
    _same_dtype("linear", input, weight)
    if bias is not None:
        if bias.dtype != weight.dtype:
            raise RuntimeError(
                f"linear: self and mat2 must have the same dtype, but got {bias.dtype} and {weight.dtype}: the bias "
                "and the weight"
            )
        _check_expandable("linear", "bias", bias, (*input.shape[:-1], weight.shape[0]))
    if input._batched or weight._batched or (bias is not None and bias._batched):
        # inside vmap: of these it knows how to take all samples at once
        product = _product(input, _adjoint(weight))
        return product if bias is None else product + bias
    out = _linear(input, weight, bias)
    return out


def _plainly_affine(input: Any, weight: Any, bias: Any) -> bool:
    """Whether nothing has to be said about the arguments of ``linear``: the usual case, found out soon."""
    if not (isinstance(weight, Tensor) and same_floating(input, weight)) or input._batched or weight._batched:
        return False
    rows, matrix = input._data.shape, weight._data.shape
    if len(matrix) != 2 or not rows or rows[-1] != matrix[1]:
        return False
    return bias is None or (
        isinstance(bias, Tensor)
        and not bias._batched
        and bias._data.dtype is weight._data.dtype
        and bias._data.shape == matrix[:1]
    )


# Chains of products -------------------------------------------------------------------------------------------------


def _best_split(lengths: list[int]) -> dict[tuple[int, int], int]:
    """Where to split each part of a chain of matrices, of which number i is (lengths[i], lengths[i + 1]), so that the
    fewest multiplications are needed: Cormen, Leiserson, Rivest and Stein, "Introduction to Algorithms", ch. 15.2."""
    count = len(lengths) - 1
    cost = {(i, i): 0 for i in range(count)}
    split: dict[tuple[int, int], int] = {}
    for span in range(1, count):
        for i in range(count - span):
            j = i + span
            costs = {s: cost[i, s] + cost[s + 1, j] + lengths[i] * lengths[s + 1] * lengths[j + 1] for s in range(i, j)}
            split[i, j] = min(costs, key=costs.__getitem__)
            cost[i, j] = costs[split[i, j]]
    return split


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of a chain of matrices, in the order that needs the fewest multiplications. ``linalg.multi_dot``.

    The first and the last may be vectors: a row and a column.

    Raises:
        RuntimeError: fewer than two tensors, dimensions or dtypes that do not fit.
    """
    chain = list(tensors)
    if len(chain) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(chain)}")
    for place, number in (("first", 0), ("last", len(chain) - 1)):
        if chain[number].ndim not in (1, 2):
            raise RuntimeError(f"multi_dot(): the {place} tensor must be 1D or 2D but got {chain[number].ndim}D")
    for number, x in enumerate(chain):
        if x.ndim != 2 and 0 < number < len(chain) - 1:
            raise RuntimeError(f"multi_dot(): tensor {number} must be 2D but got {x.ndim}D")
        if x.dtype != chain[0].dtype:
            raise RuntimeError(
                f"multi_dot(): all tensors must have be the same dtype but tensor 0 is {chain[0].dtype} and tensor "
                f"{number} {x.dtype}"
            )
    shapes = [tuple(x.shape) for x in chain]
    row, column = chain[0].ndim == 1, chain[-1].ndim == 1
    lengths = [1 if row else shapes[0][0], *(shape[0] for shape in shapes[1:]), 1 if column else shapes[-1][1]]
    for number, shape in enumerate(shapes[:-1]):
        if shape[-1] != lengths[number + 1]:
            raise RuntimeError(
                f"multi_dot(): tensors {number} and {number + 1} with shapes {list(shape)} and "
                f"{list(shapes[number + 1])} cannot be multiplied"
            )
    split = _best_split(lengths)

    def part(first: int, last: int) -> Tensor:
        if first == last:
            return chain[first]
        middle = split[first, last]
        return matmul(part(first, middle), part(middle + 1, last))

    return part(0, len(chain) - 1)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """``linalg.multi_dot`` of matrices given one by one; of a single one itself."""
    if not matrices:
        raise RuntimeError("chain_matmul(): Expected one or more matrices")
    for x in matrices:
        if x.ndim != 2:
            raise RuntimeError(f"chain_matmul(): Tensor dimension is {x.ndim}, expected 2 instead.")
    return matrices[0] if len(matrices) == 1 else multi_dot(matrices)


# Others -------------------------------------------------------------------------------------------------------------


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: of shapes (a0, a1, ...) and (b0, b1, ...) to (a0*b0, a1*b1, ...), blocks of ``other``.

    Missing dimensions in front count as 1; dtypes are promoted.
    """
    _refuse_others("kron", input=input, other=other)
    ndim = max(input.ndim, other.ndim)
    a, b = ((1,) * (ndim - x.ndim) + tuple(x.shape) for x in (input, other))
    left: Tensor = _reshape(input, shape=tuple(n for length in a for n in (length, 1)))
    right: Tensor = _reshape(other, shape=tuple(n for length in b for n in (1, length)))
    out: Tensor = _reshape(mul(left, right), shape=tuple(n * m for n, m in zip(a, b, strict=True)))
    return out


def _cross_forward(input: Array, other: Array, dim: int) -> Array:
    a, b = np.moveaxis(input, dim, -1), np.moveaxis(other, dim, -1)
    turn, turn_back = [1, 2, 0], [2, 0, 1]
    return np.moveaxis(a[..., turn] * b[..., turn_back] - a[..., turn_back] * b[..., turn], -1, dim)


_cross: Primitive = define(
    "LinalgCross",
    _cross_forward,
    ("input", "other"),
    input=lambda g, other, input_shape, dim: sum_to(_cross(other, g, dim=dim), input_shape),
    other=lambda g, input, other_shape, dim: sum_to(_cross(g, input, dim=dim), other_shape),
)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of three elements along ``dim``; the other dimensions broadcast. ``linalg.cross``.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: dimensions or dtypes that differ, or a length that is not 3.
    """
    _refuse_others("cross", input=input, other=other)
    if input.ndim != other.ndim:
        raise RuntimeError(
            f"linalg.cross: inputs must have the same number of dimensions. Got {list(input.shape)} and "
            f"{list(other.shape)}"
        )
    if not input.ndim:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    axis = normalize_dim(dim, input.ndim)
    if input.shape[axis] != 3 or other.shape[axis] != 3:
        raise RuntimeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.shape[axis]} and {other.shape[axis]}"
        )
    if input.dtype != other.dtype:
        raise RuntimeError(f"linalg.cross: expected scalar type {input.dtype} but found {other.dtype}")
    _refuse_bool("cross", input.dtype)
    try:
        out: Tensor = _cross(input, other, dim=axis)
    except ValueError:
        raise RuntimeError(
            f"linalg.cross: the shapes {list(input.shape)} and {list(other.shape)} do not broadcast"
        ) from None
    return out


def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal, a 0-d tensor; integers give int64."""
    _refuse_others("trace", input=input)
    if input.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    _refuse_bool("trace", input.dtype)
    return sum(_diagonals.diagonal(input))


def adjoint(input: Tensor) -> Tensor:
    """The matrices of the last two dimensions transposed, a view."""
    _refuse_others("adjoint", input=input)
    if input.ndim == 1:
        raise RuntimeError("tensor.adjoint() is only supported on matrices or batches of matrices. Got 1-D tensor.")
    out: Tensor = _adjoint(input) if input.ndim else _permute(input, dims=())
    return out


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """``distgrad.diagonal`` of the last two dimensions unless others are named. ``linalg.diagonal``."""
    return _diagonals.diagonal(A, offset, dim1, dim2)


def _powers(x: Tensor, count: int) -> Tensor:
    """The powers 0 to ``count - 1`` of each element along a new last dimension; bools and integers give int64."""
    x = x if x.is_floating_point() else cast(x, np.int64)
    return pow(unsqueeze(x, -1), Tensor(np.arange(count, dtype=x.dtype)))


def vander(x: Tensor, N: int | None = None) -> Tensor:
    """The powers 0 to ``N - 1`` of the elements of vectors: (..., n) to (..., n, N), as ``torch.linalg.vander``.

    Args:
        x: numbers.
        N: how many powers, above 1; n without it.

    Raises:
        RuntimeError: bools, or ``N`` is not above 1.
    """
    _refuse_others("linalg_vander", x=x)
    if x.dtype == np.bool_:
        raise RuntimeError("linalg.vander supports floating point, complex, and integer tensors, but got bool")
    count = (x.shape[-1] if x.ndim else 1) if N is None else N
    if count <= 1:
        raise RuntimeError(f"N must be greater than 1. Got {count}")
    return _powers(x, count)
