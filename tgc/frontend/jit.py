"""Compiled functions: ``jit``, ``export``.

A function is recorded once per signature: the types of its tensor arguments, the values of the others, and the settings
of the modules and optimisers that it used. A dimension that comes with a second size becomes symbolic, once, and every
further size runs the same code.
"""

from __future__ import annotations

import functools
import inspect
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tgc.compiler import compile_function
from tgc.errors import TraceError, UserError
from tgc.executable import CompiledFunction
from tgc.frontend import nonfinite
from tgc.frontend.base import BaseTensor, MutableTensor, Writes
from tgc.frontend.signature import check_arguments, covers, generalised, mismatch, parse_specs
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import (
    SETTINGS,
    FunctionTrace,
    active,
    commit_assigned,
    copied,
    evaluate_pending,
    here,
    recording,
    tracing,
    type_of,
)
from tgc.frontend.tree import Structure, flatten, unflatten
from tgc.ir.graph import Array, Constant, Function, Graph, Module, Place, State
from tgc.ir.types import TensorType


@dataclass(frozen=True)
class Recorded:
    """A function as a graph, with the objects that its state and constants are."""

    function: Function
    state: tuple[MutableTensor, ...]
    constants: tuple[BaseTensor, ...]
    settings: tuple[tuple[Any, Any], ...]
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
    assigned = trace.assignments()
    values = trace.resolved([*results, *(v for _, v in assigned)])
    results = values[: len(results)]
    assigns = tuple((f"s{i}", v) for (i, _), v in zip(assigned, values[len(results) :], strict=True))
    graph = Graph(trace.parameters, results, _names(function, len(types)))
    recorded = Function(name, graph, assigns, constraints=tuple(trace.builder.constraints))
    for owner in (getattr(function, "__self__", None), *arguments):
        if hasattr(owner, "settings"):
            trace.touched[id(owner)] = owner
    # a module that was not called may have been read: whatever lies below one that was called counts
    read = {id(part): part for thing in trace.touched.values() for part in getattr(thing, "modules", lambda: ())()}
    settings = tuple((thing, thing.settings()) for thing in {**read, **trace.touched}.values())
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
    """The function with its state and constants, ready to be compiled; the values of state do not matter."""
    function = recorded.function
    return Module(
        function.name,
        (function,),
        state={f"s{i}": State(t.type) for i, t in enumerate(recorded.state)},
        constants={f"c{i}": Constant.of(t.array, t.type) for i, t in enumerate(recorded.constants)},
        locations=recorded.locations,
    )


class _Specialisation:
    """One compiled form of a function: for types that ``pattern`` covers, under the settings that were read."""

    def __init__(
        self, recorded: Recorded, compiled: CompiledFunction, pattern: Sequence[TensorType], cause: str, given: bool
    ) -> None:
        self.pattern = tuple(pattern)
        self.cause = cause
        self.recorded = recorded
        self._given = given
        self._checked = -1
        self._writes = Writes()
        assigned = [recorded.state[int(name[1:])] for name, _ in recorded.function.assigns]
        for tensor in assigned:
            tensor.written_by(self._writes)
        self.assigns = bool(assigned)
        self._compiled = compiled
        self._state = [recorded.state[int(value.name[1:])].array for value in compiled.program.state]
        self._call = compiled.bind(self._state)
        self._sources = [recorded.state[int(name[1:])] for name in compiled.sources]
        self._prepared = -1
        self._lock = threading.Lock()
        types = [value.type for value in recorded.function.results]
        self._single = recorded.structure == "*" and recorded.tensors == (True,)
        known = all(isinstance(d, int) for t in types for d in t.shape)
        self._type = types[0] if self._single and known else None

    def fits(self, types: Sequence[TensorType]) -> bool:
        """Whether the native code takes arguments of these types."""
        return covers(self.pattern, types, ones=self._given)

    def valid(self) -> bool:
        """Whether every module and optimiser is set as it was when the function was recorded."""
        now = SETTINGS.ticks
        if self._checked == now:
            return True
        if any(thing.settings() != settings for thing, settings in self.recorded.settings):
            return False
        self._checked = now
        return True

    def changed(self) -> str:
        """Which setting differs from what it was."""
        for thing, before in self.recorded.settings:
            after = thing.settings()
            if after != before:
                names = sorted({str(name) for name, _ in set(before) ^ set(after)})
                return f"{type(thing).__name__}: {', '.join(names)} changed"
        return "settings changed"

    def _prepare(self) -> None:
        """Computes again what is kept of state that this function does not assign, if others have."""
        with self._lock:
            version = sum(tensor.version for tensor in self._sources)
            if version != self._prepared:
                self._compiled.prepare(self._state)
                self._prepared = version

    def run(self, arrays: Sequence[Array]) -> Any:
        """One native call."""
        call = self._guarded if nonfinite.wanted() else self._call
        if self.assigns:
            evaluate_pending()
            if self._sources:
                self._prepare()
            results = call(*arrays)
            self._writes.count += 1
        else:
            commit_assigned()
            if self._sources:
                self._prepare()
            results = call(*arrays)
        if self._single:
            return Tensor(results) if self._type is None else Tensor.of(results, self._type)
        if isinstance(results, np.ndarray):
            results = (results,)
        found, others = iter(map(Tensor, results)), iter(self.recorded.others)
        leaves = [next(found) if is_tensor else next(others) for is_tensor in self.recorded.tensors]
        return unflatten(self.recorded.structure, leaves)

    def _guarded(self, *arrays: Array) -> Any:
        """The call, with a look at what it gives."""
        recorded = self.recorded
        state, constants = ([t.array for t in tensors] for tensors in (recorded.state, recorded.constants))
        return nonfinite.guarded(self._call, recorded.function, arrays, state, constants, recorded.locations)


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
        # why sizes cannot be symbols, once that is known
        self._per_size = ""
        # what the last call was: mostly the next one is the same
        self._recent: tuple[tuple[TensorType, ...], _Specialisation] | None = None

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        return self if instance is None else functools.partial(self, instance)

    @property
    def specialisations(self) -> tuple[tuple[str, str], ...]:
        """(signature, cause) of each compiled form."""
        return tuple(
            ("(" + ", ".join(map(str, s.pattern)) + ")", s.cause) for found in self._known.values() for s in found
        )

    @property
    def recordings(self) -> tuple[Recorded, ...]:
        """The graph of each compiled form, in the order of ``specialisations``."""
        return tuple(s.recorded for found in self._known.values() for s in found)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if active() is not None and recording() is not None:
            return self.function(*args, **kwargs)
        # each line here counts: a small model takes little longer than its call
        recent = self._recent
        if recent is not None and not kwargs and len(args) == len(recent[0]) and recent[1].valid():
            arrays: list[Array] = []
            for index, expected in enumerate(recent[0]):
                argument = args[index]
                if type(argument) is not Tensor or argument._array is None:
                    break
                if argument._type is not expected and argument._type != expected:
                    break
                arrays.append(argument._array)
            else:
                return recent[1].run(arrays)
        return self._general(args, kwargs)

    def _general(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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
                statics.append((type(leaf), struct.pack("<d", leaf) if type(leaf) is float else leaf))
        found = self._find((structure, *statics), types, leaves, structure)
        if found.assigns:
            # an argument that is state keeps the value that it had
            given = [leaf for leaf in leaves if isinstance(leaf, (BaseTensor, np.ndarray))]
            shared = [isinstance(leaf, BaseTensor) and leaf.is_mutable for leaf in given]
            arrays = [copied(array) if state else array for array, state in zip(arrays, shared, strict=True)]
        simple = not kwargs and all(type(argument) is Tensor for argument in args)
        self._recent = (tuple(types), found) if simple else None
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
                location=here(),
            ) from None
        for specialisation in known:
            if specialisation.fits(types) and specialisation.valid():
                return specialisation
        pattern, cause = self._pattern(known, types)
        try:
            made = self._compile(pattern, cause, leaves, structure)
        except (TypeError, UserError) as error:
            if self.specs is not None or tuple(pattern) == tuple(types):
                raise
            # Python code may need a size as a number; then each size is compiled
            self._per_size = f"a size that cannot be a symbol: {str(error).partition(chr(10))[0]}"
            pattern = types
            made = self._compile(types, self._per_size, leaves, structure)
        known[:] = [s for s in known if not (s.valid() and covers(pattern, s.pattern, ones=False))]
        known.insert(0, made)
        return made

    def _pattern(
        self, known: Sequence[_Specialisation], types: Sequence[TensorType]
    ) -> tuple[Sequence[TensorType], str]:
        """The types to compile for, and why."""
        # what fits but is not valid was compiled under other settings
        stale = next((s for s in known if s.fits(types)), None)
        if self.specs is not None:
            if len(self.specs) != len(types) or not covers(self.specs, types, ones=True):
                given, wanted = ", ".join(map(str, types)), ", ".join(map(str, self.specs))
                raise UserError(
                    f"{self.name}({wanted}) was called with ({given})",
                    hint=mismatch(self.specs, types, _names(self.function, len(types))),
                    location=here(),
                )
            return self.specs, stale.changed() if stale else "specification"
        if stale is not None:
            return stale.pattern, stale.changed()
        if not known:
            return types, "first call" if len(self._known) == 1 else "other arguments"
        for other in known:
            if other.valid() and not self._per_size:
                general = generalised(other.pattern, types)
                if general is not None:
                    return general
        return types, self._per_size or "other types of the arguments"

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
        return _Specialisation(recorded, compiled, pattern, cause, self.specs is not None)


def jit(function: Callable[..., Any], *specs: str) -> CompiledCallable:
    """Compiles ``function`` when it is called: forward part, ``backward`` and optimiser steps become one native call.

    ``specs``: types of the tensor arguments, to say beforehand which dimensions vary.

    >>> import tgc
    >>> double = tgc.jit(lambda x: x + x)
    >>> double(tgc.tensor([1.0, 2.0])).numpy()
    array([2., 4.], dtype=float32)
    """
    return CompiledCallable(function, parse_specs(specs) if specs else None)


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
    types = parse_specs(specs)

    def mark(function: Callable[..., Any]) -> Exported:
        check_arguments(function, types)
        return Exported(function, types)

    return mark
