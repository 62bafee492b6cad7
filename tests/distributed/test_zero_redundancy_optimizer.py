"""An optimizer whose state is shared out among ranks takes the steps of the optimizer alone, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad import distributed, nn, optim
from distgrad.autograd import Tensor
from distgrad.distributed import ZeroRedundancyOptimizer, communicator, threads
from distgrad.distributed import zero_redundancy_optimizer as module
from distgrad.errors import CommunicationError
from distgrad.nn.parameter import Parameter

pytestmark = pytest.mark.timeout(60)

OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
    "SGD": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    "Adam": (optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "AdamW": (optim.AdamW, {"lr": 0.01}),
    "Adamax": (optim.Adamax, {}),
    "NAdam": (optim.NAdam, {}),
    "RAdam": (optim.RAdam, {}),
    "Adagrad": (optim.Adagrad, {}),
    "Adadelta": (optim.Adadelta, {}),
    "RMSprop": (optim.RMSprop, {"momentum": 0.5, "centered": True}),
    "Rprop": (optim.Rprop, {}),
    "ASGD": (optim.ASGD, {"t0": 1.0}),
    "LARS": (optim.LARS, {}),
}
SHAPES = ((7, 5), (5,), (3, 4, 2), (), (11,), (0, 3))


def parameters(dtype: Any = np.float32) -> list[Parameter]:
    generator = np.random.default_rng(0)
    return [Parameter(np.asarray(generator.standard_normal(shape), dtype)) for shape in SHAPES]


def set_gradients(params: list[Parameter], step: int, without: int | None = None) -> None:
    generator = np.random.default_rng([step, 7])
    for position, param in enumerate(params):
        gradient = np.asarray(generator.standard_normal(param.shape), param.dtype)
        param.grad = None if position == without else Tensor(gradient)


def bits(values: Any) -> bytes:
    return b"".join(np.ascontiguousarray(value.detach().numpy()).tobytes() for value in values)


def tensors_of(state: dict[str, Any]) -> dict[tuple[int, str], bytes]:
    return {(n, name): bits([value]) for n, entry in state["state"].items() for name, value in entry.items()}


def alone(kind: str, steps: int, dtype: Any = np.float32) -> tuple[bytes, optim.Optimizer]:
    params = parameters(dtype)
    kind_of, arguments = OPTIMIZERS[kind]
    optimizer = kind_of(params, **arguments)
    for step in range(steps):
        set_gradients(params, step, without=1 if step == 0 else None)
        optimizer.step()
    return bits(params), optimizer


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_steps_are_those_of_the_optimizer_alone(kind: str, world_size: int) -> None:
    expected, whole = alone(kind, 4)

    def rank() -> tuple[bytes, dict[tuple[int, str], bytes] | None, int]:
        params = parameters()
        kind_of, arguments = OPTIMIZERS[kind]
        optimizer = ZeroRedundancyOptimizer(params, kind_of, **arguments)
        for step in range(4):
            set_gradients(params, step, without=1 if step == 0 else None)
            optimizer.step()
        kept = sum(value.nbytes for entry in optimizer.optim.state.values() for value in entry.values())
        optimizer.consolidate_state_dict(to=world_size - 1)
        if distributed.rank() != world_size - 1:
            with pytest.raises(RuntimeError, match=f"consolidate_state_dict\\(to={distributed.rank()}\\)"):
                optimizer.state_dict()
            return bits(params), None, kept
        return bits(params), tensors_of(optimizer.state_dict()), kept

    results = threads.run(world_size, rank, timeout=20)
    assert {values for values, _, _ in results} == {expected}
    assert results[-1][1] == tensors_of(whole.state_dict())
    total = sum(value.nbytes for entry in whole.state.values() for value in entry.values())
    assert sum(kept for _, _, kept in results) == total, "every piece of state is on one rank"


@pytest.mark.parametrize("message_bytes", [1, 64, 256])
def test_parameters_travel_in_pieces_of_any_size(message_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGE_BYTES", message_bytes)
    expected, _ = alone("Adam", 2)

    def rank() -> bytes:
        params = parameters()
        optimizer = ZeroRedundancyOptimizer(params, *OPTIMIZERS["Adam"][:1], **OPTIMIZERS["Adam"][1])
        for step in range(2):
            set_gradients(params, step, without=1 if step == 0 else None)
            optimizer.step()
        return bits(params)

    assert set(threads.run(3, rank, timeout=20)) == {expected}


def test_parameters_that_are_views_and_of_several_dtypes() -> None:
    def make() -> list[Parameter]:
        base = np.arange(24, dtype=np.float64).reshape(4, 6)
        turned = Parameter(Tensor(base.T))
        assert not turned._data.flags.c_contiguous
        return [turned, *parameters(np.float32), *parameters(np.float64)[:2]]

    def run(make_optimizer: Callable[[list[Parameter]], optim.Optimizer]) -> bytes:
        params = make()
        optimizer = make_optimizer(params)
        for step in range(3):
            set_gradients(params, step)
            versions = [param._version for param in params]
            optimizer.step()
            changed = [now._version > before for now, before in zip(params, versions, strict=True)]
            assert all(changed), "a backward pass that has saved the old values has to notice"
        return bits(params)

    expected = run(lambda params: optim.SGD(params, lr=0.1, momentum=0.9))
    ranks = threads.run(
        3, lambda: run(lambda params: ZeroRedundancyOptimizer(params, optim.SGD, lr=0.1, momentum=0.9)), timeout=20
    )
    assert set(ranks) == {expected}


def test_each_rank_keeps_a_fair_part_of_the_state(capsys: pytest.CaptureFixture[str]) -> None:
    layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(12)))

    def kept(world_size: int) -> list[int]:
        def rank() -> int:
            model = copy.deepcopy(layers)
            optimizer = ZeroRedundancyOptimizer(model.parameters(), optim.Adam)
            for param in model.parameters():
                param.grad = Tensor(np.ones(param.shape, np.float32))
            optimizer.step()
            state = optimizer.optim.state.values()
            return sum(value.nbytes for entry in state for value in entry.values() if value.ndim)

        return threads.run(world_size, rank, timeout=20)

    (whole,) = kept(1)
    assert whole == 2 * sum(param.nbytes for param in layers.parameters())
    for world_size in (2, 3, 4, 6):
        parts = kept(world_size)
        print(f"Adam's state on {world_size} ranks: {parts} of {whole} bytes")
        assert parts == [whole // world_size] * world_size
    assert "on 4 ranks: [99840, 99840, 99840, 99840] of 399360 bytes" in capsys.readouterr().out


def test_the_largest_parameters_are_shared_out_first() -> None:
    sizes = (10, 60, 30, 40, 20)
    params = [Parameter(np.zeros(size)) for size in sizes]

    def rank() -> list[int]:
        optimizer = ZeroRedundancyOptimizer([{"params": params[:4]}, {"params": params[4:]}], optim.SGD)
        with pytest.raises(KeyError):
            optimizer.owner(Parameter(np.zeros(1)))
        return [optimizer.owner(param) for param in params]

    # 60 to rank 0, 40 and then 30 to rank 1, 10 to rank 0; of the second group 20 to rank 0 or 1 at 70 each
    assert threads.run(2, rank, timeout=20) == [[0, 0, 1, 1, 0]] * 2


@pytest.mark.parametrize("kind", ["SGD", "Adam", "ASGD"])
@pytest.mark.parametrize(("before", "after"), [(4, 3), (1, 2), (3, 1)])
def test_a_consolidated_state_goes_on_at_another_world_size(kind: str, before: int, after: int) -> None:
    expected, _ = alone(kind, 5)
    kind_of, arguments = OPTIMIZERS[kind]

    def first() -> tuple[list[Any], dict[str, Any] | None]:
        params = parameters()
        optimizer = ZeroRedundancyOptimizer(params, kind_of, **arguments)
        for step in range(2):
            set_gradients(params, step, without=1 if step == 0 else None)
            optimizer.step()
        optimizer.consolidate_state_dict()
        state = optimizer.state_dict() if distributed.rank() == 0 else None
        return [param.detach().numpy().copy() for param in params], copy.deepcopy(state)

    values, state = threads.run(before, first, timeout=20)[0]
    assert state is not None

    def go_on(make: Callable[[list[Parameter]], optim.Optimizer]) -> bytes:
        params = [Parameter(value.copy()) for value in values]
        optimizer = make(params)
        optimizer.load_state_dict(state)
        for step in range(2, 5):
            set_gradients(params, step)
            optimizer.step()
        return bits(params)

    def second() -> bytes:
        return go_on(lambda params: ZeroRedundancyOptimizer(params, kind_of, lr=123.0))

    assert set(threads.run(after, second, timeout=20)) == {expected}
    assert go_on(lambda params: kind_of(params, lr=123.0)) == expected, "the optimizer alone takes it too"


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    def rank() -> str:
        params = parameters()
        optimizer = ZeroRedundancyOptimizer(params, optim.SGD, lr=0.1, momentum=0.9)
        set_gradients(params, 0)
        optimizer.step()
        optimizer.consolidate_state_dict()
        if distributed.rank() == 0:
            state = copy.deepcopy(optimizer.state_dict())
            state["state"][2]["momentum_buffer"] = Tensor(np.zeros((9, 9)))
        else:  # the same on every rank, whoever keeps it
            groups = [{"lr": 0.5, "params": list(range(len(params)))}]
            state = {"state": {2: {"momentum_buffer": Tensor(np.zeros((9, 9)))}}, "param_groups": groups}
        before = {param: entry["momentum_buffer"].tolist() for param, entry in optimizer.optim.state.items()}
        with pytest.raises(ValueError) as refused:
            optimizer.load_state_dict(state)
        after = {param: entry["momentum_buffer"].tolist() for param, entry in optimizer.optim.state.items()}
        assert after == before and optimizer.param_groups[0]["lr"] == 0.1
        return str(refused.value)

    (message,) = set(threads.run(3, rank, timeout=20))
    assert "momentum_buffer of shape [9, 9] for parameter 2" in message


def test_a_state_is_stale_after_a_step() -> None:
    params = parameters()
    optimizer = ZeroRedundancyOptimizer(params, optim.Adam)
    with pytest.raises(RuntimeError, match="call consolidate_state_dict"):
        optimizer.state_dict()
    set_gradients(params, 0)
    optimizer.step()
    optimizer.consolidate_state_dict()
    assert len(optimizer.state_dict()["state"]) == len(params)
    optimizer.step()
    with pytest.raises(RuntimeError, match="after the last step"):
        optimizer.state_dict()


def test_groups_schedules_closures_and_hooks() -> None:
    def train(make: Callable[[list[Any]], optim.Optimizer]) -> tuple[bytes, list[float]]:
        params = parameters(np.float64)
        optimizer = make([{"params": params[:2], "lr": 0.3}, {"params": params[2:4]}])
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.5, 0.2], total_steps=8)
        calls: list[str] = []
        optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_: calls.append("after"))

        def closure() -> float:
            set_gradients(params, len(calls))
            return 7.0

        for step in range(6):
            if step == 3:
                optimizer.add_param_group({"params": params[4:], "lr": 0.05, "weight_decay": 0.1})
                schedule = optim.lr_scheduler.StepLR(optimizer, 2)
            optimizer.zero_grad()
            assert all(param.grad is None for group in optimizer.param_groups for param in group["params"])
            assert optimizer.step(closure) == 7.0
            schedule.step()
        assert calls == ["before", "after"] * 6
        return bits(params), [group["lr"] for group in optimizer.param_groups]

    expected = train(lambda groups: optim.SGD(groups, lr=0.1, momentum=0.9))
    ranks = threads.run(
        3, lambda: train(lambda groups: ZeroRedundancyOptimizer(groups, optim.SGD, lr=0.1, momentum=0.9)), timeout=20
    )
    assert ranks == [expected] * 3


def test_named_parameters_keep_their_names() -> None:
    def rank() -> list[str]:
        model = nn.Linear(3, 2)
        optimizer = ZeroRedundancyOptimizer(model.named_parameters(), optim.AdamW)
        model(Tensor(np.ones((1, 3), np.float32))).sum().backward()
        optimizer.step()
        optimizer.consolidate_state_dict(to=1)
        return optimizer.state_dict()["param_groups"][0]["param_names"] if distributed.rank() == 1 else []

    assert threads.run(2, rank, timeout=20)[1] == ["weight", "bias"]


class Counting(optim.Optimizer):
    """A user's own: counts in its group, keeps a number and an integer tensor beside its average."""

    def __init__(self, params: Any, lr: Any = optim.optimizer.required) -> None:
        super().__init__(params, {"lr": lr, "steps": 0})

    def update_group(self, group: dict[str, Any]) -> None:
        group["steps"] += 1
        for param in group["params"]:
            state = self.state[param]
            state["times"] = state.get("times", 0) + 1
            state.setdefault("count", Tensor(np.zeros(2, np.int64)))._data[...] += 1
            param._data[...] -= group["lr"] / group["steps"] * param.grad._data
            param._changed()


def test_an_optimizer_of_a_users_own() -> None:
    def train(make: Callable[[list[Any]], optim.Optimizer]) -> tuple[bytes, Any]:
        params = parameters()
        optimizer = make([{"params": params, "lr": 0.1}])
        for step in range(3):
            set_gradients(params, step)
            optimizer.step()
        if isinstance(optimizer, ZeroRedundancyOptimizer):
            optimizer.consolidate_state_dict()
            if distributed.rank():
                return bits(params), None
        state = optimizer.state_dict()
        entries = {n: (entry["times"], entry["count"].tolist()) for n, entry in state["state"].items()}
        return bits(params), (entries, state["param_groups"])

    expected = train(Counting)
    ranks = threads.run(3, lambda: train(lambda groups: ZeroRedundancyOptimizer(groups, Counting)), timeout=20)
    assert ranks[0] == expected and {values for values, _ in ranks} == {expected[0]}


def test_ranks_with_different_parameters_are_told_so() -> None:
    def rank(shape: bool) -> str:
        odd = communicator().rank == 2
        params = [Parameter(np.zeros(3)), Parameter(np.zeros(4 if odd and shape else 5))]
        groups = [{"params": params[:1]}, {"params": params[1:]}] if odd and not shape else params
        with pytest.raises(CommunicationError) as refused:
            ZeroRedundancyOptimizer(groups, optim.SGD)
        return str(refused.value)

    (message,) = set(threads.run(3, rank, True, timeout=20))
    assert "parameter 1 is float64 [5] on rank 0 but float64 [4] on rank 2" in message
    (message,) = set(threads.run(3, rank, False, timeout=20))
    assert "the groups have [2] parameters on rank 0 but [1, 1] on rank 2" in message

    def later() -> list[int]:
        optimizer = ZeroRedundancyOptimizer([Parameter(np.zeros(3))], optim.SGD)
        with pytest.raises(CommunicationError, match=r"float64 \[1\] on rank 0 but float64 \[2\] on rank 1"):
            optimizer.add_param_group({"params": [Parameter(np.zeros(communicator().rank + 1))]})
        optimizer.add_param_group({"params": [Parameter(np.zeros(2))]})
        return [len(group["params"]) for group in optimizer.param_groups]

    assert threads.run(2, later, timeout=20) == [[1, 1]] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((optim.LBFGS,), ValueError, "cannot share out LBFGS"),
        ((ZeroRedundancyOptimizer,), ValueError, "cannot share out a ZeroRedundancyOptimizer"),
        (("Adam",), TypeError, "optimizer_class is 'Adam'"),
        ((optim.ExponentialMovingAverage,), TypeError, "must be a class of distgrad.optim"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(arguments: tuple[Any, ...], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ZeroRedundancyOptimizer(parameters(), *arguments)


def test_arguments_are_checked_as_by_the_optimizer() -> None:
    params = parameters()
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        ZeroRedundancyOptimizer(params, optim.SGD, lr=-1)
    with pytest.raises(ValueError, match="empty parameter list"):
        ZeroRedundancyOptimizer([], optim.SGD)
    with pytest.raises(TypeError, match="iterable of Tensors or dicts"):
        ZeroRedundancyOptimizer(params[0], optim.SGD)
    optimizer = ZeroRedundancyOptimizer(params, optim.Adam)
    with pytest.raises(ValueError, match="beta"):
        optimizer.add_param_group({"params": [Parameter(np.zeros(1))], "betas": (2.0, 0.9)})
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": params[:1]})
    with pytest.raises(ValueError, match="to is 1, but the ranks are 0 to 0"):
        optimizer.consolidate_state_dict(to=1)


def test_state_that_cannot_be_collected_is_named() -> None:
    params = parameters()[:1]
    optimizer = ZeroRedundancyOptimizer(params, optim.SGD)
    optimizer.state[params[0]]["history"] = [1, 2]
    with pytest.raises(TypeError, match="the state 'history' is a list"):
        optimizer.consolidate_state_dict()
