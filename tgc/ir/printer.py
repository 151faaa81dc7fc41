"""The graph IR as text. :mod:`tgc.ir.parser` is the inverse on every module.

::

    module @digits {
      range batch : 1..64
      state @fc.weight : f32[10, 64]
      func @predict(%x: f32[batch, 64]) -> (%out: f32[batch, 10]) {
        %0 = state @fc.weight : f32[10, 64]
        %1 = contract(%x, %0) {spec = "bi,oi->bo"} : f32[batch, 10]  loc("digits.py":9:13)
        return %1
      }
    }
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tgc.dtypes import DTYPES, DType
from tgc.errors import CompilerBug
from tgc.ir.dims import Expr, symbols
from tgc.ir.graph import (
    Array,
    Attribute,
    Attributes,
    Constant,
    Function,
    Graph,
    Module,
    Node,
    Place,
    Value,
    topological,
)
from tgc.ir.lexer import is_name, quoted
from tgc.ir.types import TensorType
from tgc.location import Location, Site

MOST_INLINE = 16
RESERVED = frozenset({*DTYPES, "true", "false", "none", "nan", "inf"})
CANONICAL_NAN = struct.pack("<d", math.nan)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOWHERE: Mapping[Node, tuple[Place, ...]] = MappingProxyType({})


def print_module(module: Module, *, locations: bool = False) -> str:
    """The module as text, with the ``locations`` of its nodes or without. Tensors of many elements print as digests."""
    lines = [f"module {symbol_name(module.name)} {{"]
    for name, (low, high) in sorted(module.ranges.items()):
        lines.append(f"  range {name} : {low}..{'' if high is None else high}")
    for name, state in module.state.items():
        initial = "" if state.initial is None else contents(state.initial)
        lines.append(f"  state {symbol_name(name)} : {state.type}{initial}")
    for name, constant in module.constants.items():
        lines.append(f"  constant {symbol_name(name)} : {constant.type}{contents(constant)}")
    for function in module.functions:
        text = print_function(function, locations=module.locations if locations else _NOWHERE)
        lines += ["  " + line for line in text.splitlines()]
    lines.append("}")
    return "\n".join(lines) + "\n"


def print_function(function: Function, *, locations: Mapping[Node, tuple[Place, ...]] = _NOWHERE) -> str:
    """The function as text.

    >>> from tgc import dtypes
    >>> from tgc.ir.graph import parameter
    >>> x = parameter(0, TensorType(dtypes.f32, (2,)))
    >>> print(print_function(Function("same", Graph((x,), (x,), ("x",)))))
    func @same(%x: f32[2]) -> (f32[2]) {
      return %x
    }
    """
    scope = _Scope(function.graph, locations)
    results = [str(value.type) for value in function.results]
    if len(function.result_names) == len(results):
        results = [
            f"%{name if _IDENTIFIER.fullmatch(name) else quoted(name)}: {type}"
            for name, type in zip(function.result_names, results, strict=True)
        ]
    workspace = "" if function.workspace is None else f" workspace {function.workspace}"
    lines = [f"func {symbol_name(function.name)}({scope.header}) -> ({', '.join(results)}){workspace} {{"]
    for constraint in function.constraints:
        because = f" : {quoted(constraint.because)}" if constraint.because else ""
        lines.append(f"  require {constraint.left} == {constraint.right}{because}")
    scope.nodes(topological(function.outputs), lines, "  ")
    lines += [f"  assign {symbol_name(name)} = {scope.value(value)}" for name, value in function.assigns]
    lines += [f"  return{scope.returned(function.results)}", "}"]
    return "\n".join(lines)


def print_graph(graph: Graph) -> str:
    """The graph as the text of a region."""
    lines: list[str] = []
    _region(graph, lines, "", _NOWHERE)
    return "\n".join(lines)


def print_node(node: Node) -> str:
    """One node with the types of its operands in their place, for messages.

    >>> from tgc import dtypes
    >>> from tgc.ir.graph import intern, parameter
    >>> x = parameter(0, TensorType(dtypes.f32, (2,)))
    >>> print_node(intern("sum", (x,), {"axes": (0,)}, (), (TensorType(dtypes.f32, ()),)))
    'sum(f32[2]) {axes = [0]} : f32[]'
    """
    regions = " (…)" if node.regions else ""
    operands = ", ".join(str(v.type) for v in node.operands)
    return f"{node.op}({operands}){_attributes(node.attributes)}{regions} : {', '.join(map(str, node.types))}"


def print_attribute(value: Attribute) -> str:
    """The attribute as text, of which type and bits can be read back.

    >>> print_attribute((1, True, 1.0, -0.0, "a", None, (2,)))
    '[1, true, 1.0, -0.0, "a", none, [2]]'
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(print_attribute, value))}]"
    if isinstance(value, Expr):
        # a dimension must not be taken for a word of the language
        return f"({value})" if symbols(value) & RESERVED else str(value)
    if isinstance(value, (int, DType, TensorType)):
        return str(value)
    raise CompilerBug(f"an attribute has the type {type(value).__name__}", stage="printer")


def symbol_name(name: str) -> str:
    """``@name``, in quotes where it needs them."""
    return "@" + (name if is_name(name) else quoted(name))


def contents(constant: Constant) -> str:
    """What follows the type of a constant: its elements if they are few, else its digest.

    >>> import numpy as np
    >>> from tgc import dtypes
    >>> contents(Constant.of(np.float32([1, -0.0]), TensorType(dtypes.f32, (2,))))
    ' = [1.0, -0.0]'
    """
    if constant.data is None or constant.data.size > MOST_INLINE:
        return f" {{digest = {quoted(constant.digest)}}}"
    with np.errstate(all="ignore"):
        values = elements(constant.data)
        same = np.array(values, constant.type.dtype.numpy).tobytes() == constant.data.tobytes()
    if not same:
        # a signalling nan
        return f" = {quoted(constant.data.tobytes().hex())}"
    return f" = {print_attribute(values)}"


def elements(array: Array) -> tuple[bool | int | float, ...]:
    """The elements in row-major order as Python numbers of the same value."""
    flat = array.reshape(-1)
    return tuple(flat.tolist() if flat.dtype.kind in "biu" else flat.astype(np.float64).tolist())


def _float(value: float) -> str:
    if value != value and struct.pack("<d", value) != CANONICAL_NAN:
        return f"nan:0x{struct.pack('>d', value).hex()}"
    return repr(value)


def _attributes(attributes: Attributes) -> str:
    if not attributes:
        return ""
    return " {" + ", ".join([f"{name} = {print_attribute(value)}" for name, value in attributes.items()]) + "}"


def _location(place: Place) -> str:
    location: Location = place.resolve() if isinstance(place, Site) else place
    return f"{quoted(location.file)}:{location.line}:{location.column}"


class _Scope:
    """The names of one function's or region's values."""

    def __init__(self, graph: Graph, locations: Mapping[Node, tuple[Place, ...]]) -> None:
        self.locations = locations
        self.names: dict[Node, str] = {}
        self.header = ""
        taken: set[str] = set()
        parts = []
        for i, value in enumerate(graph.parameters):
            name = graph.names[i] if i < len(graph.names) else ""
            if not _IDENTIFIER.fullmatch(name) or name in taken:
                name = f"arg{i}"
                while name in taken or name in graph.names:
                    name += "_"
            taken.add(name)
            self.names[value.node] = f"%{name}"
            parts.append(f"%{name}: {value.type}")
        self.header = ", ".join(parts)

    def value(self, value: Value) -> str:
        name = self.names[value.node]
        return name if len(value.node.types) == 1 else f"{name}#{value.index}"

    def returned(self, values: Sequence[Value]) -> str:
        return " " + ", ".join(map(self.value, values)) if values else ""

    def nodes(self, nodes: Iterable[Node], lines: list[str], indent: str) -> None:
        number = 0
        for node in nodes:
            if node in self.names:
                continue
            name = self.names[node] = f"%{number}"
            number += 1
            count = f":{len(node.types)}" if len(node.types) != 1 else ""
            self._node(node, f"{indent}{name}{count} = ", lines, indent)

    def _node(self, node: Node, start: str, lines: list[str], indent: str) -> None:
        place = self.locations.get(node, ())
        types = ", ".join(map(str, node.types))
        end = f" : {types}" + (f"  loc({', '.join(map(_location, place))})" if place else "")
        if node.op in ("state", "literal"):
            lines.append(f"{start}{node.op} {symbol_name(str(node.attributes['name']))}{end}")
            return
        start = f"{start}{node.op}({', '.join(map(self.value, node.operands))}){_attributes(node.attributes)}"
        if not node.regions:
            lines.append(start + end)
            return
        lines.append(start + " (")
        for i, region in enumerate(node.regions):
            if i:
                lines[-1] += ", "
            _region(region, lines, indent, self.locations)
        lines[-1] += ")" + end


def _region(graph: Graph, lines: list[str], indent: str, locations: Mapping[Node, tuple[Place, ...]]) -> None:
    """Appends the region's lines; its first belongs to the last line."""
    scope = _Scope(graph, locations)
    if not lines:
        lines.append("")
    lines[-1] += f"^({scope.header}) {{"
    scope.nodes(graph.nodes(), lines, indent + "  ")
    lines += [f"{indent}  return{scope.returned(graph.results)}", f"{indent}}}"]
