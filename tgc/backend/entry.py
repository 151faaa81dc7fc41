"""Entry points: a program to the text of LLVM IR.

Launches and copies become tables that the launch loop (:mod:`tgc.backend.run_text`) reads, so that compiling an entry
takes next to no time however many there are; only dimensions, loops and branches become code.
"""

from __future__ import annotations

from collections.abc import Iterable

from tgc.backend.abi import CALL_TYPE, SPACE_FIELDS, STEP_TYPE, WORKSPACE_FIELD
from tgc.backend.dims_text import DimWriter
from tgc.backend.entry_checks import (
    PLAIN,
    align,
    check_text,
    cost_text,
    load_symbols,
    shapes_text,
    step_dims,
    workspace_text,
)
from tgc.backend.run_text import kernel_declaration
from tgc.ir.dims import Dim, Expr, symbols
from tgc.kernels.program import (
    Address,
    Branch,
    Copy,
    Launch,
    Program,
    Repeat,
    Step,
    While,
    launches,
    verify,
    walk,
)


def entry_text(program: Program, *, symbol: str, exported: bool = True) -> str:
    """LLVM IR of the entry ``symbol`` and of what a caller must know before it calls it.

    * ``i32 SYMBOL(ptr call)``: runs the program; 0 or a :class:`~tgc.backend.abi.Status`. It checks nothing.
    * ``i32 SYMBOL_check(ptr dims)``: 0, a negated status, or 1 + the index of the first broken constraint.
    * ``i64 SYMBOL_workspace(ptr dims, i32 threads)``: bytes of workspace, or a negated status.
    * ``void SYMBOL_shapes(ptr dims, ptr extents)``: the extents of all outputs, one after the other.
    * ``i64 SYMBOL_cost(ptr dims)``: about how many nanoseconds it takes on one core.

    Its setup has an entry as well, :func:`setup_symbol`. They call ``tgc_run`` and the kernels, which the module must
    define or declare. Raises :class:`~tgc.errors.VerificationError` for a malformed program.
    """
    verify(program)
    visibility = "" if exported else "internal"
    writer = _EntryWriter(program, symbol)
    return "".join(
        (
            "" if program.setup is None else entry_text(program.setup, symbol=setup_symbol(symbol), exported=exported),
            writer.text(visibility),
            check_text(program, symbol, visibility),
            workspace_text(program, symbol, visibility),
            shapes_text(program, symbol, visibility),
            cost_text(program, symbol, visibility),
        )
    )


def entry_symbols(symbol: str) -> tuple[str, ...]:
    """The names that :func:`entry_text` defines."""
    return (symbol, *(f"{symbol}_{part}" for part in ("check", "workspace", "shapes", "cost")))


def setup_symbol(symbol: str) -> str:
    """The symbol of the setup of the program whose entry is ``symbol``."""
    return f"{symbol}_setup"


def kernel_declarations(programs: Iterable[Program]) -> str:
    """The lines that declare the kernels that programs launch, for a module that does not define them."""
    every = [p for program in programs for p in (program, program.setup) if p is not None]
    names = dict.fromkeys(launch.kernel for program in every for launch in launches(program))
    return "".join(map(kernel_declaration, names))


def _scope_dims(steps: tuple[Step, ...], known: frozenset[str], iteration: str | None) -> tuple[Expr, ...]:
    """The expressions in ``steps``, inner ones included, that can and must be computed where ``known`` is known:
    all that need no iteration, or, inside a loop, those that need its iteration."""
    found: dict[Expr, None] = {}
    for step in walk(steps):
        for d in step_dims(step):
            if isinstance(d, Expr) and d not in found:
                needed = symbols(d)
                if needed <= known and (iteration is None or iteration in needed):
                    found[d] = None
    return tuple(found)


class _EntryWriter:
    """Writes one entry. ``values`` on its stack holds each number that is not constant, in a slot; the first slots are
    the program's symbols."""

    def __init__(self, program: Program, symbol: str) -> None:
        self.program = program
        self.symbol = symbol
        self.lines: list[str] = []
        self.label = "start"
        self.slots: dict[Dim, int] = {}
        self.runs: dict[tuple[str, ...], int] = {program.symbols: 0}
        self.used = len(program.symbols)
        self.addresses: list[str] = []
        self.steps: list[str] = []
        self.failures: list[str] = []
        self.labels = 0

    def text(self, visibility: str) -> str:
        program, symbol = self.program, self.symbol
        loads, values = load_symbols(program)
        writer = DimWriter(values, checked=False, prefix="top")
        for slot, operand in enumerate(values.values()):
            writer.lines.append(f"  %keep.{slot} = getelementptr i64, ptr %values, i64 {slot}")
            writer.lines.append(f"  store i64 {operand}, ptr %keep.{slot}")
        known = frozenset(program.symbols)
        self._reserve_runs()
        self._define(program.steps, known, None, writer)
        arena = writer.operand(align(program.workspace))
        self.lines += writer.lines
        self.lines.append(f"  %scratch = getelementptr i8, ptr %workspace, i64 {arena}")
        self._steps(program.steps, known, values)
        most = max((len(launch.buffers) for launch in launches(program)), default=0)
        head = [
            f"define {visibility} i32 @{symbol}(ptr %call) {PLAIN} {{",
            "start:",
            f"  %values = alloca [{max(1, self.used)} x i64]",
            f"  %pointers = alloca [{max(2, most)} x ptr]",
            f"  %dims.at = getelementptr {CALL_TYPE}, ptr %call, i32 0, i32 4",
            "  %dims = load ptr, ptr %dims.at",
            f"  %workspace.at = getelementptr {CALL_TYPE}, ptr %call, i32 0, i32 {WORKSPACE_FIELD}",
            "  %workspace = load ptr, ptr %workspace.at",
        ]
        tail = ["  ret i32 0"]
        if self.failures:
            tail += ["fail:", f"  %status = phi i32 {', '.join(self.failures)}", "  ret i32 %status"]
        return "\n".join([*self._tables(), *head, *loads, *self.lines, *tail, "}", ""])

    def _tables(self) -> list[str]:
        symbol, tables = self.symbol, []
        if self.addresses:
            rows = ", ".join(self.addresses)
            tables.append(f"@{symbol}.addresses = private constant [{len(self.addresses)} x [4 x i64]] [{rows}]")
        if self.steps:
            rows = ",\n  ".join(f"{STEP_TYPE} {step}" for step in self.steps)
            tables.append(f"@{symbol}.steps = private constant [{len(self.steps)} x {STEP_TYPE}] [{rows}]")
        return tables

    def _new_label(self, stem: str) -> str:
        self.labels += 1
        return f"{stem}.{self.labels}"

    def _begin(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.label = label

    def _reserve_runs(self) -> None:
        """Gives the dimensions of each launch slots that follow each other, as its kernel wants them."""
        for launch in launches(self.program):
            key = tuple(map(str, launch.dims))
            if key and key not in self.runs:
                self.runs[key] = self.used
                self.used += len(key)

    def _define(self, steps: tuple[Step, ...], known: frozenset[str], iteration: str | None, writer: DimWriter) -> None:
        """Stores what ``steps`` need of the dimensions that ``known`` determines."""
        for d in _scope_dims(steps, known, iteration):
            if d not in self.slots:
                self.slots[d] = self.used
                self.used += 1
            self._store(writer, d, self.slots[d])
        stored: set[int] = set()
        for step in walk(steps):
            if isinstance(step, Launch) and step.dims:
                base = self.runs[tuple(map(str, step.dims))]
                for slot, value in enumerate(step.dims, start=base):
                    needed = symbols(value)
                    here = needed <= known and (iteration is None or iteration in needed)
                    if here and slot >= len(self.program.symbols) and slot not in stored:
                        self._store(writer, value, slot)
                        stored.add(slot)

    def _store(self, writer: DimWriter, d: Dim, slot: int) -> None:
        operand = writer.operand(d)
        at = writer.emit(f"getelementptr i64, ptr %values, i64 {slot}")
        writer.lines.append(f"  store i64 {operand}, ptr {at}")

    def _number(self, d: Dim) -> str:
        return f"i64 {d}, i64 -1" if isinstance(d, int) else f"i64 0, i64 {self.slots[d]}"

    def _value(self, d: Dim) -> str:
        """An operand of ``d``, loaded from its slot."""
        if isinstance(d, int):
            return str(d)
        name = self._new_label("%value")
        self.lines.append(f"  {name}.at = getelementptr i64, ptr %values, i64 {self.slots[d]}")
        self.lines.append(f"  {name} = load i64, ptr {name}.at")
        return name

    def _address(self, address: Address) -> str:
        return f"[4 x i64] [i64 {SPACE_FIELDS[address.space]}, i64 {address.index}, {self._number(address.offset)}]"

    def _row(self, step: Launch | Copy) -> str:
        first = len(self.addresses)
        at = f"ptr getelementptr ([4 x i64], ptr @{self.symbol}.addresses, i64 {first})"
        if isinstance(step, Copy):
            self.addresses += [self._address(step.source), self._address(step.target)]
            return f"{{ ptr null, {at}, i64 2, i64 0, {self._number(step.bytes)}, i64 0, i64 -1, i64 0, i64 -1 }}"
        self.addresses += map(self._address, step.buffers)
        if not step.buffers:
            at = "ptr null"
        numbers = ", ".join(map(self._number, (step.count, step.cost, align(step.scratch))))
        slot = self.runs[tuple(map(str, step.dims))] if step.dims else 0
        return f"{{ ptr @{step.kernel}, {at}, i64 {len(step.buffers)}, i64 {slot}, {numbers} }}"

    def _steps(self, steps: tuple[Step, ...], known: frozenset[str], values: dict[str, str]) -> None:
        row = 0
        while row < len(steps):
            step = steps[row]
            row += 1
            match step:
                case Repeat():
                    self._repeat(step, known, values)
                case While():
                    self._while(step, known, values)
                case Branch():
                    self._branch(step, known, values)
                case _:
                    first = len(self.steps)
                    self.steps.append(self._row(step))
                    while row < len(steps) and isinstance(following := steps[row], Launch | Copy):
                        self.steps.append(self._row(following))
                        row += 1
                    self._run(first, len(self.steps) - first)

    def _run(self, first: int, count: int) -> None:
        status, then = self._new_label("%status"), self._new_label("ran")
        table = f"ptr getelementptr ({STEP_TYPE}, ptr @{self.symbol}.steps, i64 {first})"
        arguments = f"ptr %call, {table}, i64 {count}, ptr %values, ptr %pointers, ptr %scratch"
        self.lines.append(f"  {status} = call i32 @tgc_run({arguments})")
        self.lines.append(f"  {status}.bad = icmp ne i32 {status}, 0")
        self.lines.append(f"  br i1 {status}.bad, label %fail, label %{then}")
        self.failures.append(f"[ {status}, %{self.label} ]")
        self._begin(then)

    def _repeat(self, step: Repeat, known: frozenset[str], values: dict[str, str]) -> None:
        head, body, end, i = (self._new_label(stem) for stem in ("repeat", "body", "end", "%i"))
        count, before = self._value(step.count), self.label
        self.lines.append(f"  br label %{head}")
        self._begin(head)
        at_phi = len(self.lines)
        self.lines.append("")
        self.lines.append(f"  {i}.more = icmp slt i64 {i}, {count}")
        self.lines.append(f"  br i1 {i}.more, label %{body}, label %{end}")
        self._begin(body)
        inside, known = {**values, step.iteration: i}, known | {step.iteration}
        writer = DimWriter(inside, checked=False, prefix=f"{body}.")
        self._define(step.body, known, step.iteration, writer)
        self.lines += writer.lines
        self._steps(step.body, known, inside)
        self.lines.append(f"  {i}.next = add i64 {i}, 1")
        self.lines.append(f"  br label %{head}")
        self.lines[at_phi] = f"  {i} = phi i64 [ 0, %{before} ], [ {i}.next, %{self.label} ]"
        self._begin(end)

    def _while(self, step: While, known: frozenset[str], values: dict[str, str]) -> None:
        head, body, end, i = (self._new_label(stem) for stem in ("while", "do", "end", "%i"))
        maximum = None if step.maximum is None else self._value(step.maximum)
        before = self.label
        self.lines.append(f"  br label %{head}")
        self._begin(head)
        at_phi = len(self.lines)
        self.lines.append("")
        self._steps(step.condition_steps, known, values)
        holds = self._bool(step.condition)
        if maximum is not None:
            self.lines.append(f"  {i}.more = icmp slt i64 {i}, {maximum}")
            self.lines.append(f"  {i}.both = and i1 {i}.more, {holds}")
            holds = f"{i}.both"
        self.lines.append(f"  br i1 {holds}, label %{body}, label %{end}")
        self._begin(body)
        self._steps(step.body_steps, known, values)
        self.lines.append(f"  {i}.next = add i64 {i}, 1")
        self.lines.append(f"  br label %{head}")
        self.lines[at_phi] = f"  {i} = phi i64 [ 0, %{before} ], [ {i}.next, %{self.label} ]"
        self._begin(end)

    def _branch(self, step: Branch, known: frozenset[str], values: dict[str, str]) -> None:
        then, other, end = (self._new_label(stem) for stem in ("then", "else", "end"))
        self.lines.append(f"  br i1 {self._bool(step.predicate)}, label %{then}, label %{other}")
        for label, steps in ((then, step.then_steps), (other, step.else_steps)):
            self._begin(label)
            self._steps(steps, known, values)
            self.lines.append(f"  br label %{end}")
        self._begin(end)

    def _bool(self, address: Address) -> str:
        """An i1 operand: the bool at ``address``."""
        name, offset = self._new_label("%flag"), self._value(address.offset)
        if address.space == "workspace":
            base = "%workspace"
        else:
            field = SPACE_FIELDS[address.space]
            base = f"{name}.base"
            self.lines.append(f"  {name}.field = getelementptr {CALL_TYPE}, ptr %call, i32 0, i32 {field}")
            self.lines.append(f"  {name}.table = load ptr, ptr {name}.field")
            self.lines.append(f"  {name}.entry = getelementptr ptr, ptr {name}.table, i64 {address.index}")
            self.lines.append(f"  {base} = load ptr, ptr {name}.entry")
        self.lines.append(f"  {name}.at = getelementptr i8, ptr {base}, i64 {offset}")
        self.lines.append(f"  {name}.byte = load i8, ptr {name}.at")
        self.lines.append(f"  {name} = icmp ne i8 {name}.byte, 0")
        return name
