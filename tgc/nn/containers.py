"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tgc.nn.module import Module


class Sequential(Module):
    """Modules one after the other, named "0", "1", … or by the keys of a dictionary.

    >>> import tgc
    >>> from tgc import nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> sorted(model.state_dict())
    ['0.bias', '0.weight']
    """

    def __init__(self, *modules: Any) -> None:
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], Mapping) else enumerate(modules)
        for name, module in named:
            setattr(self, str(name), module)

    def _modules(self) -> list[Any]:
        return [value for name, value in self.__dict__.items() if not name.startswith("_") and name != "training"]

    def forward(self, x: Any) -> Any:
        """The last module's result."""
        for module in self._modules():
            x = module(x)
        return x

    def __getitem__(self, index: int) -> Any:
        return self._modules()[index]

    def __len__(self) -> int:
        return len(self._modules())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules())


class ModuleList(Module):
    """A list of modules, named "0", "1", …; it has no ``forward``."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Adds a module at the end."""
        setattr(self, str(len(self)), module)
        return self

    def _modules(self) -> list[Any]:
        return [value for name, value in self.__dict__.items() if name.isdigit()]

    def __getitem__(self, index: int) -> Any:
        return self._modules()[index]

    def __len__(self) -> int:
        return len(self._modules())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules())
