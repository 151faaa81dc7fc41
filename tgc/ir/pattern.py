"""Rewrite rules as data: what to look for, what to put there, when, and why that is right.

Patterns and replacements are text, parsed once::

    add(mul(x, y), mul(x, z))            ops and captures; a name that occurs twice is the same value
    mul(x, 1)    add(x, -0.0)            numbers: tensors filled with them; 0 is not -0.0, 1 is 1.0, true is not 1
    mul(x, $a)                           any tensor filled with one number, captured
    reshape(reshape(x)) {shape = s}      attributes: captured by a name, or compared; others are ignored
    sort(x) {axis = 0} #1                the second result of an op

In a pattern an op that the table calls commutative matches with its two operands in either order. In a replacement a
number fills the shape and has the dtype of the other operand beside it, or of the root where it stands alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from tgc.errors import CompilerBug
from tgc.ir.builder import Builder
from tgc.ir.graph import Attribute, Node, Value, attribute_key
from tgc.ir.lexer import Scanner
from tgc.ir.literals import LiteralParser
from tgc.ir.printer import RESERVED

Number: TypeAlias = bool | int | float
_CAPTURED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?=\s*[,}])")
_INDEX = re.compile(r"[0-9]{1,3}\b")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|-?inf\b|nan\b")


@dataclass(frozen=True, slots=True)
class Capture:
    """Any value, or any attribute, known by ``name`` from here on."""

    name: str


@dataclass(frozen=True, slots=True)
class Filled:
    """A tensor with the same number everywhere: ``value``, or any that is captured by ``name``."""

    value: Number | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Apply:
    """Result ``index`` of ``op`` applied to operands; ``attributes`` are captured, or compared with a constant."""

    op: str
    operands: tuple[Expression, ...]
    attributes: tuple[tuple[str, Capture | tuple[Attribute]], ...] = ()
    index: int = 0


Expression: TypeAlias = Capture | Filled | Apply


@dataclass(frozen=True, slots=True)
class Match:
    """What a pattern found: captured values by name, captured attributes and numbers by name, and the root."""

    root: Value
    values: Mapping[str, Value] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Value:
        """The captured value."""
        return self.values[name]

    def number(self, name: str) -> Number:
        """The captured number."""
        value = self.attributes[name]
        if not isinstance(value, (bool, int, float)):
            raise CompilerBug(f"{name} is no number but {value!r}", stage="pattern")
        return value


Replacement: TypeAlias = "str | Callable[[Builder, Match], Value | None]"


@dataclass(frozen=True)
class Rule:
    """Where ``pattern`` is found and ``when`` holds, ``replacement`` means the same, ``because`` of a reason.

    ``exact``: bit for bit, for all values (±0, inf and nan included); other rules are for fast-math alone. A
    replacement is text, or a function for what must be computed, which may refuse with None. A rule is applied only
    where its replacement has the type of what it replaces, so ``Rule("reshape(x)", "x", …)`` needs no condition.

    >>> Rule("neg(neg(x))", "x", because="negation flips the sign bit").root
    'neg'
    """

    pattern: str
    replacement: Replacement
    when: Callable[[Match], bool] | None = field(default=None, kw_only=True)
    exact: bool = field(default=True, kw_only=True)
    because: str = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.result is not None and not captures(self.result) <= captures(self.expression):
            raise CompilerBug(f"{self.replacement!r} has names that {self.pattern!r} has not", stage="pattern")

    @cached_property
    def expression(self) -> Apply:
        """The parsed pattern."""
        parsed = parse_expression(self.pattern)
        if not isinstance(parsed, Apply):
            raise CompilerBug(f"the pattern {self.pattern!r} is no op", stage="pattern")
        return parsed

    @cached_property
    def result(self) -> Expression | None:
        """The parsed replacement; None if it is a function."""
        return parse_expression(self.replacement) if isinstance(self.replacement, str) else None

    @property
    def root(self) -> str:
        """The op that the rule is about."""
        return self.expression.op

    def matches(self, builder: Builder, value: Value) -> Iterator[Match]:
        """The ways in which the pattern fits ``value`` and the condition holds."""
        for match in find(self.expression, Match(value), value, builder):
            if self.when is None or self.when(match):
                yield match

    def apply(self, builder: Builder, value: Value) -> Value | None:
        """What takes the place of ``value``; None where the rule does not apply."""
        for match in self.matches(builder, value):
            if callable(self.replacement):
                replacement = self.replacement(builder, match)
            else:
                replacement = build(self.result, builder, match) if self.result is not None else None
            if replacement is not None and replacement.type == value.type and replacement != value:
                return replacement
        return None


class RuleSet:
    """Rules by root, tried in order. Calling it applies the first that fits, as ``passes.base.rewrite`` wants it."""

    def __init__(self, rules: Iterable[Rule], *, fast_math: bool = False) -> None:
        self.rules = tuple(rule for rule in rules if rule.exact or fast_math)
        self._by_root: dict[str, list[Rule]] = {}
        for rule in self.rules:
            self._by_root.setdefault(rule.root, []).append(rule)

    def __call__(self, builder: Builder, node: Node) -> tuple[Value, ...] | None:
        """The values that take the place of the node's results, or None if no rule applies."""
        found = self.first(builder, node)
        return None if found is None else found[1]

    def first(self, builder: Builder, node: Node) -> tuple[Rule, tuple[Value, ...]] | None:
        """The first rule that applies, with the values that take the place of the node's results."""
        rules = self._by_root.get(node.op)
        if not rules:
            return None
        results = node.results
        for rule in rules:
            index = rule.expression.index
            replacement = rule.apply(builder, results[index]) if index < len(results) else None
            if replacement is not None:
                return rule, (*results[:index], replacement, *results[index + 1 :])
        return None


def filled_with(value: Value) -> Number | None:
    """The number that every element of ``value`` is, as far as its node says; None if it says nothing."""
    node = value.node
    if node.op == "broadcast":
        node = node.operands[0].node
    number = node.attributes["value"] if node.op == "constant" else None
    return number if isinstance(number, (bool, int, float)) else None


def same_number(a: Number, b: Number) -> bool:
    """Whether two numbers are one, be they integers or floats; +0 and -0 differ, nan is itself, a bool is no number.

    >>> same_number(1, 1.0), same_number(0, -0.0), same_number(True, 1)
    (True, False, False)
    """
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if a != a or b != b:
        return a != a and b != b
    return a == b and math.copysign(1.0, a) == math.copysign(1.0, b)


def find(expression: Expression, match: Match, value: Value, builder: Builder) -> Iterator[Match]:
    """The ways in which ``expression`` fits ``value``, as extensions of ``match``."""
    if isinstance(expression, Capture):
        known = match.values.get(expression.name)
        if known is None:
            yield Match(match.root, {**match.values, expression.name: value}, match.attributes)
        elif known == value:
            yield match
    elif isinstance(expression, Filled):
        number = filled_with(value)
        if number is None:
            return
        if expression.value is None:
            yield from _with_attribute(match, expression.name, number)
        elif same_number(expression.value, number):
            yield match
    else:
        node = value.node
        if node.op != expression.op or value.index != expression.index:
            return
        if len(node.operands) != len(expression.operands):
            return
        orders = [node.operands]
        if len(node.operands) == 2 and builder.table[node.op].commutative and node.operands[0] != node.operands[1]:
            orders.append(node.operands[::-1])
        for extended in _attributes(expression.attributes, match, node):
            for operands in orders:
                yield from _all(expression.operands, extended, operands, builder)


def _all(expressions: Sequence[Expression], match: Match, values: Sequence[Value], builder: Builder) -> Iterator[Match]:
    if not expressions:
        yield match
        return
    for extended in find(expressions[0], match, values[0], builder):
        yield from _all(expressions[1:], extended, values[1:], builder)


def _attributes(wanted: Sequence[tuple[str, Capture | tuple[Attribute]]], match: Match, node: Node) -> Iterator[Match]:
    for name, expected in wanted:
        value = node.attributes[name]
        if isinstance(expected, Capture):
            extended = next(_with_attribute(match, expected.name, value), None)
            if extended is None:
                return
            match = extended
        elif attribute_key(expected[0]) != attribute_key(value):
            return
    yield match


def _with_attribute(match: Match, name: str, value: Attribute) -> Iterator[Match]:
    if name not in match.attributes:
        yield Match(match.root, match.values, {**match.attributes, name: value})
    elif attribute_key(match.attributes[name]) == attribute_key(value):
        yield match


def build(expression: Expression, builder: Builder, match: Match) -> Value:
    """The value that ``expression`` states of what ``match`` holds."""
    if isinstance(expression, Capture):
        return match.values[expression.name]
    if isinstance(expression, Filled):
        return builder.full_like(match.root, _number(expression, match))
    parts = [None if isinstance(e, Filled) else build(e, builder, match) for e in expression.operands]
    beside = next((part for part in parts if part is not None), match.root)
    operands = [
        builder.full_like(beside, _number(e, match)) if isinstance(e, Filled) else part
        for e, part in zip(expression.operands, parts, strict=True)
    ]
    attributes = {
        name: match.attributes[a.name] if isinstance(a, Capture) else a[0] for name, a in expression.attributes
    }
    node = builder.node(expression.op, tuple(v for v in operands if v is not None), attributes)
    return node.results[expression.index]


def _number(filled: Filled, match: Match) -> Number:
    return match.number(filled.name) if filled.value is None else filled.value


def captures(expression: Expression) -> frozenset[str]:
    """The names in an expression; those of numbers and attributes begin with ``$``.

    >>> sorted(captures(parse_expression("sum(mul(x, $c)) {axes = a}")))
    ['$a', '$c', 'x']
    """
    if isinstance(expression, Capture):
        return frozenset({expression.name})
    if isinstance(expression, Filled):
        return frozenset({"$" + expression.name} if expression.name else ())
    named = {"$" + a.name for _, a in expression.attributes if isinstance(a, Capture)}
    return frozenset(named).union(*map(captures, expression.operands))


def parse_expression(text: str) -> Expression:
    """The expression that ``text`` states; :class:`ParseError` if it states none.

    >>> parse_expression("mul(x, 1)")
    Apply(op='mul', operands=(Capture(name='x'), Filled(value=1, name='')), attributes=(), index=0)
    """
    parser = _Parser(Scanner(text, "<pattern>"))
    expression = parser.expression()
    if not parser.scan.at_end():
        raise parser.scan.error("expected the end")
    return expression


class _Parser(LiteralParser):
    def expression(self) -> Expression:
        scan = self.scan
        if scan.take("$"):
            return Filled(name=scan.word("the name of a number"))
        number = scan.match(_NUMBER)
        if number:
            integral = number.group().lstrip("-").isdigit()
            return Filled(int(number.group()) if integral and number.group() != "-0" else float(number.group()))
        name = scan.word("an op, a capture or a number")
        if name in ("true", "false"):
            return Filled(name == "true")
        if not scan.take("("):
            return Capture(name)
        self.nest(1)
        operands: list[Expression] = []
        while not scan.take(")"):
            if operands:
                scan.expect(",")
            operands.append(self.expression())
        self.nest(-1)
        attributes = self.attributes() if scan.take("{") else ()
        index = int(scan.demand(_INDEX, "the index of a result").group()) if scan.take("#") else 0
        return Apply(name, tuple(operands), attributes, index)

    def attributes(self) -> tuple[tuple[str, Capture | tuple[Attribute]], ...]:
        found: list[tuple[str, Capture | tuple[Attribute]]] = []
        while not self.scan.take("}"):
            if found:
                self.scan.expect(",")
            name = self.scan.word("the name of an attribute")
            self.scan.expect("=")
            captured = _CAPTURED.match(self.scan.text, self.scan.position)
            if captured and captured.group() not in RESERVED:
                found.append((name, Capture(self.scan.word("a capture"))))
            else:
                found.append((name, (self.attribute(),)))
        return tuple(found)
