from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn


class Pair(nn.Module):
    """Two inputs and an option, two outputs and something that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(distgrad.tensor([2.0]))

    def forward(self, x: Any, y: Any, scale: float = 1.0) -> Any:
        return x * self.weight * scale, x * y, "text"


def leaf(*values: float) -> distgrad.Tensor:
    return distgrad.tensor(list(values), requires_grad=True)


# Forward -------------------------------------------------------------------------------------------------------------


def test_hooks_are_called_in_order_unless_they_are_put_first() -> None:
    module, calls = nn.Identity(), []
    for number in range(3):
        module.register_forward_pre_hook(lambda m, a, n=number: calls.append(("pre", n)), prepend=number == 2)
        module.register_forward_hook(lambda m, a, o, n=number: calls.append(("post", n)), prepend=number == 2)
    module(1)
    assert calls == [("pre", 2), ("pre", 0), ("pre", 1), ("post", 2), ("post", 0), ("post", 1)]


def test_hooks_see_and_change_keywords() -> None:
    module, seen = Pair(), []
    module.register_forward_pre_hook(lambda m, a, k: seen.append(("pre", len(a), dict(k))), with_kwargs=True)
    module.register_forward_pre_hook(lambda m, a, k: ((a[0] * 3, *a[1:]), {"scale": 5.0}), with_kwargs=True)
    module.register_forward_hook(lambda m, a, k, o: seen.append(("post", a[0].item(), k)), with_kwargs=True)
    first, _, _ = module(distgrad.tensor([1.0]), distgrad.tensor([4.0]), scale=2.0)
    assert first.tolist() == [30.0]
    assert seen == [("pre", 2, {"scale": 2.0}), ("post", 3.0, {"scale": 5.0})]


def test_a_pre_hook_with_keywords_must_return_both() -> None:
    module = Pair()
    module.register_forward_pre_hook(lambda m, a, k: a[0], with_kwargs=True)
    with pytest.raises(RuntimeError, match=r"must return None or a tuple of \(new_args, new_kwargs\), but got"):
        module(distgrad.ones(1), distgrad.ones(1))


def test_some_hooks_are_called_whatever_happens() -> None:
    class Broken(nn.Module):
        def forward(self, x: Any) -> Any:
            raise ValueError("the first error")

    module, seen = Broken(), []
    module.register_forward_hook(lambda m, a, o: seen.append("not this one"))
    module.register_forward_hook(lambda m, a, o: seen.append(o), always_call=True)

    def fails(m: Any, a: Any, o: Any) -> None:
        raise KeyError("second")

    handle = module.register_forward_hook(fails, always_call=True)
    with pytest.raises(ValueError, match="the first error"), pytest.warns(UserWarning, match=r"'fails'.*KeyError"):
        module(1)
    assert seen == [None]
    handle.remove()
    working = nn.Identity()
    working.register_forward_hook(lambda m, a, o: o + 1, always_call=True)

    def stops(m: Any, a: Any, o: Any) -> None:
        raise ValueError("in a hook")

    working.register_forward_hook(stops)
    working.register_forward_hook(lambda m, a, o: seen.append(o), always_call=True)
    with pytest.raises(ValueError, match="in a hook"):
        working(1)
    assert seen == [None, 2]


# Backward ------------------------------------------------------------------------------------------------------------


def test_backward_hooks_see_gradients_of_inputs_and_outputs() -> None:
    module, seen = Pair(), []
    module.register_full_backward_hook(lambda m, i, o: seen.append((m, i, o)))
    x, y = leaf(3.0), leaf(5.0)
    first, second, text = module(x, y)
    assert text == "text"
    (first * 10 + second * 100).sum().backward()
    ((m, inputs, outputs),) = seen
    assert m is module and isinstance(inputs, tuple) and isinstance(outputs, tuple)
    assert [g.tolist() for g in inputs] == [[520.0], [300.0]]
    assert [None if g is None else g.tolist() for g in outputs] == [[10.0], [100.0], None]
    assert x.grad.tolist() == [520.0] and module.weight.grad.tolist() == [30.0]


def test_what_backward_hooks_return_replaces_the_gradient() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data = distgrad.tensor([[3.0]])
    calls = []
    module.register_full_backward_pre_hook(lambda m, o: calls.append("pre") or (o[0] * 2,))
    module.register_full_backward_pre_hook(lambda m, o: calls.append("first") or (o[0] + 1,), prepend=True)
    module.register_full_backward_hook(lambda m, i, o: calls.append(o[0].item()) or (i[0] * 100,))
    x = distgrad.tensor([[1.0]], requires_grad=True)
    module(x).sum().backward()
    assert calls == ["first", "pre", 4.0]
    assert x.grad.tolist() == [[1200.0]] and module.weight.grad.tolist() == [[4.0]]
    handle = module.register_full_backward_hook(lambda m, i, o: (i[0], i[0]))
    with pytest.raises(RuntimeError, match="invalid number of grad_input, got 2, but expected 1"):
        module(x).sum().backward()
    handle.remove()
    module.register_full_backward_pre_hook(lambda m, o: ())
    with pytest.raises(RuntimeError, match="invalid number of grad_output, got 0, but expected 1"):
        module(x).sum().backward()


def test_backward_hooks_without_gradients_of_inputs() -> None:
    module, seen = nn.Linear(2, 1), []
    handle = module.register_full_backward_hook(lambda m, i, o: seen.append((i, o[0].tolist())))
    with pytest.warns(UserWarning, match="since no inputs require gradients"):
        module(distgrad.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1.0]])]
    handle.remove()
    module.register_full_backward_hook(lambda m, i, o: (o[0],))
    with (
        pytest.warns(UserWarning, match="since no inputs require gradients"),
        pytest.raises(RuntimeError, match="where no input requires gradient should always return None"),
    ):
        module(distgrad.ones(1, 2)).sum().backward()


def test_backward_hooks_are_quiet_without_a_graph() -> None:
    module, seen = nn.Linear(2, 1), []
    module.register_full_backward_hook(lambda *a: seen.append(a))
    with distgrad.no_grad():
        assert not module(distgrad.ones(1, 2, requires_grad=True)).requires_grad
    module(distgrad.ones(1, 2, requires_grad=True))
    assert not seen


def test_backward_hooks_pass_twice_and_are_recorded() -> None:
    module, seen = nn.Tanh(), []
    module.register_full_backward_hook(lambda m, i, o: seen.append((i[0].requires_grad, o[0].item())))
    x = leaf(0.5)
    out = module(x).sum()
    out.backward(retain_graph=True)
    out.backward(create_graph=True)
    assert [s[1] for s in seen] == [1.0, 1.0] and [s[0] for s in seen] == [False, True]
    (second,) = distgrad.autograd.grad(distgrad.autograd.grad(module(x).sum(), x, create_graph=True)[0].sum(), x)
    t = np.tanh(0.5)
    assert second.item() == pytest.approx(-2 * t * (1 - t * t), rel=1e-6)


def test_a_change_in_place_behind_a_backward_hook_is_noticed() -> None:
    """The hook's identity shares memory, and sigmoid needs its result for the backward pass."""
    module = nn.Sigmoid()
    module.register_full_backward_hook(lambda m, i, o: None)
    out = module(leaf(0.0, 1.0))
    with pytest.raises(RuntimeError, match=r"in-?place"):
        out.add_(1.0)
        out.sum().backward()


def test_hooks_are_copied_with_the_module() -> None:
    module, seen = nn.Linear(1, 1), []
    module.register_forward_hook(lambda m, a, o: seen.append(m))
    duplicate = copy.deepcopy(module)
    duplicate(distgrad.ones(1))
    assert seen == [duplicate]


def test_modules_can_be_pickled() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    module(distgrad.ones(1, 2)).sum().backward()
    again = pickle.loads(pickle.dumps(module))
    assert repr(again) == repr(module) and not again.training
    for (name, value), (other, expected) in zip(again.state_dict().items(), module.state_dict().items(), strict=True):
        assert name == other and distgrad.equal(value, expected)
    assert again[0].weight.grad is None and type(again[0].weight) is nn.Parameter
    old = {key: value for key, value in nn.ReLU().__dict__.items() if key in ("training", "inplace")}
    restored = nn.ReLU.__new__(nn.ReLU)
    restored.__setstate__(old | {"_parameters": {}, "_buffers": {}, "_modules": {}})
    assert restored(distgrad.tensor([-1.0])).tolist() == [0.0]  # saved before there were hooks of every kind


@pytest.mark.parity
@pytest.mark.parametrize("inputs", [(True, True), (True, False), (False, True)])
def test_backward_hooks_are_those_of_pytorch(inputs: tuple[bool, bool]) -> None:
    torch = pytest.importorskip("torch")

    def run(library: Any, module: Any) -> list[Any]:
        class Net(module.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.weight = module.Parameter(library.tensor([2.0, 3.0]))

            def forward(self, x: Any, y: Any) -> Any:
                return (x * self.weight).sum(), x * y * self.weight

        seen: list[Any] = []

        def noted(values: Any) -> Any:
            return tuple(None if v is None else np.asarray(v.detach().tolist()).tolist() for v in values)

        def remember(kind: str) -> Callable[..., Any]:
            def hook(m: Any, *gradients: Any) -> Any:
                seen.append((kind, *map(noted, gradients)))
                return tuple(None if g is None else g * 2 for g in gradients[0])

            return hook

        net = Net()
        net.register_full_backward_hook(remember("after"))
        net.register_full_backward_pre_hook(remember("before"))
        x, y = (library.tensor([1.0, -2.0], requires_grad=wanted) for wanted in inputs)
        first, second = net(x, y)
        (first * 3).backward(retain_graph=True)
        (first + second.sum()).backward()
        return [seen, *(None if v.grad is None else v.grad.tolist() for v in (x, y, net.weight))]

    assert run(distgrad, nn) == run(torch, torch.nn)
