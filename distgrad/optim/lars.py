"""LARS: momentum whose step size each layer sets for itself, for very large batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .blockwise import BLOCK, Array, Blockwise, Rule
from .optimizer import Params


class LARS(Blockwise):
    """Layer-wise adaptive rate scaling: each parameter steps in proportion to its own norm.

    With batches of thousands of photos the learning rate has to be large, and one that suits most layers makes those
    diverge whose weights are small beside their gradients. For a parameter ``w`` with gradient ``g``::

        d = -g if maximize else g
        d = d + weight_decay * w
        r = trust_coefficient * |w| / (|g| + weight_decay * |w| + eps)      (L2 norms; 1 where |w| or |g| is 0)
        v = momentum * v + lr * r * d
        w = w - v

    Biases and the scales and shifts of normalizations, which is to say parameters of at most one dimension, are left
    out (``exclude_1d``): for them ``weight_decay`` is 0 and r is 1. The learning rate is inside the sum ``v``, as in
    the source and unlike ``SGD``, so that a schedule acts on new steps only.

    Args:
        params: parameters, named parameters or groups, as ``Optimizer`` takes them.
        lr: learning rate, at least 0; a number or a tensor of one element. Linear scaling with the batch, a warm-up and
            a polynomial decay of power 2 (``PolynomialLR``) are the source's.
        momentum: how much of the running sum of steps is kept, at least 0.
        weight_decay: strength of the L2 penalty, at least 0.
        trust_coefficient: how far a parameter moves, relative to its norm, at a learning rate of 1; at least 0.
        eps: added to the denominator, at least 0.
        exclude_1d: whether parameters of at most one dimension are updated as by plain momentum.
        maximize: ascends instead of descending.

    The momentum is in ``state[parameter]["momentum_buffer"]``, a tensor of the parameter's shape.

    Raises:
        ValueError: a hyperparameter outside its range, in the arguments or in a group.

    Source: You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks" (2017), algorithm 1; ``eps``, the
    case of a norm that is 0, and the excluded parameters are what implementations have added since. PyTorch has none.
    """

    parameter_shaped = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-1,
        momentum: float = 0.9,
        weight_decay: float = 0,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        exclude_1d: bool = True,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "exclude_1d": exclude_1d,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def weight_decay_of(self, group: dict[str, Any], param: Tensor) -> float:
        """That of the group; 0 for an excluded parameter."""
        return 0.0 if _excluded(group, param) else float(group["weight_decay"])

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """As ``Blockwise.rule``."""
        momentum = float(group["momentum"])
        size = float(group["lr"]) * self._ratio(group, param)

        def update(p: Array, d: Array, v: Array, x: Array, y: Array) -> None:
            np.multiply(v, momentum, out=v)
            np.add(v, np.multiply(d, size, out=x), out=v)
            np.subtract(p, v, out=p)

        return update, (self.buffer(param, "momentum_buffer"),)

    def _ratio(self, group: dict[str, Any], param: Tensor) -> float:
        if _excluded(group, param) or param.grad is None:
            return 1.0
        weight, gradient = _norm(param._data), _norm(param.grad._data)
        if weight == 0 or gradient == 0:
            return 1.0
        denominator = gradient + float(group["weight_decay"]) * weight + float(group["eps"])
        return float(group["trust_coefficient"]) * weight / denominator


def _excluded(group: dict[str, Any], param: Tensor) -> bool:
    return bool(group["exclude_1d"]) and param.ndim <= 1


def _norm(array: Array) -> float:
    """The L2 norm, summed in float64 and without a temporary of the array's size."""
    flat = array.reshape(-1)
    total = 0.0
    for start in range(0, flat.size, BLOCK):
        piece = flat[start : start + BLOCK].astype(np.float64)
        total += float(np.dot(piece, piece))
    return math.sqrt(total)
