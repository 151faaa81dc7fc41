"""Graph IR: immutable, hash-consed nodes; graphs, functions and modules of them.

Equal nodes are the same object, so ``is`` compares structure and common subexpressions never exist twice.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from tgc.dtypes import DType
from tgc.errors import CompilerBug
from tgc.ir.dims import Dim, Expr
from tgc.ir.types import TensorType
from tgc.location import Location, Site

Attribute: TypeAlias = "bool | int | float | str | DType | TensorType | Expr | tuple[Attribute, ...] | None"
Attributes: TypeAlias = Mapping[str, Attribute]
Array: TypeAlias = NDArray[Any]
Place: TypeAlias = "Location | Site"
EMPTY: Attributes = MappingProxyType({})


def attribute_key(value: Attribute) -> object:
    """A hashable stand-in that tells apart by type and bits: True from 1, 0.0 from -0.0; nan is itself."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is bool:
        return (bool, value)
    if kind is float:
        return (float, struct.pack("<d", value))
    if isinstance(value, tuple):
        return tuple(map(attribute_key, value))
    if isinstance(value, (DType, TensorType, Expr)):
        return value
    raise CompilerBug(f"{value!r} ({kind.__name__}) cannot be an attribute", stage="graph")


class Value(NamedTuple):
    """One result of a node."""

    node: Node
    index: int  # type: ignore[assignment]

    @property
    def type(self) -> TensorType:
        return self.node.types[self.index]

    @property
    def dtype(self) -> DType:
        return self.node.types[self.index].dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.node.types[self.index].shape

    def __repr__(self) -> str:
        return f"<{self.node.op}#{self.index}: {self.type}>"


class Node:
    """An operation applied to values. Made by :func:`intern` only; compare with ``is``."""

    __slots__ = ("__weakref__", "attributes", "op", "operands", "regions", "types")

    op: str
    operands: tuple[Value, ...]
    attributes: Attributes
    regions: tuple[Graph, ...]
    types: tuple[TensorType, ...]

    @property
    def result(self) -> Value:
        """The only result."""
        if len(self.types) != 1:
            raise CompilerBug(f"{self.op} has {len(self.types)} results", stage="graph")
        return Value(self, 0)

    @property
    def results(self) -> tuple[Value, ...]:
        return tuple(Value(self, i) for i in range(len(self.types)))

    def __repr__(self) -> str:
        return f"<{self.op}({', '.join(v.node.op for v in self.operands)}): {', '.join(map(str, self.types))}>"

    def __reduce__(self) -> tuple[object, ...]:
        return (intern, (self.op, self.operands, dict(self.attributes), self.regions, self.types))


_INTERNED: WeakValueDictionary[object, Node] = WeakValueDictionary()
_LOCK = threading.Lock()


def node_key(op: str, operands: tuple[Value, ...], attributes: Attributes, regions: tuple[Graph, ...]) -> object:
    """What makes two nodes the same. Types are a function of it."""
    if not attributes:
        return (op, operands, regions)
    return (op, operands, regions, tuple([(name, attribute_key(attributes[name])) for name in sorted(attributes)]))


def lookup(key: object) -> Node | None:
    """The living node of that key, if there is one: lets a builder skip type inference."""
    return _INTERNED.get(key)


def intern(
    op: str,
    operands: tuple[Value, ...],
    attributes: Attributes,
    regions: tuple[Graph, ...],
    types: tuple[TensorType, ...],
    key: object | None = None,
) -> Node:
    """The one node with these parts. ``types`` must be what the op's type rule gives."""
    if key is None:
        key = node_key(op, operands, attributes, regions)
    with _LOCK:
        node = _INTERNED.get(key)
        if node is None:
            node = Node()
            node.op = op
            node.operands = operands
            node.attributes = MappingProxyType(dict(sorted(attributes.items()))) if attributes else EMPTY
            node.regions = regions
            node.types = types
            _INTERNED[key] = node
    return node


def parameter(index: int, type: TensorType) -> Value:
    """The parameter ``index`` of the graph in which it is used."""
    return Value(intern("parameter", (), {"index": index, "type": type}, (), (type,)), 0)


def state(name: str, type: TensorType) -> Value:
    """The value that the module's state ``name`` has on entry to the function."""
    return Value(intern("state", (), {"name": name, "type": type}, (), (type,)), 0)


def literal(name: str, type: TensorType) -> Value:
    """The module's constant ``name``."""
    return Value(intern("literal", (), {"name": name, "type": type}, (), (type,)), 0)


def topological(results: Iterable[Value]) -> list[Node]:
    """Every node that ``results`` need, operands first, in an order that depends on the structure alone."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, Iterator[Value]]] = []
    for result in results:
        if result.node in seen:
            continue
        seen.add(result.node)
        stack.append((result.node, iter(result.node.operands)))
        while stack:
            node, operands = stack[-1]
            for operand in operands:
                if operand.node not in seen:
                    seen.add(operand.node)
                    stack.append((operand.node, iter(operand.node.operands)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


@dataclass(frozen=True)
class Graph:
    """A closed graph: ``results`` depend on ``parameters`` alone. The body of a function or of a region.

    ``parameters[i]`` is ``parameter(i, type)``; ``names`` are for printing only.
    """

    parameters: tuple[Value, ...]
    results: tuple[Value, ...]
    names: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.parameters, self.results)))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def nodes(self) -> list[Node]:
        """Its nodes, operands first; unused parameters are not among them."""
        return topological(self.results)


@dataclass(frozen=True)
class Constraint:
    """What a function's entry checks of its dimensions: ``left == right``, with the reason for the message."""

    left: Dim
    right: Dim
    because: str = field(default="", compare=False)


@dataclass(frozen=True)
class Function:
    """A named graph that may read state (nodes ``state``) and assign it at its end.

    ``assigns``: (state name, new value); all reads of state see the values on entry. ``result_names`` name the results.
    ``workspace``: bytes of its arena, once memory is planned.
    """

    name: str
    graph: Graph
    assigns: tuple[tuple[str, Value], ...] = ()
    result_names: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    workspace: Dim | None = None

    @property
    def parameters(self) -> tuple[Value, ...]:
        return self.graph.parameters

    @property
    def results(self) -> tuple[Value, ...]:
        return self.graph.results

    @property
    def outputs(self) -> tuple[Value, ...]:
        """Results, then assigned values: everything that is computed."""
        return self.graph.results + tuple(value for _, value in self.assigns)

    def nodes(self) -> list[Node]:
        """Every node needed, operands first."""
        return topological(self.outputs)

    def with_outputs(self, outputs: tuple[Value, ...]) -> Function:
        """The same function with other results and assigned values, in the order of :attr:`outputs`."""
        if all(a is b or a == b for a, b in zip(outputs, self.outputs, strict=True)):
            return self
        count = len(self.graph.results)
        graph = Graph(self.graph.parameters, outputs[:count], self.graph.names)
        assigns = tuple((name, value) for (name, _), value in zip(self.assigns, outputs[count:], strict=True))
        return replace(self, graph=graph, assigns=assigns)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that a module carries, addressed by its digest; ``data`` is None when only the digest is known."""

    type: TensorType
    digest: str
    data: Array | None = None

    @staticmethod
    def of(array: Array, type: TensorType) -> Constant:
        contiguous = np.asarray(array, order="C")
        return Constant(type, "sha256:" + sha256(contiguous.tobytes()).hexdigest(), contiguous)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.type == other.type and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.type, self.digest))


@dataclass(frozen=True)
class State:
    """A named tensor that functions of a module share and may assign; ``initial`` is its value at load, if known."""

    type: TensorType
    initial: Constant | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Module:
    """Functions over common state and constants.

    ``ranges``: bounds of symbolic dimensions, (low, high or None). ``locations``: where nodes come from; not part of
    equality.
    """

    name: str
    functions: tuple[Function, ...]
    state: Mapping[str, State] = field(default_factory=dict)
    constants: Mapping[str, Constant] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    locations: Mapping[Node, tuple[Place, ...]] = field(default_factory=dict, compare=False)

    def function(self, name: str) -> Function:
        for candidate in self.functions:
            if candidate.name == name:
                return candidate
        raise CompilerBug(f"module has no function {name!r}", stage="graph")

    def with_functions(self, functions: tuple[Function, ...]) -> Module:
        """The same module with other functions; itself when none differs."""
        if len(functions) == len(self.functions) and all(
            a is b for a, b in zip(functions, self.functions, strict=True)
        ):
            return self
        return replace(self, functions=functions)
