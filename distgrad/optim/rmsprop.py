"""RMSprop: steps divided by the root of a running average of squared gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule, decay_and_add_square, lerp
from .optimizer import Params


class RMSprop(Blockwise):
    """RMSprop with momentum and, if ``centered``, an estimate of the variance, as ``torch.optim.RMSprop`` defines it.

    For a parameter ``p`` with gradient ``g``::

        d = -g if maximize else g
        d = d + weight_decay * p
        v = alpha * v + (1 - alpha) * d^2
        a = alpha * a + (1 - alpha) * d,  w = v - a^2      if centered, else w = v
        b = momentum * b + d / (sqrt(w) + eps)
        p = p - lr * b

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        alpha: how much of the averages is kept a step, at least 0.
        eps: added to the denominator, at least 0.
        weight_decay: strength of the L2 penalty, at least 0.
        momentum: how much of the running sum of steps is kept, at least 0.
        centered: subtracts the square of the average gradient.
        maximize: ascends instead of descending.
        capturable, foreach, differentiable: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step`` (0-d), ``square_avg`` (v) and, where used, ``momentum_buffer`` (b) and
    ``grad_avg`` (a), tensors of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Sources: Hinton, "Neural Networks for Machine Learning", lecture 6e (2012); centered: Graves, "Generating Sequences
    With Recurrent Neural Networks" (2013). ``eps`` is added to the root, as in PyTorch, not under it.
    """

    parameter_shaped = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        lr, alpha, eps, momentum = (float(group[key]) for key in ("lr", "alpha", "eps", "momentum"))
        centered, rolling = bool(group["centered"]), momentum > 0
        self.count_step(param)
        names = [self.buffer(param, "square_avg")]
        if rolling:
            names.append(self.buffer(param, "momentum_buffer"))
        if centered:
            names.append(self.buffer(param, "grad_avg"))

        def update(p: Array, d: Array, v: Array, *rest: Array) -> None:
            *more, x, y = rest
            decay_and_add_square(v, d, alpha, x)
            if centered:
                average = more[-1]
                lerp(average, d, 1.0 - alpha, x)
                np.subtract(v, np.multiply(average, average, out=x), out=x)
                np.sqrt(x, out=x)
            else:
                np.sqrt(v, out=x)
            np.add(x, eps, out=x)
            if rolling:
                b = more[0]
                np.multiply(b, momentum, out=b)
                np.add(b, np.divide(d, x, out=x), out=b)
                np.subtract(p, np.multiply(b, lr, out=x), out=p)
            else:
                np.multiply(d, lr, out=y)
                np.subtract(p, np.divide(y, x, out=y), out=p)

        return update, names
