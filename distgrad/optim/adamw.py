"""AdamW: Adam with weight decay that the averages do not see."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from .adam import Adam
from .optimizer import Params


class AdamW(Adam):
    """Adam that shrinks every parameter by ``lr * weight_decay`` before its step, as ``torch.optim.AdamW`` defines it.

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        betas: how much of the averages of the gradient and of its square is kept a step, floats in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: how much a parameter shrinks a step, in units of ``lr``, at least 0.
        amsgrad: divides by the largest average of squares so far.
        maximize: ascends instead of descending.
        foreach, capturable, differentiable, fused: PyTorch's; anything but None or False is refused.

    State, formula and errors are those of ``Adam`` with ``decoupled_weight_decay=True``.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), where the decay is not
    multiplied by ``lr``; here it is, as in ``torch.optim.AdamW``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True  # also where the loaded state is Adam's
