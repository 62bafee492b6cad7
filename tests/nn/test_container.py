from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest

import distgrad
from distgrad import nn


def test_sequential_calls_in_turn() -> None:
    first, second = nn.Linear(2, 3), nn.Linear(3, 1)
    model = nn.Sequential(first, nn.ReLU(), second)
    x = distgrad.randn(4, 2)
    assert model(x).tolist() == second(distgrad.relu(first(x))).tolist()
    assert nn.Sequential()(x) is x
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_sequential_by_name() -> None:
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 1, 1), act=nn.ReLU(), fc=nn.Linear(1, 1)))
    assert list(model.state_dict()) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    assert model[1] is model.act and model[-1] is model.fc
    assert list(model[1:]._modules) == ["act", "fc"] and isinstance(model[1:], nn.Sequential)
    model[1] = nn.Tanh()
    assert isinstance(model.act, nn.Tanh)


@pytest.mark.parametrize("kind", [lambda *modules: nn.Sequential(*modules), lambda *modules: nn.ModuleList(modules)])
def test_both_are_lists(kind: Callable[..., nn.Sequential | nn.ModuleList]) -> None:
    a, b, c, d = nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Identity()
    modules = kind(a, b)
    assert len(modules) == 2 and list(modules) == [a, b] and modules[-1] is b
    assert modules.append(c) is modules and list(modules) == [a, b, c]
    modules.insert(1, d)
    assert list(modules) == [a, d, b, c] and list(modules._modules) == ["0", "1", "2", "3"]
    modules.insert(-1, a)
    assert list(modules) == [a, d, b, a, c]
    del modules[0], modules[-2]
    assert list(modules) == [d, b, c] and list(modules._modules) == ["0", "1", "2"]
    assert modules.pop(1) is b and list(modules) == [d, c]
    modules.extend([a, b])
    del modules[1:3]
    assert list(modules) == [d, b] and list(modules[:1]) == [d] and type(modules[:1]) is type(modules)
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"index {index} is out of range"):
            modules[index]
    with pytest.raises(IndexError, match="Index out of range: 3"):
        modules.insert(3, a)
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        modules.append(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        modules.insert(0, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="should be called with an iterable, but got int"):
        modules.extend(1)  # type: ignore[arg-type]
    assert "0" not in dir(modules)


def test_module_list_registers_and_is_not_called() -> None:
    modules = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))
    modules += [nn.Linear(1, 2)]
    assert [name for name, _ in modules.named_parameters()][-1] == "2.bias"
    joined = modules + nn.ModuleList([nn.ReLU()])
    assert isinstance(joined, nn.ModuleList) and len(joined) == 4 and len(modules) == 3
    modules.extend(modules)
    assert len(modules) == 6
    with pytest.raises(NotImplementedError, match='missing the required "forward"'):
        modules(1)


def test_module_list_writes_equal_neighbours_once() -> None:
    modules = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh()])
    assert repr(modules) == "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Tanh()\n)"
    assert repr(nn.ModuleList()) == "ModuleList()"


def test_sequentials_add_and_multiply() -> None:
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    first, second = nn.Sequential(a, b), nn.Sequential(c)
    assert list(first + second) == [a, b, c] and list(first) == [a, b]
    assert list(first * 2) == [a, b, a, b] == list(2 * first)
    first += second
    assert list(first) == [a, b, c] and list(first._modules) == ["0", "1", "2"]
    second *= 3
    assert list(second) == [c, c, c]
    with pytest.raises(ValueError, match="supports only objects of Sequential class, but <class 'list'> is given"):
        _ = first + [a]  # noqa: RUF005
    with pytest.raises(ValueError, match="Non-positive multiplication factor 0"):
        first * 0
    with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \*"):
        first * 1.5  # type: ignore[operator]


def test_module_dict() -> None:
    a, b = nn.ReLU(), nn.Linear(1, 1)
    modules = nn.ModuleDict({"a": a, "b": b})
    assert modules["a"] is a and len(modules) == 2 and list(modules) == ["a", "b"] and "a" in modules
    assert list(modules.keys()) == ["a", "b"] and list(modules.values()) == [a, b]
    assert list(modules.items()) == [("a", a), ("b", b)] and list(modules.state_dict()) == ["b.weight", "b.bias"]
    modules["c"] = nn.Tanh()
    modules.update([("d", a), ["a", b]])
    modules.update(nn.ModuleDict({"e": a}))
    modules.update(OrderedDict(f=b))
    assert list(modules) == ["a", "b", "c", "d", "e", "f"] and modules["a"] is b
    assert modules.pop("d") is a
    del modules["c"], modules["e"]
    assert list(modules) == ["a", "b", "f"]
    modules.clear()
    assert len(modules) == 0 and repr(modules) == "ModuleDict()"
    assert list(nn.ModuleDict([("z", a), ("y", b)])) == ["z", "y"]


def test_what_a_module_dict_refuses() -> None:
    modules = nn.ModuleDict()
    with pytest.raises(KeyError, match="a"):
        modules["a"]
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        modules["a"] = 3  # type: ignore[assignment]
    with pytest.raises(KeyError, match="attribute 'keys' already exists"):
        modules["keys"] = nn.ReLU()
    with pytest.raises(TypeError, match=r"ModuleDict.update should be called with an iterable .* but got int"):
        modules.update(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sequence element #0 should be Iterable; is int"):
        modules.update([3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="sequence element #1 has length 1; 2 is required"):
        modules.update([("a", nn.ReLU()), ("b",)])  # type: ignore[list-item]
    with pytest.raises(NotImplementedError, match='missing the required "forward"'):
        modules(1)
