"""What a user types: the names of ``distgrad`` and of its tensors, as in PyTorch."""

from __future__ import annotations

import pytest

import distgrad


def test_every_exported_name_is_there_once() -> None:
    assert [name for name in distgrad.__all__ if not hasattr(distgrad, name)] == []
    assert len(set(distgrad.__all__)) == len(distgrad.__all__)


@pytest.mark.parity
def test_every_name_means_something_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    # what PyTorch does not have, or has elsewhere
    ours = {"checkpoint", "data", "features", "metrics", "models", "observe", "tracing"}
    assert [name for name in distgrad.__all__ if name not in ours and not hasattr(torch, name)] == []
    tensor = distgrad.zeros(2, 2)
    public = [name for name in dir(tensor) if not name.startswith("_")]
    assert [name for name in public if not hasattr(torch.zeros(2, 2), name)] == []


@pytest.mark.parametrize("name", ["log1p", "flip", "tril", "masked_fill", "index_select", "movedim", "chunk"])
def test_a_function_is_a_method_too(name: str) -> None:
    x = distgrad.tensor([[1.0, 2.0], [3.0, 4.0]])
    arguments = {
        "flip": ((0,),),
        "masked_fill": (x > 2, 0.0),
        "index_select": (1, distgrad.tensor([1])),
        "movedim": (0, 1),
        "chunk": (2,),
    }.get(name, ())
    function, method = getattr(distgrad, name)(x, *arguments), getattr(x, name)(*arguments)
    if name == "chunk":
        function, method = function[1], method[1]
    assert function.tolist() == method.tolist()
