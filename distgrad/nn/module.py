"""``Module``: a tree of layers that knows its parameters, its buffers and its mode.

What an attribute is decides where it goes: a ``Parameter`` into ``_parameters``, a ``Module`` into ``_modules``, a
registered tensor into ``_buffers``, all else into the instance's dictionary. Everything else here walks those tables.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from ..autograd import Size, Tensor, no_grad
from ..autograd.tensor import Handle
from ..ops import elementwise
from ..registry import nearest
from .parameter import Parameter

T = TypeVar("T")
PreHook = Callable[["Module", tuple[Any, ...]], Any]
ForwardHook = Callable[["Module", tuple[Any, ...], Any], Any]


class _IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns: the names that were not found and those that had no place."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys!r}, unexpected_keys={self.unexpected_keys!r})"


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _indented(text: str) -> str:
    """All lines but the first, two columns to the right."""
    return text.replace("\n", "\n  ")


class Module:
    """The base of all layers and models, with the meaning of ``torch.nn.Module``.

    A subclass calls ``super().__init__()``, assigns its layers and parameters to attributes, and defines ``forward``.
    """

    training: bool
    _version: int = 1  # of what state_dict holds; raised when a layer's entries change
    _frozen: bool = False  # set by nn.freeze: stays in evaluation mode under train()
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]

    def __init__(self) -> None:
        # past __setattr__, which needs the tables to be there
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _non_persistent_buffers_set=set(),
            _modules={},
            _forward_pre_hooks={},
            _forward_hooks={},
        )

    # Computing -------------------------------------------------------------------------------------------------------

    def _forward_unimplemented(self, *input: Any) -> Any:
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    forward: Callable[..., Any] = _forward_unimplemented

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs ``forward`` between the hooks."""
        for pre_hook in tuple(self._forward_pre_hooks.values()):
            changed = pre_hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        output = self.forward(*args, **kwargs)
        for hook in tuple(self._forward_hooks.values()):
            changed = hook(self, args, output)
            if changed is not None:
                output = changed
        return output

    def register_forward_pre_hook(self, hook: PreHook) -> Handle:
        """Calls ``hook(module, args)`` before every ``forward``; what it returns, unless None, replaces ``args``."""
        return Handle.add(self._forward_pre_hooks, hook)

    def register_forward_hook(self, hook: ForwardHook) -> Handle:
        """Calls ``hook(module, args, output)`` after every ``forward``; unless None, its result replaces the output."""
        return Handle.add(self._forward_hooks, hook)

    # Attributes ------------------------------------------------------------------------------------------------------

    def _check_new_name(self, kind: str, name: str, table: str) -> None:
        if table not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {_type_name(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in self.__dict__[table] and self._has(name):
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter; None keeps the name for one and counts for nothing.

        Raises:
            KeyError: the name is empty, has a dot or is taken.
            TypeError: ``param`` is not a Parameter.
            ValueError: ``param`` has a history: a parameter is given, not computed.
        """
        self._check_new_name("parameter", name, "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_type_name(param)}' object to parameter '{name}' (nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly. To "
                f"express '{name}' as a function of another Tensor, compute the value in the forward() method."
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is part of the module's state but not trained, such as running statistics.

        Args:
            name: the attribute.
            tensor: its value; None keeps the name for one and counts for nothing.
            persistent: whether it is part of ``state_dict``.

        Raises:
            KeyError: the name is empty, has a dot or is taken.
            TypeError: ``tensor`` is not a Tensor.
        """
        self._check_new_name("buffer", name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{_type_name(tensor)}' object to buffer '{name}' (Tensor or None required)")
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a child; None keeps the name for one.

        Raises:
            KeyError: the name is empty, has a dot or is taken.
            TypeError: ``module`` is not a Module.
        """
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_type_name(module)} is not a Module subclass")
        self._check_new_name("module", name, "_modules")
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as ``add_module``."""
        self.add_module(name, module)

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            # .get: deepcopy asks for attributes before there is a table
            if name in (entries := self.__dict__.get(table, {})):
                return entries[name]
        message = f"'{type(self).__name__}' object has no attribute '{name}'"
        if not name.startswith("_"):
            hint = nearest(name, [key for key in dir(self) if not key.startswith("_")])
            message += f".{hint}" if hint else ""
        # with a name of its own, so that the interpreter does not add the same hint again
        raise AttributeError(message, name=name)

    def _has(self, name: str) -> bool:
        """As ``hasattr``, but without composing the error message first."""
        tables = ("_parameters", "_buffers", "_modules")
        return (
            name in self.__dict__
            or any(name in self.__dict__.get(table, ()) for table in tables)
            or hasattr(type(self), name)
        )

    def _forget(self, name: str, *tables: str) -> None:
        for table in tables:
            self.__dict__[table].pop(name, None)
        if "_buffers" in tables:
            self._non_persistent_buffers_set.discard(name)
        self.__dict__.pop(name, None)

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if isinstance(value, Parameter):
            if "_parameters" not in tables:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, "_buffers", "_modules")
            self.register_parameter(name, value)
        elif name in tables.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_type_name(value)}' as parameter '{name}' (nn.Parameter or None expected)"
                )
            self.register_parameter(name, None)
        elif isinstance(value, Module):
            if "_modules" not in tables:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._forget(name, "_parameters", "_buffers")
            self._modules[name] = value
        elif name in tables.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_type_name(value)}' as child module '{name}' (nn.Module or None expected)"
                )
            self._modules[name] = None
        elif name in tables.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"cannot assign '{_type_name(value)}' as buffer '{name}' (Tensor or None expected)")
            self._buffers[name] = value
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                self._non_persistent_buffers_set.discard(name)
                return
        super().__delattr__(name)

    def __dir__(self) -> list[str]:
        names = [*dir(type(self)), *self.__dict__]
        for table in ("_parameters", "_buffers", "_modules"):
            names += self.__dict__.get(table, ())
        return sorted(name for name in names if not name[0].isdigit())

    # Walking the tree ------------------------------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """The module itself (named ``prefix``) and all below it, parents first.

        Args:
            memo: modules that have been seen and are left out.
            prefix: of all names.
            remove_duplicate: give a module that is in the tree several times once, under its first name.
        """
        seen = set() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(seen, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """The module itself and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules directly below this one, each once."""
        for _, module in self.named_children():
            yield module

    def _named_members(
        self,
        members: Callable[[Module], Mapping[str, T | None]],
        prefix: str,
        recurse: bool,
        remove_duplicate: bool,
    ) -> Iterator[tuple[str, T]]:
        # by identity: == of tensors compares elements
        seen: set[int] = set()
        modules = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
        for module_prefix, module in modules:
            for name, member in members(module).items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield f"{module_prefix}.{name}" if module_prefix else name, member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters of this module and, with ``recurse``, of all below it, by dotted name.

        Args:
            prefix: of all names.
            recurse: whether to go below this module.
            remove_duplicate: give a parameter that is shared once, under its first name.
        """
        yield from self._named_members(lambda module: module._parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of this module and, with ``recurse``, of all below it, each once: what an optimizer takes."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers of this module and, with ``recurse``, of all below it, by dotted name."""
        yield from self._named_members(lambda module: module._buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of this module and, with ``recurse``, of all below it, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name, ``"layer1.0.conv1"``; this module for an empty one.

        Raises:
            AttributeError: there is no such attribute, or it is not a module.
        """
        module = self
        for name in target.split(".") if target else ():
            if not module._has(name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a dotted name, ``"layer1.0.conv1.weight"``.

        Raises:
            AttributeError: there is no such attribute, or it is not a parameter.
        """
        owner, name = self._owner(target)
        if name not in owner._parameters:
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        found: Parameter = getattr(owner, name)
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of a dotted name, ``"layer1.0.bn1.running_mean"``.

        Raises:
            AttributeError: there is no such attribute, or it is not a buffer.
        """
        owner, name = self._owner(target)
        if name not in owner._buffers:
            raise AttributeError(f"`{name}` is not a buffer")
        found: Tensor = getattr(owner, name)
        return found

    def _owner(self, target: str) -> tuple[Module, str]:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if not owner._has(name):
            raise AttributeError(f"{type(owner).__name__} has no attribute `{name}`")
        return owner, name

    def apply(self, fn: Callable[[Module], None]) -> Self:
        """Calls ``fn`` with every module of the tree, children first and this module last, and returns this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # Mode and gradients ----------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Sets training (or, with False, evaluation) mode on the whole tree, except where ``nn.freeze`` holds it.

        Raises:
            ValueError: ``mode`` is not a bool.
        """
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode and not self._frozen
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Sets evaluation mode on the whole tree: running statistics are used and not changed, nothing is dropped."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Sets ``requires_grad`` of all parameters. BatchNorm still moves its statistics in training: ``nn.freeze``."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of all parameters: to None, or to zeros where there was one."""
        for parameter in self.parameters():
            if parameter.grad is None:
                continue
            if set_to_none:
                parameter.grad = None
            else:
                # of its own memory: a gradient that was recorded, or is held elsewhere, keeps its values
                parameter.grad = Tensor(np.zeros_like(parameter.grad._data))

    # The dtype -------------------------------------------------------------------------------------------------------

    def _apply(self, convert: Callable[[Tensor], Tensor]) -> Self:
        """Replaces the values of all parameters, their gradients and the buffers; the objects stay."""
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.data = convert(tensor.data)
            if tensor.grad is not None:
                tensor.grad.data = convert(tensor.grad.data)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Casts floating-point parameters and buffers: ``to(float64)``, ``to(dtype=…)``, ``to(tensor)``, ``to("cpu")``.

        Raises:
            TypeError: the dtype is not floating point.
            RuntimeError: a device other than "cpu".
        """
        dtype = elementwise.to(Tensor(np.empty(0, np.float32)), *args, **kwargs).dtype  # reads and checks the arguments
        if dtype.kind != "f":
            raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype}")
        return self._apply(
            lambda tensor: elementwise.to(tensor, *args, **kwargs) if tensor.dtype.kind == "f" else tensor
        )

    def float(self) -> Self:
        """Casts all floating-point parameters and buffers to float32."""
        return self.to(np.dtype(np.float32))

    def double(self) -> Self:
        """Casts all floating-point parameters and buffers to float64."""
        return self.to(np.dtype(np.float64))

    def half(self) -> Self:
        """Casts all floating-point parameters and buffers to float16."""
        return self.to(np.dtype(np.float16))

    # The state -------------------------------------------------------------------------------------------------------

    def _persistent(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors of this module alone that are part of its state, parameters first."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield name, parameter
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                yield name, buffer

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
        if hasattr(state, "_metadata"):
            state._metadata[prefix[:-1]] = {"version": self._version}
        for name, tensor in self._persistent():
            state[prefix + name] = tensor if keep_vars else tensor.detach()
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        found: dict[str, Any] = state
        return found

    def _complete_state_dict(self, state: dict[str, Any], prefix: str, version: int | None) -> None:
        """Adds to ``state`` what a layer of an older ``_version`` did not have. ``version`` is None if not recorded."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> _IncompatibleKeys:
        """Copies values into the parameters and buffers, in place, cast to their dtypes.

        Unlike PyTorch's, it copies everything or nothing: after an error the module is as it was.

        Args:
            state_dict: Tensors or ``ndarray`` values by the names of ``state_dict()``.
            strict: whether the names must be exactly those.

        Returns:
            The names that were missing and those that were unexpected, both empty when ``strict``.

        Raises:
            TypeError: ``state_dict`` is not a mapping.
            RuntimeError: names or shapes do not fit; the message lists them all.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        versions = getattr(state_dict, "_metadata", None) or {}
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        copies: list[tuple[Tensor, Tensor]] = []

        def match(module: Module, state: dict[str, Any], prefix: str) -> None:
            module._complete_state_dict(state, prefix, versions.get(prefix[:-1], {}).get("version"))
            local = dict(module._persistent())
            for name, target in local.items():
                key = prefix + name
                if key not in state:
                    missing.append(key)
                    continue
                value = _loadable(key, state[key], target, errors)
                if value is not None:
                    copies.append((target, value))
            for key in state:
                head, dot, _ = key[len(prefix) :].partition(".")
                if head not in (module._modules if dot else local):
                    unexpected.append(key)
            for name, child in module._modules.items():
                if child is not None:
                    below = f"{prefix}{name}."
                    match(child, {key: value for key, value in state.items() if key.startswith(below)}, below)

        match(self, dict(state_dict), "")
        if strict:
            for kind, keys in (("Unexpected", unexpected), ("Missing", missing)):
                if keys:
                    errors.insert(0, f"{kind} key(s) in state_dict: " + ", ".join(f'"{key}"' for key in keys) + ". ")
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        with no_grad():
            for target, value in copies:
                target.copy_(value)
        return _IncompatibleKeys(missing, unexpected)

    # The text --------------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses of ``repr``; layers put their arguments here."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {_indented(repr(module))}" for name, module in self._modules.items()]
        if not children and "\n" not in extra:
            return f"{type(self).__name__}({extra})"
        lines = [*(extra.split("\n") if extra else ()), *children]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _loadable(key: str, value: Any, target: Tensor, errors: list[str]) -> Tensor | None:
    """``value`` as a tensor that can be copied into ``target``, or None after noting in ``errors`` why not."""
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
    return Tensor(array)
