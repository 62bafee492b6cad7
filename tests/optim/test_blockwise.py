"""What all element-by-element optimizers promise: memory, views, dtypes, values that are not finite, and state."""

from __future__ import annotations

import copy
import inspect
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import optim
from distgrad.autograd import Tensor
from distgrad.optim.blockwise import BLOCK, Blocks, Blockwise, lerp

# Of each optimizer, the settings that use all of its state.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
    "SGD-plain": ("SGD", {}),
    "Adam": ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    "AdamW": ("AdamW", {"maximize": True}),
    "Adamax": ("Adamax", {"weight_decay": 0.1}),
    "NAdam": ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "RAdam": ("RAdam", {"weight_decay": 0.1}),
    "RMSprop": ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    "RMSprop-plain": ("RMSprop", {}),
    "Adagrad": ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1}),
    "Adadelta": ("Adadelta", {"weight_decay": 0.1}),
    "ASGD": ("ASGD", {"weight_decay": 0.1, "t0": 2, "lambd": 0.1}),
    "Rprop": ("Rprop", {}),
    "LARS": ("LARS", {"weight_decay": 0.1}),
}
each = pytest.mark.parametrize("case", CASES)


def make(case: str, params: Any, **more: Any) -> Any:
    name, options = CASES[case]
    return getattr(optim, name)(params, **{**options, **more})


def leaf(*shape: int, dtype: Any = np.float64, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def run(optimizer: Any, params: list[Tensor], steps: range) -> None:
    for step in steps:
        for number, param in enumerate(params):
            values = np.random.default_rng((step, number)).standard_normal(param.shape)
            param.grad = Tensor(values.astype(param.dtype))
        optimizer.step()


def test_every_optimizer_is_here() -> None:
    classes = {name for name in optim.__all__ if isinstance(getattr(optim, name), type)}
    blockwise = {name for name in classes if issubclass(getattr(optim, name), Blockwise)}
    assert blockwise == {name for name, _ in CASES.values()}


@each
def test_memory_that_is_not_contiguous(case: str) -> None:
    values = np.random.default_rng(0).standard_normal((30, 20))
    across = Tensor(values.T.copy().T, requires_grad=True)
    every_second = Tensor(np.repeat(values, 2, axis=1)[:, ::2], requires_grad=True)
    plain, plain_with_a_turned_gradient = (Tensor(values.copy(), requires_grad=True) for _ in range(2))
    params = [across, every_second, plain, plain_with_a_turned_gradient]
    optimizer = make(case, params)
    for step in range(4):
        grad = np.random.default_rng(step).standard_normal((20, 30))
        across.grad, every_second.grad, plain.grad = Tensor(grad.T), Tensor(grad.T), Tensor(grad.T.copy())
        plain_with_a_turned_gradient.grad = Tensor(grad.T)
        optimizer.step()
    assert not across.is_contiguous() and not every_second.is_contiguous()
    for param in params:
        np.testing.assert_allclose(param._data, plain._data, rtol=1e-13)
    assert not np.allclose(plain._data, values)


@each
def test_a_step_allocates_nothing_of_a_parameters_size(case: str) -> None:
    param = Tensor(np.zeros(500_000, np.float32), requires_grad=True)
    param.grad = Tensor(np.ones(500_000, np.float32))
    optimizer = make(case, [param], **({"exclude_1d": False} if case == "LARS" else {}))
    optimizer.step()
    tracemalloc.start()
    try:
        optimizer.step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * BLOCK, f"{peak} bytes"  # LARS: one block in float64


@each
def test_gradients_are_not_changed(case: str) -> None:
    param = leaf(5)
    grad = np.arange(5.0)
    grad.flags.writeable = False
    optimizer = make(case, [param])
    for _ in range(3):
        param.grad = Tensor(grad)
        optimizer.step()
    np.testing.assert_array_equal(grad, np.arange(5.0))


@each
def test_updates_in_place_and_backward_notices(case: str) -> None:
    param = leaf(3)
    memory = param._data
    saved = param * param
    param.grad = Tensor(np.ones(3))
    make(case, [param]).step()
    assert param._data is memory and param.is_leaf and param.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.sum().backward()


@each
def test_a_parameter_without_gradient_is_left_alone(case: str) -> None:
    param, other = leaf(3), leaf(2)
    before = param._data.copy()
    other.grad = Tensor(np.ones(2))
    optimizer = make(case, [param, other])
    optimizer.step()
    np.testing.assert_array_equal(param._data, before)
    assert param._version == 0
    assert "step" not in optimizer.state.get(param, {}) or optimizer.state[param]["step"].item() == 0


@each
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_state_has_the_parameters_dtype(case: str, dtype: Any) -> None:
    param = leaf(3, 2, dtype=dtype)
    optimizer = make(case, [param])
    run(optimizer, [param], range(3))
    assert param.dtype == dtype
    for name, value in optimizer.state[param].items():
        assert value.dtype == (np.float32 if name in optimizer.scalar_state else dtype), name
        assert (name in optimizer.parameter_shaped) != (name in optimizer.scalar_state)


def test_counters_follow_a_double_default_dtype() -> None:
    param = leaf(2)
    param.grad = Tensor(np.ones(2))
    distgrad.set_default_dtype(np.float64)
    try:
        optimizer = optim.NAdam([param])
        optimizer.step()
    finally:
        distgrad.set_default_dtype(np.float32)
    assert optimizer.state[param]["step"].dtype == optimizer.state[param]["mu_product"].dtype == np.float64


@each
def test_values_that_are_not_finite_pass_without_a_warning(case: str) -> None:
    param = Tensor(np.array([1.0, 1.0, 1.0], np.float32), requires_grad=True)
    param.grad = Tensor(np.array([np.inf, np.nan, 1.0], np.float32))
    optimizer = make(case, [param])
    optimizer.step()
    optimizer.step()
    assert not np.isfinite(param._data[:2]).all() and np.isfinite(param._data[2])


@each
def test_the_rate_is_read_at_every_step_and_may_be_a_tensor(case: str) -> None:
    def run_with(rates: list[Any]) -> np.ndarray[Any, Any]:
        param = leaf(4)
        optimizer = make(case, [param], lr=rates[0])
        for step, rate in enumerate(rates):
            optimizer.param_groups[0]["lr"] = rate
            run(optimizer, [param], range(step, step + 1))
        return param._data

    numbers = run_with([0.5, 0.25, 0.125, 0.125])
    tensors = run_with([distgrad.tensor(0.5), distgrad.tensor([0.25]), np.float64(0.125), np.array(0.125)])
    np.testing.assert_array_equal(tensors, numbers)
    # Rprop only begins with the rate, and ASGD uses one a step later
    assert (run_with([0.75, 0.25, 0.25, 0.125] if case == "Rprop" else [0.5, 0.25, 0.25, 0.125]) != numbers).any()


@each
@pytest.mark.parametrize("way", ["state_dict", "arrays", "pickle", "deepcopy"])
def test_resuming_midway_gives_the_same_bits(case: str, way: str) -> None:
    def fresh(lr: float) -> tuple[list[Tensor], Any]:
        params = [leaf(5, 4, dtype=np.float32), leaf(7, dtype=np.float32, seed=1)]
        return params, make(case, [{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.01}], lr=lr)

    whole, optimizer = fresh(0.01)
    run(optimizer, whole, range(9))

    half, optimizer = fresh(0.01)
    run(optimizer, half, range(4))
    if way in ("pickle", "deepcopy"):
        optimizer = pickle.loads(pickle.dumps(optimizer)) if way == "pickle" else copy.deepcopy(optimizer)
        resumed = [param for group in optimizer.param_groups for param in group["params"]]
        assert resumed[0] is not half[0]
    else:
        state = copy.deepcopy(optimizer.state_dict())
        if way == "arrays":
            state["state"] = {
                number: {name: value.numpy() for name, value in entry.items()}
                for number, entry in state["state"].items()
            }
        resumed, optimizer = fresh(123.0)
        for param, value in zip(resumed, half, strict=True):
            param._data[...] = value._data
        optimizer.load_state_dict(state)
    run(optimizer, resumed, range(4, 9))
    for param, expected in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(param._data, expected._data)


@each
def test_refuses_what_nothing_can_do(case: str) -> None:
    for options, message in (
        ({"lr": -0.1}, "Invalid learning rate: -0.1"),
        ({"lr": float("nan")}, "Invalid learning rate: nan"),
        ({"lr": distgrad.tensor([0.1, 0.2])}, r"Tensor lr must be 1-element, this has the shape \[2\]"),
        ({"weight_decay": -0.5}, "Invalid weight_decay value: -0.5"),
    ):
        if not options.keys() <= make(case, [leaf(1)]).defaults.keys():
            continue
        with pytest.raises(ValueError, match=message):
            make(case, [leaf(1)], **options)
        with pytest.raises(ValueError, match=message):
            make(case, [{"params": [leaf(1)], **options}])
    if "betas" in make(case, [leaf(1)]).defaults:
        for index, betas in enumerate([(1.0, 0.5), (0.5, -0.5)]):
            with pytest.raises(ValueError, match=f"Invalid beta parameter at index {index}: {betas[index]}"):
                make(case, [leaf(1)], betas=betas)


@each
def test_choices_of_implementation_are_taken_where_they_change_nothing(case: str) -> None:
    choices = {"foreach", "fused", "capturable", "differentiable"} & make(case, [leaf(1)]).defaults.keys()
    assert choices or case == "LARS"
    for choice in choices:
        optimizer = make(case, [leaf(1)], **{choice: False})
        assert optimizer.param_groups[0][choice] is False
        name = CASES[case][0]
        with pytest.raises(
            NotImplementedError, match=f"^{name}: {choice}=True is not supported, since .*; leave it out"
        ):
            make(case, [leaf(1)], **{choice: True})


@pytest.mark.parity
@pytest.mark.parametrize("case", [case for case in CASES if case != "LARS"])  # which PyTorch does not have
def test_arguments_and_groups_are_pytorchs(case: str) -> None:
    torch = pytest.importorskip("torch")
    name, options = CASES[case]
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (optim, torch.optim))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]
    mine = make(case, [leaf(1)])
    its = getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)], **options)
    assert repr(mine) == repr(its)
    assert mine.defaults == its.defaults
    assert mine.state_dict()["param_groups"] == its.state_dict()["param_groups"]


def test_a_quadratic_is_descended() -> None:
    for case in CASES:
        x = Tensor(np.array([[5.0, -3.0]]), requires_grad=True)
        rate = {"Adadelta": 30.0, "LARS": 5.0, "Adagrad": 1.0}.get(case, 0.05)
        optimizer = make(case, [x], lr=rate, **({} if case == "Rprop" else {"weight_decay": 0.0}), maximize=False)
        for _ in range(400):
            optimizer.zero_grad()
            ((x - 1.0) ** 2).sum().backward()
            optimizer.step()
        np.testing.assert_allclose(x._data, 1.0, atol=0.2, err_msg=case)


def test_blocks_cover_everything_once() -> None:
    blocks = Blocks(2)
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5):
        target, other = np.zeros(size), np.arange(float(size))
        for piece, values, first, second in blocks.over(target, other):
            assert piece.shape == values.shape == first.shape == second.shape
            assert not np.shares_memory(first, second)
            piece += values
        np.testing.assert_array_equal(target, other)
    assert all(scratch.dtype == np.float16 for _, *rest in blocks.over(np.zeros(2, np.float16)) for scratch in rest)
    copied = copy.deepcopy(blocks)
    assert copied._memory == {} and copied._count == 2


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.75, 1.0])
def test_lerp(weight: float) -> None:
    target, end = np.array([1.0, -2.0, 1e9]), np.array([3.0, 5.0, 1.0])
    expected = (1 - weight) * target + weight * end
    lerp(target, end, weight, np.empty(3))
    np.testing.assert_allclose(target, expected, rtol=1e-15)


def test_a_rule_is_needed() -> None:
    param = leaf(1)
    param.grad = Tensor(np.ones(1))
    with pytest.raises(NotImplementedError, match="Blockwise has no rule"):
        Blockwise([param], {"lr": 0.1, "weight_decay": 0, "maximize": False}).step()
