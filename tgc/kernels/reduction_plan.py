"""What a reduction region consists of: its space, its passes, and what one pass keeps for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from passes.fusion_groups import squeezed, weight
from tgc.errors import CompilerBug
from tgc.ir import graph
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph, Node
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.ir.types import TensorType
from tgc.kernels.access_movement import Coordinates
from tgc.kernels.indices import Index, inner
from tgc.kernels.spaces import Pattern, joined, pattern, reads
from tgc.ops import rules

# computing a value again costs at least this many instructions where it is kept instead
DEAR = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring dimensions in memory that are all reduced or all kept, walked by one index.

    ``linear``: every access is a linear function of that index, so that it need not be taken apart.
    """

    dimensions: tuple[int, ...]
    size: Dim
    reduced: bool
    linear: bool


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The dimensions that a reduce node folds."""
    if "axes" in node.attributes:
        return rules.integers(node.attributes, "axes")
    return (rules.integer(node.attributes, "axis"),)


@dataclass(frozen=True)
class ReductionPlan:
    """``levels``: reduce nodes, those of one pass together; ``full``, ``kept``: numbers of the results that have the
    whole shape, and of those without the reduced dimensions. ``saved``: for each pass the values that later ones take
    from scratch; ``taken``: for each pass, and last for the writing of full results, what it takes. ``work``: vector
    instructions for an element, roughly, likewise."""

    region: Graph
    type: TensorType
    axes: tuple[int, ...]
    runs: tuple[Run, ...]
    levels: tuple[tuple[Node, ...], ...]
    full: tuple[int, ...]
    kept: tuple[int, ...]
    saved: tuple[tuple[graph.Value, ...], ...]
    taken: tuple[tuple[graph.Value, ...], ...]
    work: tuple[int, ...]

    @property
    def lanes_are_reduced(self) -> bool:
        """Whether neighbours in memory are folded together (the row of a matrix), or lie in different results."""
        return not self.runs or self.runs[-1].reduced

    def sizes(self, *, reduced: bool) -> list[Dim]:
        return [run.size for run in self.runs if run.reduced == reduced]

    @property
    def folded(self) -> Dim:
        """How many elements go into each result."""
        return product(self.sizes(reduced=True))

    @property
    def domain(self) -> Dim:
        """What a loop over the reduced elements of a row, or of columns, counts at its outside."""
        sizes = self.sizes(reduced=True)
        if not self.lanes_are_reduced:
            return product(sizes)
        return product(sizes[:-1]) if len(sizes) > 1 else product(sizes)


def kept_index(type_: TensorType, axes: Sequence[int], shape: Sequence[Dim], at: Coordinates) -> Coordinates:
    """The index of a value of the kept shape, dimensions of size 1 added or dropped, for a place in the space."""
    rest = [at[d] for d in range(type_.rank) if d not in axes and type_.shape[d] != 1]
    if sum(d != 1 for d in shape) != len(rest):
        raise CompilerBug(f"[{rules.listed(shape)}] is not what a reduction of {type_} keeps", stage="schedule")
    remaining = iter(rest)
    return tuple([Index() if d == 1 else next(remaining) for d in shape])


def plan(region: Graph, table: OpTable) -> ReductionPlan:
    """The plan of a region whose reductions all fold the same dimensions of the same shape."""
    nodes = region.nodes()
    depth: dict[Node, int] = {}
    folds: list[Node] = []
    for node in nodes:
        below = max([depth[v.node] for v in node.operands], default=0)
        is_fold = table[node.op].kind is OpKind.REDUCE
        depth[node] = below + is_fold
        if is_fold:
            folds.append(node)
    if not folds:
        raise CompilerBug("a reduction region without a reduction", stage="schedule")
    type_, axes = folds[0].operands[0].type, reduced_axes(folds[0])
    for node in folds:
        if squeezed(node.operands[0].shape) != squeezed(type_.shape) or reduced_axes(node) != axes:
            raise CompilerBug(f"reductions of {type_} and {node.operands[0].type} in one region", stage="schedule")
    levels = tuple([tuple([n for n in folds if depth[n] == d]) for d in sorted({depth[n] for n in folds})])
    full = tuple([i for i, v in enumerate(region.results) if v.shape == type_.shape])
    kept = tuple([i for i in range(len(region.results)) if i not in full])
    given = frozenset(n.result for n in folds)
    identity = tuple([Index(((d, 1),)) for d in range(type_.rank)])
    wholes = [region.results[i] for i in full]
    needs = [_needs([n.operands[0] for n in level], identity, table, given) for level in levels]
    needs.append(_needs(wholes, identity, table, given))
    saved, taken = _keep(needs)
    work = tuple([_work(need.targets, given.union(t)) for need, t in zip(needs, taken, strict=True)])
    stored = [(v, identity) for v in wholes]
    stored += [(v, kept_index(type_, axes, v.shape, identity)) for v in (region.results[i] for i in kept)]
    accesses = pattern([*[(n.operands[0], identity) for n in folds], *stored], table, given)
    offsets = (*accesses.offsets, *[inner(at, v.type.strides) for v, at in stored])
    runs = _runs(type_, axes, Pattern(offsets, accesses.pinned))
    return ReductionPlan(region, type_, axes, runs, levels, full, kept, saved, taken, work)


def _runs(type_: TensorType, axes: Sequence[int], accesses: Pattern) -> tuple[Run, ...]:
    groups: list[list[int]] = []
    for d in type_.order:
        if type_.shape[d] == 1:
            continue
        if groups and (groups[-1][0] in axes) == (d in axes):
            groups[-1].append(d)
        else:
            groups.append([d])
    runs = []
    for group in groups:
        # a pattern numbers loops by dimension, while they are joined in the order of memory
        number = {d: n for n, d in enumerate(group)}
        offsets = [Index(tuple([(number[n], c) for n, c in o.terms if n in number])) for o in accesses.offsets]
        pinned = frozenset([number[n] for n in accesses.pinned if n in number])
        sizes = [type_.shape[d] for d in group]
        linear = len(joined(sizes, Pattern(tuple(offsets), pinned))) == 1
        runs.append(Run(tuple(group), product(sizes), group[0] in axes, linear))
    return tuple(runs)


@dataclass(frozen=True, slots=True)
class _Needs:
    """Values that a pass computes at its own index, with the instructions that each takes, and those at other ones."""

    here: dict[graph.Value, int]
    elsewhere: frozenset[graph.Value]
    targets: tuple[graph.Value, ...]


def _needs(
    targets: Sequence[graph.Value], identity: Coordinates, table: OpTable, given: frozenset[graph.Value]
) -> _Needs:
    here: dict[graph.Value, int] = {}
    elsewhere: set[graph.Value] = set()
    pending = [(v, identity) for v in targets]
    seen = set(pending)
    pinned: set[int] = set()
    while pending:
        v, at = pending.pop()
        if v in given or not v.node.operands:
            continue
        if at == identity:
            here[v] = 0
        else:
            elsewhere.add(v)
        for read in reads(v.node, at, table, pinned):
            if read not in seen:
                seen.add(read)
                pending.append(read)
    for v in here:
        here[v] = _work([v], given)
    return _Needs(here, frozenset(elsewhere), tuple(targets))


def _work(values: Sequence[graph.Value], given: frozenset[graph.Value]) -> int:
    """Instructions to compute values from memory and from what is given."""
    total = 0
    pending = [v for v in values if v not in given and v.node.operands]
    seen = set(pending)
    while pending:
        v = pending.pop()
        total += weight(v.node)
        for operand in v.node.operands:
            if operand not in seen and operand not in given and operand.node.operands:
                seen.add(operand)
                pending.append(operand)
    return total


def _keep(needs: Sequence[_Needs]) -> tuple[tuple[tuple[graph.Value, ...], ...], tuple[tuple[graph.Value, ...], ...]]:
    saved: list[dict[graph.Value, None]] = [{} for _ in needs]
    taken: list[dict[graph.Value, None]] = [{} for _ in needs]
    elsewhere = frozenset[graph.Value]().union(*[n.elsewhere for n in needs])
    for later, need in enumerate(needs):
        pending = list(need.targets)
        seen = set(pending)
        while pending:
            v = pending.pop()
            first = next((e for e in range(later) if v in needs[e].here), None)
            if first is not None and v in need.here and need.here[v] >= DEAR and v not in elsewhere:
                saved[first][v] = None
                taken[later][v] = None
                continue
            for operand in v.node.operands:
                if operand in need.here and operand not in seen:
                    seen.add(operand)
                    pending.append(operand)
    return tuple([tuple(s) for s in saved[:-1]]), tuple([tuple(t) for t in taken])
