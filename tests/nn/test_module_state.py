from __future__ import annotations

import gc
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn


class Counter(nn.Module):
    """A module with state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(distgrad.zeros(2))
        self.seen = ["nothing"]

    def get_extra_state(self) -> Any:
        return list(self.seen)

    def set_extra_state(self, state: Any) -> None:
        self.seen = list(state)


def test_extra_state_is_saved_and_loaded() -> None:
    module = nn.Sequential(Counter())
    module[0].seen = ["a", "b"]
    state = module.state_dict()
    assert list(state) == ["0.weight", "0._extra_state"] and state["0._extra_state"] == ["a", "b"]
    other = nn.Sequential(Counter())
    assert repr(other.load_state_dict(state)) == "<All keys matched successfully>"
    assert other[0].seen == ["a", "b"]
    del state["0._extra_state"]
    assert other.load_state_dict(state, strict=False).missing_keys == ["0._extra_state"]
    plain = nn.Sequential(nn.Module())
    plain[0].weight = nn.Parameter(distgrad.zeros(2))
    assert plain.load_state_dict(module.state_dict(), strict=False).unexpected_keys == ["0._extra_state"]
    for call in (lambda: plain.get_extra_state(), lambda: plain.set_extra_state(1)):
        with pytest.raises(RuntimeError, match="extra_state"):
            call()


def test_assign_makes_the_values_themselves_the_parameters() -> None:
    module = nn.BatchNorm1d(2)
    module.bias.requires_grad_(False)
    state = OrderedDict(nn.BatchNorm1d(2).double().state_dict())
    array = np.ones(2)
    state["bias"] = array
    kept = state["weight"] = nn.Parameter(distgrad.tensor([3.0, 4.0], dtype=distgrad.float64), requires_grad=False)
    module.load_state_dict(state, assign=True)
    assert module.weight is kept and kept.requires_grad and kept.dtype == np.float64
    assert isinstance(module.bias, nn.Parameter) and not module.bias.requires_grad
    assert np.shares_memory(module.bias.numpy(), array) and module.running_mean is state["running_mean"]
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        module.load_state_dict(state | {"weight": np.zeros(3)}, assign=True)


def test_hooks_around_saving() -> None:
    module, calls = nn.Sequential(nn.Linear(1, 1, bias=False)), []
    module.register_state_dict_pre_hook(lambda m, prefix, keep: calls.append((m, prefix, keep)))
    module[0].register_state_dict_post_hook(
        lambda m, state, prefix, metadata: state.update({f"{prefix}more": metadata["version"]})
    )
    state = module.state_dict(prefix="p.", keep_vars=True)
    assert calls == [(module, "p.", True)] and list(state) == ["p.0.weight", "p.0.more"] and state["p.0.more"] == 1
    module.register_state_dict_post_hook(lambda *a: 1)
    with pytest.raises(RuntimeError, match="state_dict post-hook must return None"):
        module.state_dict()


def test_hooks_around_loading() -> None:
    module, calls = nn.Sequential(nn.Linear(1, 1, bias=False)), []

    def rename(m: Any, state: Any, prefix: str, metadata: Any, strict: bool, *lists: Any) -> None:
        calls.append((m, prefix, [list(x) for x in lists]))
        state[f"{prefix}weight"] = state.pop(f"{prefix}kernel")

    module[0].register_load_state_dict_pre_hook(rename)
    state = {"0.kernel": np.full((1, 1), 7.0)}
    module.load_state_dict(state)
    assert module[0].weight.tolist() == [[7.0]] and calls == [(module[0], "0.", [[], [], []])]
    assert list(state) == ["0.kernel"]

    seen = []

    def forgive(m: Any, keys: Any) -> None:
        seen.append(m[0].weight.item())
        keys.missing_keys.clear()

    module = nn.Sequential(nn.Linear(1, 1))
    module.register_load_state_dict_post_hook(forgive)
    assert module.load_state_dict({"0.weight": np.ones((1, 1))}).missing_keys == []
    assert seen == [1.0]
    module.register_load_state_dict_post_hook(lambda m, keys: keys)
    with pytest.raises(RuntimeError, match="not expected to return new values"):
        module.load_state_dict({"0.weight": np.ones((1, 1))})


def test_a_layer_may_read_what_it_once_saved_otherwise() -> None:
    class Renamed(nn.Linear):
        def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
            if f"{prefix}w" in state_dict:
                state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}w")
            super()._load_from_state_dict(state_dict, prefix, *rest)

        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[f"{prefix}w"] = destination.pop(f"{prefix}weight")

    module = nn.Sequential(Renamed(1, 1, bias=False))
    state = module.state_dict()
    assert list(state) == ["0.w"]
    module.load_state_dict({"0.w": np.full((1, 1), 3.0)})
    assert module[0].weight.tolist() == [[3.0]]
    errors: list[str] = []
    module[0]._load_from_state_dict({"weight": np.full((1, 1), 4.0)}, "", {}, True, [], [], errors)
    assert module[0].weight.tolist() == [[4.0]] and not errors  # called by itself it loads at once


@pytest.mark.parity
def test_incompatible_names_with_extra_state_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")

    def messages(library: Any) -> list[str]:
        class Saves(library.nn.Module):  # type: ignore[misc, name-defined]
            def get_extra_state(self) -> Any:
                return 1

        class Loads(Saves):
            def set_extra_state(self, state: Any) -> None:
                pass

        saves, loads = library.nn.Sequential(Saves()), library.nn.Sequential(Loads())
        texts = [repr(loads.load_state_dict(saves.state_dict()))]
        for module, state in ((saves, loads.state_dict()), (loads, {})):
            with pytest.raises(RuntimeError) as caught:
                module.load_state_dict(state)
            texts.append(str(caught.value))
        return texts

    assert messages(distgrad) == messages(torch)


def test_loading_leaves_nothing_for_the_garbage_collector() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    state = model.state_dict()
    gc.collect()
    gc.disable()
    try:
        model.load_state_dict(state)
        assert gc.collect() == 0
    finally:
        gc.enable()
