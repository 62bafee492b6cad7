"""Averaged stochastic gradient descent: small steps whose average is the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule
from .optimizer import Params


class ASGD(Blockwise):
    """Gradient descent with a falling rate, and the average of its parameters, as ``torch.optim.ASGD`` defines it.

    For a parameter ``p`` with gradient ``g``, at its step ``t`` (the first is 1), where ``eta`` starts at ``lr`` and
    ``mu`` at 1::

        d = -g if maximize else g
        d = d + weight_decay * p
        p = (1 - lambd * eta) * p - eta * d
        a = a + mu * (p - a)
        eta = lr / (1 + lambd * lr * t)^alpha
        mu = 1 / max(1, t - t0)

    The average is not put into the parameter: it is ``state[parameter]["ax"]``.

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        lambd: how fast parameters and rate fall.
        alpha: power of the rate's fall.
        t0: step from which on there is averaging; before, ``ax`` is the parameter.
        weight_decay: strength of the L2 penalty, at least 0.
        maximize: ascends instead of descending.
        foreach, differentiable, capturable: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step``, ``eta`` and ``mu``, all 0-d, and ``ax`` (a), a tensor of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992).
    """

    parameter_shaped = ("ax",)
    scalar_state = ("step", "eta", "mu")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        lr, lambd = float(group["lr"]), float(group["lambd"])
        step = self.count_step(param)
        rates = self.number(param, "eta", lr), self.number(param, "mu", 1.0)
        eta, mu = (float(rate._data) for rate in rates)
        following = lr / (1.0 + lambd * lr * step) ** float(group["alpha"]), 1.0 / max(1.0, step - float(group["t0"]))
        for rate, value in zip(rates, following, strict=True):
            rate._data[...] = value
            rate._changed()

        def update(p: Array, d: Array, a: Array, x: Array, y: Array) -> None:
            np.multiply(p, 1.0 - lambd * eta, out=p)
            np.subtract(p, np.multiply(d, eta, out=x), out=p)
            if mu == 1.0:
                np.copyto(a, p)
            else:
                np.multiply(np.subtract(p, a, out=x), mu, out=x)
                np.add(a, x, out=a)

        return update, (self.buffer(param, "ax"),)
