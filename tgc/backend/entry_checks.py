"""What a caller asks before it runs an entry: checks and sizes, as functions of the dimensions, in LLVM IR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tgc.backend.abi import ALIGNMENT, Status
from tgc.backend.dims_text import DimWriter
from tgc.ir.dims import Dim, Expr, bounds, symbol, symbols
from tgc.kernels.program import Branch, Copy, Launch, Program, Repeat, Step, While, scratch_bytes, total_cost, walk

# A hundred symbolic sizes make a block that LLVM's optimising instruction selector takes a second for.
PLAIN: Final = "noinline optnone"
_WORKSPACE = symbol("arena") + symbol("threads") * symbol("scratch")


def load_symbols(program: Program) -> tuple[list[str], dict[str, str]]:
    """Code that loads the program's dimensions from ``%dims``, and the operand of each."""
    lines: list[str] = []
    for slot in range(len(program.symbols)):
        lines.append(f"  %at.{slot} = getelementptr i64, ptr %dims, i64 {slot}")
        lines.append(f"  %dim.{slot} = load i64, ptr %at.{slot}")
    return lines, {name: f"%dim.{slot}" for slot, name in enumerate(program.symbols)}


def align(d: Dim) -> Dim:
    """``d`` rounded up to :data:`~tgc.backend.abi.ALIGNMENT`."""
    return (d + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT


def _any(writer: DimWriter, conditions: Iterable[str]) -> str:
    result = "false"
    for condition in conditions:
        result = condition if result == "false" else writer.emit(f"or i1 {result}, {condition}")
    return result


def check_text(program: Program, symbol: str, visibility: str) -> str:
    """``SYMBOL_check``, see :func:`tgc.backend.entry.entry_text`."""
    lines, values = load_symbols(program)
    writer = DimWriter(values, checked=True)
    negative = _any(writer, [writer.emit(f"icmp slt i64 {operand}, 0") for operand in values.values()])
    for operand in values.values():
        writer.flag(writer.emit(f"icmp ugt i64 {operand}, {1 << 62}"))
    broken = []
    for constraint in program.constraints:
        opposite = "ne" if constraint.relation == "==" else "sgt"
        left, right = writer.operand(constraint.left), writer.operand(constraint.right)
        broken.append(writer.emit(f"icmp {opposite} i64 {left}, {right}"))
    unknown = writer.overflow
    arrays = (*program.inputs, *program.outputs, *program.state, *program.constants)
    extents = dict.fromkeys(d for value in arrays for d in value.shape if isinstance(d, Expr) and bounds(d, {})[0] != 0)
    short = _any(writer, [writer.emit(f"icmp slt i64 {writer.operand(d)}, 0") for d in extents])
    for value in arrays:
        writer.operand(value.bytes)
    for step in walk(program.steps):
        for known in (d for d in step_dims(step) if isinstance(d, int)):
            writer.operand(known)
        for divisor in (d for dim in step_dims(step) for d in _divisors(dim)):
            if symbols(divisor) <= values.keys():
                writer.flag(writer.emit(f"icmp slt i64 {writer.operand(divisor)}, 1"))
    result = writer.emit(f"select i1 {writer.overflow}, i32 {-Status.TOO_LARGE}, i32 0")
    result = writer.emit(f"select i1 {short}, i32 {-Status.NEGATIVE}, i32 {result}")
    for index, condition in reversed(list(enumerate(broken, start=1))):
        result = writer.emit(f"select i1 {condition}, i32 {index}, i32 {result}")
    result = writer.emit(f"select i1 {unknown}, i32 {-Status.TOO_LARGE}, i32 {result}")
    result = writer.emit(f"select i1 {negative}, i32 {-Status.NEGATIVE}, i32 {result}")
    body = "\n".join([*lines, *writer.lines, f"  ret i32 {result}"])
    return f"define {visibility} i32 @{symbol}_check(ptr %dims) {PLAIN} {{\n{body}\n}}\n"


def workspace_text(program: Program, symbol: str, visibility: str) -> str:
    """``SYMBOL_workspace``, see :func:`tgc.backend.entry.entry_text`."""
    lines, values = load_symbols(program)
    lines.append("  %threads64 = sext i32 %threads to i64")
    writer = DimWriter(values, checked=True)
    arena, scratch = writer.operand(align(program.workspace)), writer.operand(scratch_bytes(program))
    writer.bind("threads", "%threads64")
    writer.bind("scratch", scratch)
    writer.bind("arena", arena)
    total = writer.operand(_WORKSPACE)
    few = writer.emit("icmp slt i32 %threads, 1")
    result = writer.emit(f"select i1 {writer.overflow}, i64 {-Status.TOO_LARGE}, i64 {total}")
    result = writer.emit(f"select i1 {few}, i64 {-Status.THREADS}, i64 {result}")
    body = "\n".join([*lines, *writer.lines, f"  ret i64 {result}"])
    return f"define {visibility} i64 @{symbol}_workspace(ptr %dims, i32 %threads) {PLAIN} {{\n{body}\n}}\n"


def shapes_text(program: Program, symbol: str, visibility: str) -> str:
    """``SYMBOL_shapes``, see :func:`tgc.backend.entry.entry_text`."""
    lines, values = load_symbols(program)
    writer = DimWriter(values, checked=False)
    for index, d in enumerate([d for output in program.outputs for d in output.shape]):
        operand = writer.operand(d)
        writer.lines.append(f"  %to.{index} = getelementptr i64, ptr %extents, i64 {index}")
        writer.lines.append(f"  store i64 {operand}, ptr %to.{index}")
    body = "\n".join([*lines, *writer.lines, "  ret void"])
    return f"define {visibility} void @{symbol}_shapes(ptr %dims, ptr %extents) {PLAIN} {{\n{body}\n}}\n"


def cost_text(program: Program, symbol: str, visibility: str) -> str:
    """``SYMBOL_cost``, see :func:`tgc.backend.entry.entry_text`."""
    lines, values = load_symbols(program)
    writer = DimWriter(values, checked=False)
    cost = writer.operand(total_cost(program))
    body = "\n".join([*lines, *writer.lines, f"  ret i64 {cost}"])
    return f"define {visibility} i64 @{symbol}_cost(ptr %dims) {PLAIN} {{\n{body}\n}}\n"


def step_dims(step: Step) -> Iterator[Dim]:
    """The dimensions that a step itself depends on, without those of the steps inside it."""
    match step:
        case Launch():
            yield from (step.count, step.cost, align(step.scratch), *step.dims)
            yield from (address.offset for address in step.buffers)
        case Copy():
            yield from (step.bytes, step.source.offset, step.target.offset)
        case Repeat():
            yield step.count
        case While():
            yield step.condition.offset
            if step.maximum is not None:
                yield step.maximum
        case Branch():
            yield step.predicate.offset


def _divisors(d: Dim) -> Iterator[Expr]:
    """The divisors in ``d`` that depend on symbols."""
    if isinstance(d, Expr):
        for atom in (atom for monomial, _ in d.terms for atom in monomial):
            if atom.op in ("//", "%") and isinstance(atom.args[1], Expr):
                yield atom.args[1]
            for argument in atom.args:
                yield from _divisors(argument)
