"""The walk that all element-by-element optimizers share: parameters in pieces that stay in a core's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..autograd import Tensor
from .hyperparameters import check_hyperparameters
from .optimizer import Optimizer, Params, scalar_dtype

Array = NDArray[Any]
Rule = Callable[..., object]

# Elements worked on at a time. An update is up to a dozen passes over the same memory; pieces of a handful of arrays
# that stay in a core's cache between the passes make it two to three times as fast as passes over a whole layer.
BLOCK = 16384


class Blocks:
    """Arrays of one shape, piece by piece, with scratch memory that is kept from one walk to the next.

    Args:
        scratch: how many pieces of scratch memory a walk gives with each piece of the arrays.
    """

    def __init__(self, scratch: int) -> None:
        self._count = scratch
        self._memory: dict[np.dtype[Any], list[Array]] = {}

    def over(self, target: Array, *others: Array) -> Iterator[list[Array]]:
        """Pieces of ``target``, of the ``others``, and of scratch memory in the dtype of ``target``.

        What is written to the pieces is in the arrays, provided that these are contiguous or of ``target``'s layout.
        """
        dtype = target.dtype
        if not all(array.flags.c_contiguous for array in (target, *others)):  # rare: a parameter that is a view
            yield [target, *others, *(np.empty(target.shape, dtype) for _ in range(self._count))]
            return
        if dtype not in self._memory:
            self._memory[dtype] = [np.empty(BLOCK, dtype) for _ in range(self._count)]
        scratch = self._memory[dtype]
        flat = [array.reshape(-1) for array in (target, *others)]
        for start in range(0, target.size, BLOCK):
            end = min(start + BLOCK, target.size)
            yield [*(array[start:end] for array in flat), *(array[: end - start] for array in scratch)]

    def __deepcopy__(self, memo: dict[int, Any]) -> Blocks:
        return Blocks(self._count)

    def __reduce__(self) -> tuple[type[Blocks], tuple[int]]:
        return Blocks, (self._count,)


def lerp(target: Array, end: Array, weight: float, scratch: Array) -> None:
    """Moves ``target`` towards ``end`` by ``weight`` of their difference, in place, rounded as by ``torch.lerp``."""
    np.subtract(end, target, out=scratch)
    if abs(weight) < 0.5:
        np.multiply(scratch, weight, out=scratch)
        np.add(target, scratch, out=target)
    else:
        np.multiply(scratch, 1.0 - weight, out=scratch)
        np.subtract(end, scratch, out=target)


def decay_and_add_square(average: Array, value: Array, beta: float, scratch: Array) -> None:
    """``average = beta * average + (1 - beta) * value ** 2``, in place."""
    np.multiply(average, beta, out=average)
    np.multiply(value, 1.0 - beta, out=scratch)
    np.multiply(scratch, value, out=scratch)
    np.add(average, scratch, out=average)


class Blockwise(Optimizer):
    """Base class of the optimizers that update an element from that element's own gradient and state.

    A subclass implements ``rule``. What these optimizers have in common is here: checks of hyperparameters,
    ``maximize``, ``weight_decay``, either as an L2 penalty or decoupled (``group["decoupled_weight_decay"]``), and
    values that are not finite passing without a warning, as in PyTorch, for the caller to look for.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self._blocks = Blocks(3)
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuses hyperparameters outside their range; see ``check_hyperparameters``."""
        check_hyperparameters(type(self).__name__, group)

    def rule(self, group: dict[str, Any], param: Tensor) -> tuple[Rule, Sequence[str]]:
        """How to update ``param`` at this step; also advances what ``state[param]`` counts.

        Returns:
            A function ``update(p, d, *state, x, y)`` and the names of the entries of ``state[param]`` that it takes.
            It is called with one piece of the arrays after the other and writes to ``p`` and the state. ``d`` is the
            direction, the gradient after ``maximize`` and the L2 penalty, and must not be written to; ``x`` and ``y``
            are scratch memory.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rule(group, param)")

    def update_compiled(self, group: dict[str, Any], param: Tensor, grad: Array, decay: float) -> bool:
        """The whole update of ``param`` in one compiled pass, where there is one; False: it has not been updated."""
        return False

    def weight_decay_of(self, group: dict[str, Any], param: Tensor) -> float:
        """The weight decay of ``param``, by default that of its group."""
        return float(group["weight_decay"])

    def update_group(self, group: dict[str, Any]) -> None:
        """One step of the parameters of one group, in place and without a temporary of a parameter's size."""
        maximize, decoupled = bool(group["maximize"]), bool(group.get("decoupled_weight_decay", False))
        with np.errstate(all="ignore"):
            for param in group["params"]:
                if param.grad is None:
                    continue
                grad = param.grad._data
                if param._data.flags.c_contiguous and not grad.flags.c_contiguous:
                    grad = np.ascontiguousarray(grad)  # the gradient of a transposed view
                decay = self.weight_decay_of(group, param)
                if self.update_compiled(group, param, grad, decay):
                    continue
                update, names = self.rule(group, param)
                state = [self.state[param][name] for name in names] if names else []
                for p, d, *rest, w in self._blocks.over(param._data, grad, *(tensor._data for tensor in state)):
                    if maximize:
                        d = np.negative(d, out=w)
                    if decay != 0:
                        if decoupled:
                            np.multiply(p, 1.0 - float(group["lr"]) * decay, out=p)
                        else:
                            d = np.add(d, np.multiply(p, decay, out=rest[-1]), out=w)
                    update(p, d, *rest)
                for tensor in (param, *state):
                    tensor._changed()

    def buffer(self, param: Tensor, name: str, value: float = 0.0) -> str:
        """Makes ``state[param][name]``, of the shape of ``param`` and filled with ``value``, unless there is one."""
        state = self.state[param]
        if state.get(name) is None:
            state[name] = Tensor(np.full(param._data.shape, value, param.dtype))
        return name

    def number(self, param: Tensor, name: str, value: float) -> Tensor:
        """``state[param][name]``, a 0-d tensor that starts at ``value``."""
        state = self.state[param]
        if state.get(name) is None:
            state[name] = Tensor(np.array(value, scalar_dtype()))
        number: Tensor = state[name]
        return number

    def count_step(self, param: Tensor) -> float:
        """Adds 1 to ``state[param]["step"]`` and returns it."""
        step = self.number(param, "step", 0.0)
        step._data += 1
        step._changed()
        return float(step._data)
