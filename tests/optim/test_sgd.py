"""SGD: the update rule against its definition and PyTorch, in-place memory behaviour, and what it refuses."""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import SGD

STEPS = 20
# The second is longer than a block of the update and not a multiple of it; a 0-d and an empty parameter too.
SHAPES = [(3, 5), (40_003,), (), (2, 0), (7, 4)]
GRID = [
    {"momentum": m, "dampening": d, "nesterov": n, "weight_decay": w, "maximize": x}
    for (m, d, n), w, x in itertools.product(
        [(0, 0, False), (0, 0.3, False), (0.9, 0, False), (0.9, 0.3, False), (0.9, 0, True)],
        [0, 0.05],
        [False, True],
    )
]
SECOND_GROUP = {"lr": 0.003, "weight_decay": 0.01, "momentum": 0.5}


def name_of(options: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in options.items() if value) or "plain"


def starting_values(dtype: Any) -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    return [np.asarray(generator.standard_normal(shape), dtype=dtype) for shape in SHAPES]


@functools.cache
def gradients(step: int, dtype: Any) -> list[np.ndarray | None]:
    """The fourth step gives the first parameter none; the last gets its first only at step 3."""
    out: list[np.ndarray | None] = []
    for number, shape in enumerate(SHAPES):
        values = np.random.default_rng((step, number)).standard_normal(shape)
        absent = (number == 0 and step == 4) or (number == len(SHAPES) - 1 and step < 3)
        out.append(None if absent else np.asarray(values, dtype=dtype))
        if not absent:
            out[-1].flags.writeable = False
    return out


def trajectory(dtype: Any, options: dict[str, Any], steps: int = STEPS) -> tuple[list[np.ndarray], SGD]:
    tensors = [Tensor(values.copy(), requires_grad=True) for values in starting_values(dtype)]
    optimizer = SGD([{"params": tensors[:3]}, {"params": tensors[3:], **SECOND_GROUP}], lr=0.1, **options)
    for step in range(steps):
        for tensor, grad in zip(tensors, gradients(step, dtype), strict=True):
            tensor.grad = None if grad is None else Tensor(grad)
        optimizer.step()
    return [tensor._data for tensor in tensors], optimizer


def by_definition(dtype: Any, options: dict[str, Any]) -> list[np.ndarray]:
    """The docstring's six lines, written out with NumPy; scalars are rounded to the dtype first, as PyTorch does."""
    values, buffers = starting_values(dtype), [None] * len(SHAPES)
    for step in range(STEPS):
        for number, grad in enumerate(gradients(step, dtype)):
            if grad is None:
                continue
            group = {"lr": 0.1, **options} | (SECOND_GROUP if number >= 3 else {})
            lr, momentum, decay = (dtype(group[key]) for key in ("lr", "momentum", "weight_decay"))
            gain = dtype(1 - group["dampening"])
            p = values[number]
            d = -grad if group["maximize"] else grad
            d = d + decay * p
            if momentum:
                b = buffers[number]
                b = buffers[number] = d.copy() if b is None else momentum * b + gain * d
                d = d + momentum * b if group["nesterov"] else b
            values[number] = p - lr * d
    return values


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("options", GRID, ids=name_of)
def test_follows_the_definition_to_the_last_bit(dtype: Any, options: dict[str, Any]) -> None:
    got, _ = trajectory(dtype, options)
    for value, expected in zip(got, by_definition(dtype, options), strict=True):
        assert value.dtype == dtype
        np.testing.assert_array_equal(value, expected)


def torch_trajectory(torch: Any, dtype: Any, options: dict[str, Any]) -> tuple[list[np.ndarray], Any]:
    tensors = [torch.tensor(values).requires_grad_() for values in starting_values(dtype)]
    groups = [{"params": tensors[:3]}, {"params": tensors[3:], **SECOND_GROUP}]
    optimizer = torch.optim.SGD(groups, lr=0.1, foreach=False, **options)
    for step in range(STEPS):
        for tensor, grad in zip(tensors, gradients(step, dtype), strict=True):
            tensor.grad = None if grad is None else torch.tensor(grad)
        optimizer.step()
    return [tensor.detach().numpy() for tensor in tensors], optimizer


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("options", GRID, ids=name_of)
def test_follows_pytorch(dtype: Any, options: dict[str, Any]) -> None:
    # PyTorch's kernels here may fuse multiply and add, which leaves out one rounding of at most half an ulp of the
    # product; at most four such operations a step, and 20 steps: 40 ulp of the largest values met.
    torch = pytest.importorskip("torch")
    got, _ = trajectory(dtype, options)
    expected, _ = torch_trajectory(torch, dtype, options)
    for ours, theirs in zip(got, expected, strict=True):
        scale = max(1.0, float(np.abs(theirs).max(initial=0)))
        bound = 1e-12 if dtype is np.float64 else 40 * np.finfo(np.float32).eps * scale
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)


_UNFUSED = """
import importlib.util, json, sys
import numpy as np, torch
spec = importlib.util.spec_from_file_location("sgd_cases", sys.argv[1])
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
a, b = (np.random.default_rng(seed).standard_normal(10_000).astype(np.float32) for seed in (0, 1))
fused = bool((torch.tensor(a).add(torch.tensor(b), alpha=0.1).numpy() != a + np.float32(0.1) * b).any())
different = []
for options in [] if fused else cases.GRID:
    for dtype in (np.float32, np.float64):
        got, _ = cases.trajectory(dtype, options)
        expected, _ = cases.torch_trajectory(torch, dtype, options)
        if any(x.tobytes() != y.tobytes() for x, y in zip(got, expected, strict=True)):
            different.append([cases.name_of(options), dtype.__name__])
print(json.dumps({"fused": fused, "different": different}))
"""


@pytest.mark.parity
@pytest.mark.slow
def test_equals_pytorchs_unfused_kernels_to_the_last_bit() -> None:
    pytest.importorskip("torch")
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", _UNFUSED, str(Path(__file__))], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    if result["fused"]:
        pytest.skip("PyTorch has no kernels without fused multiply-add on this processor")
    assert result["different"] == []


@pytest.mark.parity
@pytest.mark.parametrize("into_torch", [True, False], ids=["ours-to-torch", "torch-to-ours"])
def test_state_dict_is_exchangeable_with_pytorch(into_torch: bool) -> None:
    torch = pytest.importorskip("torch")
    options = {"momentum": 0.9, "weight_decay": 0.05, "nesterov": True}

    def convert(state: dict[str, Any], make: Callable[[Any], Any]) -> dict[str, Any]:
        entries = {n: {k: make(v) for k, v in entry.items()} for n, entry in state["state"].items()}
        return {"state": entries, "param_groups": state["param_groups"]}

    _, ours = trajectory(np.float64, options)
    _, theirs = torch_trajectory(torch, np.float64, options)
    a, b = ours.state_dict(), theirs.state_dict()
    assert a["state"].keys() == b["state"].keys()
    assert [g["params"] for g in a["param_groups"]] == [g["params"] for g in b["param_groups"]]
    if into_torch:
        theirs.load_state_dict(convert(a, lambda tensor: torch.tensor(tensor.numpy())))
    else:
        ours.load_state_dict(convert(b, lambda tensor: tensor.numpy()))
    for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        for mine, its in zip(group["params"], other["params"], strict=True):
            if mine.numel():
                x, y = ours.state[mine]["momentum_buffer"], theirs.state[its]["momentum_buffer"]
                np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=0, atol=1e-12)
    theirs.step()
    ours.step()
    for mine, its in zip(ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        np.testing.assert_allclose(mine._data, its.detach().numpy(), rtol=0, atol=1e-12)


def test_first_buffer_is_a_copy_of_the_gradient_without_dampening() -> None:
    param = Tensor(np.zeros(3, np.float32), requires_grad=True)
    optimizer = SGD([param], lr=1.0, momentum=0.9, dampening=0.5)
    grad = param.grad = Tensor(np.array([1, 2, 3], np.float32))
    optimizer.step()
    buffer = optimizer.state[param]["momentum_buffer"]
    np.testing.assert_array_equal(buffer.numpy(), [1, 2, 3])
    grad._data.fill(0)
    np.testing.assert_array_equal(buffer.numpy(), [1, 2, 3])
    np.testing.assert_array_equal(param._data, [-1, -2, -3])


def test_a_parameter_without_gradient_is_left_alone() -> None:
    param = Tensor(np.ones(3, np.float32), requires_grad=True)
    optimizer = SGD([param], lr=1.0, momentum=0.9, weight_decay=0.5)
    version = param._version
    optimizer.step()
    np.testing.assert_array_equal(param._data, 1)
    assert param._version == version and not optimizer.state


def test_a_zero_gradient_still_decays_and_coasts() -> None:
    param = Tensor(np.ones(1), requires_grad=True)
    optimizer = SGD([param], lr=1.0, momentum=0.5, weight_decay=0.5)
    for expected in (0.5, 0.0):
        param.grad = Tensor(np.zeros(1))
        optimizer.step()
        assert param.item() == expected


def test_updates_in_place_and_backward_notices() -> None:
    param = Tensor(np.array([2.0]), requires_grad=True)
    memory = param._data
    saved = param * param
    param.grad = Tensor(np.array([1.0]))
    optimizer = SGD([param], lr=0.5, momentum=0.9)
    optimizer.step()
    assert param._data is memory and memory[0] == 1.5
    assert param.is_leaf and param.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.sum().backward()


def test_gradients_are_not_changed() -> None:
    for options in GRID:
        param = Tensor(np.ones(5), requires_grad=True)
        grad = np.arange(5.0)
        optimizer = SGD([param], lr=0.1, **options)  # type: ignore[arg-type]
        for _ in range(2):
            param.grad = Tensor(grad)
            optimizer.step()
        np.testing.assert_array_equal(grad, np.arange(5.0))


@pytest.mark.parametrize("options", [GRID[0], GRID[-1], GRID[-5]], ids=name_of)
def test_memory_that_is_not_contiguous(options: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    values, grads = generator.standard_normal((30, 20)), generator.standard_normal((3, 20, 30))
    across = Tensor(values.T.copy().T, requires_grad=True)
    plain = Tensor(values.copy(), requires_grad=True)
    every_second = Tensor(np.repeat(values, 2, axis=1)[:, ::2], requires_grad=True)
    optimizer = SGD([across, plain, every_second], lr=0.1, **options)
    for grad in grads:
        across.grad, plain.grad, every_second.grad = (Tensor(grad.T), Tensor(grad.T.copy()), Tensor(grad.T))
        optimizer.step()
    assert not across.is_contiguous() and not every_second.is_contiguous()
    np.testing.assert_array_equal(across._data, plain._data)
    np.testing.assert_array_equal(every_second._data, plain._data)


def test_a_step_allocates_nothing_of_a_parameters_size() -> None:
    param = Tensor(np.zeros(500_000, np.float32), requires_grad=True)
    param.grad = Tensor(np.ones(500_000, np.float32))
    optimizer = SGD([param], lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True, maximize=True)
    optimizer.step()
    tracemalloc.start()
    try:
        optimizer.step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000, f"{peak} bytes"


def test_values_that_are_not_finite_pass_without_a_warning() -> None:
    param = Tensor(np.array([1.0, 1.0, 3e38], np.float32), requires_grad=True)
    param.grad = Tensor(np.array([np.inf, np.nan, -3e38], np.float32))
    SGD([param], lr=10.0, momentum=0.9).step()
    assert np.isneginf(param._data[0]) and np.isnan(param._data[1]) and np.isposinf(param._data[2])


def test_the_rate_is_read_at_every_step() -> None:
    param = Tensor(np.zeros(1, np.float32), requires_grad=True)
    param.grad = Tensor(np.ones(1, np.float32))
    optimizer = SGD([param], lr=1.0)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = np.float64(0.5)
    optimizer.step()
    assert param.item() == -1.5 and param.dtype == np.float32


def test_half_precision_keeps_its_dtype() -> None:
    param = Tensor(np.ones(3, np.float16), requires_grad=True)
    param.grad = Tensor(np.full(3, 0.5, np.float16))
    optimizer = SGD([param], lr=0.5, momentum=0.9)
    optimizer.step()
    assert param.dtype == np.float16 and optimizer.state[param]["momentum_buffer"].dtype == np.float16
    np.testing.assert_array_equal(param._data, 0.75)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.1}, "Invalid learning rate: -0.1"),
        ({"lr": float("nan")}, "Invalid learning rate: nan"),
        ({"momentum": -1}, "Invalid momentum value: -1"),
        ({"weight_decay": -0.5}, "Invalid weight_decay value: -0.5"),
        ({"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
        (
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            "Nesterov momentum requires a momentum and zero dampening",
        ),
    ],
)
def test_refuses_impossible_hyperparameters(options: dict[str, Any], message: str) -> None:
    param = Tensor(np.ones(1), requires_grad=True)
    with pytest.raises(ValueError, match=f"^{message}$"):
        SGD([param], **options)
    with pytest.raises(ValueError, match=f"^{message}$"):
        SGD([{"params": [param], **options}])


def test_maximize_is_keyword_only() -> None:
    with pytest.raises(TypeError):
        SGD([Tensor(np.ones(1), requires_grad=True)], 0.1, 0, 0, 0, False, True)  # type: ignore[misc]


def test_descends_a_quadratic() -> None:
    x = Tensor(np.array([5.0, -3.0]), requires_grad=True)
    optimizer = SGD([x], lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(200):
        optimizer.zero_grad()
        ((x - 1.0) ** 2).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(x._data, 1.0, atol=1e-6)
