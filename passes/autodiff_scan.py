"""Derivatives of scan.

Reverse mode runs the loop backwards over what the forward loop stacked. Where the gradient of a capture is a sum of
contractions or reductions (weights and biases), their operands are stacked and one operation after the loop sums
over time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from passes.base import integer, substitute
from tgc.ir.builder import Builder
from tgc.ir.graph import Graph, Node, Value, parameter, topological
from tgc.ir.kinds import OpKind

Derivatives: TypeAlias = "Sequence[Value | None]"
# vjp or jvp: (builder, outputs, inputs, cotangents of outputs or tangents of inputs)
Walk: TypeAlias = Callable[[Builder, Sequence[Value], Sequence[Value], Derivatives], "tuple[Value | None, ...]"]
ControlRule: TypeAlias = Callable[[Builder, Node, Derivatives, Walk], Derivatives]


def given(derivatives: Derivatives) -> list[Value]:
    """Those that are not None."""
    return [d for d in derivatives if d is not None]


def numbered(start: int, like: Sequence[Value], given: Sequence[bool]) -> list[Value | None]:
    """New parameters, numbered from ``start`` without gaps, for those of ``like`` that are given."""
    names: list[Value | None] = []
    for value, wanted in zip(like, given, strict=True):
        names.append(parameter(start, value.type) if wanted else None)
        start += wanted
    return names


def or_zeros(builder: Builder, derivative: Value | None, like: Value) -> Value:
    """The derivative of ``like``, zeros for None."""
    return builder.full_like(like, 0.0) if derivative is None else derivative


def spread(values: Sequence[Value], wanted: Sequence[bool]) -> list[Value | None]:
    """The values in the places that are wanted, None in the others."""
    found = iter(values)
    return [next(found) if w else None for w in wanted]


@dataclass(frozen=True)
class _Scan:
    """A scan taken apart: region parameters, operands and results by what they are for."""

    node: Node
    carries: int
    sequences: int

    @staticmethod
    def of(node: Node) -> _Scan:
        return _Scan(node, integer(node, "carries"), integer(node, "sequences"))

    @property
    def region(self) -> Graph:
        return self.node.regions[0]

    def split(self, values: Sequence[Value]) -> tuple[Sequence[Value], Sequence[Value], Sequence[Value]]:
        """Operands, or region parameters after the iteration, into carries, sequences and captures."""
        middle = self.carries + self.sequences
        return values[: self.carries], values[self.carries : middle], values[middle:]


def scan_jvp(builder: Builder, node: Node, tangents: Derivatives, jvp: Walk) -> Derivatives:
    """The scan with the tangents of carries, sequences and captures beside them."""
    scan = _Scan.of(node)
    region = scan.region
    inner = region.parameters[1:]
    n = scan.carries
    live = [t is not None for t in tangents]
    while True:
        names = numbered(len(region.parameters), inner, live)
        derivatives = jvp(builder, region.results, inner, names)
        grown = [had or d is not None for had, d in zip(live, derivatives[:n], strict=False)] + live[n:]
        if grown == live:
            break
        live = grown
    seeds = [or_zeros(builder, t, v) if w else None for t, v, w in zip(tangents, node.operands, live, strict=True)]
    order: list[Value] = [region.parameters[0]]
    operands: list[Value] = []
    for values, arguments, named, seeded in zip(
        scan.split(inner), scan.split(node.operands), parts(scan, names), parts(scan, seeds), strict=True
    ):
        order += [*values, *given(named)]
        operands += [*arguments, *given(seeded)]
    parameters = tuple(parameter(i, v.type) for i, v in enumerate(order))
    wanted = [*live[:n], *(d is not None for d in derivatives[n:])]
    filled = [
        or_zeros(builder, d, v) if w else None for d, v, w in zip(derivatives, region.results, wanted, strict=True)
    ]
    results = substitute(
        builder,
        [*region.results[:n], *given(filled[:n]), *region.results[n:], *given(filled[n:])],
        dict(zip(order, parameters, strict=True)),
    )
    carried = n + sum(live[:n])
    loops = builder.results(
        "scan",
        *operands,
        attributes={
            **node.attributes,
            "carries": carried,
            "sequences": scan.sequences + sum(live[n : n + scan.sequences]),
        },
        regions=(Graph(parameters, results),),
    )
    outputs = len(region.results) - n
    return [*spread(loops[n:carried], wanted[:n]), *spread(loops[carried + outputs :], wanted[n:])]


def parts(scan: _Scan, values: Derivatives) -> tuple[Derivatives, Derivatives, Derivatives]:
    """Derivatives of carries, of sequences and of captures."""
    middle = scan.carries + scan.sequences
    return values[: scan.carries], values[scan.carries : middle], values[middle:]


def scan_vjp(builder: Builder, node: Node, cotangents: Derivatives, vjp: Walk) -> Derivatives:
    """The scan backwards: cotangents of the carries are carried, those of the slices are stacked."""
    scan = _Scan.of(node)
    region = scan.region
    n = scan.carries
    live = [c is not None for c in cotangents]
    while True:
        names = numbered(len(region.parameters), region.results, live)
        gradients = vjp(builder, region.results, region.parameters[1:], names)
        grown = [had or g is not None for had, g in zip(live, gradients[:n], strict=False)] + live[n:]
        if grown == live:
            break
        live = grown
    of_carries, of_slices, of_captures = parts(scan, gradients)
    varying = (*region.parameters[: 1 + n + scan.sequences], *given(names))
    saved = _Saved(builder, scan, frozenset(region.nodes()), _depending(varying, (*region.results, *given(gradients))))

    pushed: list[list[Value]] = []
    kept: list[Value | None] = []
    for gradient in of_captures:
        terms = [] if gradient is None else _terms(gradient)
        pushed.append([t for t in terms if saved.sums_after(t)])
        inside = [t for t in terms if not saved.sums_after(t)]
        kept.append(functools.reduce(lambda a, b: builder.op("add", a, b), inside) if inside else None)
    captures = region.parameters[1 + n + scan.sequences :]
    totals = numbered(len(region.parameters) + len(given(names)), captures, [k is not None for k in kept])
    leaves = list(dict.fromkeys(leaf for terms in pushed for term in terms for leaf in _leaves(term)))
    handed_out = [leaf for leaf in leaves if saved.is_backward(leaf)]
    body = [or_zeros(builder, g, v) for g, v, w in zip(of_carries, region.results, live, strict=False) if w]
    body += [builder.op("add", a, b) for a, b in zip(given(totals), given(kept), strict=True)]
    body += [*given(of_slices), *handed_out]
    saved.collect(body)
    saved.keep(leaf for leaf in leaves if leaf not in handed_out)

    stacks = saved.stacks()
    names_of_outputs = given(names[n:])
    order = [region.parameters[0], *given(names[:n]), *given(totals)]
    order += [*names_of_outputs, *stacks, *captures]
    operands = [or_zeros(builder, c, v) for c, v, w in zip(cotangents[:n], node.results, live, strict=False) if w]
    operands += [builder.full_like(v, 0.0) for v, t in zip(scan.split(node.operands)[2], totals, strict=True) if t]
    carried = len(operands)
    operands += [*given(cotangents[n:]), *stacks.values(), *scan.split(node.operands)[2]]
    parameters = tuple(parameter(i, v.type) for i, v in enumerate(order))
    backward = builder.results(
        "scan",
        *operands,
        attributes={
            **node.attributes,
            "carries": carried,
            "sequences": len(names_of_outputs) + len(stacks),
            "reverse": not node.attributes["reverse"],
        },
        regions=(Graph(parameters, substitute(builder, body, dict(zip(order, parameters, strict=True)))),),
    )
    outputs = len(backward) - len(handed_out)
    stacks.update(zip(handed_out, backward[outputs:], strict=True))
    initial = spread(backward, live[:n])
    sums = spread(backward[len(given(initial)) :], [t is not None for t in totals])
    found = [
        _total(builder, [*(saved.sum_over_time(t, stacks) for t in terms), *given([total])])
        for terms, total in zip(pushed, sums, strict=True)
    ]
    return [*initial, *spread(backward[carried:], [g is not None for g in of_slices]), *found]


def _total(builder: Builder, terms: Sequence[Value]) -> Value | None:
    return functools.reduce(lambda a, b: builder.op("add", a, b), terms) if terms else None


def _depending(varying: Sequence[Value], results: Sequence[Value]) -> frozenset[Node]:
    """The nodes that depend on ``varying``: not the same in every iteration."""
    found = {v.node for v in varying}
    for node in topological(results):
        if any(v.node in found for v in node.operands):
            found.add(node)
    return frozenset(found)


def _terms(value: Value) -> list[Value]:
    """The terms of a sum, first one first."""
    terms: list[Value] = []
    stack = [value]
    while stack:
        value = stack.pop()
        if value.node.op == "add":
            stack.extend(reversed(value.node.operands))
        else:
            terms.append(value)
    return terms


_PUSHED_THROUGH = frozenset({"transpose", "reshape", "neg"})


def _leaves(value: Value) -> tuple[Value, ...]:
    """The operands of the contraction or sum that ``value`` is, under linear movements; none if it is neither."""
    while value.node.op in _PUSHED_THROUGH:
        value = value.node.operands[0]
    return value.node.operands if value.node.op in ("contract", "sum") else ()


@dataclass(frozen=True)
class _Saved:
    """What the backward loop needs of the forward one.

    ``needed`` are forward values that the forward loop has to hand out. Slices, captures, the iteration, what depends
    on captures alone and mere movements of what is there anyway are not: they are had again for nothing.
    """

    builder: Builder
    scan: _Scan
    forward: frozenset[Node]
    varying: frozenset[Node]
    needed: dict[Value, None] = field(default_factory=dict)

    def is_backward(self, value: Value) -> bool:
        """Whether only the backward loop can stack it."""
        return value.node in self.varying and value.node not in self.forward

    def sums_after(self, value: Value) -> bool:
        """Whether the sum of ``value`` over time is one operation on stacks of its leaves."""
        leaves = _leaves(value)
        return any(leaf.node in self.varying for leaf in leaves)

    def collect(self, roots: Sequence[Value]) -> None:
        """Notes which forward values ``roots`` are computed from."""
        carries, _, _ = self.scan.split(self.scan.region.parameters[1:])
        seen: set[Node] = set()
        stack = list(reversed(roots))
        while stack:
            value = stack.pop()
            node = value.node
            if node in self.forward and node in self.varying:
                if value in carries or not self._is_free(node):
                    self.needed[value] = None
                    continue
            if node not in seen:
                seen.add(node)
                stack.extend(reversed(node.operands))

    def keep(self, values: Iterable[Value]) -> None:
        """Notes forward values of which the stacks themselves are needed."""
        slices = self.scan.split(self.scan.region.parameters[1:])[1]
        self.needed.update((v, None) for v in values if v.node in self.varying and v not in slices)

    def _is_free(self, node: Node) -> bool:
        return node.op == "parameter" or self.builder.table[node.op].kind is OpKind.MOVEMENT

    def stacks(self) -> dict[Value, Value]:
        """Each slice and each forward value that is needed, with the stack of it over all iterations."""
        node, region, n = self.scan.node, self.scan.region, self.scan.carries
        outputs = region.results[n:]
        extra = tuple(v for v in self.needed if v not in outputs)
        results = node.results
        if extra:
            graph = Graph(region.parameters, region.results + extra, region.names)
            results = self.builder.results("scan", *node.operands, attributes=node.attributes, regions=(graph,))
        places = {v: i for i, v in reversed(list(enumerate((*outputs, *extra), start=n)))}
        slices = self.scan.split(region.parameters[1:])[1]
        stacks = dict(zip(slices, self.scan.split(node.operands)[1], strict=True))
        return stacks | {v: results[places[v]] for v in self.needed}

    def sum_over_time(self, value: Value, stacks: Mapping[Value, Value]) -> Value:
        """The sum of ``value`` over all iterations, from the stacks of its leaves."""
        builder, node = self.builder, value.node
        if node.op in _PUSHED_THROUGH:
            inner = self.sum_over_time(node.operands[0], stacks)
            return builder.op(node.op, inner, attributes=node.attributes)
        found = [stacks.get(v) or self._outside(v) for v in node.operands]
        if node.op == "sum":
            axes = node.attributes["axes"]
            shifted = (a + 1 for a in axes if isinstance(a, int)) if isinstance(axes, tuple) else ()
            return builder.sum(found[0], (0, *shifted))
        spec = str(node.attributes["spec"])
        letter = next(c for c in "tsuvwxyzabcdefghijklmnopqr" if c not in spec)
        operands, result = spec.split("->")
        terms = [
            (letter if v in stacks else "") + term for term, v in zip(operands.split(","), node.operands, strict=True)
        ]
        return builder.contract(found[0], found[1], f"{','.join(terms)}->{result}")

    def _outside(self, value: Value) -> Value:
        """A value of the region that depends on captures alone, computed outside of it."""
        captures = self.scan.split(self.scan.region.parameters[1:])[2]
        arguments = self.scan.split(self.scan.node.operands)[2]
        return substitute(self.builder, [value], dict(zip(captures, arguments, strict=True)))[0]
