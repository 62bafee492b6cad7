"""Rprop: steps from the signs of the gradients alone, for gradients of all the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import Array, Blockwise, Rule
from .optimizer import Params


class Rprop(Blockwise):
    """Resilient propagation, as ``torch.optim.Rprop`` defines it.

    Each element has a step size ``s``, at first ``lr``, and remembers its last direction ``b``, at first 0. For a
    parameter ``p`` with gradient ``g``::

        d = -g if maximize else g
        s = s * etas[1] if d * b > 0, s * etas[0] if d * b < 0, else s, within step_sizes
        d = 0 if d * b < 0
        p = p - sign(d) * s
        b = d

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: the first step size, at least 0; a number or a tensor of one element.
        etas: factors of the step size after a change of sign, less than 1, and otherwise, more than 1.
        step_sizes: the least and the largest step size.
        maximize: ascends instead of descending.
        capturable, foreach, differentiable: PyTorch's; anything but None or False is refused.

    ``state[parameter]`` has ``step`` (0-d), ``prev`` (b) and ``step_size`` (s), tensors of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Source: Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm"
    (1993), without taking back the step before a change of sign.
    """

    parameter_shaped = ("prev", "step_size")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """As ``Blockwise.check_group``; the factors must lie on either side of 1."""
        super().check_group(group)
        down, up = group["etas"]
        if not 0.0 < down < 1.0 < up:
            raise ValueError(f"Invalid eta values: {down}, {up}")

    def weight_decay_of(self, group: dict[str, Any], param: Tensor) -> float:
        """None: a penalty would change nothing but signs."""
        return 0.0

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        down, up = map(float, group["etas"])
        least, largest = map(float, group["step_sizes"])
        self.count_step(param)

        def update(p: Array, d: Array, b: Array, s: Array, x: Array, y: Array) -> None:
            np.multiply(d, b, out=x)
            turned = x < 0
            np.multiply(s, up, out=s, where=x > 0)
            np.multiply(s, down, out=s, where=turned)
            np.clip(s, least, largest, out=s)
            np.copyto(b, d)
            np.copyto(b, 0.0, where=turned)
            np.subtract(p, np.multiply(np.sign(b, out=x), s, out=x), out=p)

        return update, (self.buffer(param, "prev"), self.buffer(param, "step_size", float(group["lr"])))
