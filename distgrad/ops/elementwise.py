"""Elementwise operations with broadcasting. The adjoint of broadcasting is a sum over what was broadcast."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .promotion import cast, promoted, result_type

__all__ = [  # what distgrad itself offers
    "abs",
    "add",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "broadcast_to",
    "clamp",
    "clone",
    "cos",
    "div",
    "eq",
    "exp",
    "ge",
    "gt",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "log",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "ne",
    "neg",
    "pow",
    "relu",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "square",
    "sub",
    "tanh",
    "where",
]
METHODS = (  # what a Tensor offers
    "abs add bitwise_and bitwise_not bitwise_or bitwise_xor broadcast_to clamp clone cos div eq exp "
    "expand ge gt isfinite isinf isnan le log lt maximum minimum mul ne neg pow relu sigmoid sign sin "
    "sqrt square sub tanh to"
).split()
IN_PLACE = "add clamp div exp mul neg pow relu sqrt sub".split()  # of these, what also exists as NAME_

# Broadcasting -------------------------------------------------------------------------------------------------------


def _sum_to(input: Any, shape: tuple[int, ...]) -> Any:
    lead = input.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and input.shape[lead + i] != 1)
    return input.sum(axis=axes, keepdims=True, dtype=input.dtype).reshape(shape)


_sum_to_primitive: Primitive = define(
    "SumToSize", _sum_to, ("input",), input=lambda g, input_shape: _expand_primitive(g, shape=input_shape)
)
_expand_primitive: Primitive = define(
    "Expand",
    lambda input, shape: np.broadcast_to(input, shape),
    ("input",),
    view=True,
    input=lambda g, input_shape: sum_to(g, input_shape),
)


def sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    """``x`` summed over the dimensions along which ``shape`` would have to be broadcast to give its shape."""
    return x if x.shape == shape else _sum_to_primitive(x, shape=tuple(shape))


def broadcast_to(input: Tensor, size: tuple[int, ...]) -> Tensor:
    """``input`` repeated along new dimensions and those of length 1, without copying. Shape ``size``."""
    size = tuple(int(n) for n in size)
    try:
        out: Tensor = _expand_primitive(input, shape=size)
    except ValueError:
        raise RuntimeError(
            f"The expanded size of the tensor {list(size)} must match the existing size {list(input.shape)} at every "
            "dimension that is not 1"
        ) from None
    return out


def expand(input: Tensor, *size: Any) -> Tensor:
    """As ``broadcast_to``; -1 keeps a dimension's length."""
    if len(size) == 1 and not isinstance(size[0], int):
        size = tuple(size[0])
    lead = len(size) - input.ndim
    if lead < 0:
        raise RuntimeError(
            f"expand: the number of sizes provided ({len(size)}) must be greater or equal to the number of dimensions "
            f"in the tensor ({input.ndim})"
        )
    return broadcast_to(input, tuple(input.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(size)))


# Choice -------------------------------------------------------------------------------------------------------------

_where: Primitive = define(
    "Where",
    np.where,
    ("condition", "input", "other"),
    input=lambda g, condition, input_shape: sum_to(_where(condition, g, 0.0), input_shape),
    other=lambda g, condition, other_shape: sum_to(_where(condition, 0.0, g), other_shape),
)


def where(condition: Tensor, input: Any, other: Any) -> Tensor:
    """``input`` where ``condition`` (bool), ``other`` elsewhere; broadcasts. As ``torch.where``."""
    if not isinstance(condition, Tensor) or condition.dtype != np.bool_:
        kind = condition.dtype if isinstance(condition, Tensor) else type(condition).__name__
        raise RuntimeError(f"where expected condition to be a boolean tensor, but got {kind}")
    dtype = result_type(input, other)
    input, other = (cast(x, dtype) if isinstance(x, Tensor) else dtype.type(x) for x in (input, other))
    try:
        out: Tensor = _where(condition, input, other)
    except ValueError:
        shapes = ", ".join(str(list(np.shape(x))) for x in (condition, input, other))
        raise RuntimeError(f"where: the shapes {shapes} of condition, input and other do not broadcast") from None
    return out


# Two operands -------------------------------------------------------------------------------------------------------

_add: Primitive = define(
    "Add",
    np.add,
    ("input", "other"),
    input=lambda g, input_shape: sum_to(g, input_shape),
    other=lambda g, other_shape: sum_to(g, other_shape),
)
_sub: Primitive = define(
    "Sub",
    np.subtract,
    ("input", "other"),
    input=lambda g, input_shape: sum_to(g, input_shape),
    other=lambda g, other_shape: sum_to(-g, other_shape),
)
_mul: Primitive = define(
    "Mul",
    np.multiply,
    ("input", "other"),
    input=lambda g, other, input_shape: sum_to(g * other, input_shape),
    other=lambda g, input, other_shape: sum_to(g * input, other_shape),
)
_div: Primitive = define(
    "Div",
    np.true_divide,
    ("input", "other"),
    input=lambda g, other, input_shape: sum_to(g / other, input_shape),
    other=lambda g, input, other, other_shape: sum_to(-g * ((input / other) / other), other_shape),
)


def _power_of_base(base: Any, exponent: Any) -> Any:
    """d(base ** exponent) / d base, with 0 where the exponent is 0 (also at base 0, where the formula is 0 * inf)."""
    zero = exponent == 0
    if isinstance(zero, (bool, np.bool_)):
        return np.zeros(base.shape, base.dtype) if zero else exponent * base ** (exponent - 1)
    return _where(zero, 0.0, exponent * base ** _where(zero, 1.0, exponent - 1.0))


def _power_of_exponent(base: Any, exponent: Any, output: Any) -> Any:
    """d(base ** exponent) / d exponent, with 0 at base 0 and an exponent >= 0, as PyTorch defines it."""
    flat = (base == 0) & (exponent >= 0)
    if isinstance(base, (int, float, np.generic)):
        return output * 0.0 if base == 0 else output * math.log(base)
    return _where(flat, 0.0, output * _log(_where(flat, 1.0, base)))


def _power(input: Any, exponent: Any) -> Any:
    # The exponents that PyTorch computes by multiplication: faster than pow() and not off in the last bit.
    if isinstance(exponent, (int, float)):
        if exponent == 2:
            return input * input
        if exponent == 3:
            return input * input * input
        if exponent == 0.5:
            return np.sqrt(input)
    kind = exponent.dtype.kind if isinstance(exponent, (np.ndarray, np.generic)) else None
    if kind == "b":
        return input | ~exponent
    if kind == "i":
        return _integer_power(input, exponent)
    return np.power(input, exponent)


def _integer_power(input: Any, exponent: Any) -> Any:
    """NumPy refuses negative exponents; in integers the result is 0 but for the bases 1 and -1, as in PyTorch."""
    negative = exponent < 0
    if not np.any(negative):
        return np.power(input, exponent)
    sign = np.where(exponent % 2 == 0, 1, input)
    return np.where(
        negative, np.where(np.abs(input) == 1, sign, 0), np.power(input, np.where(negative, 0, exponent))
    ).astype(np.result_type(input, exponent))


_pow: Primitive = define(
    "Pow",
    _power,
    ("input", "exponent"),
    input=lambda g, input, exponent, input_shape: sum_to(g * _power_of_base(input, exponent), input_shape),
    exponent=lambda g, input, exponent, output, exponent_shape: sum_to(
        g * _power_of_exponent(input, exponent, output), exponent_shape
    ),
)


def _ties(g: Any, passed_over: Any, equal: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of an extremum: nothing where the other operand was chosen, half at a tie, else (NaN too) all."""
    return sum_to(_where(equal, g * 0.5, _where(passed_over, 0.0, g)), shape)


_maximum: Primitive = define(
    "Maximum",
    np.maximum,
    ("input", "other"),
    input=lambda g, input, other, input_shape: _ties(g, input < other, input == other, input_shape),
    other=lambda g, input, other, other_shape: _ties(g, other < input, input == other, other_shape),
)
_minimum: Primitive = define(
    "Minimum",
    np.minimum,
    ("input", "other"),
    input=lambda g, input, other, input_shape: _ties(g, input > other, input == other, input_shape),
    other=lambda g, input, other, other_shape: _ties(g, other > input, input == other, other_shape),
)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(n == m or 1 in (n, m) for n, m in zip(reversed(a), reversed(b), strict=False))


def _binary(primitive: Primitive, input: Any, other: Any, floating: bool = False) -> Tensor:
    """Promotes, and turns NumPy's refusal to broadcast into PyTorch's sentence."""
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


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input + alpha * other``."""
    return _binary(_add, input, other if alpha == 1 else mul(other, alpha))


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input - alpha * other``. Not defined for two bools, as in PyTorch."""
    if result_type(input, other) == np.bool_:
        raise RuntimeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
            "operator instead."
        )
    return _binary(_sub, input, other if alpha == 1 else mul(other, alpha))


def mul(input: Any, other: Any) -> Tensor:
    """``input * other``."""
    return _binary(_mul, input, other)


def div(input: Any, other: Any) -> Tensor:
    """``input / other``, true division: integers give the default floating-point dtype."""
    return _binary(_div, input, other, floating=True)


def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``. Integers to negative integer powers raise, as in PyTorch."""
    if isinstance(exponent, int) and exponent < 0 and result_type(input, exponent).kind in "iu":
        raise RuntimeError("Integers to negative integer powers are not allowed.")
    return _binary(_pow, input, exponent)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two elements, NaN if one is; the gradient is shared in halves at a tie."""
    return _binary(_maximum, input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two elements, NaN if one is; the gradient is shared in halves at a tie."""
    return _binary(_minimum, input, other)


# One operand --------------------------------------------------------------------------------------------------------

_neg: Primitive = define("Neg", np.negative, ("input",), input=lambda g: -g)
_abs: Primitive = define("Abs", np.abs, ("input",), input=lambda g, input: g * _sign(input))
_sign: Primitive = define(
    "Sign",
    # NaN has none, so it gives 0, as in PyTorch; np.sign gives NaN, and refuses bools
    lambda input: input.copy() if input.dtype == np.bool_ else np.subtract(input > 0, input < 0, dtype=input.dtype),
    ("input",),
    input=lambda g: g * 0.0,
)
_exp: Primitive = define("Exp", np.exp, ("input",), input=lambda g, output: g * output)
_log: Primitive = define("Log", np.log, ("input",), input=lambda g, input: g / input)
_sqrt: Primitive = define("Sqrt", np.sqrt, ("input",), input=lambda g, output: g / (2.0 * output))
_sin: Primitive = define("Sin", np.sin, ("input",), input=lambda g, input: g * _cos(input))
_cos: Primitive = define("Cos", np.cos, ("input",), input=lambda g, input: -g * _sin(input))
_tanh: Primitive = define("Tanh", np.tanh, ("input",), input=lambda g, output: g * (1.0 - output * output))
_relu: Primitive = define(
    "Relu", lambda input: np.maximum(input, 0), ("input",), input=lambda g, output: _where(output <= 0, 0.0, g)
)
_clone: Primitive = define("Clone", lambda input: input.copy(), ("input",), input=lambda g: g)
_clamp: Primitive = define(
    "Clamp",
    lambda input, min, max: np.clip(input, min, max),
    ("input",),
    input=lambda g, input, min, max: _where(_inside(input, min, max), g, 0.0),
)


def _inside(input: Any, low: float | None, high: float | None) -> Any:
    if low is None:
        return input <= high
    return input >= low if high is None else (input >= low) & (input <= high)


def _stable_sigmoid(input: Any) -> Any:
    # exp of minus the magnitude never overflows: 1 / (1 + e) on the right, e / (1 + e) on the left
    decay = np.exp(-np.abs(input))
    return np.where(input >= 0, 1, decay) / (1 + decay)


_sigmoid: Primitive = define(
    "Sigmoid", _stable_sigmoid, ("input",), input=lambda g, output: g * (output * (1.0 - output))
)


def _unary(primitive: Primitive, input: Tensor, floating: bool = True) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"{primitive.name.lower()}(): argument 'input' must be Tensor, not {type(input).__name__}")
    if floating:
        (input,) = promoted(input, floating=True)
    out: Tensor = primitive(input)
    return out


def neg(input: Tensor) -> Tensor:
    """``-input``."""
    if input.dtype == np.bool_:
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use "
            "the `~` or `logical_not()` operator instead."
        )
    return _unary(_neg, input, floating=False)


def abs(input: Tensor) -> Tensor:
    """The magnitude; its gradient at 0 is 0."""
    return _unary(_abs, input, floating=False)


def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return _unary(_sign, input, floating=False)


def exp(input: Tensor) -> Tensor:
    """E to the power of each element."""
    return _unary(_exp, input)


def log(input: Tensor) -> Tensor:
    """The natural logarithm."""
    return _unary(_log, input)


def sqrt(input: Tensor) -> Tensor:
    """The square root."""
    return _unary(_sqrt, input)


def sin(input: Tensor) -> Tensor:
    """The sine, of radians."""
    return _unary(_sin, input)


def cos(input: Tensor) -> Tensor:
    """The cosine, of radians."""
    return _unary(_cos, input)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return _unary(_tanh, input)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-input)), without overflow."""
    return _unary(_sigmoid, input)


def relu(input: Tensor) -> Tensor:
    """max(input, 0); its gradient at 0 is 0."""
    if isinstance(input, Tensor) and input.dtype == np.bool_:
        raise RuntimeError("Boolean inputs not supported for relu")
    return _unary(_relu, input, floating=False)


def square(input: Tensor) -> Tensor:
    """``input ** 2``."""
    return pow(input, 2)


def clone(input: Tensor) -> Tensor:
    """A copy that gradients pass through."""
    return _unary(_clone, input, floating=False)


def clamp(input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """Elements limited to [min, max]; the gradient is 1 inside and at the limits, 0 outside."""
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    out: Tensor = _clamp(input, min=min, max=max)
    return out


# Comparison and logic: no gradient ----------------------------------------------------------------------------------

_logic: dict[str, Primitive] = {
    name: define(name, function, operands)
    for name, function, operands in (
        ("Eq", np.equal, ("input", "other")),
        ("Ne", np.not_equal, ("input", "other")),
        ("Lt", np.less, ("input", "other")),
        ("Le", np.less_equal, ("input", "other")),
        ("Gt", np.greater, ("input", "other")),
        ("Ge", np.greater_equal, ("input", "other")),
        ("BitwiseAnd", np.bitwise_and, ("input", "other")),
        ("BitwiseOr", np.bitwise_or, ("input", "other")),
        ("BitwiseXor", np.bitwise_xor, ("input", "other")),
        ("BitwiseNot", np.bitwise_not, ("input",)),
        ("Isnan", np.isnan, ("input",)),
        ("Isinf", np.isinf, ("input",)),
        ("Isfinite", np.isfinite, ("input",)),
    )
}


def _comparison(name: str, text: str) -> Callable[[Any, Any], Tensor]:
    primitive = _logic[name]

    def compare(input: Any, other: Any) -> Tensor:
        return _binary(primitive, input, other)

    compare.__name__ = compare.__qualname__ = name.lower()
    compare.__doc__ = f"``input {text} other`` elementwise, a bool tensor."
    return compare


eq = _comparison("Eq", "==")
ne = _comparison("Ne", "!=")
lt = _comparison("Lt", "<")
le = _comparison("Le", "<=")
gt = _comparison("Gt", ">")
ge = _comparison("Ge", ">=")


def _bitwise(primitive: Primitive, input: Any, other: Any) -> Tensor:
    if result_type(input, other).kind == "f":
        raise RuntimeError(f"{primitive.name.lower()} is not defined for floating-point tensors")
    return _binary(primitive, input, other)


def bitwise_and(input: Any, other: Any) -> Tensor:
    """``input & other`` of bools or integers."""
    return _bitwise(_logic["BitwiseAnd"], input, other)


def bitwise_or(input: Any, other: Any) -> Tensor:
    """``input | other`` of bools or integers."""
    return _bitwise(_logic["BitwiseOr"], input, other)


def bitwise_xor(input: Any, other: Any) -> Tensor:
    """``input ^ other`` of bools or integers."""
    return _bitwise(_logic["BitwiseXor"], input, other)


def bitwise_not(input: Tensor) -> Tensor:
    """``~input`` of bools or integers."""
    if input.is_floating_point():
        raise RuntimeError("bitwise_not is not defined for floating-point tensors")
    return _unary(_logic["BitwiseNot"], input, floating=False)


def isnan(input: Tensor) -> Tensor:
    """Whether each element is NaN, a bool tensor."""
    return _unary(_logic["Isnan"], input, floating=False)


def isinf(input: Tensor) -> Tensor:
    """Whether each element is infinite, a bool tensor."""
    return _unary(_logic["Isinf"], input, floating=False)


def isfinite(input: Tensor) -> Tensor:
    """Whether each element is neither NaN nor infinite, a bool tensor."""
    return _unary(_logic["Isfinite"], input, floating=False)


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
