"""From a planned function to a program: which kernel runs when, on which addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from passes.base import all_nodes
from passes.memory_plan import ALIGNMENT, aligned, carried, execution_order, root, value_bytes
from tgc.dtypes import i64
from tgc.errors import CompilerBug, UserError
from tgc.invariants import Invariants
from tgc.ir.dims import Dim, Expr, dim_max, symbol, symbols
from tgc.ir.graph import Attribute, Constant, Function, Graph, Node, State, Value
from tgc.ir.kinds import FusionKind
from tgc.ir.opdef import OpTable
from tgc.ir.types import TensorType
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.choose import lower
from tgc.kernels.ir import Kernel
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.program import Address, Branch, Constraint, Copy, Launch, Program, ProgramValue, Repeat, Step, While
from tgc.ops import rules
from tgc.target import Target


@dataclass
class KernelLibrary:
    """The kernels of a module, equal ones once. ``sources``: which fusion node each kernel name came from first.

    ``made`` is called with each kernel as soon as there is one.
    """

    table: OpTable
    target: Target
    prefix: str = "k"
    made: Callable[[Kernel], None] | None = None
    kernels: dict[str, Kernel] = field(default_factory=dict)
    sources: dict[str, Node] = field(default_factory=dict)
    _lowered: dict[object, Lowering] = field(default_factory=dict)
    _kept: dict[Node, frozenset[int]] = field(default_factory=dict)

    def lowering(self, node: Node, kept: frozenset[int] | None = None) -> Lowering:
        """The kernels of a fusion node, of whose operands ``kept`` are the same in every call (None: those that were
        before)."""
        kept = self._kept[node] = self._kept.get(node, frozenset()) if kept is None else kept
        kind, region = FusionKind(node.attributes["kind"]), node.regions[0]
        key = (kind, region, kept)
        found = self._lowered.get(key)
        if found is None:
            name = f"{self.prefix}{len(self._lowered)}_{_title(region)}"
            found = lower(kind, region, name=name, target=self.target, table=self.table, kept=kept)
            self._lowered[key] = found
            for stage in found.stages:
                self._add(stage.kernel)
                self.sources[stage.kernel.name] = node
        return found

    def _add(self, kernel: Kernel) -> None:
        self.kernels[kernel.name] = kernel
        if self.made is not None:
            self.made(kernel)

    def counter(self) -> Stage:
        """A kernel that writes the value of its symbol ``i`` to an i64."""
        found = self._lowered.get("counter")
        if found is None:
            builder = KernelBuilder(f"{self.prefix}_counter", count=1)
            out = builder.buffer("r0", i64, 1, "write")
            builder.store(out, 0, builder.index(symbol("i")))
            kernel = builder.finish()
            found = self._lowered["counter"] = Lowering((Stage(kernel, 1),))
            self._add(kernel)
        return found.stages[0]


def _title(region: Graph) -> str:
    ops = [n.op for n in region.nodes() if n.op not in ("parameter", "constant", "broadcast", "iota", "cast")]
    return "_".join(dict.fromkeys(ops))[:48] or "copy"


def program_of(
    function: Function,
    library: KernelLibrary,
    *,
    state: Mapping[str, State],
    constants: Mapping[str, Constant],
    ranges: Mapping[str, tuple[int, int | None]],
    unassigned: frozenset[str] = frozenset(),
) -> Program:
    """The program of a planned function, and its setup.

    Its inputs, outputs, state and constants are in the order of the function's parameters and results and of the
    mappings; only the state and constants that it uses are among them, and those that its setup computes come last.
    ``unassigned``: names of the state that no function assigns.
    """
    return _Assembler(function, library, state, constants, ranges, unassigned).run()


class _Scope:
    """Where the values of a function or region are: parameters given, results wanted, arena from ``base`` on."""

    def __init__(self, graph_parameters: Sequence[Address], results: Sequence[Address | None], base: Dim) -> None:
        self.parameters = tuple(graph_parameters)
        self.results = tuple(results)
        self.base = base


class _Assembler:
    def __init__(
        self,
        function: Function,
        library: KernelLibrary,
        state: Mapping[str, State],
        constants: Mapping[str, Constant],
        ranges: Mapping[str, tuple[int, int | None]],
        unassigned: frozenset[str],
    ) -> None:
        if function.workspace is None:
            raise CompilerBug("memory is not planned", stage="programs")
        self.function = function
        self.library = library
        self.ranges = ranges
        nodes = function.nodes()
        used = {(n.op, n.attributes["name"]) for n in nodes if n.op in ("state", "literal")}
        assigned = {name for name, _ in function.assigns}
        self.state = {n: s for n, s in state.items() if ("state", n) in used or n in assigned}
        self.constants = {n: c for n, c in constants.items() if ("literal", n) in used}
        self.state_index = {name: i for i, name in enumerate(self.state)}
        self.constant_index = {name: i for i, name in enumerate(self.constants)}
        self.held = _values(tuple(self.state), [s.type for s in self.state.values()])
        given = _values(tuple(self.constants), [c.type for c in self.constants.values()])
        self.invariants = Invariants(self.held, given, unassigned)
        loops = sum(n.op == "scan" for n in all_nodes(function.outputs))
        self.counters: Dim = function.workspace
        # each loop's counter has a line of its own between the arena and the temporaries
        self.temporaries: Dim = function.workspace + loops * ALIGNMENT
        self.workspace: Dim = self.temporaries
        self.iterations = 0

    def run(self) -> Program:
        function = self.function
        scope = _Scope(
            [Address("input", i) for i in range(len(function.parameters))],
            [Address("output", i) for i in range(len(function.results))],
            0,
        )
        table = self.library.table
        order = execution_order(function.outputs, table, [v for _, v in function.assigns])
        steps, where = self._steps(order, scope)
        steps += self._deliver(scope, function.results, where)
        steps += self._assign(where)
        inputs = _values(_names(function, len(function.parameters)), [v.type for v in function.parameters])
        names = function.result_names or tuple(f"out{i}" for i in range(len(function.results)))
        outputs = _values(names, [v.type for v in function.results])
        program = Program(
            function.name,
            inputs,
            outputs,
            self.held,
            symbols=self._symbols(inputs + self.held),
            constraints=self._constraints(inputs),
            steps=tuple(steps),
            workspace=self.workspace,
        )
        return self.invariants.finished(program)

    def _symbols(self, values: Sequence[ProgramValue]) -> tuple[str, ...]:
        sizes = [d for value in values for d in value.shape]
        found = dict.fromkeys(name for d in sizes for name in sorted(symbols(d)))
        unsaid = [name for name in found if symbol(name) not in sizes]
        if unsaid:
            raise UserError(
                f"{self.function.name}: the sizes of its arguments do not tell what {', '.join(unsaid)} is",
                hint=f"give an argument a dimension that is {unsaid[0]} itself",
            )
        return tuple(found)

    def _constraints(self, inputs: Sequence[ProgramValue]) -> tuple[Constraint, ...]:
        found = [
            Constraint(c.left, "==", c.right, f"{c.because}: {c.left} and {c.right} must be equal")
            for c in self.function.constraints
        ]
        used = set().union(*(symbols(d) for v in inputs for d in v.shape)) if inputs else set()
        for name, (low, high) in sorted(self.ranges.items()):
            if name not in used:
                continue
            if low:
                found.append(Constraint(low, "<=", symbol(name), f"{name} must be at least {low}"))
            if high is not None:
                found.append(Constraint(symbol(name), "<=", high, f"{name} must be at most {high}"))
        return tuple(found)

    def _steps(self, order: Sequence[Node], scope: _Scope) -> tuple[list[Step], dict[Value, Address]]:
        where: dict[Value, Address] = {}
        steps: list[Step] = []
        for node in order:
            match node.op:
                case "parameter":
                    where[node.result] = scope.parameters[rules.integer(node.attributes, "index")]
                case "state":
                    where[node.result] = Address("state", self.state_index[str(node.attributes["name"])])
                case "literal":
                    where[node.result] = Address("constant", self.constant_index[str(node.attributes["name"])])
                case _:
                    if root(node.results[0]).node is not node:
                        where[node.result] = where[node.operands[0]]
                        continue
                    operands = [where[v] for v in node.operands]
                    results = [self._place(p, scope) for p in node.attributes["places"]]  # type: ignore[union-attr]
                    where.update(zip(node.results, results, strict=True))
                    steps += self._run(node, operands, results, scope)
        return steps, where

    def _place(self, place: Attribute, scope: _Scope) -> Address:
        match place:
            case ("arena", (int() | Expr()) as offset):
                return Address("workspace", 0, scope.base + offset)
            case ("result", int(index)):
                address = scope.results[index]
                if address is not None:
                    return address
            case ("state", str(name)):
                return Address("state", self.state_index[name])
        raise CompilerBug(f"{place!r} is no place", stage="programs")

    def _run(self, node: Node, operands: list[Address], results: list[Address], scope: _Scope) -> list[Step]:
        match node.op:
            case "fusion":
                return self._launch(node, operands, results)
            case "cond":
                then, otherwise = (
                    self._region(g, operands[1:], results, self._base(node, scope)) for g in node.regions
                )
                return [Branch(operands[0], tuple(then), tuple(otherwise))]
            case "scan":
                return self._scan(node, operands, results, scope)
            case "while_loop":
                return self._while(node, operands, results, scope)
        raise CompilerBug(f"{node.op} is not fused", stage="programs")

    def _launch(self, node: Node, operands: list[Address], results: list[Address]) -> list[Step]:
        fixed = self.invariants.function.fixed
        lowering = self.library.lowering(node, frozenset(i for i, a in enumerate(operands) if a in fixed))
        places = {f"p{i}": a for i, a in enumerate(operands)} | {f"r{i}": a for i, a in enumerate(results)}
        steps: list[Step] = []
        offset = self.temporaries
        for stage in lowering.stages:
            buffers = stage.kernel.buffers
            level = self.invariants.level(stage, lowering, places)
            work = (stage.kernel.name, tuple(places[b.name] for b in buffers if b.name in places))
            made = [b.name for b in buffers if b.name not in places]
            if level is not None and work in level.made:
                places.update(zip(made, level.made[work], strict=True))
                continue
            for name in made:
                temporary = lowering.temporaries[name]
                if level is self.invariants.function:
                    places[name] = self.invariants.constant(work, name, temporary)
                else:
                    places[name] = Address("workspace", 0, offset)
                    offset = offset + aligned(temporary.size * temporary.dtype.itemsize)
            launch = _launch_of(stage, tuple(places[b.name] for b in buffers))
            if level is None:
                steps.append(launch)
            else:
                self.invariants.leave(level, work, launch, [places[name] for name in made])
        if offset != self.temporaries:
            self.workspace = dim_max(self.workspace, offset)
        if self.invariants.in_loop:
            # what leaves the loop must outlive its steps, so that their temporaries share nothing
            self.temporaries = offset
        return steps

    def _base(self, node: Node, scope: _Scope) -> Dim:
        return scope.base + rules.dim(node.attributes, "base")

    def _region(self, graph: Graph, parameters: Sequence[Address], results: Sequence[Address], base: Dim) -> list[Step]:
        inner = _Scope(parameters, results, base)
        steps, where = self._steps(execution_order(graph.results, self.library.table), inner)
        return steps + self._deliver(inner, graph.results, where)

    def _deliver(self, scope: _Scope, results: Sequence[Value], where: Mapping[Value, Address]) -> list[Step]:
        """Copies for results that no kernel writes in place: parameters, constants, duplicates."""
        return [
            Copy(where[value], target, value_bytes(value.type))
            for value, target in zip(results, scope.results, strict=True)
            if target is not None and where[value] != target
        ]

    def _assign(self, where: Mapping[Value, Address]) -> list[Step]:
        """Copies to state whose new value was made elsewhere; what comes from state itself is staged first."""
        staged: list[Step] = []
        copies: list[Step] = []
        for name, value in self.function.assigns:
            source, target = where[value], Address("state", self.state_index[name])
            if source == target:
                continue
            size = value_bytes(value.type)
            if source.space == "state":
                stage = Address("workspace", 0, self.workspace)
                self.workspace = self.workspace + aligned(size)
                staged.append(Copy(source, stage, size))
                source = stage
            copies.append(Copy(source, target, size))
        return staged + copies

    def _next(self, node: Node, scope: _Scope) -> list[Address]:
        return [Address("workspace", 0, scope.base + offset) for offset in rules.dims(node.attributes, "next")]

    def _scan(self, node: Node, operands: list[Address], results: list[Address], scope: _Scope) -> list[Step]:
        attributes, region = node.attributes, node.regions[0]
        carries, sequences = rules.integer(attributes, "carries"), rules.integer(attributes, "sequences")
        length = rules.dim(attributes, "length")
        name = f"iteration{self.iterations}"
        self.iterations += 1
        at: Dim = (length - 1) - symbol(name) if attributes.get("reverse") else symbol(name)

        def slice_of(address: Address, type: TensorType) -> Address:
            return replace(address, offset=address.offset + at * value_bytes(type))

        current, following = results[:carries], self._next(node, scope)
        sizes = [value_bytes(v.type) for v in region.parameters[1 : 1 + carries]]
        slices = [
            slice_of(a, v.type)
            for a, v in zip(operands[carries : carries + sequences], region.parameters[1 + carries :], strict=False)
        ]
        outputs = [slice_of(a, v.type) for a, v in zip(results[carries:], region.results[carries:], strict=True)]
        counter = Address("workspace", 0, self.counters)
        self.counters = self.counters + ALIGNMENT
        parameters = [counter, *current, *slices, *operands[carries + sequences :]]
        body = self._count(region, counter, at)
        with self._loop(operands[carries + sequences :]) as left:
            body += self._region(region, parameters, [*following, *outputs], self._base(node, scope))
        body += [Copy(a, b, s) for a, b, s in zip(following, current, sizes, strict=True)]
        start: list[Step] = [
            Copy(a, b, s) for a, b, s in zip(operands[:carries], current, sizes, strict=True) if a != b
        ]
        return [*start, *left, Repeat(length, name, tuple(body))]

    @contextmanager
    def _loop(self, captured: Sequence[Address]) -> Iterator[list[Launch]]:
        """While a loop's steps are assembled; gives those that leave it, in the end."""
        outermost, before = not self.invariants.in_loop, self.temporaries
        with self.invariants.loop(captured) as level:
            yield level.before
        if outermost:
            self.temporaries = before

    def _count(self, region: Graph, counter: Address, at: Dim) -> list[Step]:
        used = {v.node for n in region.nodes() for v in n.operands} | {v.node for v in region.results}
        if region.parameters[0].node not in used:
            return []
        stage = self.library.counter()
        return [Launch(stage.kernel.name, (counter,), (at,), 1, 0, stage.cost)]

    def _while(self, node: Node, operands: list[Address], results: list[Address], scope: _Scope) -> list[Step]:
        count = rules.integer(node.attributes, "carries")
        *following, predicate = self._next(node, scope)
        sizes = [value_bytes(v.type) for v in carried(node)[:count]]
        parameters, base = [*results, *operands[count:]], self._base(node, scope)
        with self._loop(operands[count:]) as left:
            condition = self._region(node.regions[0], parameters, [predicate], base)
            body = self._region(node.regions[1], parameters, following, base)
        body += [Copy(a, b, s) for a, b, s in zip(following, results, sizes, strict=True)]
        start: list[Step] = [Copy(a, b, s) for a, b, s in zip(operands[:count], results, sizes, strict=True) if a != b]
        return [*start, *left, While(predicate, tuple(condition), tuple(body))]


def _launch_of(stage: Stage, buffers: tuple[Address, ...]) -> Launch:
    kernel = stage.kernel
    return Launch(
        kernel.name, buffers, tuple(map(symbol, kernel.symbols)), kernel.count, kernel.scratch_bytes, stage.cost
    )


def _names(function: Function, count: int) -> tuple[str, ...]:
    names = function.graph.names
    return names if len(names) == count else tuple(f"arg{i}" for i in range(count))


def _values(names: Sequence[str], types: Sequence[TensorType]) -> tuple[ProgramValue, ...]:
    return tuple(ProgramValue(n, t.dtype, t.shape) for n, t in zip(names, types, strict=True))
