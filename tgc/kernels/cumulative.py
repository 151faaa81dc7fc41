"""The schedule of running folds: each line in order, as many lines side by side as lie next to each other in memory.

The order of additions is that of the definition, element by element; what is carried is rounded where it is stored.
What made it fast (2048x2048 f32): along rows an addition waits for the one before, so that rows go together: 3.4
to 1.8 ms. Along columns each row is a page of its own, so that tiles are as wide as the registers allow: 15 to 3 ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tgc.ir.graph import Graph
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import ceil_divide
from tgc.kernels.ir import Value
from tgc.kernels.lines import Lines
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.vector_loop import tile_loop
from tgc.ops import rules
from tgc.target import Target

ROWS = 4  # in one iteration: as many as hide the latency of an addition
_FOLDS: Mapping[str, str] = MappingProxyType(
    {"cumulative_sum": "add", "cumulative_prod": "mul", "cumulative_max": "maximum", "cumulative_min": "minimum"}
)


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernel of one running fold."""
    anchor = next(n for n in region.nodes() if table[n.op].kind is OpKind.CUMULATIVE)
    type_ = anchor.operands[0].type
    lines = Lines.along(type_, rules.integer(anchor.attributes, "axis"))
    rows, lanes = lines.inner == 1, 1 if lines.inner == 1 else target.lanes(type_.dtype)
    chains = ROWS if rows else target.vector_registers // 2
    width = chains * lanes
    pieces = ceil_divide(lines.outer, chains) if rows else lines.outer * ceil_divide(lines.inner, width)
    b = KernelBuilder(name, count=pieces)
    source = b.buffer("p0", type_.dtype, type_.size, "read")
    out = b.buffer("r0", type_.dtype, type_.size, "write")
    backwards = rules.flag(anchor.attributes, "reverse")
    each, last = b.index(lines.length * lines.inner), b.index(lines.length - 1)

    def fold(bases: Sequence[Value], count: Value | None) -> None:
        """Lines that begin at ``bases``, side by side."""

        def step(so_far: Sequence[Value] | None, k: Value) -> list[Value]:
            place = b.mul(b.sub(last, k) if backwards else k, b.index(lines.inner))
            offsets = [b.add(base, place) for base in bases]
            here = [b.load(source, offset, lanes, count=count) for offset in offsets]
            folded = [b.convert(value, type_.dtype.compute) for value in here]
            if so_far is not None:
                pairs = zip(so_far, folded, strict=True)
                folded = [_fold(b, _FOLDS[anchor.op], before, value) for before, value in pairs]
            for offset, value in zip(offsets, folded, strict=True):
                b.store(out, offset, b.convert(value, type_.dtype), count=count)
            return folded

        with b.loop(1, lines.length, carried=step(None, b.index(0)), name="k") as loop:
            loop.yield_(*step(loop.carried, loop.index))

    with b.if_(b.compare("gt", b.index(lines.length), 0)):
        if rows:
            # the last row again where there are not enough of them
            first, end = b.mul(b.iteration, chains), b.index(lines.outer - 1)
            fold([b.mul(b.minimum(b.add(first, k), end), each) for k in range(chains)], None)
        else:
            blocks = b.index(ceil_divide(lines.inner, width))
            start = b.mul(b.floor_divide(b.iteration, blocks), each)
            low = b.mul(b.modulo(b.iteration, blocks), width)
            high = b.minimum(b.add(low, width), b.index(lines.inner))

            def tile(position: Value, vectors: int, count: Value | None) -> None:
                base = b.add(start, position)
                fold([b.add(base, t * lanes) for t in range(vectors)], count)

            tile_loop(b, low, high, lanes, chains, tile)
    return Lowering((Stage(b.finish(), 10 + lines.length * (2 if rows else chains)),))


def _fold(builder: KernelBuilder, op: str, a: Value, b: Value) -> Value:
    method = {"add": builder.add, "mul": builder.mul, "maximum": builder.maximum, "minimum": builder.minimum}[op]
    return method(a, b)
