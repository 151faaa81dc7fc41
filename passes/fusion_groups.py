"""Groups of nodes that may become one kernel, and the rules that say which groups may merge.

A group has a *space*, the index space that its kernel walks: the shape of its results (pointwise, contraction,
convolution) or the shape of what is reduced, with the reduced axes. A rule answers with None (may merge) or with the
reason why not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from tgc.ir.dims import Dim
from tgc.ir.graph import Node
from tgc.ir.kinds import FusionKind, OpKind
from tgc.ir.opdef import OpTable

Shape = tuple[Dim, ...]

# vector instructions of a map's body, roughly; 1 where not listed
WEIGHTS: Mapping[str, int] = MappingProxyType(
    dict.fromkeys(("exp", "exp2", "log", "log2", "log10", "sigmoid", "rsqrt", "sqrt", "div", "reciprocal"), 12)
    | dict.fromkeys(("tanh", "erf", "expm1", "log1p", "sin", "cos", "tan", "sinh", "cosh", "remainder"), 30)
    | dict.fromkeys(
        ("pow", "erfc", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "hypot", "logaddexp"), 50
    )
)
INPUTS = frozenset({"parameter", "state", "literal"})
FREE = frozenset({"constant", "iota", "dimension"})
FREE_OVER_FREE = frozenset({"broadcast", "cast", "reshape", "neg"})
POINTWISE_INDEX_OPS = frozenset({"gather", "take_along_axis", "dynamic_slice", "dynamic_update_slice"})
ALIASES = frozenset({"barrier"})
# weight of an epilogue that all vectors of a row of a register tile can go through together
LONGEST_EPILOGUE = 64
# what may read its operand at another index than its own
MOVING = POINTWISE_INDEX_OPS | {
    "broadcast",
    "transpose",
    "slice",
    "pad",
    "concatenate",
    "reverse",
    "reshape",
    "relayout",
}


@dataclass(eq=False)
class Group:
    """Nodes that share a kernel. ``full``: the space; ``axes``: its reduced dimensions (reductions only).

    ``position``: where it stands in a :class:`~passes.fusion_order.GroupOrder`.
    """

    kind: FusionKind
    full: Shape
    axes: tuple[int, ...]
    anchor: Node | None
    nodes: dict[Node, None]
    weight: int
    position: Fraction = Fraction(-1)

    @property
    def row(self) -> Shape:
        """The space without its reduced dimensions."""
        return tuple(d for i, d in enumerate(self.full) if i not in self.axes)

    @property
    def row_wise(self) -> bool:
        """Whether the reduced dimensions are the innermost ones and something is left outside of them."""
        rank, count = len(self.full), len(self.axes)
        return 0 < count < rank and self.axes == tuple(range(rank - count, rank))


def squeezed(shape: Shape) -> Shape:
    """The shape without its dimensions of size 1."""
    return tuple(d for d in shape if d != 1)


def is_unit_reshape(node: Node) -> bool:
    """A reshape that only adds or drops dimensions of size 1."""
    return node.op == "reshape" and squeezed(node.types[0].shape) == squeezed(node.operands[0].shape)


def is_alias(node: Node) -> bool:
    """Whether the result is its operand's buffer as it stands: no kernel at all."""
    if node.op in ALIASES:
        return True
    return node.op == "reshape" and node.operands[0].type.layout is None


def is_free(node: Node, free: Collection[Node]) -> bool:
    """Whether every consumer had better make the value itself than read it from memory."""
    return node.op in FREE or (node.op in FREE_OVER_FREE and all(v.node in free for v in node.operands))


def weight(node: Node) -> int:
    """Vector instructions that one element of ``node`` takes, roughly."""
    return WEIGHTS.get(node.op, 1)


def fusion_kind(node: Node, table: OpTable) -> FusionKind | None:
    """The kind of kernel that ``node`` alone would be; None for what is no kernel."""
    if node.op in INPUTS:
        return None
    kind = table[node.op].kind
    if kind in (OpKind.MAP, OpKind.MOVEMENT, OpKind.CREATE, OpKind.BARRIER):
        return FusionKind.POINTWISE
    if kind is OpKind.INDEX:
        return FusionKind.POINTWISE if node.op in POINTWISE_INDEX_OPS else FusionKind.INDEX
    return {
        OpKind.WINDOW: FusionKind.WINDOW,
        OpKind.REDUCE: FusionKind.REDUCTION,
        OpKind.CONTRACT: FusionKind.CONTRACTION,
        OpKind.CONVOLUTION: FusionKind.CONVOLUTION,
        OpKind.CUMULATIVE: FusionKind.CUMULATIVE,
        OpKind.SORT: FusionKind.SORT,
    }.get(kind)


def new_group(node: Node, kind: FusionKind) -> Group:
    """A group of one node."""
    reduces = kind is FusionKind.REDUCTION
    full = node.operands[0].shape if reduces else node.types[0].shape
    axes: tuple[int, ...] = ()
    if reduces:
        given = node.attributes["axes"] if "axes" in node.attributes else (node.attributes["axis"],)
        axes = tuple(sorted(int(a) for a in given))  # type: ignore[union-attr, arg-type]
    anchor = None if kind is FusionKind.POINTWISE else node
    return Group(kind, full, axes, anchor, {node: None}, weight(node))


class Merging:
    """The rules. ``users``: the nodes that use a node; ``outputs``: nodes whose values leave the function."""

    def __init__(
        self, table: OpTable, users: Mapping[Node, Collection[Node]], outputs: Collection[Node], most: int
    ) -> None:
        self.table = table
        self.users = users
        self.outputs = outputs
        self.most = most

    def leaving(self, group: Group, into: Group) -> list[Node]:
        """Members of ``group`` whose values are needed outside of both groups."""
        return [
            n
            for n in group.nodes
            if n in self.outputs or any(u not in group.nodes and u not in into.nodes for u in self.users.get(n, ()))
        ]

    def refusal(self, producer: Group, consumer: Group) -> str | None:
        """Why ``producer`` may not become part of ``consumer``'s kernel, or None."""
        if producer.weight + consumer.weight > self.most:
            return f"the kernel would exceed {self.most} instructions per element"
        rule = RULES.get((producer.kind, consumer.kind))
        if rule is None:
            return f"no schedule takes a {producer.kind.value} into a {consumer.kind.value}"
        return rule(self, producer, consumer) or self._misread(producer, consumer)

    def pointwise_pointwise(self, producer: Group, consumer: Group) -> str | None:
        leaving = self.leaving(producer, consumer)
        same = producer.full == consumer.full
        if leaving and not all(n.types[0].shape == consumer.full for n in leaving):
            return "a value of another shape is also needed elsewhere"
        if same and not self._moved(producer, consumer):
            return None
        if leaving:
            return "it is read at other indices and also needed elsewhere"
        return self._recomputed(producer, consumer)

    def pointwise_reduction(self, producer: Group, consumer: Group) -> str | None:
        leaving = self.leaving(producer, consumer)
        if producer.full == consumer.full:
            if leaving and not consumer.row_wise:
                return "its values are needed elsewhere and the reduction does not write them"
            return None if not leaving or not self._moved(producer, consumer) else "it is read at other indices"
        if squeezed(producer.full) == squeezed(consumer.row):
            if not leaving:
                return None if producer.weight <= 4 or consumer.row_wise else "it would be computed for every element"
            if all(squeezed(n.types[0].shape) == squeezed(consumer.row) for n in leaving) and consumer.row_wise:
                return None
            return "its values are needed elsewhere"
        if leaving:
            return "its shape is not the reduction's, and its values are needed elsewhere"
        return self._recomputed(producer, consumer)

    def reduction_pointwise(self, producer: Group, consumer: Group) -> str | None:
        if squeezed(consumer.full) == squeezed(producer.row):
            return None
        if consumer.full == producer.full:
            if producer.row_wise:
                return None
            return "only a reduction of the innermost dimensions keeps its row in cache for a second pass"
        return "the shape is neither the reduction's row nor its whole"

    def reduction_reduction(self, producer: Group, consumer: Group) -> str | None:
        if producer.full != consumer.full or producer.axes != consumer.axes:
            return "the reductions run over different shapes or axes"
        if not producer.row_wise:
            return "a second pass needs a reduction of the innermost dimensions"
        return None

    def contraction_pointwise(self, producer: Group, consumer: Group) -> str | None:
        if consumer.full != producer.full:
            return "an epilogue has the shape of the product"
        if any(_moves(n) and n.op != "relayout" for n in consumer.nodes):
            return "the product is read at other indices"
        if producer.weight + consumer.weight > LONGEST_EPILOGUE:
            return "too much work for the epilogue of a register tile"
        return None

    def attention_pointwise(self, producer: Group, consumer: Group) -> str | None:
        if any(n.op == "relayout" for n in consumer.nodes):
            return "the product's results lie in another order"
        return self.contraction_pointwise(producer, consumer)

    def pointwise_contraction(self, producer: Group, consumer: Group) -> str | None:
        before = self._before_anchor(producer, consumer)
        if any(n in before for n in producer.nodes):
            return self._prologue(producer, consumer, before)
        if producer.full != consumer.full:
            return "an epilogue has the shape of the product"
        if self.leaving(producer, consumer):
            return "its values are needed elsewhere"
        if producer.weight > 16:
            return "too much work for the epilogue of a register tile"
        return None

    def _before_anchor(self, producer: Group, consumer: Group) -> set[Node]:
        """Members of either group that the anchor is computed from."""
        found: set[Node] = set()
        pending = [consumer.anchor] if consumer.anchor is not None else []
        while pending:
            for value in pending.pop().operands:
                if value.node not in found and (value.node in producer.nodes or value.node in consumer.nodes):
                    found.add(value.node)
                    pending.append(value.node)
        return found

    def _prologue(self, producer: Group, consumer: Group, before: Collection[Node]) -> str | None:
        """A product copies its operands once or a few times: cheap maps are computed on the way."""
        anchor = consumer.anchor
        if anchor is None or consumer.kind not in (FusionKind.CONTRACTION, FusionKind.CONVOLUTION):
            return "it reads its operands from memory"
        if consumer.kind is FusionKind.CONVOLUTION and anchor.op != "convolution_filter_gradient":
            if anchor.operands[1].node in producer.nodes:
                return "filters are packed from memory"
        if any(
            n in self.outputs or any(u is not anchor and u not in before for u in self.users.get(n, ()))
            for n in producer.nodes
        ):
            return "not only the product reads it"
        if any(_moves(n) and n.op not in ("broadcast", "relayout") for n in producer.nodes):
            return "products read moved operands from memory"
        # less than one exp: an operand is computed again for every few panels
        if sum(weight(n) for n in before) > 8:
            return "too much work for the prologue of a product"
        return None

    def _moved(self, producer: Group, consumer: Group) -> bool:
        """Whether the consumer reads a member of the producer at an index that is not its own."""
        return any(
            _moves(n) and n.op != "relayout" and any(v.node in producer.nodes for v in n.operands)
            for n in consumer.nodes
        )

    def _misread(self, producer: Group, consumer: Group) -> str | None:
        """A kernel knows reduced values, and what is made of them, at the row's own index alone."""
        group = consumer if consumer.kind is FusionKind.REDUCTION else producer
        if group.kind is not FusionKind.REDUCTION:
            return None
        nodes = {**producer.nodes, **consumer.nodes}
        known: dict[Node, bool] = {}

        def reduced(node: Node) -> bool:
            if node not in known:
                below = any(reduced(v.node) for v in node.operands if v.node in nodes)
                known[node] = below or self.table[node.op].kind is OpKind.REDUCE
            return known[node]

        for node in nodes:
            if _moves(node) and not keeps_rows(node, group):
                if any(v.node in nodes and reduced(v.node) for v in node.operands):
                    return "the reduced values are read at other indices"
        return None

    def _recomputed(self, producer: Group, consumer: Group) -> str | None:
        """Inlining is refused where an expanding read would compute dear values many times."""
        expands = any(
            n.op in ("broadcast", "gather", "take_along_axis")
            and n.operands[0].node in producer.nodes
            and squeezed(n.types[0].shape) != squeezed(n.operands[0].shape)
            for n in consumer.nodes
        )
        if expands and producer.weight > 4:
            return "broadcasting would compute it again for every element"
        return None


def _moves(node: Node) -> bool:
    return node.op in MOVING


def keeps_rows(node: Node, group: Group) -> bool:
    """Whether a movement of reduced values reads them at the row's own index."""
    if node.op == "relayout" or is_unit_reshape(node):
        return True
    source = node.operands[0].shape
    if node.op != "broadcast" or squeezed(source) != squeezed(group.row):
        return False
    kept = tuple(i for i in range(len(group.full)) if i not in group.axes)
    real = tuple(a for a, d in zip(node.attributes["axes"], source, strict=True) if d != 1)  # type: ignore[arg-type]
    if node.types[0].shape == group.full:
        return real == tuple(k for k in kept if group.full[k] != 1)
    return squeezed(node.types[0].shape) == squeezed(group.row)


RULES = MappingProxyType(
    {
        (FusionKind.POINTWISE, FusionKind.POINTWISE): Merging.pointwise_pointwise,
        (FusionKind.POINTWISE, FusionKind.REDUCTION): Merging.pointwise_reduction,
        (FusionKind.REDUCTION, FusionKind.POINTWISE): Merging.reduction_pointwise,
        (FusionKind.REDUCTION, FusionKind.REDUCTION): Merging.reduction_reduction,
        (FusionKind.CONTRACTION, FusionKind.POINTWISE): Merging.contraction_pointwise,
        (FusionKind.CONVOLUTION, FusionKind.POINTWISE): Merging.contraction_pointwise,
        (FusionKind.ATTENTION, FusionKind.POINTWISE): Merging.attention_pointwise,
        (FusionKind.POINTWISE, FusionKind.ATTENTION): Merging.pointwise_contraction,
        (FusionKind.WINDOW, FusionKind.POINTWISE): Merging.contraction_pointwise,
        (FusionKind.POINTWISE, FusionKind.WINDOW): Merging.pointwise_contraction,
        (FusionKind.POINTWISE, FusionKind.CONTRACTION): Merging.pointwise_contraction,
        (FusionKind.POINTWISE, FusionKind.CONVOLUTION): Merging.pointwise_contraction,
    }
)
