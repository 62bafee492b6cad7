"""Hooks by the name that a config gives them."""

from __future__ import annotations

import pytest

from distgrad.distributed import comm_hooks
from distgrad.distributed.comm_hooks import HOOKS, make
from distgrad.distributed.single import SingleCommunicator
from distgrad.errors import ConfigError


def test_every_name_makes_a_state_and_a_hook() -> None:
    communicator = SingleCommunicator()
    for name in HOOKS:
        state, hook = make(name, communicator)
        assert state.communicator is communicator
        assert getattr(comm_hooks, hook.__name__) is hook
        assert state.state_dict() is not None


def test_options_go_to_the_state() -> None:
    state, _ = make("top_k", density=0.25)
    assert isinstance(state, comm_hooks.TopKState) and state.density == 0.25
    assert state.communicator is None


def test_an_unknown_name_lists_its_siblings() -> None:
    with pytest.raises(ConfigError, match=r"unknown comm_hook 'fp61'\. Did you mean 'fp16'\?.*hierarchical.*top_k"):
        make("fp61")


def test_an_unknown_attribute_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match="the nearest name is 'fp16_compress_hook'"):
        comm_hooks.fp16_compress  # noqa: B018
