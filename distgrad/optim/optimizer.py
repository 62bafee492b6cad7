"""``Optimizer``: parameter groups, their hyperparameters, and state that can be saved. Subclasses do the updating."""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np

from ..autograd import Tensor, enable_grad, no_grad
from ..autograd.tensor import Handle
from ..ops.promotion import get_default_dtype

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
Hooks = dict[int, Callable[..., Any]]


_HOOK_TABLES = (
    "_step_pre_hooks",
    "_step_post_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_post_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class _Required:
    """The type of ``required``."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()
"""As a value in ``defaults``: a hyperparameter that every group has to give."""


def _between_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` with the hooks of the optimizer called around it; a ``step`` that it calls in turn has none."""

    @functools.wraps(step)
    def wrapped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._stepping:
            return step(self, *args, **kwargs)
        self._stepping = True
        try:
            given: tuple[Any, ...] = (self, *args)
            for before in tuple(self._step_pre_hooks.values()):
                result = before(self, given, kwargs)
                if result is not None:
                    if not (isinstance(result, tuple) and len(result) == 2):
                        raise RuntimeError(
                            f"a hook of {type(self).__name__}.step must return None or a tuple of (new_args, "
                            f"new_kwargs), but got {result!r}"
                        )
                    given, kwargs = result
            out = step(*given, **kwargs)
            for after in tuple(self._step_post_hooks.values()):
                after(self, given, kwargs)
            return out
        finally:
            self._stepping = False

    return wrapped


class Optimizer:
    """Base class of the optimizers, with the meaning of ``torch.optim.Optimizer``.

    A subclass passes its hyperparameters as ``defaults``, implements ``update_group`` (or ``step``, as in PyTorch),
    keeps what it remembers of a parameter in ``self.state[parameter]`` and names in ``parameter_shaped`` the entries
    that have its shape, in ``scalar_state`` those that are numbers. The parameters are updated in the order in which
    they were given, so that every rank does the same.

    Args:
        params: an ordered iterable of leaf tensors, of ``(name, tensor)`` pairs as ``Module.named_parameters()``
            yields, or of dicts, each a group: ``{"params": tensors, "lr": 0.1, ...}``.
        defaults: hyperparameters of the groups that do not give their own; ``required`` marks those that must.

    Raises:
        TypeError: ``params`` is a tensor or a set, or something in it is not a tensor.
        ValueError: nothing to optimize, a non-leaf, a parameter given twice, a group without a required hyperparameter.
    """

    parameter_shaped: tuple[str, ...] = ()
    scalar_state: tuple[str, ...] = ("step",)
    """Entries of a parameter's state that are 0-d tensors with a dtype of their own: a counter in half precision would
    stop at 2048."""

    _stepping = False  # whether a step is under way, so that one inside it does not call the hooks again

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = _between_hooks(vars(cls)["step"])  # type: ignore[method-assign]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self._make_hook_tables()
        self.check_group(defaults)
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got Tensor; "
                "pass a list, [tensor]"
            )
        _refuse_set(params)
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        given: list[Any] = list(params)
        if not given:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(given[0], dict):
            given = [{"params": given}]
        for group in given:
            self.add_param_group(group)

    def _make_hook_tables(self) -> None:
        self._step_pre_hooks: Hooks = {}
        self._step_post_hooks: Hooks = {}
        self._state_dict_pre_hooks: Hooks = {}
        self._state_dict_post_hooks: Hooks = {}
        self._load_state_dict_pre_hooks: Hooks = {}
        self._load_state_dict_post_hooks: Hooks = {}

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuses hyperparameters outside their range; called with the defaults and with each group. Nothing here.

        Args:
            group: all hyperparameters by name, ``required`` where one is still to be given.
        """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, such as layers of a pretrained network that are trained from now on.

        Args:
            param_group: ``"params"`` as in the constructor, or a single tensor; hyperparameters by name. The dict is
                copied.

        Raises:
            TypeError, ValueError: as the constructor. A parameter given twice in one group is an error here, where
                PyTorch only warns that it will be one.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        if "params" not in param_group:
            raise ValueError(f"a parameter group needs the key 'params'; this one has {sorted(param_group)}")
        _refuse_set(param_group["params"])
        group = dict(param_group)
        given = group["params"]
        given = [given] if isinstance(given, Tensor) else list(given)
        names = [entry[0] for entry in given if isinstance(entry, tuple)]
        if names and len(names) != len(given):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        params = [entry[1] for entry in given] if names else given
        group["params"] = params
        if names:
            group["param_names"] = names

        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(param).__name__}")
            if not (param.is_leaf or param.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            group.setdefault(name, default)
        self.check_group(group)
        if len(params) != len(set(params)):
            raise ValueError("optimizer contains a parameter group with duplicate parameters; give each one once")
        for other in self.param_groups:
            if ("param_names" in group) != ("param_names" in other):
                raise ValueError(
                    "all optimizer param groups should be with/without names. cannot add param group "
                    f"{'with' if names else 'without'} names to the optimizer"
                )
            if not set(params).isdisjoint(other["params"]):
                raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Takes the gradients away, or fills them with zeros.

        Args:
            set_to_none: ``grad`` becomes None, and a parameter that gets no gradient is left alone by ``step``.
                Otherwise it becomes zeros in the same memory, and momentum and weight decay still act on it.
        """
        for group in self.param_groups:
            for param in group["params"]:
                grad = param.grad
                if grad is None:
                    continue
                if set_to_none:
                    param.grad = None
                elif grad.requires_grad:  # recorded by create_graph: its history may still be needed
                    param.grad = Tensor(np.zeros_like(grad._data))
                else:
                    grad._data.fill(0)
                    grad._changed()

    @_between_hooks
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient, once.

        Args:
            closure: called first, with recording on; computes the gradients anew and returns the loss.

        Returns:
            What ``closure`` returned, or None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                self.update_group(group)
        return loss

    def update_group(self, group: dict[str, Any]) -> None:
        """Updates, in place, the parameters of one group; those whose ``grad`` is None are left as they are."""
        raise NotImplementedError(f"{type(self).__name__} has no update_group(group)")

    # Hooks -----------------------------------------------------------------------------------------------------------

    def register_step_pre_hook(self, hook: Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], Any]) -> Handle:
        """Calls ``hook(optimizer, args, kwargs)`` before every ``step``; ``args`` begins with the optimizer.

        What it returns, unless None, is a pair that replaces ``args`` and ``kwargs``.
        """
        return Handle.add(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], None]) -> Handle:
        """Calls ``hook(optimizer, args, kwargs)`` after every ``step``; ``args`` begins with the optimizer."""
        return Handle.add(self._step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[[Optimizer], None], prepend: bool = False) -> Handle:
        """Calls ``hook(optimizer)`` before ``state_dict`` looks at anything; ``prepend`` puts it before the others."""
        return _add_hook(self._state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[[Optimizer, dict[str, Any]], dict[str, Any] | None], prepend: bool = False
    ) -> Handle:
        """Calls ``hook(optimizer, state_dict)`` on what ``state_dict`` gives.

        What it returns, unless None, is given in its place. ``prepend`` puts it before the other hooks.
        """
        return _add_hook(self._state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[[Optimizer, dict[str, Any]], dict[str, Any] | None], prepend: bool = False
    ) -> Handle:
        """Calls ``hook(optimizer, state_dict)`` on a shallow copy of what is to be loaded.

        What it returns, unless None, is loaded in its place. ``prepend`` puts it before the other hooks.
        """
        return _add_hook(self._load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[[Optimizer], None], prepend: bool = False) -> Handle:
        """Calls ``hook(optimizer)`` after a state has been loaded; ``prepend`` puts it before the others."""
        return _add_hook(self._load_state_dict_post_hooks, hook, prepend)

    # State -----------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in _HOOK_TABLES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if not vars(self).keys() >= set(_HOOK_TABLES):  # hooks stay with the optimizer that they were registered on
            self._make_hook_tables()

    def state_dict(self) -> dict[str, Any]:
        """The state and the hyperparameters in PyTorch's layout, the parameters numbered through all groups.

        Returns:
            ``{"state": {0: {"momentum_buffer": Tensor}}, "param_groups": [{"lr": 0.1, ..., "params": [0, 1]}]}``. The
            tensors are the live ones: the next ``step`` changes them, so copy what is to be kept in memory.
        """
        for before in tuple(self._state_dict_pre_hooks.values()):
            before(self)
        numbers: dict[Tensor, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                numbers[param] = len(numbers)
            groups.append(
                {key: copy.copy(value) for key, value in group.items() if key != "params"}
                | {"params": [numbers[param] for param in group["params"]]}
            )
        entries = {numbers[param]: dict(entry) for param, entry in self._state_to_save().items()}
        state_dict: dict[str, Any] = {"state": entries, "param_groups": groups}
        for after in tuple(self._state_dict_post_hooks.values()):
            result = after(self, state_dict)
            state_dict = state_dict if result is None else result
        return state_dict

    def _state_to_save(self) -> dict[Tensor, dict[str, Any]]:
        """What ``state_dict`` gives as the state of each parameter."""
        return self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a state and hyperparameters; nothing is changed if they do not fit.

        Parameters are matched by their place in the groups, not by name. Arrays are copied and cast to the dtype of
        their parameter, except counters (``scalar_state``), which keep theirs. Make learning-rate schedules before
        loading: making one sets the learning rates.

        Args:
            state_dict: what ``state_dict`` gave; the tensors may have become ``ndarray`` on their way through a file. A
                hyperparameter that it lacks is taken from ``defaults``.

        Raises:
            ValueError: other groups, other sizes of groups, or arrays that do not have their parameter's shape.
        """
        state_dict = copy.copy(state_dict)  # for the hooks, which may change it
        for before in tuple(self._load_state_dict_pre_hooks.values()):
            result = before(self, state_dict)
            state_dict = state_dict if result is None else result
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= state_dict.keys():
            keys = sorted(map(str, state_dict)) if isinstance(state_dict, dict) else type(state_dict).__name__
            raise ValueError(f"an optimizer's state_dict has the keys 'state' and 'param_groups', this has {keys}")
        saved_groups = state_dict["param_groups"]
        if len(self.param_groups) != len(saved_groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: "
                f"{len(saved_groups)}, the optimizer {len(self.param_groups)}"
            )
        groups = []
        for index, (group, saved) in enumerate(zip(self.param_groups, saved_groups, strict=True)):
            if len(group["params"]) != len(saved["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                    f"group {index} has {len(saved['params'])} parameters, the optimizer's {len(group['params'])}"
                )
            new = {key: copy.deepcopy(value) for key, value in saved.items() if key != "params"}
            new["params"] = group["params"]
            if "param_names" in group:
                new.setdefault("param_names", group["param_names"])
            for name, default in self.defaults.items():
                new.setdefault(name, group[name] if default is required else default)
            groups.append(new)

        numbers = chain.from_iterable(saved["params"] for saved in saved_groups)
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        param_of = dict(zip(numbers, params, strict=True))
        names = list(chain.from_iterable(group.get("param_names", ()) for group in self.param_groups))
        name_of = dict(zip(param_of, names, strict=True)) if names else {}
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for number, entry in state_dict["state"].items():
            if number not in param_of:
                raise ValueError(
                    f"loaded state dict has state for parameter {number!r}, which is in none of its groups; the "
                    "numbers of parameters must stay integers on their way through a file"
                )
            param = param_of[number]
            for name in self.parameter_shaped:
                value = entry.get(name)
                if value is not None and tuple(np.shape(_array(value))) != tuple(param.shape):
                    called = f"parameter {number}" + (f" ({name_of[number]})" if names else "")
                    raise ValueError(
                        f"loaded state dict has a {name} of shape {list(np.shape(_array(value)))} for {called}, whose "
                        f"shape is {list(param.shape)}: it belongs to another model, or "
                        "the parameters were given in another order"
                    )
            state[param] = {name: self._adopt(value, param, name) for name, value in entry.items()}
        self.__setstate__({"state": state, "param_groups": groups})
        for after in tuple(self._load_state_dict_post_hooks.values()):
            after(self)

    def _adopt(self, value: Any, param: Tensor, name: Any = None) -> Any:
        """A deep copy of a piece of state, its arrays as tensors of the parameter's dtype (counters keep theirs)."""
        if isinstance(value, Tensor | np.ndarray):
            keeps = name in self.scalar_state or not param.is_floating_point()
            return Tensor(np.array(_array(value), dtype=None if keeps else param.dtype, order="C"))
        if name in self.scalar_state and isinstance(value, int | float):
            return Tensor(np.array(value, scalar_dtype()))  # as PyTorch wrote them before 1.12
        if isinstance(value, dict):
            return {key: self._adopt(inner, param, key) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._adopt(inner, param) for inner in value)
        return copy.deepcopy(value)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for index, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _refuse_set(params: Any) -> None:
    if isinstance(params, set | frozenset):
        raise TypeError(
            "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
            "will change between runs. Please use a list instead."
        )


def _array(value: Any) -> Any:
    return value._data if isinstance(value, Tensor) else value


def scalar_dtype() -> np.dtype[Any]:
    """The dtype of counters and other numbers in the state: float64 where that is the default dtype, else float32."""
    return np.dtype(np.float64 if get_default_dtype() == np.float64 else np.float32)


def _add_hook(table: Hooks, hook: Callable[..., Any], prepend: bool) -> Handle:
    """Enters ``hook`` into ``table`` after the others, or before them."""
    others = dict(table) if prepend else {}
    for key in others:
        del table[key]
    handle = Handle.add(table, hook)
    table.update(others)
    return handle
