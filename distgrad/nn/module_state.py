"""The state of a module: ``state_dict`` and ``load_state_dict``, with the hooks of both."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..autograd import Size, Tensor, no_grad
from ..autograd.tensor import Handle
from .parameter import Parameter

if TYPE_CHECKING:
    from .module import Module

_EXTRA_STATE = "_extra_state"


class _IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns: the names that were not found and those that had no place."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys!r}, unexpected_keys={self.unexpected_keys!r})"


class _Errors(list[str]):
    """The messages of one ``load_state_dict``, and the changes it makes once it is known that there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Callable[[], Any]] = []


class StatefulModule:
    """The part of ``Module`` that gives and takes its state."""

    _version: int = 1  # of what state_dict holds; raised when a layer's entries change
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _state_dict_pre_hooks: dict[int, Callable[..., Any]]
    _state_dict_hooks: dict[int, Callable[..., Any]]
    _load_state_dict_pre_hooks: dict[int, Callable[..., Any]]
    _load_state_dict_post_hooks: dict[int, Callable[..., Any]]

    # Giving ----------------------------------------------------------------------------------------------------------

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Calls ``hook(module, prefix, keep_vars)`` before the module puts its entries into a state."""
        return Handle.add(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Calls ``hook(module, state_dict, prefix, local_metadata)`` once the module's entries and those below are in.

        The hook may change the state in place, and returns None.
        """
        return Handle.add(self._state_dict_hooks, hook)

    def get_extra_state(self) -> Any:
        """What a subclass wants in its state besides parameters and buffers; overridden with its counterpart."""
        raise RuntimeError(
            "Reached a code path in Module.get_extra_state() that should never be called: it is called where a "
            f"subclass overrides it, and {type(self).__name__} does not"
        )

    def set_extra_state(self, state: Any) -> None:
        """Takes back what ``get_extra_state`` gave."""
        raise RuntimeError(
            f"{type(self).__name__} has no set_extra_state, and the state has an entry of get_extra_state for it"
        )

    def _has_extra_state(self, direction: str) -> bool:
        return getattr(type(self), f"{direction}_extra_state") is not getattr(
            StatefulModule, f"{direction}_extra_state"
        )

    def _persistent(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors of this module alone that are part of its state, parameters first."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield name, parameter
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                yield name, buffer

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Puts the entries of this module alone into ``destination``."""
        for name, tensor in self._persistent():
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if self._has_extra_state("get"):
            destination[prefix + _EXTRA_STATE] = self.get_extra_state()

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by dotted name, in PyTorch's order, sharing memory with the module.

        Args:
            destination: where to put them, a new ``OrderedDict`` without it.
            prefix: of all names.
            keep_vars: give the tensors themselves instead of detached ones.
        """
        state: Any = destination
        if state is None:
            state = OrderedDict()
            state._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(state, "_metadata"):
            state._metadata[prefix[:-1]] = local_metadata
        for pre_hook in tuple(self._state_dict_pre_hooks.values()):
            pre_hook(self, prefix, keep_vars)
        self._save_to_state_dict(state, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in tuple(self._state_dict_hooks.values()):
            if hook(self, state, prefix, local_metadata) is not None:
                raise RuntimeError("state_dict post-hook must return None")
        found: dict[str, Any] = state
        return found

    # Taking ----------------------------------------------------------------------------------------------------------

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Calls ``hook`` before the module looks for its entries in a state, which the hook may change in place.

        Its arguments are ``module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
        error_msgs``.
        """
        return Handle.add(self._load_state_dict_pre_hooks, hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Calls ``hook(module, incompatible_keys)`` once the values are loaded.

        The hook may take names out of ``incompatible_keys.missing_keys`` and ``unexpected_keys`` that are no error, and
        returns None.
        """
        return Handle.add(self._load_state_dict_post_hooks, hook)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Looks for the entries of this module alone. A layer that was saved differently in the past overrides this.

        Args:
            state_dict: the entries of this module and of those below.
            prefix: of their names.
            local_metadata: "version", if it was recorded, and "assign_to_params_buffers".
            strict: whether unexpected names matter.
            missing_keys: is added to.
            unexpected_keys: is added to.
            error_msgs: is added to. Within ``load_state_dict`` it also collects the changes, which are made at the end.
        """
        for hook in tuple(self._load_state_dict_pre_hooks.values()):
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        assign = bool(local_metadata.get("assign_to_params_buffers", False))
        known = set()
        changes: list[Callable[[], Any]] = []
        for name, target in self._persistent():
            known.add(name)
            key = prefix + name
            if key not in state_dict:
                if strict:
                    missing_keys.append(key)
                continue
            value = _loadable(key, state_dict[key], target, error_msgs)
            if value is not None:
                changes.append(_assignment(self, name, value) if assign else _copy(target, value))
        extra_key = prefix + _EXTRA_STATE
        if self._has_extra_state("set"):
            known.add(_EXTRA_STATE)
            if extra_key in state_dict:
                changes.append(lambda: self.set_extra_state(state_dict[extra_key]))
            elif strict:
                missing_keys.append(extra_key)
        for key in state_dict if strict else ():
            head, dot, _ = key[len(prefix) :].partition(".")
            if key.startswith(prefix) and head not in (self._modules if dot else known):
                unexpected_keys.append(key)
        if isinstance(error_msgs, _Errors):
            error_msgs.changes += changes
        else:
            for change in changes:
                change()

    def _match(
        self,
        state: dict[str, Any],
        prefix: str,
        assign: bool,
        metadata: Mapping[str, Any],
        keys: _IncompatibleKeys,
        errors: _Errors,
        hooks: list[tuple[StatefulModule, Callable[..., Any]]],
    ) -> None:
        """Matches ``state`` with this module and those below it; collects names, errors and post hooks."""
        local_metadata = dict(metadata.get(prefix[:-1], {})) | {"assign_to_params_buffers": assign}
        # Told to be strict always, so that the names are there to be returned.
        self._load_from_state_dict(state, prefix, local_metadata, True, *keys, errors)
        for name, child in self._modules.items():
            if child is not None:
                below = f"{prefix}{name}."
                part = {key: value for key, value in state.items() if key.startswith(below)}
                child._match(part, below, assign, metadata, keys, errors, hooks)
        hooks.extend((self, hook) for hook in self._load_state_dict_post_hooks.values())

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copies values into the parameters and buffers, in place, cast to their dtypes.

        Unlike PyTorch's, it copies everything or nothing: after an error the module is as it was (unless a post hook,
        which has to see the values, was to decide on the names).

        Args:
            state_dict: Tensors or ``ndarray`` values by the names of ``state_dict()``.
            strict: whether the names must be exactly those.
            assign: make the values themselves the parameters and buffers, with their dtypes, instead of copying them.
                Whether a gradient is required stays.

        Returns:
            The names that were missing and those that were unexpected, both empty when ``strict``.

        Raises:
            TypeError: ``state_dict`` is not a mapping.
            RuntimeError: names or shapes do not fit; the message lists them all.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None) or {}
        errors = _Errors()
        keys = _IncompatibleKeys([], [])
        hooks: list[tuple[StatefulModule, Callable[..., Any]]] = []
        self._match(OrderedDict(state_dict), "", assign, metadata, keys, errors, hooks)
        if errors or not hooks:
            self._raise_if_incompatible(keys, errors, strict)
        for change in errors.changes:
            change()
        for module, hook in hooks:
            if hook(module, keys) is not None:
                raise RuntimeError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new "
                    "values, if incompatible_keys need to be modified, it should be done inplace."
                )
        self._raise_if_incompatible(keys, errors, strict)
        return keys

    def _raise_if_incompatible(self, keys: _IncompatibleKeys, errors: list[str], strict: bool) -> None:
        messages = list(errors)
        for kind, names in (("Unexpected", keys.unexpected_keys), ("Missing", keys.missing_keys)):
            if strict and names:
                messages.insert(0, f"{kind} key(s) in state_dict: " + ", ".join(f'"{name}"' for name in names) + ". ")
        if messages:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(messages))


def _copy(target: Tensor, value: Tensor) -> Callable[[], Any]:
    def change() -> None:
        with no_grad():
            target.copy_(value)

    return change


def _assignment(module: StatefulModule, name: str, value: Tensor) -> Callable[[], Any]:
    target = module._parameters.get(name)
    if target is not None:
        if isinstance(value, Parameter):
            value.requires_grad_(target.requires_grad)
        else:
            value = Parameter(value, target.requires_grad)
    return lambda: setattr(module, name, value)


def _loadable(key: str, value: Any, target: Tensor, errors: list[str]) -> Tensor | None:
    """``value`` as a tensor that can be copied into ``target``, or None after noting in ``errors`` why not."""
    if isinstance(value, np.generic):  # what NumPy's arithmetic makes of 0-d arrays
        value = np.asarray(value)
    if not isinstance(value, (Tensor, np.ndarray)) or value.dtype.kind not in "biuf":
        what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else str(type(value))
        errors.append(
            f'While copying the parameter named "{key}", expected a Tensor or an array of numbers from checkpoint but '
            f"received {what}"
        )
        return None
    array = value._data if isinstance(value, Tensor) else value
    if target.ndim == 0 and array.shape == (1,):
        array = array.reshape(())  # PyTorch before 0.4 had no 0-d tensors
    if array.shape != tuple(target.shape):
        errors.append(
            f"size mismatch for {key}: copying a param with shape {Size(array.shape)} from checkpoint, the shape in "
            f"current model is {target.shape}."
        )
        return None
    return value if isinstance(value, Tensor) and array is value._data else Tensor(array)
