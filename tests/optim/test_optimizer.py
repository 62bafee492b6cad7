"""The base class: groups, errors, zero_grad, closures, and state that survives a file."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad.autograd import Tensor
from distgrad.optim import SGD, Optimizer
from distgrad.optim.optimizer import required


class Halve(Optimizer):
    """The smallest optimizer that a user could write: needs ``lr``, counts its steps, remembers the last value."""

    parameter_shaped = ("before",)

    def __init__(self, params: Any, **defaults: Any) -> None:
        super().__init__(params, {"lr": required, **defaults})

    def update_group(self, group: dict[str, Any]) -> None:
        assert not distgrad.is_grad_enabled()
        for param in group["params"]:
            if param.grad is None:
                continue
            state = self.state[param]
            state["step"] = Tensor(np.array(state["step"]._data + 1 if state else 1.0, dtype=np.float32))
            state["before"] = Tensor(param._data.copy())
            param._data *= group["lr"]
            param._changed()


def leaf(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def with_grad(tensor: Tensor) -> Tensor:
    tensor.grad = Tensor(np.ones_like(tensor._data))
    return tensor


def test_params_become_one_group_in_their_order() -> None:
    tensors = [leaf(2), leaf(3), leaf(4)]
    optimizer = SGD(iter(tensors), lr=0.5)
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in tensors]
    assert group["lr"] == 0.5 and group["momentum"] == 0 and group["maximize"] is False
    choices = {"foreach": None, "differentiable": False, "fused": None}
    assert set(group) == {"params", "lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", *choices}
    assert {key: group[key] for key in choices} == choices


def test_groups_override_defaults_and_are_copied() -> None:
    first, second = leaf(2), leaf(3)
    given: list[dict[str, Any]] = [{"params": first}, {"params": (p for p in [second]), "lr": 0.1}]
    optimizer = SGD(given, lr=0.5, momentum=0.9)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert optimizer.param_groups[0]["params"][0] is first
    assert set(given[0]) == {"params"}, "the caller's dict is not written to"


def test_add_param_group_of_an_unfrozen_layer() -> None:
    head, backbone = with_grad(leaf(2)), with_grad(leaf(3))
    optimizer = SGD([head], lr=1.0)
    optimizer.add_param_group({"params": backbone, "lr": 0.5})
    before = backbone._data.copy()
    optimizer.step()
    np.testing.assert_array_equal(backbone._data, before - np.float32(0.5))


def test_names_are_kept() -> None:
    optimizer = SGD([("weight", leaf(2)), ("bias", leaf(1))], lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ValueError, match=r"with/without names\. cannot add param group without names"):
        optimizer.add_param_group({"params": [leaf(1)]})
    unnamed = SGD([leaf(1)])
    with pytest.raises(ValueError, match=r"cannot add param group with names"):
        unnamed.add_param_group({"params": [("weight", leaf(1))]})
    with pytest.raises(ValueError, match="Some param names are missing"):
        SGD([("weight", leaf(2)), leaf(1)])


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (list, ValueError, "optimizer got an empty parameter list"),
        (lambda: (p for p in ()), ValueError, "optimizer got an empty parameter list"),
        (lambda: leaf(2), TypeError, "should be an iterable of Tensors or dicts, but got Tensor"),
        (lambda: {leaf(2)}, TypeError, "organized in ordered collections"),
        (lambda: [{"params": {leaf(2)}}], TypeError, "organized in ordered collections"),
        (lambda: [np.ones(2)], TypeError, "optimizer can only optimize Tensors, but one of the params is ndarray"),
        (lambda: {"params": [leaf(2)]}, TypeError, "optimizer can only optimize Tensors, but one of the params is str"),
        (lambda: [{"params": [leaf(2)]}, leaf(3)], TypeError, "param_group must be a dict, but got"),
        (lambda: [{"lr": 0.1}], ValueError, "needs the key 'params'"),
        (lambda: [leaf(2) * 2], ValueError, "can't optimize a non-leaf Tensor"),
        (lambda: [leaf(2)] * 2, ValueError, "duplicate parameters"),
        (
            lambda: (lambda p: [{"params": [p]}, {"params": [leaf(1), p]}])(leaf(2)),
            ValueError,
            "some parameters appear in more than one parameter group",
        ),
    ],
)
def test_parameters_that_cannot_be_optimized(params: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SGD(params(), lr=0.1)


def test_a_refused_group_is_not_added() -> None:
    param = leaf(2)
    optimizer = SGD([param])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [param]})
    with pytest.raises(TypeError, match="param_group must be a dict"):
        optimizer.add_param_group([leaf(2)])  # type: ignore[arg-type]
    assert len(optimizer.param_groups) == 1


def test_required_hyperparameter() -> None:
    with pytest.raises(ValueError, match="didn't specify a value of required optimization parameter lr"):
        Halve([{"params": [leaf(1)], "lr": 0.1}, {"params": [leaf(1)]}])
    assert Halve([{"params": [leaf(1)], "lr": 0.1}]).param_groups[0]["lr"] == 0.1
    assert repr(required) == "<required parameter>"


def test_a_nonleaf_that_retains_its_gradient_can_be_optimized() -> None:
    hidden = leaf(2) * 2
    hidden.retain_grad()
    assert len(SGD([hidden]).param_groups) == 1


def test_base_class_has_no_rule() -> None:
    with pytest.raises(NotImplementedError, match="Optimizer has no update_group"):
        Optimizer([leaf(1)], {}).step()


def test_zero_grad() -> None:
    used, unused = with_grad(leaf(3)), leaf(2)
    optimizer = SGD([used, unused])
    grad = used.grad
    assert grad is not None
    version = grad._version
    optimizer.zero_grad(set_to_none=False)
    assert used.grad is grad and not grad._data.any() and grad._version == version + 1
    assert unused.grad is None
    optimizer.zero_grad()
    assert used.grad is None


def test_zero_grad_leaves_a_recorded_gradient_alone() -> None:
    x = leaf(3, dtype=np.float64)
    (x * x * x).sum().backward(create_graph=True)
    recorded = x.grad
    assert recorded is not None and recorded.requires_grad
    values = recorded._data.copy()
    SGD([x]).zero_grad(set_to_none=False)
    np.testing.assert_array_equal(recorded._data, values)
    assert x.grad is not recorded and not x.grad._data.any() and not x.grad.requires_grad


def test_closure_is_recorded_and_its_loss_returned() -> None:
    x = Tensor(np.array([3.0]), requires_grad=True)
    optimizer = SGD([x], lr=0.25)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (x * x).sum()
        loss.backward()
        return loss

    with distgrad.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 9.0 and loss.requires_grad
    assert x.item() == 3.0 - 0.25 * 6.0
    assert x.requires_grad and x.is_leaf
    assert optimizer.step() is None


def test_state_dict_layout() -> None:
    frozen, weight, bias = leaf(4), with_grad(leaf(2, 3)), with_grad(leaf(2))
    optimizer = SGD([{"params": [frozen, weight]}, {"params": [bias], "lr": 0.2}], lr=0.1, momentum=0.9)
    assert optimizer.state_dict()["state"] == {}
    optimizer.step()
    state = optimizer.state_dict()
    assert set(state) == {"state", "param_groups"}
    assert {number: set(entry) for number, entry in state["state"].items()} == {
        1: {"momentum_buffer"},
        2: {"momentum_buffer"},
    }
    assert isinstance(state["state"][1]["momentum_buffer"], Tensor)
    assert [group["params"] for group in state["param_groups"]] == [[0, 1], [2]]
    assert [group["lr"] for group in state["param_groups"]] == [0.1, 0.2]


def run_steps(optimizer: Optimizer, tensors: list[Tensor], steps: range) -> None:
    for step in steps:
        for number, tensor in enumerate(tensors):
            values = np.random.default_rng((step, number)).standard_normal(tensor.shape)
            tensor.grad = Tensor(values.astype(tensor.dtype))
        optimizer.step()


def as_arrays(value: Any) -> Any:
    """What a checkpoint makes of a state: arrays, which cannot be written to."""
    if isinstance(value, Tensor):
        array = value._data.copy()
        array.flags.writeable = False
        return array
    if isinstance(value, dict):
        return {key: as_arrays(inner) for key, inner in value.items()}
    return [as_arrays(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("through_arrays", [False, True])
def test_resuming_midway_gives_the_same_bits(through_arrays: bool) -> None:
    def fresh(lr: float) -> tuple[list[Tensor], SGD]:
        tensors = [leaf(5, 4), leaf(7, seed=1), leaf(3, seed=2)]
        groups = [{"params": tensors[:2]}, {"params": tensors[2:], "weight_decay": 0.1}]
        return tensors, SGD(groups, lr=lr, momentum=0.9, nesterov=True)

    whole, optimizer = fresh(0.1)
    run_steps(optimizer, whole, range(12))

    half, optimizer = fresh(0.1)
    run_steps(optimizer, half, range(5))
    state = optimizer.state_dict()
    state = as_arrays(state) if through_arrays else copy.deepcopy(state)
    values = [tensor._data.copy() for tensor in half]

    resumed, optimizer = fresh(123.0)  # its lr is overwritten
    for tensor, value in zip(resumed, values, strict=True):
        tensor._data[...] = value
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.1 and optimizer.param_groups[1]["weight_decay"] == 0.1
    run_steps(optimizer, resumed, range(5, 12))
    for tensor, expected in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(tensor._data, expected._data)


def test_loading_copies_and_casts() -> None:
    param = with_grad(leaf(3, dtype=np.float32))
    optimizer = SGD([param], lr=0.1, momentum=0.5)
    buffer = np.arange(3, dtype=np.float64)
    groups = [{"lr": 0.3, "params": [0], "foreach": None}]  # PyTorch's further keys do no harm
    optimizer.load_state_dict({"state": {0: {"momentum_buffer": buffer}}, "param_groups": groups})
    loaded = optimizer.state[param]["momentum_buffer"]
    assert isinstance(loaded, Tensor) and loaded.dtype == np.float32
    assert optimizer.param_groups[0]["momentum"] == 0.5, "a key that the state lacks keeps its default"
    optimizer.step()
    np.testing.assert_array_equal(buffer, [0, 1, 2])
    np.testing.assert_array_equal(loaded._data, np.arange(3, dtype=np.float32) * np.float32(0.5) + 1)
    assert groups == [{"lr": 0.3, "params": [0], "foreach": None}]


def test_counters_keep_their_dtype_and_nested_state_its_shape() -> None:
    param = with_grad(leaf(3, dtype=np.float64))
    optimizer = Halve([param], lr=0.5)
    optimizer.step()
    optimizer.state[param]["nested"] = {"pair": (Tensor(np.ones(2, np.float32)), 7), "text": "x"}
    state = optimizer.state_dict()
    other = leaf(3, dtype=np.float64)
    second = Halve([other], lr=0.1)
    second.load_state_dict(state)
    loaded = second.state[other]
    assert loaded["step"].dtype == np.float32 and loaded["step"].item() == 1
    assert loaded["before"].dtype == np.float64
    tensor, number = loaded["nested"]["pair"]
    assert tensor.dtype == np.float64 and number == 7 and loaded["nested"]["text"] == "x"
    assert tensor is not state["state"][0]["nested"]["pair"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["param_groups"].append(s["param_groups"][0]), "a different number of parameter groups: 2"),
        (
            lambda s: s["param_groups"][0].update(params=[0]),
            "a parameter group that doesn't match the size of optimizer's group: group 0 has 1 parameters",
        ),
        (
            lambda s: s["state"][1].update(momentum_buffer=np.zeros((2, 5), np.float32)),
            r"a momentum_buffer of shape \[2, 5\] for parameter 1 \(fc\.bias\), whose shape is \[2\]",
        ),
        (lambda s: s["state"].update({"1": s["state"].pop(1)}), "state for parameter '1', which is in none"),
        (lambda s: s.pop("state"), "has the keys 'state' and 'param_groups', this has"),
    ],
)
def test_state_that_does_not_fit_changes_nothing(change: Any, message: str) -> None:
    params = [("fc.weight", with_grad(leaf(2, 3))), ("fc.bias", with_grad(leaf(2)))]
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 5.0
    change(state)
    before = [optimizer.state[tensor]["momentum_buffer"] for _, tensor in params]
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert all(optimizer.state[p]["momentum_buffer"] is b for (_, p), b in zip(params, before, strict=True))


def test_repr_is_pytorchs() -> None:
    assert repr(SGD([leaf(1)], lr=0.1, momentum=0.9)) == (
        "SGD (\nParameter Group 0\n    dampening: 0\n    differentiable: False\n    foreach: None\n    fused: None\n"
        "    lr: 0.1\n    maximize: False\n    momentum: 0.9\n    nesterov: False\n    weight_decay: 0\n)"
    )


def test_deepcopy_is_independent() -> None:
    param = with_grad(leaf(2))
    optimizer = SGD([param], lr=0.1, momentum=0.9)
    optimizer.step()
    twin = copy.deepcopy(optimizer)
    (copied,) = twin.param_groups[0]["params"]
    assert copied is not param and "momentum_buffer" in twin.state[copied]
    before = param._data.copy()
    twin.step()
    np.testing.assert_array_equal(param._data, before)
    assert (copied._data != before).all()


# --- hooks ---


def test_step_hooks_in_their_order() -> None:
    param = with_grad(leaf(2))
    optimizer = SGD([param], lr=0.5)
    calls: list[Any] = []
    optimizer.register_step_pre_hook(lambda *given: calls.append(("pre 1", *given, param._data.copy())))
    second = optimizer.register_step_pre_hook(lambda *given: calls.append(("pre 2", *given)))
    optimizer.register_step_post_hook(lambda *given: calls.append(("post", *given, param._data.copy())))

    def closure() -> str:
        return "loss"

    before = param._data.copy()
    assert optimizer.step(closure=closure) == "loss"
    assert [call[0] for call in calls] == ["pre 1", "pre 2", "post"]
    for call in calls:
        assert call[1] is optimizer and call[2] == (optimizer,) and call[3] == {"closure": closure}
    np.testing.assert_array_equal(calls[0][4], before)
    np.testing.assert_array_equal(calls[2][4], before - np.float32(0.5))

    second.remove()
    calls.clear()
    optimizer.step(closure)
    assert [call[0] for call in calls] == ["pre 1", "post"]
    assert calls[0][2] == (optimizer, closure) and calls[0][3] == {}


def test_a_step_pre_hook_may_replace_the_arguments() -> None:
    optimizer = SGD([with_grad(leaf(2))])
    optimizer.register_step_pre_hook(lambda own, args, kwargs: ((own, lambda: "mine"), {}))
    assert optimizer.step(lambda: "theirs") == "mine"
    optimizer.register_step_pre_hook(lambda own, args, kwargs: "nonsense")
    with pytest.raises(RuntimeError, match=r"hook of SGD\.step must return None or a tuple .* but got 'nonsense'"):
        optimizer.step()
    assert not optimizer._stepping


def test_a_step_of_a_users_own_has_hooks_once() -> None:
    class Twice(SGD):
        def step(self, closure: Any = None) -> Any:
            super().step()
            return super().step(closure)

    param = with_grad(leaf(2))
    before = param._data.copy()
    optimizer = Twice([param], lr=0.25)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    assert optimizer.step(lambda: 5) == 5
    np.testing.assert_array_equal(param._data, before - np.float32(0.5))
    assert calls == ["pre", "post"]


def test_a_failing_step_does_not_end_the_hooks() -> None:
    optimizer = SGD([with_grad(leaf(2))])
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))

    def closure() -> None:
        raise KeyError("lost")

    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            optimizer.step(closure)
    assert calls == ["pre", "pre"]


def test_state_dict_hooks() -> None:
    optimizer = SGD([with_grad(leaf(2))], lr=0.5, momentum=0.9)
    optimizer.step()
    calls: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda own: calls.append("second"))
    optimizer.register_state_dict_pre_hook(lambda own: calls.append("first"), prepend=True)
    optimizer.register_state_dict_post_hook(lambda own, state: {**state, "note": "mine"})
    optimizer.register_state_dict_post_hook(lambda own, state: calls.append(sorted(state)[0]))
    state = optimizer.state_dict()
    assert calls == ["first", "second", "note"] and state["note"] == "mine"

    optimizer.register_load_state_dict_pre_hook(lambda own, given: given.pop("note") and None)
    optimizer.register_load_state_dict_pre_hook(
        lambda own, given: {**given, "param_groups": [{**given["param_groups"][0], "lr": 0.125}]}
    )
    optimizer.register_load_state_dict_post_hook(lambda own: calls.append(str(own.param_groups[0]["lr"])))
    optimizer.load_state_dict(state)
    assert calls[3:] == ["0.125"]
    assert state["note"] == "mine" and state["param_groups"][0]["lr"] == 0.5, "the caller's dict is not written to"


def test_hooks_stay_with_their_optimizer() -> None:
    optimizer = SGD([with_grad(leaf(2))])
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    twin = copy.deepcopy(optimizer)
    twin.step()
    assert calls == []
    twin.register_step_post_hook(lambda *_: calls.append("post"))
    twin.step()
    optimizer.step()
    assert calls == ["post", "pre"]


def test_hyperparameters_of_a_users_own_are_its_own_affair() -> None:
    class Own(Optimizer):
        def check_group(self, group: dict[str, Any]) -> None:
            if group["alpha"] > 0:
                raise ValueError(f"alpha is {group['alpha']}")

    optimizer = Own([leaf(1)], {"alpha": -1.0})
    assert optimizer.param_groups[0]["alpha"] == -1.0
    with pytest.raises(ValueError, match=r"alpha is 2\.0"):
        Own([leaf(1)], {"alpha": 2.0})
    with pytest.raises(ValueError, match=r"alpha is 3\.0"):
        optimizer.add_param_group({"params": [leaf(2)], "alpha": 3.0})
    assert len(optimizer.param_groups) == 1
