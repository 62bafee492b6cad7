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
        ValueError: a name is given twice.
        RuntimeError: with ``strict``, names are missing or unknown.
        AttributeError: an unknown name.
    """
    given: dict[str, Tensor] = {}
    several = [parameter_and_buffer_dicts] if isinstance(parameter_and_buffer_dicts, Mapping) else (
        parameter_and_buffer_dicts
    )  # fmt: skip
    for part in several:
        for name, tensor in part.items():
            if name in given:
                raise ValueError(f"{name} appears in several of the dictionaries; behavior would be ambiguous")
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
    if unknown := [name for name in given if name not in own]:
        error = RuntimeError if strict else AttributeError
        raise error(f"Unexpected key(s): {', '.join(unknown)}. The module has {', '.join(own)}.")
    wanted = dict(given)
    if tie_weights:
        tied: dict[int, Tensor] = {}
        for name, tensor in given.items():
            table, key = own[name]
            tied[id(table[key])] = tensor
        for name, (table, key) in own.items():
            if table[key] is not None and name not in wanted and id(table[key]) in tied:
                wanted[name] = tied[id(table[key])]
    if strict and (
        missing := [name for name, (table, key) in own.items() if name not in wanted and table[key] is not None]
    ):
        raise RuntimeError(f"Missing key(s): {', '.join(missing)}.")
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
