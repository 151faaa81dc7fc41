"""The schedule of running folds: each line in order, as many lines side by side as lie next to each other in memory.

The order of additions is that of the definition, element by element; what is carried is rounded where it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tgc.ir.graph import Graph
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import ceil_divide
from tgc.kernels.ir import Value
from tgc.kernels.lines import Lines
from tgc.kernels.lowering import Lowering, Stage
from tgc.ops import rules
from tgc.target import Target

_FOLDS: Mapping[str, str] = MappingProxyType(
    {"cumulative_sum": "add", "cumulative_prod": "mul", "cumulative_max": "maximum", "cumulative_min": "minimum"}
)


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernel of one running fold."""
    anchor = next(n for n in region.nodes() if table[n.op].kind is OpKind.CUMULATIVE)
    type_ = anchor.operands[0].type
    lines = Lines.along(type_, rules.integer(anchor.attributes, "axis"))
    lanes = 1 if lines.inner == 1 else target.lanes(type_.dtype)
    blocks = ceil_divide(lines.inner, lanes)
    builder = KernelBuilder(name, count=lines.outer * blocks)
    source = builder.buffer("p0", type_.dtype, type_.size, "read")
    out = builder.buffer("r0", type_.dtype, type_.size, "write")
    parts = builder.index(blocks)
    outer, block = builder.floor_divide(builder.iteration, parts), builder.modulo(builder.iteration, parts)
    column = builder.mul(block, lanes)
    base = builder.add(builder.mul(outer, builder.index(lines.length * lines.inner)), column)
    left = None if lanes == 1 else builder.sub(builder.index(lines.inner), column)
    backwards = rules.flag(anchor.attributes, "reverse")
    last = builder.index(lines.length - 1)

    def step(so_far: Value | None, k: Value) -> Value:
        place = builder.sub(last, k) if backwards else k
        offset = builder.add(base, builder.mul(place, builder.index(lines.inner)))
        here = builder.convert(builder.load(source, offset, lanes, count=left), type_.dtype.compute)
        folded = here if so_far is None else _fold(builder, _FOLDS[anchor.op], so_far, here)
        builder.store(out, offset, builder.convert(folded, type_.dtype), count=left)
        return folded

    with (
        builder.if_(builder.compare("gt", builder.index(lines.length), 0)),
        builder.loop(1, lines.length, carried=[step(None, builder.index(0))], name="k") as loop,
    ):
        loop.yield_(step(loop.carried[0], loop.index))
    return Lowering((Stage(builder.finish(), 10 + lines.length * 2),))


def _fold(builder: KernelBuilder, op: str, a: Value, b: Value) -> Value:
    method = {"add": builder.add, "mul": builder.mul, "maximum": builder.maximum, "minimum": builder.minimum}[op]
    return method(a, b)
