"""Adadelta: step sizes from the ratio of past steps to past gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule, decay_and_add_square
from .optimizer import Params


class Adadelta(Blockwise):
    """Adadelta, as ``torch.optim.Adadelta`` defines it.

    For a parameter ``p`` with gradient ``g``::

        d = -g if maximize else g
        d = d + weight_decay * p
        v = rho * v + (1 - rho) * d^2
        s = sqrt(u + eps) / sqrt(v + eps) * d
        u = rho * u + (1 - rho) * s^2
        p = p - lr * s

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: factor of the steps, at least 0; a number or a tensor of one element.
        rho: how much of the averages of squares is kept a step, in [0, 1].
        eps: added under the roots, at least 0.
        weight_decay: strength of the L2 penalty, at least 0.
        maximize: ascends instead of descending.
        foreach, capturable, differentiable: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step`` (0-d), ``square_avg`` (v) and ``acc_delta`` (u), tensors of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Source: Zeiler, "ADADELTA: An Adaptive Learning Rate Method" (2012).
    """

    parameter_shaped = ("square_avg", "acc_delta")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        lr, rho, eps = (float(group[key]) for key in ("lr", "rho", "eps"))
        self.count_step(param)

        def update(p: Array, d: Array, v: Array, u: Array, x: Array, y: Array) -> None:
            decay_and_add_square(v, d, rho, x)
            np.sqrt(np.add(v, eps, out=x), out=x)
            np.sqrt(np.add(u, eps, out=y), out=y)
            np.divide(y, x, out=y)
            np.multiply(y, d, out=y)
            decay_and_add_square(u, y, rho, x)
            np.subtract(p, np.multiply(y, lr, out=y), out=p)

        return update, (self.buffer(param, "square_avg"), self.buffer(param, "acc_delta"))
