"""A step of gradient descent in one pass over memory, rounded after each operation as NumPy's is."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .code import INT, POINTER, Code, Value
from .machine import compiled, machine
from .tile_transform import address

FloatArray = NDArray[Any]

# Fewer numbers than this are not worth a call.
_LEAST = 1 << 16
_PARAMETERS = [
    ("param", POINTER),
    ("grad", POINTER),
    ("average", POINTER),
    ("count", INT),
    ("numbers", POINTER),
]


class Rule(NamedTuple):
    """Which operations a step has.

    Attributes:
        decay: the gradient gets ``weight_decay * param`` added.
        momentum: there is an average, ``average = momentum * average + (1 - dampening) * grad``.
        first: the average is the gradient.
        damped: the dampening is not 0.
        nesterov: the direction is ``grad + momentum * average``, not the average.
        maximize: the gradient's sign is changed first.
    """

    decay: bool
    momentum: bool
    first: bool
    damped: bool
    nesterov: bool
    maximize: bool


def takes(*arrays: FloatArray) -> bool:
    """Whether these arrays, of one shape and dtype, can be passed over here."""
    first = arrays[0]
    return (
        first.size >= _LEAST
        and first.dtype in (np.float32, np.float64)
        and all(array.dtype == first.dtype and array.flags.c_contiguous for array in arrays)
        and machine() is not None
    )


def descend(
    rule: Rule,
    param: FloatArray,
    grad: FloatArray,
    average: FloatArray | None,
    lr: float,
    momentum: float,
    gain: float,
    decay: float,
) -> None:
    """``param -= lr * direction``, as ``optim.SGD`` defines it; the average is updated too.

    Args:
        rule: which operations the step has.
        param: any shape, contiguous.
        grad: of the same shape and dtype, contiguous.
        average: likewise, or None without momentum.
        lr: the learning rate.
        momentum: of the average.
        gain: 1 minus the dampening.
        decay: of the weights.
    """
    numbers = np.array([lr, momentum, gain, decay], param.dtype)
    _compiled(rule, param.dtype)(
        address(param), address(grad), 0 if average is None else address(average), param.size, address(numbers)
    )


@lru_cache(maxsize=64)
def _compiled(rule: Rule, dtype: np.dtype[Any]) -> Any:
    return compiled(_PARAMETERS, dtype, _write, rule)


def _write(code: Code, rule: Rule) -> None:
    a = code.arguments
    numbers = [code.spread(code.load(code.at(a["numbers"], code.item * k), code.float)) for k in range(4)]
    end = a["count"] * code.item
    with code.loop(0, end, code.lanes * code.item) as x:
        rest = code.emit(INT, f"sdiv i64 {(end - x).name}, {code.item}")
        mask = code.first_lanes(rest)
        places = {name: code.at(a[name], x) for name in ("param", "grad", "average")}
        param, grad = (code.masked_load(places[name], mask) for name in ("param", "grad"))
        average = code.masked_load(places["average"], mask) if rule.momentum and not rule.first else None
        new, step = _updated(code, rule, param, grad, average, numbers)
        if new is not None:
            code.masked_store(new, places["average"], mask)
        code.masked_store(param - step, places["param"], mask)


def _updated(
    code: Code, rule: Rule, param: Value, grad: Value, average: Value | None, numbers: list[Value]
) -> tuple[Value | None, Value]:
    """The new average, if there is one, and what is subtracted from the parameter."""
    lr, momentum, gain, decay = numbers
    d = code.emit(grad.type, f"fneg {grad.type} {grad.name}") if rule.maximize else grad
    if rule.decay:
        d = d + param * decay
    if not rule.momentum:
        return None, d * lr
    new = d if average is None else average * momentum + (d * gain if rule.damped else d)
    direction = d + new * momentum if rule.nesterov else new
    return new, direction * lr
