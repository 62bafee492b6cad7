"""Adagrad: steps divided by the root of the sum of all squared gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule
from .optimizer import Params


class Adagrad(Blockwise):
    """Adagrad, as ``torch.optim.Adagrad`` defines it.

    For a parameter ``p`` with gradient ``g``, at its step ``t`` (the first is 1)::

        d = -g if maximize else g
        d = d + weight_decay * p
        s = s + d^2
        p = p - lr / (1 + (t - 1) * lr_decay) * d / (sqrt(s) + eps)

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        lr_decay: how fast the learning rate falls, at least 0.
        weight_decay: strength of the L2 penalty, at least 0.
        initial_accumulator_value: what ``s`` starts from, at least 0; that of the arguments, for all groups.
        eps: added to the denominator, at least 0.
        maximize: ascends instead of descending.
        foreach, differentiable, fused: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step`` (0-d) and ``sum`` (s), a tensor of the parameter's shape; both are there from the
    start.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Source: Duchi et al., "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization" (JMLR 2011).
    """

    parameter_shaped = ("sum",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for param in group["params"]:
                self._start(param)

    def _start(self, param: Tensor) -> str:
        self.number(param, "step", 0.0)
        return self.buffer(param, "sum", float(self.defaults["initial_accumulator_value"]))

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        eps = float(group["eps"])
        name = self._start(param)  # of a group that was added later
        size = float(group["lr"]) / (1.0 + (self.count_step(param) - 1.0) * float(group["lr_decay"]))

        def update(p: Array, d: Array, s: Array, x: Array, y: Array) -> None:
            np.add(s, np.multiply(d, d, out=x), out=s)
            np.add(np.sqrt(s, out=x), eps, out=x)
            np.multiply(d, size, out=y)
            np.subtract(p, np.divide(y, x, out=y), out=p)

        return update, (name,)
