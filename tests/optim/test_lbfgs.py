"""L-BFGS against PyTorch, SciPy's minima, and by itself: line search, limits, history and state."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from distgrad.autograd import Tensor
from distgrad.optim import LBFGS
from distgrad.optim.line_search import Trial, minimum_of_cubic, strong_wolfe

SETTINGS: list[dict[str, Any]] = [
    {"lr": 0.2, "max_iter": 4},
    {"lr": 0.1, "max_iter": 3, "history_size": 2},
    {"line_search_fn": "strong_wolfe", "max_iter": 3},
    {"line_search_fn": "strong_wolfe", "max_iter": 5, "history_size": 3, "lr": 0.5},
    {"line_search_fn": "strong_wolfe", "max_iter": 4, "lr": 20, "max_eval": 9},
    {"line_search_fn": "strong_wolfe", "max_iter": 4, "lr": 1e-3, "max_eval": 4},
]


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    # Curvatures are differences of nearly equal numbers, so that rounding grows by a few digits a step.
    follows_pytorch("LBFGS", steps=6, tolerance=1e-10, **options)


@pytest.mark.parity
def test_arguments_and_groups_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = (inspect.signature(kind).parameters for kind in (LBFGS, torch.optim.LBFGS))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]
    its = torch.optim.LBFGS([torch.zeros(1, requires_grad=True)])
    assert repr(LBFGS([Tensor(np.zeros(1), requires_grad=True)])) == repr(its)


class Rosenbrock:
    """Gradients from SciPy, so that nothing but the optimizer is tested."""

    def __init__(self, start: list[float], dtype: Any = np.float64) -> None:
        self.parameter = Tensor(np.array(start, dtype), requires_grad=True)
        self.evaluations = 0

    def __call__(self) -> Tensor:
        self.evaluations += 1
        x = self.parameter._data
        self.parameter.grad = Tensor(np.asarray(rosen_der(x), x.dtype))
        return Tensor(np.asarray(rosen(x), x.dtype))


def test_finds_the_minimum_of_rosenbrocks_function() -> None:
    problem = Rosenbrock([1.3, 0.7, 0.8, 1.9, 1.2])
    optimizer = LBFGS([problem.parameter], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-14)
    first = optimizer.step(problem)
    assert first.item() == rosen([1.3, 0.7, 0.8, 1.9, 1.2]), "the loss before the step"
    np.testing.assert_allclose(problem.parameter._data, 1.0, atol=1e-6)
    state = optimizer.state[problem.parameter]
    assert state["func_evals"] == problem.evaluations < 120
    assert state["n_iter"] < 100


def test_without_a_line_search_it_moves_by_its_own_length() -> None:
    problem = Rosenbrock([0.0, 0.0])
    optimizer = LBFGS([problem.parameter], lr=0.5, max_iter=1)
    optimizer.step(problem)  # the gradient is (-2, 0), so that the first step is min(1, 1 / 2) * lr
    np.testing.assert_array_equal(problem.parameter._data, [0.5, 0.0])
    assert problem.evaluations == 1, "nothing is evaluated after the last move"


def test_a_quadratic_is_solved_in_a_few_steps() -> None:
    matrix = np.diag([1.0, 10.0, 100.0]) + 0.5
    parameter = Tensor(np.array([3.0, -2.0, 1.0]), requires_grad=True)

    def closure() -> Tensor:
        parameter.grad = Tensor(matrix @ parameter._data - 1.0)
        return Tensor(np.asarray(parameter._data @ matrix @ parameter._data / 2 - parameter._data.sum()))

    optimizer = LBFGS([parameter], max_iter=30, line_search_fn="strong_wolfe", tolerance_change=1e-16)
    optimizer.step(closure)
    assert optimizer.state[parameter]["n_iter"] <= 20
    np.testing.assert_allclose(parameter._data, np.linalg.solve(matrix, np.ones(3)), atol=1e-8)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_limits(search: str | None) -> None:
    def evaluations(**options: Any) -> int:
        problem = Rosenbrock([-1.2, 1.0])
        LBFGS([problem.parameter], lr=1e-3 if search is None else 1, line_search_fn=search, **options).step(problem)
        return problem.evaluations

    assert evaluations(max_iter=1, max_eval=50) == (1 if search is None else evaluations(max_iter=1, max_eval=50))
    assert evaluations(max_iter=100, max_eval=7) <= 8
    assert evaluations(max_iter=100, tolerance_grad=1e9) == 1
    assert evaluations(max_iter=0) == 1
    assert evaluations(max_iter=100, max_eval=1000, tolerance_change=1e9) <= 2


def test_the_history_is_limited_and_shifts() -> None:
    problem = Rosenbrock([-1.2, 1.0])
    optimizer = LBFGS([problem.parameter], max_iter=8, history_size=3, line_search_fn="strong_wolfe")
    optimizer.step(problem)
    state = optimizer.state[problem.parameter]
    assert len(state["old_dirs"]) == len(state["old_stps"]) == len(state["ro"]) == 3
    for y, s, ro in zip(state["old_dirs"], state["old_stps"], state["ro"], strict=True):
        assert ro.item() == pytest.approx(1 / (y.numpy() @ s.numpy()))
    last_y, last_s = state["old_dirs"][-1].numpy(), state["old_stps"][-1].numpy()
    assert state["H_diag"].item() == pytest.approx(last_y @ last_s / (last_y @ last_y))


def test_resuming_midway_gives_the_same_bits() -> None:
    whole = Rosenbrock([-1.2, 1.0, 2.0])
    optimizer = LBFGS([whole.parameter], max_iter=3, line_search_fn="strong_wolfe")
    for _ in range(3):
        optimizer.step(whole)
    state, values = copy.deepcopy(optimizer.state_dict()), whole.parameter._data.copy()
    for _ in range(3):
        optimizer.step(whole)

    resumed = Rosenbrock(list(values))
    optimizer = LBFGS([resumed.parameter], max_iter=99)
    optimizer.load_state_dict(state)
    for _ in range(3):
        optimizer.step(resumed)
    np.testing.assert_array_equal(resumed.parameter._data, whole.parameter._data)


def test_single_precision_stays_single() -> None:
    problem = Rosenbrock([-1.2, 1.0], np.float32)
    optimizer = LBFGS([problem.parameter], max_iter=60, line_search_fn="strong_wolfe")
    optimizer.step(problem)
    np.testing.assert_allclose(problem.parameter._data, 1.0, atol=1e-2)
    state = optimizer.state[problem.parameter]
    arrays = [
        state["d"],
        state["prev_flat_grad"],
        *state["old_dirs"],
        *state["old_stps"],
        *state["ro"],
        state["H_diag"],
    ]
    assert problem.parameter.dtype == np.float32 and {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_a_parameter_without_gradient_stays() -> None:
    used, unused = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))

    def closure() -> Tensor:
        used.grad = Tensor(2 * used._data)
        return Tensor(np.asarray((used._data**2).sum()))

    LBFGS([unused, used], lr=0.1).step(closure)
    np.testing.assert_array_equal(unused._data, 1.0)
    assert (used._data < 1).all()


def test_the_closure_records_and_hooks_are_called() -> None:
    x = Tensor(np.array([3.0]), requires_grad=True)
    optimizer = LBFGS([x], lr=0.5)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (x * x).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert abs(x.item()) < 1.0 and x.is_leaf and calls == ["before", "after"]


def test_refuses() -> None:
    first, second = (Tensor(np.ones(1), requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="doesn't support per-parameter options"):
        LBFGS([{"params": [first]}, {"params": [second]}])
    with pytest.raises(ValueError, match="doesn't support per-parameter options"):
        LBFGS([first]).add_param_group({"params": [second]})
    with pytest.raises(RuntimeError, match="only 'strong_wolfe' is supported, line_search_fn is 'armijo'"):
        LBFGS([first], line_search_fn="armijo")
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        LBFGS([first], lr=-1)
    with pytest.raises(TypeError, match="closure"):
        LBFGS([first]).step()  # type: ignore[call-arg]


def test_max_eval_follows_from_max_iter() -> None:
    first = Tensor(np.ones(1), requires_grad=True)
    assert LBFGS([first], max_iter=10).param_groups[0]["max_eval"] == 12
    assert LBFGS([first], max_eval=3).param_groups[0]["max_eval"] == 3


# --- the line search ---


def trial_of(function: Callable[[float], float], slope: Callable[[float], float], step: float) -> Trial:
    return Trial(step, function(step), np.array([slope(step)]), slope(step))


def test_the_cubic_has_its_minimum_where_it_has() -> None:
    def f(x: float) -> float:
        return x**3 - 3 * x + 1

    def df(x: float) -> float:
        return 3 * x**2 - 3

    for a, b in ((0.0, 3.0), (3.0, 0.0), (0.5, 1.7)):
        assert minimum_of_cubic(trial_of(f, df, a), trial_of(f, df, b)) == pytest.approx(1.0)
    assert minimum_of_cubic(trial_of(f, df, 2.0), trial_of(f, df, 3.0)) == 2.0, "not outside of the two"
    assert minimum_of_cubic(trial_of(f, df, 2.0), trial_of(f, df, 3.0), (0.1, 5.0)) == pytest.approx(1.0)
    # a cubic without a minimum, x^3 + x
    no_minimum = [Trial(x, x**3 + x, np.zeros(1), 3 * x**2 + 1) for x in (1.0, 2.0)]
    assert minimum_of_cubic(*no_minimum) == 1.5


@pytest.mark.parametrize("first", [1e-3, 0.3, 1.0, 40.0])
@pytest.mark.parametrize("name", ["quartic", "wave", "steep"])
def test_strong_wolfe_finds_what_it_promises(name: str, first: float) -> None:
    function, slope = {
        "quartic": (lambda x: (x - 1.5) ** 4 - 3 * x, lambda x: 4 * (x - 1.5) ** 3 - 3),
        "wave": (lambda x: -np.sin(x) + 0.02 * x**2, lambda x: -np.cos(x) + 0.04 * x),
        "steep": (lambda x: np.exp(x) - 20 * x, lambda x: np.exp(x) - 20),
    }[name]
    with np.errstate(over="ignore"):
        start = trial_of(function, slope, 0.0)
        found, evaluations = strong_wolfe(
            lambda x: (function(x), np.array([slope(x)])), np.ones(1), start, first, 1e-12, 25
        )
    assert found.loss <= start.loss + 1e-4 * found.step * start.slope
    assert abs(found.slope) <= 0.9 * abs(start.slope)
    assert 1 <= evaluations <= 26 and found.loss == function(found.step)
