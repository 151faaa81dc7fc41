"""Iteration spaces: the loops over a result's memory, with dimensions joined wherever every access allows it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tgc.errors import CompilerBug
from tgc.ir import graph
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Node
from tgc.ir.opdef import OpTable
from tgc.ir.types import TensorType
from tgc.kernels.access_conditional import CONDITIONAL
from tgc.kernels.access_movement import LINEAR, Coordinates, reshaped
from tgc.kernels.indices import Index, inner
from tgc.ops import rules


@dataclass(frozen=True, slots=True)
class Walk:
    """Loops from outermost to innermost, in the order of a type's memory.

    ``at``: the logical index, in terms of the loops' numbers. ``open``: dimensions whose index may lie outside, since
    the loops pass through margins and the rest of the last tile too.
    """

    sizes: tuple[Dim, ...]
    at: Coordinates
    open: tuple[int, ...]

    @property
    def strides(self) -> tuple[Dim, ...]:
        """Elements of memory between neighbours in each loop."""
        return tuple([product(self.sizes[n + 1 :]) for n in range(len(self.sizes))])

    def placed(self, loops: Sequence[Index]) -> Coordinates:
        """The logical index for given indices of the loops."""
        return tuple([inner([loops[n] for n, _ in i.terms], [c for _, c in i.terms], i.constant) for i in self.at])


@dataclass(frozen=True, slots=True)
class Axis:
    """Consecutive loops of a walk run as one: ``loops``, of ``size`` iterations together."""

    loops: tuple[int, ...]
    size: Dim


def memory_walk(type_: TensorType) -> Walk:
    """Every element of the buffer of a type, in the order of memory."""
    layout = type_.layout
    if layout is None or not layout.tiles and not layout.margins:
        number = {dimension: n for n, dimension in enumerate(type_.order)}
        at = tuple([Index(((number[d], 1),)) for d in range(type_.rank)])
        return Walk(tuple([type_.shape[d] for d in type_.order]), at, ())
    blocks, sizes = list(layout.padded(type_.shape)), []
    factors: list[Dim] = [1] * type_.rank
    terms: list[list[tuple[int, Dim]]] = [[] for _ in range(type_.rank)]
    rest = set()
    for n, (dimension, size) in enumerate(layout.tiles, type_.rank):
        if blocks[dimension] % size != 0:
            rest.add(dimension)
        blocks[dimension] = (blocks[dimension] + (size - 1)) // size
        terms[dimension].append((n, factors[dimension]))
        factors[dimension] = factors[dimension] * size
    for n, dimension in enumerate(layout.order):
        sizes.append(blocks[dimension])
        terms[dimension].insert(0, (n, factors[dimension]))
    sizes += [size for _, size in layout.tiles]
    margins = layout.margins or ((0, 0),) * type_.rank
    index = [Index(tuple(sorted(t)), constant=-before) for t, (before, _) in zip(terms, margins, strict=True)]
    open_ = tuple([d for d in range(type_.rank) if d in rest or any(margins[d])])
    return Walk(tuple(sizes), tuple(index), open_)


@dataclass(frozen=True, slots=True)
class Pattern:
    """How a computation reads and writes memory: one linear offset for each access, over the numbers of loops.

    ``sources``: the parameter that each of the offsets is in, as far as they come from a computation. ``pinned``: loops
    whose number matters beyond the offsets, so that they cannot be joined with others. ``certain``:
    parameters that are read at every index, and where, the origin of their layout included. ``cuts``: pairs of a loop
    and a number at which another operand, or padding, begins to be read.
    """

    offsets: tuple[Index, ...]
    pinned: frozenset[int]
    certain: tuple[tuple[graph.Value, Index], ...] = ()
    cuts: frozenset[tuple[int, int]] = frozenset()
    sources: tuple[graph.Value, ...] = ()

    def uniform(self, loops: Collection[int]) -> frozenset[graph.Value]:
        """The parameters that are read at the same place all along some loops."""
        if self.pinned.intersection(loops):
            return frozenset()
        read = list(zip(self.sources, self.offsets, strict=True))
        varying = {v for v, offset in read if any(n in loops for n, _ in offset.terms)}
        return frozenset([v for v, _ in read if v not in varying])


def pattern(
    values: Iterable[tuple[graph.Value, Coordinates]], table: OpTable, given: Collection[graph.Value] = ()
) -> Pattern:
    """The accesses that computing each of ``values`` at an index makes; those ``given`` are in registers already."""
    offsets: list[Index] = []
    sources: list[graph.Value] = []
    certain: list[tuple[graph.Value, Index]] = []
    pinned: set[int] = set()
    cuts: set[tuple[int, int]] = set()
    pending = [(v, at, True) for v, at in values]
    seen = set(pending)
    while pending:
        v, at, always = pending.pop()
        if v in given:
            continue
        if v.node.op == "parameter":
            layout = v.type.layout
            offset = _offset(v.type, at, pinned)
            offsets.append(offset)
            sources.append(v)
            if always and (layout is None or not layout.tiles):
                certain.append((v, offset if layout is None else offset.shifted(layout.origin(v.shape))))
            continue
        cuts.update(_cuts(v.node, at))
        always = always and v.node.op not in CONDITIONAL
        for operand, place in reads(v.node, at, table, pinned):
            read = (operand, place, always)
            if read not in seen:
                seen.add(read)
                pending.append(read)
    return Pattern(tuple(offsets), frozenset(pinned), tuple(certain), frozenset(cuts), tuple(sources))


def _cuts(node: Node, at: Coordinates) -> Iterator[tuple[int, int]]:
    """Where along a loop a concatenation or a pad goes from one source to the next."""
    ends: list[tuple[Index, Dim]] = []
    if node.op == "concatenate":
        axis = rules.integer(node.attributes, "axis")
        end: Dim = 0
        for operand in node.operands:
            end = end + operand.shape[axis]
            ends.append((at[axis], end))
    elif node.op == "pad" and not any(rules.integers(node.attributes, "interior")):
        for index, low, size in zip(at, rules.dims(node.attributes, "low"), node.operands[0].shape, strict=True):
            ends += [(index, low), (index, low + size)]
    for index, end in ends:
        place = end - index.constant
        if len(index.terms) == 1 and index.terms[0][1] == 1 and isinstance(place, int):
            yield index.terms[0][0], place


def reads(node: Node, at: Coordinates, table: OpTable, pinned: set[int]) -> list[tuple[graph.Value, Coordinates]]:
    """The operands and where they are read, data taken as 0; loops whose number matters are added to ``pinned``."""

    def pin(index: Index, *_: object) -> tuple[Index, Index]:
        pinned.update(n for n, _ in index.terms)
        return Index(), Index()

    operands = node.operands
    linear = LINEAR.get(node.op)
    if linear is not None:
        return [(operands[0], linear(node, at))]
    if node.op == "reshape":
        return [(operands[0], reshaped(node, at, pin))]
    if node.op in ("iota", "concatenate"):
        pin(at[rules.integer(node.attributes, "axis")])
    elif node.op == "pad":
        for index, before, after, gap in zip(
            at, *(rules.dims(node.attributes, name) for name in ("low", "high", "interior")), strict=True
        ):
            if (before, after, gap) != (0, 0, 0):
                pin(index)
        return [(operands[0], at), (operands[1], ())]
    elif node.op in ("gather", "take_along_axis"):
        axis = rules.integer(node.attributes, "axis")
        rank = len(operands[1].shape) if node.op == "gather" else 1
        found = at[axis : axis + rank] if node.op == "gather" else at
        return [(operands[0], (*at[:axis], Index(), *at[axis + rank :])), (operands[1], found)]
    elif node.op == "dynamic_slice":
        return [(operands[0], at)]
    elif node.op == "dynamic_update_slice":
        for index, size, whole in zip(at, operands[1].shape, operands[0].shape, strict=True):
            if size != whole:
                pin(index)
        return [(operands[0], at), (operands[1], at)]
    elif table[node.op].scalar is None and operands:
        raise CompilerBug(f"{node.op} has no accesses that are known before its code", stage="schedule")
    return [(operand, at) for operand in operands]


def _offset(type_: TensorType, at: Coordinates, pinned: set[int]) -> Index:
    layout = type_.layout
    tiled = {dimension for dimension, _ in layout.tiles} if layout is not None else set()
    for dimension in tiled:
        pinned.update(n for n, _ in at[dimension].terms)
    kept = [(i, s) for d, (i, s) in enumerate(zip(at, type_.strides, strict=True)) if d not in tiled]
    return inner([i for i, _ in kept], [s for _, s in kept])


def joined(sizes: Sequence[Dim], accesses: Pattern) -> list[Axis]:
    """The loops without those of one iteration, neighbours joined where no access can tell the difference."""
    coefficients = [dict(offset.terms) for offset in accesses.offsets]
    axes: list[Axis] = []
    for number in [n for n, size in enumerate(sizes) if size != 1]:
        size = sizes[number]
        if axes and number not in accesses.pinned and not accesses.pinned & set(axes[-1].loops):
            outer = axes[-1].loops[-1]
            if all(c.get(outer, 0) == c.get(number, 0) * size for c in coefficients):
                axes[-1] = Axis((*axes[-1].loops, number), axes[-1].size * size)
                continue
        axes.append(Axis((number,), size))
    return axes


def loop_indices(axes: Sequence[Axis], indices: Sequence[Index], loops: int) -> list[Index]:
    """The index of each loop, given those of the axes: of joined loops the last one takes all."""
    result = [Index()] * loops
    for axis, index in zip(axes, indices, strict=True):
        result[axis.loops[-1]] = index
    return result
