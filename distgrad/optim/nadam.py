"""NAdam: Adam that looks ahead by one momentum step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule, decay_and_add_square, lerp
from .optimizer import Params


class NAdam(Blockwise):
    """Adam with Nesterov's momentum, as ``torch.optim.NAdam`` defines it.

    For a parameter ``p`` with gradient ``g``, at its step ``t`` (the first is 1)::

        d = -g if maximize else g
        d = d + weight_decay * p                     unless decoupled_weight_decay, then p = p - lr * weight_decay * p
        mu(t) = beta1 * (1 - 0.96^(t * momentum_decay) / 2),  M = M * mu(t)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d^2
        q = sqrt(v / (1 - beta2^t)) + eps
        p = p - lr * (1 - mu(t)) / (1 - M) * d / q - lr * mu(t + 1) / (1 - M * mu(t + 1)) * m / q

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        betas: how much of the averages of the gradient and of its square is kept a step, in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: strength of the L2 penalty, at least 0.
        momentum_decay: how fast the momentum rises from half of ``beta1`` to all of it, at least 0.
        decoupled_weight_decay: shrinks the parameters, as ``AdamW``, instead of changing the gradient.
        maximize: ascends instead of descending.
        foreach, capturable, differentiable: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step`` and ``mu_product`` (M), both 0-d, and ``exp_avg`` (m) and ``exp_avg_sq`` (v),
    tensors of the parameter's shape. ``mu_product`` keeps its dtype when a state is loaded; PyTorch casts it to the
    parameter's, so that training goes on from a slightly different number.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam" (ICLR 2016 workshop).
    """

    parameter_shaped = ("exp_avg", "exp_avg_sq")
    scalar_state = ("step", "mu_product")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        beta1, beta2 = map(float, group["betas"])
        lr, eps, momentum_decay = (float(group[key]) for key in ("lr", "eps", "momentum_decay"))
        step = self.count_step(param)
        product = self.number(param, "mu_product", 1.0)
        mu, following = (beta1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1))
        product._data *= mu
        product._changed()
        so_far = float(product._data)
        of_gradient = lr * (1.0 - mu) / (1.0 - so_far)
        of_average = lr * following / (1.0 - so_far * following)
        correction = 1.0 - beta2**step

        def update(p: Array, d: Array, m: Array, v: Array, x: Array, y: Array) -> None:
            lerp(m, d, 1.0 - beta1, x)
            decay_and_add_square(v, d, beta2, x)
            np.divide(v, correction, out=x)
            np.sqrt(x, out=x)
            np.add(x, eps, out=x)
            for part, size in ((d, of_gradient), (m, of_average)):
                np.multiply(part, size, out=y)
                np.subtract(p, np.divide(y, x, out=y), out=p)

        return update, (self.buffer(param, "exp_avg"), self.buffer(param, "exp_avg_sq"))
