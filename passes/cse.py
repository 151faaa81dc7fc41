"""Common subexpressions that hash-consing leaves: swapped operands, equal literals, loops with other outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from passes.base import Pass, PassContext, each_graph, integer, rewrite, substitute, with_functions
from tgc.ir.builder import Builder
from tgc.ir.graph import Constant, Graph, Module, Node, Value, attribute_key, literal, topological


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merges what computes the same.

    Nodes of commutative ops with swapped operands; module constants of equal type and bytes; and scans over the same
    operands with the same carries, which become one that hands out the outputs of all (reverse-mode differentiation
    makes such pairs).
    """

    name = "cse"

    def run(self, module: Module, context: PassContext) -> Module:
        module = _merge_constants(module, context)
        while True:
            merged = _merge_scans(_merge_swapped(module, context), context)
            if merged is module:
                return module
            module = merged


def _merge_constants(module: Module, context: PassContext) -> Module:
    first: dict[Constant, str] = {}
    renamed: dict[str, str] = {}
    for name, constant in module.constants.items():
        renamed[name] = first.setdefault(constant, name)
    if all(new == old for old, new in renamed.items()):
        return module

    def rule(builder: Builder, node: Node) -> Value | None:
        name = node.attributes.get("name")
        if node.op != "literal" or not isinstance(name, str) or renamed.get(name, name) == name:
            return None
        return literal(renamed[name], node.types[0])

    kept = {name: constant for name, constant in module.constants.items() if renamed[name] == name}
    return replace(rewrite(module, rule, context), constants=kept)


def _merge_swapped(module: Module, context: PassContext) -> Module:
    seen: dict[object, Node] = {}

    def rule(builder: Builder, node: Node) -> tuple[Value, ...] | None:
        if len(node.operands) != 2 or not builder.table[node.op].commutative:
            return None
        attributes = tuple((name, attribute_key(value)) for name, value in node.attributes.items())
        first = seen.setdefault((node.op, frozenset(node.operands), attributes), node)
        return None if first is node else first.results

    return rewrite(module, rule, context)


def _merge_scans(module: Module, context: PassContext) -> Module:
    builder = context.builder(module)

    def transform(results: tuple[Value, ...]) -> Sequence[Value]:
        return _with_merged_scans(builder, results)

    functions = tuple(f.with_outputs(each_graph(builder, f.outputs, transform)) for f in module.functions)
    return with_functions(module, functions, builder)


def _with_merged_scans(builder: Builder, results: tuple[Value, ...]) -> tuple[Value, ...]:
    while True:
        groups: dict[object, list[Node]] = {}
        for node in topological(results):
            if node.op == "scan":
                groups.setdefault(_scan_key(node), []).append(node)
        replacements: dict[Value, Value] = {}
        for group in groups.values():
            if len(group) > 1 or _repeats(group[0]):
                replacements.update(_merged(builder, group))
        if not replacements:
            return results
        results = substitute(builder, results, replacements)


def _repeats(node: Node) -> bool:
    """Whether a scan hands out the same thing twice."""
    outputs = node.regions[0].results[integer(node, "carries") :]
    return len(frozenset(outputs)) < len(outputs)


def _scan_key(node: Node) -> object:
    count = integer(node, "carries")
    attributes = tuple((name, attribute_key(value)) for name, value in node.attributes.items())
    region = node.regions[0]
    return node.operands, attributes, region.parameters, region.results[:count]


def _merged(builder: Builder, group: Sequence[Node]) -> dict[Value, Value]:
    """Each result of the scans in the group, and the result of one scan that takes its place."""
    first = group[0]
    region = first.regions[0]
    count = integer(first, "carries")
    results = list(dict.fromkeys(v for node in group for v in node.regions[0].results[count:]))
    carried = region.results[:count]
    graph = Graph(region.parameters, (*carried, *results), region.names)
    builder.place = tuple(dict.fromkeys(p for node in group for p in builder.locations.get(node, ()))) or None
    merged = builder.node("scan", first.operands, first.attributes, (graph,))
    builder.place = None
    places = {v: len(carried) + i for i, v in enumerate(results)}
    replacements = {}
    for node in group:
        for i, value in enumerate(node.regions[0].results):
            place = i if i < len(carried) else places[value]
            if node is not merged:
                replacements[Value(node, i)] = Value(merged, place)
    return replacements
