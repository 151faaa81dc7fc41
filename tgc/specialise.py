"""Fixing and bounding the symbolic dimensions of a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tgc.errors import UserError
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, Expr, bounds, substitute, symbols
from tgc.ir.graph import (
    Attribute,
    Attributes,
    Constant,
    Constraint,
    Function,
    Graph,
    Module,
    Node,
    State,
    Value,
    intern,
    topological,
)
from tgc.ir.types import TensorType
from tgc.ops import OPS

Range = tuple[int, int | None]


def specialise(module: Module, ranges: Mapping[str, Range]) -> Module:
    """The module for dimensions within ``ranges``: (low, high), or (low, None) for no upper bound.

    A dimension whose range has one size becomes that number everywhere; the others are checked at the entry. Raises
    :class:`UserError` for a dimension that no function has, and for sizes that contradict each other.

    >>> from tgc.ir.parser import parse_module
    >>> from tgc.ir.printer import print_module
    >>> text = "module @m { func @f(%x: f32[n, k]) -> (f32[n, k]) { return %x } }"
    >>> print(print_module(specialise(parse_module(text, OPS), {"n": (4, 4), "k": (1, 64)})))
    module @m {
      range k : 1..64
      func @f(%x: f32[4, k]) -> (f32[4, k]) {
        return %x
      }
    }
    """
    known = dimensions(module)
    unknown = sorted(ranges.keys() - known)
    if unknown:
        raise UserError(
            f"there is no dimension {', '.join(unknown)}",
            hint="dimensions: " + ", ".join(sorted(known)) if known else "all dimensions are numbers",
        )
    sizes: dict[str, Dim] = {name: low for name, (low, high) in ranges.items() if low == high}
    open_ranges = {name: r for name, r in {**module.ranges, **ranges}.items() if name not in sizes}
    module = replace(module, ranges=open_ranges)
    return _Substitution(module, sizes).run() if sizes else module


def dimensions(module: Module) -> frozenset[str]:
    """The names of the dimensions of the functions' arguments and of the state."""
    types = [p.type for f in module.functions for p in f.parameters] + [s.type for s in module.state.values()]
    return frozenset[str]().union(*(symbols(d) for t in types for d in t.shape))


class _Substitution:
    """Puts numbers in place of symbols in every type and attribute of a module."""

    def __init__(self, module: Module, sizes: Mapping[str, Dim]) -> None:
        self.module = module
        self.sizes = sizes
        self.builder = Builder(OPS)

    def run(self) -> Module:
        module = self.module
        functions = tuple(map(self._function, module.functions))
        state = {n: State(self._type(s.type), self._initial(n, s)) for n, s in module.state.items()}
        return replace(module, functions=functions, state=state, locations=self.builder.locations)

    def _initial(self, name: str, state: State) -> Constant | None:
        if state.initial is not None and self._type(state.type) != state.type:
            raise UserError(f"the state {name} has values and a symbolic type {state.type}")
        return state.initial

    def _function(self, function: Function) -> Function:
        new = self._values(function.graph.parameters + function.outputs)
        count = len(function.parameters)
        graph = Graph(new[:count], function.graph.results, function.graph.names)
        found = replace(function, graph=graph, constraints=self._constraints(function))
        return found.with_outputs(new[count:])

    def _constraints(self, function: Function) -> tuple[Constraint, ...]:
        found = []
        for each in function.constraints:
            left, right = self._dim(each.left), self._dim(each.right)
            low, high = bounds(left - right, {})
            if low is not None and low > 0 or high is not None and high < 0:
                raise UserError(f"{function.name}: {each.because}: {each.left} and {each.right} must be equal")
            if left != right:
                found.append(Constraint(left, right, each.because))
        return tuple(found)

    def _values(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        new: dict[Node, Node] = {}
        for node in topological(values):
            operands = tuple(Value(new[v.node], v.index) for v in node.operands)
            regions = tuple(self._region(r) for r in node.regions)
            attributes = self._attributes(node.attributes)
            if node.op in ("parameter", "state", "literal"):
                made = intern(node.op, (), attributes, (), tuple(map(self._type, node.types)))
            else:
                made = self.builder.node(node.op, operands, attributes, regions)
            new[node] = made
            places = self.module.locations.get(node)
            if places is not None:
                self.builder.locate(made, places)
        return tuple(Value(new[v.node], v.index) for v in values)

    def _region(self, graph: Graph) -> Graph:
        new = self._values(graph.parameters + graph.results)
        count = len(graph.parameters)
        return Graph(new[:count], new[count:], graph.names)

    def _attributes(self, attributes: Attributes) -> dict[str, Attribute]:
        return {name: self._attribute(value) for name, value in attributes.items()}

    def _attribute(self, value: Attribute) -> Attribute:
        if isinstance(value, Expr):
            return substitute(value, self.sizes)
        if isinstance(value, TensorType):
            return self._type(value)
        return tuple(map(self._attribute, value)) if isinstance(value, tuple) else value

    def _dim(self, dim: Dim) -> Dim:
        return substitute(dim, self.sizes)

    def _type(self, type_: TensorType) -> TensorType:
        return TensorType(type_.dtype, map(self._dim, type_.shape), type_.layout)
