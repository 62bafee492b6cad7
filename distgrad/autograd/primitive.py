"""How an operation is made known: a forward on arrays and one vector-Jacobian product (VJP) for each named operand.

    mul = define("Mul", np.multiply, ("input", "other"), broadcast=sum_to,
                 input=lambda g, other: g * other,
                 other=lambda g, input: g * input)

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
from operator import itemgetter
from typing import Any

import numpy as np

from .engine import Node, edge_of
from .grad_mode import State, mode
from .recorded import Fetch, OperationNode, Plan, versions_of
from .sharing import join
from .tensor import Tensor, plain
from .unrolled import REQUIRES_GRAD, recorder
from .view import View

PRIMITIVES: dict[str, Primitive] = {}

_new, _ndarray = object.__new__, np.ndarray


def _takes_out(forward: Callable[..., Any]) -> bool:
    code = getattr(forward, "__code__", None)
    return code is not None and "out" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _chooser(at: tuple[int, ...]) -> Callable[[list[Any]], Sequence[Any]]:
    """Picks values out of a list by index; ``~position`` stands for the number ``position`` itself."""
    if len(at) > 1 and all(i >= 0 for i in at):
        return itemgetter(*at)
    return lambda values: [values[i] if i >= 0 else ~i for i in at]


class _Recorders(dict[int, Callable[..., OperationNode]]):
    """By the kind of call, what records it: written when the first such call comes."""

    def __init__(self, primitive: Primitive) -> None:
        self._primitive = primitive

    def __missing__(self, kind: int) -> Callable[..., OperationNode]:
        self[kind] = record = self._primitive.recorder(kind)
        return record


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
        broadcast: given where operands broadcast and VJPs leave the sum over what was broadcast to be added: a function
            of a gradient and the shape of its operand, called where the gradient has another.
        scalars: the VJPs are arithmetic on elements alone, and take NumPy's scalars in the place of 0-d arrays.
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
        broadcast: Callable[[Any, tuple[int, ...]], Any] | None = None,
        scalars: bool = False,
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
        self.broadcast = broadcast
        self.scalars = scalars
        self.unusual = bool(view or multiple or residuals)
        self.single_view = bool(view and not multiple and not residuals and not self.starred)
        self.general = bool(multiple or self.starred)  # too many kinds of calls to write functions for each
        self.writes = isinstance(forward, np.ufunc) or _takes_out(forward)
        # what inspect.signature would say, forty times as fast: there are many VJPs, and all are read at import
        self._needs = {
            operand: vjp.__code__.co_varnames[1 : vjp.__code__.co_argcount]
            if hasattr(vjp, "__code__")
            else tuple(inspect.signature(vjp).parameters)[1:]
            for operand, vjp in vjps.items()
        }
        self._plans: dict[int, Plan] = {}  # by the mask, with a leading 1 that tells how many operands there are
        self.recorders = _Recorders(self)
        known = {self.starred} if self.starred else set(operands)
        if unknown := set(vjps) - known:
            raise ValueError(f"primitive {name}: a VJP for {sorted(unknown)}, but the operands are {operands}")

    def __call__(self, *operands: Any, **keywords: Any) -> Any:
        """Runs the forward and records it."""
        if 0 < len(operands) < 3 and type(operands[0]) is _ndarray and type(operands[-1]) is _ndarray:
            result = self.forward(*operands, **keywords)  # within a plain backward pass
            return result[0] if self.residuals else result
        arrays: list[Any] = []
        kind, bit = 0, 1  # two bits an operand: see ``recorder``
        traced = wanted = False
        for operand in operands:
            if isinstance(operand, Tensor):
                traced = True
                if operand._view is not None:
                    operand._up_to_date()
                if operand._requires_grad:
                    wanted = True
                    kind |= bit
                arrays.append(operand._data)
            else:
                kind |= bit + bit
                arrays.append(operand)
            bit <<= 2
        if not traced:
            result = self.forward(*arrays, **keywords)
            return result[0] if self.residuals else result
        state = mode.state
        if state.batching is not None:
            return state.batching(self, operands, keywords)
        run = state.quietly
        result = run(self.forward, *arrays, **keywords) if keywords else run(self.forward, *arrays)
        kind = kind | bit if wanted and state.enabled and self.vjps else 0
        if self.unusual:
            if self.single_view and result.base is not None:
                owner = operands[0]._data
                if result.base is owner or result.base is owner.base:
                    return self.viewed(operands, keywords, result, kind, state)
            return self.unusual_result(operands, keywords, result, kind, state)
        # A result without history: what Tensor(result) does, at half its cost. NumPy gives a scalar for 0-d operands.
        out: Tensor = _new(Tensor)
        out._data = result if type(result) is _ndarray else np.asarray(result)
        out._output_nr = 0
        out._counter = out._view = None
        if kind:
            out._requires_grad = True
            if self.general:
                out._node = self._record(operands, keywords, (out,), ())
            else:
                out._node = self.recorders[kind](out, keywords, (), state, *operands)
        else:
            out._requires_grad = False
            out._node = None
            if state.inference:
                out._inference = True
                out._counter = [1]
        return out

    def viewed(
        self, operands: tuple[Any, ...], keywords: dict[str, Any], result: Any, kind: int, state: State
    ) -> Tensor:
        """What ``unusual_result`` does, for the usual one: a single view of the first operand's memory."""
        source: Tensor = operands[0]
        out: Tensor = _new(Tensor)
        out._data = result
        out._output_nr = 0
        out._counter = counter = source._counter or source._versions()
        out._view = view = View.of_one(source, (self, operands[1:], keywords, None), counter[0], state.enabled)
        if source._data.ndim == 4:
            join(source, out)
        if kind:
            out._requires_grad = True
            out._node = self.recorders[kind](out, keywords, (), state, *operands)
            return out
        out._requires_grad = False
        out._node = None
        if state.inference:
            if source._inference:
                out._inference = True
        elif view.base._requires_grad:
            # As in PyTorch, a view that is not recorded says that it requires a gradient, but gets none.
            out._requires_grad = out._inherited = True
        return out

    def unusual_result(
        self, operands: tuple[Any, ...], keywords: dict[str, Any], result: Any, kind: int, state: State
    ) -> Any:
        """The rest of a call that gives views, several results, or residuals."""
        extra: tuple[Any, ...] = ()
        if self.residuals:
            result, extra = result
        outs = tuple(map(plain, result)) if self.multiple else (plain(result),)
        if self.view:
            source = operands[0]
            owner = source._data
            for number, out in enumerate(outs):
                memory = out._data.base
                # Otherwise a copy had to be made.
                if memory is owner or (
                    memory is not None and (memory is owner.base or np.may_share_memory(owner, out._data))
                ):
                    counter = source._versions()
                    step = (self, operands[1:], keywords, number if self.multiple else None)
                    out._counter = counter
                    out._view = view = View(source, step, counter[0], state.enabled)
                    if owner.ndim == 4:
                        join(source, out)
                    if view.base._requires_grad and not kind and not state.inference:
                        # As in PyTorch, a view that is not recorded says that it requires a gradient, but gets none.
                        out._requires_grad = out._inherited = True
        if kind:
            if self.general:
                node = self._record(operands, keywords, outs, extra)
            else:
                node = self.recorders[kind](outs[0], keywords, extra, state, *operands)
            for number, out in enumerate(outs):
                if out._data.dtype.kind == "f":
                    out._requires_grad, out._node, out._output_nr = True, node, number
        elif state.inference:
            for out in outs:
                if out._counter is None:
                    out._counter = [1]
                elif not operands[0]._inference:
                    continue  # a view of a tensor from outside is as that one is
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
            if shares or plan.fetch[:1] == ((Fetch.OPERAND, 0),):
                return None
        arrays = [x._data if isinstance(x, Tensor) else x for x in operands]
        mode.state.quietly(self.forward, *arrays, out=target._data, **keywords)
        target._changed()
        out = plain(target._data)
        out._counter = target._counter
        if recorded:
            out._node = self._record(operands, keywords, (out,), ())
            out._requires_grad = True
        return out

    def recorder(self, kind: int) -> Callable[..., OperationNode]:
        """What records calls whose operands are of this kind, for each two bits: 0 a tensor, 1 one that requires a
        gradient, 2 anything else; the first operand has the lowest bits, and a leading 1 tells how many there are."""
        operands = [kind >> place & 3 for place in range(0, kind.bit_length() - 1, 2)]
        mask = 1 << len(operands) | sum(1 << i for i, what in enumerate(operands) if what == REQUIRES_GRAD)
        return recorder(self, self._plans.get(mask) or self._plan(mask, len(operands)), operands)

    def _record(
        self, operands: tuple[Any, ...], keywords: dict[str, Any], outs: tuple[Tensor, ...], extra: tuple[Any, ...]
    ) -> OperationNode:
        """What the function of ``recorder`` does, for any call."""
        mask = 1 << len(operands)
        edges: list[tuple[Node, int] | None] = []
        for position, operand in enumerate(operands):
            if isinstance(operand, Tensor) and operand._requires_grad:
                mask |= 1 << position
                # not always ``edge_of``: a view whose memory was just written to is about to get a new history
                edges.append((operand._node, operand._output_nr) if operand._node is not None else edge_of(operand))
            else:
                edges.append(None)
        node = OperationNode(edges, len(outs))
        node.primitive = self
        node._plan = plan = self._plans.get(mask) or self._plan(mask, len(operands))
        node._saved = [self._saved(what, key, operands, keywords, outs, extra) for what, key in plan.fetch]
        node._versions = versions_of(node._saved, plan.tensors)
        node._keywords = keywords if self.decomposition is not None else None
        node.shape = tuple([out._data.shape for out in outs]) if self.multiple else outs[0]._data.shape
        node.observe()
        return node

    def _saved(
        self,
        what: Fetch,
        key: Any,
        operands: tuple[Any, ...],
        keywords: dict[str, Any],
        outs: tuple[Tensor, ...],
        extra: tuple[Any, ...],
    ) -> Any:
        """One of the things that a plan fetches."""
        if what == Fetch.OPERAND:
            return operands[key]
        if what in (Fetch.SHAPE, Fetch.DTYPE):
            operand = operands[key]
            array = operand._data if isinstance(operand, Tensor) else np.asarray(operand)
            return array.shape if what == Fetch.SHAPE else array.dtype
        if what == Fetch.KEYWORD:
            return keywords[key] if key in keywords else self.default_of(key)()
        if what == Fetch.OUTPUT:
            for out in outs:
                if out._counter is None:
                    out._counter = [0]  # itself, not ``_versions()``: there is no node yet to be told
            # arrays: a Tensor would keep its own node alive
            return tuple((out._data, out._counter, out._version) for out in outs)
        if what == Fetch.RESIDUAL:
            return extra[key]
        return tuple(x.shape for x in operands)

    def _plan(self, mask: int, count: int) -> Plan:
        requested = [position for position in range(count) if mask >> position & 1]
        wanted: set[str] = set()
        for position in requested:
            operand = self.starred or self.operands[position]
            if operand not in self._needs:
                raise RuntimeError(
                    f"{self.name} is not differentiable with respect to {operand!r}; detach() that argument"
                )
            wanted.update(self._needs[operand])
            if self.broadcast is not None:
                wanted.add(f"{operand}_shape")
        if self.starred:
            wanted.discard("index")
        if self.decomposition is not None:
            wanted.update((self.starred,) if self.starred else self.operands[:count])
        names = [self.starred or ""] * count if self.starred else list(self.operands[:count])
        kept = [position for position, name in enumerate(names) if name in wanted]
        rest = sorted(wanted.difference(names))
        fetch: list[tuple[Fetch, Any]] = [(Fetch.OPERAND, position) for position in kept] + [
            self._fetch(name, names) for name in rest
        ]
        # A starred operand is one argument, the tuple of all: after the others.
        place = {name: len(kept) + number for number, name in enumerate(rest)}
        if self.starred:
            place[self.starred] = len(fetch)
        else:
            place.update({names[position]: number for number, position in enumerate(kept)})
        vjps, arguments = [], []
        for position in requested:
            operand = self.starred or self.operands[position]
            needs = self._needs[operand]
            at = tuple(~position if need == "index" and self.starred else place[need] for need in needs)
            arguments.append(at)
            vjps.append((position, operand, None if at == tuple(range(len(fetch))) else _chooser(at)))
        shapes = tuple(place[f"{names[position]}_shape"] for position in requested) if self.broadcast else ()
        frees = bool(kept) or any(what in (Fetch.OUTPUT, Fetch.RESIDUAL) for what, _ in fetch)
        self._plans[mask] = plan = Plan(tuple(fetch), len(kept), tuple(vjps), tuple(arguments), shapes, frees)
        return plan

    def _fetch(self, name: str, operands: list[str]) -> tuple[Fetch, Any]:
        operand, _, what = name.rpartition("_")
        if name == "output":
            return Fetch.OUTPUT, None
        if name in self.residuals:
            return Fetch.RESIDUAL, self.residuals.index(name)
        if self.starred and name == f"{self.starred}_shape":
            return Fetch.STARRED_SHAPES, None
        if not self.starred and operand in operands and what in ("shape", "dtype"):
            return (Fetch.SHAPE if what == "shape" else Fetch.DTYPE), operands.index(operand)
        return Fetch.KEYWORD, name

    def default_of(self, name: str) -> Callable[[], Any]:
        """Gives the value of a keyword that a call left out; refuses if it has none."""

        def default() -> Any:
            parameter = inspect.signature(self.forward).parameters.get(name)
            if parameter is None or parameter.default is inspect.Parameter.empty:
                raise RuntimeError(f"primitive {self.name}: a VJP asks for {name!r}, which the call does not have")
            return parameter.default

        return default


def define(
    name: str,
    forward: Callable[..., Any],
    operands: tuple[str, ...],
    *,
    residuals: tuple[str, ...] = (),
    view: bool = False,
    multiple: bool = False,
    decomposition: Callable[..., Tensor] | None = None,
    broadcast: Callable[[Any, tuple[int, ...]], Any] | None = None,
    scalars: bool = False,
    **vjps: Callable[..., Any],
) -> Primitive:
    """Registers an operation in ``PRIMITIVES``; the remaining keywords are its VJPs, by operand. See ``Primitive``."""
    if name in PRIMITIVES:
        raise ValueError(f"primitive {name!r} is defined twice")
    PRIMITIVES[name] = primitive = Primitive(
        name, forward, operands, vjps, residuals, view, multiple, decomposition, broadcast, scalars
    )
    return primitive


# The identity that shares memory: a new node in front of a tensor. The one operation that the machinery itself needs.
alias = define("Alias", lambda input: input.view(), ("input",), view=True, input=lambda g: g)
