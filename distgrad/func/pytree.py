"""Nested tuples, lists and dictionaries as flat lists of leaves, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Structure = Any  # what ``flatten`` leaves: None for a leaf, else a pair of a kind and the structures below


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of ``tree``, in order, and the structure that ``unflatten`` rebuilds it from."""
    leaves: list[Any] = []
    return leaves, _taken_apart(tree, leaves)


# Functions of the module, not closures that call themselves: these would be cycles that hold the leaves.


def _taken_apart(node: Any, leaves: list[Any]) -> Structure:
    if isinstance(node, (tuple, list)):
        return node, [_taken_apart(item, leaves) for item in node]
    if isinstance(node, dict):
        return node, [_taken_apart(item, leaves) for item in node.values()]
    leaves.append(node)
    return None


def _put_together(node: Structure, leaves: Iterator[Any]) -> Any:
    if node is None:
        return next(leaves)
    kind, below = node
    items = [_put_together(item, leaves) for item in below]
    if isinstance(kind, dict):
        return type(kind)(zip(kind, items, strict=True))
    make = getattr(type(kind), "_make", type(kind))  # a named tuple takes its items one by one
    return make(items)


def unflatten(leaves: list[Any], structure: Structure) -> Any:
    """The tree of that structure with other leaves."""
    return _put_together(structure, iter(leaves))


def same_structure(one: Structure, other: Structure) -> bool:
    """Whether two trees are nested alike; the keys of dictionaries count, and their order."""
    if one is None or other is None:
        return one is other
    (kind, below), (other_kind, other_below) = one, other
    if type(kind) is not type(other_kind) or len(below) != len(other_below):
        return False
    if isinstance(kind, dict) and list(kind) != list(other_kind):
        return False
    return all(same_structure(a, b) for a, b in zip(below, other_below, strict=True))


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """``tree`` with ``function`` of each leaf."""
    leaves, structure = flatten(tree)
    return unflatten([function(leaf) for leaf in leaves], structure)


def broadcast_prefix(prefix: Any, tree: Any, what: str) -> list[Any]:
    """One value for each leaf of ``tree`` from ``prefix``, a tree that may end earlier: what it ends in holds below.

    Raises:
        ValueError: ``prefix`` is not shaped like the beginning of ``tree``; ``what`` names it.
    """
    if isinstance(prefix, (tuple, list, dict)):
        if isinstance(prefix, dict):
            alike = isinstance(tree, dict) and prefix.keys() == tree.keys()
            pairs = [(prefix[key], tree[key]) for key in tree] if alike else []
        else:
            alike = isinstance(tree, (tuple, list)) and len(prefix) == len(tree)
            pairs = list(zip(prefix, tree, strict=True)) if alike else []
        if not alike:
            raise ValueError(f"{what} is {prefix!r}, which is not shaped like the {type(tree).__name__} that it is for")
        return [value for a, b in pairs for value in broadcast_prefix(a, b, what)]
    return [prefix] * len(flatten(tree)[0])
