"""Adamax: Adam with the largest recent gradient in place of the average of squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule, lerp
from .optimizer import Params


class Adamax(Blockwise):
    """Adam in the infinity norm, as ``torch.optim.Adamax`` defines it.

    For a parameter ``p`` with gradient ``g``, at its step ``t`` (the first is 1)::

        d = -g if maximize else g
        d = d + weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        u = max(beta2 * u, |d| + eps)
        p = p - lr / (1 - beta1^t) * m / u

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        betas: how much of the average gradient and of the largest one is kept a step, in [0, 1).
        eps: added to the gradient's magnitude, at least 0.
        weight_decay: strength of the L2 penalty, at least 0.
        maximize: ascends instead of descending.
        foreach, differentiable, capturable: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step`` (0-d), ``exp_avg`` (m) and ``exp_inf`` (u), tensors of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), section 7.1.
    """

    parameter_shaped = ("exp_avg", "exp_inf")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        beta1, beta2 = map(float, group["betas"])
        eps = float(group["eps"])
        size = float(group["lr"]) / (1.0 - beta1 ** self.count_step(param))

        def update(p: Array, d: Array, m: Array, u: Array, x: Array, y: Array) -> None:
            lerp(m, d, 1.0 - beta1, x)
            np.multiply(u, beta2, out=u)
            np.add(np.absolute(d, out=x), eps, out=x)
            np.maximum(u, x, out=u)
            np.multiply(m, size, out=x)
            np.subtract(p, np.divide(x, u, out=x), out=p)

        return update, (self.buffer(param, "exp_avg"), self.buffer(param, "exp_inf"))
