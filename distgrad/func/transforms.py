"""Derivatives as functions: what goes in is a function, what comes out is one too, so that they nest.

Each transform calls the function on fresh aliases of its arguments and differentiates with respect to these. Whether
the result has to carry history itself is seen from the graph: only where it reaches a leaf that is not one of the
aliases, be it an outer transform's or a tensor of the caller's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor, derivatives, enable_grad
from ..autograd.engine import AccumulateGrad, Node, edge_of
from ..autograd.grad_mode import mode
from ..autograd.primitive import alias
from .batched import Interpreter, batched_at, levels_of, lowered, physical, raised
from .pytree import flatten, same_structure, tree_map, unflatten
from .vmap import vmap

Function = Callable[..., Any]
Argnums = int | tuple[int, ...]


def _entered(x: Any) -> Any:
    """An alias to differentiate with respect to; inside vmap one for each sample."""
    if not isinstance(x, Tensor):
        raise ValueError(f"Thing passed to transform API must be Tensor, got {type(x)}")
    if x.dtype.kind != "f":
        raise RuntimeError(f"only Tensors of floating point dtype can require gradients, this one is {x.dtype}")
    if isinstance(mode.state.batching, Interpreter):
        x = mode.state.batching.everywhere(x)
    return alias(x) if x.requires_grad else x.detach().requires_grad_()


def _own_leaves(aliases: Sequence[Tensor]) -> set[Node]:
    return {edge_of(x)[0] for x in aliases}


def _reaches_others(outputs: Sequence[Tensor], own: set[Node]) -> bool:
    """Whether the history of ``outputs`` has a leaf that is not one of ``own``."""
    stack = [edge_of(out)[0] for out in outputs if out.requires_grad]
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node in own and isinstance(node, AccumulateGrad):
            continue
        if isinstance(node, AccumulateGrad):
            return True
        for target in node.next:
            if target is not None and target not in seen:
                seen.add(target)
                stack.append(target)
    return False


def _differentiated(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor | None], create_graph: bool
) -> list[Tensor]:
    """The gradients with respect to ``inputs``, zeros where nothing depends on them."""
    pairs = [(out, v) for out, v in zip(outputs, vectors, strict=True) if out.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        # The walk sees the batches as dimensions like any other; only batches that are the vectors' alone stay hidden.
        found = derivatives.grad(
            [physical(out) for out, _ in pairs],
            [physical(x) for x in inputs],
            [None if v is None else lowered(_batched_as(v, out), levels_of(out)) for out, v in pairs],
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
        )
    return [
        x.detach() * 0 if value is None else raised(value, levels_of(x)) for x, value in zip(inputs, found, strict=True)
    ]


def _batched_as(vector: Tensor, out: Tensor) -> Tensor:
    """``vector`` batched at all levels of ``out``, and at its own."""
    interpreter = mode.state.batching
    for level in levels_of(out):
        vector = batched_at(vector, level, interpreter.sizes[level])  # type: ignore[union-attr]
    return vector


def _left(values: Sequence[Tensor], own: set[Node], recording: bool) -> list[Tensor]:
    """Results as the caller gets them: with history only where it leads further out, and is recorded there."""
    return [value if recording and _reaches_others([value], own) else value.detach() for value in values]


def _chosen(args: tuple[Any, ...], argnums: Argnums) -> tuple[int, ...]:
    if not isinstance(argnums, (int, tuple)):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    if not numbers:
        raise RuntimeError("argnums must be non-empty")
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise RuntimeError(f"Got argnum={number}, but only {len(args)} positional inputs")
    counted = tuple(number % len(args) for number in numbers)
    if len(set(counted)) != len(counted):
        raise RuntimeError(f"argnums elements must be unique, got {counted}")
    return counted


def _call(func: Function, args: tuple[Any, ...], kwargs: Any, argnums: Argnums) -> tuple[Any, list[Tensor], Any]:
    """``func`` of aliases: its result, the aliases, and their structure."""
    numbers = _chosen(args, argnums)
    aliases, structure = flatten(tuple(args[number] for number in numbers))
    aliases = [_entered(x) for x in aliases]
    replaced = list(args)
    for number, value in zip(numbers, unflatten(aliases, structure), strict=True):
        replaced[number] = value
    return func(*replaced, **kwargs), aliases, structure


def _with_aux(result: Any, has_aux: bool, name: str) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(
            f"{name}(f)(*args): output of function f should be a tuple: (output, aux) if has_aux is True"
        )
    return result


def _aux_left(aux: Any, own: set[Node], recording: bool) -> Any:
    """``aux`` as the caller gets it."""
    leaves, structure = flatten(aux)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(f"Expected tensors, got unsupported type {type(leaf)}")
    return unflatten(list(_left(leaves, own, recording)), structure)


def _tensors(result: Any, where: str) -> tuple[list[Tensor], Any]:
    """The outputs of a function, which are tensors, and their structure."""
    outputs, structure = flatten(result)
    if not outputs:
        raise RuntimeError(f"{where}: Expected f to be a function that has non-empty output (got output = {result})")
    for out in outputs:
        if not isinstance(out, Tensor):
            raise RuntimeError(
                f"{where}: expected f(*primals) to return only tensors, got unsupported type {type(out)}"
            )
    return outputs, structure


def grad_and_value(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """A function giving ``(gradient, value)`` of ``func``, as ``torch.func.grad_and_value``; see ``grad``."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        recording = mode.enabled
        with enable_grad():
            result, aliases, structure = _call(func, args, kwargs, argnums)
            output, aux = _with_aux(result, has_aux, "grad_and_value")
            if not isinstance(output, Tensor):
                raise RuntimeError(
                    f"grad_and_value(f)(*args): Expected f(*args) to return a Tensor, got {type(output)}"
                )
            if output.ndim != 0:
                raise RuntimeError(
                    "grad_and_value(f)(*args): Expected f(*args) to return a scalar Tensor, got tensor with "
                    f"{output.ndim} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
                )
            own = _own_leaves(aliases)
            tracked = recording and _reaches_others([output], own)
            seed = Tensor(np.ones((), output.dtype))
            found = _left(_differentiated([output], aliases, [seed], tracked), own, tracked)
            (value,) = _left([output], own, tracked)
            if has_aux:
                aux = _aux_left(aux, own, recording)
        gradients = unflatten(found, structure)
        gradient = gradients if isinstance(argnums, tuple) else gradients[0]
        return (gradient, (value, aux)) if has_aux else (gradient, value)

    return wrapper


def grad(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """The gradient of a function of one value, as a function, as ``torch.func.grad``.

    Args:
        func: gives a tensor without dimensions; with ``has_aux`` a pair of that and anything else.
        argnums: with respect to which arguments; each may be a nested structure of tensors.
        has_aux: give ``(gradient, aux)``.

    Returns:
        A function of the same arguments, giving gradients structured as the argument is.
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapper


def value_and_grad(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """A function giving ``(value, gradient)``, with ``has_aux`` ``((value, aux), gradient)``, as in JAX."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return value, gradient

    return wrapper


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """``func(*primals)`` and the function from cotangents to vector-Jacobian products, as ``torch.func.vjp``.

    Args:
        func: from tensors to tensors, both nested as you like.
        primals: where to differentiate.
        has_aux: ``func`` gives ``(output, aux)``, and aux is the third result.

    Returns:
        The output, and a function that takes a cotangent (or one for each output) shaped and nested as the output and
        gives the gradients as a tuple over the primals (with a single primal: of one element).
    """
    if not primals:
        raise RuntimeError("vjp(f, *primals): Expected at least one primal, got none")
    recording = mode.enabled
    with enable_grad():
        result, aliases, structure = _call(func, primals, {}, tuple(range(len(primals))))
        output, aux = _with_aux(result, has_aux, "vjp")
        outputs, out_structure = _tensors(output, "vjp(f, *primals)")
        own = _own_leaves(aliases)
        tracked = recording and _reaches_others(outputs, own)
        seen = unflatten(_left(outputs, own, tracked), out_structure)
        if has_aux:
            aux = _aux_left(aux, own, recording)

    def vjp_fn(cotangents: Any) -> Any:
        vectors, given_structure = flatten(cotangents)
        if not same_structure(given_structure, out_structure):
            raise RuntimeError(
                "Expected pytree structure of cotangents to be the same as pytree structure of outputs to the "
                f"function: {len(outputs)} of them, nested as these are, got {len(vectors)}"
            )
        for number, (vector, out) in enumerate(zip(vectors, outputs, strict=True)):
            if tuple(vector.shape) != tuple(out.shape):
                raise RuntimeError(
                    f"Mismatch in shape: grad_output[{number}] has a shape of {vector.shape} and output[{number}] has "
                    f"a shape of {out.shape}."
                )
        recording = mode.enabled
        with enable_grad():
            further = recording and (tracked or any(vector.requires_grad for vector in vectors))
            found = _left(_differentiated(outputs, aliases, vectors, further), own, further)
        return unflatten(found, structure)

    return (seen, vjp_fn, aux) if has_aux else (seen, vjp_fn)


class _Linear:
    """The derivative of a function at one place, as a linear function of tangents.

    The vector-Jacobian product is linear in its vector, so that its derivative there is the Jacobian again: transposed
    twice.
    """

    def __init__(self, func: Function, primals: tuple[Any, ...], where: str, has_aux: bool = False) -> None:
        leaves, self.structure = flatten(primals)
        if not leaves:
            raise RuntimeError(f"{where}: Expected primals to contain at least one Tensor.")
        for x in leaves:
            if not isinstance(x, Tensor):
                raise RuntimeError(f"{where}: Expected primals to only contain Tensors, got {type(x)}")
            if x.dtype.kind != "f":
                raise ValueError(f"Expected primal to be floating point or complex, but got: {x.dtype}")
        self.primals = leaves
        self.recording = mode.enabled
        with enable_grad():
            result, self.aliases, _ = _call(func, primals, {}, tuple(range(len(primals))))
            output, aux = _with_aux(result, has_aux, "jvp")
            self.outputs, self.out_structure = _tensors(output, where)
            self.own = _own_leaves(self.aliases)
            self.tracked = self.recording and _reaches_others(self.outputs, self.own)
            self.dummies = [_entered(out.detach() * 0) for out in self.outputs]
            self.rows = _differentiated(self.outputs, self.aliases, self.dummies, True)
            self.output = unflatten(_left(self.outputs, self.own, self.tracked), self.out_structure)
            self.aux = _aux_left(aux, self.own, self.recording) if has_aux else None

    def check(self, structure: Any, tangents: Sequence[Any], where: str) -> None:
        """Raises unless the tangents are nested and shaped as the primals."""
        if not same_structure(structure, self.structure):
            raise RuntimeError(
                f"{where}: Expected primals and tangents to have the same python structure. For example, if primals is "
                f"a tuple of {len(self.primals)} tensors, tangents also must be."
            )
        for number, (vector, x) in enumerate(zip(tangents, self.primals, strict=True)):
            if not isinstance(vector, Tensor):
                raise RuntimeError(f"{where}: Expected tangents to only contain Tensors, got {type(vector)}")
            if tuple(vector.shape) != tuple(x.shape):
                raise RuntimeError(
                    f"{where}: tangent:{number} with shape {vector.shape} in flattened pytree doesn't match the shape "
                    f"{x.shape} of the corresponding primal."
                )

    def product(self, tangents: Sequence[Tensor]) -> Any:
        """The Jacobian times the tangents."""
        recording = mode.enabled
        with enable_grad():
            further = recording and (self.tracked or any(vector.requires_grad for vector in tangents))
            own = self.own | _own_leaves(self.dummies)
            products = _left(_differentiated(self.rows, self.dummies, tangents, further), own, further)
        return unflatten(products, self.out_structure)


def jvp(func: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...], *, strict: bool = False,
        has_aux: bool = False) -> tuple[Any, ...]:  # fmt: skip
    """``func(*primals)`` and the Jacobian-vector product with ``tangents``, as ``torch.func.jvp``.

    Args:
        func: from tensors to tensors, both nested as you like.
        primals: where to differentiate.
        tangents: shaped and nested as the primals.
        strict: refuse an output that does not depend on the primals; its derivative is zero otherwise.
        has_aux: ``func`` gives ``(output, aux)``, and aux is the third result.

    Raises:
        RuntimeError: primals and tangents that do not fit each other or are no tensors; results that are none.
        ValueError: primals that are not floating-point.
    """
    where = "jvp(f, primals, tangents)"
    if not isinstance(primals, tuple):
        raise RuntimeError(f"{where}: Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    linear = _Linear(func, primals, where, has_aux)
    vectors, structure = flatten(tangents)
    linear.check(structure, vectors, where)
    if strict and not all(_depends(out, linear.aliases) for out in linear.outputs):
        raise RuntimeError(
            "jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. This is not allowed "
            "with strict=True."
        )
    product = linear.product(vectors)
    return (linear.output, product, linear.aux) if has_aux else (linear.output, product)


def _depends(out: Tensor, aliases: Sequence[Tensor]) -> bool:
    """Whether the history of ``out`` leads to one of ``aliases``."""
    wanted = _own_leaves(aliases)
    stack = [edge_of(out)[0]] if out.requires_grad else []
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node in wanted:
            return True
        for target in node.next:
            if target is not None and target not in seen:
                seen.add(target)
                stack.append(target)
    return False


def linearize(func: Function, *primals: Any) -> tuple[Any, Function]:
    """``func(*primals)`` and its derivative there as a function of tangents, as ``torch.func.linearize``.

    As ``jvp`` for many tangents at one place, where ``func`` is called only once.

    Args:
        func: from tensors to tensors, both nested as you like.
        primals: where to differentiate.

    Returns:
        The output, and a function that takes tangents shaped and nested as the primals and gives what the output is
        nested as.

    Raises:
        RuntimeError: there is no primal, or results that are no tensors; tangents that do not fit the primals.
        ValueError: primals that are not floating-point.
    """
    linear = _Linear(func, primals, "linearize(f, *primals)")

    def jvp_fn(*tangents: Any) -> Any:
        vectors, structure = flatten(tangents)
        linear.check(structure, vectors, "linearize(f, *primals)")
        for number, (vector, x) in enumerate(zip(vectors, linear.primals, strict=True)):
            if vector.dtype != x.dtype:
                raise RuntimeError(
                    f"tangent:{number} with dtype {vector.dtype} in flattened pytree doesn't match the dtype {x.dtype} "
                    "of the corresponding primal."
                )
        return linear.product(vectors)

    return linear.output, jvp_fn


def _basis(tensors: Sequence[Tensor]) -> list[Tensor]:
    """For each tensor the unit vectors of all of them together: (total, *shape)."""
    total = sum(x.numel() for x in tensors)
    basis, start = [], 0
    for x in tensors:
        part = np.zeros((total, x.numel()), x.dtype)
        np.fill_diagonal(part[start : start + x.numel()], 1)
        basis.append(Tensor(part.reshape((total, *x.shape))))
        start += x.numel()
    return basis


def jacrev(func: Function, argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None) -> Function:
    """The Jacobian of ``func``, row by row from vector-Jacobian products, all rows at once, as ``torch.func.jacrev``.

    Args:
        func: from tensors to tensors.
        argnums: with respect to which arguments.
        has_aux: ``func`` gives ``(output, aux)``; give ``(jacobian, aux)``.
        chunk_size: how many rows at once.

    Returns:
        A function giving, nested as the output and below that as the argument, blocks of the output's shape followed
        by the input's.
    """

    if chunk_size is not None and chunk_size < 1:
        raise ValueError("jacrev: `chunk_size` should be greater than 0.")

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(args, argnums)

        def chosen(*values: Any) -> Any:
            replaced = list(args)
            for number, value in zip(numbers, values, strict=True):
                replaced[number] = value
            return func(*replaced, **kwargs)

        output, vjp_fn, *aux = vjp(chosen, *(args[number] for number in numbers), has_aux=has_aux)
        outputs, out_structure = flatten(output)
        basis = _basis(outputs)
        rows = vmap(lambda *unit: vjp_fn(unflatten(list(unit), out_structure)), chunk_size=chunk_size)(*basis)
        flat, structure = flatten(rows)
        by_output, start = [], 0
        for out in outputs:
            blocks = [row[start : start + out.numel()].reshape((*out.shape, *row.shape[1:])) for row in flat]
            nested = unflatten(blocks, structure)
            by_output.append(nested if isinstance(argnums, tuple) else nested[0])
            start += out.numel()
        jacobian = unflatten(by_output, out_structure)
        return (jacobian, aux[0]) if has_aux else jacobian

    return wrapper


def jacfwd(func: Function, argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error",
           chunk_size: int | None = None) -> Function:  # fmt: skip
    """The Jacobian of ``func``, column by column from Jacobian-vector products, as ``torch.func.jacfwd``.

    For functions of few inputs and many outputs; otherwise as ``jacrev``.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(args, argnums)
        inputs, structure = flatten(tuple(args[number] for number in numbers))

        def chosen(*values: Any) -> Any:
            replaced = list(args)
            for number, value in zip(numbers, values, strict=True):
                replaced[number] = value
            return func(*replaced, **kwargs)

        def column(*unit: Tensor) -> Any:
            return jvp(chosen, unflatten(inputs, structure), unflatten(list(unit), structure), has_aux=has_aux)[1:]

        columns, *aux = vmap(column, randomness=randomness, chunk_size=chunk_size)(*_basis(inputs))
        flat, out_structure = flatten(columns)
        by_output = []
        for block in flat:
            parts, start = [], 0
            for x in inputs:
                part = block[start : start + x.numel()]
                parts.append(part.movedim(0, -1).reshape((*block.shape[1:], *x.shape)))
                start += x.numel()
            nested = unflatten(parts, structure)
            by_output.append(nested if isinstance(argnums, tuple) else nested[0])
        jacobian = unflatten(by_output, out_structure)
        return (jacobian, tree_map(lambda x: x[0], aux[0])) if has_aux else jacobian

    return wrapper


def hessian(func: Function, argnums: Argnums = 0) -> Function:
    """The Hessian of ``func``, as ``torch.func.hessian``: columns of the Jacobian of the gradient."""
    return jacfwd(jacrev(func, argnums), argnums)
