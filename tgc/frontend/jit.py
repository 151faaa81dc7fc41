"""Compiled functions: ``jit``, ``export``.

A function is recorded once per signature: the types of its tensor arguments, the values of the others, and the settings
of the modules and optimisers that it used. A dimension that comes with a second size becomes symbolic, once, and every further size
runs the same code.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tgc.compiler import CompiledFunction, compile_function
from tgc.dtypes import named
from tgc.errors import ParseError, TraceError, UserError
from tgc.frontend.base import BaseTensor, MutableTensor
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import FunctionTrace, copied, evaluate_pending, function_trace, tracing, type_of
from tgc.frontend.tree import Structure, flatten, unflatten
from tgc.ir.dims import Dim, parse_dim, symbol
from tgc.ir.graph import Array, Constant, Function, Graph, Module, Place, State
from tgc.ir.types import TensorType


@dataclass(frozen=True)
class Recorded:
    """A function as a graph, with the objects that its state and constants are."""

    function: Function
    state: tuple[MutableTensor, ...]
    constants: tuple[BaseTensor, ...]
    settings: tuple[tuple[Any, object], ...]
    structure: Structure
    tensors: tuple[bool, ...]
    others: tuple[Any, ...]
    locations: Mapping[Any, tuple[Place, ...]] = field(compare=False)


def record(function: Callable[..., Any], arguments: Sequence[Any], structure: Structure, name: str) -> Recorded:
    """Runs ``function`` on tensors without values, and keeps what it did.

    ``arguments``: the flat arguments; a TensorType stands for a tensor of that type, anything else is passed as it is.
    """
    types = [a for a in arguments if isinstance(a, TensorType)]
    trace = FunctionTrace(types)
    with tracing(trace):
        parameters = iter(trace.parameters)
        given = [
            Tensor._recorded(trace, next(parameters), False) if isinstance(a, TensorType) else a for a in arguments
        ]
        args, kwargs = unflatten(structure, given)
        leaves, shape = flatten(function(*args, **kwargs))
        tensors = tuple(isinstance(leaf, (BaseTensor, np.ndarray)) for leaf in leaves)
        results = tuple(
            (leaf if isinstance(leaf, BaseTensor) else Tensor(copied(leaf))).value_in(trace)
            for leaf, is_tensor in zip(leaves, tensors, strict=True)
            if is_tensor
        )
    others = tuple(leaf for leaf, is_tensor in zip(leaves, tensors, strict=True) if not is_tensor)
    assigns = tuple((f"s{i}", v) for i, v in trace.assignments())
    graph = Graph(trace.parameters, results, _names(function, len(types)))
    recorded = Function(name, graph, assigns, constraints=tuple(trace.builder.constraints))
    settings = tuple((thing, thing.settings()) for thing in trace.touched.values())
    return Recorded(
        recorded,
        tuple(trace.state),  # type: ignore[arg-type]
        tuple(trace.constants),
        settings,
        shape,
        tensors,
        others,
        trace.builder.locations,
    )


def _names(function: Callable[..., Any], count: int) -> tuple[str, ...]:
    try:
        names = tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()
    return names if len(names) == count else ()


def as_module(recorded: Recorded) -> Module:
    """The function with its state and constants, ready to be compiled."""
    function = recorded.function
    return Module(
        function.name,
        (function,),
        state={f"s{i}": State(t.type, Constant.of(t.array, t.type)) for i, t in enumerate(recorded.state)},
        constants={f"c{i}": Constant.of(t.array, t.type) for i, t in enumerate(recorded.constants)},
        locations=recorded.locations,
    )


class _Specialisation:
    """One compiled form of a function: for types that ``pattern`` covers, under ``settings``."""

    def __init__(
        self, recorded: Recorded, compiled: CompiledFunction, pattern: Sequence[TensorType], cause: str
    ) -> None:
        self.recorded = recorded
        self.compiled = compiled
        self.pattern = tuple(pattern)
        self.cause = cause
        self.state = [t.array for t in recorded.state]
        self.assigns = bool(recorded.function.assigns)
        self.call = compiled.bind(self.state)
        self.simple = recorded.structure == "*" and recorded.tensors == (True,)

    def fits(self, types: Sequence[TensorType]) -> bool:
        return all(_covers(p, t) for p, t in zip(self.pattern, types, strict=True))

    def valid(self) -> bool:
        return all(thing.settings() == settings for thing, settings in self.recorded.settings)

    def run(self, arrays: Sequence[Array]) -> Any:
        if self.assigns:
            evaluate_pending()
        results = self.call(*arrays)
        if self.assigns:
            for tensor in self.recorded.state:
                tensor.version += 1
        if self.simple:
            return Tensor(results)
        if isinstance(results, np.ndarray):
            results = (results,)
        found, others = iter(map(Tensor, results)), iter(self.recorded.others)
        leaves = [next(found) if is_tensor else next(others) for is_tensor in self.recorded.tensors]
        return unflatten(self.recorded.structure, leaves)


def _covers(pattern: TensorType, type: TensorType) -> bool:
    return (
        pattern.dtype is type.dtype
        and len(pattern.shape) == len(type.shape)
        and all(p == d or not isinstance(p, int) for p, d in zip(pattern.shape, type.shape, strict=True))
    )


class CompiledCallable:
    """What ``jit`` and ``export`` give: calls like the function, runs as one native call.

    ``specialisations`` tells how often it was compiled, and why.
    """

    def __init__(self, function: Callable[..., Any], specs: Sequence[TensorType] | None = None) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.specs = None if specs is None else tuple(specs)
        self.name = getattr(function, "__name__", type(function).__name__)
        self._known: dict[object, list[_Specialisation]] = {}

    @property
    def specialisations(self) -> tuple[tuple[str, str], ...]:
        """(signature, cause) of each compiled form."""
        return tuple(
            ("(" + ", ".join(map(str, s.pattern)) + ")", s.cause) for found in self._known.values() for s in found
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if function_trace() is not None:
            return self.function(*args, **kwargs)
        leaves, structure = flatten((args, kwargs))
        arrays: list[Array] = []
        types: list[TensorType] = []
        statics: list[object] = []
        for leaf in leaves:
            if isinstance(leaf, BaseTensor):
                arrays.append(leaf.array)
                types.append(leaf.type)
                statics.append(None)
            elif isinstance(leaf, np.ndarray):
                arrays.append(leaf)
                types.append(type_of(leaf))
                statics.append(None)
            else:
                statics.append((type(leaf), leaf))
        found = self._find((structure, *statics), types, leaves, structure)
        return found.run(arrays)

    def _find(
        self, key: tuple[object, ...], types: Sequence[TensorType], leaves: Sequence[Any], structure: Structure
    ) -> _Specialisation:
        try:
            known = self._known.setdefault(key, [])
        except TypeError:
            raise TraceError(
                "an argument that is no tensor must be hashable: the function is compiled for its value",
                hint="pass tensors, numbers, strings, or tuples of them",
            ) from None
        for specialisation in known:
            if specialisation.fits(types) and specialisation.valid():
                return specialisation
        pattern, cause = self._pattern(known, types)
        made = self._compile(pattern, cause, leaves, structure)
        known[:] = [s for s in known if not (s.valid() and all(map(_covers, pattern, s.pattern)))]
        known.insert(0, made)
        return made

    def _pattern(
        self, known: Sequence[_Specialisation], types: Sequence[TensorType]
    ) -> tuple[Sequence[TensorType], str]:
        """The types to compile for, and why."""
        if self.specs is not None:
            if len(self.specs) != len(types) or not all(map(_covers, self.specs, types)):
                given, wanted = ", ".join(map(str, types)), ", ".join(map(str, self.specs))
                raise UserError(
                    f"{self.name}({wanted}) was called with ({given})", hint="pass tensors that fit the specification"
                )
            return self.specs, "specification" if not known else "settings of a module changed"
        for other in known:
            if other.valid() and all(map(_alike, other.pattern, types)):
                return _generalised(other.pattern, types)
        return types, "first call" if not known else "types of the arguments, or settings of a module"

    def _compile(
        self, pattern: Sequence[TensorType], cause: str, leaves: Sequence[Any], structure: Structure
    ) -> _Specialisation:
        remaining = iter(pattern)
        arguments = [next(remaining) if isinstance(a, (BaseTensor, np.ndarray)) else a for a in leaves]
        evaluate_pending()
        recorded = record(self.function, arguments, structure, self.name)
        module = as_module(recorded)
        compiled = compile_function(
            module.functions[0],
            state=module.state,
            constants=module.constants,
            locations=module.locations,
        )
        return _Specialisation(recorded, compiled, pattern, cause)


def _alike(pattern: TensorType, type: TensorType) -> bool:
    return pattern.dtype is type.dtype and len(pattern.shape) == len(type.shape)


def _generalised(pattern: Sequence[TensorType], types: Sequence[TensorType]) -> tuple[Sequence[TensorType], str]:
    """The pattern with a symbol wherever a second size came; dimensions that changed alike get the same one."""
    names: dict[tuple[Dim, Dim], Dim] = {}
    changed: list[str] = []
    result = []
    for i, (old, new) in enumerate(zip(pattern, types, strict=True)):
        shape: list[Dim] = []
        for axis, (a, b) in enumerate(zip(old.shape, new.shape, strict=True)):
            if a == b or not isinstance(a, int):
                shape.append(a)
                continue
            if (a, b) not in names:
                names[a, b] = symbol(f"d{len(names)}_{i}_{axis}")
            shape.append(names[a, b])
            changed.append(f"argument {i}, dimension {axis}: {a}, then {b}")
        result.append(TensorType(old.dtype, shape))
    return result, "a second size (" + "; ".join(changed) + ")"


def parse_spec(text: str) -> TensorType:
    """The type that a specification such as ``"f32[batch, 1, 28, 28]"`` names. Raises ParseError.

    >>> print(parse_spec("f32[batch, 1, 28, 28]"))
    f32[batch, 1, 28, 28]
    """
    head, bracket, rest = text.partition("[")
    if not bracket or not rest.rstrip().endswith("]"):
        raise ParseError(f"{text!r} is no tensor type", hint='write it as "f32[batch, 784]"')
    inner = rest.rstrip()[:-1].strip()
    return TensorType(named(head.strip()), [parse_dim(part) for part in inner.split(",")] if inner else [])


def jit(function: Callable[..., Any], *specs: str) -> CompiledCallable:
    """Compiles ``function`` when it is called: its forward part, ``backward`` and optimiser steps become one native call.

    ``specs``: types of the tensor arguments, to say beforehand which dimensions vary.

    >>> import tgc
    >>> double = tgc.jit(lambda x: x + x)
    >>> double(tgc.tensor([1.0, 2.0])).numpy()
    array([2., 4.], dtype=float32)
    """
    return CompiledCallable(function, [parse_spec(s) for s in specs] if specs else None)


class Exported(CompiledCallable):
    """A function that is part of a library: what ``tgc.export`` gives. Callable in process like a jitted one."""


def export(*specs: str) -> Callable[[Callable[..., Any]], Exported]:
    """Marks a function for compilation to files; ``specs`` are the types of its arguments, one each.

    >>> import tgc
    >>> @tgc.export("f32[n]")
    ... def double(x):
    ...     return x + x
    >>> double(tgc.tensor([1.0, 2.0])).numpy()
    array([2., 4.], dtype=float32)
    """
    types = [parse_spec(s) for s in specs]

    def mark(function: Callable[..., Any]) -> Exported:
        return Exported(function, types)

    return mark
