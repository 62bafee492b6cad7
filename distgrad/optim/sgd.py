"""Stochastic gradient descent with momentum, in PyTorch's order of operations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..autograd import Tensor
from .optimizer import Optimizer, Params

Array = NDArray[Any]

# Elements worked on at a time. An update is up to eight passes over the same memory; pieces of five arrays that stay in
# a core's cache between the passes make it two to three times as fast as passes over a whole layer.
_BLOCK = 16384


class SGD(Optimizer):
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
        lr: learning rate, at least 0.
        momentum: how much of the running sum of gradients is kept, at least 0.
        dampening: how much of the gradient does not enter that sum.
        weight_decay: strength of the L2 penalty, at least 0.
        nesterov: looks ahead by one momentum step.
        maximize: ascends instead of descending.

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
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        _check(defaults)
        self._scratch: dict[np.dtype[Any], tuple[Array, Array]] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as ``Optimizer.add_param_group``, and checks its hyperparameters."""
        if isinstance(param_group, dict):
            _check(self.defaults | param_group)
        super().add_param_group(param_group)

    def update_group(self, group: dict[str, Any]) -> None:
        """One step of the parameters of one group, in place and without a temporary of a parameter's size."""
        # Python floats, so that they take on the dtype of the array, as PyTorch's scalars do.
        lr, momentum = float(group["lr"]), float(group["momentum"])
        decay, gain = float(group["weight_decay"]), 1.0 - float(group["dampening"])
        nesterov, maximize = bool(group["nesterov"]), bool(group["maximize"])
        with np.errstate(all="ignore"):  # as PyTorch does: inf and nan are values, for the caller to look for
            for param in group["params"]:
                if param.grad is None:
                    continue
                arrays = [param._data, param.grad._data]
                first = False
                if momentum != 0:
                    state = self.state[param]
                    first = state.get("momentum_buffer") is None
                    if first:
                        state["momentum_buffer"] = Tensor(np.empty(param.shape, param.dtype))
                    arrays.append(state["momentum_buffer"]._data)
                for p, g, b, x, y in self._blocks(arrays):
                    d = g
                    if maximize:
                        d = np.negative(d, out=x)
                    if decay != 0:
                        d = np.add(d, np.multiply(p, decay, out=y), out=x)
                    if b is not None:
                        if first:
                            np.copyto(b, d)
                        else:
                            np.multiply(b, momentum, out=b)
                            np.add(b, d if gain == 1 else np.multiply(d, gain, out=y), out=b)
                        d = np.add(d, np.multiply(b, momentum, out=y), out=x) if nesterov else b
                    np.subtract(p, np.multiply(d, lr, out=y), out=p)
                param._changed()
                if momentum != 0:
                    self.state[param]["momentum_buffer"]._changed()

    def _blocks(self, arrays: list[Array]) -> Iterator[tuple[Array, Array, Array | None, Array, Array]]:
        """One piece after the other of parameter, gradient and momentum (or None), with two of scratch memory."""
        size, dtype = arrays[0].size, arrays[0].dtype
        if dtype not in self._scratch:
            self._scratch[dtype] = (np.empty(_BLOCK, dtype), np.empty(_BLOCK, dtype))
        x, y = self._scratch[dtype]
        if not all(array.flags.c_contiguous for array in arrays):  # rare: a parameter that is a transposed array
            shape = arrays[0].shape
            p, g, *rest = arrays
            yield p, g, (rest[0] if rest else None), np.empty(shape, dtype), np.empty(shape, dtype)
            return
        p, g, *rest = (array.reshape(-1) for array in arrays)
        for start in range(0, size, _BLOCK):
            piece = slice(start, start + _BLOCK)
            length = min(_BLOCK, size - start)
            yield p[piece], g[piece], (rest[0][piece] if rest else None), x[:length], y[:length]


def _check(group: dict[str, Any]) -> None:
    """Refuses hyperparameters outside their range; written so that nan is refused too."""
    for key, name in (("lr", "learning rate"), ("momentum", "momentum value"), ("weight_decay", "weight_decay value")):
        if not group[key] >= 0.0:
            raise ValueError(f"Invalid {name}: {group[key]}")
    if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
