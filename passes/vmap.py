"""Batching: the function of one example becomes the function of many, by a walk that emits ordinary nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from passes.base import inline, integer
from tgc.errors import UnsupportedError
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph, Node, Value, parameter, topological
from tgc.ir.types import TensorType
from tgc.location import Location, Site

# (builder, node, operands, whether each has a leading batch dimension, batch size) -> results, with whether each has
_ControlRule: TypeAlias = Callable[
    [Builder, Node, Sequence[Value], Sequence[bool], Dim], tuple[Sequence[Value], Sequence[bool]]
]


def batch(
    builder: Builder, outputs: Sequence[Value], inputs: Sequence[Value], batched: Sequence[Value], size: Dim
) -> tuple[Value, ...]:
    """``outputs`` computed for ``size`` examples at once: all of them get a leading dimension of ``size``.

    ``batched[i]``, which has such a dimension too, takes the place of ``inputs[i]``; what does not depend on inputs is
    computed once. As in :func:`passes.autodiff.vjp`, inputs must be fresh parameters where the function could compute
    the same values again. Raises :class:`UnsupportedError` for an op without a batching rule.
    """
    values, flags = _walk(builder, outputs, dict(zip(inputs, batched, strict=True)), size)
    return tuple(repeated(builder, v, has, size) for v, has in zip(values, flags, strict=True))


def repeated(builder: Builder, x: Value, has: bool, size: Dim) -> Value:
    """``x`` with a leading batch dimension: itself if it ``has`` one."""
    return x if has else builder.broadcast(x, (size, *x.shape), tuple(range(1, len(x.shape) + 1)))


def _walk(
    builder: Builder, outputs: Sequence[Value], known: dict[Value, Value], size: Dim
) -> tuple[list[Value], list[bool]]:
    """The outputs, and whether each has a batch dimension; ``known`` holds values that have one, and is added to."""
    wide = set(known)
    place = builder.place
    for node in topological(outputs):
        if not any(v in known for v in node.operands):
            continue
        builder.place = builder.locations.get(node, place)
        operands = [known.get(v, v) for v in node.operands]
        results, has = _node(builder, node, operands, [v in wide for v in node.operands], size)
        for old, new, batched in zip(node.results, results, has, strict=True):
            if old not in known:
                known[old] = new
                wide.update((old,) if batched else ())
    builder.place = place
    return [known.get(v, v) for v in outputs], [v in wide for v in outputs]


def _node(
    builder: Builder, node: Node, operands: Sequence[Value], flags: Sequence[bool], size: Dim
) -> tuple[Sequence[Value], Sequence[bool]]:
    definition = builder.table[node.op]
    every = (True,) * len(node.types)
    if not any(flags):
        plain = builder.results(node.op, *operands, attributes=node.attributes, regions=node.regions)
        return plain, (False,) * len(plain)
    control = _CONTROL.get(node.op)
    if control is not None:
        return control(builder, node, operands, flags, size)
    if definition.batch is not None:
        return definition.batch(builder, operands, flags, node.attributes, size), every
    if definition.body is None:
        place = next(iter(builder.locations.get(node, ())), None)
        location: Location | None = place.resolve() if isinstance(place, Site) else place
        raise UnsupportedError(f"{node.op} cannot be batched", location=location)
    parameters = tuple(parameter(i, v.type) for i, v in enumerate(node.operands))
    body = Graph(parameters, tuple(definition.body(builder, parameters, node.attributes)))
    graph, has = _graph(builder, body, flags, size, every)
    return inline(builder, graph, operands), has


def _graph(
    builder: Builder, graph: Graph, flags: Sequence[bool], size: Dim, wanted: Sequence[bool]
) -> tuple[Graph, list[bool]]:
    """The graph with a batch dimension in front of some parameters, and which results have one, the wanted included."""
    parameters = tuple(
        parameter(i, _wider(v.type, size)) if has else v
        for i, (v, has) in enumerate(zip(graph.parameters, flags, strict=True))
    )
    known = {old: new for old, new, has in zip(graph.parameters, parameters, flags, strict=True) if has}
    values, has_batch = _walk(builder, graph.results, known, size)
    results = tuple(
        repeated(builder, v, has, size) if want else v for v, has, want in zip(values, has_batch, wanted, strict=True)
    )
    return Graph(parameters, results, graph.names), [h or w for h, w in zip(has_batch, wanted, strict=True)]


def _wider(type: TensorType, size: Dim) -> TensorType:
    return TensorType(type.dtype, (size, *type.shape))


def _fusion(
    builder: Builder, node: Node, operands: Sequence[Value], flags: Sequence[bool], size: Dim
) -> tuple[Sequence[Value], Sequence[bool]]:
    graph, has = _graph(builder, node.regions[0], flags, size, (False,) * len(node.types))
    return inline(builder, graph, operands), has


def _checkpoint(
    builder: Builder, node: Node, operands: Sequence[Value], flags: Sequence[bool], size: Dim
) -> tuple[Sequence[Value], Sequence[bool]]:
    graph, has = _graph(builder, node.regions[0], flags, size, (False,) * len(node.types))
    return builder.results("checkpoint", *operands, regions=(graph,)), has


def _cond(
    builder: Builder, node: Node, operands: Sequence[Value], flags: Sequence[bool], size: Dim
) -> tuple[Sequence[Value], Sequence[bool]]:
    """Examples that agree on the predicate take one branch; if they may differ, both are computed."""
    every = (True,) * len(node.types)
    then, otherwise = (_graph(builder, region, flags[1:], size, every)[0] for region in node.regions)
    if not flags[0]:
        return builder.results("cond", *operands, regions=(then, otherwise)), every
    return [
        _choose(builder, operands[0], a, b)
        for a, b in zip(inline(builder, then, operands[1:]), inline(builder, otherwise, operands[1:]), strict=True)
    ], every


def _choose(builder: Builder, predicate: Value, a: Value, b: Value) -> Value:
    return builder.select(builder.broadcast(predicate, a.shape, (0,)), a, b)


def _while(
    builder: Builder, node: Node, operands: Sequence[Value], flags: Sequence[bool], size: Dim
) -> tuple[Sequence[Value], Sequence[bool]]:
    """Runs until all examples are done; those that are done before keep their values."""
    count = integer(node, "carries")
    condition, body = node.regions
    live = list(flags)
    while True:
        _, asks = _graph(builder, condition, live, size, (False,))
        _, has = _graph(builder, body, live, size, (False,) * count)
        grown = [a or b or asks[0] for a, b in zip(live, has, strict=False)] + live[count:]
        if grown == live:
            break
        live = grown
    stop, (differ,) = _graph(builder, condition, live, size, (False,))
    step, _ = _graph(builder, body, live, size, live[:count])
    carries = [repeated(builder, v, f, size) if w else v for v, f, w in zip(operands, flags, live, strict=False)]
    results = step.results
    if differ:
        (goes_on,) = inline(builder, stop, step.parameters)
        results = tuple(_choose(builder, goes_on, new, old) for new, old in zip(results, step.parameters, strict=False))
        stop = Graph(stop.parameters, (builder.op("any", goes_on, attributes={"axes": (0,)}),), stop.names)
    loop = builder.results(
        "while_loop",
        *(*carries[:count], *operands[count:]),
        attributes=node.attributes,
        regions=(stop, Graph(step.parameters, results, step.names)),
    )
    return loop, live[:count]


def _scan(
    builder: Builder, node: Node, operands: Sequence[Value], flags: Sequence[bool], size: Dim
) -> tuple[Sequence[Value], Sequence[bool]]:
    """The batch dimension of sequences and stacked outputs stands behind that of time inside of the loop."""
    count, sequences = integer(node, "carries"), integer(node, "sequences")
    region = node.regions[0]
    outputs = len(region.results) - count
    live = list(flags)
    while True:
        _, has = _graph(builder, region, [False, *live], size, (False,) * len(region.results))
        grown = [a or b for a, b in zip(live, has[:count], strict=False)] + live[count:]
        if grown == live:
            break
        live = grown
    step, has = _graph(builder, region, [False, *live], size, [*live[:count], *(False,) * outputs])
    given = [repeated(builder, v, f, size) if w else v for v, f, w in zip(operands, flags, live, strict=True)]
    for i in range(count, count + sequences):
        if live[i]:
            given[i] = _swapped(builder, given[i])
    results = builder.results("scan", *given, attributes=node.attributes, regions=(step,))
    stacked = [_swapped(builder, v) if h else v for v, h in zip(results[count:], has[count:], strict=True)]
    return [*results[:count], *stacked], has


def _swapped(builder: Builder, x: Value) -> Value:
    return builder.transpose(x, (1, 0, *range(2, len(x.shape))))


_CONTROL: Mapping[str, _ControlRule] = MappingProxyType(
    {"cond": _cond, "while_loop": _while, "scan": _scan, "fusion": _fusion, "checkpoint": _checkpoint}
)
