"""L-BFGS: quasi-Newton steps from the last gradients, for problems whose loss is evaluated as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor, enable_grad, no_grad
from .hyperparameters import check_hyperparameters
from .line_search import Array, Trial, strong_wolfe
from .optimizer import Optimizer, Params


class LBFGS(Optimizer):
    """Limited-memory BFGS over all parameters together, as ``torch.optim.LBFGS`` defines it.

    A call of ``step(closure)`` makes up to ``max_iter`` iterations: a direction from the inverse Hessian that the last
    ``history_size`` changes of parameters and gradient suggest, then a step along it, of length ``lr`` or as the line
    search finds. It evaluates ``closure`` several times and needs memory for ``2 * history_size`` gradients.

    Args:
        params: parameters or named parameters, or one group.
        lr: step length, or what the line search tries first; at least 0; a number or a tensor of one element.
        max_iter: iterations a ``step``.
        max_eval: evaluations of the closure a ``step``, ``max_iter * 5 // 4`` without it.
        tolerance_grad: ends when no element of the gradient is larger.
        tolerance_change: ends when neither the loss nor any parameter changes by more.
        history_size: how many changes to remember.
        line_search_fn: "strong_wolfe", or None for steps of length ``lr`` (at the very first iteration, of at most
            ``lr`` in the sum of all elements).

    The state is the first parameter's and has PyTorch's names: ``func_evals``, ``n_iter``, ``d`` (direction), ``t``
    (step length), ``old_dirs`` and ``old_stps`` (changes of the gradient and of the parameters), ``ro``, ``H_diag``,
    ``prev_flat_grad``, ``prev_loss``; but not ``al``, which is scratch memory.

    Raises:
        ValueError: a learning rate outside its range, or a second group.
        RuntimeError: another line search, here already when the optimizer is made.

    Source: Nocedal and Wright, "Numerical Optimization" (2006), algorithm 7.5.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """As ``Optimizer.check_group``."""
        check_hyperparameters("LBFGS", group)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise RuntimeError(f"only 'strong_wolfe' is supported, line_search_fn is {group['line_search_fn']!r}")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As ``Optimizer.add_param_group``, once: all parameters have one step length."""
        if self.param_groups:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any]) -> Any:
        """Up to ``max_iter`` iterations.

        Args:
            closure: clears the gradients, computes them anew and returns the loss; called with recording on.

        Returns:
            What ``closure`` returned at first.
        """
        with no_grad(), np.errstate(all="ignore"):
            return self._minimize(closure)

    def _minimize(self, closure: Callable[[], Any]) -> Any:
        (group,) = self.param_groups
        lr, tolerance_change = float(group["lr"]), group["tolerance_change"]
        state = self.state[group["params"][0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        def evaluate() -> tuple[Any, Array]:
            with enable_grad():
                loss = closure()
            return loss, self._flat_grad()

        first_loss, grad = evaluate()
        loss = float(first_loss)
        evaluations = 1
        state["func_evals"] += 1
        if np.abs(grad).max() <= group["tolerance_grad"] or group["max_iter"] < 1:
            return first_loss

        direction, step, previous = (_array(state.get(key)) for key in ("d", "t", "prev_flat_grad"))
        changes = [[_array(entry) for entry in state.get(key) or ()] for key in ("old_dirs", "old_stps", "ro")]
        scale: Any = _array(state.get("H_diag", 1))
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                direction, changes, scale = np.negative(grad), [[], [], []], 1
                step = min(1.0, 1.0 / np.abs(grad).sum()) * lr
            else:
                scale = _remember(changes, grad - previous, direction * step, scale, group["history_size"])
                direction = _newton_direction(changes, grad, scale)
                step = lr
            previous, loss_before = grad, loss

            slope = np.dot(grad, direction)
            if slope > -tolerance_change:
                break
            new_evaluations = 0
            if group["line_search_fn"] is not None:
                found, new_evaluations = strong_wolfe(
                    self._along(direction, evaluate),
                    direction,
                    Trial(0, loss, grad, slope),
                    step,
                    tolerance_change,
                    group["max_eval"] - evaluations,
                )
                step, loss, grad = found.step, found.loss, found.grad
                self._move(direction, step)
            else:
                self._move(direction, step)
                if iteration != group["max_iter"]:  # nothing would be made of the last one
                    new_loss, grad = evaluate()
                    loss, new_evaluations = float(new_loss), 1
            evaluations += new_evaluations
            state["func_evals"] += new_evaluations

            if evaluations >= group["max_eval"] or np.abs(grad).max() <= group["tolerance_grad"]:
                break
            if np.abs(direction * step).max() <= tolerance_change or abs(loss - loss_before) < tolerance_change:
                break

        state["d"], state["t"] = Tensor(direction), float(step)
        for key, entries in zip(("old_dirs", "old_stps", "ro"), changes, strict=True):
            state[key] = [Tensor(np.asarray(entry)) for entry in entries]
        state["H_diag"] = Tensor(np.asarray(scale)) if isinstance(scale, np.generic | np.ndarray) else scale
        state["prev_flat_grad"], state["prev_loss"] = Tensor(previous), loss_before
        return first_loss

    def _flat_grad(self) -> Array:
        """The gradients of all parameters one after the other, zeros where there is none."""
        pieces = [
            np.zeros(param.numel(), param.dtype) if param.grad is None else param.grad._data.reshape(-1)
            for param in self.param_groups[0]["params"]
        ]
        return np.concatenate(pieces)

    def _move(self, direction: Array, step: Any) -> None:
        """Adds ``step`` times ``direction`` to the parameters."""
        offset = 0
        for param in self.param_groups[0]["params"]:
            end = offset + param.numel()
            piece = direction[offset:end].reshape(param._data.shape)
            np.add(param._data, piece * step, out=param._data, casting="same_kind")
            param._changed()
            offset = end

    def _along(
        self, direction: Array, evaluate: Callable[[], tuple[Any, Array]]
    ) -> Callable[[Any], tuple[float, Array]]:
        """A function of the step length: loss and gradient there. The parameters are put back after each call."""
        params = self.param_groups[0]["params"]
        start = [param._data.copy() for param in params]

        def at(step: Any) -> tuple[float, Array]:
            self._move(direction, step)
            loss, grad = evaluate()
            for param, values in zip(params, start, strict=True):
                np.copyto(param._data, values)
                param._changed()
            return float(loss), grad

        return at


def _array(value: Any) -> Any:
    """A piece of the state as the array that it wraps; one of a 0-d tensor as a scalar of its dtype."""
    if isinstance(value, Tensor):
        return value._data if value.ndim else value._data[()]
    return value


def _remember(changes: list[list[Any]], of_grad: Array, of_params: Array, scale: Any, most: int) -> Any:
    """Enters a change, unless the loss curves down along it; returns the scale of the inverse Hessian's diagonal."""
    curvature = np.dot(of_grad, of_params)
    if not curvature > 1e-10:
        return scale
    for entries, entry in zip(changes, (of_grad, of_params, 1.0 / curvature), strict=True):
        if len(entries) == most:
            entries.pop(0)
        entries.append(entry)
    return curvature / np.dot(of_grad, of_grad)


def _newton_direction(changes: list[list[Any]], grad: Array, scale: Any) -> Array:
    """Minus the inverse Hessian times the gradient, by the two loops of algorithm 7.4."""
    direction = np.negative(grad)
    weights = []
    scratch = np.empty_like(direction)
    for of_grad, of_params, inverse in reversed(list(zip(*changes, strict=True))):
        weights.append(np.dot(of_params, direction) * inverse)
        np.subtract(direction, np.multiply(of_grad, weights[-1], out=scratch), out=direction)
    np.multiply(direction, scale, out=direction)
    for (of_grad, of_params, inverse), weight in zip(zip(*changes, strict=True), reversed(weights), strict=True):
        weight = weight - np.dot(of_grad, direction) * inverse
        np.add(direction, np.multiply(of_params, weight, out=scratch), out=direction)
    return direction
