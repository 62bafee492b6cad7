"""What ``compile`` returns: something that is called like the function or the module that it was given.

A plan holds for one set of circumstances: the shapes and dtypes of the inputs, which of them and of the parameters
require gradients, whether gradients are recorded, each module's mode, and all arguments that are not tensors. For each
set that comes up a plan is captured once; the most recent ones are kept.
"""

from __future__ import annotations

import copy
import functools
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, overload

import numpy as np

from .. import backends
from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..func.pytree import flatten
from ..kernels.workspace import Workspace, workspace
from ..nn import Module
from .capture import CaptureError, capture
from .memory import Pool
from .plan import Plan

_log = logging.getLogger("distgrad.compiler")

# Plans of one function: an evaluation and a training shape, each with a ragged last batch, and as much again.
_PLANS = 8
_PLANNERS: weakref.WeakSet[Planner] = weakref.WeakSet()


class Planner:
    """The plans of one function.

    Args:
        function: what they stand for.
        modules: gives the modules whose parameters, buffers and modes the function depends on.
        name: what to call it in the log.
        fullgraph: raise where a plan cannot be made, instead of going on in eager.
    """

    def __init__(
        self, function: Callable[..., Any], modules: Callable[[], Iterator[Module]], name: str, fullgraph: bool
    ) -> None:
        self.function = function
        self.fullgraph = fullgraph
        self.name = name
        self.plans: OrderedDict[Any, Plan | str] = OrderedDict()  # or the reason why there is none
        self.parts: list[tuple[Module, Planner]] = []  # of a step: the modules that have plans of their own
        self._modules = modules
        self._pool = Pool()
        self._spaces: list[Workspace] = []
        _PLANNERS.add(self)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the plan for these arguments, capturing it first where there is none, or else the function."""
        state = mode.state
        if state.batching is not None or state.saved_hooks:
            return self.function(*args, **kwargs)  # vmap, a capture around this one, or hooks on what is saved
        leaves, _ = flatten((args, kwargs))
        inputs = [x for x in leaves if isinstance(x, Tensor)]
        key = self._key(leaves)
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = self._plan(args, kwargs)
            while len(self.plans) > _PLANS:
                self.plans.popitem(last=False)
        else:
            self.plans.move_to_end(key)
        if isinstance(plan, Plan):
            return plan(inputs)
        return self._in_parts(args, kwargs) if self.parts else self.function(*args, **kwargs)

    def _in_parts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the function as it is, and by plans the modules that it calls."""
        before = [part.__dict__.get("forward") for part, _ in self.parts]
        for part, planner in self.parts:
            part.__dict__["forward"] = planner.forward
        try:
            return self.function(*args, **kwargs)
        finally:
            for (part, _), forward in zip(self.parts, before, strict=True):
                if forward is None:
                    part.__dict__.pop("forward", None)
                else:
                    part.__dict__["forward"] = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of a module's ``forward``."""
        return self(args, kwargs)

    def _key(self, leaves: list[Any]) -> Any:
        key: list[Any] = [backends.convolution, mode.enabled]
        for x in leaves:
            if isinstance(x, Tensor):
                key.append((x._data.shape, x._data.dtype.str, x.requires_grad, _order(x._data)))
            else:
                key.append(x if _hashable(x) else id(x))
        for module in self._modules():
            key.append((module.training, _has_hooks(module)))
            for parameter in module._parameters.values():
                key.append(
                    None if parameter is None else (id(parameter), parameter._requires_grad, parameter.dtype.str)
                )
            for buffer in module._buffers.values():
                key.append(None if buffer is None else id(buffer._data))
        return tuple(key)

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan | str:
        try:
            effects = next((m for m in self._modules() if not m._captures), None)
            if effects is not None:
                raise CaptureError(f"{type(effects).__name__}.forward does more than compute")
            hooked = next((m for m in self._modules() if _has_hooks(m)), None)
            if hooked is not None:
                raise CaptureError(f"a {type(hooked).__name__} inside it has hooks, which see each call")
            plan = Plan(capture(self.function, args, kwargs), self._pool, self._spaces, backends.convolution)
        except CaptureError as reason:
            if self.fullgraph:
                raise
            owner = getattr(self.function, "__self__", None)
            roots = [] if isinstance(owner, Module) and owner._captures else self._roots()
            self.parts = self.parts or [
                (module, Planner(module.forward, module.modules, type(module).__name__, False)) for module in roots
            ]
            if self.parts:
                names = ", ".join(type(module).__name__ for module, _ in self.parts)
                _log.info("%s is compiled in parts (%s), because %s", self.name, names, reason)
            else:
                _log.warning("%s runs in eager mode: %s", self.name, reason)
            return str(reason)
        _log.debug("%s: a plan of %d steps\n%s", self.name, len(plan.steps), plan.describe())
        return plan

    def _roots(self) -> list[Module]:
        """The outermost modules whose ``forward`` only computes."""
        found: list[Module] = []
        covered: set[Module] = set()
        for module in self._modules():
            if module in covered or not module._captures:
                continue
            found.append(module)
            covered.update(module.modules())
        return found

    def reset(self) -> None:
        """Forgets the plans and gives their memory back, but for what tensors still lie in."""
        self.plans.clear()
        self.parts.clear()
        self._pool.trim()
        for space in self._spaces:
            space.clear()

    def report(self) -> str:
        """The plans that there are, step by step, with the bytes of their memory."""
        scratch = sum(space.nbytes for space in self._spaces)
        parts = [f"{self.name}: {self._pool.nbytes} bytes of values, {scratch} bytes of scratch"]
        for plan in self.plans.values():
            parts.append(f"eager: {plan}" if isinstance(plan, str) else plan.describe())
        parts += [planner.report() for _, planner in self.parts]
        return "\n".join(parts)


def reset() -> None:
    """Forgets all plans and gives their memory and this thread's scratch memory back, as ``torch.compiler.reset``.

    What is compiled stays so: the next call of it makes its plan anew. Memory in which a tensor still lies stays until
    the reset after its end. :func:`scratch_bytes` says what is left of scratch memory.
    """
    for planner in list(_PLANNERS):
        planner.reset()
    workspace().clear()


def _order(array: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Which dimensions are outer ones in memory: a view that some step makes of one order may be a copy of another."""
    return tuple(sorted(range(array.ndim), key=lambda d: (-abs(array.strides[d]), d)))


def _hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True


def _has_hooks(module: Module) -> bool:
    return bool(
        module._forward_pre_hooks or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
    )


class CompiledModule(Module):
    """A module that runs by plans. Parameters, buffers, children, hooks, mode and state are those of the original.

    Attributes that it does not have itself are the original's.
    """

    def __init__(self, module: Module, fullgraph: bool) -> None:
        super().__init__()
        planner = Planner(module.forward, module.modules, type(module).__name__, fullgraph)
        # the original's own tables, so that whatever is registered, loaded or replaced is seen by both
        shared = {key: value for key, value in module.__dict__.items() if key.startswith("_") and key != "_frozen"}
        self.__dict__.update(shared, _original=module, _planner=planner)

    @property
    def training(self) -> bool:
        """The original's mode."""
        return bool(self.__dict__["_original"].training)

    @training.setter
    def training(self, value: bool) -> None:
        if "_original" in self.__dict__:
            self.__dict__["_original"].training = value

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the plan for these arguments, or else the original."""
        return self._planner(args, kwargs)

    def plans(self) -> str:
        """What has been compiled so far, for people: each plan's steps, and its memory."""
        report: str = self._planner.report()
        return report

    def train(self, mode: bool = True) -> CompiledModule:
        """Sets the original's mode."""
        self.__dict__["_original"].train(mode)
        return self

    def modules(self) -> Iterator[Module]:
        """The original's."""
        yield from self.__dict__["_original"].modules()

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Module]]:
        """The original's."""
        yield from self.__dict__["_original"].named_modules(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledModule:
        return CompiledModule(copy.deepcopy(self.__dict__["_original"], memo), self._planner.fullgraph)

    def __reduce__(self) -> Any:
        return CompiledModule, (self.__dict__["_original"], self._planner.fullgraph)

    def extra_repr(self) -> str:
        """Says what it is."""
        return f"compiled {type(self.__dict__['_original']).__name__}"

    def __getattr__(self, name: str) -> Any:
        if "_original" in self.__dict__ and not name.startswith("__"):
            return getattr(self.__dict__["_original"], name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_original"] if "_original" in self.__dict__ else super(), name, value)


@overload
def compile(model: Module, *, fullgraph: bool = ...) -> CompiledModule: ...
@overload
def compile(model: Callable[..., Any], *, fullgraph: bool = ...) -> Callable[..., Any]: ...


def compile(model: Any, *, fullgraph: bool = False) -> Any:
    """Returns something that is called like ``model`` and computes the same by plans, faster.

    For each shape of the inputs the operations are captured once. BatchNorm with frozen statistics is folded into the
    convolution before it; convolution, BatchNorm, residual addition and activation become one step; memory is used
    again from run to run. Results equal eager ones within the rounding of the algorithms that ``distgrad.backends``
    lists. Gradients go through it as through any operation.

    Where the operations depend on the values of the inputs, or a module inside has hooks, it runs in eager mode and
    says why, once for each shape, in the log ``distgrad.compiler``. Of a function, such as a training step that calls
    ``backward()`` and the optimizer, the modules that it refers to then run by plans, and the rest as it is written.

    Args:
        model: a module, or a function of tensors; a function's parameters are the tensors that it refers to.
        fullgraph: raise where no plan can be made, instead of running in eager mode.

    Raises:
        CaptureError: with ``fullgraph``, when called: why there is no plan.
        TypeError: ``model`` is neither a module nor a function.
    """
    if isinstance(model, CompiledModule):
        return model
    if isinstance(model, Module):
        return CompiledModule(model, fullgraph)
    if not callable(model):
        raise TypeError(f"compile(): expected a module or a function, got {type(model).__name__}")
    modules = functools.partial(_modules_of, model)
    planner = Planner(model, modules, getattr(model, "__qualname__", type(model).__name__), fullgraph)

    @functools.wraps(model)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        return planner(args, kwargs)

    compiled.plans = planner.report  # type: ignore[attr-defined]
    return compiled


def _modules_of(function: Callable[..., Any]) -> Iterator[Module]:
    """The modules that a function refers to: through its closure, its object, or as globals that it names."""
    seen: list[Any] = [getattr(function, "__self__", None)]
    seen += [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _filled(cell)]
    code = getattr(function, "__code__", None)
    names = getattr(function, "__globals__", {})
    seen += [names[name] for name in (code.co_names if code else ()) if name in names]
    for x in seen:
        if isinstance(x, Module):
            yield from x.modules()


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
