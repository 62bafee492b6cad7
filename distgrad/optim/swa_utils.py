"""Averaged models and stochastic weight averaging, as ``torch.optim.swa_utils``.

Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad
from ..nn import Module
from ..nn.batchnorm import _BatchNorm
from ..registry import no_attribute
from .ema import Averager, check_decay, copy_into
from .lr_scheduler import LRScheduler
from .lr_scheduler.base import one_each
from .optimizer import Optimizer

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
MultiAverage = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """A function that moves lists of averages in place: ``average = decay * average + (1 - decay) * value``.

    Raises:
        ValueError: a decay outside [0, 1].
    """
    check_decay(decay)
    averager = Averager()

    def update(averages: Sequence[Tensor], values: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        averager.move(averages, values, 1.0 - decay)

    return update


def get_swa_multi_avg_fn() -> MultiAverage:
    """A function that moves lists of averages in place: the mean of all values so far, ``num_averaged`` before."""
    averager = Averager()

    def update(averages: Sequence[Tensor], values: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        averager.move(averages, values, 1.0 / (int(num_averaged) + 1))

    return update


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """A function that computes ``decay * average + (1 - decay) * value`` of one pair of tensors.

    Raises:
        ValueError: a decay outside [0, 1].
    """
    check_decay(decay)

    def update(average: Tensor, value: Tensor, num_averaged: Tensor | int) -> Tensor:
        with no_grad():
            return average * decay + value * (1 - decay)

    return update


def get_swa_avg_fn() -> Average:
    """A function that computes the mean of ``num_averaged`` values, whose mean is the first tensor, and one more."""

    def update(average: Tensor, value: Tensor, num_averaged: Tensor | int) -> Tensor:
        with no_grad():
            return average + (value - average) / (int(num_averaged) + 1)

    return update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's over the course of training.

    The average is the mean of all updates (SWA) unless a function says otherwise::

        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
        for images, labels in loader:
            ...
            optimizer.step()
            ema.update_parameters(model)
        ema(images)

    Args:
        model: copied, with its mode, into ``module``.
        device: None or "cpu", the only one there is.
        avg_fn: the new average from the average, the model's value, and the number of updates before, all tensors.
        multi_avg_fn: the same in place, for lists of tensors of one dtype.
        use_buffers: whether buffers (running statistics) are averaged like parameters. Otherwise they are taken over at
            each update; for the mean of all updates, ``update_bn`` computes them anew.

    ``n_averaged``, a buffer, counts the updates; the first takes over the model's values.

    Raises:
        ValueError: both functions, or another device.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("Only one of avg_fn and multi_avg_fn should be provided")
        _check_device(device)
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", Tensor(np.zeros((), np.int64)))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn if multi_avg_fn or avg_fn else get_swa_multi_avg_fn()
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model computes."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Takes the present values of ``model`` into the average; call it after the optimizer's step."""
        averages, values = (
            [tensor.detach() for tensor in chain(module.parameters(), module.buffers() if self.use_buffers else ())]
            for module in (self.module, model)
        )
        if self.n_averaged.item() == 0:
            copy_into(averages, values)
        elif self.avg_fn is not None:
            updated = [
                self.avg_fn(average, value, self.n_averaged) for average, value in zip(averages, values, strict=True)
            ]
            for average, value in zip(averages, updated, strict=True):
                np.copyto(average._data, value._data, casting="unsafe")  # also into counters
                average._changed()
        elif self.multi_avg_fn is not None:
            for dtype in dict.fromkeys(average.dtype for average in averages):
                chosen = [index for index, average in enumerate(averages) if average.dtype == dtype]
                self.multi_avg_fn([averages[i] for i in chosen], [values[i] for i in chosen], self.n_averaged)
        if not self.use_buffers:
            copy_into(list(self.module.buffers()), list(model.buffers()))
        self.n_averaged.add_(1)


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Computes the running statistics of a model's batch normalizations anew, as means over all batches of ``loader``.

    Frozen layers (``nn.freeze``) keep theirs. The model's mode is put back at the end.

    Args:
        loader: batches that the model takes, or tuples or lists that begin with one.
        model: run once over the batches in training mode, without recording.
        device: None or "cpu", the only one there is.

    Raises:
        ValueError: another device.
    """
    _check_device(device)
    was_training = model.training
    model.train()
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
        if layers:
            with no_grad():
                for batch in loader:
                    model(batch[0] if isinstance(batch, list | tuple) else batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.train(was_training)


class SWALR(LRScheduler):
    """The rate goes from where it is to ``swa_lr`` in ``anneal_epochs`` epochs, and stays there.

    Args:
        optimizer: as in ``LRScheduler``.
        swa_lr: the rate to end at, one for all groups or a list; each group keeps its own as ``swa_lr``.
        anneal_epochs: epochs on the way, 0 to be there at once.
        anneal_strategy: "cos" or "linear".
        last_epoch: as in ``LRScheduler``.

    Raises:
        ValueError: an unknown strategy, negative ``anneal_epochs``, or a list of another length than there are groups.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        for rate, group in zip(one_each("swa_lr", optimizer, swa_lr), optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        self._step_count = 0  # as PyTorch's: steps taken since the schedule was made, that of the constructor included
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: int | None = None) -> None:
        """As ``LRScheduler.step``."""
        self._step_count += 1
        super().step(epoch)

    def get_lr(self) -> list[float]:
        """The present rates, on their way to ``swa_lr`` by one epoch."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, after = self._done(step - 1), self._done(step)
        rates = []
        for group, rate in zip(self.optimizer.param_groups, self._rates(), strict=True):
            end = group["swa_lr"]
            start = end if before == 1 else (rate - before * end) / (1 - before)
            rates.append(end * after + start * (1 - after))
        return rates

    def _done(self, step: int) -> float:
        """Which part of the way to ``swa_lr`` is behind after ``step`` steps."""
        part = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return part if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * part)) / 2


def _check_device(device: Any) -> None:
    if device is not None and str(device) != "cpu":
        raise ValueError(f"device is {device!r}, but there is only 'cpu'")


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.optim.swa_utils'", name, __all__)
