"""``Optimizer``: parameter groups, their hyperparameters, and state that can be saved. Subclasses do the updating."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np

from ..autograd import Tensor, enable_grad, no_grad

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


class _Required:
    """The type of ``required``."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()
"""As a value in ``defaults``: a hyperparameter that every group has to give."""


class Optimizer:
    """Base class of the optimizers, with the meaning of ``torch.optim.Optimizer``.

    A subclass passes its hyperparameters as ``defaults``, implements ``update_group``, keeps what it remembers of a
    parameter in ``self.state[parameter]`` and names in ``parameter_shaped`` the entries that have its shape. The
    parameters are updated in the order in which they were given, so that every rank does the same.

    Args:
        params: an ordered iterable of leaf tensors, of ``(name, tensor)`` pairs as ``Module.named_parameters()``
            yields, or of dicts, each a group: ``{"params": tensors, "lr": 0.1, ...}``.
        defaults: hyperparameters of the groups that do not give their own; ``required`` marks those that must.

    Raises:
        TypeError: ``params`` is a tensor or a set, or something in it is not a tensor.
        ValueError: nothing to optimize, a non-leaf, a parameter given twice, a group without a required hyperparameter.
    """

    parameter_shaped: tuple[str, ...] = ()

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
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

    def state_dict(self) -> dict[str, Any]:
        """The state and the hyperparameters in PyTorch's layout, the parameters numbered through all groups.

        Returns:
            ``{"state": {0: {"momentum_buffer": Tensor}}, "param_groups": [{"lr": 0.1, ..., "params": [0, 1]}]}``. The
            tensors are the live ones: the next ``step`` changes them, so copy what is to be kept in memory.
        """
        numbers: dict[Tensor, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                numbers[param] = len(numbers)
            groups.append(
                {key: copy.copy(value) for key, value in group.items() if key != "params"}
                | {"params": [numbers[param] for param in group["params"]]}
            )
        return {"state": {numbers[param]: dict(entry) for param, entry in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a state and hyperparameters; nothing is changed if they do not fit.

        Parameters are matched by their place in the groups, not by name. Arrays are copied and cast to the dtype of
        their parameter. Make learning-rate schedules before loading: making one sets the learning rates.

        Args:
            state_dict: what ``state_dict`` gave; the tensors may have become ``ndarray`` on their way through a file. A
                hyperparameter that it lacks is taken from ``defaults``.

        Raises:
            ValueError: other groups, other sizes of groups, or arrays that do not have their parameter's shape.
        """
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
            state[param] = {name: _adopt(value, param, name) for name, value in entry.items()}
        self.state, self.param_groups = state, groups

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


def _adopt(value: Any, param: Tensor, name: str) -> Any:
    """A deep copy of a piece of state, its arrays as tensors of the parameter's dtype (counters keep theirs)."""
    if isinstance(value, Tensor | np.ndarray):
        keeps = name == "step" or not param.is_floating_point()
        return Tensor(np.array(_array(value), dtype=None if keeps else param.dtype, order="C"))
    if isinstance(value, dict):
        return {key: _adopt(inner, param, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_adopt(inner, param, "") for inner in value)
    return copy.deepcopy(value)
