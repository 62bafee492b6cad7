"""Adam: steps scaled by running averages of the gradient and of its square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule, decay_and_add_square, lerp
from .optimizer import Params


class Adam(Blockwise):
    """Adam and, with ``amsgrad``, its variant whose step sizes never grow, as ``torch.optim.Adam`` defines them.

    For a parameter ``p`` with gradient ``g``, at its step ``t`` (the first is 1)::

        d = -g if maximize else g
        d = d + weight_decay * p                     unless decoupled_weight_decay, then p = p - lr * weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d^2
        u = max(u, v)                                if amsgrad, else v
        p = p - lr / (1 - beta1^t) * m / (sqrt(u) / sqrt(1 - beta2^t) + eps)

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        betas: how much of the averages of the gradient and of its square is kept a step, floats in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: strength of the L2 penalty, at least 0.
        amsgrad: divides by the largest average of squares so far.
        maximize: ascends instead of descending.
        decoupled_weight_decay: shrinks the parameters instead of changing the gradient: ``AdamW``.
        foreach, capturable, differentiable, fused: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step`` (0-d), ``exp_avg`` (m), ``exp_avg_sq`` (v) and, if ``amsgrad``,
    ``max_exp_avg_sq`` (u), tensors of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Sources: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015); Reddi et al., "On the Convergence
    of Adam and Beyond" (ICLR 2018), with the bias correction of ``torch.optim.Adam``.
    """

    parameter_shaped = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        for kind in (float, Tensor):
            if isinstance(betas[0], kind) != isinstance(betas[1], kind):
                raise ValueError(f"betas must be either both floats or both Tensors, they are {tuple(betas)}")
        for index, beta in enumerate(betas):
            if isinstance(beta, Tensor) and beta.numel() != 1:
                raise ValueError(f"Tensor betas[{index}] must be 1-element, this has the shape {list(beta.shape)}")
        defaults = {
            "lr": lr,
            "betas": tuple(beta.item() if isinstance(beta, Tensor) else beta for beta in betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        beta1, beta2 = map(float, group["betas"])
        eps = float(group["eps"])
        step = self.count_step(param)
        size = float(group["lr"]) / (1.0 - beta1**step)
        correction = (1.0 - beta2**step) ** 0.5
        names = [self.buffer(param, "exp_avg"), self.buffer(param, "exp_avg_sq")]
        if group["amsgrad"]:
            names.append(self.buffer(param, "max_exp_avg_sq"))

        def update(p: Array, d: Array, m: Array, v: Array, *rest: Array) -> None:
            *largest, x, y = rest
            lerp(m, d, 1.0 - beta1, x)
            decay_and_add_square(v, d, beta2, x)
            u = np.maximum(largest[0], v, out=largest[0]) if largest else v
            np.sqrt(u, out=x)
            np.divide(x, correction, out=x)
            np.add(x, eps, out=x)
            np.multiply(m, size, out=y)
            np.subtract(p, np.divide(y, x, out=y), out=p)

        return update, names
