"""Models by name, as torchvision offers them: what there is, its builder, its weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, TypeVar

from ..nn import Module
from ..registry import Registry
from .weights import WeightsEnum

Builder = Callable[..., Module]
B = TypeVar("B", bound=Builder)

MODELS: Registry[Builder] = Registry("model")
_weights: dict[Any, type[WeightsEnum]] = {}  # of each builder


def register_model(weights: type[WeightsEnum]) -> Callable[[B], B]:
    """Decorator that enters a builder into ``MODELS`` under its own name.

    Args:
        weights: what its argument ``weights`` takes.
    """

    def enter(builder: B) -> B:
        MODELS.register(builder.__name__)(builder)
        _weights[builder] = weights
        return builder

    return enter


def list_models(
    module: ModuleType | None = None,
    include: Iterable[str] | str | None = None,
    exclude: Iterable[str] | str | None = None,
) -> list[str]:
    """The names of the models, sorted.

    Args:
        module: only those of this package, such as ``distgrad.models``.
        include: only those that fit a pattern, or one of several: ``"resnet*"``.
        exclude: not those that fit a pattern, or one of several.
    """
    names = [name for name in MODELS if module is None or MODELS[name].__module__.rpartition(".")[0] == module.__name__]
    if include:
        names = [name for name in names if _fits(name, include)]
    if exclude:
        names = [name for name in names if not _fits(name, exclude)]
    return names


def _fits(name: str, patterns: Iterable[str] | str) -> bool:
    return any(
        fnmatch.fnmatchcase(name, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns)
    )


def get_model_builder(name: str) -> Builder:
    """The function that makes the model ``name``; capitals do not matter.

    Raises:
        ConfigError: there is no such model; the message lists those there are.
    """
    return MODELS[name.lower()]


def get_model(name: str, **config: Any) -> Module:
    """The model ``name``, made with the arguments ``config``: ``get_model("resnet50", weights="DEFAULT")``.

    Raises:
        ConfigError: there is no such model; the message lists those there are.
    """
    return get_model_builder(name)(**config)


def get_model_weights(name: Builder | str) -> type[WeightsEnum]:
    """The enum of a model's weights: ``get_model_weights("resnet50").DEFAULT``.

    Args:
        name: the model's name or its builder.

    Raises:
        ConfigError: there is no such model; the message lists those there are.
        ValueError: a function that does not make one of the models.
    """
    builder = get_model_builder(name) if isinstance(name, str) else name
    if builder not in _weights:
        raise ValueError(f"{builder!r} is none of the models' builders, so that no weights belong to it")
    return _weights[builder]
