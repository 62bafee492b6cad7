"""Elementwise operations with broadcasting. The adjoint of broadcasting is a sum over what was broadcast."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.shortcut import binary, number, unary
from ..kernels.layout import is_hwnc_alone
from ..kernels.rectifier import rectified
from ..kernels.select import select
from ..kernels.summation import sum_over
from .promotion import cast, promoted, result_type, same_floating

__all__ = [  # what distgrad itself offers
    "abs",
    "absolute",
    "add",
    "broadcast_to",
    "clone",
    "cos",
    "exp",
    "log",
    "mul",
    "multiply",
    "neg",
    "negative",
    "positive",
    "relu",
    "rsub",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "sub",
    "subtract",
    "tanh",
    "where",
]
METHODS = (  # what a Tensor offers
    "abs absolute add clone cos exp expand log mul multiply neg negative positive relu sigmoid "
    "sign sin sqrt sub subtract sum_to_size tanh to"
).split()
IN_PLACE = (  # of these, what also exists as NAME_
    "abs absolute add cos exp log mul multiply neg negative relu sigmoid sign sin sqrt sub subtract tanh"
).split()

# Up to so many rows are summed by a product with ones.
_FEW_ROWS = 64


@functools.lru_cache(maxsize=256)
def _ones(count: int, dtype: np.dtype[Any]) -> Any:
    ones = np.ones(count, dtype)
    ones.flags.writeable = False
    return ones


# Broadcasting -------------------------------------------------------------------------------------------------------


def _sum_to(input: Any, shape: tuple[int, ...]) -> Any:
    if input.ndim == 2 and len(shape) == 1:  # a bias: BLAS adds few rows as exactly, and sooner
        rows, columns = input.shape
        if rows <= _FEW_ROWS and shape[0] == columns and input.dtype.char in "fd":
            return _ones(rows, input.dtype).dot(input)
    lead = input.ndim - len(shape)
    inner = input.shape[lead:]
    axes = (*range(lead), *[lead + i for i, n in enumerate(shape) if n == 1 and inner[i] != 1])
    return sum_over(input, axes, keepdims=True).reshape(shape)


_sum_to_primitive: Primitive = define(
    "SumToSize", _sum_to, ("input",), input=lambda g, input_shape: _expand_primitive(g, shape=input_shape)
)
_expand_primitive: Primitive = define(
    "Expand",
    lambda input, shape: _expanded(input, shape),
    ("input",),
    view=True,
    input=lambda g, input_shape: sum_to(g, input_shape),
)


def _expanded(input: Any, shape: tuple[int, ...]) -> Any:
    """What ``np.broadcast_to`` gives, sooner; it can be written to where no element stands for several."""
    lead = len(shape) - input.ndim
    strides = [0] * lead
    for n, m, stride in zip(input.shape, shape[lead:], input.strides, strict=True):
        if n != m and n != 1:
            raise ValueError(f"{input.shape} cannot be broadcast to {shape}")
        strides.append(stride if n == m else 0)
    if lead < 0 or not input.flags.forc:
        out = np.broadcast_to(input, shape)
        out.flags.writeable = input.flags.writeable  # until it is found out below
    else:
        out = np.ndarray(shape, input.dtype, input, 0, strides)
    if out.size != input.size:
        out.flags.writeable = False
    return out


def sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    """``x`` summed over the dimensions along which ``shape`` would have to be broadcast to give its shape."""
    if x.shape == shape:
        return x
    return _sum_to(x, shape) if type(x) is np.ndarray else _sum_to_primitive(x, shape=tuple(shape))


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """``input`` repeated along new dimensions and those of length 1; -1 keeps a dimension's length. A view.

    Raises:
        RuntimeError: another dimension has not the length asked for, or ``size`` has too few dimensions.
    """
    target, shape = tuple(int(n) for n in size), input._data.shape
    lead = len(target) - len(shape)
    if lead < 0:
        raise RuntimeError(
            f"expand: the number of sizes provided ({len(target)}) must be greater or equal to the number of "
            f"dimensions in the tensor ({len(shape)})"
        )
    lengths = list(target)
    for d, n in enumerate(target):
        if n == -1 and d >= lead:
            lengths[d] = shape[d - lead]
        elif n < 0 and d < lead:
            raise RuntimeError(
                f"The expanded size of the tensor ({n}) isn't allowed in a leading, non-existing dimension {d}"
            )
        elif d >= lead and n != shape[d - lead] != 1:
            raise RuntimeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({shape[d - lead]}) at "
                f"non-singleton dimension {d}. Target sizes: {list(target)}. Tensor sizes: {list(shape)}"
            )
        elif n < 0:
            raise RuntimeError(f"expand: the size {n} in {list(target)} is no length")
    out: Tensor = _expand_primitive(input, shape=tuple(lengths))
    return out


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """``input`` summed to ``size``, from which it could have been broadcast: the adjoint of ``expand``."""
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)
    if len(shape) > input.ndim or any(n not in (1, m) for n, m in zip(shape[::-1], input.shape[::-1], strict=False)):
        raise RuntimeError(f"size {list(shape)} is not expandable to size {list(input.shape)}.")
    out: Tensor = sum_to(input, shape)
    return out


def expand(input: Tensor, *args: Any, size: Any = None) -> Tensor:
    """``broadcast_to`` with the sizes one by one or as a sequence."""
    given = args if size is None else (size,)
    return broadcast_to(input, given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given)


# Choice -------------------------------------------------------------------------------------------------------------

_where: Primitive = define(
    "Where",
    select,
    ("condition", "input", "other"),
    input=lambda g, condition, input_shape: sum_to(_where(condition, g, 0.0), input_shape),
    other=lambda g, condition, other_shape: sum_to(_where(condition, 0.0, g), other_shape),
)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """``input`` where ``condition`` (bool), ``other`` elsewhere; broadcasts.

    ``where(condition)`` alone gives the indices of its nonzero elements, a tensor (count,) for each dimension: int64.

    Raises:
        RuntimeError: ``condition`` is not a bool tensor, or the shapes do not broadcast.
        TypeError: only one of ``input`` and ``other`` is given.
    """
    if input is None and other is None:
        _check_tensor("where", condition, "condition")
        return tuple(Tensor(indices) for indices in np.nonzero(np.atleast_1d(condition._data)))
    if input is None or other is None:
        raise TypeError("where() takes a condition alone, or with both input and other")
    if not isinstance(condition, Tensor) or condition.dtype != np.bool_:
        kind = condition.dtype if isinstance(condition, Tensor) else type(condition).__name__
        raise RuntimeError(f"where expected condition to be a boolean tensor, but got {kind}")
    dtype = result_type(input, other)
    input, other = (cast(x, dtype) if isinstance(x, Tensor) else dtype.type(x) for x in (input, other))
    return _broadcasting("where", _where, condition, input, other)


# Two operands -------------------------------------------------------------------------------------------------------

_add: Primitive = define("Add", np.add, ("input", "other"), broadcast=sum_to, input=lambda g: g, other=lambda g: g)
_sub: Primitive = define(
    "Sub", np.subtract, ("input", "other"), broadcast=sum_to, input=lambda g: g, other=lambda g: -g
)
_mul: Primitive = define(
    "Mul",
    np.multiply,
    ("input", "other"),
    broadcast=sum_to,
    scalars=True,
    input=lambda g, other: g * other,
    other=lambda g, input: g * input,
)


# The derivative of what is constant in pieces. Not g * 0.0, which is NaN where g is infinite.
_zeros: Primitive = define("Zeros", np.zeros_like, ("input",), input=lambda g: _zeros(g))


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(n == m or 1 in (n, m) for n, m in zip(reversed(a), reversed(b), strict=False))


def _broadcasting(name: str, primitive: Primitive, *operands: Any, **keywords: Any) -> Tensor:
    """Calls a primitive of several operands of one dtype; its refusal to broadcast becomes PyTorch's sentence."""
    try:
        out: Tensor = primitive(*operands, **keywords)
    except ValueError:
        shapes = [np.shape(x) for x in operands]
        if all(_broadcast(a, b) for a in shapes for b in shapes):
            raise
        raise RuntimeError(
            f"{name}: the shapes {', '.join(str(list(shape)) for shape in shapes)} do not broadcast: counted from the "
            "right, each dimension must be equal in all or 1"
        ) from None
    return out


def _check_tensor(name: str, input: Any, argument: str = "input") -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument '{argument}' must be Tensor, not {type(input).__name__}")


def _two_tensors(name: str, input: Any, other: Any) -> None:
    for position, (argument, value) in enumerate({"input": input, "other": other}.items(), 1):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}(): argument '{argument}' (position {position}) must be Tensor, not {type(value).__name__}"
            )


def _binary(primitive: Primitive, input: Any, other: Any, floating: bool = False) -> Tensor:
    """Promotes, and turns NumPy's refusal to broadcast into PyTorch's sentence."""
    if not same_floating(input, other):
        input, other = promoted(input, other, floating=floating)
    try:
        out: Tensor = primitive(input, other)
    except ValueError:
        if _broadcast(np.shape(input), np.shape(other)):
            raise
        raise RuntimeError(
            f"{primitive.name.lower()}: the shapes {list(np.shape(input))} and {list(np.shape(other))} do not "
            "broadcast: counted from the right, each dimension must be equal in both or 1 in one of them"
        ) from None
    return out


# A product with a constant, of which nothing is saved.
_times: Primitive = define(
    "Times", lambda input, factor: input * factor, ("input",), input=lambda g, factor: _times(g, factor=factor)
)


def _scaled(name: str, input: Any, other: Any, alpha: float) -> Any:
    """``alpha * other`` in the dtype of the result."""
    dtype = result_type(input, other)
    if isinstance(alpha, (bool, np.bool_)):
        if dtype != np.bool_:
            raise RuntimeError(f"{name}: Boolean alpha only supported for Boolean results, but this one is {dtype}")
    elif isinstance(alpha, (float, np.floating)):
        if dtype.kind != "f":
            raise RuntimeError(
                f"{name}: For integral input tensors, argument alpha must not be a floating point number, but it is "
                f"{alpha}"
            )
    elif not isinstance(alpha, (int, np.integer)):
        raise TypeError(f"{name}(): argument 'alpha' must be Number, not {type(alpha).__name__}")
    return _times(cast(other, dtype), factor=dtype.type(alpha)) if isinstance(other, Tensor) else other * alpha


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input + alpha * other``; broadcasts.

    Raises:
        RuntimeError: ``alpha`` is a float and the result is not, or a bool and the result is not.
    """
    if type(alpha) is not int or alpha != 1:
        other = _scaled("add", input, other, alpha)
    return _binary(_add, input, other)


def _is_bool(x: Any) -> bool:
    return x._data.dtype == np.bool_ if isinstance(x, Tensor) else isinstance(x, (bool, np.bool_))


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input - alpha * other``; broadcasts.

    Raises:
        RuntimeError: an operand is bool, or ``alpha`` is a float and the result is not.
    """
    if _is_bool(input) or _is_bool(other):
        if _is_bool(input) and _is_bool(other):
            raise RuntimeError(
                "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or "
                "`logical_xor()` operator instead."
            )
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead."
        )
    if type(alpha) is not int or alpha != 1:
        other = _scaled("sub", input, other, alpha)
    return _binary(_sub, input, other)


subtract = sub


def rsub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``other - alpha * input``; see ``sub``."""
    return sub(other, input, alpha=alpha)


@binary(_mul)
def mul(input: Any, other: Any) -> Tensor:
    """``input * other``; broadcasts."""
    return _binary(_mul, input, other)


multiply = mul


# One operand --------------------------------------------------------------------------------------------------------

_neg: Primitive = define("Neg", np.negative, ("input",), scalars=True, input=lambda g: -g)
_abs: Primitive = define("Abs", np.abs, ("input",), input=lambda g, input: g * _sign(input))
_sign: Primitive = define(
    "Sign",
    # NaN has none, so it gives 0, as in PyTorch; np.sign gives NaN, and refuses bools
    lambda input: input.copy() if input.dtype == np.bool_ else np.subtract(input > 0, input < 0, dtype=input.dtype),
    ("input",),
    input=lambda g: _zeros(g),
)
_exp: Primitive = define("Exp", np.exp, ("input",), scalars=True, input=lambda g, output: g * output)
_log: Primitive = define("Log", np.log, ("input",), scalars=True, input=lambda g, input: g / input)
_sqrt: Primitive = define("Sqrt", np.sqrt, ("input",), scalars=True, input=lambda g, output: g / (2.0 * output))
_sin: Primitive = define("Sin", np.sin, ("input",), input=lambda g, input: g * _cos(input))
_cos: Primitive = define("Cos", np.cos, ("input",), input=lambda g, input: -g * _sin(input))


def _passed(g: Any, output: Any) -> Any:
    """The gradient where ``output`` is positive or NaN, else 0."""
    zero = number(0.0, g.dtype)  # NumPy takes an array sooner than a Python number
    return select(output <= zero, zero, g)


def _tanh_vjp(g: Any, output: Any) -> Any:
    """``g (1 - output^2)`` in one new array."""
    out = output * output
    np.subtract(number(1.0, out.dtype), out, out)
    return np.multiply(g, out, out)


_tanh: Primitive = define(
    "Tanh",
    np.tanh,
    ("input",),
    scalars=True,
    input=lambda g, output: _tanh_vjp(g, output) if type(g) is np.ndarray and g.ndim else g * (1.0 - output * output),
)
_relu: Primitive = define(
    "Relu",
    rectified,
    ("input",),
    input=lambda g, output: _passed(g, output) if type(g) is np.ndarray else _where(output <= 0, 0.0, g),
)
_clone: Primitive = define(
    "Clone",
    lambda input, order=None: input.copy(order or ("K" if is_hwnc_alone(input) else "C")),
    ("input",),
    input=lambda g: g,
)


def _one_plus_decay(input: Any) -> Any:
    """1 + exp(-input) in an array of its own. Where that overflows, to infinity, its inverse is 0 as it should be."""
    # float16 is computed in float32, as in PyTorch
    out = np.empty_like(input, dtype=np.float32 if input.dtype == np.float16 else None)
    np.negative(input, out=out)
    np.exp(out, out=out)
    out += 1
    return out


def _logistic(input: Any) -> Any:
    out = _one_plus_decay(input)
    return np.reciprocal(out, out=out).astype(input.dtype, copy=False)


_sigmoid: Primitive = define("Sigmoid", _logistic, ("input",), input=lambda g, output: g * (output * (1.0 - output)))


def _unary(primitive: Primitive, input: Tensor, floating: bool = True) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"{primitive.name.lower()}(): argument 'input' must be Tensor, not {type(input).__name__}")
    if floating:
        (input,) = promoted(input, floating=True)
    out: Tensor = primitive(input)
    return out


@unary(_neg)
def neg(input: Tensor) -> Tensor:
    """``-input``."""
    _check_tensor("neg", input)
    if input.dtype == np.bool_:
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use "
            "the `~` or `logical_not()` operator instead."
        )
    return _unary(_neg, input, floating=False)


negative = neg


@unary(_abs)
def abs(input: Tensor) -> Tensor:
    """The magnitude; its gradient at 0 is 0."""
    return _unary(_abs, input, floating=False)


absolute = abs


def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return _unary(_sign, input, floating=False)


@unary(_exp)
def exp(input: Tensor) -> Tensor:
    """E to the power of each element."""
    return _unary(_exp, input)


@unary(_log)
def log(input: Tensor) -> Tensor:
    """The natural logarithm."""
    return _unary(_log, input)


@unary(_sqrt)
def sqrt(input: Tensor) -> Tensor:
    """The square root."""
    return _unary(_sqrt, input)


@unary(_sin)
def sin(input: Tensor) -> Tensor:
    """The sine, of radians."""
    return _unary(_sin, input)


@unary(_cos)
def cos(input: Tensor) -> Tensor:
    """The cosine, of radians."""
    return _unary(_cos, input)


@unary(_tanh)
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return _unary(_tanh, input)


@unary(_sigmoid)
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-input)), without overflow."""
    return _unary(_sigmoid, input)


@unary(_relu)
def relu(input: Tensor) -> Tensor:
    """max(input, 0); its gradient at 0 is 0."""
    if isinstance(input, Tensor) and input.dtype == np.bool_:
        raise RuntimeError("Boolean inputs not supported for relu")
    return _unary(_relu, input, floating=False)


@unary(_clone)
def clone(input: Tensor) -> Tensor:
    """A copy that gradients pass through."""
    return _unary(_clone, input, floating=False)


def positive(input: Tensor) -> Tensor:
    """``input`` itself; not defined for bools, as in PyTorch."""
    _check_tensor("positive", input)
    if input.dtype == np.bool_:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


def to(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``input`` in another dtype (``to(float64)``, ``to(dtype=…)``, ``to(other_tensor)``); device "cpu" is accepted."""
    dtype = kwargs.get("dtype")
    for target in (*args, kwargs.get("device")):
        if isinstance(target, Tensor):
            dtype = target.dtype
        elif isinstance(target, str):
            if target != "cpu":
                raise RuntimeError(f"to(): device {target!r} does not exist here; distgrad computes on 'cpu'")
        elif target is not None and not isinstance(target, bool):
            dtype = target
    return input if dtype is None else cast(input, dtype)
