from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn


def test_a_list_registers_parameters() -> None:
    kept = nn.Parameter(distgrad.ones(2))
    values = nn.ParameterList([kept, distgrad.zeros(1), "text"])
    assert len(values) == 3 and values[0] is kept and values[-1] == "text"
    assert isinstance(values[1], nn.Parameter) and values[1].requires_grad
    assert [name for name, _ in values.named_parameters()] == ["0", "1"] and list(values.state_dict()) == ["0", "1"]
    assert values.append(distgrad.ones(3)) is values and len(values) == 4
    values += [nn.Parameter(distgrad.ones(4))]
    values[2] = distgrad.ones(1)
    assert [v.numel() for v in values] == [2, 1, 1, 3, 4] and isinstance(values[2], nn.Parameter)
    part = values[1:3]
    assert isinstance(part, nn.ParameterList) and part[0] is values[1] and len(part) == 2
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index {index} is out of range"):
            values[index]
    for wrong in (3, distgrad.ones(2)):
        with pytest.raises(TypeError, match=r"ParameterList.extend should be called with an iterable, but got"):
            values.extend(wrong)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"ParameterList should not be called."):
        values(1)


def test_a_dictionary_registers_parameters() -> None:
    values = nn.ParameterDict({"b": distgrad.ones(2), "a": distgrad.zeros(1), "text": 3})
    assert list(values) == ["a", "b", "text"] == list(values.keys()) and len(values) == 3 and "a" in values
    assert list(nn.ParameterDict(OrderedDict(b=1, a=2))) == ["b", "a"] == list(nn.ParameterDict([("b", 1), ("a", 2)]))
    assert [name for name, _ in values.named_parameters()] == ["a", "b"]
    assert values["text"] == 3 and values.get("zz") is None and values.get("zz", 4) == 4
    assert values.setdefault("c", distgrad.ones(1)) is values["c"] and isinstance(values.c, nn.Parameter)
    assert values.popitem()[0] == "c" and values.pop("text") == 3 and list(values) == ["a", "b"]
    assert list(reversed(values)) == ["b", "a"]
    copied = values.copy()
    assert copied is not values and copied["a"] is values["a"]
    joined = values | nn.ParameterDict({"z": distgrad.ones(1)})
    assert list(joined) == ["a", "b", "z"] and len(values) == 2
    values |= joined
    assert list(values) == ["a", "b", "z"]
    assert [key for key, _ in values.items()] == ["a", "b", "z"] and next(iter(values.values())) is values["a"]
    assert list(values.fromkeys(["x", "y"], 1)) == ["x", "y"]
    del values["z"]
    values.clear()
    assert len(values) == 0 and not list(values.parameters())


def test_what_a_dictionary_refuses() -> None:
    values = nn.ParameterDict({"a": distgrad.ones(1)})
    with pytest.raises(KeyError, match="b"):
        values["b"]
    with pytest.raises(TypeError, match=r"cannot be used as a key as it is not a string \(type is 'int'\)"):
        values[1] = distgrad.ones(1)
    with pytest.raises(KeyError, match="attribute 'keys' already exists"):
        values["keys"] = distgrad.ones(1)
    with pytest.raises(TypeError, match="should be called with an iterable of key/value pairs, but got int"):
        values.update(3)
    with pytest.raises(ValueError, match="sequence element #0 has length 3; 2 is required"):
        values.update([("a", 1, 2)])
    with pytest.raises(RuntimeError, match=r"ParameterDict should not be called."):
        values()


def test_they_follow_the_module_around_them() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.ParameterList([distgrad.ones(1)])
            self.named = nn.ParameterDict({"w": distgrad.ones(1)})

    net = Net().double()
    assert [name for name, _ in net.named_parameters()] == ["rows.0", "named.w"]
    assert net.rows[0].dtype == net.named["w"].dtype == np.float64
    net.load_state_dict({"rows.0": np.array([3.0]), "named.w": np.array([4.0])})
    assert net.rows[0].item() == 3.0 and net.named.w.item() == 4.0


@pytest.mark.parity
def test_text_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")

    def texts(library: Any) -> list[str]:
        module = library.nn
        values = [module.Parameter(library.ones(2, 3)), library.ones(1, dtype=library.float64), "x", 5]
        return [
            repr(module.ParameterList()),
            repr(module.ParameterList(values[:1])),
            repr(module.ParameterList(values)),
            repr(module.ParameterDict()),
            repr(module.ParameterDict({"b": values[0], "a": values[1], "s": 3})),
            repr(module.Sequential(OrderedDict(inner=module.ParameterList(values[:2])))),
        ]

    assert texts(distgrad) == texts(torch)
