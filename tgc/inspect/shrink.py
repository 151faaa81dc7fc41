"""Making a module that fails small: a greedy search over its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from passes.base import all_nodes, substitute
from tgc.ir.builder import Builder
from tgc.ir.dims import Expr, symbols
from tgc.ir.graph import Attribute, Function, Graph, Module, Node, State, Value, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS

_KEPT = frozenset({"parameter", "constant", "iota", "dimension"})


def shrunk(module: Module, fails: Callable[[Module], bool], *, seconds: float = 20.0) -> Module:
    """A smaller module of one function that still fails, as small as can be found in that time.

    Results and assignments are dropped, values are replaced by fresh parameters or by operands of theirs, regions take
    the place of the function, and state loses its values.

    >>> from tgc.ir.parser import parse_module
    >>> from tgc.ir.printer import print_module
    >>> text = "module @m { func @f(%x: f32[2]) -> (f32[2]) { %0 = neg(%x) %1 = exp(%0) %2 = neg(%1) return %2 } }"
    >>> def has_exp(m):
    ...     return any(node.op == "exp" for node in m.functions[0].nodes())
    >>> print(print_module(shrunk(parse_module(text, OPS), has_exp)))
    module @m {
      func @f(%arg0: f32[2]) -> (f32[2]) {
        %0 = exp(%arg0) : f32[2]
        return %0
      }
    }
    <BLANKLINE>
    """
    end = time.monotonic() + seconds
    best = module
    going = True
    while going:
        going = False
        for candidate in map(_pruned, _smaller(best)):
            if time.monotonic() > end:
                return best
            if _size(candidate) < _size(best) and fails(candidate):
                best, going = candidate, True
                break
    return best


def only(module: Module, name: str) -> Module:
    """The module with one of its functions."""
    return _pruned(replace(module, functions=(module.function(name),)))


def _size(module: Module) -> int:
    (function,) = module.functions
    nodes = sum(1 if n.op == "parameter" else 2 for n in all_nodes(function.outputs))
    return nodes + len(function.outputs) + sum(s.initial is not None for s in module.state.values())


def _pruned(module: Module) -> Module:
    """Without parameters, state and constants that nothing uses."""
    (function,) = module.functions
    nodes = function.nodes()
    used = {v.node for n in nodes for v in n.operands} | {v.node for v in function.outputs}
    # sizes that are left must be told by something
    unsaid = frozenset[str]().union(*(_mentioned(n) for n in all_nodes(function.outputs) if n.op != "parameter"))
    unsaid -= frozenset[str]().union(*(_symbols(v.type) for v in function.parameters if v.node in used))
    kept = []
    for i, value in enumerate(function.parameters):
        if value.node in used or _symbols(value.type) & unsaid:
            kept.append(i)
            unsaid -= _symbols(value.type)
    if len(kept) < len(function.parameters):
        old = [function.parameters[i] for i in kept]
        fresh = tuple(parameter(i, v.type) for i, v in enumerate(old))
        # all at once: a fresh parameter may be one of the old ones
        outputs = substitute(Builder(OPS, module.locations), function.outputs, dict(zip(old, fresh, strict=True)))
        names = function.graph.names
        named = tuple(names[i] for i in kept) if len(names) == len(function.parameters) else ()
        function = replace(function, graph=Graph(fresh, function.graph.results, named)).with_outputs(tuple(outputs))
    sizes = [v.type for v in function.parameters] + [n.types[0] for n in nodes if n.op == "state"]
    known = frozenset[str]().union(*map(_symbols, sizes))
    constraints = tuple(c for c in function.constraints if symbols(c.left) | symbols(c.right) <= known)
    function = replace(function, constraints=constraints)
    read = {str(n.attributes["name"]) for n in nodes if n.op == "state"} | {name for name, _ in function.assigns}
    fixed = {str(n.attributes["name"]) for n in nodes if n.op == "literal"}
    return replace(
        module,
        functions=(function,),
        state={name: s for name, s in module.state.items() if name in read},
        constants={name: c for name, c in module.constants.items() if name in fixed},
    )


def _symbols(type_: TensorType) -> frozenset[str]:
    return frozenset[str]().union(*map(symbols, type_.shape))


def _mentioned(node: Node) -> frozenset[str]:
    """The symbols in a node's types and attributes."""
    pending: list[Attribute] = [*node.types, *node.attributes.values()]
    found = frozenset[str]()
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            pending += value
        elif isinstance(value, TensorType):
            found |= _symbols(value)
        elif isinstance(value, Expr):
            found |= symbols(value)
    return found


def _smaller(module: Module) -> Iterator[Module]:
    (function,) = module.functions
    if len(function.outputs) > 1:
        yield from (_with(module, function, (value,)) for value in function.results)
        for i in range(len(function.assigns)):
            rest = function.assigns[:i] + function.assigns[i + 1 :]
            yield replace(module, functions=(replace(function, assigns=rest),))
        for name, value in function.assigns:
            if not function.results:
                yield _with(module, function, (value,))
            yield replace(module, functions=(replace(function, assigns=((name, value),)),))
    nodes = [n for n in function.nodes() if n.op not in _KEPT]
    for region in (region for node in nodes for region in node.regions):
        inner = replace(function, graph=region, assigns=(), result_names=())
        yield replace(module, functions=(inner,))
    # the beginning alone, in large steps first
    step = 1 + len(nodes) // 4
    yield from (_with(module, function, node.results) for node in (*nodes[step::step], *nodes[:-1]))
    for node in reversed(nodes):
        yield _cut(module, function, node.results)
        for operand in node.operands:
            if len(node.results) == 1 and operand.type == node.types[0]:
                yield _substituted(module, function, {node.results[0]: operand})
    for name, state in module.state.items():
        if state.initial is not None:
            yield replace(module, state={**module.state, name: State(state.type)})


def _with(module: Module, function: Function, results: Sequence[Value]) -> Module:
    graph = Graph(function.parameters, tuple(results), function.graph.names)
    return replace(module, functions=(replace(function, graph=graph, assigns=(), result_names=()),))


def _substituted(module: Module, function: Function, replacements: dict[Value, Value]) -> Module:
    builder = Builder(OPS, module.locations)
    outputs = substitute(builder, function.outputs, replacements)
    return replace(module, functions=(function.with_outputs(tuple(outputs)),), locations=builder.locations)


def _cut(module: Module, function: Function, values: Sequence[Value]) -> Module:
    """With parameters in place of the values."""
    count = len(function.parameters)
    fresh = tuple(parameter(count + i, v.type) for i, v in enumerate(values))
    graph = Graph((*function.parameters, *fresh), function.results)
    return _substituted(module, replace(function, graph=graph), dict(zip(values, fresh, strict=True)))
