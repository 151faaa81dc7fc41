"""Nested tuples, lists and dictionaries of tensors: what functions take and give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Structure: TypeAlias = Any  # a hashable description: how many leaves, and how to put them together


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of a tree, in order, and its structure. Anything but a tuple, list, dict or None is a leaf.

    >>> flatten({"b": (1, 2), "a": None})
    ([1, 2], ('dict', ('a', 'b'), (None, ('tuple', <class 'tuple'>, ('*', '*')))))
    """
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Structure:
    if tree is None:
        return None
    if isinstance(tree, dict):
        keys = tuple(sorted(tree))
        return ("dict", keys, tuple(_flatten(tree[key], leaves) for key in keys))
    if isinstance(tree, (tuple, list)):
        return ("tuple", type(tree), tuple(_flatten(item, leaves) for item in tree))
    leaves.append(tree)
    return "*"


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The tree of that structure with these leaves.

    >>> leaves, structure = flatten([1, (2, None)])
    >>> unflatten(structure, [10, 20])
    [10, (20, None)]
    """
    iterator = iter(leaves)
    return _unflatten(structure, lambda: next(iterator))


def _unflatten(structure: Structure, leaf: Callable[[], Any]) -> Any:
    if structure is None:
        return None
    if structure == "*":
        return leaf()
    kind, description, children = structure
    items = [_unflatten(child, leaf) for child in children]
    if kind == "dict":
        return dict(zip(description, items, strict=True))
    if hasattr(description, "_fields"):
        return description(*items)
    return description(items)
