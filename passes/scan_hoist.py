"""scan-hoist: products that do not depend on the carry leave the loop.

A recurrent net multiplies each input by its weights; done for all steps at once that is one large contraction instead
of many small ones. What depends on slices is computed for all iterations before the loop and becomes a sequence, what
depends on captures alone becomes a capture. Only values that contain a product are moved: anything else would cost more
memory than it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from passes.base import Pass, PassContext, integer, rewrite, substitute
from passes.vmap import batch
from tgc.dtypes import i64
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph, Module, Node, Value, parameter, topological
from tgc.ir.kinds import OpKind
from tgc.ops import rules

_PRODUCTS = (OpKind.CONTRACT, OpKind.CONVOLUTION)
# parameters from this index on stand for slices while they are batched: no graph has as many of its own
_PLACEHOLDERS = 1 << 41


@dataclass(frozen=True)
class ScanHoist(Pass):
    """Moves products that do not depend on the carry out of ``scan``."""

    name = "scan-hoist"

    @property
    def exact(self) -> bool:
        return False

    def run(self, module: Module, context: PassContext) -> Module:
        return rewrite(module, _hoisted, context)


def _hoisted(builder: Builder, node: Node) -> Sequence[Value] | None:
    if node.op != "scan":
        return None
    region, carries = node.regions[0], integer(node, "carries")
    sequences, length = integer(node, "sequences"), rules.dim(node.attributes, "length")
    inner = region.parameters
    slices, captures = inner[1 + carries : 1 + carries + sequences], inner[1 + carries + sequences :]
    varying = _cone(region, set(inner[1 : 1 + carries]))
    found = _frontier(builder, region, varying)
    if not found:
        return None
    stepping = _cone(region, {inner[0], *slices})
    stacked = [v for v in found if v.node in stepping]
    fixed = [v for v in found if v.node not in stepping]
    given = dict(zip(captures, node.operands[carries + sequences :], strict=True))
    outside = substitute(builder, fixed, given)
    batched = _batched(
        builder, stacked, (inner[0], *slices), node.operands[carries : carries + sequences], given, length
    )

    first = 1 + carries + sequences
    renamed: dict[Value, Value] = {v: parameter(first + i, v.type) for i, v in enumerate(stacked)}
    first += len(stacked)
    renamed |= {v: parameter(first + i, v.type) for i, v in enumerate((*captures, *fixed))}
    results = substitute(builder, region.results, renamed)
    parameters = (*inner[: 1 + carries + sequences], *(renamed[v] for v in (*stacked, *captures, *fixed)))
    operands = (*node.operands[: carries + sequences], *batched, *node.operands[carries + sequences :], *outside)
    attributes = {**node.attributes, "sequences": sequences + len(stacked)}
    return builder.results("scan", *operands, attributes=attributes, regions=(Graph(parameters, results),))


def _cone(region: Graph, sources: set[Value]) -> set[Node]:
    """The nodes that depend on ``sources``, their own included."""
    reached = {v.node for v in sources}
    for node in topological(region.results):
        if any(v.node in reached for v in node.operands):
            reached.add(node)
    return reached


def _frontier(builder: Builder, region: Graph, varying: set[Node]) -> list[Value]:
    """Values with a product in them that do not vary with the carry, where something that does reads them."""
    products: set[Node] = set()
    found: dict[Value, None] = {}
    for node in topological(region.results):
        if node in varying:
            found.update((v, None) for v in node.operands if v.node in products)
        elif builder.table[node.op].kind in _PRODUCTS or any(v.node in products for v in node.operands):
            products.add(node)
    found.update((v, None) for v in region.results if v.node in products)
    return list(found)


def _batched(
    builder: Builder,
    values: Sequence[Value],
    stepping: Sequence[Value],
    sequences: Sequence[Value],
    captures: dict[Value, Value],
    length: Dim,
) -> tuple[Value, ...]:
    """The values for all iterations, along a new leading dimension."""
    if not values:
        return ()
    stand_ins = [parameter(_PLACEHOLDERS + i, v.type) for i, v in enumerate(stepping)]
    steps = builder.op("iota", attributes={"shape": (length,), "axis": 0, "dtype": i64})
    alone = substitute(builder, values, {**captures, **dict(zip(stepping, stand_ins, strict=True))})
    return batch(builder, alone, stand_ins, (steps, *sequences), length)
