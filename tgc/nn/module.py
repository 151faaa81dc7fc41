"""Modules: parameters, buffers and settings found by attribute, in the manner of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tgc.errors import UserError
from tgc.frontend.base import BaseTensor, MutableTensor
from tgc.frontend.initial import Initial
from tgc.frontend.tensor import Variable, tensor
from tgc.frontend.trace import SETTINGS, evaluate_pending, function_trace, here, type_of
from tgc.ir.graph import Array
from tgc.nn.weights import read_weights, write_weights


class Parameter(Variable):
    """State that is trained: a float tensor that ``backward`` gives a gradient.

    >>> import tgc
    >>> w = tgc.nn.Parameter([1.0, 2.0])
    >>> (w * w).sum().backward()
    >>> w.grad.numpy()
    array([2., 4.], dtype=float32)
    """

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        given = data if isinstance(data, Initial) else tensor(data, requires_grad=True).array
        super().__init__(given, requires_grad=True)


class Buffer(Variable):
    """State of a module that is not trained, such as running statistics."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(tensor(data).array)


_ABSENT = object()


def _no_forward(self: Module, *arguments: Any) -> Any:
    raise UserError(
        f"{type(self).__name__} has no forward()", hint="define forward(self, x) in the class", location=here()
    )


class Module:
    """A part of a model. Subclasses set parameters, buffers and other modules as attributes and define ``forward``.

    Calling ``super().__init__()`` is not needed. Lists, tuples and dictionaries of modules and tensors are searched
    too. A jitted function that used the module is compiled again when an attribute is set to something else. What such
    a function itself sets, as by ``eval()``, holds until it ends.

    >>> import tgc
    >>> from tgc import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         self.factor = nn.Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()(tgc.tensor([3.0])).numpy()
    array([6.], dtype=float32)
    """

    training: bool

    def __setattr__(self, name: str, value: Any) -> None:
        trace = function_trace()
        if trace is not None and (name in self.__dict__ or name == "training"):
            trace.undo.setdefault((id(self), name), partial(self._restore, name, self.__dict__.get(name, _ABSENT)))
        self._set(name, value)

    def _restore(self, name: str, value: Any) -> None:
        if value is _ABSENT:
            delattr(self, name)
        else:
            self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        # what jitted functions compare is rebuilt when it is asked for next
        self.__dict__.pop("_settings", None)
        SETTINGS.ticks += 1

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self.__dict__.pop("_settings", None)
        SETTINGS.ticks += 1

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trace = function_trace()
        if trace is not None:
            trace.touched[id(self)] = self
        return self.forward(*args, **kwargs)

    # what the module computes; subclasses choose the arguments
    forward: Callable[..., Any] = _no_forward

    def __getattr__(self, name: str) -> Any:
        if name == "training":
            return True
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def settings(self) -> object:
        """The attributes as one hashable value; of tensors and modules, which ones they are."""
        found = self.__dict__.get("_settings")
        if found is None:
            named = sorted({"training": True, **self.__dict__}.items())
            found = tuple((k, _setting(v)) for k, v in named if not k.startswith("_"))
            self.__dict__["_settings"] = found
        return found

    def children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules right below this one."""
        for name, value in self.__dict__.items():
            for path, item in _walk(name, value):
                if isinstance(item, Module):
                    yield path, item

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their paths."""
        yield prefix, self
        for name, child in self.children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def named_state(self) -> Iterator[tuple[str, MutableTensor]]:
        """(path, tensor) of every parameter and buffer, each tensor once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in module.__dict__.items():
                for path, item in _walk(name, value):
                    if isinstance(item, MutableTensor) and id(item) not in seen:
                        seen.add(id(item))
                        yield (f"{prefix}.{path}" if prefix else path), item

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of every parameter."""
        return ((name, value) for name, value in self.named_state() if isinstance(value, Parameter))

    def parameters(self) -> list[Parameter]:
        """Every parameter."""
        return [value for _, value in self.named_parameters()]

    def buffers(self) -> list[MutableTensor]:
        """Every piece of state that is not trained."""
        return [value for _, value in self.named_state() if not isinstance(value, Parameter)]

    def train(self, mode: bool = True) -> Module:
        """Puts all modules into training mode, which Dropout and BatchNorm look at."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Puts all modules into inference mode."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by path, row-major."""
        evaluate_pending()
        return {name: value.numpy() for name, value in self.named_state()}  # type: ignore[attr-defined]

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Sets parameters and buffers from arrays or tensors by path.

        Raises :class:`UserError` for wrong shapes and dtypes and, if ``strict``, for missing and unknown names; then
        nothing has changed.
        """
        own = dict(self.named_state())
        missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if strict and (missing or unknown):
            raise UserError(
                "the state does not fit the module"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; unknown: {', '.join(unknown)}" if unknown else ""),
                hint="pass strict=False to load what fits",
                location=here(),
            )
        found = {name: _array(state[name]) for name in own if name in state}
        for name, array in found.items():
            if type_of(array) != own[name].type:
                raise UserError(
                    f"{name} has type {own[name].type}, but {type_of(array)} was given",
                    hint="load the weights of a model with the same sizes; nothing was changed",
                    location=here(),
                )
        for name, array in found.items():
            own[name].replace(array)

    def save(self, path: str | Path) -> None:
        """Writes parameters and buffers to a safetensors file, with PyTorch's names and shapes."""
        write_weights(path, self.state_dict())

    def load(self, path: str | Path) -> None:
        """Reads parameters and buffers from a safetensors file. Raises :class:`UserError` for one that does not fit."""
        self.load_state_dict(read_weights(path))


def _array(value: Any) -> Array:
    return value.array if isinstance(value, BaseTensor) else np.asarray(value)


def _walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The modules and tensors in an attribute's value, with their paths."""
    if isinstance(value, (Module, BaseTensor)):
        yield path, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _walk(f"{path}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(f"{path}.{key}", item)


def _setting(value: Any) -> object:
    if isinstance(value, (Module, BaseTensor)):
        # which one it is, not what it holds; compiled functions keep those that they used
        return (type(value), id(value))
    if isinstance(value, (list, tuple)):
        return tuple(_setting(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, _setting(item)) for key, item in value.items())
    try:
        hash(value)
    except TypeError:
        return id(value)
    return (type(value), value)
