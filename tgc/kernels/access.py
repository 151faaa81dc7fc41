"""The evaluator that every schedule shares: emits the code that computes a region's values at an index.

Schedules walk an iteration space; at each place of it a :class:`Point` computes results, for one element or for several
consecutive ones along the vector axis. Strides are known when code is emitted, so that each leaf becomes a vector load,
a scalar, or a gather.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from tgc.dtypes import bool_, i32, i64
from tgc.errors import CompilerBug
from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.ir.graph import Node
from tgc.kernels.access_conditional import CONDITIONAL, Guard, both, hoist_place
from tgc.kernels.access_movement import LINEAR, Coordinates, divides_nothing, reshaped
from tgc.kernels.addressing import Addressing
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.ops import rules

ALWAYS = Guard()
EMPTY: Mapping[tuple[Buffer, Index], Value] = MappingProxyType({})
FUTURE = Index(((-1, 1),))
Key: TypeAlias = "tuple[graph.Value, Coordinates, Guard]"


class Evaluator(Addressing):
    """A region, the kernel that is being built for it, and the buffers that the kernel has."""

    def point(
        self, lanes: int = 1, count: Value | None = None, overrides: Mapping[graph.Value, Value] | None = None
    ) -> Point:
        """A place to compute at: ``lanes`` elements of which the leading ``count`` are real (None: all of them).

        ``overrides``: values of the region that are in registers already, at whatever index they are asked for.
        """
        return Point(self, lanes, count, dict(overrides or {}), {})


class Point:
    """Computes values of the region in one block of the kernel; what it has computed it does not compute again.

    Use it only in the block where it was made, and :meth:`nested` ones in the blocks inside.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        lanes: int,
        count: Value | None,
        overrides: dict[graph.Value, Value],
        known: dict[Key, Value],
        loaded: Mapping[tuple[Buffer, Index], Value] = EMPTY,
    ) -> None:
        self.evaluator = evaluator
        self.builder = evaluator.builder
        self.lanes = lanes
        self.count = count
        self.overrides = overrides
        self._known = known
        self._loaded = loaded

    def nested(
        self, lanes: int = 1, count: Value | None = None, overrides: Mapping[graph.Value, Value] | None = None
    ) -> Point:
        """A point in an inner block, which knows what this one knows. Only what is uniform may differ in lanes."""
        after = {**self.overrides, **(overrides or {})}
        return Point(self.evaluator, lanes, count, after, dict(self._known), self._loaded)

    def given(self, loaded: Mapping[tuple[Buffer, Index], Value]) -> Point:
        """The same place, where what lies at some offsets of buffers is in registers already."""
        return Point(self.evaluator, self.lanes, self.count, self.overrides, dict(self._known), loaded)

    def value(self, v: graph.Value, at: Coordinates, guard: Guard = ALWAYS) -> Value:
        """Value ``v`` at index ``at``: a vector, or a scalar where all lanes have the same.

        Where ``guard`` does not hold nothing is read and the value is arbitrary.
        """
        known = self._known
        first: Key = (v, at, guard)
        pending = [first]
        while pending:
            key = pending[-1]
            if key in known:
                pending.pop()
                continue
            v, at, guard = key
            overridden = self.overrides.get(v)
            if overridden is not None:
                known[key] = overridden
                continue
            reads = self._reads(v.node, at, guard)
            if reads is None:
                known[key] = self._leaf(v, at, guard)
                continue
            missing = [read for read in reads if read not in known]
            if missing:
                pending += reversed(missing)
                continue
            known[key] = self._computed(v.node, [known[read] for read in reads])
        return known[first]

    def _reads(self, node: Node, at: Coordinates, guard: Guard) -> list[Key] | None:
        """The operands that an op needs, and where; None if it does not tell without emitting code."""
        linear = LINEAR.get(node.op)
        if linear is not None:
            at = linear(node, at)
        elif node.op == "reshape":
            at = reshaped(node, at, self.divide)
        elif self.evaluator.table[node.op].scalar is None:
            return None
        if guard.vector is not None and all(i.uniform for i in at):
            guard = Guard(guard.scalar)
        return [(operand, at, guard) for operand in node.operands]

    def _computed(self, node: Node, operands: list[Value]) -> Value:
        definition = self.evaluator.table[node.op]
        if definition.scalar is None:
            return operands[0]
        b, dtype = self.builder, node.types[0].dtype
        wide = [b.convert(x, x.dtype.compute) for x in operands]
        result: Value = definition.scalar(b, wide, node.attributes, dtype.compute)
        return b.convert(result, dtype)

    def _leaf(self, v: graph.Value, at: Coordinates, guard: Guard) -> Value:
        node, b = v.node, self.builder
        if node.op == "constant":
            literal = node.attributes["value"]
            if not isinstance(literal, (bool, int, float)):
                raise CompilerBug(f"the constant {literal!r} is no number", stage="schedule")
            return b.constant(literal, v.dtype)
        if node.op == "parameter":
            buffer = self.evaluator.parameter(rules.integer(node.attributes, "index"))
            return self.load(buffer, self.evaluator.address(v.type, at, self.lanes), guard)
        if node.op == "dimension":
            return b.convert(b.index(rules.dim(node.attributes, "size")), v.dtype)
        if node.op == "iota":
            index = at[rules.integer(node.attributes, "axis")]
            narrow = v.dtype.is_integer and v.dtype.bits in (32, 64)
            number = self.evaluator.vector(index, self.lanes, v.dtype if narrow else i64)
            return b.convert(number, v.dtype)
        rule = CONDITIONAL.get(node.op)
        if rule is None:
            raise CompilerBug(f"{node.op} is neither a map nor a read, and its value is not given", stage="schedule")
        return rule(self, node, at, guard)

    # -- what the rules of reads ask for ---------------------------------------------------------------------------

    def number(self, index: Index) -> Value:
        """An index as i64: a scalar if it is uniform, else a vector."""
        return self.evaluator.vector(index, self.lanes)

    def opaque(self, value: Value) -> Index:
        return self.evaluator.opaque(value)

    def limits(self, index: Index) -> tuple[int, int] | None:
        return self.evaluator.limits(index)

    def divide(self, index: Index, by: Dim) -> tuple[Index, Index]:
        return self.evaluator.divide(index, by, self.lanes)

    # -- memory ----------------------------------------------------------------------------------------------------

    def load(self, buffer: Buffer, offset: Index, guard: Guard = ALWAYS) -> Value:
        """What lies at ``offset``: a scalar if it is uniform, else a vector, by the cheapest loads for its stride."""
        b, lanes = self.builder, self.lanes
        found = self._loaded.get((buffer, offset))
        if found is not None:
            return found
        if lanes == 1 or offset.uniform:
            return b.load(buffer, self.evaluator.scalar(offset), mask=guard.scalar)
        free = guard == ALWAYS and self.count is None
        if not offset.vectors and offset.lane == 1:
            start = self.evaluator.scalar(offset)
            if guard.vector is not None:
                return b.load(buffer, start, lanes, mask=self._mask(guard))
            return b.load(buffer, start, lanes, count=self._count(guard))
        if free and not offset.vectors and offset.lane == -1:
            start = self.evaluator.scalar(offset.shifted(1 - lanes))
            loaded = b.load(buffer, start, lanes)
            return b.shuffle(loaded, loaded, tuple(range(lanes - 1, -1, -1)))
        if not offset.vectors and offset.lane == 2 and lanes % 2 == 0:
            return self._every_second(buffer, self.evaluator.scalar(offset), guard)
        return b.gather(buffer, self._offsets(buffer, offset), mask=self._mask(guard))

    def _every_second(self, buffer: Buffer, start: Value, guard: Guard) -> Value:
        """Two loads; the second begins where the first ends, so that nothing beyond the last element is read."""
        b, lanes = self.builder, self.lanes
        second = b.add(start, lanes - 1)
        mask = None if guard.vector is None else self._mask(guard)
        if mask is not None:
            no = b.constant(False, bool_, lanes)
            even = tuple([k // 2 if k % 2 == 0 else lanes for k in range(lanes)])
            odd = tuple([(k + lanes - 1) // 2 if k % 2 else lanes for k in range(lanes)])
            low = b.load(buffer, start, lanes, mask=b.shuffle(mask, no, even))
            high = b.load(buffer, second, lanes, mask=b.shuffle(mask, no, odd))
        else:
            count = self._count(guard)
            wanted = None if count is None else b.sub(b.mul(count, 2), 1)
            low = b.load(buffer, start, lanes, count=wanted)
            high = b.load(buffer, second, lanes, count=None if wanted is None else b.sub(wanted, lanes - 1))
        half = lanes // 2
        return b.shuffle(low, high, tuple([2 * i if i < half else 2 * i + 1 for i in range(lanes)]))

    def store(self, buffer: Buffer, offset: Index, value: Value, guard: Guard = ALWAYS) -> None:
        """The value, or its real lanes, to ``offset``."""
        b, lanes = self.builder, self.lanes
        if lanes == 1:
            b.store(buffer, self.evaluator.scalar(offset), value, mask=guard.scalar)
            return
        value = b.splat(value, lanes)
        if offset.vectors or offset.lane != 1:
            b.scatter(buffer, self._offsets(buffer, offset), value, mask=self._mask(guard))
        elif guard.vector is not None:
            b.store(buffer, self.evaluator.scalar(offset), value, mask=self._mask(guard))
        else:
            b.store(buffer, self.evaluator.scalar(offset), value, count=self._count(guard))

    def _offsets(self, buffer: Buffer, offset: Index) -> Value:
        # offsets of 32 bits take half as many instructions; masked lanes may lie outside by a vector's stride
        small = isinstance(buffer.size, int) and buffer.size < 2**30 and not offset.vectors
        narrow = small and isinstance(offset.lane, int) and abs(offset.lane) * self.lanes < 2**30
        return self.builder.splat(self.evaluator.vector(offset, self.lanes, i32 if narrow else i64), self.lanes)

    def _count(self, guard: Guard) -> Value | None:
        if guard.scalar is None:
            return self.count
        b = self.builder
        return b.select(guard.scalar, b.index(self.lanes) if self.count is None else self.count, b.index(0))

    def _mask(self, guard: Guard) -> Value | None:
        b = self.builder
        if self.count is not None:
            guard = both(b, guard, b.compare("lt", b.lane_indices(self.lanes), self.count))
        if guard.scalar is None:
            return guard.vector
        whole = b.splat(guard.scalar, self.lanes)
        return whole if guard.vector is None else b.bit_and(whole, guard.vector)

    # -- moving work out of loops ----------------------------------------------------------------------------------

    def hoist(self, v: graph.Value, at: Coordinates) -> None:
        """Computes here what ``v`` needs at ``at`` that is the same in every round of the loops that follow.

        The variables of those loops are indices with a negative number (:data:`FUTURE`): they are not defined yet.
        """
        pending = [(v, at)]
        seen = set(pending)
        while pending:
            v, at = pending.pop()
            if v.node.op in ("constant", "iota") or v in self.overrides:
                continue
            if not any(number < 0 for index in at for number, _ in index.terms):
                self.value(v, at)
                continue
            if v.node.op in CONDITIONAL:
                hoist_place(self, v.node, at)
                continue
            if v.node.op == "reshape" and not divides_nothing(v.node):
                continue
            for operand, read, _ in self._reads(v.node, at, ALWAYS) or ():
                if (operand, read) not in seen:
                    seen.add((operand, read))
                    pending.append((operand, read))
