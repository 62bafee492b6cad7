"""Derivatives checked against finite differences, in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .derivatives import grad
from .tensor import Array, Tensor


def _outputs(function: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    result = function(*inputs)
    return [out for out in ([result] if isinstance(result, Tensor) else result) if out.dtype.kind == "f"]


def _output(function: Callable[..., Any], inputs: Sequence[Any], number: int) -> Tensor:
    return _outputs(function, inputs)[number]


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compares the whole Jacobian of ``func`` from VJPs with central differences, as ``torch.autograd.gradcheck``.

    Args:
        func: from tensors to a tensor or a tuple of them.
        inputs: its arguments; those that require a gradient are checked and have to be float64.
        eps: the step of the differences.
        atol: absolute tolerance.
        rtol: relative tolerance.
        raise_exception: raise instead of returning False.

    Raises:
        RuntimeError: the Jacobians differ; the message shows both.
    """
    arguments = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but none of the them do")
    for x in checked:
        if x.dtype != np.float64:
            raise ValueError(f"gradcheck compares with finite differences, which need float64 inputs, not {x.dtype}")
    for number, output in enumerate(_outputs(func, arguments)):
        for which, x in enumerate(checked):
            numerical = _differences(functools.partial(_output, func, arguments, number), x, eps)
            analytical = np.zeros_like(numerical)
            if output.requires_grad:
                for k in range(output._data.size):
                    unit = np.zeros(output._data.shape)
                    unit.reshape(-1)[k] = 1.0
                    (row,) = grad(output, x, Tensor(unit), retain_graph=True, allow_unused=True)
                    if row is not None:
                        if row.shape != x.shape or row.dtype != x.dtype:
                            raise RuntimeError(
                                f"the gradient of input {which} is {row.dtype} {list(row.shape)}, the input "
                                f"{x.dtype} {list(x.shape)}"
                            )
                        analytical[k] = row._data.reshape(-1)
            if not np.allclose(analytical, numerical, rtol=rtol, atol=atol, equal_nan=False):
                if raise_exception:
                    raise RuntimeError(
                        f"Jacobian mismatch for output {number} with respect to input {which},\nnumerical:\n"
                        f"{numerical}\nanalytical:\n{analytical}"
                    )
                return False
    return True


def _differences(function: Callable[[], Tensor], x: Tensor, eps: float) -> Array:
    """Rows: elements of the output. Columns: elements of ``x``."""
    columns = []
    for index in np.ndindex(x._data.shape):
        value = x._data[index]
        x._data[index] = value + eps
        above = function()._data.astype(np.float64).reshape(-1).copy()
        x._data[index] = value - eps
        below = function()._data.astype(np.float64).reshape(-1).copy()
        x._data[index] = value
        columns.append((above - below) / (2 * eps))
    rows = function()._data.size
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0))


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """``gradcheck`` of the gradient of ``func``: checks second derivatives. Arguments as ``gradcheck``."""
    arguments = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
    generator = np.random.default_rng(0)
    vectors = []
    for output in _outputs(func, arguments):
        vector = Tensor(generator.standard_normal(output._data.shape))
        vector.requires_grad = True
        vectors.append(vector)

    def first_derivative(*values: Any) -> tuple[Tensor, ...]:
        outputs = _outputs(func, values[: len(arguments)])
        with_graph = [(out, v) for out, v in zip(outputs, values[len(arguments) :], strict=True) if out.requires_grad]
        found = grad(
            [out for out, _ in with_graph],
            [x for x in values[: len(arguments)] if isinstance(x, Tensor) and x.requires_grad],
            [v for _, v in with_graph],
            create_graph=True,
            allow_unused=True,
        )
        return tuple(g for g in found if g is not None and g.requires_grad)

    if not checked:
        raise ValueError("gradgradcheck expects at least one input tensor to require gradient")
    return gradcheck(
        first_derivative,
        [*arguments, *vectors],
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
    )
