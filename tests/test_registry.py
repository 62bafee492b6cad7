"""Names resolve to things; an unknown one lists its siblings."""

from __future__ import annotations

import pytest

from distgrad.errors import ConfigError
from distgrad.registry import Registry, nearest


def test_registers_and_finds() -> None:
    table: Registry[int] = Registry("number")
    assert table.register("one")(1) == 1
    table.register("another")(2)
    assert table["one"] == 1 and "one" in table and "two" not in table
    assert list(table) == ["another", "one"]


def test_an_unknown_name_lists_its_siblings() -> None:
    table: Registry[int] = Registry("model")
    table.register("resnet18")(18)
    table.register("resnet34")(34)
    with pytest.raises(
        ConfigError, match=r"unknown model 'resnet81'\. Did you mean 'resnet18'\? There is: resnet18, r"
    ):
        table["resnet81"]


def test_a_name_is_taken_once() -> None:
    table: Registry[int] = Registry("model")
    table.register("a")(1)
    with pytest.raises(ValueError, match="model 'a' is registered twice"):
        table.register("a")(2)


def test_nothing_near_is_no_suggestion() -> None:
    assert nearest("zebra", ["tensor"]) == ""
