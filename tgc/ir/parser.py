"""Text to graph IR, the inverse of :mod:`tgc.ir.printer`.

::

    module   = "module" @name "{" (range | state | constant | function)* "}"
    range    = "range" name ":" low ".." [high]
    state    = "state" @name ":" type [contents]
    constant = "constant" @name ":" type [contents]
    contents = "{" "digest" "=" string "}" | "=" "[" numbers "]" | "=" string of hexadecimal bytes
    function = "func" @name "(" parameters ")" "->" "(" results ")" ["workspace" dimension] "{" require* body "}"
    require  = "require" dimension "==" dimension [":" string]
    body     = (names "=" node)* ("assign" @name "=" value)* "return" values
    node     = (("state" | "literal") @name | op "(" values ")" [attributes] [regions]) [":" types] ["loc(" places ")"]
    regions  = "(" "^" "(" parameters ")" "{" body "}" ... ")"

Types after a node may be left out; where they stand they are compared with what the op's type rule gives. Text is not
trusted: whatever it holds, the outcome is a module or a :class:`ParseError` that shows line and column.
"""

from __future__ import annotations

import re
from typing import TypeVar

from tgc.errors import TgcError, UserError
from tgc.ir.builder import Builder
from tgc.ir.graph import (
    Attribute,
    Constant,
    Constraint,
    Function,
    Graph,
    Module,
    Place,
    State,
    Value,
    literal,
    parameter,
    state,
)
from tgc.ir.lexer import Scanner
from tgc.ir.literals import LiteralParser
from tgc.ir.opdef import OpTable
from tgc.ir.types import TensorType
from tgc.location import Location

T = TypeVar("T")

_PARAMETER = re.compile(r"%([A-Za-z_][A-Za-z0-9_]*)\s*:")
_VALUE = re.compile(r"%([A-Za-z0-9_]+)(?:#([0-9]{1,9}))?")
_DEFINED = re.compile(r"%([A-Za-z0-9_]+)(?::([0-9]{1,9}))?\s*=")
_BYTES = re.compile(r"\s*([^{}\n]+?)\s*(?=\{)")
_REQUIRED = re.compile(r"([A-Za-z0-9_+*/%(), -]+)==([A-Za-z0-9_+*/%(), -]+)")
# what the type rule of an op may raise when it meets attributes or operands that it was not made for
_RULE_ERRORS = (TgcError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def parse_module(text: str, table: OpTable, *, source: str = "<text>") -> Module:
    """The module that ``text`` states, with the ops of ``table``; ``source`` is its name in messages.

    Raises :class:`ParseError`. A constant of which the text has only the digest has no data.

    >>> module = parse_module("module @m { func @same(%x: f32[n]) -> (f32[n]) { return %x } }", {})
    >>> module.function("same").parameters[0].type
    TensorType(f32[n])
    """
    scan = Scanner(text, source)
    parser = _Parser(scan, Builder(table))
    module = parser.module()
    if not scan.at_end():
        raise scan.error("expected the end")
    return module


class _Parser(LiteralParser):
    """Recursive descent; ``names`` maps the values that are defined so far in the function or region."""

    def __init__(self, scan: Scanner, builder: Builder) -> None:
        super().__init__(scan)
        self.builder = builder
        self.names: dict[str, tuple[Value, ...]] = {}

    # -- module ----------------------------------------------------------------------------------------------

    def module(self) -> Module:
        if not self.scan.keyword("module"):
            raise self.scan.error("expected 'module'")
        name = self.symbol()
        self.scan.expect("{")
        functions: dict[str, Function] = {}
        states: dict[str, State] = {}
        constants: dict[str, Constant] = {}
        ranges: dict[str, tuple[int, int | None]] = {}
        while not self.scan.take("}"):
            start = self.scan.position
            if self.scan.keyword("range"):
                self.define(ranges, self.scan.word("a dimension"), self.range(), start)
            elif self.scan.keyword("state"):
                key = self.symbol()
                type = self.typed()
                initial = self.contents(type.with_layout(None))
                self.define(states, key, State(type, initial), start)
            elif self.scan.keyword("constant"):
                key = self.symbol()
                constant = self.contents(self.typed())
                if constant is None:
                    raise self.scan.error("expected the digest or the elements of the constant", at=start)
                self.define(constants, key, constant, start)
            elif self.scan.keyword("func"):
                function = self.function()
                self.define(functions, function.name, function, start)
            else:
                raise self.scan.error("expected 'range', 'state', 'constant', 'func' or '}'")
        return Module(name, tuple(functions.values()), states, constants, ranges, self.builder.locations)

    def define(self, table: dict[str, T], name: str, value: T, start: int) -> None:
        if name in table:
            raise self.scan.error(f"{name} is defined twice", at=start)
        table[name] = value

    def range(self) -> tuple[int, int | None]:
        self.scan.expect(":")
        start = self.scan.position
        low = self.scan.integer("the least value")
        self.scan.expect("..")
        digits = self.scan.text[self.scan.position : self.scan.position + 1]
        high = self.scan.integer("the greatest value") if digits.isdigit() else None
        if low < 0 or (high is not None and high < low):
            raise self.scan.error("the range is empty or negative", at=start)
        return low, high

    def symbol(self) -> str:
        if not self.scan.peek("@"):
            raise self.scan.error("expected '@'")
        self.scan.take("@")
        return self.scan.name("a name")

    # -- functions -------------------------------------------------------------------------------------------

    def function(self) -> Function:
        name = self.symbol()
        self.names = {}
        parameters, names = self.parameters()
        self.scan.expect("->")
        result_names, types = self.result_types()
        workspace = None
        if self.scan.keyword("workspace"):
            start = self.scan.position
            workspace = self.dimension(self.scan.demand(_BYTES, "a number of bytes")[1], start)
        self.scan.expect("{")
        constraints = []
        while self.scan.keyword("require"):
            constraints.append(self.constraint())
        self.statements()
        assigns = []
        while self.scan.keyword("assign"):
            target = self.symbol()
            self.scan.expect("=")
            assigns.append((target, self.value()))
        start = self.scan.position
        results = self.returned()
        if tuple(v.type for v in results) != types:
            stated, found = (", ".join(map(str, t)) for t in (types, [v.type for v in results]))
            raise self.scan.error(f"the function says that it returns ({stated}), but returns ({found})", at=start)
        graph = Graph(parameters, results, names)
        return Function(name, graph, tuple(assigns), result_names, tuple(constraints), workspace)

    def parameters(self) -> tuple[tuple[Value, ...], tuple[str, ...]]:
        self.scan.expect("(")
        values: list[Value] = []
        names: list[str] = []
        while not self.scan.take(")"):
            if values:
                self.scan.expect(",")
            start = self.scan.position
            name = self.scan.demand(_PARAMETER, "a parameter such as '%x: f32[2]'")[1]
            value = parameter(len(values), self.tensor_type())
            self.define(self.names, name, (value,), start)
            values.append(value)
            names.append(name)
        return tuple(values), tuple(names)

    def result_types(self) -> tuple[tuple[str, ...], tuple[TensorType, ...]]:
        self.scan.expect("(")
        names: list[str] = []
        types: list[TensorType] = []
        while not self.scan.take(")"):
            if types:
                self.scan.expect(",")
            if self.scan.take("%"):
                names.append(self.scan.string() if self.scan.peek('"') else self.scan.word("the name of a result"))
                self.scan.expect(":")
            types.append(self.tensor_type())
        if len(names) not in (0, len(types)):
            raise self.scan.error("either all results have names or none")
        return tuple(names), tuple(types)

    def constraint(self) -> Constraint:
        start = self.scan.position
        left, right = self.scan.demand(_REQUIRED, "an equality of dimensions").groups()
        because = self.scan.string() if self.scan.take(":") else ""
        return Constraint(self.dimension(left, start), self.dimension(right, start), because)

    def statements(self) -> None:
        """The definitions of a body, which extend ``names``."""
        while True:
            start = self.scan.position
            match = self.scan.match(_DEFINED)
            if match is None:
                return
            values = self.node(start)
            if len(values) != int(match[2] or 1):
                raise self.scan.error(f"{len(values)} results are defined as {match[2] or 1}", at=start)
            self.define(self.names, match[1], values, start)

    def returned(self) -> tuple[Value, ...]:
        if not self.scan.keyword("return"):
            raise self.scan.error("expected a definition or 'return'")
        values = [self.value()] if self.scan.peek("%") else []
        while values and self.scan.take(","):
            values.append(self.value())
        self.scan.expect("}")
        return tuple(values)

    def value(self) -> Value:
        start = self.scan.position
        name, index = self.scan.demand(_VALUE, "a value").groups()
        values = self.names.get(name)
        if values is None:
            raise self.scan.error(f"%{name} is not defined here", at=start)
        if index is None and len(values) != 1:
            raise self.scan.error(f"%{name} has {len(values)} results: say which, as %{name}#0", at=start)
        if int(index or 0) >= len(values):
            raise self.scan.error(f"%{name} has {len(values)} results", at=start)
        return values[int(index or 0)]

    # -- nodes -----------------------------------------------------------------------------------------------

    def node(self, start: int) -> tuple[Value, ...]:
        op = self.scan.word("an op")
        if op in ("state", "literal"):
            name = self.symbol()
            values: tuple[Value, ...] = ((state if op == "state" else literal)(name, self.typed()),)
        else:
            values = self.operation(op, start)
            if self.scan.take(":"):
                types = [self.tensor_type()]
                while self.scan.take(","):
                    types.append(self.tensor_type())
                given = values[0].node.types if values else ()
                if tuple(types) != given:
                    found = ", ".join(map(str, given)) or "nothing"
                    raise self.scan.error(f"{op} gives {found} here, not {', '.join(map(str, types))}", at=start)
        if self.scan.keyword("loc"):
            places = self.places()
            if values:
                self.builder.locate(values[0].node, places)
        return values

    def operation(self, op: str, start: int) -> tuple[Value, ...]:
        self.scan.expect("(")
        operands: list[Value] = []
        while not self.scan.take(")"):
            if operands:
                self.scan.expect(",")
            operands.append(self.value())
        attributes: dict[str, Attribute] = {}
        if self.scan.take("{"):
            while not self.scan.take("}"):
                if attributes:
                    self.scan.expect(",")
                at = self.scan.position
                name = self.scan.word("the name of an attribute")
                self.scan.expect("=")
                self.define(attributes, name, self.attribute(), at)
        regions = self.regions() if self.scan.take("(") else ()
        try:
            return self.builder.node(op, tuple(operands), attributes, regions).results
        except _RULE_ERRORS as error:
            message = error.message if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise self.scan.error(message, at=start) from None

    def regions(self) -> tuple[Graph, ...]:
        outer, self.names = self.names, {}
        self.nest(1)
        found: list[Graph] = []
        while not found or self.scan.take(","):
            self.scan.expect("^")
            self.names = {}
            parameters, names = self.parameters()
            self.scan.expect("{")
            self.statements()
            found.append(Graph(parameters, self.returned(), names))
        self.scan.expect(")")
        self.nest(-1)
        self.names = outer
        return tuple(found)

    def places(self) -> tuple[Place, ...]:
        self.scan.expect("(")
        places: list[Place] = []
        while not places or self.scan.take(","):
            file = self.scan.string()
            self.scan.expect(":")
            line = self.scan.integer("a line")
            self.scan.expect(":")
            places.append(Location(file, line, self.scan.integer("a column")))
        self.scan.expect(")")
        return tuple(places)
