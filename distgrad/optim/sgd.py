"""Stochastic gradient descent with momentum, in PyTorch's order of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..kernels.jit import descent
from .blockwise import Array, Blockwise, Rule
from .optimizer import Params


class SGD(Blockwise):
    """Gradient descent with momentum, weight decay and Nesterov's variant, as ``torch.optim.SGD`` defines them.

    For a parameter ``p`` with gradient ``g``, at its step ``t`` (the first is 1)::

        d = -g if maximize else g
        d = d + weight_decay * p
        b = d                                        if t = 1    (no dampening)
        b = momentum * b + (1 - dampening) * d       otherwise
        d = d + momentum * b                         if nesterov, else b
        p = p - lr * d

    Every operation is rounded in the parameter's dtype, in this order, which is PyTorch's. Its vectorised kernels fuse
    multiply and add where the processor can, ours round in between: the results are equal to the last bit where PyTorch
    does not fuse, and otherwise differ by a rounding a step.

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element.
        momentum: how much of the running sum of gradients is kept, at least 0.
        dampening: how much of the gradient does not enter that sum.
        weight_decay: strength of the L2 penalty, at least 0.
        nesterov: looks ahead by one momentum step.
        maximize: ascends instead of descending.
        foreach, differentiable, fused: PyTorch's; anything but None or False is refused.

    The momentum is in ``state[parameter]["momentum_buffer"]``, a tensor of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group; ``nesterov`` without momentum or
            with dampening.

    Sources: Sutskever et al., "On the importance of initialization and momentum in deep learning" (ICML 2013), in the
    form of ``torch.optim.SGD``, where the learning rate is outside the sum.
    """

    parameter_shaped = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """As ``Blockwise.check_group``; Nesterov's variant needs momentum and no dampening."""
        super().check_group(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def update_compiled(self, group: dict[str, Any], param: Tensor, grad: Array, decay: float) -> bool:
        """As ``Blockwise.update_compiled``, with the same bits."""
        momentum, gain = float(group["momentum"]), 1.0 - float(group["dampening"])
        known = self.state[param].get("momentum_buffer") if momentum else None
        if not descent.takes(param._data, grad, *([] if known is None else [known._data])):
            return False
        first = momentum != 0 and known is None
        if first:
            self.state[param]["momentum_buffer"] = known = Tensor(np.empty(param._data.shape, param.dtype))
        nesterov, maximize = bool(group["nesterov"]), bool(group["maximize"])
        rule = descent.Rule(decay != 0, momentum != 0, first, gain != 1, nesterov, maximize)
        average = None if known is None else known._data
        descent.descend(rule, param._data, grad, average, float(group["lr"]), momentum, gain, decay)
        for tensor in (param, known):
            if tensor is not None:
                tensor._changed()
        return True

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        # Python floats, so that they take on the dtype of the array, as PyTorch's scalars do.
        lr, momentum, gain = float(group["lr"]), float(group["momentum"]), 1.0 - float(group["dampening"])
        nesterov = bool(group["nesterov"])
        if momentum == 0:

            def descend(p: Array, d: Array, x: Array, y: Array) -> None:
                np.subtract(p, np.multiply(d, lr, out=x), out=p)

            return descend, ()

        state = self.state[param]
        first = state.get("momentum_buffer") is None
        if first:
            state["momentum_buffer"] = Tensor(np.empty(param._data.shape, param.dtype))

        def update(p: Array, d: Array, b: Array, x: Array, y: Array) -> None:
            if first:
                np.copyto(b, d)
            else:
                np.multiply(b, momentum, out=b)
                np.add(b, d if gain == 1 else np.multiply(d, gain, out=x), out=b)
            d = np.add(d, np.multiply(b, momentum, out=x), out=y) if nesterov else b
            np.subtract(p, np.multiply(d, lr, out=x), out=p)

        return update, ("momentum_buffer",)
