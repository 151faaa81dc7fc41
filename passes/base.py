"""What a pass is, and the two walks that passes are made of: ``rewrite`` and ``substitute``.

A pass is a frozen dataclass whose fields are its options. It takes a module and gives a module: the same object when it
changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

from tgc.errors import CompilerBug
from tgc.ir.builder import Builder
from tgc.ir.dims import symbols
from tgc.ir.graph import Function, Graph, Module, Node, Place, Value, topological
from tgc.ir.opdef import OpTable
from tgc.ops import OPS
from tgc.target import Target

# What replaces the node's results, or None to leave it as it is.
Rule: TypeAlias = Callable[[Builder, Node], "Sequence[Value] | Value | None"]


# Told of a rule that was applied: the builder, the node, and what replaces the node's results.
Fired: TypeAlias = Callable[[Rule, Builder, Node, "tuple[Value, ...]"], None]


@dataclass(frozen=True)
class PassContext:
    """What a pass may know besides the module: the op table and, for passes that choose, the target.

    ``fired`` is told of every rule that :func:`rewrite` applies.
    """

    table: OpTable = field(default_factory=lambda: OPS)
    target: Target | None = None
    fired: Fired | None = None

    def builder(self, module: Module) -> Builder:
        """A builder that begins with the module's locations."""
        return Builder(self.table, module.locations)


@dataclass(frozen=True)
class Pass(ABC):
    """A transformation of modules. Subclasses are frozen dataclasses: their fields are options, with defaults.

    ``name`` is what pipelines call it. ``requires`` names the properties that a module must have before it, ``ensures``
    and ``breaks`` those it has and no longer has after it. ``exact``: the meaning is kept bit for bit.

    >>> class Nothing(Pass):
    ...     name = "nothing"
    ...
    ...     def run(self, module: Module, context: PassContext) -> Module:
    ...         return module
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()
    breaks: ClassVar[frozenset[str]] = frozenset()

    @property
    def exact(self) -> bool:
        """Whether every bit of every result stays what it was."""
        return True

    @abstractmethod
    def run(self, module: Module, context: PassContext) -> Module:
        """The module after the pass; ``module`` itself if nothing changed."""


def rewrite(module: Module, rule: Rule, context: PassContext, *, inside: Rule | None = None) -> Module:
    """The module with every node replaced by what ``rule`` makes of it, regions included, until nothing applies.

    ``rule(builder, node)`` sees each node after its operands were rewritten and gives the values that take the place
    of its results (one value will do for one result), or None. What it gives is rewritten in turn. It must depend on
    nothing but the node: nodes are shared between graphs. ``inside``: the rule for regions, if it is another one. New
    nodes have the location of the node they replace. Raises :class:`CompilerBug` when replacements lead in a circle.
    """
    builder = context.builder(module)
    fired = context.fired
    walk = Rewriter(builder, rule, None if inside is None else Rewriter(builder, inside, fired=fired), fired=fired)
    functions = tuple(f.with_outputs(walk(f.outputs)) for f in module.functions)
    return with_functions(module, functions, builder)


def with_functions(module: Module, functions: tuple[Function, ...], builder: Builder) -> Module:
    """The module with other functions and the locations of the nodes that are left; itself if no function differs.

    Constraints that ``builder`` collected are added to each function that changed.
    """
    functions = tuple(
        new if new is old or not builder.constraints else _constrained(new, builder)
        for new, old in zip(functions, module.functions, strict=True)
    )
    changed = module.with_functions(functions)
    if changed is module:
        return module
    return replace(changed, locations=reachable_locations(changed, builder.locations))


def _constrained(function: Function, builder: Builder) -> Function:
    sizes = [*function.parameters, *(n.results[0] for n in function.nodes() if n.op == "state")]
    known = frozenset[str]().union(*(symbols(d) for v in sizes for d in v.shape))
    fresh = (c for c in builder.constraints if c not in function.constraints)
    # the module's other functions have sizes of their own
    added = tuple(c for c in fresh if symbols(c.left) | symbols(c.right) <= known)
    return replace(function, constraints=function.constraints + added)


def reachable_locations(module: Module, locations: Mapping[Node, tuple[Place, ...]]) -> dict[Node, tuple[Place, ...]]:
    """The entries of ``locations`` for nodes of the module, its regions included."""
    kept: dict[Node, tuple[Place, ...]] = {}
    for node in all_nodes(value for function in module.functions for value in function.outputs):
        places = locations.get(node)
        if places is not None:
            kept[node] = places
    return kept


def all_nodes(results: Iterable[Value]) -> list[Node]:
    """Every node that ``results`` need, operands and the nodes of regions first, each once."""
    order: list[Node] = []
    done: set[Node] = set()
    stack = [value.node for value in results]
    stack.reverse()
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        pending = _below(node, done)
        if pending:
            stack.extend(reversed(pending))
            continue
        done.add(node)
        order.append(node)
        stack.pop()
    return order


def _below(node: Node, done: Container[Node], *, regions: bool = True) -> list[Node]:
    pending = [v.node for v in node.operands if v.node not in done]
    for region in node.regions if regions else ():
        pending.extend(v.node for v in region.results if v.node not in done)
    return pending


def with_results(graph: Graph, results: tuple[Value, ...]) -> Graph:
    """The graph with other results; itself if they are the same."""
    return graph if results == graph.results else Graph(graph.parameters, results, graph.names)


class Rewriter:
    """The walk behind :func:`rewrite`, on values. Remembers what it has done.

    ``inside``: what rewrites regions, by default itself.
    """

    def __init__(
        self, builder: Builder, rule: Rule, inside: Rewriter | None = None, *, fired: Fired | None = None
    ) -> None:
        self.builder = builder
        self.rule = rule
        self.inside = inside
        self.fired = fired
        # None stands for the node's own results
        self._done: dict[Node, tuple[Value, ...] | None] = {}
        self._replaced: dict[Node, tuple[Value, ...]] = {}

    def __call__(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """The values in normal form."""
        done = self._done
        stack = [v.node for v in values if v.node not in done]
        stack.reverse()
        place = self.builder.place
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            replaced = self._replaced.get(node)
            pending = self._pending(node) if replaced is None else [v.node for v in replaced if v.node not in done]
            if pending:
                if self._replaced:
                    for below in pending:
                        if below in self._replaced:
                            raise CompilerBug(f"rewriting {below!r} leads back to itself", stage="rewrite")
                pending.reverse()
                stack.extend(pending)
            elif replaced is not None:
                done[node] = self._new(replaced)
                del self._replaced[node]
                stack.pop()
            else:
                self._step(node)
        self.builder.place = place
        return self._new(values)

    def _pending(self, node: Node) -> list[Node]:
        return _below(node, self._done, regions=self.inside is None)

    def _new(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """The values, of which all nodes are done, in normal form."""
        done = self._done
        found = []
        for value in values:
            results = done[value.node]
            found.append(value if results is None else results[value.index])
        return tuple(found)

    def _step(self, node: Node) -> None:
        """Rebuilds ``node`` on its rewritten operands and applies the rule to it, once."""
        done = self._done
        self.builder.place = self.builder.locations.get(node)
        rebuilt = self._rebuilt(node)
        if rebuilt is not node:
            self._replaced[node] = rebuilt.results
            return
        result = self.rule(self.builder, node)
        if result is None:
            done[node] = None
            return
        values = (result,) if isinstance(result, Value) else tuple(result)
        if values == node.results:
            done[node] = None
            return
        for value, type in zip(values, node.types, strict=True):
            if value.dtype is not type.dtype or len(value.shape) != type.rank:
                raise CompilerBug(f"{node!r} was replaced by a value of type {value.type}", stage="rewrite")
        self._replaced[node] = values
        if self.fired is not None:
            self.fired(self.rule, self.builder, node, values)

    def _rebuilt(self, node: Node) -> Node:
        done = self._done
        operands, regions = node.operands, node.regions
        for value in operands:
            if done[value.node] is not None:
                operands = self._new(operands)
                break
        if regions:
            new = self.inside or self._new
            rewritten = tuple([with_results(r, new(r.results)) for r in regions])
            if any(new is not old for new, old in zip(rewritten, regions, strict=True)):
                regions = rewritten
        if operands is node.operands and regions is node.regions:
            return node
        return self.builder.node(node.op, operands, node.attributes, regions)


def each_graph(
    builder: Builder, results: Sequence[Value], transform: Callable[[tuple[Value, ...]], Sequence[Value]]
) -> tuple[Value, ...]:
    """``transform`` applied to the results of every closed graph, regions before the graph that they are in.

    For what depends on the uses of a value, which are another in every graph. ``transform`` keeps their number.
    """
    replacements: dict[Value, Value] = {}
    place = builder.place
    for node in topological(results):
        regions = tuple(with_results(region, each_graph(builder, region.results, transform)) for region in node.regions)
        if any(new is not old for new, old in zip(regions, node.regions, strict=True)):
            builder.place = builder.locations.get(node)
            operands = substitute(builder, node.operands, replacements)
            new = builder.node(node.op, operands, node.attributes, regions)
            replacements.update(zip(node.results, new.results, strict=True))
    builder.place = place
    return tuple(transform(substitute(builder, results, replacements)))


def substitute(builder: Builder, results: Sequence[Value], replacements: Mapping[Value, Value]) -> tuple[Value, ...]:
    """``results`` with some of the values below them replaced, all at once. Regions are closed and stay as they are.

    New nodes are located at ``builder.place``, or where the node was that they are made from if there is none.
    """
    # the node that takes the place of each; its results have the same numbers
    done: dict[Node, Node] = {}

    def new(values: Sequence[Value]) -> tuple[Value, ...]:
        found = []
        for value in values:
            given = replacements.get(value)
            if given is None:
                node = done[value.node]
                given = value if node is value.node else Value(node, value.index)
            found.append(given)
        return tuple(found)

    place = builder.place
    stack = [v.node for v in results if v not in replacements]
    stack.reverse()
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        changed = False
        pending = []
        for value in node.operands:
            if value in replacements:
                changed = True
            elif value.node not in done:
                pending.append(value.node)
            elif done[value.node] is not value.node:
                changed = True
        if pending:
            pending.reverse()
            stack.extend(pending)
            continue
        stack.pop()
        if not changed:
            done[node] = node
            continue
        if place is None:
            builder.place = builder.locations.get(node)
        done[node] = builder.node(node.op, new(node.operands), node.attributes, node.regions)
    builder.place = place
    return new(results)


def inline(builder: Builder, graph: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
    """The graph's results for these arguments."""
    return substitute(builder, graph.results, dict(zip(graph.parameters, arguments, strict=True)))


def integer(node: Node, name: str) -> int:
    """The attribute ``name``, which the op's type rule found to be an integer."""
    value = node.attributes[name]
    if not isinstance(value, int):
        raise CompilerBug(f"{node!r}: {name} is no integer", stage="passes")
    return value


def uniform(value: Value) -> bool | int | float | None:
    """The number that every element of ``value`` is, if it is a constant, however reshaped and broadcast; else None."""
    node = value.node
    while node.op in ("broadcast", "reshape", "transpose"):
        node = node.operands[0].node
    if node.op != "constant":
        return None
    number = node.attributes["value"]
    return number if isinstance(number, (bool, int, float)) else None
