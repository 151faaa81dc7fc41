"""Programs: what a compiled function does, step by step, over buffers whose addresses are known.

A program launches kernels (:mod:`tgc.kernels.ir`) and copies bytes; it loops and branches where the graph does. Sizes
and offsets are dimensions, so that one program serves every size.

>>> from tgc import dtypes
>>> from tgc.ir.dims import symbol
>>> n = symbol("n")
>>> x, y = (ProgramValue(name, dtypes.f32, (n,)) for name in "xy")
>>> double = Launch("double_f32", (Address("input", 0), Address("output", 0)), dims=(n,), count=n, cost=1)
>>> print(Program("double", (x,), (y,), symbols=("n",), steps=(double,)))
program double(n) workspace 0 {
  input %0 x : f32[n]
  output %0 y : f32[n]
  launch double_f32(input[0], output[0]) dims (n) count n scratch 0 cost 1
}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from tgc.dtypes import DType
from tgc.errors import VerificationError
from tgc.ir.dims import Dim, Expr, dim_max, product, substitute, symbols

Space = Literal["input", "output", "state", "constant", "workspace"]
Relation = Literal["==", "<="]

SPACES: tuple[Space, ...] = ("input", "output", "state", "constant", "workspace")


@dataclass(frozen=True, slots=True)
class ProgramValue:
    """An array that a program is given: its name, dtype and extents in memory (row-major, without gaps)."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def bytes(self) -> Dim:
        """The size of the array."""
        return product(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.name} : {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Address:
    """A place in memory: ``offset`` bytes into an array of a space, or into the workspace (whose index is 0)."""

    space: Space
    index: int = 0
    offset: Dim = 0

    def __str__(self) -> str:
        return f"{self.space}[{self.index}]" + (f"+({self.offset})" if self.offset != 0 else "")


@dataclass(frozen=True, slots=True)
class Constraint:
    """What must hold between dimensions; checked at the entry, before anything is written."""

    left: Dim
    relation: Relation
    right: Dim
    message: str

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right} : {self.message!r}"


@dataclass(frozen=True, slots=True)
class Launch:
    """Runs iterations 0..``count`` of a kernel, in any order and on any number of threads.

    ``dims``: the values of the kernel's symbols, in its order. ``scratch``: bytes that each thread needs for itself.
    ``cost``: about how many nanoseconds one iteration takes on one core; it decides whether threads are worth waking.
    """

    kernel: str
    buffers: tuple[Address, ...]
    dims: tuple[Dim, ...]
    count: Dim
    scratch: Dim = 0
    cost: Dim = 1000


@dataclass(frozen=True, slots=True)
class Copy:
    """Copies ``bytes`` bytes between places that do not overlap."""

    source: Address
    target: Address
    bytes: Dim


@dataclass(frozen=True, slots=True)
class Repeat:
    """Runs ``body`` ``count`` times; inside, the symbol ``iteration`` is 0, 1, … ``count - 1``."""

    count: Dim
    iteration: str
    body: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class While:
    """Runs ``condition_steps``, then ``body_steps`` if the bool at ``condition`` is true, and so on until it is not.

    ``maximum`` bounds how often the body runs.
    """

    condition: Address
    condition_steps: tuple[Step, ...]
    body_steps: tuple[Step, ...]
    maximum: Dim | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """Runs ``then_steps`` if the bool at ``predicate`` is true, else ``else_steps``."""

    predicate: Address
    then_steps: tuple[Step, ...]
    else_steps: tuple[Step, ...]


Step: TypeAlias = Launch | Copy | Repeat | While | Branch


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled function. ``state`` is updated in place; ``workspace`` is the bytes of the arena, scratch apart.

    ``setup``, if there is one, runs before the first call and when its inputs have changed, which are state: its own
    state are constants of this program.
    """

    name: str
    inputs: tuple[ProgramValue, ...] = ()
    outputs: tuple[ProgramValue, ...] = ()
    state: tuple[ProgramValue, ...] = ()
    constants: tuple[ProgramValue, ...] = ()
    symbols: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    steps: tuple[Step, ...] = ()
    workspace: Dim = 0
    setup: Program | None = None

    def values(self, space: Space) -> tuple[ProgramValue, ...]:
        """The arrays of a space; none for the workspace."""
        spaces = {"input": self.inputs, "output": self.outputs, "state": self.state, "constant": self.constants}
        return spaces.get(space, ())

    def __str__(self) -> str:
        return print_program(self)


def bodies(step: Step) -> tuple[tuple[Step, ...], ...]:
    """The steps inside a step."""
    match step:
        case Repeat():
            return (step.body,)
        case While():
            return (step.condition_steps, step.body_steps)
        case Branch():
            return (step.then_steps, step.else_steps)
        case _:
            return ()


def walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Every step, those inside others included, in order."""
    for step in steps:
        yield step
        for body in bodies(step):
            yield from walk(body)


def addresses(steps: tuple[Step, ...]) -> Iterator[Address]:
    """Every place that steps read or write, those inside others included."""
    for step in walk(steps):
        match step:
            case Launch():
                yield from step.buffers
            case Copy():
                yield from (step.source, step.target)
            case While():
                yield step.condition
            case Branch():
                yield step.predicate


def readdressed(steps: tuple[Step, ...], change: Callable[[Address], Address]) -> tuple[Step, ...]:
    """The same steps on other places."""
    changed: list[Step] = []
    for step in steps:
        inner = [readdressed(body, change) for body in bodies(step)]
        match step:
            case Launch():
                changed.append(replace(step, buffers=tuple(map(change, step.buffers))))
            case Copy():
                changed.append(replace(step, source=change(step.source), target=change(step.target)))
            case Repeat():
                changed.append(replace(step, body=inner[0]))
            case While():
                changed.append(While(change(step.condition), inner[0], inner[1], step.maximum))
            case Branch():
                changed.append(Branch(change(step.predicate), inner[0], inner[1]))
    return tuple(changed)


def launches(program: Program) -> Iterator[Launch]:
    """Every launch of a program, in order."""
    return (step for step in walk(program.steps) if isinstance(step, Launch))


def scratch_bytes(program: Program) -> Dim:
    """The most scratch that a launch needs for each thread, rounded up to 64 bytes."""
    most: Dim = 0
    for scratch in dict.fromkeys(launch.scratch for launch in launches(program)):
        most = dim_max(most, (scratch + 63) // 64 * 64)
    return most


def total_cost(program: Program) -> Dim:
    """About how many nanoseconds the program takes on one core; a ``While`` counts once, a ``Branch`` both ways."""
    return _cost(program.steps)


def _cost(steps: tuple[Step, ...]) -> Dim:
    total: Dim = 0
    for step in steps:
        match step:
            case Launch():
                total = total + step.count * step.cost
            case Repeat():
                total = total + step.count * substitute(_cost(step.body), {step.iteration: step.count})
            case _:
                for body in bodies(step):
                    total = total + _cost(body)
    return total


def print_program(program: Program) -> str:
    """The text of a program."""
    lines = [f"program {program.name}({', '.join(program.symbols)}) workspace {program.workspace} {{"]
    for space in SPACES:
        lines += [f"  {space} %{i} {value}" for i, value in enumerate(program.values(space))]
    lines += [f"  require {constraint}" for constraint in program.constraints]
    for step in program.steps:
        _print_step(step, "  ", lines)
    setup = [] if program.setup is None else [print_program(program.setup)]
    return "\n".join([*lines, "}", *setup])


def _print_step(step: Step, indent: str, lines: list[str]) -> None:
    blocks: tuple[tuple[str, tuple[Step, ...]], ...]
    match step:
        case Launch():
            buffers, dims = ", ".join(map(str, step.buffers)), ", ".join(map(str, step.dims))
            lines.append(
                f"{indent}launch {step.kernel}({buffers}) dims ({dims}) count {step.count} scratch {step.scratch} "
                f"cost {step.cost}"
            )
            return
        case Copy():
            lines.append(f"{indent}copy {step.source} to {step.target} bytes {step.bytes}")
            return
        case Repeat():
            blocks = ((f"repeat {step.iteration} in 0..{step.count}", step.body),)
        case While():
            limit = "" if step.maximum is None else f" maximum {step.maximum}"
            blocks = ((f"while {step.condition}{limit}", step.condition_steps), ("do", step.body_steps))
        case Branch():
            blocks = ((f"if {step.predicate}", step.then_steps), ("else", step.else_steps))
    for i, (head, body) in enumerate(blocks):
        lines.append(f"{indent}{'} ' if i else ''}{head} {{")
        for inner in body:
            _print_step(inner, indent + "  ", lines)
    lines.append(indent + "}")


def verify(program: Program) -> None:
    """Checks what the emission of entries relies on; raises :class:`VerificationError`."""
    known = frozenset(program.symbols)
    if len(known) != len(program.symbols):
        raise _broken(program, f"symbols are repeated: {', '.join(program.symbols)}")
    whole = {str(d) for v in (*program.inputs, *program.state) for d in v.shape if isinstance(d, Expr)}
    if unbound := [name for name in program.symbols if name not in whole]:
        raise _broken(program, f"no input or state has the dimension {', '.join(unbound)}")
    for space in SPACES:
        values = program.values(space)
        if len({value.name for value in values}) != len(values):
            raise _broken(program, f"the {space} names are not distinct")
        for value in values:
            _check_dims(program, f"{space} {value.name}", value.shape, known)
    for constraint in program.constraints:
        _check_dims(program, f"constraint {constraint}", (constraint.left, constraint.right), known)
    _check_dims(program, "the workspace", (program.workspace,), known)
    _verify_steps(program, program.steps, known)
    if program.setup is not None:
        verify(program.setup)
        computed = {v.name: v for v in program.setup.state}
        if any(computed.get(v.name, v) != v for v in program.constants):
            raise _broken(program, "its setup computes constants of other types")


def _broken(program: Program, message: str) -> VerificationError:
    return VerificationError(f"program {program.name}: {message}")


def _check_dims(program: Program, where: str, dims: tuple[Dim, ...], known: frozenset[str]) -> None:
    for d in dims:
        if missing := symbols(d) - known:
            raise _broken(program, f"{where} depends on {', '.join(sorted(missing))}, which is not known there")
        if isinstance(d, int) and d < 0:
            raise _broken(program, f"{where} has the dimension {d}, which is negative")


def _check_address(program: Program, address: Address, known: frozenset[str], *, written: bool = False) -> None:
    limit = 1 if address.space == "workspace" else len(program.values(address.space))
    if address.space not in SPACES or not 0 <= address.index < limit:
        raise _broken(program, f"there is no {address}")
    if written and address.space in ("input", "constant"):
        raise _broken(program, f"{address} is written to")
    _check_dims(program, str(address), (address.offset,), known)


def _verify_steps(program: Program, steps: tuple[Step, ...], known: frozenset[str]) -> None:
    for step in steps:
        inside = known
        match step:
            case Launch():
                for address in step.buffers:
                    _check_address(program, address, known)
                _check_dims(program, f"the launch of {step.kernel}", (*step.dims, step.count, step.cost), known)
                _check_dims(program, f"the scratch of {step.kernel}", (step.scratch,), frozenset(program.symbols))
            case Copy():
                _check_address(program, step.source, known)
                _check_address(program, step.target, known, written=True)
                _check_dims(program, "a copy", (step.bytes,), known)
            case Repeat():
                if step.iteration in known:
                    raise _broken(program, f"the iteration {step.iteration} has the name of another symbol")
                _check_dims(program, "a repeat", (step.count,), known)
                inside = known | {step.iteration}
            case While():
                _check_address(program, step.condition, known)
                _check_dims(program, "a while", (0 if step.maximum is None else step.maximum,), known)
            case Branch():
                _check_address(program, step.predicate, known)
        for body in bodies(step):
            _verify_steps(program, body, inside)
