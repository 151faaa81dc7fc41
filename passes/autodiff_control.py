"""Derivatives of control flow: cond and while_loop, and the table of all of it.

The rules receive the walks ``vjp`` and ``jvp`` of :mod:`passes.autodiff` as an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from passes.autodiff_scan import (
    ControlRule,
    Derivatives,
    Walk,
    given,
    numbered,
    or_zeros,
    scan_jvp,
    scan_vjp,
    spread,
)
from passes.base import integer, substitute
from tgc.errors import UnsupportedError
from tgc.ir.builder import Builder
from tgc.ir.graph import Graph, Node, Value, parameter


def _cond_vjp(builder: Builder, node: Node, cotangents: Derivatives, vjp: Walk) -> Derivatives:
    """A cond over the gradients of both regions, each of which computes again what it needs of the forward pass."""
    captures = node.operands[1:]
    names = numbered(len(captures), node.results, [c is not None for c in cotangents])
    gradients = [vjp(builder, region.results, region.parameters, names) for region in node.regions]
    wanted = [any(g is not None for g in of_capture) for of_capture in zip(*gradients, strict=True)]
    results = _cond_of(builder, node, gradients, wanted, names, cotangents, captures)
    return [None, *results]


def _cond_jvp(builder: Builder, node: Node, tangents: Derivatives, jvp: Walk) -> Derivatives:
    captures = node.operands[1:]
    tangents = tangents[1:]
    names = numbered(len(captures), captures, [t is not None for t in tangents])
    derivatives = [jvp(builder, region.results, region.parameters, names) for region in node.regions]
    wanted = [any(d is not None for d in of_result) for of_result in zip(*derivatives, strict=True)]
    return _cond_of(builder, node, derivatives, wanted, names, tangents, node.results)


def _cond_of(
    builder: Builder,
    node: Node,
    derivatives: Sequence[Derivatives],
    wanted: Sequence[bool],
    names: Derivatives,
    seeds: Derivatives,
    like: Sequence[Value],
) -> list[Value | None]:
    """The cond over the wanted ``derivatives``; ``names`` are the regions' parameters for ``seeds``."""
    if not any(wanted):
        return [None] * len(wanted)
    regions = tuple(
        Graph(
            (*region.parameters, *given(names)),
            tuple(or_zeros(builder, d, v) for d, v, w in zip(found, like, wanted, strict=True) if w),
        )
        for region, found in zip(node.regions, derivatives, strict=True)
    )
    results = builder.results("cond", *node.operands, *given(seeds), attributes=node.attributes, regions=regions)
    return spread(results, wanted)


def _while_vjp(builder: Builder, node: Node, cotangents: Derivatives, vjp: Walk) -> Derivatives:
    raise UnsupportedError(
        "while_loop has no reverse-mode derivative: how many iterations to remember is not known",
        hint="give max_steps=, which makes it a loop of at most that many steps, or use scan or forward mode (jvp)",
    )


def _while_jvp(builder: Builder, node: Node, tangents: Derivatives, jvp: Walk) -> Derivatives:
    """The loop with tangents as further carries; the condition does not see them."""
    count = integer(node, "carries")
    condition, body = node.regions
    total = len(node.operands)
    live = [t is not None for t in tangents]
    while True:
        names = numbered(total, node.operands, live)
        derivatives = jvp(builder, body.results, body.parameters, names)
        grown = [had or d is not None for had, d in zip(live, derivatives, strict=False)] + live[count:]
        if grown == live:
            break
        live = grown
    # tangents of carries go after the carries, those of captures after the captures
    carries, captures = body.parameters[:count], body.parameters[count:]
    order = [*carries, *given(names[:count]), *captures, *given(names[count:])]
    parameters = tuple(parameter(i, v.type) for i, v in enumerate(order))
    renamed = dict(zip(order, parameters, strict=True))
    next_tangents = [or_zeros(builder, d, v) for d, v, w in zip(derivatives, carries, live, strict=False) if w]
    results = substitute(builder, [*body.results, *next_tangents], renamed)
    stop = substitute(builder, condition.results, renamed)
    seeds = [or_zeros(builder, t, v) if w else None for t, v, w in zip(tangents, node.operands, live, strict=True)]
    loops = builder.results(
        "while_loop",
        *(*node.operands[:count], *given(seeds[:count])),
        *(*node.operands[count:], *given(seeds[count:])),
        attributes={**node.attributes, "carries": count + len(next_tangents)},
        regions=(Graph(parameters, stop), Graph(parameters, results)),
    )
    return spread(loops[count:], live[:count])


CONTROL_VJP: Mapping[str, ControlRule] = MappingProxyType(
    {"cond": _cond_vjp, "while_loop": _while_vjp, "scan": scan_vjp}
)
CONTROL_JVP: Mapping[str, ControlRule] = MappingProxyType(
    {"cond": _cond_jvp, "while_loop": _while_jvp, "scan": scan_jvp}
)
