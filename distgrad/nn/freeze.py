"""Freezing: a part of a model that neither learns nor moves, whatever mode the rest is in.

``requires_grad_(False)`` alone keeps PyTorch's meaning: no gradients, but BatchNorm goes on moving its running
statistics under ``train()``, and Dropout goes on dropping. ``freeze`` stops these too.
"""

from __future__ import annotations

from typing import TypeVar

from .module import Module

M = TypeVar("M", bound=Module)


def freeze(module: M) -> M:
    """Freezes ``module`` and everything below it, and returns it.

    No parameter requires a gradient, and every module stays in evaluation mode, also under a later ``train()`` of it
    or of a model around it. The mark is each module's own: a layer that is put in afterwards (``model.fc =
    nn.Linear(512, 10)``) is not frozen, and one that is moved elsewhere stays so.

    Example::

        nn.freeze(model)
        model.fc = nn.Linear(512, 10)  # or nn.unfreeze(model.fc)
        model.train()                  # only fc is in training mode
    """
    module.requires_grad_(False)
    for part in module.modules():
        part._frozen = True
    module.eval()
    return module


def unfreeze(module: M) -> M:
    """Takes back ``freeze`` for ``module`` and everything below it, and returns it.

    All its parameters require a gradient. The mode stays evaluation until the next ``train()``.
    """
    module.requires_grad_(True)
    for part in module.modules():
        part._frozen = False
    return module


def is_frozen(module: Module) -> bool:
    """Whether ``freeze`` holds ``module`` and everything below it, and none of its parameters requires a gradient."""
    return all(part._frozen for part in module.modules()) and not any(
        parameter.requires_grad for parameter in module.parameters()
    )
