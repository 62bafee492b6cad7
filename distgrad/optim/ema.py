"""Averages of parameters over the course of training, whose noise is smaller than that of the last values."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..nn import Module
from .blockwise import Blocks, lerp


class Averager:
    """Moves tensors towards others in place, piece by piece, without a temporary of a tensor's size."""

    def __init__(self) -> None:
        self._blocks = Blocks(1)

    def move(self, averages: Sequence[Tensor], values: Sequence[Tensor], weight: float) -> None:
        """``average = average + weight * (value - average)`` for each pair; integers are rounded towards zero."""
        for average, value in zip(averages, values, strict=True):
            target, end = average._data, value._data
            if target.dtype.kind == "f":
                for piece, towards, scratch in self._blocks.over(target, end):
                    lerp(piece, towards, weight, scratch)
            else:
                np.copyto(target, target * (1.0 - weight) + end * weight, casting="unsafe")
            average._changed()


def copy_into(targets: Sequence[Tensor], values: Sequence[Any]) -> None:
    """Overwrites the tensors with tensors or arrays of their shapes, outside of any graph."""
    for target, value in zip(targets, values, strict=True):
        np.copyto(target._data, value._data if isinstance(value, Tensor) else value, casting="same_kind")
        target._changed()


def check_decay(decay: float) -> None:
    """Refuses a decay outside [0, 1], nan included."""
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


class ExponentialMovingAverage:
    """A running average of parameters: ``average = decay * average + (1 - decay) * value`` at each ``update()``.

    It starts from the values that the parameters have. Evaluate with the averages in the model's place::

        average = ExponentialMovingAverage(model, decay=0.999)
        for images, labels in loader:
            ...
            optimizer.step()
            average.update()
        with average.average_parameters():
            evaluate(model)

    Args:
        parameters: a module, or parameters in an order that does not change. Further down, ``parameters`` means such a
            thing too, and without it these.
        decay: how much of the average is kept an update, between 0 and 1.
        use_num_updates: at the n-th update, keep at most ``(1 + n) / (10 + n)``, so that the first values, which are
            far from good, are soon forgotten.
        use_buffers: of a module, average its floating-point buffers (running statistics) as well and take over its
            integer ones. Otherwise its buffers stay its own, whatever is done here.

    ``AveragedModel`` with ``get_ema_multi_avg_fn`` computes the same, except that its first update takes over the
    values; it keeps the averages in a copy of the model, this in tensors beside it.

    Raises:
        ValueError: a decay outside [0, 1], no parameters, or ``use_buffers`` without a module.
    """

    def __init__(
        self,
        parameters: Module | Iterable[Tensor],
        decay: float = 0.999,
        use_num_updates: bool = False,
        use_buffers: bool = False,
    ) -> None:
        check_decay(decay)
        if use_buffers and not isinstance(parameters, Module):
            raise ValueError("use_buffers=True needs a module: of parameters alone, there are no buffers")
        self.decay = decay
        self.use_num_updates = use_num_updates
        self.use_buffers = use_buffers
        self.num_updates = 0
        self._parameters = parameters if isinstance(parameters, Module) else list(parameters)
        live = self._tensors(None)
        if not live:
            raise ValueError("ExponentialMovingAverage got no parameters")
        self.shadow_params = [Tensor(tensor._data.copy()) for tensor in live]
        self.collected_params: list[Tensor] | None = None
        self._averager = Averager()

    def update(self, parameters: Module | Iterable[Tensor] | None = None) -> None:
        """Takes the present values into the average; call it after the optimizer's step."""
        live = self._tensors(parameters)
        self.num_updates += 1
        decay = self.decay
        if self.use_num_updates:
            decay = min(decay, (1 + self.num_updates) / (10 + self.num_updates))
        averaged = [index for index, tensor in enumerate(live) if tensor.is_floating_point()]
        counted = [index for index, tensor in enumerate(live) if not tensor.is_floating_point()]
        self._averager.move([self.shadow_params[i] for i in averaged], [live[i] for i in averaged], 1.0 - decay)
        copy_into([self.shadow_params[i] for i in counted], [live[i] for i in counted])

    def copy_to(self, parameters: Module | Iterable[Tensor] | None = None) -> None:
        """Overwrites the parameters with their averages."""
        copy_into(self._tensors(parameters), self.shadow_params)

    def store(self, parameters: Module | Iterable[Tensor] | None = None) -> None:
        """Keeps a copy of the parameters for ``restore``."""
        self.collected_params = [Tensor(tensor._data.copy()) for tensor in self._tensors(parameters)]

    def restore(self, parameters: Module | Iterable[Tensor] | None = None) -> None:
        """Puts back what ``store`` kept, and forgets it.

        Raises:
            RuntimeError: nothing is stored.
        """
        if self.collected_params is None:
            raise RuntimeError("ExponentialMovingAverage has no stored parameters to restore: call store() first")
        copy_into(self._tensors(parameters), self.collected_params)
        self.collected_params = None

    @contextmanager
    def average_parameters(self, parameters: Module | Iterable[Tensor] | None = None) -> Iterator[None]:
        """A context in which the parameters have their averages as values; what they had comes back at its end."""
        tensors = self._tensors(parameters)
        before = [tensor._data.copy() for tensor in tensors]
        copy_into(tensors, self.shadow_params)
        try:
            yield
        finally:
            copy_into(tensors, before)

    def state_dict(self) -> dict[str, Any]:
        """``decay``, ``num_updates`` and, in their order, the averages (``shadow_params``), the live tensors."""
        return {"decay": self.decay, "num_updates": self.num_updates, "shadow_params": list(self.shadow_params)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave; its tensors may have become arrays on their way through a file.

        Raises:
            ValueError: keys that are missing, or averages of other shapes. Nothing is changed.
        """
        missing = [key for key in ("decay", "num_updates", "shadow_params") if key not in state_dict]
        if missing:
            raise ValueError(f"the loaded state dict is not one of ExponentialMovingAverage: it lacks {missing}")
        check_decay(state_dict["decay"])
        shadows = state_dict["shadow_params"]
        self._check(shadows, "the loaded state dict")
        self.decay = copy.deepcopy(state_dict["decay"])
        self.num_updates = int(state_dict["num_updates"])
        copy_into(self.shadow_params, shadows)

    def _tensors(self, parameters: Module | Iterable[Tensor] | None) -> list[Tensor]:
        given = self._parameters if parameters is None else parameters
        if isinstance(given, Module):
            tensors: list[Tensor] = list(given.parameters())
            if self.use_buffers:
                tensors += given.buffers()
        else:
            tensors = list(given)
        if hasattr(self, "shadow_params"):
            self._check(tensors, "what was given")
        return tensors

    def _check(self, tensors: Sequence[Any], what: str) -> None:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        expected = [tuple(shadow.shape) for shadow in self.shadow_params]
        if shapes == expected:
            return
        if len(shapes) != len(expected):
            raise ValueError(f"{what} has {len(shapes)} tensors, the averages are {len(expected)}")
        index = next(i for i, pair in enumerate(zip(shapes, expected, strict=True)) if pair[0] != pair[1])
        raise ValueError(
            f"{what} has the shape {list(shapes[index])} at index {index}, the average there {list(expected[index])}"
        )
