"""The schedule of sorting: a merge sort of each line in scratch, and binary search.

Merging is bottom-up and without branches on the data: each step of a merge takes the smaller head by a select, the
left one of equals, so that the sort is stable. NaN are greater than anything in either direction.
"""

from __future__ import annotations

from tgc.dtypes import DType, i64
from tgc.ir.graph import Graph, Node
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lines import Lines
from tgc.kernels.lowering import Lowering, Stage
from tgc.ops import rules
from tgc.target import Target


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernel of one sort or search."""
    anchor = next(n for n in region.nodes() if table[n.op].kind is OpKind.SORT)
    if anchor.op == "searchsorted":
        return _search(anchor, name)
    return _Sort(anchor, name).lowering()


class _Sort:
    """One iteration sorts one line: keys (and positions) go back and forth between halves of scratch."""

    def __init__(self, anchor: Node, name: str) -> None:
        self.type = anchor.operands[0].type
        self.lines = Lines.along(self.type, rules.integer(anchor.attributes, "axis"))
        self.descending = rules.flag(anchor.attributes, "descending")
        self.positions = anchor.op == "argsort"
        self.builder = b = KernelBuilder(name, count=self.lines.count)
        self.source = b.buffer("p0", self.type.dtype, self.type.size, "read")
        self.out = b.buffer("r0", i64 if self.positions else self.type.dtype, self.type.size, "write")
        # both halves in one buffer: which half is read is then an offset
        self.keys = b.scratch("keys", self.type.dtype, 2 * self.lines.length)
        self.numbers = b.scratch("numbers", i64, 2 * self.lines.length) if self.positions else None

    def lowering(self) -> Lowering:
        b, lines = self.builder, self.lines
        start, stride, length = lines.start(b, b.iteration), b.index(lines.inner), b.index(lines.length)
        with b.loop(0, lines.length, name="read") as loop:
            b.store(self.keys, loop.index, b.load(self.source, b.add(start, b.mul(loop.index, stride))))
            if self.numbers is not None:
                b.store(self.numbers, loop.index, loop.index)
        # carried: the width of sorted runs, where the present half begins
        with b.while_loop([b.index(1), b.index(0)]) as merge:
            width, half = merge.carried
            merge.condition(b.compare("lt", width, length))
            other = b.sub(length, half)
            with b.loop(0, lines.length, b.mul(width, 2), name="pair") as pair:
                middle = b.minimum(b.add(pair.index, width), length)
                end = b.minimum(b.add(pair.index, b.mul(width, 2)), length)
                self._merge(half, other, pair.index, middle, end)
            merge.yield_(b.mul(width, 2), other)
        sorted_half = merge.results[1]
        with b.loop(0, lines.length, name="write") as loop:
            value = b.load(self.numbers or self.keys, b.add(sorted_half, loop.index))
            b.store(self.out, b.add(start, b.mul(loop.index, stride)), value)
        return Lowering((Stage(b.finish(), 100 + lines.length * 60),))

    def _merge(self, half: Value, other: Value, low: Value, middle: Value, end: Value) -> None:
        b = self.builder
        last = b.sub(b.index(self.lines.length), 1)
        with b.loop(low, end, carried=[low, middle], name="merge") as loop:
            left, right = loop.carried
            left_at = b.add(half, b.minimum(left, last))
            right_at = b.add(half, b.minimum(right, last))
            a, c = b.load(self.keys, left_at), b.load(self.keys, right_at)
            more_left, no_right = b.compare("lt", left, middle), b.compare("ge", right, end)
            take = b.bit_and(more_left, b.bit_or(no_right, b.bit_not(self._before(c, a))))
            at = b.add(other, loop.index)
            b.store(self.keys, at, b.select(take, a, c))
            if self.numbers is not None:
                b.store(self.numbers, at, b.load(self.numbers, b.select(take, left_at, right_at)))
            step = b.convert(take, i64)
            loop.yield_(b.add(left, step), b.add(right, b.sub(1, step)))

    def _before(self, x: Value, y: Value) -> Value:
        """Whether ``x`` must stand before ``y``."""
        b = self.builder
        wide = self.type.dtype.compute
        x, y = b.convert(x, wide), b.convert(y, wide)
        before = b.compare("gt" if self.descending else "lt", x, y)
        if not wide.is_float:
            return before
        return b.bit_or(before, b.bit_and(b.compare("ne", y, y), b.compare("eq", x, x)))


def _search(anchor: Node, name: str) -> Lowering:
    """For each value the number of entries before it: a binary search with a fixed number of steps."""
    entries, values = (v.type for v in anchor.operands)
    b = KernelBuilder(name, count=values.size)
    numbers = [rules.integer(v.node.attributes, "index") for v in anchor.operands]
    found: dict[int, Buffer] = {}
    for number, type_ in zip(numbers, (entries, values), strict=True):
        if number not in found:
            found[number] = b.buffer(f"p{number}", type_.dtype, type_.size, "read")
    out = b.buffer("r0", i64, values.size, "write")
    wide = values.dtype.compute
    wanted = b.convert(b.load(found[numbers[1]], b.iteration), wide)
    right = rules.text(anchor.attributes, "side") == "right"
    # carried: entries below `low` come before the value, entries from `high` on do not
    with b.while_loop([b.index(0), b.index(entries.size)]) as search:
        low, high = search.carried
        search.condition(b.compare("lt", low, high))
        middle = b.add(low, b.floor_divide(b.sub(high, low), 2))
        entry = b.convert(b.load(found[numbers[0]], middle), wide)
        before = _comes_before(b, entry, wanted, right, wide)
        search.yield_(b.select(before, b.add(middle, 1), low), b.select(before, high, middle))
    b.store(out, b.iteration, search.results[0])
    return Lowering((Stage(b.finish(), 60),))


def _comes_before(b: KernelBuilder, entry: Value, wanted: Value, right: bool, dtype: DType) -> Value:
    """entry < wanted, or entry <= wanted for the right side, NaN being the greatest."""
    if right:
        not_after = b.compare("le", entry, wanted)
        return b.bit_or(not_after, b.compare("ne", wanted, wanted)) if dtype.is_float else not_after
    before = b.compare("lt", entry, wanted)
    if not dtype.is_float:
        return before
    return b.bit_or(before, b.bit_and(b.compare("ne", wanted, wanted), b.compare("eq", entry, entry)))
