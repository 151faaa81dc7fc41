"""The schedule of scatter: each iteration owns the part of the result that it writes.

``scatter`` splits the dimensions behind the axis into blocks of vectors: an iteration copies its columns of ``x`` and
then goes through all updates in order of their positions. ``scatter_along_axis`` does the same with single lines. So
updates that meet are combined in order, on any number of threads.
"""

from __future__ import annotations

from tgc.dtypes import DType, i64
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph, Node
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import ceil_divide
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lines import Lines
from tgc.kernels.lowering import Lowering, Stage
from tgc.ops import rules
from tgc.target import Target


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernel of one scatter."""
    anchor = next(n for n in region.nodes() if table[n.op].kind is OpKind.INDEX)
    x, indices, updates = (v.type for v in anchor.operands)
    numbers = [rules.integer(v.node.attributes, "index") for v in anchor.operands]
    lines = Lines.along(x, rules.integer(anchor.attributes, "axis"))
    along = anchor.op == "scatter_along_axis"
    lanes = 1 if along or lines.inner == 1 else target.lanes(x.dtype)
    blocks = ceil_divide(lines.inner, lanes)
    builder = KernelBuilder(name, count=lines.outer * blocks)
    found: dict[int, Buffer] = {}
    for number, type_ in zip(numbers, (x, indices, updates), strict=True):
        if number not in found:
            found[number] = builder.buffer(f"p{number}", type_.dtype, type_.size, "read")
    source, where, new = (found[number] for number in numbers)
    out = builder.buffer("r0", x.dtype, x.size, "readwrite")
    parts = builder.index(blocks)
    outer, block = builder.floor_divide(builder.iteration, parts), builder.modulo(builder.iteration, parts)
    column = builder.mul(block, lanes)
    left = None if lanes == 1 else builder.sub(builder.index(lines.inner), column)
    inner = builder.index(lines.inner)
    base = builder.add(builder.mul(outer, builder.index(lines.length * lines.inner)), column)
    with builder.loop(0, lines.length, name="copy") as loop:
        offset = builder.add(base, builder.mul(loop.index, inner))
        builder.store(out, offset, builder.load(source, offset, lanes, count=left), count=left)
    steps = Lines.along(indices, rules.integer(anchor.attributes, "axis")).length if along else indices.size
    start = builder.add(builder.mul(outer, builder.mul(builder.index(steps), inner)), column)
    with builder.loop(0, steps, name="update") as loop:
        offset = builder.add(start, builder.mul(loop.index, inner))
        at = builder.convert(builder.load(where, offset if along else loop.index), i64)
        inside = builder.bit_and(builder.compare("ge", at, 0), builder.compare("lt", at, builder.index(lines.length)))
        with builder.if_(inside):
            place = builder.add(base, builder.mul(at, inner))
            update = builder.load(new, offset, lanes, count=left)
            have = builder.load(out, place, lanes, count=left)
            builder.store(out, place, _combined(builder, anchor, have, update, x.dtype), count=left)
    return Lowering((Stage(builder.finish(), _cost(lines, steps)),))


def _cost(lines: Lines, steps: Dim) -> Dim:
    return 20 + lines.length + 3 * steps


def _combined(builder: KernelBuilder, anchor: Node, have: Value, update: Value, dtype: DType) -> Value:
    mode = rules.text(anchor.attributes, "mode")
    if mode == "set":
        return update
    wide = dtype.compute
    method = {"add": builder.add, "max": builder.maximum, "min": builder.minimum}[mode]
    return builder.convert(method(builder.convert(have, wide), builder.convert(update, wide)), dtype)
