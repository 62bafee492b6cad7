"""A module as a function of its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..autograd import Tensor
from ..nn import Module
from ..ops import stack


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Calls ``module`` with other parameters and buffers in place of its own, as ``torch.func.functional_call``.

    Args:
        module: left as it was.
        parameter_and_buffer_dicts: tensors by the names of ``named_parameters`` and ``named_buffers``; what is not
            named stays the module's own.
        args: the arguments, a tuple, or a single one.
        kwargs: keyword arguments.
        tie_weights: what is given for one name of a shared parameter holds for its other names too.
        strict: raise where a name is missing or unknown.

    Raises:
        ValueError: a name is given twice, or two names of one shared parameter; something else than dictionaries.
        RuntimeError: with ``strict``, names are missing or unknown.
        AttributeError: a name in a part that the module has not.
    """
    if not isinstance(parameter_and_buffer_dicts, (Mapping, list, tuple)):
        raise ValueError(
            "Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
            f"{type(parameter_and_buffer_dicts)}"
        )
    given: dict[str, Tensor] = {}
    several = [parameter_and_buffer_dicts] if isinstance(parameter_and_buffer_dicts, Mapping) else (
        parameter_and_buffer_dicts
    )  # fmt: skip
    for part in several:
        for name, tensor in part.items():
            if name in given:
                raise ValueError(
                    f"[{name!r}] appeared in multiple dictionaries; behavior of functional call is ambiguous"
                )
            given[name] = tensor
    arguments = () if args is None else args if isinstance(args, tuple) else (args,)
    with _swapped(module, given, tie_weights, strict):
        return module(*arguments, **(kwargs or {}))


@contextmanager
def _swapped(module: Module, given: Mapping[str, Tensor], tie_weights: bool, strict: bool) -> Iterator[None]:
    own: dict[str, tuple[dict[str, Any], str]] = {}  # where each name lives
    for prefix, part in module.named_modules(remove_duplicate=False):
        for table in (part.__dict__["_parameters"], part.__dict__["_buffers"]):
            for name in table:
                own[f"{prefix}.{name}" if prefix else name] = (table, name)
    parts = {prefix for prefix, _ in module.named_modules(remove_duplicate=False)}
    unknown = [name for name in given if name not in own]
    if not strict:  # as PyTorch: a name that no parameter has is set on a part of the module, to no effect
        for name in unknown:
            if name in parts:
                raise TypeError(f"attribute `{name}` is a module, not a tensor")
            if name.rpartition(".")[0] not in parts:
                raise AttributeError(f"{type(module).__name__} has no attribute `{name.partition('.')[0]}`")
    given = {name: tensor for name, tensor in given.items() if name in own}
    wanted = dict(given)
    if tie_weights:
        tied: dict[int, Tensor] = {}
        names: dict[int, str] = {}
        for name, tensor in given.items():
            table, key = own[name]
            if id(table[key]) in names and table[key] is not None:
                raise ValueError(
                    f"functional_call got multiple values for keys {sorted([names[id(table[key])], name])}, which are "
                    "tied. Consider using tie_weights=False"
                )
            names[id(table[key])] = name
            tied[id(table[key])] = tensor
        for name, (table, key) in own.items():
            if table[key] is not None and name not in wanted and id(table[key]) in tied:
                wanted[name] = tied[id(table[key])]
    missing = [name for name, (table, key) in own.items() if name not in wanted and table[key] is not None]
    if strict and (unknown or missing):
        problems = [
            f"{what} key(s): {', '.join(map(repr, keys))}."
            for what, keys in (("Unexpected", unknown), ("Missing", missing))
            if keys
        ]
        raise RuntimeError(f"Error(s) in reparametrizing for {type(module).__name__}: {' '.join(problems)}")
    before = [(own[name], own[name][0][own[name][1]]) for name in wanted]
    try:
        for name, tensor in wanted.items():
            table, key = own[name]
            table[key] = tensor
        yield
    finally:
        for (table, key), value in before:
            table[key] = value


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters and the buffers of models of one architecture, each stacked along a new first dimension.

    For ``vmap`` over an ensemble. The stacked parameters are leaves that require a gradient where the models' do.
    """
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({type(model) for model in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    if len({model.training for model in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")

    def stacked(named: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        out = {}
        for name, first in named[0].items():
            tensor = stack([other[name].detach() for other in named])
            out[name] = tensor.requires_grad_(first.requires_grad)
        return out

    return stacked([dict(m.named_parameters()) for m in models]), stacked([dict(m.named_buffers()) for m in models])
