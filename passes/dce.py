"""Dead code that a DAG can still hold: results, carries, slices and captures of regions that nobody uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from passes.base import Pass, PassContext, all_nodes, integer, substitute, with_functions
from tgc.ir.builder import Builder
from tgc.ir.graph import Attribute, Graph, Module, Node, Value, parameter, topological


@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes what no output needs.

    Nodes that nothing needs are not part of a graph to begin with. What is left: unused results of control flow with
    what computes them, carries that only feed themselves, operands and parameters of regions that they do not use, and
    module constants. Parameters of functions stay: they are its interface.
    """

    name = "dce"

    def run(self, module: Module, context: PassContext) -> Module:
        builder = context.builder(module)
        functions = tuple(f.with_outputs(prune(builder, f.outputs)) for f in module.functions)
        pruned = with_functions(module, functions, builder)
        used = {
            node.attributes["name"]
            for node in all_nodes(v for f in pruned.functions for v in f.outputs)
            if node.op == "literal"
        }
        if used >= pruned.constants.keys():
            return pruned
        return replace(pruned, constants={name: c for name, c in pruned.constants.items() if name in used})


@dataclass(frozen=True)
class _Kept:
    """What remains of a node with regions: indices of its operands and results, its regions and changed attributes."""

    operands: tuple[int, ...]
    results: tuple[int, ...]
    regions: tuple[Graph, ...]
    attributes: dict[str, Attribute]


# (builder, node, which results are used) -> what remains
_Rule: TypeAlias = "Callable[[Builder, Node, frozenset[int]], _Kept]"


def prune(builder: Builder, results: Sequence[Value]) -> tuple[Value, ...]:
    """``results`` computed without dead parts of control flow, at any depth."""
    order = topological(results)
    if not any(node.regions for node in order):
        return tuple(results)
    used = set(results)
    kept: dict[Node, _Kept] = {}
    for node in reversed(order):
        wanted = frozenset(i for i, v in enumerate(node.results) if v in used)
        if not wanted:
            continue
        rule = _RULES.get(node.op) if node.regions else None
        if rule is None:
            used.update(node.operands)
            continue
        kept[node] = what = rule(builder, node, wanted)
        used.update(node.operands[i] for i in what.operands)
    replacements: dict[Value, Value] = {}
    place = builder.place
    for node in order:
        what_remains = kept.get(node)
        if what_remains is None or _is_all(node, what_remains):
            continue
        builder.place = builder.locations.get(node)
        operands = substitute(builder, [node.operands[i] for i in what_remains.operands], replacements)
        attributes = {**node.attributes, **what_remains.attributes}
        new = builder.node(node.op, operands, attributes, what_remains.regions)
        for index, value in zip(what_remains.results, new.results, strict=True):
            replacements[Value(node, index)] = value
    builder.place = place
    return substitute(builder, results, replacements)


def _is_all(node: Node, kept: _Kept) -> bool:
    return (
        len(kept.operands) == len(node.operands)
        and len(kept.results) == len(node.types)
        and all(new is old for new, old in zip(kept.regions, node.regions, strict=True))
    )


def _pruned(builder: Builder, region: Graph, wanted: Sequence[int]) -> tuple[tuple[Value, ...], frozenset[int]]:
    """The wanted results of a region, pruned, and which parameters they use."""
    results = prune(builder, [region.results[i] for i in wanted])
    reached = frozenset(topological(results))
    return results, frozenset(i for i, p in enumerate(region.parameters) if p.node in reached)


def _closed(builder: Builder, region: Graph, results: Sequence[Value], parameters: Sequence[int]) -> Graph:
    """The region with these results and only these of its parameters, numbered anew."""
    if len(parameters) == len(region.parameters) and tuple(results) == region.results:
        return region
    old = [region.parameters[i] for i in parameters]
    new = tuple(parameter(i, v.type) for i, v in enumerate(old))
    names = tuple(region.names[i] for i in parameters) if region.names else ()
    return Graph(new, substitute(builder, results, dict(zip(old, new, strict=True))), names)


def _cond(builder: Builder, node: Node, wanted: frozenset[int]) -> _Kept:
    return _straight(builder, node, wanted, first=1)


def _fusion(builder: Builder, node: Node, wanted: frozenset[int]) -> _Kept:
    return _straight(builder, node, wanted, first=0)


def _straight(builder: Builder, node: Node, wanted: frozenset[int], *, first: int) -> _Kept:
    """Regions that run at most once: their parameters are the operands from ``first`` on."""
    results = tuple(sorted(wanted))
    pruned = [_pruned(builder, region, results) for region in node.regions]
    parameters = sorted(frozenset[int]().union(*(used for _, used in pruned)))
    regions = tuple(
        _closed(builder, region, values, parameters) for region, (values, _) in zip(node.regions, pruned, strict=True)
    )
    return _Kept((*range(first), *(first + i for i in parameters)), results, regions, {})


def _while(builder: Builder, node: Node, wanted: frozenset[int]) -> _Kept:
    count = integer(node, "carries")
    condition, body = node.regions
    stop, needed = _pruned(builder, condition, (0,))
    live = wanted
    while True:
        carries = sorted(live | {i for i in needed if i < count})
        results, used = _pruned(builder, body, carries)
        grown = frozenset(carries) | {i for i in used if i < count}
        if grown == live:
            break
        live = grown
    parameters = (*carries, *(i for i in range(count, len(node.operands)) if i in used or i in needed))
    regions = (_closed(builder, condition, stop, parameters), _closed(builder, body, results, parameters))
    return _Kept(parameters, tuple(carries), regions, {"carries": len(carries)})


def _scan(builder: Builder, node: Node, wanted: frozenset[int]) -> _Kept:
    """Carries are needed for their final value, or for what other needed results are computed from."""
    count, sequences = integer(node, "carries"), integer(node, "sequences")
    region = node.regions[0]
    live = wanted
    while True:
        kept = sorted(live)
        results, used = _pruned(builder, region, kept)
        grown = live | {i - 1 for i in used if 1 <= i <= count}
        if grown == live:
            break
        live = grown
    carries = [i for i in kept if i < count]
    others = [i - 1 for i in sorted(used) if i > count]
    operands = (*carries, *others)
    attributes: dict[str, Attribute] = {
        "carries": len(carries),
        "sequences": sum(i < count + sequences for i in others),
    }
    parameters = (0, *(i + 1 for i in operands))
    return _Kept(operands, tuple(kept), (_closed(builder, region, results, parameters),), attributes)


_RULES: Mapping[str, _Rule] = MappingProxyType(
    {"cond": _cond, "fusion": _fusion, "checkpoint": _fusion, "while_loop": _while, "scan": _scan}
)
