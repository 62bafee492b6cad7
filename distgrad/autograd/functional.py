"""Products with Jacobians and Hessians of functions, and these matrices themselves, as ``torch.autograd.functional``.

All of them call ``func`` on fresh aliases of the inputs, so that nothing of the caller's is touched. A Jacobian-vector
product is the derivative, with respect to a dummy ``u``, of the vector-Jacobian product with ``u``, which is linear in
it (the double-backward trick, https://j-towns.github.io/2017/06/12/A-new-trick.html).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..registry import no_attribute
from .derivatives import grad
from .grad_mode import enable_grad
from .primitive import alias
from .tensor import Tensor

Tensors = Any  # a tensor or a tuple of tensors, as the function takes or gives


def _as_tuple(value: Any, name: str) -> tuple[tuple[Tensor, ...], bool]:
    """The tensors, and whether they came as a tuple."""
    several = isinstance(value, (tuple, list))
    values = tuple(value) if several else (value,)
    for number, x in enumerate(values):
        if not isinstance(x, Tensor):
            which = f"the element {number} of {name}" if several else name
            raise TypeError(f"{which} must be a Tensor or a tuple of Tensors, not {type(x).__name__}")
    return values, several


def _fresh(inputs: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """Aliases to differentiate with respect to; with ``create_graph`` they lead back to the caller's own."""
    return tuple(alias(x) if create_graph and x.requires_grad else x.detach().requires_grad_() for x in inputs)


def _vector(v: Any, like: Sequence[Tensor], several: bool, name: str) -> tuple[Tensor, ...]:
    """``v``, checked against ``like``; of a single element it may be left out."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(
                f"The vector v can only be None if the {name} is a single Tensor with a single element; pass one "
                f"of the shape{'s' * (len(like) > 1)} {[list(x.shape) for x in like]}"
            )
        return (Tensor(np.ones_like(like[0]._data)),)
    vectors, _ = _as_tuple(v, "v")
    if len(vectors) != len(like):
        raise RuntimeError(f"v has {len(vectors)} tensors and the {name} {len(like)}: the numbers should match")
    for number, (a, b) in enumerate(zip(vectors, like, strict=True)):
        if a.shape != b.shape:
            raise RuntimeError(
                f"v has invalid size at entry {number}: should be {list(b.shape)} as the {name}, but got "
                f"{list(a.shape)}"
            )
    return vectors


def _filled(
    found: Sequence[Tensor | None], like: Sequence[Tensor], strict: bool, create_graph: bool, what: str
) -> tuple[Tensor, ...]:
    """Zeros for what does not depend; an error where that was to be ``strict``."""
    results = []
    for number, (value, x) in enumerate(zip(found, like, strict=True)):
        if strict and (value is None or (create_graph and not value.requires_grad)):
            raise RuntimeError(
                f"{what} is independent of input {number}. This is not allowed in strict mode."
                if value is None
                else f"{what} with respect to input {number} is independent of the inputs: it cannot be differentiated "
                "again in strict mode."
            )
        results.append(Tensor(np.zeros_like(x._data)) if value is None else value)
    return tuple(results)


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor], create_graph: bool
) -> Sequence[Tensor | None]:
    pairs = [(out, v) for out, v in zip(outputs, vectors, strict=True) if out.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    return grad(
        [out for out, _ in pairs],
        inputs,
        [v for _, v in pairs],
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
    )


def _returned(values: Sequence[Tensor], several: bool, create_graph: bool) -> Tensors:
    done = tuple(values) if create_graph else tuple(x.detach() for x in values)
    return done if several else done[0]


def _strictly_dependent(outputs: Sequence[Tensor], strict: bool) -> None:
    for number, out in enumerate(outputs):
        if strict and not out.requires_grad:
            raise RuntimeError(
                f"Output {number} of the user-provided function does not require gradients. The outputs must be "
                "computed in a differentiable manner from the input when running in strict mode."
            )


def vjp(
    func: Callable[..., Tensors], inputs: Tensors, v: Tensors = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensors, Tensors]:
    """The outputs of ``func`` and the product of a vector with its Jacobian.

    Args:
        func: from tensors to a tensor or a tuple of them.
        inputs: its arguments.
        v: of the shapes of the outputs; may be left out for one output of one element.
        create_graph: make both results differentiable with respect to ``inputs``.
        strict: raise where an output does not depend on the inputs, instead of giving zeros.
    """
    given, several = _as_tuple(inputs, "inputs")
    with enable_grad():
        xs = _fresh(given, create_graph)
        outputs, outputs_several = _as_tuple(func(*xs), "the output of func")
        _strictly_dependent(outputs, strict)
        vectors = _vector(v, outputs, outputs_several, "output")
        found = _gradients(outputs, xs, vectors, create_graph)
        products = _filled(found, xs, strict, create_graph, "The output of the user-provided function")
    return _returned(outputs, outputs_several, create_graph), _returned(products, several, create_graph)


def jvp(
    func: Callable[..., Tensors], inputs: Tensors, v: Tensors = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensors, Tensors]:
    """The outputs of ``func`` and the product of its Jacobian with a vector; arguments as ``vjp``.

    ``v`` has the shapes of the inputs here, and may be left out for one input of one element.
    """
    given, _ = _as_tuple(inputs, "inputs")
    with enable_grad():
        xs = _fresh(given, create_graph)
        vectors = _vector(v, xs, False, "input")
        outputs, outputs_several = _as_tuple(func(*xs), "the output of func")
        _strictly_dependent(outputs, strict)
        dummies = [Tensor(np.zeros_like(out._data), requires_grad=True) for out in outputs]
        found = _gradients(outputs, xs, dummies, True)
        rows = _filled(found, xs, strict, False, "The output of the user-provided function")
        used = [(row, vector) for row, vector in zip(rows, vectors, strict=True) if row.requires_grad]
        second: Sequence[Tensor | None] = [None] * len(outputs)
        if used:
            second = grad(
                [row for row, _ in used],
                dummies,
                [vector for _, vector in used],
                create_graph=create_graph,
                retain_graph=True,
                allow_unused=True,
            )
        products = _filled(second, outputs, strict and create_graph, create_graph, "The Jacobian")
    return _returned(outputs, outputs_several, create_graph), _returned(products, outputs_several, create_graph)


def jacobian(
    func: Callable[..., Tensors],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of ``func``.

    Args:
        func: from tensors to a tensor or a tuple of them.
        inputs: its arguments.
        create_graph: make the result differentiable with respect to ``inputs``.
        strict: raise where an output does not depend on an input, instead of giving zeros.
        vectorize: accepted; the rows are computed one after the other. ``func.jacrev`` batches them.
        strategy: "reverse-mode": a row at a time; "forward-mode": a column at a time, for few inputs.

    Returns:
        For one output and one input a tensor of the output's shape followed by the input's; a tuple of these over the
        inputs where they are a tuple, and a tuple of that over the outputs where these are.
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(f"strategy is 'reverse-mode' or 'forward-mode', not {strategy!r}")
    if strategy == "forward-mode" and create_graph:
        raise NotImplementedError("strategy='forward-mode' with create_graph=True: use reverse-mode")
    given, several = _as_tuple(inputs, "inputs")
    with enable_grad():
        xs = _fresh(given, create_graph)
        outputs, outputs_several = _as_tuple(func(*xs), "the output of func")
        _strictly_dependent(outputs, strict)
        by_output = []
        for number, out in enumerate(outputs):
            if strategy == "forward-mode":
                by_output.append(_columns(func, xs, number, out))
                continue
            rows: list[list[Tensor]] = [[] for _ in xs]
            for k in range(out.numel()):
                unit = np.zeros(out._data.size, out._data.dtype)
                unit[k] = 1
                found = _gradients([out], xs, [Tensor(unit.reshape(out._data.shape))], create_graph)
                what = f"Output {number} of the user-provided function"
                for row, value in zip(rows, _filled(found, xs, strict, create_graph, what), strict=True):
                    row.append(value.reshape((1, *x_shape)) if (x_shape := tuple(value.shape)) else value.reshape(1))
            by_output.append([_stacked(row, out, x) for row, x in zip(rows, xs, strict=True)])
    done = tuple(_returned(blocks, several, create_graph) for blocks in by_output)
    return done if outputs_several else done[0]


def _stacked(rows: list[Tensor], out: Tensor, x: Tensor) -> Tensor:
    """Rows, each (1, *x), as (*out, *x)."""
    shape = (*out._data.shape, *x._data.shape)
    if not rows:
        return Tensor(np.zeros(shape, x._data.dtype))
    if not any(row.requires_grad for row in rows):
        return Tensor(np.concatenate([row._data for row in rows]).reshape(shape))
    total = Tensor(np.zeros((len(rows), *x._data.shape), x._data.dtype))
    for number, row in enumerate(rows):
        total[number] = row[0]
    out_rows: Tensor = total.reshape(shape)
    return out_rows


def _columns(func: Callable[..., Tensors], xs: Sequence[Tensor], number: int, out: Tensor) -> list[Tensor]:
    """The blocks of one output, from a Jacobian-vector product for each element of each input."""
    blocks = []
    for which, x in enumerate(xs):
        columns = np.zeros((out._data.size, x._data.size), out._data.dtype)
        for k in range(x._data.size):
            units = [np.zeros_like(other._data) for other in xs]
            units[which].reshape(-1)[k] = 1
            _, product = jvp(func, tuple(xs), tuple(Tensor(unit) for unit in units))
            product = product[number] if isinstance(product, tuple) else product
            columns[:, k] = product._data.reshape(-1)
        blocks.append(Tensor(columns.reshape((*out._data.shape, *x._data.shape))))
    return blocks


def _scalar(outputs: Tensors) -> Tensor:
    values, several = _as_tuple(outputs, "the output of func")
    if several and len(values) != 1:
        raise RuntimeError("The function given to hessian, hvp and vhp should return a single Tensor")
    if values[0].numel() != 1:
        raise RuntimeError(
            "The Tensor returned by the function given to hessian, hvp and vhp should contain a single element, not "
            f"{values[0].numel()}"
        )
    value: Tensor = values[0].reshape(())
    return value


def hessian(
    func: Callable[..., Tensors],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a function with one output of one element; arguments as ``jacobian``.

    Returns:
        A tensor of the input's shape twice; for a tuple of inputs a tuple of tuples of these blocks.
    """
    _, several = _as_tuple(inputs, "inputs")

    def gradient(*xs: Tensor) -> Tensors:
        value = _scalar(func(*xs))
        _strictly_dependent([value], strict)
        found = _gradients([value], xs, [Tensor(np.ones((), value._data.dtype))], True)
        rows = _filled(found, xs, strict, True, "The output of the user-provided function")
        return rows if several else rows[0]

    return jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


def vhp(
    func: Callable[..., Tensors], inputs: Tensors, v: Tensors = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensor, Tensors]:
    """The value of a scalar function and the product of a vector with its Hessian; arguments as ``jvp``."""
    given, several = _as_tuple(inputs, "inputs")
    with enable_grad():
        xs = _fresh(given, create_graph)
        vectors = _vector(v, xs, several, "input")
        value = _scalar(func(*xs))
        _strictly_dependent([value], strict)
        found = _gradients([value], xs, [Tensor(np.ones((), value._data.dtype))], True)
        gradient = _filled(found, xs, strict, True, "The output of the user-provided function")
        second = _gradients(gradient, xs, vectors, create_graph)
        products = _filled(second, xs, strict, create_graph, "The Jacobian of the user-provided function")
    return _returned([value], False, create_graph), _returned(products, several, create_graph)


def hvp(
    func: Callable[..., Tensors], inputs: Tensors, v: Tensors = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensor, Tensors]:
    """The value of a scalar function and the product of its Hessian with a vector.

    The Hessian of a twice continuously differentiable function is symmetric, so this is ``vhp``, which costs less.
    """
    return vhp(func, inputs, v, create_graph, strict)


__all__ = [
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "vhp",
    "vjp",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.autograd.functional'", name, __all__)
