"""RAdam: Adam that takes plain momentum steps until its average of squares can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule, decay_and_add_square, lerp
from .optimizer import Params


class RAdam(Blockwise):
    """Rectified Adam, as ``torch.optim.RAdam`` defines it.

    For a parameter ``p`` with gradient ``g``, at its step ``t`` (the first is 1)::

        d = -g if maximize else g
        d = d + weight_decay * p                     unless decoupled_weight_decay, then p = p - lr * weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d^2
        R = 2 / (1 - beta2) - 1,  r = R - 2 * t * beta2^t / (1 - beta2^t)
        a = sqrt((r - 4) (r - 2) R / ((R - 4) (R - 2) r)) * sqrt(1 - beta2^t) / (sqrt(v) + eps)   if r > 5, else 1
        p = p - lr * m / (1 - beta1^t) * a

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        betas: how much of the averages of the gradient and of its square is kept a step, in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: strength of the L2 penalty, at least 0.
        decoupled_weight_decay: shrinks the parameters, as ``AdamW``, instead of changing the gradient.
        maximize: ascends instead of descending.
        foreach, capturable, differentiable: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step`` (0-d), ``exp_avg`` (m) and ``exp_avg_sq`` (v), tensors of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (ICLR 2020).
    """

    parameter_shaped = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        beta1, beta2 = map(float, group["betas"])
        lr, eps = float(group["lr"]), float(group["eps"])
        step = self.count_step(param)
        correction1, correction2 = 1.0 - beta1**step, 1.0 - beta2**step
        longest = 2.0 / (1.0 - beta2) - 1.0
        length = longest - 2.0 * step * beta2**step / correction2  # of the simple average that v amounts to
        trusted = length > 5.0
        rectification = 1.0
        if trusted:
            shrunk = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
            rectification = shrunk**0.5

        def update(p: Array, d: Array, m: Array, v: Array, x: Array, y: Array) -> None:
            lerp(m, d, 1.0 - beta1, x)
            decay_and_add_square(v, d, beta2, x)
            np.divide(m, correction1, out=y)
            np.multiply(y, lr, out=y)
            if trusted:
                np.add(np.sqrt(v, out=x), eps, out=x)
                np.divide(correction2**0.5, x, out=x)
                np.multiply(y, x, out=y)
                np.multiply(y, rectification, out=y)
            np.subtract(p, y, out=p)

        return update, (self.buffer(param, "exp_avg"), self.buffer(param, "exp_avg_sq"))
