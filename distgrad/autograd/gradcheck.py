"""Derivatives checked against finite differences, in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .derivatives import grad
from .tensor import Array, Tensor


class GradcheckError(RuntimeError):
    """A derivative that is not what finite differences say, or a backward pass that misbehaves."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compares the whole Jacobian of ``func`` from VJPs with central differences, as ``torch.autograd.gradcheck``.

    Args:
        func: from tensors to a tensor or a sequence of them. Results that are not floating-point are left out, as are
            those without history beside others that have one.
        inputs: its arguments; those tensors that require a gradient are checked and should be float64.
        eps: the step of the differences.
        atol: absolute tolerance.
        rtol: relative tolerance.
        raise_exception: raise ``GradcheckError`` instead of returning False.
        nondet_tol: by how much two backward passes with the same vector may differ.
        check_undefined_grad: has no effect: it is always checked that a missing gradient counts as zeros, for the
            Jacobian of each output is taken without gradients of the others.
        check_grad_dtypes: has no effect, for it is always checked that a gradient has the dtype of its input.
        check_batched_grad: not here; ``func.vmap`` of ``func.vjp`` shows whether batches of vectors work.
        check_batched_forward_grad: not here, as there is no forward mode.
        check_forward_ad: not here, as there is no forward mode.
        check_backward_ad: there is nothing else to check, so it has to be True.
        fast_mode: compare one random combination of the Jacobian's elements instead of each of them.
        masked: has no effect, as there are no sparse tensors.

    Raises:
        GradcheckError: the derivatives differ; the message shows both. A ``RuntimeError``.
        ValueError: no input requires a gradient, or nothing is to be checked.
        NotImplementedError: a check that is not here.
    """
    _refuse(
        check_batched_grad=check_batched_grad,
        check_batched_forward_grad=check_batched_forward_grad,
        check_forward_ad=check_forward_ad,
    )
    if not check_backward_ad:
        raise ValueError("gradcheck: check_backward_ad=False leaves nothing to check, as there is no forward mode here")
    arguments = _arguments(inputs)
    checked = _checked(arguments, "gradcheck")
    try:
        check = _Check(func, arguments, checked, eps, atol, rtol)
        check.derivatives(fast_mode)
        if check.outputs:
            check.repeatable(nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """``gradcheck`` of the gradient of ``func``: checks second derivatives, as ``torch.autograd.gradgradcheck``.

    Args:
        func: this, and whatever is not explained here, as of ``gradcheck``.
        inputs: likewise.
        grad_outputs: the vectors of the vector-Jacobian product, one for each differentiable output; random ones
            where they are not given.
        eps: the step of the differences.
        atol: absolute tolerance.
        rtol: relative tolerance.
        gen_non_contig_grad_outputs: make random vectors that are not contiguous.
        raise_exception: raise ``GradcheckError`` instead of returning False.
        nondet_tol: by how much two backward passes with the same vector may differ.
        check_undefined_grad: has no effect.
        check_grad_dtypes: has no effect.
        check_batched_grad: not here.
        check_fwd_over_rev: not here, as there is no forward mode.
        check_rev_over_rev: there is nothing else to check, so it has to be True.
        fast_mode: compare one random combination of the Jacobian's elements instead of each of them.
        masked: has no effect.

    Raises:
        GradcheckError: the derivatives differ; the message shows both. A ``RuntimeError``.
        ValueError: no input requires a gradient, or nothing is to be checked.
        NotImplementedError: a check that is not here.
    """
    _refuse(check_batched_grad=check_batched_grad, check_fwd_over_rev=check_fwd_over_rev)
    if not check_rev_over_rev:
        raise ValueError(
            "gradgradcheck: check_rev_over_rev=False leaves nothing to check, as there is no forward mode here"
        )
    arguments = _arguments(inputs)
    _checked(arguments, "gradgradcheck")
    vectors: list[Tensor]
    if grad_outputs is None:
        vectors = [
            _random_vector(out, number, gen_non_contig_grad_outputs)
            for number, out in enumerate(_differentiable(_outputs(func, arguments)))
        ]
    else:
        vectors = _arguments(grad_outputs)

    def first_derivative(*values: Any) -> tuple[Tensor, ...]:
        operands = values[: len(arguments)]
        found = grad(
            _differentiable(_outputs(func, operands)),
            [x for x in operands if isinstance(x, Tensor) and x.requires_grad],
            values[len(arguments) :],
            create_graph=True,
            allow_unused=True,
        )
        return tuple(value for value in found if value is not None)

    return gradcheck(
        first_derivative,
        [*arguments, *vectors],
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        fast_mode=fast_mode,
    )


# What is asked for ---------------------------------------------------------------------------------------------------


def _refuse(**checks: bool) -> None:
    for name, asked in checks.items():
        if asked:
            what = "batches of vectors" if name == "check_batched_grad" else "forward mode"
            cure = "; see whether func.vmap of func.vjp works" if name == "check_batched_grad" else ""
            raise NotImplementedError(f"{name}: there is no check of {what} here{cure}. Leave the argument out.")


def _arguments(inputs: Any) -> list[Any]:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)


def _checked(arguments: Sequence[Any], name: str) -> list[Tensor]:
    """Those of the arguments that require a gradient."""
    checked = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError(f"{name} expects at least one input tensor to require gradient, but none of them does")
    for number, x in enumerate(checked):
        if x.dtype != np.float64:
            warnings.warn(
                f"{name}: input {number} is {x.dtype}; differences in less than float64 are too coarse to compare with "
                "unless eps and the tolerances are large",
                stacklevel=3,
            )
        if x._data.size and any(
            stride == 0 and size > 1 for stride, size in zip(x._data.strides, x._data.shape, strict=True)
        ):
            raise RuntimeError(
                f"{name}: input {number} has elements that share memory, as expand() makes them, so that they cannot "
                "be changed one by one. Give it a clone()."
            )
    return checked


def _outputs(func: Callable[..., Any], arguments: Sequence[Any]) -> list[Tensor]:
    """The floating-point results."""
    result = func(*arguments)
    results = [result] if isinstance(result, Tensor) else result
    if not isinstance(results, (tuple, list)) or not all(isinstance(out, Tensor) for out in results):
        raise TypeError(f"gradcheck expects func to return a tensor or a sequence of tensors, not {result!r}")
    return [out for out in results if out.dtype.kind == "f"]


def _differentiable(outputs: Sequence[Tensor]) -> list[Tensor]:
    return [out for out in outputs if out.requires_grad]


def _random_vector(out: Tensor, seed: int, apart: bool) -> Tensor:
    """A vector for ``out`` that requires a gradient; ``apart``: with memory between its elements."""
    values = np.random.default_rng(seed).standard_normal((*out._data.shape, 2 if apart else 1))
    vector = Tensor(values.astype(out.dtype)[..., 0])
    vector.requires_grad = True
    return vector


# The checks ----------------------------------------------------------------------------------------------------------


class _Check:
    """A function and its arguments, with the outputs of one call, which are differentiated again and again."""

    def __init__(
        self,
        func: Callable[..., Any],
        arguments: Sequence[Any],
        checked: Sequence[Tensor],
        eps: float,
        atol: float,
        rtol: float,
    ) -> None:
        self.func = func
        self.arguments = arguments
        self.checked = checked
        self.eps = eps
        self.atol = atol
        self.rtol = rtol
        everything = _outputs(func, arguments)
        self.outputs = _differentiable(everything)
        self.numbers = [number for number, out in enumerate(everything) if out.requires_grad]
        if not self.outputs:
            self.numbers = list(range(len(everything)))

    def derivatives(self, fast: bool) -> None:
        """VJPs against differences."""
        for which, x in enumerate(self.checked):
            if not self.outputs:
                if any(np.any(jacobian) for jacobian in self.differences(x)):
                    raise GradcheckError(
                        "Numerical gradient for function expected to be zero: its results do not require a gradient, "
                        f"but depend on input {which}"
                    )
            elif fast:
                self._compare_combinations(which, x)
            else:
                numerical = self.differences(x)
                for number, output, expected in zip(self.numbers, self.outputs, numerical, strict=True):
                    self._compare(number, which, expected, self._jacobian(output, which))

    def _compare(self, number: int, which: int, numerical: Any, analytical: Any, scale: float = 1.0) -> None:
        if not np.allclose(analytical, numerical, rtol=self.rtol, atol=self.atol * scale):
            raise GradcheckError(
                f"Jacobian mismatch for output {number} with respect to input {which},\nnumerical:\n{numerical}\n"
                f"analytical:\n{analytical}"
            )

    def _compare_combinations(self, which: int, x: Tensor) -> None:
        """Both sides of u'Jv for one pair of positive random vectors an output."""
        rng = np.random.default_rng(0)
        v = _unit(rng, x._data.shape)
        start = x._data.copy()
        step = np.asarray(v * self.eps, x.dtype)
        x._data[...] = start + step
        above = self._results()
        x._data[...] = start - step
        below = self._results()
        x._data[...] = start
        for number, output, high, low in zip(self.numbers, self.outputs, above, below, strict=True):
            u = _unit(rng, output._data.shape)
            numerical = np.sum((high - low).reshape(u.shape) * u) / (2 * self.eps)
            found = self._vjp(output, u)[which]
            analytical = np.float64(0) if found is None else np.sum(found * v)
            # What tolerance in each element comes to in the sum.
            self._compare(number, which, numerical, analytical, float(u.sum() * v.sum()))

    def _results(self) -> list[Array]:
        """The outputs at the arguments as they are now, flat and in float64."""
        outputs = _outputs(self.func, self.arguments)
        return [outputs[number]._data.astype(np.float64).reshape(-1) for number in self.numbers]

    def differences(self, x: Tensor) -> list[Array]:
        """The Jacobian of each output. Rows: elements of the output. Columns: elements of ``x``."""
        columns: list[list[Array]] = []
        for index in np.ndindex(x._data.shape):
            value = x._data[index]
            x._data[index] = value + self.eps
            above = self._results()
            x._data[index] = value - self.eps
            below = self._results()
            x._data[index] = value
            columns.append([(high - low) / (2 * self.eps) for high, low in zip(above, below, strict=True)])
        if not columns:
            return [np.zeros((result.size, 0)) for result in self._results()]
        return [np.stack(column, axis=1) for column in zip(*columns, strict=True)]

    def _jacobian(self, output: Tensor, which: int) -> Array:
        x = self.checked[which]
        rows = np.zeros((output._data.size, x._data.size))
        for k in range(len(rows)):
            unit = np.zeros(output._data.shape)
            unit.reshape(-1)[k] = 1.0
            row = self._vjp(output, unit, (x,), which)[0]
            if row is not None:
                rows[k] = row.reshape(-1)
        return rows

    def _vjp(self, output: Tensor, vector: Array, inputs: Sequence[Tensor] = (), first: int = 0) -> list[Array | None]:
        """The products with ``vector``, for all that is checked or for ``inputs``, the first of which is ``first``."""
        inputs = inputs or self.checked
        seed = Tensor(np.asarray(vector, output.dtype))
        found = grad(output, inputs, seed, retain_graph=True, allow_unused=True)
        for number, (value, x) in enumerate(zip(found, inputs, strict=True), first):
            if value is not None and (value.shape != x.shape or value.dtype != x.dtype):
                raise GradcheckError(
                    f"the gradient of input {number} is {value.dtype} {list(value.shape)}, the input {x.dtype} "
                    f"{list(x.shape)}"
                )
        return [None if value is None else value._data for value in found]

    def repeatable(self, tolerance: float) -> None:
        """The same vector has to give the same gradients again, and no vector no gradient."""
        rng = np.random.default_rng(1)
        for number, output in enumerate(self.outputs):
            vector = rng.standard_normal(output._data.shape)
            for one, two in zip(self._vjp(output, vector), self._vjp(output, vector), strict=True):
                if one is not None and two is not None and not np.allclose(one, two, 0, tolerance, equal_nan=True):
                    raise GradcheckError(
                        "Backward is not reentrant, i.e., running backward with same input and grad_output multiple "
                        f"times gives different values (output {self.numbers[number]}). The tolerance for "
                        f"nondeterminism was {tolerance}."
                    )


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A positive random vector of length one."""
    values = np.asarray(rng.uniform(0.1, 1.0, shape))
    return values / max(float(np.sqrt(np.sum(values * values))), 1e-30)
