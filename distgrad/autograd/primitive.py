"""How an operation is made known: a forward on arrays and one vector-Jacobian product (VJP) for each named operand.

    mul = define("Mul", np.multiply, ("input", "other"),
                 input=lambda g, other, input_shape: sum_to(g * other, input_shape),
                 other=lambda g, input, other_shape: sum_to(g * input, other_shape))

The parameters of a VJP, after the gradient ``g``, say what it needs: an operand by its name, ``output``, the ``_shape``
or ``_dtype`` of an operand, a keyword of the call, or an extra result of the forward (``residuals``). A call saves
exactly what the VJPs of those operands that require a gradient ask for, and nothing else.

VJPs are written once for two uses. In a plain backward pass they get arrays; when the pass is recorded
(``create_graph``) they get Tensors, so that their own operations are recorded and can be differentiated again. They
therefore keep to operators and to other primitives, which give an array for arrays and a Tensor for Tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .engine import Gradient, Node, edge_of, run_backward
from .grad_mode import mode
from .tensor import Array, Tensor

PRIMITIVES: dict[str, Primitive] = {}


class _Plan(NamedTuple):
    """What a call has to save when the operands of one bit mask require a gradient."""

    operands: tuple[int, ...]  # positions to keep, as Tensor where they are one
    names: tuple[str, ...]  # what to keep besides: "output", residuals, shapes, dtypes, keywords
    layout: tuple[str, ...]  # the names of all that is kept, operands first
    shapes: dict[str, int]  # of these names, those that ask for a shape, and of which operand
    frees: bool  # there is memory to free once the gradient has passed, not only shapes, dtypes and keywords


class Primitive:
    """A differentiable operation. Operands are positional, everything else is a keyword.

    Called with at least one Tensor it gives a Tensor and records itself where needed; called with arrays only it gives
    an array.

    Args:
        name: the operation's name; the node is called ``<name>Backward0``.
        forward: arrays (and keywords) to an array; to ``(array, residuals)`` where ``residuals`` are declared.
        operands: the names of the positional arguments; a single name ending in ``*`` takes any number of them.
        vjps: for each differentiable operand (``"tensors"`` for ``"tensors*"``), its VJP. That of a starred operand
            takes ``index`` to say which of them is asked for, and may ask for all of them as a tuple.
        residuals: names of the forward's extra results.
        view: the result shares memory with the first operand.
        multiple: the forward returns a tuple of results. A VJP's ``g`` is then a tuple too, with None for a result that
            no gradient has reached, and ``output`` likewise.
        decomposition: the same function of Tensors in simpler operations. With it the VJPs see arrays only (they may
            be fast kernels), and a recorded backward pass differentiates the decomposition instead.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        operands: tuple[str, ...],
        vjps: dict[str, Callable[..., Any]],
        residuals: tuple[str, ...] = (),
        view: bool = False,
        multiple: bool = False,
        decomposition: Callable[..., Tensor] | None = None,
    ) -> None:
        self.name = name
        self.forward = forward
        self.starred = operands[0][:-1] if operands[0].endswith("*") else None
        self.operands = operands
        self.vjps = vjps
        self.residuals = residuals
        self.view = view
        self.multiple = multiple
        self.decomposition = decomposition
        self._needs = {operand: tuple(inspect.signature(vjp).parameters)[1:] for operand, vjp in vjps.items()}
        self._plans: dict[tuple[int, int], _Plan] = {}
        known = {self.starred} if self.starred else set(operands)
        if unknown := set(vjps) - known:
            raise ValueError(f"primitive {name}: a VJP for {sorted(unknown)}, but the operands are {operands}")

    def __call__(self, *operands: Any, **keywords: Any) -> Any:
        """Runs the forward and records it."""
        arrays: list[Any] = []
        traced = False
        mask = 0
        for position, operand in enumerate(operands):
            if isinstance(operand, Tensor):
                traced = True
                arrays.append(operand._data)
                if operand._requires_grad:
                    mask |= 1 << position
                if operand._base is not None and mode.enabled and operand._base._node is not operand._base_node:
                    raise RuntimeError(
                        f"{self.name}: operand {position} is a view whose base has since been changed in place by a "
                        "recorded operation, which this version cannot differentiate. Take the view after the change."
                    )
            else:
                arrays.append(operand)
        if not traced:
            result = self.forward(*arrays, **keywords)
            return result[0] if self.residuals else result
        # Infinities and NaN are values here, as in PyTorch, not warnings. A backward pass has its own guard.
        with np.errstate(all="ignore"):
            result = self.forward(*arrays, **keywords)
        extra: tuple[Any, ...] = ()
        if self.residuals:
            result, extra = result
        recorded = bool(mask and mode.enabled and self.vjps)
        results = result if self.multiple else (result,)
        # NumPy gives a scalar for 0-d operands.
        outs = tuple(Tensor(x if isinstance(x, np.ndarray) else np.asarray(x)) for x in results)
        if self.view:
            for out in outs:
                self._share(operands[0], out)
        if recorded:
            node = self._record(operands, keywords, outs, extra, mask)
            for number, out in enumerate(outs):
                out._requires_grad, out._node, out._output_nr = True, node, number
        return outs if self.multiple else outs[0]

    @staticmethod
    def _share(source: Tensor, out: Tensor) -> None:
        """Makes ``out`` known as a view of ``source``, so that changes in place are noticed on both sides."""
        if np.may_share_memory(source._data, out._data):
            out._counter = source._versions()
            out._base = source if source._base is None else source._base
            out._base_node = out._base._node

    def _record(
        self,
        operands: tuple[Any, ...],
        keywords: dict[str, Any],
        outs: tuple[Tensor, ...],
        extra: tuple[Any, ...],
        mask: int,
    ) -> OperationNode:
        plan = self._plan(mask, len(operands))
        saved: list[Any] = []
        for position in plan.operands:
            operand = operands[position]
            if isinstance(operand, Tensor):
                if operand._inference:
                    raise RuntimeError(
                        f"Inference tensors cannot be saved for backward: {self.name} needs operand {position}, which "
                        f"was made inside inference_mode(). Use no_grad() there, or clone() the tensor outside."
                    )
                saved.append((operand, operand._version))
            else:
                saved.append(operand)
        for name in plan.names:
            if name in plan.shapes:
                operand = operands[plan.shapes[name]]
                saved.append(operand._data.shape if isinstance(operand, Tensor) else np.shape(operand))
            elif name == "output":
                # arrays: a Tensor would keep its own node alive
                saved.append(tuple((out._data, out._versions(), out._version) for out in outs))
            elif name in self.residuals:
                saved.append(extra[self.residuals.index(name)])
            elif name in keywords:
                saved.append(keywords[name])
            else:
                saved.append(self._metadata(name, operands))
        edges = [edge_of(operand) if mask >> position & 1 else None for position, operand in enumerate(operands)]
        return OperationNode(self, tuple(edges), plan, tuple(saved), keywords, len(outs))

    def _plan(self, mask: int, count: int) -> _Plan:
        plan = self._plans.get((mask, count))
        if plan is None:
            wanted: set[str] = set()
            for position in range(count):
                if mask >> position & 1:
                    operand = self.starred or self.operands[position]
                    if operand not in self._needs:
                        raise RuntimeError(
                            f"{self.name} is not differentiable with respect to {operand!r}; detach() that argument"
                        )
                    wanted.update(self._needs[operand])
            if self.starred:
                wanted.discard("index")
            if self.decomposition is not None:
                wanted.update(self.operands)
            names = [self.starred] * count if self.starred else list(self.operands[:count])
            kept = tuple(position for position, name in enumerate(names) if name in wanted)
            rest = tuple(sorted(wanted.difference(names)))
            frees = bool(kept) or not {"output", *self.residuals}.isdisjoint(rest)
            shapes = {f"{name}_shape": position for position, name in enumerate(names)}
            shapes = {} if self.starred else {name: shapes[name] for name in rest if name in shapes}
            plan = _Plan(kept, rest, tuple(names[position] for position in kept) + rest, shapes, frees)
            self._plans[mask, count] = plan
        return plan

    def _metadata(self, name: str, operands: tuple[Any, ...]) -> Any:
        operand, _, what = name.rpartition("_")
        if operand == self.starred and what == "shape":
            return tuple(x.shape for x in operands)
        if operand in self.operands and what == "dtype":
            value = operands[self.operands.index(operand)]
            return value._data.dtype if isinstance(value, Tensor) else np.asarray(value).dtype
        # A keyword that this call left at its default.
        parameter = inspect.signature(self.forward).parameters.get(name)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise RuntimeError(f"primitive {self.name}: a VJP asks for {name!r}, which the call does not have")
        return parameter.default


class OperationNode(Node):
    """One recorded call of a primitive."""

    def __init__(
        self,
        primitive: Primitive,
        edges: tuple[tuple[Node, int] | None, ...],
        plan: _Plan,
        saved: tuple[Any, ...],
        keywords: dict[str, Any],
        outputs: int,
    ) -> None:
        super().__init__(edges, outputs)
        self.primitive = primitive
        self._plan = plan
        self._saved: tuple[Any, ...] | None = saved
        self._keywords = keywords if primitive.decomposition is not None else None

    def name(self) -> str:
        """The primitive's name and ``Backward0``, as PyTorch writes it."""
        return f"{self.primitive.name}Backward0"

    def release(self) -> None:
        """Drops the residuals; a second backward then raises. Where there are none it may pass again, as in PyTorch."""
        if self._plan.frees:
            self._saved = None

    def save_copy_of(self, tensor: Tensor) -> None:
        """Saves the present values of ``tensor``, which the result of this very operation is about to overwrite."""
        for index, value in enumerate((self._saved or ())[: len(self._plan.operands)]):
            if type(value) is tuple and value[0] is tensor:
                copy = Tensor(tensor._data.copy())
                copy._node, copy._output_nr, copy._requires_grad = (
                    tensor._node,
                    tensor._output_nr,
                    tensor._requires_grad,
                )
                self._saved = (*self._saved[:index], (copy, 0), *self._saved[index + 1 :])  # type: ignore[index]

    def apply(self, gradients: list[Gradient | None], create_graph: bool) -> Sequence[Gradient | None]:
        """The VJPs of those operands that require a gradient."""
        if all(gradient is None for gradient in gradients):
            return [None] * len(self.edges)
        gradient: Any = tuple(gradients) if self.primitive.multiple else gradients[0]
        kept = self._unpack(create_graph)
        primitive = self.primitive
        if create_graph and primitive.decomposition is not None:
            return self._differentiate_decomposition(gradient, kept)
        produced: list[Gradient | None] = []
        for position, edge in enumerate(self.edges):
            if edge is None:
                produced.append(None)
                continue
            operand = primitive.starred or primitive.operands[position]
            needs = primitive._needs[operand]
            arguments = [position if need == "index" and primitive.starred else kept[need] for need in needs]
            try:
                value = primitive.vjps[operand](gradient, *arguments)
            except Exception as error:
                error.add_note(f"(in the backward pass of {primitive.name}, gradient of {operand!r})")
                raise
            produced.append(value if create_graph or value is None else np.asarray(value))
        return produced

    def _unpack(self, create_graph: bool) -> dict[str, Any]:
        if self._saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
                f"autograd.grad(). Specify retain_graph=True if you need to backward a second time. ({self.name()})"
            )
        kept: dict[str, Any] = {}
        starred: list[Any] = []
        count = len(self._plan.operands)
        for name, value in zip(self._plan.layout[:count], self._saved, strict=False):
            if type(value) is tuple:
                tensor, version = value
                self._check(f"operand {name!r}", tensor._data, version, tensor._version)
                value = tensor if create_graph else tensor._data
            if name == self.primitive.starred:
                starred.append(value)
            else:
                kept[name] = value
        if starred and self.primitive.starred:
            kept[self.primitive.starred] = tuple(starred)
        for name, value in zip(self._plan.names, self._saved[count:], strict=True):
            if name == "output":
                for array, counter, version in value:
                    self._check("output", array, version, counter[0])
                arrays = tuple(array for array, _, _ in value)
                value = self._outputs(arrays) if create_graph else arrays
                value = value if self.primitive.multiple else value[0]
            kept[name] = value
        return kept

    def _outputs(self, arrays: tuple[Array, ...]) -> tuple[Tensor, ...]:
        outputs = tuple(Tensor(array) for array in arrays)
        for number, output in enumerate(outputs):
            output._node, output._output_nr, output._requires_grad = self, number, True
        return outputs

    def _check(self, what: str, array: Array, saved: int, now: int) -> None:
        if saved != now:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"{self.primitive.name} saved its {what} ({array.dtype} {list(array.shape)}) at version {saved}; it is "
                f"at version {now} now. Use the out-of-place form of the operation that changed it, or give that "
                "operation a clone()."
            )

    def _differentiate_decomposition(self, gradient: Tensor, kept: dict[str, Any]) -> list[Gradient | None]:
        decomposition = self.primitive.decomposition
        assert decomposition is not None and self._keywords is not None
        # Aliases: the walk must end here, not in the history of the operands, yet its result must lead there.
        values = [kept[name] for name in self.primitive.operands]
        aliases = [alias(value) if isinstance(value, Tensor) else value for value in values]
        output = decomposition(*aliases, **self._keywords)
        wanted = [edge_of(aliases[position]) for position, edge in enumerate(self.edges) if edge is not None]
        found = iter(run_backward([edge_of(output)], [gradient], retain_graph=True, create_graph=True, targets=wanted))
        return [None if edge is None else next(found) for edge in self.edges]


def define(
    name: str,
    forward: Callable[..., Any],
    operands: tuple[str, ...],
    *,
    residuals: tuple[str, ...] = (),
    view: bool = False,
    multiple: bool = False,
    decomposition: Callable[..., Tensor] | None = None,
    **vjps: Callable[..., Any],
) -> Primitive:
    """Registers an operation in ``PRIMITIVES``; the remaining keywords are its VJPs, by operand. See ``Primitive``."""
    if name in PRIMITIVES:
        raise ValueError(f"primitive {name!r} is defined twice")
    PRIMITIVES[name] = primitive = Primitive(name, forward, operands, vjps, residuals, view, multiple, decomposition)
    return primitive


# The identity that shares memory: a new node in front of a tensor. The one operation that the machinery itself needs.
alias = define("Alias", lambda input: input.view(), ("input",), view=True, input=lambda g: g)
