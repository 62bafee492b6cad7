"""Compiled networks against the same networks in eager mode."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import compiler, nn, optim
from distgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from compiled_networks import NETWORKS, Mobile, Vgg, Words

TOLERANCE = {"float64": 1e-10, "float32": 1e-3}


def _pair(name: str, dtype: str = "float64") -> tuple[Any, Any, Any]:
    make, inputs = NETWORKS[name]
    distgrad.manual_seed(0)
    eager = make().to(getattr(distgrad, dtype))
    original = copy.deepcopy(eager)
    return eager, original, inputs


def _close(a: Any, b: Any, tolerance: float) -> None:
    a, b = a.detach().numpy(), b.detach().numpy()
    assert a.shape == b.shape and a.dtype == b.dtype
    # Of the whole: in float32 an activation whose input is nearly 0 may fall on either side, and moves single elements.
    assert np.linalg.norm(a - b) <= tolerance * max(1e-3, float(np.linalg.norm(a)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_eager(name: str, training: bool, dtype: str) -> None:
    eager, original, inputs = _pair(name, dtype)
    fast = distgrad.compile(original, fullgraph=True)
    eager.train(training)
    fast.train(training)
    assert original.training is training
    tolerance = TOLERANCE[dtype] * (100 if name == "resnet of one image" else 1)  # normalized over 4 pixels at the end
    for run in range(2):  # the second one by the plan that the first has made, with other numbers
        x = inputs(dtype, run)
        ours, theirs = x.clone(), x.clone()
        if x.is_floating_point():
            ours.requires_grad_(), theirs.requires_grad_()
        state = distgrad.get_rng_state()
        expected = eager(theirs)
        distgrad.set_rng_state(state)
        found = fast(ours)
        _close(expected, found, tolerance)
        weights = distgrad.tensor(np.random.default_rng(9).standard_normal(tuple(expected.shape)).astype(dtype))
        (expected * weights).sum().backward()
        (found * weights).sum().backward()
        if x.is_floating_point():
            _close(theirs.grad, ours.grad, 10 * tolerance)
        largest = max(float(p.grad.norm()) for p in eager.parameters())
        for (key, p), q in zip(eager.named_parameters(), original.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), key
            # A gradient whose true value is 0, such as that of a bias before BatchNorm, has no scale of its own.
            assert float((q.grad - p.grad).norm()) <= 10 * tolerance * largest, key
        for p, q in zip(eager.buffers(), original.buffers(), strict=True):
            _close(p, q, tolerance)


@pytest.mark.parametrize("name", ["resnet", "vgg", "mobile", "bottleneck", "transformer"])
def test_without_recording(name: str) -> None:
    """In evaluation BatchNorm is folded away, and parts of the batch go depth first."""
    eager, original, inputs = _pair(name)
    eager.eval()
    for parameter, buffer in zip(eager.buffers(), original.buffers(), strict=True):
        if parameter.dtype.kind == "f":  # statistics that are not 0 and 1
            values = np.random.default_rng(3).uniform(0.5, 1.5, parameter.shape)
            parameter._data[...] = values
            buffer._data[...] = values
    fast = distgrad.compile(original, fullgraph=True).eval()
    with distgrad.no_grad():
        for run in range(2):
            x = inputs("float64", run)
            if x.is_floating_point():
                x = distgrad.cat([x] * 4 + [x[:1]])  # more than one part, and a part of its own at the end
            found = fast(x)
            assert not found.requires_grad
            _close(eager(x), found, 1e-10)
    plans = fast.plans()
    assert name == "transformer" or "batch norm folded" in plans
    assert name != "resnet" or "images at a time" in plans


def test_trains_as_eager_does() -> None:
    eager, original, inputs = _pair("resnet")
    fast = distgrad.compile(original, fullgraph=True)
    labels = distgrad.tensor(np.arange(5))
    losses: list[list[float]] = []
    for model, network in ((eager, eager), (fast, original)):
        sgd = optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        losses.append([])
        for step in range(6):
            loss = F.cross_entropy(model(inputs("float64", step)), labels)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            losses[-1].append(loss.item())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-8)
    assert losses[0][-1] != losses[0][0]


def test_a_step() -> None:
    """Of a function that calls backward, the modules are compiled."""
    eager, original, inputs = _pair("vgg")
    labels = distgrad.tensor(np.arange(5))

    def make(network: Any) -> Any:
        sgd = optim.SGD(network.parameters(), lr=0.05)

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(network(x), y)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            return loss

        return step

    slow, fast = make(eager), distgrad.compile(make(original))
    for run in range(4):
        x = inputs("float64", run)
        np.testing.assert_allclose(fast(x, labels).item(), slow(x, labels).item(), rtol=1e-9)
    assert "batch norm" in fast.plans() and "forward" not in original.__dict__


def test_a_function_and_its_constants() -> None:
    weight = distgrad.randn(4, 3, dtype=distgrad.float64, requires_grad=True)

    def function(x: Any, scale: float) -> dict[str, Any]:
        y = F.linear(x, weight) * scale
        return {"y": y, "twice": (y + y, x.detach().sum(0))}

    fast = distgrad.compile(function, fullgraph=True)
    x = distgrad.randn(5, 3, dtype=distgrad.float64)
    for scale in (2.0, 3.0):  # a number is part of what a plan holds for
        a, b = function(x, scale), fast(x, scale)
        assert isinstance(b["twice"], tuple)
        _close(a["twice"][0], b["twice"][0], 1e-14)
        _close(a["twice"][1], b["twice"][1], 1e-14)
        (expected,) = distgrad.autograd.grad((a["y"] ** 2).sum(), [weight])
        (found,) = distgrad.autograd.grad((b["y"] ** 2).sum(), [weight])
        _close(expected, found, 1e-13)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x * 2 if x.sum() > 0 else x, "looks at the values"),
        (lambda x: x * x.max().item(), "looks at the values"),
        (lambda x: x[x > 0], "computed positions"),
        (lambda x: distgrad.nonzero(x), "looks at the values"),
        (lambda x: x * float(x[0, 0]), "looks at the values"),
        (lambda x: (x, 3), "returns a int"),
        (lambda x: distgrad.tensor(np.asarray(x._data).copy()) + x, "constant|looks at the values"),
    ],
)
def test_falls_back_with_a_reason(function: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    x = distgrad.randn(3, 4)
    with pytest.raises(compiler.CaptureError, match=reason):
        distgrad.compile(function, fullgraph=True)(x)
    if reason.startswith("constant"):
        return
    fast = distgrad.compile(function)
    with caplog.at_level(logging.WARNING, "distgrad.compiler"):
        for sign in (1, -1):  # either way, the answer is eager's
            a, b = function(sign * x), fast(sign * x)
            pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
            for p, q in pairs:
                assert (p == q).all() if isinstance(p, distgrad.Tensor) else p == q
    assert len(caplog.records) == 1 and "eager mode" in caplog.text


def test_hooks_are_called() -> None:
    network = Vgg()
    fast = distgrad.compile(network)
    x = distgrad.randn(2, 3, 16, 16)
    fast(x)
    seen: list[Any] = []
    handle = network.features[0].register_forward_hook(lambda module, args, output: seen.append(output))
    fast(x)
    assert len(seen) == 1
    handle.remove()
    own = fast.register_forward_hook(lambda module, args, output: seen.append(output))
    fast(x)
    assert len(seen) == 2
    own.remove()
    grads: list[Any] = []
    network.classifier[0].weight.register_hook(lambda g: grads.append(g))
    network.classifier[0].weight.register_post_accumulate_grad_hook(lambda p: grads.append(p))
    fast(x).sum().backward()
    assert len(grads) == 2 and grads[1] is network.classifier[0].weight


def test_state_is_the_originals() -> None:
    network = Mobile()
    fast = distgrad.compile(network)
    assert list(fast.state_dict()) == list(network.state_dict())
    assert [id(p) for p in fast.parameters()] == [id(p) for p in network.parameters()]
    assert [name for name, _ in fast.named_modules()] == [name for name, _ in network.named_modules()]
    assert fast.fc is network.fc and distgrad.compile(fast) is fast
    fast.eval()
    x = distgrad.randn(2, 3, 17, 17)
    with distgrad.no_grad():
        before = fast(x)
        other = Mobile()
        fast.load_state_dict(other.state_dict())
        after = fast(x)
        assert not (before == after).all()
        _close(other.eval()(x), after, 1e-4)
        network.fc = nn.Linear(8, 3)
        assert fast(x).shape == (2, 3)
        network.stem[0].weight.mul_(0.5)
        _close(network(x), fast(x), 1e-4)
        network.stem[1].running_mean.add_(0.25)
        _close(network(x), fast(x), 1e-4)
    network.double()
    assert fast(x.double()).dtype == distgrad.float64
    for other_one in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert isinstance(other_one, compiler.CompiledModule)
        _close(fast(x.double()), other_one(x.double()), 1e-9)
        assert other_one.fc.weight is not fast.fc.weight


def test_freezing_a_part_makes_another_plan() -> None:
    eager, original, inputs = _pair("resnet")
    for network in (eager, original):
        nn.freeze(network)
        network.fc = nn.unfreeze(network.fc)
    fast = distgrad.compile(original, fullgraph=True).train()
    eager.train()
    x = inputs("float64", 0)
    expected, found = eager(x), fast(x)
    _close(expected, found, 1e-10)
    expected.sum().backward()
    found.sum().backward()
    _close(eager.fc.weight.grad, original.fc.weight.grad, 1e-10)
    assert all(p.grad is None for name, p in original.named_parameters() if not name.startswith("fc"))
    assert "batch norm folded" in fast.plans()


def test_several_forwards_before_a_backward() -> None:
    """Memory of one pass is not given to another as long as somebody may come back for it."""
    eager, original, inputs = _pair("vgg")
    fast = distgrad.compile(original, fullgraph=True)
    xs = [inputs("float64", seed) for seed in range(3)]
    expected, found = [eager(x) for x in xs], [fast(x) for x in xs]
    kept = [y.detach().clone() for y in found]
    for a, b in zip(expected, found, strict=True):
        (a * a).sum().backward()
        (b * b).sum().backward()
    for y, copy_ in zip(found, kept, strict=True):
        assert (y == copy_).all()
    for p, q in zip(eager.parameters(), original.parameters(), strict=True):
        _close(p.grad, q.grad, 1e-8)


def test_backward_twice_and_changed_weights() -> None:
    _, original, inputs = _pair("vgg")
    fast = distgrad.compile(original, fullgraph=True)
    x = inputs("float64", 0)
    loss = fast(x).sum()
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in original.parameters()]
    loss.backward()
    for p, g in zip(original.parameters(), first, strict=True):
        _close(2 * g, p.grad, 1e-12)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()
    loss = fast(x).sum()
    with distgrad.no_grad():
        original.features[0].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        distgrad.autograd.grad(fast(x).sum(), list(original.parameters()), create_graph=True)


def test_direct_is_a_plan_of_its_own() -> None:
    network = nn.Conv2d(32, 32, 3, padding=1)
    fast = distgrad.compile(network, fullgraph=True)
    x = distgrad.randn(8, 32, 32, 32)
    with distgrad.no_grad():
        fast(x)
        with distgrad.backends.convolutions("direct"):
            fast(x)
    first, second = fast.plans().splitlines()[1:3]
    assert "winograd" not in second and "direct" in second
    assert first != second


def test_threads_do_not_disturb_one_another() -> None:
    eager, original, inputs = _pair("resnet")
    fast = distgrad.compile(original.eval(), fullgraph=True)
    eager.eval()
    xs = [inputs("float64", seed) for seed in range(4)]
    with distgrad.no_grad():
        expected = [eager(x).numpy() for x in xs]
    wrong: list[int] = []

    def work(number: int) -> None:
        with distgrad.no_grad():
            for _ in range(5):
                if not np.allclose(fast(xs[number]).numpy(), expected[number], rtol=1e-9, atol=1e-9):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_inside_vmap_and_capture_it_is_the_function() -> None:
    layer = nn.Linear(3, 2)
    fast = distgrad.compile(layer)
    x = distgrad.randn(4, 3)
    _close(layer(x), distgrad.vmap(fast)(x), 1e-6)
    outer = distgrad.compile(nn.Sequential(fast, nn.ReLU()), fullgraph=True)
    _close(layer(x).relu(), outer(x), 1e-6)


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(TypeError, match="a module or a function, got int"):
        distgrad.compile(3)


def test_words() -> None:
    """Integers as inputs, and a buffer of each kind of plan: with other lengths comes another plan."""
    network = Words()
    fast = distgrad.compile(network, fullgraph=True)
    for length in (3, 7, 3):
        x = distgrad.tensor(np.random.default_rng(length).integers(0, 11, (2, length)))
        _close(network(x), fast(x), 1e-6)
    assert fast.plans().count("Embedding") == 2


def test_reset_gives_memory_back_and_plans_are_made_anew() -> None:
    eager = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()).to(distgrad.float64)
    original = copy.deepcopy(eager)
    fast = distgrad.compile(original, fullgraph=True)
    x = distgrad.randn(2, 3, 16, 16, dtype=distgrad.float64)
    found = fast(x)
    found.sum().backward()
    expected = found.detach().numpy().copy()
    assert "batch norm" in fast.plans() and ": 0 bytes of values" not in fast.plans()
    compiler.reset()
    assert compiler.scratch_bytes() == 0
    assert len(fast.plans().splitlines()) == 1 and ": 0 bytes of values" not in fast.plans(), "found still lies there"
    np.testing.assert_array_equal(found.detach().numpy(), expected)
    del found
    original.zero_grad()
    compiler.reset()
    assert fast.plans() == "Sequential: 0 bytes of values, 0 bytes of scratch"
    np.testing.assert_array_equal(fast(x).detach().numpy(), expected)
    np.testing.assert_allclose(expected, eager(x).detach().numpy(), rtol=1e-9)
