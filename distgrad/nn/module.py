"""``Module``: a tree of layers that knows its parameters, its buffers and its mode.

What an attribute is decides where it goes: a ``Parameter`` into ``_parameters``, a ``Module`` into ``_modules``, a
``Buffer`` or registered tensor into ``_buffers``, all else into the instance's dictionary. Everything else here walks
those tables. How a module is called is in ``module_hooks``, what it saves and loads in ``module_state``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

import numpy as np

from ..autograd import Tensor
from ..ops import elementwise
from ..ops.arguments import check_device
from ..registry import nearest
from .module_hooks import HookedCalls
from .module_state import StatefulModule
from .parameter import Buffer, Parameter

T = TypeVar("T")


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _indented(text: str) -> str:
    """All lines but the first, two columns to the right."""
    return text.replace("\n", "\n  ")


# The tables that hooks are entered into.
_HOOK_TABLES = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Module(HookedCalls, StatefulModule):
    """The base of all layers and models, with the meaning of ``torch.nn.Module``.

    A subclass calls ``super().__init__()``, assigns its layers and parameters to attributes, and defines ``forward``.
    """

    training: bool
    _frozen: bool = False  # set by nn.freeze: stays in evaluation mode under train()
    _captures: bool = True  # whether forward only computes, so that its operations can be captured and run again

    def __init__(self) -> None:
        # past __setattr__, which needs the tables to be there
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _non_persistent_buffers_set=set(),
            _modules={},
            **{name: {} for name in _HOOK_TABLES},
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: {} for name in _HOOK_TABLES} | state)

    def _forward_unimplemented(self, *input: Any) -> Any:
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    forward: Callable[..., Any] = _forward_unimplemented

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
        own = self.__dict__
        parameters = own.get("_parameters")
        if parameters is not None and name in parameters:  # what is asked for most
            return parameters[name]
        for table in ("_parameters", "_modules", "_buffers"):
            # deepcopy asks for attributes before there is a table
            if table in own and name in own[table]:
                return own[table][name]
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
        elif isinstance(value, Buffer):
            if "_buffers" not in tables:
                raise AttributeError("cannot assign buffer before Module.__init__() call")
            self._forget(name, "_parameters", "_modules")
            self.register_buffer(name, value, value.persistent)
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

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts ``module`` in the place of a dotted name, ``"layer1.0.conv1"``.

        Args:
            target: the name. The module that holds it must exist.
            module: what to put there.
            strict: only in the place of a module that is there.

        Raises:
            ValueError: the name is empty, or ``module`` is not a Module.
            AttributeError: there is no such module (or no holder of it), or something else has the name.
        """
        path, _, name = target.rpartition(".")
        if not target:
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        parent = self.get_submodule(path)
        if strict and not parent._has(name):
            raise AttributeError(f"{type(parent).__name__} has no attribute `{name}`")
        if parent._has(name) and not isinstance(getattr(parent, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

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
        seen: set[Module] = set()
        modules: list[Module] = [self]
        while modules:
            module = modules.pop()
            if module in seen:
                continue
            seen.add(module)
            modules += [child for child in module._modules.values() if child is not None]
            for parameter in module._parameters.values():
                if parameter is None or parameter._grad is None:
                    continue
                # of its own memory: a gradient that was recorded, or is held elsewhere, keeps its values
                parameter._grad = None if set_to_none else Tensor(np.zeros_like(parameter._grad._data))

    # The dtype -------------------------------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replaces the values of all parameters, their gradients and the buffers by ``fn`` of them; the objects stay.

        Args:
            fn: gives a tensor for a tensor.
            recurse: whether to go below this module.
        """
        for module in self.children() if recurse else ():
            module._apply(fn)
        for tensor in (*self._parameters.values(), *self._buffers.values()):
            if tensor is not None:
                tensor.data = fn(tensor.data)
                if tensor.grad is not None:
                    tensor.grad.data = fn(tensor.grad.data)
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

    def type(self, dst_type: Any) -> Self:
        """Casts all parameters and buffers, also those of integers, to ``dst_type``."""
        return self._apply(lambda tensor: elementwise.to(tensor, np.dtype(dst_type)))

    def cpu(self) -> Self:
        """The module itself: it is there already."""
        return self.to("cpu")

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Gives all parameters and buffers new memory without values, on ``device``, which is "cpu"."""
        check_device(device)
        return self._apply(lambda tensor: Tensor(np.empty_like(tensor._data)), recurse)

    # The text --------------------------------------------------------------------------------------------------------

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of ``repr``; layers put their arguments here."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {_indented(repr(module))}" for name, module in self._modules.items()]
        if not children and "\n" not in extra:
            return f"{self._get_name()}({extra})"
        lines = [*(extra.split("\n") if extra else ()), *children]
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"
