"""fusion: every computation becomes a ``fusion`` node, one node = one kernel.

Greedy, along the topological order: each node starts as a group of its own and takes in the groups of its operands,
as far as the rules of :mod:`passes.fusion_groups` and acyclicity allow; reductions of the same thing then join side by
side. What costs nothing to make (constants, iota and their broadcasts) is copied into every consumer. Reshapes of
row-major values stay outside, as aliases.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from passes.base import Pass, PassContext, with_functions
from passes.fusion_attention import attention_refusal
from passes.fusion_groups import Group, Merging, fusion_kind, is_alias, is_free, new_group
from passes.fusion_order import Gap, GroupOrder
from tgc.errors import CompilerBug
from tgc.ir.graph import Graph, Module, Node, Value, intern, parameter, topological
from tgc.ir.kinds import FusionKind, OpKind
from tgc.ir.opdef import OpTable


@dataclass(frozen=True)
class Fusion(Pass):
    """Groups operations into kernels. ``max_ops``: the most vector instructions that a kernel spends on one element."""

    name = "fusion"
    requires = frozenset({"primitive"})
    ensures = frozenset({"fused"})

    max_ops: int = 220

    def run(self, module: Module, context: PassContext) -> Module:
        builder = context.builder(module)
        functions = []
        for function in module.functions:
            fuser = Fuser(context.table, function.outputs, self.max_ops)
            new = fuser.run()
            for made, nodes in fuser.sources.items():
                for node in nodes:
                    builder.locate(made, module.locations.get(node, ()))
            functions.append(function.with_outputs(tuple(new[v] for v in function.outputs)))
        return with_functions(module, tuple(functions), builder)


@dataclass(frozen=True)
class Refusal:
    """An edge between two kernels, and the rule that kept them apart."""

    producer: Node
    consumer: Node
    reason: str


class Fuser:
    """Fuses the graph under ``outputs``.

    After :meth:`run`, ``refusals`` tells of the edges that stayed, ``sources`` which nodes each new node was made of.
    """

    def __init__(self, table: OpTable, outputs: Sequence[Value], max_ops: int) -> None:
        self.table = table
        self.outputs = outputs
        self.max_ops = max_ops
        self.refusals: list[Refusal] = []
        self.sources: dict[Node, tuple[Node, ...]] = {}
        self.order = topological(outputs)
        self.index = {node: i for i, node in enumerate(self.order)}
        self.free = set[Node]()
        for node in self.order:
            if is_free(node, self.free):
                self.free.add(node)
        self.groups = GroupOrder()
        self.group_of = self.groups.group_of
        self.users: dict[Node, list[Node]] = {}
        for node in self.order:
            for operand in node.operands:
                self.users.setdefault(operand.node, []).append(node)
        self.leaving = {v.node for v in outputs}
        self.copied = set[Node]()

    def run(self) -> dict[Value, Value]:
        """The new value of every output."""
        self._needs_memory()
        rules = Merging(self.table, self.users, self.leaving, self.max_ops)
        for node in self.order:
            kind = None if node in self.free or is_alias(node) else fusion_kind(node, self.table)
            self._place(node, kind, rules)
        self._side_by_side()
        self.copied = self._spread_again()
        return self._emit()

    def _needs_memory(self) -> None:
        """Free values that something other than a kernel reads are computed once, like any other."""
        # users first: a free value that is needed needs its operands as well, if it is an alias
        for node in reversed(self.order):
            if node in self.free and node not in self.leaving:
                continue
            if is_alias(node) or fusion_kind(node, self.table) not in _INLINES_FREE:
                self.leaving.update(v.node for v in node.operands)
            elif self.table[node.op].kind in (OpKind.CONTRACT, OpKind.CONVOLUTION):
                self.leaving.update(v.node for v in node.operands if v.node in self.free)
        self.free -= self.leaving

    def _place(self, node: Node, kind: FusionKind | None, rules: Merging) -> None:
        if node in self.free:
            return
        group = Group(FusionKind.POINTWISE, (), (), node, {node: None}, 0) if kind is None else new_group(node, kind)
        reads = [v.node for v in self._reads(node)]
        self.groups.place(node, group, reads)
        if kind is None:
            return
        producers: dict[Group, Node] = {}
        for read in reads:
            producers.setdefault(self.group_of[read], read)
        for source in sorted(producers.values(), key=lambda n: _turn(self.group_of[n], kind)):
            group = self._try(source, group, node, rules)

    def _reads(self, node: Node) -> Iterable[Value]:
        """Operands, looking through the free values that will be copied in."""
        pending = list(node.operands)
        while pending:
            value = pending.pop()
            if value.node in self.free:
                pending.extend(value.node.operands)
            else:
                yield value

    def _try(self, source: Node, group: Group, node: Node, rules: Merging) -> Group:
        producer = self.group_of[source]
        if producer is group or producer.anchor is not None and producer.weight == 0:
            return group  # merged already; control flow or an input, which are no kernels
        if producer.kind is FusionKind.REDUCTION and group.kind is FusionKind.CONTRACTION:
            return self._try_attention(source, group, rules)
        reason = rules.refusal(producer, group)
        gap = self.groups.gap(producer, group) if reason is None else None
        if gap is not None:
            return self._merge(producer, group, gap)
        self.refusals.append(Refusal(source, node, reason or "another kernel stands between them"))
        return group

    def _try_attention(self, source: Node, output: Group, rules: Merging) -> Group:
        """A product, folds of its rows and a product with these rows become one kernel together, or not at all."""
        rows = self.group_of[source]
        products = [group for group in self.groups.reads(rows) if group.kind is FusionKind.CONTRACTION]
        if len(products) != 1:
            reason: str | None = "the reduction does not fold the rows of a product"
        elif rules.leaving(products[0], rows) or rules.leaving(rows, output):
            reason = "scores or rows are needed elsewhere as well"
        else:
            reason = attention_refusal(products[0], rows, output)
        if reason is not None and output.anchor is not None:
            self.refusals.append(Refusal(source, output.anchor, reason))
            return output
        (scores,) = products
        nodes = scores.nodes | rows.nodes | output.nodes
        merged = replace(output, kind=FusionKind.ATTENTION, nodes=nodes)
        self.groups.merge(merged, Gap(output.position, output.position, ()))
        return merged

    def _merge(self, producer: Group, consumer: Group, gap: Gap) -> Group:
        anchored = consumer if consumer.kind is not FusionKind.POINTWISE else producer
        merged = replace(
            anchored,
            full=consumer.full if anchored.kind is FusionKind.POINTWISE else anchored.full,
            nodes=producer.nodes | consumer.nodes,
            weight=producer.weight + consumer.weight,
        )
        self.groups.merge(merged, gap)
        return merged

    def _side_by_side(self) -> None:
        """Reductions over the same axes of the same operand share one walk over it."""
        seen: dict[object, Group] = {}
        for node in self.order:
            group = self.group_of.get(node)
            if group is None or group.kind is not FusionKind.REDUCTION or node is not group.anchor:
                continue
            for value in _inputs(group.nodes):
                if value.shape != group.full or value.node in self.free:
                    continue
                key = (value, group.full, group.axes)
                other = self.group_of.get(seen[key].anchor) if key in seen else None  # type: ignore[arg-type]
                if other is None or other is group:
                    seen[key] = group
                elif other.weight + group.weight <= self.max_ops and (joined := self._joined(other, group)):
                    seen[key] = group = joined

    def _joined(self, a: Group, b: Group) -> Group | None:
        """One group of two, unless one needs the other."""
        first, second = sorted((a, b), key=lambda group: group.position)
        gap = None if first in self.groups.reads(second) else self.groups.gap(first, second)
        return None if gap is None else self._merge(a, b, gap)

    def _spread_again(self) -> set[Node]:
        """Broadcasts of what lies in memory, which every kernel had better read there than in its expanded form."""
        found: set[Node] = set()
        for node in self.order:
            if node.op != "broadcast" or node in self.free or node in self.leaving:
                continue
            inside = self.group_of[node].nodes
            outside = [u for u in self.users.get(node, ()) if u not in inside]
            if node.operands[0].node not in inside and all(
                self.table[u.op].kind in (OpKind.MAP, OpKind.MOVEMENT, OpKind.REDUCE) and not is_alias(u)
                for u in outside
            ):
                found.add(node)
        return found

    def _emit(self) -> dict[Value, Value]:
        members = self.groups.groups()
        first = {id(g): min(self.index[n] for n in g.nodes) for g in members}
        waiting: dict[int, int] = {}
        dependents: dict[int, list[Group]] = {}
        ready: list[tuple[int, Group]] = []
        for group in members:
            sources = self.groups.reads(group)
            waiting[id(group)] = len(sources)
            for source in sources:
                dependents.setdefault(id(source), []).append(group)
            if not sources:
                heapq.heappush(ready, (first[id(group)], group))
        new: dict[Value, Value] = {}
        done = 0
        while ready:
            _, group = heapq.heappop(ready)
            done += 1
            self._emit_group(group, new)
            for dependent in dependents.get(id(group), ()):
                waiting[id(dependent)] -= 1
                if not waiting[id(dependent)]:
                    heapq.heappush(ready, (first[id(dependent)], dependent))
        if done != len(members):
            raise CompilerBug("kernels depend on each other in a circle", stage="fusion")
        return {v: new[v] for v in self.outputs}

    def _emit_group(self, group: Group, new: dict[Value, Value]) -> None:
        nodes = sorted(group.nodes, key=self.index.__getitem__)
        node = nodes[0]
        if group.anchor is node and (is_alias(node) or fusion_kind(node, self.table) is None):
            self._emit_plain(node, new)
            return
        self._emit_region(group, nodes, new)

    def _emit_plain(self, node: Node, new: dict[Value, Value]) -> None:
        regions = tuple(self._region(g) for g in node.regions)
        operands = tuple(new[v] for v in node.operands)
        made = intern(node.op, operands, node.attributes, regions, node.types)
        new.update(zip(node.results, made.results, strict=True))
        self.sources[made] = (node,)

    def _region(self, graph: Graph) -> Graph:
        inner = Fuser(self.table, graph.results, self.max_ops)
        values = inner.run()
        self.refusals += inner.refusals
        self.sources |= inner.sources
        return Graph(graph.parameters, tuple(values[v] for v in graph.results), graph.names)

    def _emit_region(self, group: Group, nodes: list[Node], new: dict[Value, Value]) -> None:
        inside: dict[Value, Value] = {}
        operands: list[Value] = []

        def read(value: Value) -> Value:
            if value in inside:
                return inside[value]
            if value.node in self.free:
                for inner in topological((value,)):
                    if inner.result in inside:
                        continue
                    made = intern(inner.op, tuple(read(v) for v in inner.operands), inner.attributes, (), inner.types)
                    inside[inner.result] = made.result
                return inside[value]
            if value.node in self.copied:
                node = value.node
                made = intern(node.op, tuple(map(read, node.operands)), node.attributes, (), node.types)
                inside[value] = made.result
                return made.result
            inside[value] = parameter(len(operands), value.type)
            operands.append(new[value])
            return inside[value]

        results = tuple(
            v
            for n in nodes
            for v in n.results
            if n in self.leaving or n not in self.copied and any(u not in group.nodes for u in self.users.get(n, ()))
        )
        if not results:
            return
        for node in nodes:
            made = intern(node.op, tuple(map(read, node.operands)), node.attributes, node.regions, node.types)
            inside.update(zip(node.results, made.results, strict=True))
        region = Graph(tuple(parameter(i, v.type) for i, v in enumerate(operands)), tuple(inside[v] for v in results))
        types = tuple(v.type for v in results)
        fused = intern("fusion", tuple(operands), {"kind": group.kind.value}, (region,), types)
        new.update(zip(results, fused.results, strict=True))
        self.sources[fused] = tuple(nodes)


_INLINES_FREE = frozenset({FusionKind.POINTWISE, FusionKind.REDUCTION, FusionKind.CONTRACTION, FusionKind.CONVOLUTION})


def _turn(producer: Group, consumer: FusionKind) -> int:
    """When a producer is tried: maps after what has a schedule of its own, but before folds on the way to a product."""
    folds = producer.kind is FusionKind.REDUCTION and consumer is FusionKind.CONTRACTION
    return 2 if folds else int(producer.kind is FusionKind.POINTWISE)


def _inputs(nodes: Iterable[Node]) -> list[Value]:
    """What the nodes read from outside of them, in order of first use."""
    inside = set(nodes)
    found: dict[Value, None] = {}
    for node in nodes:
        for value in node.operands:
            if value.node not in inside:
                found[value] = None
    return list(found)
