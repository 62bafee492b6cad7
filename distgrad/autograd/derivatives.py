"""Derivatives on request: ``backward`` and ``grad``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import tracing
from ..kernels.layout import is_hwnc_alone
from . import tensor as _tensor
from .engine import AccumulateGrad, edge_of, run_backward
from .graph import GradientEdge
from .shortcut import number as _number
from .tensor import Tensor


def _sequence(value: Any) -> list[Any]:
    return [value] if value is None or isinstance(value, (Tensor, GradientEdge)) else list(value)


def _edge(value: Tensor | GradientEdge) -> Any:
    return value if isinstance(value, GradientEdge) else edge_of(value)


def _check_requires_grad(values: Sequence[Tensor | GradientEdge]) -> None:
    for number, value in enumerate(values):
        if not isinstance(value, GradientEdge) and not value.requires_grad:
            raise RuntimeError(f"One of the differentiated Tensors does not require grad (input {number})")


def _seeds(
    outputs: Sequence[Tensor | GradientEdge], gradients: Sequence[Tensor | None], create_graph: bool
) -> list[Any]:
    """The gradient to start each output with, checked against it."""
    if len(gradients) != len(outputs):
        raise RuntimeError(f"got {len(outputs)} tensors and {len(gradients)} gradients")
    seeds: list[Any] = []
    for number, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
        if isinstance(output, GradientEdge):
            if not isinstance(gradient, Tensor):
                raise RuntimeError(
                    f"a gradient has to be given for element {number} of tensors: it is a GradientEdge, of which "
                    "neither shape nor dtype is known"
                )
            seeds.append(gradient if create_graph else gradient._data)
            continue
        output._up_to_date()
        if not output._requires_grad or output._inherited:
            raise RuntimeError(f"element {number} of tensors does not require grad and does not have a grad_fn")
        if gradient is None:
            if output._data.size != 1:
                raise RuntimeError(
                    f"grad can be implicitly created only for scalar outputs, and this one has shape "
                    f"{list(output.shape)}; pass gradient=, or reduce the output with sum() or mean()"
                )
            one = np.ones_like(output._data) if output._data.ndim else _number(1.0, output._data.dtype).copy()
            seeds.append(Tensor(one) if create_graph else one)
            continue
        if not isinstance(gradient, Tensor):
            raise TypeError(f"gradients can be either Tensors or None, but got {type(gradient).__name__}")
        if gradient._data.shape != output._data.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{number}] has a shape of {gradient.shape} and output[{number}] has a "
                f"shape of {output.shape}."
            )
        if gradient._data.dtype != output._data.dtype:
            gradient = gradient.to(output.dtype)
        seeds.append(gradient if create_graph else gradient._data)
    return seeds


def backward(
    tensors: Tensor | GradientEdge | Sequence[Tensor | GradientEdge],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | GradientEdge | Sequence[Tensor | GradientEdge] | None = None,
) -> None:
    """Adds the gradients of ``tensors`` with respect to the leaves to their ``grad``, as ``torch.autograd.backward``.

    Args:
        tensors: what to differentiate; an edge that ``graph.get_gradient_edge`` gave stands for its tensor.
        grad_tensors: for each, the vector of the vector-Jacobian product; None for a tensor with one element.
        retain_graph: keep the residuals for another pass (default: ``create_graph``).
        create_graph: record the pass itself, so that it can be differentiated.
        inputs: accumulate into these tensors only, or those leaves whose edges they are.

    Raises:
        RuntimeError: a tensor without history, a missing or misshapen gradient, a graph already freed, or the edge of
            a tensor that is no leaf among the inputs.
    """
    outputs = _sequence(tensors)
    gradients = [None] * len(outputs) if grad_tensors is None else _sequence(grad_tensors)
    seeds = _seeds(outputs, gradients, create_graph)
    retain = create_graph if retain_graph is None else retain_graph
    roots = [_edge(output) for output in outputs]
    if inputs is None:
        with tracing.span("backward"):
            run_backward(roots, seeds, retain_graph=retain, create_graph=create_graph)
        return
    receivers = _sequence(inputs)
    if not receivers:
        raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    _check_requires_grad(receivers)
    for number, receiver in enumerate(receivers):
        if not isinstance(receiver, GradientEdge):
            receiver.retain_grad()  # of a non-leaf, as PyTorch does
        elif not isinstance(receiver.node, AccumulateGrad):
            raise RuntimeError(
                f"input {number} of backward() is the edge of {receiver.node.name()}, which is no leaf: there is no "
                "tensor to put the gradient into. Give the tensor, or use autograd.grad()."
            )
    targets = [_edge(receiver) for receiver in receivers]
    with tracing.span("backward"):
        run_backward(roots, seeds, retain_graph=retain, create_graph=create_graph, targets=targets, accumulate=True)


def grad(
    outputs: Tensor | GradientEdge | Sequence[Tensor | GradientEdge],
    inputs: Tensor | GradientEdge | Sequence[Tensor | GradientEdge],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, as ``torch.autograd.grad``; no ``grad`` is touched.

    Args:
        outputs: what to differentiate; an edge that ``graph.get_gradient_edge`` gave stands for its tensor.
        inputs: with respect to what, leaves or not, or their edges.
        grad_outputs: for each output, the vector of the vector-Jacobian product; None for one element.
        retain_graph: keep the residuals for another pass (default: ``create_graph``).
        create_graph: record the pass itself, for higher derivatives.
        allow_unused: give None for an input that the outputs do not depend on, instead of raising.
        is_grads_batched: ``grad_outputs`` are batches (B, *shape of the output) of vectors, which go through the graph
            together, by ``func.vmap``; the results are (B, *shape of the input).
        materialize_grads: give zeros instead of None.

    Returns:
        One tensor (or None) for each input, of that input's shape.
    """
    if is_grads_batched:
        batch: tuple[Tensor | None, ...] = _grad_of_batch(
            outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused, materialize_grads
        )
        return batch
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True")
    sources, targets = _sequence(outputs), _sequence(inputs)
    vectors = [None] * len(sources) if grad_outputs is None else _sequence(grad_outputs)
    _check_requires_grad(targets)
    # Vectors from inside vmap are many at once: the pass has to go through operations on tensors, as if recorded.
    tensors = create_graph or any(vector is not None and vector._batched for vector in vectors)
    seeds = _seeds(sources, vectors, tensors)
    found = run_backward(
        [_edge(source) for source in sources],
        seeds,
        retain_graph=create_graph if retain_graph is None else retain_graph,
        create_graph=tensors,
        targets=[_edge(target) for target in targets],
    )
    for number, target in enumerate(targets):
        if isinstance(target, Tensor) and target._inherited:
            found[number] = None
    results: list[Tensor | None] = []
    for number, (target, value) in enumerate(zip(targets, found, strict=True)):
        if value is None:
            if materialize_grads:
                if isinstance(target, GradientEdge):
                    raise RuntimeError(
                        f"materialize_grads cannot be used for input {number}, which is a GradientEdge: the shape of "
                        "its zeros is not known"
                    )
                results.append(Tensor(np.zeros_like(target._data)))
                continue
            if not allow_unused:
                raise RuntimeError(
                    f"One of the differentiated Tensors appears to not have been used in the graph (input {number}). "
                    "Set allow_unused=True if this is the desired behavior."
                )
            results.append(None)
        else:
            # A copy for the same reason as in AccumulateGrad: the array may be in use elsewhere.
            if tensors:
                results.append(value if create_graph else value.detach())
            else:
                results.append(Tensor(np.array(value, order="K" if is_hwnc_alone(value) else "C")))
    return tuple(results)


def _grad_of_batch(
    outputs: Any, inputs: Any, grad_outputs: Any, retain_graph: bool | None, *rest: Any
) -> tuple[Tensor | None, ...]:
    """``grad`` of a batch of vectors."""
    vectors = _sequence(grad_outputs)
    if any(not isinstance(vector, Tensor) or not vector.ndim for vector in vectors):
        raise RuntimeError("grad: is_grads_batched=True takes grad_outputs of shape (B, *shape of the output) each")
    create_graph, allow_unused, materialize = rest
    present: list[int] = []
    count = 0

    def one(*vectors: Tensor) -> tuple[Tensor, ...]:
        nonlocal count
        found = grad(outputs, inputs, vectors, retain_graph, create_graph, allow_unused, False, materialize)
        present[:], count = [number for number, value in enumerate(found) if value is not None], len(found)
        return tuple(value for value in found if value is not None)

    # from a room above this one, on request only
    vmap = importlib.import_module("..func", __package__).vmap
    results: list[Tensor | None] = list(vmap(one)(*vectors))
    by_place = dict(zip(present, results, strict=True))
    return tuple(by_place.get(number) for number in range(count))


_tensor._backward = backward
