"""Composites become their bodies: after it a module is made of primitives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from passes.base import Pass, PassContext, inline, rewrite
from tgc.ir.builder import Builder
from tgc.ir.graph import Module, Node, Value


@dataclass(frozen=True)
class Decompose(Pass):
    """Replaces every composite by what its definition says it is, composites in that included, and every checkpoint
    by its region. The new nodes are located where the composite was.
    """

    name = "decompose"
    ensures = frozenset({"primitive"})

    def run(self, module: Module, context: PassContext) -> Module:
        def rule(builder: Builder, node: Node) -> Sequence[Value] | None:
            if node.op == "checkpoint":
                return inline(builder, node.regions[0], node.operands)
            body = builder.table[node.op].body
            return None if body is None else body(builder, node.operands, node.attributes)

        return rewrite(module, rule, context)
