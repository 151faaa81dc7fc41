"""Normal forms: of movement and casts, constants to the right, maps below the broadcasts of their operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from passes.base import Pass, PassContext, each_graph, inline, rewrite, uniform, with_functions
from passes.movement import MOVEMENT_RULES, NodeRule, integers
from tgc.dtypes import DType
from tgc.ir.builder import Builder
from tgc.ir.graph import Module, Node, Value, topological
from tgc.ir.kinds import OpKind


@dataclass(frozen=True)
class Canonicalize(Pass):
    """One way of saying each thing, so that other passes look for one pattern only. Keeps every bit.

    Adjacent movements of a kind merge, and those that move nothing disappear. Transposes go below broadcasts and into
    contractions. A map of broadcasts is the broadcast of the map, so that it is computed once for each element it has.
    Constants are the right operand of commutative ops. A cond on a constant is the branch that it takes.
    """

    name = "canonicalize"

    def run(self, module: Module, context: PassContext) -> Module:
        while True:
            module = rewrite(module, canonical, context)
            builder = context.builder(module)
            transposed = partial(_contract_as_used, builder)
            functions = tuple(f.with_outputs(each_graph(builder, f.outputs, transposed)) for f in module.functions)
            changed = with_functions(module, functions, builder)
            if changed is module:
                return module
            module = changed


def _contract_as_used(builder: Builder, results: tuple[Value, ...]) -> tuple[Value, ...]:
    """Contractions that are used transposed, and always in the same way, give their result so to begin with.

    Other contractions do not mind: a transpose of their operand becomes a part of them.
    """
    order = topological(results)
    users: dict[Node, list[Node | None]] = {node: [] for node in order if node.op == "contract"}
    for node in order:
        for operand in node.operands:
            if operand.node in users:
                users[operand.node].append(node)
    for value in results:
        if value.node in users:
            users[value.node].append(None)
    transposes: dict[Node, Node] = {}
    for node, using in users.items():
        others = {user for user in using if user is None or user.op != "contract"}
        (transpose,) = others if len(others) == 1 else (None,)
        if transpose is not None and transpose.op == "transpose":
            transposes[node] = transpose
    if not transposes:
        return results
    new: dict[Value, Value] = {}
    for node in order:
        if Value(node, 0) in new:
            continue
        operands = tuple([new[v] for v in node.operands])
        builder.place = builder.locations.get(node)
        transpose = transposes.get(node)
        if transpose is not None:
            permutation = integers(transpose, "permutation")
            letters, result = str(node.attributes["spec"]).split("->")
            a, b = operands
            made = builder.contract(a, b, f"{letters}->{''.join(result[p] for p in permutation)}")
            new[transpose.result] = made
            new[node.result] = builder.transpose(made, [permutation.index(i) for i in range(len(permutation))])
        else:
            rebuilt = (
                node if operands == node.operands else builder.node(node.op, operands, node.attributes, node.regions)
            )
            new.update(zip(node.results, rebuilt.results, strict=True))
    builder.place = None
    return tuple(new[v] for v in results)


def canonical(builder: Builder, node: Node) -> Value | Sequence[Value] | None:
    """What takes the place of ``node``, whose operands are in normal form; None if it is too."""
    rule = _RULES.get(node.op)
    if rule is not None:
        return rule(builder, node)
    if node.op == "cond":
        return _cond(builder, node)
    definition = builder.table[node.op]
    if definition.kind is not OpKind.MAP:
        return None
    if definition.commutative and uniform(node.operands[0]) is not None and uniform(node.operands[1]) is None:
        return builder.op(node.op, node.operands[1], node.operands[0], attributes=node.attributes)
    return _map_of_broadcasts(builder, node)


def _map_of_broadcasts(b: Builder, node: Node) -> Value | None:
    """map(broadcast(x), broadcast(y), constant) = broadcast(map(x, y, constant))."""
    first: Node | None = None
    for operand in node.operands:
        inner = operand.node
        if uniform(operand) is not None and operand.shape:
            continue
        if inner.op != "broadcast":
            return None
        if first is None:
            first = inner
        elif inner.operands[0].shape != first.operands[0].shape or inner.attributes["axes"] != first.attributes["axes"]:
            return None
    shape = first.operands[0].shape if first is not None else ()
    axes = integers(first, "axes") if first is not None else ()
    if first is None and not node.types[0].shape:
        return None
    operands = []
    for operand in node.operands:
        number = uniform(operand)
        operands.append(operand.node.operands[0] if number is None else b.full(number, shape, operand.dtype))
    return b.broadcast(b.op(node.op, *operands, attributes=node.attributes), node.types[0].shape, axes)


def _cast(b: Builder, node: Node) -> Value | None:
    x = node.operands[0]
    if x.dtype is node.types[0].dtype:
        return x
    if x.node.op == "cast" and _keeps_value(x.node.operands[0].dtype, x.dtype):
        return b.cast(x.node.operands[0], node.types[0].dtype)
    return _map_of_broadcasts(b, node)


def _bitcast(b: Builder, node: Node) -> Value | None:
    # the front end has them for values that are constant for derivatives, which were taken before
    same = node.operands[0].dtype is node.types[0].dtype
    return node.operands[0] if same else _map_of_broadcasts(b, node)


def _keeps_value(source: DType, target: DType) -> bool:
    """Whether casting first to ``target`` changes no later cast: a wider type of the same kind.

    Not from integers to floats, which are converted to narrower integers by other rules.
    """
    if source.kind == "bool":
        return True
    if source.kind == target.kind:
        # bf16 and f16 hold values that the other one does not
        return target.bits > source.bits
    return source.kind == "uint" and target.kind == "int" and target.bits > source.bits


def _fold_nothing(b: Builder, node: Node) -> Value | None:
    """A fold over no axes, or one that takes an element of each dimension of size 1."""
    x, axes = node.operands[0], integers(node, "axes")
    if not axes:
        return x
    if node.op not in ("sum", "prod") and all(x.shape[a] == 1 for a in axes):
        return b.reshape(x, node.types[0].shape)
    return None


def _cond(b: Builder, node: Node) -> Sequence[Value] | None:
    predicate = uniform(node.operands[0])
    if predicate is None:
        return None
    return inline(b, node.regions[0 if predicate else 1], node.operands[1:])


_RULES: Mapping[str, NodeRule] = MappingProxyType(
    {
        **MOVEMENT_RULES,
        "cast": _cast,
        "bitcast": _bitcast,
        **dict.fromkeys(("sum", "prod", "max", "min", "any", "all"), _fold_nothing),
    }
)
