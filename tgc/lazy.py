"""Modules that are loaded when they are first used, so that importing tgc stays quick."""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for the module ``name`` until one of its attributes is asked for.

    Safe on several threads: Python's own lock on imports makes the second one wait. Raises
    :class:`ModuleNotFoundError` at the first use if the module is not installed.

    >>> LazyModule("colorsys").rgb_to_hsv(0, 0, 0)
    (0.0, 0.0, 0)
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value
