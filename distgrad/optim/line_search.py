"""A step length that satisfies the strong Wolfe conditions, for ``LBFGS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The conditions' constants: how much of the decrease that the slope promises has to come true, and how flat the slope
# has to become.
_DECREASE, _CURVATURE = 1e-4, 0.9


class Trial(NamedTuple):
    """What is known at one step length: the loss, its gradient, and its slope along the direction."""

    step: Any
    loss: float
    grad: Array
    slope: Any


def minimum_of_cubic(a: Trial, b: Trial, bounds: tuple[Any, Any] | None = None) -> Any:
    """The minimum within ``bounds`` of the cubic with the losses and slopes of ``a`` and ``b``; without, between them.

    Where the cubic has no minimum, the middle of the bounds. Nocedal and Wright, equation 3.59.
    """
    low, high = bounds or (min(a.step, b.step), max(a.step, b.step))
    middle = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.step - b.step)
    discriminant = middle**2 - a.slope * b.slope
    if not discriminant >= 0:
        return (low + high) / 2.0
    left, right = (a, b) if a.step <= b.step else (b, a)
    root = np.sqrt(discriminant)
    fraction = (right.slope + root - middle) / (right.slope - left.slope + 2 * root)
    return min(max(right.step - (right.step - left.step) * fraction, low), high)


def strong_wolfe(
    evaluate: Callable[[Any], tuple[float, Array]],
    direction: Array,
    start: Trial,
    step: Any,
    tolerance_change: float,
    max_evaluations: int,
) -> tuple[Trial, int]:
    """Searches along ``direction`` for a point where the loss is low enough and flat enough.

    First lengthens the step until an interval must contain such a point, then shrinks the interval. Both choose the
    next step as the minimum of a cubic through the last two points.

    Args:
        evaluate: a step length to the loss and the gradient there.
        direction: one with a negative slope.
        start: what is known at step 0.
        step: the first to try, greater than 0.
        tolerance_change: length of an interval, in the largest coordinate, that is not worth shrinking.
        max_evaluations: after the first, how often the loss may be evaluated.

    Returns:
        The best point found and how often the loss was evaluated.

    Source: Nocedal and Wright, "Numerical Optimization" (2006), algorithms 3.5 and 3.6, with the safeguards of
    ``torch.optim.LBFGS``.
    """

    def at(length: Any) -> Trial:
        loss, grad = evaluate(length)
        return Trial(length, loss, grad, np.dot(grad, direction))

    def high(trial: Trial) -> bool:
        return bool(trial.loss > start.loss + _DECREASE * trial.step * start.slope)

    def flat(trial: Trial) -> bool:
        return bool(abs(trial.slope) <= -_CURVATURE * start.slope)

    before, trial, rounds = start, at(step), 0
    while True:
        if rounds >= max_evaluations:
            interval = [start, trial]
            break
        if high(trial) or (rounds > 1 and trial.loss >= before.loss):
            interval = [before, trial]
            break
        if flat(trial):
            return trial, rounds + 1
        if trial.slope >= 0:
            interval = [before, trial]
            break
        bounds = (trial.step + 0.01 * (trial.step - before.step), trial.step * 10)
        before, trial = trial, at(minimum_of_cubic(before, trial, bounds))
        rounds += 1

    low = 0 if interval[0].loss <= interval[1].loss else 1
    largest = np.abs(direction).max()
    near_an_end = False  # whether the last step was, and so made little progress
    while rounds < max_evaluations:
        if abs(interval[1].step - interval[0].step) * largest < tolerance_change:
            break
        length = minimum_of_cubic(interval[0], interval[1])
        left, right = sorted(trial.step for trial in interval)
        margin = 0.1 * (right - left)
        if min(right - length, length - left) < margin:
            if near_an_end or length >= right or length <= left:
                length = right - margin if abs(length - right) < abs(length - left) else left + margin
                near_an_end = False
            else:
                near_an_end = True
        else:
            near_an_end = False

        trial = at(length)
        rounds += 1
        if high(trial) or trial.loss >= interval[low].loss:
            interval[1 - low] = trial
            low = 0 if interval[0].loss <= interval[1].loss else 1
            continue
        done = flat(trial)
        if not done and trial.slope * (interval[1 - low].step - interval[low].step) >= 0:
            interval[1 - low] = interval[low]
        interval[low] = trial
        if done:
            break
    return interval[low], rounds + 1
