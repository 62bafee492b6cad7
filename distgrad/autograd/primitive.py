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
import weakref
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from .anomaly import anomaly
from .engine import AccumulateGrad, Gradient, Node, _sequence, edge_of, run_backward
from .grad_mode import State, mode
from .tensor import Array, Tensor
from .view import View

PRIMITIVES: dict[str, Primitive] = {}

_new, _ndarray = object.__new__, np.ndarray


class _Plan:
    """What a call saves, and what its node then does, when the operands of one bit mask require a gradient.

    Attributes:
        fetch: what to save, operands first: pairs of what it is and of a position or name.
        tensors: how many of the saved values are operands.
        vjps: for each gradient: the position of its operand, the operand's name, and what chooses the VJP's arguments
            from the saved values (None: it takes all, in order).
        plain: only operands, shapes, dtypes, residuals and keywords are saved, each under a name of its own.
        frees: there is memory to free once the gradient has passed, not only shapes, dtypes and keywords.
    """

    __slots__ = ("fetch", "frees", "plain", "tensors", "vjps")

    def __init__(
        self,
        fetch: tuple[tuple[int, Any], ...],
        tensors: int,
        vjps: tuple[tuple[int, str, Callable[[list[Any]], Sequence[Any]] | None], ...],
        frees: bool,
        plain: bool,
    ) -> None:
        self.fetch = fetch
        self.tensors = tensors
        self.vjps = vjps
        self.frees = frees
        self.plain = plain


# What a plan may fetch.
_OPERAND, _SHAPE, _DTYPE, _OUTPUT, _RESIDUAL, _KEYWORD, _STARRED, _STARRED_SHAPES = range(8)


def _takes_out(forward: Callable[..., Any]) -> bool:
    code = getattr(forward, "__code__", None)
    return code is not None and "out" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _chooser(at: tuple[int, ...]) -> Callable[[list[Any]], Sequence[Any]]:
    """Picks values out of a list by index; ``~position`` stands for the number ``position`` itself."""
    if len(at) > 1 and all(i >= 0 for i in at):
        return itemgetter(*at)
    return lambda values: [values[i] if i >= 0 else ~i for i in at]


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
            A forward that takes ``out=`` (as all of NumPy's ufuncs do) can also ``write`` over an operand.
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
        self.node_name = f"{name}Backward0"  # as PyTorch writes it
        self.forward = forward
        self.starred = operands[0][:-1] if operands[0].endswith("*") else None
        self.operands = operands
        self.vjps = vjps
        self.residuals = residuals
        self.view = view
        self.multiple = multiple
        self.decomposition = decomposition
        self.unusual = bool(view or multiple or residuals)
        self.writes = isinstance(forward, np.ufunc) or _takes_out(forward)
        # what inspect.signature would say, forty times as fast: there are many VJPs, and all are read at import
        self._needs = {
            operand: vjp.__code__.co_varnames[1 : vjp.__code__.co_argcount]
            if hasattr(vjp, "__code__")
            else tuple(inspect.signature(vjp).parameters)[1:]
            for operand, vjp in vjps.items()
        }
        self._plans: dict[int, _Plan] = {}  # by the mask, with a leading 1 that tells how many operands there are
        known = {self.starred} if self.starred else set(operands)
        if unknown := set(vjps) - known:
            raise ValueError(f"primitive {name}: a VJP for {sorted(unknown)}, but the operands are {operands}")

    def __call__(self, *operands: Any, **keywords: Any) -> Any:
        """Runs the forward and records it."""
        if len(operands) == 1 and type(operands[0]) is _ndarray:  # within a plain backward pass
            result = self.forward(*operands, **keywords)
            return result[0] if self.residuals else result
        arrays: list[Any] = []
        mask, bit, traced = 0, 1, False
        for operand in operands:
            if isinstance(operand, Tensor):
                traced = True
                if operand._view is not None:
                    operand._up_to_date()
                if operand._requires_grad:
                    mask |= bit
                arrays.append(operand._data)
            else:
                arrays.append(operand)
            bit += bit
        if not traced:
            result = self.forward(*arrays, **keywords)
            return result[0] if self.residuals else result
        state = mode.state
        if state.batching is not None:
            return state.batching(self, operands, keywords)
        run = state.quietly
        result = run(self.forward, *arrays, **keywords) if keywords else run(self.forward, *arrays)
        mask = mask | bit if mask and state.enabled and self.vjps else 0
        if self.unusual:
            return self._unusual(operands, keywords, result, mask, state)
        # A result without history: what Tensor(result) does, at half its cost. NumPy gives a scalar for 0-d operands.
        out: Tensor = _new(Tensor)
        out._data = result if type(result) is _ndarray else np.asarray(result)
        out._output_nr = 0
        out._counter = out._view = None
        if mask:
            out._requires_grad = True
            out._node = self._record(operands, keywords, (out,), (), mask)
        else:
            out._requires_grad = False
            out._node = None
            if state.inference:
                out._inference = True
        return out

    def _unusual(
        self, operands: tuple[Any, ...], keywords: dict[str, Any], result: Any, mask: int, state: State
    ) -> Any:
        """The rest of a call that gives views, several results, or residuals."""
        extra: tuple[Any, ...] = ()
        if self.residuals:
            result, extra = result
        outs = tuple(map(_tensor, result)) if self.multiple else (_tensor(result),)
        if self.view:
            for number, out in enumerate(outs):
                memory, source = out._data.base, operands[0]
                owner = source._data
                # Otherwise a copy had to be made.
                if memory is owner or (
                    memory is not None and (memory is owner.base or np.may_share_memory(owner, out._data))
                ):
                    out._counter = counter = source._versions()
                    step = (self, operands[1:], keywords, number if self.multiple else None)
                    out._view = view = View(source, step, counter[0], state.enabled)
                    if view.base._requires_grad and not mask and not state.inference:
                        # As in PyTorch, a view that is not recorded says that it requires a gradient, but gets none.
                        out._requires_grad = out._inherited = True
        if mask:
            node = self._record(operands, keywords, outs, extra, mask)
            for number, out in enumerate(outs):
                if out._data.dtype.kind == "f":
                    out._requires_grad, out._node, out._output_nr = True, node, number
        elif state.inference:
            for out in outs:
                out._inference = True
        return outs if self.multiple else outs[0]

    def write(self, target: Tensor, *operands: Any, **keywords: Any) -> Tensor | None:
        """The operation with its result written over ``target``, its first operand, in one pass.

        Returns:
            A tensor with the history of the result, for ``inplace.rebase``. None, and nothing is done, where the
            gradient needs what would be overwritten.
        """
        operands = (target, *operands)
        mask, others = 1 << len(operands), [x for x in operands[1:] if isinstance(x, Tensor)]
        for position, x in enumerate(operands):
            if isinstance(x, Tensor):
                x._up_to_date()
                if x._requires_grad:
                    mask |= 1 << position
        recorded = mode.enabled and mask != 1 << len(operands)
        if recorded:
            plan = self._plans.get(mask) or self._plan(mask, len(operands))
            shares = any(x is target or (x._counter is not None and x._counter is target._counter) for x in others)
            if shares or plan.fetch[:1] == ((_OPERAND, 0),):
                return None
        arrays = [x._data if isinstance(x, Tensor) else x for x in operands]
        mode.state.quietly(self.forward, *arrays, out=target._data, **keywords)
        target._changed()
        out = _tensor(target._data)
        out._counter = target._counter
        if recorded:
            out._node = self._record(operands, keywords, (out,), (), mask)
            out._requires_grad = True
        return out

    def _record(
        self,
        operands: tuple[Any, ...],
        keywords: dict[str, Any],
        outs: tuple[Tensor, ...],
        extra: tuple[Any, ...],
        mask: int,
    ) -> OperationNode:
        plan = self._plans.get(mask) or self._plan(mask, len(operands))
        saved: list[Any] = []
        versions: dict[int, int] | None = None  # of those that have been changed in place before, by index in saved
        for what, key in plan.fetch:
            if what == _SHAPE:
                value = operands[key]
                value = value._data.shape if isinstance(value, Tensor) else np.shape(value)
            elif what == _OPERAND:
                value = operands[key]
                if isinstance(value, Tensor):
                    if value._counter is not None:
                        versions = versions or {}
                        versions[len(saved)] = value._counter[0]
                    if value._inference:
                        self._refuse_inference(key)
            elif what == _KEYWORD:
                value = keywords[key] if key in keywords else self._default(key)
            elif what == _OUTPUT:
                # arrays: a Tensor would keep its own node alive
                value = tuple((out._data, out._versions(), out._version) for out in outs)
            elif what == _RESIDUAL:
                value = extra[key]
            elif what == _DTYPE:
                value = operands[key]
                value = value._data.dtype if isinstance(value, Tensor) else np.asarray(value).dtype
            else:
                value = tuple(x.shape for x in operands)
            saved.append(value)
        edges: list[tuple[Node, int] | None] = []
        bit = 1
        for operand in operands:
            if mask & bit:
                producer = operand._node
                edges.append((producer, operand._output_nr) if producer is not None else edge_of(operand))
            else:
                edges.append(None)
            bit += bit
        # An OperationNode without the detour of a constructor: this is where recording spends its time.
        node: OperationNode = _new(OperationNode)
        node.primitive = self
        node.edges = edges
        node.outputs = len(outs)
        node.shapes = (outs[0]._data.shape,) if len(outs) == 1 else tuple([out._data.shape for out in outs])
        node.sequence = next(_sequence)
        node.hooks = None
        node._metadata = anomaly.note() if anomaly.enabled else None
        node._plan = plan
        node._saved = saved
        node._versions = versions
        node._keywords = keywords if self.decomposition is not None else None
        if mode.state.saved_hooks:
            node.pack()
        return node

    @staticmethod
    def _refuse_inference(position: int) -> None:
        raise RuntimeError(
            f"Inference tensors cannot be saved for backward: operand {position} was made inside inference_mode(). Use "
            "no_grad() there, or clone() the tensor outside."
        )

    def _plan(self, mask: int, count: int) -> _Plan:
        requested = [position for position in range(count) if mask >> position & 1]
        wanted: set[str] = set()
        for position in requested:
            operand = self.starred or self.operands[position]
            if operand not in self._needs:
                raise RuntimeError(
                    f"{self.name} is not differentiable with respect to {operand!r}; detach() that argument"
                )
            wanted.update(self._needs[operand])
        if self.starred:
            wanted.discard("index")
        if self.decomposition is not None:
            wanted.update((self.starred,) if self.starred else self.operands[:count])
        names = [self.starred or ""] * count if self.starred else list(self.operands[:count])
        kept = [position for position, name in enumerate(names) if name in wanted]
        rest = sorted(wanted.difference(names))
        fetch = [(_OPERAND, position) for position in kept] + [self._fetch(name, names) for name in rest]
        # A starred operand is one argument, the tuple of all: after the others.
        place = {name: len(kept) + number for number, name in enumerate(rest)}
        if self.starred:
            place[self.starred] = len(fetch)
        else:
            place.update({names[position]: number for number, position in enumerate(kept)})
        vjps = []
        for position in requested:
            operand = self.starred or self.operands[position]
            needs = self._needs[operand]
            at = tuple(~position if need == "index" and self.starred else place[need] for need in needs)
            vjps.append((position, operand, None if at == tuple(range(len(fetch))) else _chooser(at)))
        frees = bool(kept) or any(what in (_OUTPUT, _RESIDUAL) for what, _ in fetch)
        plain = not self.starred and all(what != _OUTPUT for what, _ in fetch)
        self._plans[mask] = plan = _Plan(tuple(fetch), len(kept), tuple(vjps), frees, plain)
        return plan

    def _fetch(self, name: str, operands: list[str]) -> tuple[int, Any]:
        operand, _, what = name.rpartition("_")
        if name == "output":
            return _OUTPUT, None
        if name in self.residuals:
            return _RESIDUAL, self.residuals.index(name)
        if self.starred and name == f"{self.starred}_shape":
            return _STARRED_SHAPES, None
        if not self.starred and operand in operands and what in ("shape", "dtype"):
            return (_SHAPE if what == "shape" else _DTYPE), operands.index(operand)
        return _KEYWORD, name

    def _default(self, name: str) -> Any:
        """Of a keyword that a call left out."""
        parameter = inspect.signature(self.forward).parameters.get(name)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise RuntimeError(f"primitive {self.name}: a VJP asks for {name!r}, which the call does not have")
        return parameter.default


def _tensor(data: Any) -> Tensor:
    """A result without history: what ``Tensor(data)`` does, at half its cost; a NumPy scalar is a 0-d array."""
    out: Tensor = _new(Tensor)
    out._data = data if type(data) is _ndarray else np.asarray(data)
    out._requires_grad = False
    out._node = out._counter = out._view = None
    out._output_nr = 0
    return out


class Packed:
    """What a pack hook made of a saved tensor, and the hook that takes it back."""

    __slots__ = ("content", "edge", "unpack")

    def __init__(self, content: Any, unpack: Callable[[Any], Any], edge: tuple[Node, int] | None) -> None:
        self.content = content
        self.unpack = unpack
        self.edge = edge  # the history of the tensor that was packed

    def take_back(self) -> Tensor:
        """The values from the unpack hook, with the history of the tensor that was packed."""
        tensor = self.unpack(self.content)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"Output of saved tensor unpack_hook expected to be a Tensor but got result of type "
                f"{type(tensor).__name__}"
            )
        if self.edge is None:
            return tensor
        node, number = self.edge
        out = Tensor(tensor._data)
        out._requires_grad = True
        if isinstance(node, AccumulateGrad):
            out._accumulator = weakref.ref(node)
        else:
            out._node, out._output_nr = node, number
        return out


def pack(tensor: Tensor, edge: tuple[Node, int] | None = None) -> Packed:
    """Hands a tensor that is to be saved, and its history, to the innermost hooks of ``saved_tensors_hooks``."""
    state = mode.state
    hooks = state.saved_hooks
    state.saved_hooks = ()  # what a hook itself computes is saved as it is
    try:
        return Packed(hooks[-1][0](tensor), hooks[-1][1], edge)
    finally:
        state.saved_hooks = hooks


class OperationNode(Node):
    """One recorded call of a primitive."""

    __slots__ = ("_keywords", "_plan", "_saved", "_versions", "primitive", "shapes")

    primitive: Primitive
    shapes: tuple[tuple[int, ...], ...]  # of the results
    _plan: _Plan
    _saved: list[Any] | None  # as the plan's ``fetch`` says; None once it has been freed
    _versions: dict[int, int] | None
    _keywords: dict[str, Any] | None

    def name(self) -> str:
        """The primitive's name and ``Backward0``, as PyTorch writes it."""
        return self.primitive.node_name

    def release(self) -> None:
        """Drops the residuals; a second backward then raises. Where there are none it may pass again, as in PyTorch."""
        if self._plan.frees:
            self._saved = None

    def save_copy_of(self, tensor: Tensor) -> None:
        """Saves the present values of ``tensor``, which the result of this very operation is about to overwrite."""
        for index, value in enumerate((self._saved or ())[: self._plan.tensors]):
            if value is tensor:
                copy = Tensor(tensor._data.copy())
                copy._node, copy._output_nr = tensor._node, tensor._output_nr
                copy._requires_grad = tensor._requires_grad
                self._saved[index] = copy  # type: ignore[index]
                if self._versions:
                    self._versions.pop(index, None)

    def pack(self) -> None:
        """Hands what is saved to the hooks of ``saved_tensors_hooks``."""
        saved = self._saved
        assert saved is not None
        for index, (what, _) in enumerate(self._plan.fetch):
            value = saved[index]
            if isinstance(value, Tensor):
                saved[index] = pack(value, edge_of(value) if value._requires_grad else None)
            elif what == _OUTPUT:
                saved[index] = tuple((pack(Tensor(array)), [0], 0) for array, _, _ in value)
            elif what == _RESIDUAL and isinstance(value, np.ndarray):
                saved[index] = pack(Tensor(value))

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        """The VJPs of those operands that require a gradient."""
        primitive, plan, saved = self.primitive, self._plan, self._saved
        produced: list[Gradient | None] = [None] * len(self.edges)
        if primitive.multiple and self.outputs == 1:
            gradient = (gradient,)
        if gradient is None or (primitive.multiple and all(part is None for part in gradient)):
            return produced
        if create_graph or saved is None or not plan.plain:
            kept = self._unpack(create_graph)
            if create_graph and primitive.decomposition is not None:
                return self._differentiate_decomposition(gradient, kept)
        else:  # the usual case: what _unpack does, in short
            kept = []
            for value in saved:
                if isinstance(value, Tensor):
                    if value._counter is not None and value._counter[0]:
                        kept = self._unpack(create_graph)
                        break
                    value = value._data
                elif type(value) is Packed:
                    kept = self._unpack(create_graph)
                    break
                kept.append(value)
        for position, operand, chosen in plan.vjps:
            try:
                value = primitive.vjps[operand](gradient, *(kept if chosen is None else chosen(kept)))
            except Exception as error:
                error.add_note(f"(in the backward pass of {primitive.name}, gradient of {operand!r})")
                raise
            if type(value) is not _ndarray and not create_graph and value is not None:
                value = np.asarray(value)  # what NumPy makes of 0-d operands
            produced[position] = value
        return produced

    def _unpack(self, create_graph: bool) -> list[Any]:
        """What was saved, as arrays or, with ``create_graph``, as Tensors."""
        saved = self._saved
        if saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
                f"autograd.grad(). Specify retain_graph=True if you need to backward a second time. ({self.name()})"
            )
        kept = saved.copy()
        plan, versions = self._plan, self._versions
        for index in range(plan.tensors):
            value = kept[index]
            if isinstance(value, Tensor):
                counter = value._counter
                if counter is not None:
                    before = versions.get(index, 0) if versions else 0
                    if counter[0] != before:
                        self._refuse(f"operand {self._operand(index)!r}", value._data, before, counter[0])
                kept[index] = value if create_graph else value._data
            elif type(value) is Packed:
                tensor = value.take_back()
                kept[index] = tensor if create_graph else tensor._data
        for index in range(plan.tensors, len(kept)):
            value = kept[index]
            if type(value) is Packed:
                kept[index] = value.take_back()._data
            elif plan.fetch[index][0] == _OUTPUT:
                arrays = []
                for array, counter, version in value:
                    if counter[0] != version:
                        self._refuse("output", array, version, counter[0])
                    arrays.append(array.take_back()._data if type(array) is Packed else array)
                outputs: tuple[Any, ...] = self._outputs(arrays) if create_graph else tuple(arrays)
                kept[index] = outputs if self.primitive.multiple else outputs[0]
        if self.primitive.starred:
            kept.append(tuple(kept[: plan.tensors]))
        return kept

    def _operand(self, index: int) -> str:
        return self.primitive.starred or self.primitive.operands[self._plan.fetch[index][1]]

    def _outputs(self, arrays: list[Array]) -> tuple[Tensor, ...]:
        outputs = tuple(Tensor(array) for array in arrays)
        for number, output in enumerate(outputs):
            output._node, output._output_nr, output._requires_grad = self, number, True
        return outputs

    def _refuse(self, what: str, array: Array, saved: int, now: int) -> None:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"{self.primitive.name} saved its {what} ({array.dtype} {list(array.shape)}) at version {saved}; it is "
            f"at version {now} now. Use the out-of-place form of the operation that changed it, or give that "
            "operation a clone()."
        )

    def _differentiate_decomposition(self, gradient: Tensor, kept: list[Any]) -> list[Gradient | None]:
        primitive = self.primitive
        assert primitive.decomposition is not None and self._keywords is not None
        # Aliases: the walk must end here, not in the history of the operands, yet its result must lead there.
        values = kept[: self._plan.tensors]
        aliases = [alias(value) if isinstance(value, Tensor) else value for value in values]
        output = primitive.decomposition(*aliases, **self._keywords)
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
