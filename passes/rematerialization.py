"""Rematerialization: what is needed again much later is computed again where that moves fewer bytes than keeping it.

A minimum cut, as in recomputation for training (Chen et al., arXiv 1604.06174; the cut: Horwitz et al., AOTAutograd's
partitioner): between what is in memory anyway and what is used late, through the cheap operations in between. Cutting
at a value costs the bytes of writing and reading it, only of reading it if it is in memory anyway; computing a value
again costs its arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

from passes.base import Pass, PassContext, substitute, with_functions
from passes.fusion_groups import INPUTS, weight
from tgc.ir.builder import Builder
from tgc.ir.dims import evaluate, symbols
from tgc.ir.graph import Module, Node, Value, topological
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.lazy import LazyModule

nx = LazyModule("networkx")

_TYPICAL = 32  # a size for symbolic dimensions, only to choose
_SOURCE, _SINK = "source", "sink"
_ADVANCING = frozenset(
    {OpKind.CONTRACT, OpKind.CONVOLUTION, OpKind.WINDOW, OpKind.SORT, OpKind.CUMULATIVE, OpKind.CONTROL}
)


@dataclass(frozen=True)
class Rematerialization(Pass):
    """Splits late uses of cheap values from early ones, by computing them again behind barriers.

    ``instructions_per_byte``: how many vector instructions on an element cost as much as moving a byte of it.
    """

    name = "rematerialization"
    requires = frozenset({"primitive"})
    instructions_per_byte: int = 8

    def run(self, module: Module, context: PassContext) -> Module:
        builder = context.builder(module)
        functions = []
        for function in module.functions:
            plan = Plan(context.table, function.outputs, self.instructions_per_byte)
            functions.append(function.with_outputs(plan.rewritten(builder)))
        return with_functions(module, tuple(functions), builder)


class Plan:
    """What to keep and what to compute again for the graph under ``outputs``.

    A node's stage is the number of kernels of another kind that must have run before it: contractions, convolutions,
    windows, sorts and loops. A use in a later stage than the value's own is late. ``kept`` are values that are in
    memory anyway, because such a kernel reads or writes them.
    """

    def __init__(self, table: OpTable, outputs: tuple[Value, ...], instructions_per_byte: int) -> None:
        self.table = table
        self.outputs = outputs
        self.instructions_per_byte = instructions_per_byte
        self.order = topological(outputs)
        self.stages: dict[Node, int] = {}
        self.late: set[Value] = set()
        self.kept = set(outputs)
        for node in self.order:
            stage = max((self.stages[v.node] + self._advances(v.node) for v in node.operands), default=0)
            self.stages[node] = stage
            for value in node.operands:
                if stage > self.stages[value.node] and self._is_cheap(value.node) and not self._is_view(value.node):
                    self.late.add(value)
                if self._advances(node) or stage > self.stages[value.node] + self._advances(value.node):
                    if not self._is_cheap(value.node) or self._advances(node):
                        self.kept.add(value)

    def _is_cheap(self, node: Node) -> bool:
        """Whether it is a matter of element by element, which a kernel does while it reads."""
        if node.op in INPUTS:
            return False
        return self.table[node.op].kind in (OpKind.MAP, OpKind.MOVEMENT, OpKind.CREATE)

    def _is_view(self, node: Node) -> bool:
        """Whether it says only where elements of constants and of what enters lie: reading it is reading them."""
        while node.operands and self.table[node.op].kind is OpKind.MOVEMENT:
            node = node.operands[0].node
        return not node.operands

    def _advances(self, node: Node) -> bool:
        return node.op not in INPUTS and self.table[node.op].kind in _ADVANCING

    def is_late(self, value: Value, user: Node) -> bool:
        """Whether the use is one for which values are computed again."""
        return value in self.late and self.stages[user] > self.stages[value.node]

    def again(self) -> tuple[frozenset[Node], frozenset[Value]]:
        """The nodes to compute again for late uses, and the values to compute them from."""
        graph = nx.DiGraph()
        seen: set[Value] = set()
        # in the order of the graph, so that the cut depends on its structure alone
        stack = [value for node in self.order for value in node.results if value in self.late]
        for value in stack:
            graph.add_edge((value, "out"), _SINK)
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            size = _elements(value)
            moved = size * value.dtype.itemsize
            kept = value.node.op in INPUTS or value in self.kept
            graph.add_edge((value, "in"), (value, "out"), capacity=moved if kept else 2 * moved)
            if not self._is_cheap(value.node):
                graph.add_edge(_SOURCE, (value, "in"))
                continue
            made = self.table[value.node.op].kind is OpKind.CREATE
            work = 0 if made else weight(value.node) * size // self.instructions_per_byte
            graph.add_edge(_SOURCE, (value, "in"), capacity=work)
            for operand in value.node.operands:
                graph.add_edge((operand, "out"), (value, "in"))
                stack.append(operand)
        if not seen:
            return frozenset(), frozenset()
        # backwards, so that of equal cuts the one that computes least again is found
        _, (_, early) = nx.minimum_cut(graph.reverse(copy=False), _SINK, _SOURCE)
        again = frozenset(value.node for value in seen if (value, "in") not in early)
        cut = frozenset(value for value in seen if (value, "in") in early and (value, "out") not in early)
        return again, cut

    def rewritten(self, builder: Builder) -> tuple[Value, ...]:
        """The outputs, computed so."""
        again, cut = self.again()
        if not again:
            return self.outputs
        new: dict[Value, Value] = {}
        copies: dict[Value, Value] = {}
        behind: dict[Value, Value] = {}

        def copy(value: Value) -> Value:
            """The value for late uses, from what the cut has kept."""
            if value not in copies:
                builder.place = None
                (copies[value],) = substitute(builder, [value], behind)
            return copies[value]

        for node in self.order:
            operands = tuple(copy(v) if v.node in again and self.is_late(v, node) else new[v] for v in node.operands)
            made = node
            if operands != node.operands:
                builder.place = builder.locations.get(node)
                made = builder.node(node.op, operands, node.attributes, node.regions)
            for value, result in zip(node.results, made.results, strict=True):
                new[value] = result
                if value in cut:
                    behind[value] = result if made.op == "barrier" else builder.op("barrier", result)
        builder.place = None
        return tuple(new[v] for v in self.outputs)


def _elements(value: Value) -> int:
    size = 1
    for d in value.shape:
        size *= max(1, evaluate(d, dict.fromkeys(symbols(d), _TYPICAL)))
    return size
