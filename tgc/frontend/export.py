"""From marked functions to files: one library of several functions over the same state."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import CellType, CodeType, FunctionType
from typing import Any

from passes.base import substitute
from tgc.artifacts import Artifact, compile_artifact, write
from tgc.compiler import Options
from tgc.errors import UserError
from tgc.frontend.base import MutableTensor
from tgc.frontend.jit import CompiledCallable, Recorded, record
from tgc.frontend.random import default_generator
from tgc.frontend.signature import check_arguments
from tgc.frontend.tree import flatten
from tgc.ir.builder import Builder
from tgc.ir.graph import Constant, Function, Module, Node, Place, State, Value, literal, state
from tgc.loading import LoadedLibrary, load
from tgc.ops import OPS

__all__ = ["compile", "load", "module_of"]


def compile(
    functions: Sequence[CompiledCallable] | CompiledCallable,
    folder: str | Path,
    *,
    name: str | None = None,
    emit: Sequence[str] | None = None,
    options: Options | None = None,
) -> LoadedLibrary | None:
    """Compiles exported functions into one library in ``folder``, with the weights as they are now.

    ``name``: of the library, by default the folder's. ``emit``: what is written, :data:`tgc.artifacts.EMISSIONS`.
    Gives the library, loaded, if an object for this machine was written. Raises :class:`UserError` for functions
    without a specification.
    """
    given = [functions] if isinstance(functions, CompiledCallable) else list(functions)
    folder = Path(folder)
    library = name or re.sub(r"\W", "_", folder.resolve().name, flags=re.ASCII)
    artifact = artifact_of(given, library, options=options)
    write(artifact, folder, emit)
    runs_here = options is None or options.target is None
    return load(folder / f"{artifact.library.name}.json") if runs_here and (emit is None or "object" in emit) else None


def artifact_of(functions: Sequence[CompiledCallable], name: str, *, options: Options | None = None) -> Artifact:
    """The functions, compiled for files."""
    module = module_of(functions, name)
    return compile_artifact(module, name, options=options, docs=described_functions(functions))


def described_functions(functions: Sequence[CompiledCallable]) -> dict[str, str]:
    """What each function's docstring says."""
    return {f.name: inspect.getdoc(f.function) or "" for f in functions}


def module_of(functions: Sequence[CompiledCallable], name: str) -> Module:
    """The graph of several functions over common state, named after the modules and optimisers that hold it."""
    called = [f.name for f in functions]
    if twice := sorted({n for n in called if called.count(n) > 1}):
        raise UserError(f"several functions are called {', '.join(twice)}", hint="rename one of them")
    return joined([(f.function, _record(f)) for f in functions], name)


def joined(recorded: Sequence[tuple[Callable[..., Any], Recorded]], name: str) -> Module:
    """The graph of what was recorded of several functions."""
    names = state_names([f for f, _ in recorded], [t for _, r in recorded for t in r.state])
    held: dict[str, State] = {}
    constants: dict[str, Constant] = {}
    numbers: dict[int, str] = {}
    locations: dict[Node, tuple[Place, ...]] = {}
    made: list[Function] = []
    for _, each in recorded:
        builder = Builder(OPS, each.locations)
        renamed: dict[Value, Value] = {}
        for i, tensor in enumerate(each.state):
            path = names[id(tensor)]
            held[path] = State(tensor.type, Constant.of(tensor.array.copy(), tensor.type))
            renamed[state(f"s{i}", tensor.type)] = state(path, tensor.type)
        for i, constant in enumerate(each.constants):
            path = numbers.setdefault(id(constant), f"constant{len(numbers)}")
            constants[path] = Constant.of(constant.array, constant.type)
            renamed[literal(f"c{i}", constant.type)] = literal(path, constant.type)
        function = each.function
        outputs = substitute(builder, function.outputs, renamed)
        assigns = tuple((names[id(each.state[int(n[1:])])], v) for n, v in function.assigns)
        made.append(replace(function, assigns=assigns).with_outputs(outputs))
        # equal nodes of several functions are one, which comes from all of their lines
        for node, places in builder.locations.items():
            locations[node] = tuple(dict.fromkeys((*locations.get(node, ()), *places)))
    return Module(name, tuple(made), held, constants, {}, locations)


def _record(function: CompiledCallable) -> Recorded:
    if function.specs is None:
        raise UserError(
            f"{function.name} has no specification of its arguments",
            hint='mark it with @tgc.export("f32[batch, 784]"), one type for each argument',
        )
    check_arguments(function.function, function.specs)
    _, structure = flatten((function.specs, {}))
    return record(function.function, list(function.specs), structure, function.name)


def state_names(functions: Sequence[Callable[..., Any]], tensors: Sequence[MutableTensor]) -> Mapping[int, str]:
    """A name for each piece of state: its path in the modules and optimisers that the functions refer to.

    The path is prefixed with the variable's name only where several objects would clash.
    """
    found: dict[int, str] = {}
    taken: set[str] = set()
    things = _referenced(functions)
    # what belongs to parameters is named after them, so they come first
    for variable, thing in sorted(things, key=lambda item: hasattr(item[1], "named_after")):
        named = _named_state(variable, thing, found)
        clash = taken & named.keys()
        for path, tensor in named.items():
            if id(tensor) not in found:
                full = f"{variable}.{path}" if clash else path
                found[id(tensor)] = full
                taken.add(full)
    for name, tensor in default_generator().named_state():
        found.setdefault(id(tensor), f"random.{name}")
        taken.add(f"random.{name}")
    for tensor in tensors:
        if id(tensor) not in found:
            fresh = next(n for n in (f"state{i}" for i in range(len(taken) + 1)) if n not in taken)
            found[id(tensor)] = fresh
            taken.add(fresh)
    return found


def _named_state(variable: str, thing: Any, names: Mapping[int, str]) -> dict[str, MutableTensor]:
    if isinstance(thing, MutableTensor):
        return {variable: thing}
    return dict(thing.named_after(names) if hasattr(thing, "named_after") else thing.named_state())


def _referenced(functions: Sequence[Callable[..., Any]]) -> list[tuple[str, Any]]:
    """(name, object) of what the functions refer to that is state or can tell its state, in order of first mention.

    Functions that they call are searched as well.
    """
    found: dict[int, tuple[str, Any]] = {}
    seen: set[int] = set()
    pending = [("model", function) for function in reversed(functions)]
    while pending:
        name, thing = pending.pop()
        if hasattr(thing, "named_state") or isinstance(thing, MutableTensor):
            found.setdefault(id(thing), (name, thing))
        elif callable(thing) and id(thing) not in seen:
            seen.add(id(thing))
            inner = inspect.unwrap(thing)
            if isinstance(inner, FunctionType):
                pending += reversed(_mentioned(inner))
    return list(found.values())


def _mentioned(function: FunctionType) -> list[tuple[str, Any]]:
    """The globals and variables of enclosing functions that a function names, its inner functions included."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    known = {**function.__globals__, **{name: cell.cell_contents for name, cell in cells if _is_set(cell)}}
    names: dict[str, None] = {}
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(dict.fromkeys((*code.co_names, *code.co_freevars)))
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return [(name, known[name]) for name in names if name in known]


def _is_set(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
