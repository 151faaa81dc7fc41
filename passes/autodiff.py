"""Differentiation: ``vjp`` (reverse mode) and ``jvp`` (forward mode) as walks that emit ordinary nodes.

Because what they emit are nodes like any other, they nest, and every later pass optimises the derivative together with
the function. The rules of single ops are in the op table; those of control flow in :mod:`passes.autodiff_control`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from passes.autodiff_control import CONTROL_JVP, CONTROL_VJP
from passes.base import substitute, uniform
from passes.movement import dims, integers
from tgc.errors import CompilerBug, UnsupportedError
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph, Node, Value, parameter, topological
from tgc.ir.opdef import OpDef
from tgc.location import Location, Site


def vjp(
    builder: Builder, outputs: Sequence[Value], inputs: Sequence[Value], cotangents: Sequence[Value | None]
) -> tuple[Value | None, ...]:
    """The cotangent of each of ``inputs``, given those of ``outputs``; None where nothing differentiable connects them.

    ``inputs`` may be any values that ``outputs`` depend on, and may depend on each other: each gets the whole
    derivative, through the others too. Cotangents have the type of their value; None stands for zeros, and integers
    have none. Where several meet they are summed in the order of the reversed topological walk, which the structure
    alone decides. Equal nodes are one node: to differentiate a function at arguments that its body could compute
    again, give it fresh parameters and :func:`passes.base.inline` the result.

    Raises :class:`UnsupportedError` for an op without a gradient.
    """
    order = topological(outputs)
    wanted = frozenset(inputs)
    active = _depending(order, wanted)
    terms: dict[Value, list[Value]] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None and output.dtype.is_float:
            terms.setdefault(output, []).append(_checked(builder, output, cotangent))
    place = builder.place
    for node in reversed(order):
        if node not in active:
            continue
        if not any(v in terms for v in node.results):
            continue
        builder.place = builder.locations.get(node, place)
        given = [_total(builder, terms.get(v)) for v in node.results]
        for operand, cotangent in zip(node.operands, _node_vjp(builder, node, given), strict=True):
            if cotangent is not None and operand.dtype.is_float and (operand in wanted or operand.node in active):
                terms.setdefault(operand, []).append(_checked(builder, operand, cotangent))
    builder.place = place
    return tuple(_total(builder, terms.get(v)) for v in inputs)


def jvp(
    builder: Builder, outputs: Sequence[Value], inputs: Sequence[Value], tangents: Sequence[Value | None]
) -> tuple[Value | None, ...]:
    """The tangent of each of ``outputs``, given those of ``inputs``; None stands for zeros.

    An input's tangent is the one given, whatever it depends on. Raises :class:`UnsupportedError` for an op without a
    derivative.
    """
    known: dict[Value, Value | None] = dict(zip(inputs, tangents, strict=True))
    place = builder.place
    for node in topological(outputs):
        operands = [known.get(v) for v in node.operands]
        if all(t is None for t in operands):
            continue
        builder.place = builder.locations.get(node, place)
        for result, tangent in zip(node.results, _node_jvp(builder, node, operands), strict=True):
            if tangent is not None and result.dtype.is_float:
                known.setdefault(result, _checked(builder, result, tangent))
    builder.place = place
    return tuple(known.get(v) for v in outputs)


def _depending(order: Sequence[Node], wanted: frozenset[Value]) -> set[Node]:
    """The nodes that depend on wanted values through floats."""
    active: set[Node] = set()
    for node in order:
        for operand in node.operands:
            if (operand in wanted or operand.node in active) and operand.dtype.is_float:
                active.add(node)
                break
    return active


def _total(builder: Builder, terms: list[Value] | None) -> Value | None:
    """The sum of the terms, which become one."""
    if terms is None:
        return None
    if len(terms) > 1:
        joined = joined_parts(builder, terms)
        terms[:] = [functools.reduce(lambda a, b: builder.op("add", a, b), joined)]
    return terms[0]


def joined_parts(builder: Builder, terms: Sequence[Value]) -> list[Value]:
    """The terms of a sum, where those that are zero outside of different parts of an axis are one concatenation.

    Such are the cotangents of the slices of a value: gates, heads, or queries, keys and values of one product.
    """
    parts: dict[int, dict[Dim, Value]] = {}
    rest: list[Value] = []
    for term in terms:
        axis = _padded_axis(term)
        if axis is None or parts.setdefault(axis, {}).setdefault(_low(term, axis), term) is not term:
            rest.append(term)
    for axis, found in parts.items():
        rest += [_concatenation(builder, axis, found)] if len(found) > 1 else []
        rest += found.values()
    return rest


def _padded_axis(term: Value) -> int | None:
    """The only axis along which a value has zeros around it."""
    node = term.node
    if node.op != "pad" or uniform(node.operands[1]) != 0 or any(integers(node, "interior")):
        return None
    amounts = zip(dims(node, "low"), dims(node, "high"), strict=True)
    axes = [i for i, (low, high) in enumerate(amounts) if low != 0 or high != 0]
    return axes[0] if len(axes) == 1 else None


def _low(term: Value, axis: int) -> Dim:
    return dims(term.node, "low")[axis]


def _concatenation(builder: Builder, axis: int, parts: dict[Dim, Value]) -> Value:
    """The parts, by where they begin, one after another with zeros between them. Those that overlap are left."""
    first = next(iter(parts.values()))
    size: Dim = first.shape[axis]
    position: Dim = 0
    pieces: list[Value] = []

    def zeros(length: Dim) -> None:
        shape = (*first.shape[:axis], length, *first.shape[axis + 1 :])
        pieces.append(builder.full(0.0, shape, first.dtype))

    while True:
        part = parts.pop(position, None)
        if part is not None:
            pieces.append(part.node.operands[0])
            position = position + pieces[-1].shape[axis]
            continue
        gaps = [low - position for low in parts]
        ahead = [gap for gap in gaps if isinstance(gap, int) and gap > 0]
        if not ahead:
            break
        zeros(min(ahead))
        position = position + min(ahead)
    if size != position:
        zeros(size - position)
    return builder.op("concatenate", *pieces, attributes={"axis": axis})


def _checked(builder: Builder, value: Value, derivative: Value) -> Value:
    if derivative.dtype is not value.dtype or len(derivative.shape) != len(value.shape):
        raise CompilerBug(f"a value of type {value.type} got a derivative of {derivative.type}", stage="autodiff")
    return derivative


def _unsupported(builder: Builder, node: Node) -> UnsupportedError:
    places = builder.locations.get(node, ())
    place = next(iter(places), None)
    location: Location | None = place.resolve() if isinstance(place, Site) else place
    return UnsupportedError(f"{node.op} has no derivative", location=location)


def _node_vjp(builder: Builder, node: Node, cotangents: Sequence[Value | None]) -> Sequence[Value | None]:
    definition = builder.table[node.op]
    if not definition.differentiable:
        return (None,) * len(node.operands)
    control = CONTROL_VJP.get(node.op)
    if control is not None:
        return control(builder, node, cotangents, vjp)
    if definition.vjp is not None:
        return definition.vjp(builder, node, cotangents)
    graph = _body(builder, definition, node)
    if graph is None:
        raise _unsupported(builder, node)
    operands = node.operands
    if node.op == "checkpoint":
        # what is computed from here on is not what the forward pass has computed, and so is not kept from there
        operands = tuple(builder.op("barrier", v) for v in operands)
    return graph_vjp(builder, graph, operands, cotangents)


def _node_jvp(builder: Builder, node: Node, tangents: Sequence[Value | None]) -> Sequence[Value | None]:
    definition = builder.table[node.op]
    if not definition.differentiable:
        return (None,) * len(node.types)
    control = CONTROL_JVP.get(node.op)
    if control is not None:
        return control(builder, node, tangents, jvp)
    if definition.jvp is not None:
        return definition.jvp(builder, node, tangents)
    graph = _body(builder, definition, node)
    if graph is not None:
        return graph_jvp(builder, graph, node.operands, tangents)
    if definition.vjp is not None:
        return _transposed_vjp(builder, node, tangents)
    raise _unsupported(builder, node)


def _body(builder: Builder, definition: OpDef, node: Node) -> Graph | None:
    """What a composite, a fusion region or a checkpoint computes, as a closed graph."""
    if node.op in ("fusion", "checkpoint"):
        return node.regions[0]
    if definition.body is None:
        return None
    parameters = tuple(parameter(i, v.type) for i, v in enumerate(node.operands))
    return Graph(parameters, tuple(definition.body(builder, parameters, node.attributes)))


def _placeholders(start: int, like: Sequence[Value], given: Sequence[Value | None]) -> list[Value | None]:
    """A parameter of the type of each value that has a derivative, numbered from ``start``."""
    return [
        None if g is None else parameter(start + i, v.type) for i, (v, g) in enumerate(zip(like, given, strict=True))
    ]


def _emit(
    builder: Builder, results: Sequence[Value | None], replacements: Mapping[Value, Value]
) -> tuple[Value | None, ...]:
    """:func:`substitute` where results may be absent."""
    found = iter(substitute(builder, [r for r in results if r is not None], replacements))
    return tuple(None if r is None else next(found) for r in results)


def _present(names: Sequence[Value | None], values: Sequence[Value | None]) -> dict[Value, Value]:
    return {n: v for n, v in zip(names, values, strict=True) if n is not None and v is not None}


def graph_vjp(
    builder: Builder, graph: Graph, arguments: Sequence[Value], cotangents: Sequence[Value | None]
) -> tuple[Value | None, ...]:
    """The cotangents of a closed graph's parameters at ``arguments``: safe whatever the arguments are computed from."""
    place, builder.place = builder.place, None
    names = _placeholders(len(graph.parameters), graph.results, cotangents)
    gradients = vjp(builder, graph.results, graph.parameters, names)
    builder.place = place
    return _emit(
        builder,
        gradients,
        {**dict(zip(graph.parameters, arguments, strict=True)), **_present(names, cotangents)},
    )


def graph_jvp(
    builder: Builder, graph: Graph, arguments: Sequence[Value], tangents: Sequence[Value | None]
) -> tuple[Value | None, ...]:
    """The tangents of a closed graph's results at ``arguments``."""
    place, builder.place = builder.place, None
    names = _placeholders(len(graph.parameters), graph.parameters, tangents)
    derivatives = jvp(builder, graph.results, graph.parameters, names)
    builder.place = place
    return _emit(
        builder,
        derivatives,
        {**dict(zip(graph.parameters, arguments, strict=True)), **_present(names, tangents)},
    )


def _transposed_vjp(builder: Builder, node: Node, tangents: Sequence[Value | None]) -> tuple[Value | None, ...]:
    """Forward mode from the reverse rule: v ↦ vjp(v) is linear, and its own vjp is the jvp.

    What remains of ``v`` is dead, for the derivative of a linear function does not depend on where it is taken.
    """
    rule = builder.table[node.op].vjp
    if rule is None:
        raise _unsupported(builder, node)
    place, builder.place = builder.place, None
    operands = tuple(parameter(i, v.type) for i, v in enumerate(node.operands))
    copy = builder.node(node.op, operands, node.attributes, node.regions)
    count = len(operands)
    names = _placeholders(count, operands, tangents)
    seeds = [parameter(2 * count + i, v.type) if v.dtype.is_float else None for i, v in enumerate(node.results)]
    gradients = rule(builder, copy, seeds)
    linear = [(g, name) for g, name in zip(gradients, names, strict=True) if g is not None and name is not None]
    inputs = [s for s in seeds if s is not None]
    found = iter(vjp(builder, [g for g, _ in linear], inputs, [name for _, name in linear]))
    builder.place = place
    zeros = {s: builder.full_like(v, 0.0) for s, v in zip(seeds, node.results, strict=True) if s is not None}
    return _emit(
        builder,
        [None if s is None else next(found) for s in seeds],
        {**dict(zip(operands, node.operands, strict=True)), **_present(names, tangents), **zeros},
    )
