"""Third-party packages that are loaded when they are first used, so that importing tgc stays quick."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def lazy_module(name: str) -> Any:
    """The module ``name``, loaded at the first access to one of its attributes.

    Raises :class:`ModuleNotFoundError` if it is not installed. The recipe is that of importlib.util.LazyLoader.

    >>> lazy_module("colorsys").rgb_to_hsv(0, 0, 0)
    (0.0, 0.0, 0)
    """
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    package, _, child = name.rpartition(".")
    if package:
        # as an import does: whoever imports the submodule after us finds it in its package
        setattr(sys.modules[package], child, module)
    loader.exec_module(module)
    return module
