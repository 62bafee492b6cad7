"""Derivatives on request: ``backward`` and ``grad``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels.layout import is_hwnc_alone
from .engine import edge_of, run_backward
from .tensor import Tensor


def _sequence(value: Any) -> list[Any]:
    return [value] if value is None or isinstance(value, Tensor) else list(value)


def _seeds(outputs: Sequence[Tensor], gradients: Sequence[Tensor | None], create_graph: bool) -> list[Any]:
    """The gradient to start each output with, checked against it."""
    if len(gradients) != len(outputs):
        raise RuntimeError(f"got {len(outputs)} tensors and {len(gradients)} gradients")
    seeds: list[Any] = []
    for number, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
        output._up_to_date()
        if not output.requires_grad or output._inherited:
            raise RuntimeError(f"element {number} of tensors does not require grad and does not have a grad_fn")
        if gradient is None:
            if output._data.size != 1:
                raise RuntimeError(
                    f"grad can be implicitly created only for scalar outputs, and this one has shape "
                    f"{list(output.shape)}; pass gradient=, or reduce the output with sum() or mean()"
                )
            seeds.append(Tensor(np.ones_like(output._data)) if create_graph else np.ones_like(output._data))
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
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Adds the gradients of ``tensors`` with respect to the leaves to their ``grad``, as ``torch.autograd.backward``.

    Args:
        tensors: what to differentiate.
        grad_tensors: for each, the vector of the vector-Jacobian product; None for a tensor with one element.
        retain_graph: keep the residuals for another pass (default: ``create_graph``).
        create_graph: record the pass itself, so that it can be differentiated.
        inputs: accumulate into these tensors only.

    Raises:
        RuntimeError: a tensor without history, a missing or misshapen gradient, a graph already freed.
    """
    outputs = _sequence(tensors)
    gradients = [None] * len(outputs) if grad_tensors is None else _sequence(grad_tensors)
    seeds = _seeds(outputs, gradients, create_graph)
    retain = create_graph if retain_graph is None else retain_graph
    roots = [edge_of(output) for output in outputs]
    if inputs is None:
        run_backward(roots, seeds, retain_graph=retain, create_graph=create_graph)
        return
    receivers = _sequence(inputs)
    if not receivers:
        raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    for number, receiver in enumerate(receivers):
        if not receiver.requires_grad:
            raise RuntimeError(f"One of the differentiated Tensors does not require grad (input {number})")
        receiver.retain_grad()  # of a non-leaf, as PyTorch does
    targets = [edge_of(receiver) for receiver in receivers]
    run_backward(roots, seeds, retain_graph=retain, create_graph=create_graph, targets=targets, accumulate=True)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, as ``torch.autograd.grad``; no ``grad`` is touched.

    Args:
        outputs: what to differentiate.
        inputs: with respect to what, leaves or not.
        grad_outputs: for each output, the vector of the vector-Jacobian product; None for one element.
        retain_graph: keep the residuals for another pass (default: ``create_graph``).
        create_graph: record the pass itself, for higher derivatives.
        allow_unused: give None for an input that the outputs do not depend on, instead of raising.
        is_grads_batched: refused; ``func.vmap`` of the function in ``func.vjp`` does it.
        materialize_grads: give zeros instead of None.

    Returns:
        One tensor (or None) for each input, of that input's shape.
    """
    if is_grads_batched:
        raise NotImplementedError(
            "grad: is_grads_batched=True is not here; func.vmap over the function that func.vjp gives computes the same"
        )
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True")
    sources, targets = _sequence(outputs), _sequence(inputs)
    vectors = [None] * len(sources) if grad_outputs is None else _sequence(grad_outputs)
    for number, target in enumerate(targets):
        if not target.requires_grad:
            raise RuntimeError(f"One of the differentiated Tensors does not require grad (input {number})")
    # Vectors from inside vmap are many at once: the pass has to go through operations on tensors, as if recorded.
    tensors = create_graph or any(vector is not None and vector._batched for vector in vectors)
    seeds = _seeds(sources, vectors, tensors)
    found = run_backward(
        [edge_of(source) for source in sources],
        seeds,
        retain_graph=create_graph if retain_graph is None else retain_graph,
        create_graph=tensors,
        targets=[edge_of(target) for target in targets],
    )
    found = [None if target._inherited else value for target, value in zip(targets, found, strict=True)]
    results: list[Tensor | None] = []
    for number, (target, value) in enumerate(zip(targets, found, strict=True)):
        if value is None:
            if materialize_grads:
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
