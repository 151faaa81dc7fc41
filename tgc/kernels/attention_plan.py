"""What an attention region consists of: a product, maps and folds of its rows, and a product with these rows.

The region is taken apart into three, each with a value of the next as its result: scores, rows, and what is made of
them. Between them lie scores that are never in memory as a whole: a task has a few rows of them in scratch, and reads
and writes these as a window into the tensor that all of them would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tgc.errors import CompilerBug
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph, Node, Value, intern, parameter
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.ir.types import Layout, TensorType
from tgc.kernels.contraction_plan import Plan, plan_contraction
from tgc.ops import rules
from tgc.target import Target

# elements of a row of scores where they are not known
_TYPICAL = 1024
_MOST_ROWS = 128
# that many are enough for any number of threads
_TASKS = 12


@dataclass(frozen=True)
class AttentionPlan:
    """``scores``, ``rows`` and ``output``: the three regions, with all parameters of the whole one and one more that
    is the window, of type ``window``. ``first`` and ``second``: the products; ``chunk``: rows of a task; ``causal``:
    whether a mask hides all scores above the diagonal.
    """

    scores: Graph
    rows: Graph
    output: Graph
    window: TensorType
    first: Plan
    second: Plan
    chunk: int
    causal: bool

    @property
    def outer(self) -> tuple[Dim, ...]:
        """The sizes around the rows."""
        return self.window.shape[:-2]

    @property
    def count(self) -> Dim:
        """Rows of scores for each index of the outer dimensions."""
        return self.window.shape[-2]

    @property
    def pitch(self) -> Dim:
        """Elements from a row of the window to the next one."""
        return self.window.strides[-2]


def plan_attention(region: Graph, target: Target, table: OpTable) -> AttentionPlan:
    """The region's parts, and how a task goes through them."""
    scores, rows, output = _parts(region, target, table)
    window = scores.results[0].type
    first, second = (_upright(graph, target, table) for graph in (scores, output))
    return AttentionPlan(scores, rows, output, window, first, second, _chunk(window, first, target), _is_causal(scores))


def _upright(region: Graph, target: Target, table: OpTable) -> Plan:
    """The plan with rows as rows, and the order of sums that the product would have by itself."""
    plan, alone = (plan_contraction(region, target, table, turned=turned) for turned in (False, True))
    return replace(plan, blocking=replace(plan.blocking, depth=alone.depth))


def _is_causal(scores: Graph) -> bool:
    """Whether the product is used where its column is not behind its row, and there alone."""
    readers: dict[Node, list[Node]] = {}
    for node in scores.nodes():
        for value in node.operands:
            readers.setdefault(value.node, []).append(node)
    (made,) = (n for n in scores.nodes() if n.op == "contract")
    while len(readers.get(made, ())) == 1:
        (reader,) = readers[made]
        if reader.op == "select" and reader.operands[1].node is made and _is_lower_triangle(reader.operands[0]):
            return True
        made = reader
    return False


def _is_lower_triangle(condition: Value) -> bool:
    node = condition.node
    if node.op not in ("le", "ge") or any(v.node.op != "iota" for v in node.operands):
        return False
    axes = [rules.integer(v.node.attributes, "axis") - len(condition.shape) for v in node.operands]
    return axes == ([-1, -2] if node.op == "le" else [-2, -1])


def _chunk(window: TensorType, first: Plan, target: Target) -> int:
    """Rows of a task, all in about equal parts: their scores take half of the second-level cache at most.

    The more rows meet a panel of keys or values, the less these have to be read again from further away: with 1024 keys
    a task of 14 rows took 66 µs, one of 112 rows 296. Below that, rows are shared among threads.
    """
    tile = first.shape.rows
    pitch = window.strides[-2]
    row = (pitch if isinstance(pitch, int) else _TYPICAL) * window.dtype.itemsize
    most = min(_MOST_ROWS, max(2 * tile, target.l2_bytes // 2 // row))
    count, around = window.shape[-2], product(window.shape[:-2])
    if not isinstance(count, int):
        return max(1, most // tile) * tile
    tiles = -(-count // tile)
    pieces = -(-tiles // max(1, most // tile))
    if isinstance(around, int):
        pieces = max(pieces, min(-(-_TASKS // max(1, around)), tiles))
    return -(-tiles // max(1, pieces)) * tile


def _parts(region: Graph, target: Target, table: OpTable) -> tuple[Graph, Graph, Graph]:
    nodes = region.nodes()
    products = [n for n in nodes if table[n.op].kind is OpKind.CONTRACT]
    if len(products) != 2:
        raise CompilerBug(f"attention of {len(products)} products", stage="schedule")
    first, second = products
    hot, folded = _below(nodes, {first}), _below(nodes, {n for n in nodes if table[n.op].kind is OpKind.REDUCE})
    (weights,) = (v for v in second.operands if v.node in hot)
    # what folds and what follows them read of that which precedes them
    read = {v for n in nodes if n in folded and n in hot for v in n.operands if v.node in hot and v.node not in folded}
    scores = read.pop() if len(read) == 1 else first.result
    window = _windowed(scores.type, target)
    given = parameter(len(region.parameters), window)
    parameters = (*region.parameters, given)
    (made,) = _replaced(nodes, (weights,), {scores: given})
    return (
        Graph(parameters, (_in_window(scores, window),)),
        Graph(parameters, (_in_window(made, window),)),
        Graph(parameters, _replaced(nodes, region.results, {weights: given})),
    )


def _below(nodes: Sequence[Node], start: set[Node]) -> set[Node]:
    """The nodes that are computed from some, these included."""
    found = set(start)
    for node in nodes:
        if any(v.node in found for v in node.operands):
            found.add(node)
    return found


def _windowed(type_: TensorType, target: Target) -> TensorType:
    """The type with rows that begin in different sets of a cache: an odd number of vectors apart, if that is known."""
    lanes, last = target.lanes(type_.dtype), type_.shape[-1]
    vectors = -(-last // lanes) if isinstance(last, int) else 0
    margin = (vectors + 1 + vectors % 2) * lanes - last if isinstance(last, int) else lanes
    rank = type_.rank
    return type_.with_layout(Layout(tuple(range(rank)), margins=(*[(0, 0)] * (rank - 1), (0, margin))))


def _replaced(nodes: Sequence[Node], results: tuple[Value, ...], given: Mapping[Value, Value]) -> tuple[Value, ...]:
    """The results with some of the values below them replaced; all types stay."""
    new = dict(given)
    for node in nodes:
        operands = tuple(new.get(v, v) for v in node.operands)
        if operands != node.operands and node.results[0] not in new:
            made = intern(node.op, operands, node.attributes, node.regions, node.types)
            new.update(zip(node.results, made.results, strict=True))
    return tuple(new.get(v, v) for v in results)


def _in_window(value: Value, window: TensorType) -> Value:
    return intern("relayout", (value,), {"type": window}, (), (window,)).result
