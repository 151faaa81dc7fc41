"""memory-plan: where every value lives.

Each result of a kernel gets a place, written on its node as the attribute ``places``, one entry a result:
``("arena", offset)`` bytes from the start of the region's arena, ``("result", i)`` the i-th result of the enclosing
function or region, ``("state", name)`` in place of the old state. Offsets are expressions in the symbolic dimensions.
A control op also has ``base``: where its regions' own arena starts. Loops keep their carried values in the places of
their results, and have ``next``: where an iteration puts the values that the following one gets (a ``while_loop`` has
one more, for its condition).

Slots are reused when their tenant is dead; a slot has the maximum of its tenants' sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from passes.base import Pass, PassContext, with_functions
from passes.fusion_groups import is_alias
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, dim_max, evaluate, symbols
from tgc.ir.graph import Attribute, Function, Graph, Module, Node, Value, intern, topological
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.ir.types import TensorType

ALIGNMENT = 64
_TYPICAL = 32  # a size for symbolic dimensions, only to choose between slots
Places = tuple[tuple[Attribute, ...], ...]


@dataclass(frozen=True)
class MemoryPlan(Pass):
    """Gives every result of a kernel its place in memory."""

    name = "memory-plan"
    requires = frozenset({"fused"})
    ensures = frozenset({"planned"})

    def run(self, module: Module, context: PassContext) -> Module:
        builder = context.builder(module)
        functions = []
        for function in module.functions:
            planned = function if function.workspace is not None else plan_function(function, context.table)
            _locate(builder, function.outputs, planned.outputs, context.table)
            functions.append(planned)
        return with_functions(module, tuple(functions), builder)


def _locate(builder: Builder, old: Sequence[Value], new: Sequence[Value], table: OpTable) -> None:
    """Locates planned nodes where the nodes are that they were made of, those of regions too."""
    for before, after in zip(execution_order(old, table), execution_order(new, table), strict=True):
        builder.locate(after, builder.locations.get(before, ()))
        if before.op != "fusion":
            for region, planned in zip(before.regions, after.regions, strict=True):
                _locate(builder, region.results, planned.results, table)


def value_bytes(type: TensorType) -> Dim:
    """Bytes of the buffer that holds a value of ``type``."""
    return type.buffer_size * type.dtype.itemsize


def aligned(size: Dim) -> Dim:
    """The size, rounded up to the alignment of places."""
    return (size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT


def root(value: Value) -> Value:
    """The value whose buffer this value is: itself, or what it is a reshape of."""
    while is_alias(value.node):
        value = value.node.operands[0]
    return value


@dataclass
class _Slot:
    size: Dim
    weight: int
    free_from: int = 0


@dataclass
class Arena:
    """Slots of one function or region; ``offsets`` are known once all are taken."""

    slots: list[_Slot] = field(default_factory=list)

    def take(self, size: Dim, first: int, last: int) -> int:
        """A slot for ``size`` bytes that is in use from step ``first`` to step ``last``."""
        weight = evaluate(size, dict.fromkeys(symbols(size), _TYPICAL))
        best, waste = -1, 0
        for i, slot in enumerate(self.slots):
            if slot.free_from <= first:
                cost = abs(slot.weight - weight)
                if best < 0 or cost < waste:
                    best, waste = i, cost
        if best >= 0 and waste <= max(weight, 4096):
            slot = self.slots[best]
            slot.size = slot.size if slot.size == size else dim_max(slot.size, size)
            slot.weight = max(slot.weight, weight)
            slot.free_from = last + 1
            return best
        self.slots.append(_Slot(size, weight, last + 1))
        return len(self.slots) - 1

    def offsets(self) -> tuple[list[Dim], Dim]:
        """The offset of each slot, and the size of all in bytes."""
        offset: Dim = 0
        offsets: list[Dim] = []
        for slot in self.slots:
            offsets.append(offset)
            offset = offset + aligned(slot.size)
        return offsets, offset


def execution_order(outputs: Sequence[Value], table: OpTable, late: Iterable[Value] = ()) -> list[Node]:
    """The order in which the nodes run: topological, what only ``late`` values (updates of state) need comes last."""
    postponed = set(late)
    early = topological(v for v in outputs if v not in postponed)
    seen = set(early)
    return early + [n for n in topological(outputs) if n not in seen]


def only_mapped(graph: Graph, index: int, table: OpTable) -> bool:
    """Whether a kernel reads parameter ``index`` only at the very index at which it writes its results."""
    reached = {graph.parameters[index].node}
    type = graph.parameters[index].type
    for node in graph.nodes():
        if not any(v.node in reached for v in node.operands):
            continue
        if table[node.op].kind is not OpKind.MAP or node.types[0].shape != type.shape:
            return False
        reached.add(node)
    return True


class Planner:
    """Plans one function, or one region of a control op."""

    def __init__(self, table: OpTable, results: Sequence[Value], assigns: Sequence[tuple[str, Value]] = ()) -> None:
        self.table = table
        self.results = tuple(results)
        self.assigns = tuple(assigns)
        outputs = self.results + tuple(v for _, v in assigns)
        self.order = execution_order(outputs, table, [v for _, v in assigns])
        self.position = {node: i for i, node in enumerate(self.order)}
        self.last: dict[Value, int] = {}
        self.readers: dict[Value, list[Node]] = {}
        for node in self.order:
            for operand in node.operands:
                base = root(operand)
                self.last[base] = max(self.last.get(base, -1), self.position[node])
                if not is_alias(node):
                    self.readers.setdefault(base, []).append(node)
        self.ends = {root(v) for v in outputs}
        for base in self.ends:
            self.last[base] = len(self.order)
        self.places: dict[Value, tuple[Attribute, ...]] = {}
        self.slots: dict[Value, int] = {}
        self.bases: dict[Node, int] = {}
        self.next: dict[Node, tuple[int, ...]] = {}
        self.regions: dict[Node, tuple[Graph, ...]] = {}
        self.arena = Arena()

    def run(self) -> tuple[dict[Value, Value], Dim]:
        """The new value of every output, and the bytes of the arena."""
        self._fixed_places()
        for step, node in enumerate(self.order):
            if is_alias(node) or not self._is_kernel(node):
                continue
            if node.regions and node.op != "fusion":
                self._plan_control(node, step)
            for value in node.results:
                if value not in self.places:
                    self.slots[value] = self.arena.take(value_bytes(value.type), step, self.last.get(value, step))
        return self._rebuild()

    def _is_kernel(self, node: Node) -> bool:
        return node.op not in ("parameter", "state", "literal")

    def _fixed_places(self) -> None:
        for i, value in enumerate(self.results):
            base = root(value)
            if base not in self.places and self._is_kernel(base.node):
                self.places[base] = ("result", i)
        for name, value in self.assigns:
            base = root(value)
            if base not in self.places and self._is_kernel(base.node) and self._may_replace(name, base):
                self.places[base] = ("state", name)

    def _may_replace(self, name: str, value: Value) -> bool:
        """Whether ``value`` may be written over the old state: everybody else has read it by then."""
        old = [n for n in self.order if n.op == "state" and n.attributes["name"] == name]
        if not old:
            return value.node.op == "fusion"
        before = old[0].result
        if before in self.ends or before.type != value.type or value.node.op != "fusion":
            return False
        step = self.position[value.node]
        for reader in self.readers.get(before, ()):
            if self.position[reader] > step:
                return False
            if reader is value.node:
                indices = [i for i, v in enumerate(reader.operands) if root(v) == before]
                if not all(only_mapped(reader.regions[0], i, self.table) for i in indices):
                    return False
        return True

    def _plan_control(self, node: Node, step: int) -> None:
        planned = [plan_region(g, self.table) for g in node.regions]
        self.regions[node] = tuple(g for g, _ in planned)
        size: Dim = 0
        for _, needed in planned:
            size = dim_max(size, needed)
        self.bases[node] = self.arena.take(size, step, step)
        self.next[node] = tuple(self.arena.take(value_bytes(v.type), step, step) for v in carried(node))

    def _rebuild(self) -> tuple[dict[Value, Value], Dim]:
        offsets, size = self.arena.offsets()
        new: dict[Value, Value] = {}
        for node in self.order:
            operands = tuple(new[v] for v in node.operands)
            attributes = dict(node.attributes)
            if not is_alias(node) and self._is_kernel(node):
                attributes["places"] = tuple(
                    self.places[v] if v in self.places else ("arena", offsets[self.slots[v]]) for v in node.results
                )
                if node in self.bases:
                    attributes["base"] = offsets[self.bases[node]]
                    attributes["next"] = tuple(offsets[slot] for slot in self.next[node])
            made = intern(node.op, operands, attributes, self.regions.get(node, node.regions), node.types)
            new.update(zip(node.results, made.results, strict=True))
        return new, size


def carried(node: Node) -> tuple[Value, ...]:
    """What a loop's iteration computes for the next one: values of its body, then a ``while_loop``'s condition."""
    if node.op == "scan":
        return node.regions[0].results[: int(node.attributes["carries"])]  # type: ignore[arg-type]
    if node.op == "while_loop":
        return node.regions[1].results + node.regions[0].results
    return ()


def plan_region(graph: Graph, table: OpTable) -> tuple[Graph, Dim]:
    """A region with places on its nodes, and the bytes of its arena."""
    values, size = Planner(table, graph.results).run()
    return Graph(graph.parameters, tuple(values[v] for v in graph.results), graph.names), size


def plan_function(function: Function, table: OpTable) -> Function:
    """The function with places on its nodes and the bytes of its arena as ``workspace``."""
    values, size = Planner(table, function.results, function.assigns).run()
    planned = function.with_outputs(tuple(values[v] for v in function.outputs))
    return replace(planned, workspace=size)
