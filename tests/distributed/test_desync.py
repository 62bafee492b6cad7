"""Ranks whose models have gone apart, on purpose: what differs is named, with rank and step, or healed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad import distributed, nn, no_grad, optim
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel, threads
from distgrad.distributed.desync import PIECE, DesyncCheck, digest
from distgrad.distributed.sync_batch_norm import SyncBatchNorm
from distgrad.distributed.zero_redundancy_optimizer import ZeroRedundancyOptimizer
from distgrad.errors import CommunicationError

pytestmark = pytest.mark.timeout(60)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)
        generator = np.random.default_rng(0)
        with no_grad():
            for parameter in self.parameters():
                parameter.detach().numpy()[...] = generator.standard_normal(parameter.shape)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


Training = tuple[Net, optim.Optimizer, Callable[[], None]]


def training(make: Callable[..., optim.Optimizer] | None = None) -> Training:
    net = Net()
    model = DistributedDataParallel(net)
    optimizer = make(net.parameters()) if make is not None else optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    generator = np.random.default_rng(distributed.rank())

    def step() -> None:
        optimizer.zero_grad()
        (model(Tensor(generator.standard_normal((5, 3)).astype(np.float32))) ** 2).mean().backward()
        optimizer.step()

    return net, optimizer, step


def message_of(world_size: int, body: Callable[[], None]) -> str:
    """What every rank raises, which has to be the same."""

    def caught() -> str:
        with pytest.raises(CommunicationError) as raised:
            body()
        return str(raised.value)

    (message,) = set(threads.run(world_size, caught, timeout=10.0))
    return message


def change(array: np.ndarray[Any, Any], index: Any, by: float) -> None:
    array[index] += by


@pytest.mark.parametrize("make", [None, lambda p: optim.Adam(p, lr=0.1), lambda p: optim.SGD(p, lr=0.1)])
def test_ranks_that_train_together_stay_equal(make: Any) -> None:
    def body() -> list[int]:
        net, optimizer, step = training(make)
        check = DesyncCheck(net, optimizer, every=2)
        for _ in range(5):
            step()
            assert check.step()
        return [check.steps, check.equal_at]

    assert threads.run(3, body) == [[5, 4]] * 3


def test_a_weight_of_one_rank_is_named_with_rank_and_step() -> None:
    def body() -> None:
        net, optimizer, step = training()
        check = DesyncCheck(DistributedDataParallel(net), optimizer, every=2)
        for n in range(1, 10):
            if n == 5 and distributed.rank() == 2:
                change(net.body[0].weight.detach().numpy(), (1, 2), 3e-4)
            step()
            check.step()

    message = message_of(4, body)
    assert re.match(
        r"step 6: parameter body\.0\.weight of rank 2 differs from rank 0 \(max difference 0\.000\d+ at \[1, 2\], ",
        message,
    ) or message.startswith("step 6: parameter body.0.weight of rank 2 differs from rank 0 (max difference ")
    assert "they were equal at step 4" in message and "heal=True" in message


def test_the_odd_one_is_found_by_majority_even_if_it_is_rank_0() -> None:
    def body() -> None:
        net = Net()
        if distributed.rank() == 0:
            change(net.head.bias.detach().numpy(), 1, 0.25)
        DesyncCheck(net).check()

    assert message_of(3, body).startswith(
        "step 0: parameter head.bias of rank 0 differs from rank 1 (max difference 0.25 at [1], 1 of 2 elements); this "
        "is the first check"
    )
    assert "parameter head.bias of rank 1 differs from rank 0 " in message_of(2, body)  # no majority of two


def test_several_odd_ones_and_many_differences() -> None:
    def body() -> None:
        net = Net()
        rank = distributed.rank()
        if rank in (1, 4):
            for parameter in net.parameters():
                change(parameter.detach().numpy(), ..., rank)
        DesyncCheck(net).check()

    message = message_of(5, body)
    assert re.search(
        r"parameter body\.0\.weight of ranks 1, 4 differ from rank 0 \(max difference 4 at \[\d, \d\], 12 of 12",
        message,
    )
    assert message.count("differ from") == 4 and "and 2 more" in message


def test_momentum_of_one_rank() -> None:
    def body() -> None:
        net, optimizer, step = training()
        check = DesyncCheck(net, optimizer, every=1)
        step()
        check.step()
        if distributed.rank() == 1:
            change(optimizer.state[net.head.bias]["momentum_buffer"].detach().numpy(), 0, 1.5)
        check.step()

    message = message_of(3, body)
    assert message.startswith(
        "step 2: optimizer state momentum_buffer of head.bias of rank 1 differs from rank 0 (max difference 1.5 at [0]"
    )


def test_state_that_one_rank_lacks_and_other_hyperparameters() -> None:
    def lacking() -> None:
        net, optimizer, step = training()
        step()
        if distributed.rank() == 1:
            del optimizer.state[net.head.weight]
        DesyncCheck(net, optimizer).check()

    assert "state momentum_buffer of head.weight exists on rank 0 but not on rank 1" in message_of(3, lacking)

    def faster() -> None:
        net, optimizer, _ = training(lambda p: optim.Adam(p, lr=0.1))
        if distributed.rank() == 2:
            optimizer.param_groups[0]["lr"] = 0.2
            optimizer.param_groups[0]["betas"] = (0.5, 0.9)
        DesyncCheck(net, optimizer).check()

    message = message_of(3, faster)
    assert "optimizer group 0, lr is 0.2 on rank 2 but 0.1 on rank 0" in message
    assert "optimizer group 0, betas is [0.5, 0.9] on rank 2 but [0.9, 0.999] on rank 0" in message


def test_buffers() -> None:
    """Running statistics follow each rank's own data, and are no desync; other buffers are."""

    def running(buffers: bool | None) -> Callable[[], None]:
        def body() -> None:
            net, optimizer, step = training()
            step()
            DesyncCheck(net, optimizer, buffers=buffers).check()

        return body

    threads.run(2, running(None))
    threads.run(2, running(False))
    assert "buffer body.1.running_mean of rank 1 differs from rank 0" in message_of(2, running(True))

    def other(build: Callable[[], nn.Module]) -> Callable[[], None]:
        def body() -> None:
            module = build()
            if distributed.rank() == 1:
                next(module.buffers()).fill_(7)
            DesyncCheck(module).check()

        return body

    def plain() -> nn.Module:
        module = nn.Module()
        module.register_buffer("table", Tensor(np.zeros(3)))
        return module

    assert "buffer table of rank 1 differs" in message_of(2, other(plain))
    assert "buffer running_mean of rank 1" in message_of(2, other(lambda: nn.BatchNorm1d(2).eval()))
    assert "buffer running_mean of rank 1" in message_of(2, other(lambda: SyncBatchNorm(2)))


def test_what_is_frozen_can_be_left_out() -> None:
    def body(frozen: bool) -> None:
        net = Net()
        nn.freeze(net.body)
        if distributed.rank() == 1:
            change(net.body[0].weight.detach().numpy(), 0, 1.0)
            net.body[1].running_mean.fill_(2)
        DesyncCheck(net, frozen=frozen).check()

    threads.run(2, body, False)
    message = message_of(2, lambda: body(True))
    assert "parameter body.0.weight of rank 1" in message and "buffer body.1.running_mean of rank 1" in message


def test_state_that_is_shared_out_is_not_compared() -> None:
    def body() -> None:
        net, optimizer, step = training(lambda p: ZeroRedundancyOptimizer(p, optim.Adam, lr=0.1))
        check = DesyncCheck(net, optimizer, every=1)
        for _ in range(3):
            step()
            assert check.step()
        if distributed.rank() == 1:
            optimizer.param_groups[0]["lr"] = 0.2
        check.step()

    assert "optimizer group 0, lr is 0.2 on rank 1 but 0.1 on rank 0" in message_of(3, body)


def test_other_shapes_and_dtypes_are_named_and_not_healed() -> None:
    def body() -> None:
        module = nn.Linear(2, 3 if distributed.rank() == 0 else 4)
        DesyncCheck(module, heal=True).check()

    message = message_of(3, body)
    assert "parameter weight has shape and dtype [3, 2], float32 on rank 0 but [4, 2], float32 on rank 1" in message
    assert "cannot be healed" in message


def test_healing_makes_all_ranks_equal_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> list[bytes]:
        net, optimizer, step = training()
        check = DesyncCheck(net, optimizer, every=1, heal=True, buffers=True)
        rank = distributed.rank()
        step()
        memory = [p.detach().numpy() for p in net.parameters()]
        if rank == 1:
            change(net.body[0].weight.detach().numpy(), 0, 1.0)
            optimizer.state[net.head.bias]["momentum_buffer"].fill_(3)
            del optimizer.state[net.head.weight]
            optimizer.state[net.body[0].bias]["rubbish"] = Tensor(np.ones(2))
            optimizer.param_groups[0]["lr"] = 0.7
        if rank == 2:
            optimizer.state[net.head.bias]["momentum_buffer"] = Tensor(np.ones((3, 3)))
        version = net.body[0].weight._version
        assert not check.step()
        assert all(np.shares_memory(m, p.detach().numpy()) for m, p in zip(memory, net.parameters(), strict=True))
        assert net.body[0].weight._version > version  # a backward that has saved the old values notices
        assert check.check()
        step()
        state = [optimizer.state[p]["momentum_buffer"] for p in net.parameters()]
        assert "rubbish" not in optimizer.state[net.body[0].bias] and optimizer.param_groups[0]["lr"] == 0.1
        return [t.detach().numpy().tobytes() for t in [*net.parameters(), *state]]

    first, *others = threads.run(3, body)
    assert all(other == first for other in others)
    printed = capsys.readouterr().err
    assert printed.count("Healed: every rank has rank 0's values") == 1
    assert printed.startswith("step 1: parameter body.0.weight of rank 1 differs from rank 0 (max difference 1 at")


def test_nan_equals_itself_and_zero_has_a_sign() -> None:
    def body() -> None:
        net = Net()
        values = net.head.bias.detach().numpy()
        values[0] = np.nan
        DesyncCheck(net).check()
        values[1] = 0.0 if distributed.rank() else -0.0
        DesyncCheck(net).check()

    message = message_of(2, body)
    assert "parameter head.bias of rank 1 differs from rank 0 (max difference 0 at [1], 1 of 2 elements)" in message

    def broken() -> None:
        net = Net()
        if distributed.rank() == 1:
            net.head.bias.detach().numpy()[0] = np.nan
        DesyncCheck(net).check()

    assert "head.bias of rank 1 differs from rank 0 (one of them is NaN or infinite at [0]" in message_of(2, broken)


def test_values_larger_than_a_piece() -> None:
    shape = (2, PIECE // 2 + 3)

    def body() -> None:
        module = nn.Module()
        values = np.zeros(shape, dtype=np.int8)
        if distributed.rank() == 1:
            values[1, 5] = 3
            values[1, -1] = -7
        module.register_buffer("table", Tensor(values))
        DesyncCheck(module).check()

    assert f"(max difference 7 at [1, {shape[1] - 1}], 2 of {2 * shape[1]} elements)" in message_of(2, body)


@pytest.mark.parametrize("dtype", ["float32", "int8", "float64", "bool"])
def test_a_digest_sees_every_bit(dtype: str) -> None:
    generator = np.random.default_rng(1)
    octets = generator.integers(0, 2 if dtype == "bool" else 256, 131, dtype=np.uint8)
    array = octets[: octets.size // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize].view(dtype)
    seen = {digest(array)}
    copy = array.copy()
    for place in range(array.nbytes):
        copy.view(np.uint8)[place] ^= 1
        seen.add(digest(copy))
        copy.view(np.uint8)[place] ^= 1
    assert len(seen) == array.nbytes + 1
    assert digest(copy) == digest(array) and digest(array[::-1]) != digest(array)


def test_digest_of_a_view_is_that_of_its_values() -> None:
    array = np.arange(24.0).reshape(4, 6)
    assert digest(array.T) == digest(np.ascontiguousarray(array.T)) != digest(array)
    assert digest(np.float32(3).reshape(())) != digest(np.float32(4).reshape(()))
    assert digest(np.zeros(0)) == digest(np.zeros(0))


def test_one_rank_and_arguments() -> None:
    check = DesyncCheck(Net(), every=1)
    assert check.step() and check.check()
    with pytest.raises(ValueError, match="every is -1"):
        DesyncCheck(Net(), every=-1)
