"""Symbolic dimensions: integer polynomials over symbols, floor divisions, remainders, maxima and minima.

A dimension is a Python ``int`` or an :class:`Expr`; an ``Expr`` is never constant, and an ``int`` is never wrapped.
Symbols stand for integers >= 0, and a divisor for an integer > 0: what is folded is true for all such values, and
:func:`evaluate` raises where a divisor is not positive. Division rounds down, as in Python.

>>> n, h = symbol("n"), symbol("h")
>>> (4 * n + 2) // 2, (4 * n + 2) % 2, (6 * n * h) // (2 * n), dim_max(n, 0)
(2*n+1, 0, 3*h, n)
>>> parse_dim("(h+2)//2") == (h + 2) // 2 == h // 2 + 1
True
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from tgc.errors import ParseError, ShapeError
from tgc.ir.polynomial import Atom, Dim, Expr, Interval, Ranges, bounds, divide, extreme, remainder, symbol

__all__ = [
    "Dim",
    "Expr",
    "Interval",
    "Ranges",
    "bounds",
    "dim_max",
    "dim_min",
    "divisible",
    "evaluate",
    "parse_dim",
    "parse_dims",
    "product",
    "provably_equal",
    "substitute",
    "symbol",
    "symbols",
]

_DEEPEST = 64
_LONGEST = 1 << 16
_MOST_PRODUCTS = 256
_GREATEST = 1 << 63
_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|//|[-+*%(),]")


def product(dims: Iterable[Dim]) -> Dim:
    """The product of ``dims``, 1 if there are none."""
    result: Dim = 1
    for d in dims:
        result = result * d
    return result


def dim_max(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else extreme("max", (a, b))


def dim_min(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else extreme("min", (a, b))


def symbols(d: Dim) -> frozenset[str]:
    """The names of the symbols that ``d`` depends on."""
    if isinstance(d, int):
        return frozenset()
    found: set[str] = set()
    for monomial, _ in d.terms:
        for atom in monomial:
            if atom.op == "symbol":
                found.add(str(atom))
            else:
                found.update(*map(symbols, atom.args))
    return frozenset(found)


def evaluate(d: Dim, env: Mapping[str, int]) -> int:
    """The value of ``d``; :class:`ShapeError` if a symbol is missing or a divisor is not positive.

    >>> evaluate(symbol("n") // 2 + 1, {"n": 7})
    4
    """
    if isinstance(d, int):
        return d
    total = 0
    for monomial, coefficient in d.terms:
        for atom in monomial:
            coefficient *= _evaluate_atom(atom, env)
        total += coefficient
    return total


def substitute(d: Dim, replacements: Mapping[str, Dim]) -> Dim:
    """``d`` with symbols replaced, all at once.

    >>> substitute(symbol("n") // 2, {"n": 4 * symbol("m") + 1})
    2*m
    """
    if isinstance(d, int):
        return d
    total: Dim = 0
    for monomial, coefficient in d.terms:
        term: Dim = coefficient
        for atom in monomial:
            term = term * _substitute_atom(atom, replacements)
        total = total + term
    return total


def divisible(d: Dim, k: Dim) -> bool:
    """Whether ``d`` is provably a multiple of ``k``."""
    return d % k == 0


def provably_equal(a: Dim, b: Dim) -> bool:
    """Whether ``a`` and ``b`` are the same number for all values of their symbols, as far as can be told.

    >>> n = symbol("n")
    >>> provably_equal(n // 4 * 4 + n % 4, n)
    True
    """
    if a == b:
        return True
    difference = a - b
    return difference != 0 and _without_remainders(difference) == 0 or bounds(difference, {}) == (0, 0)


def parse_dim(text: str) -> Dim:
    """The dimension that ``text`` states, the inverse of ``str``; :class:`ParseError` if it states none.

    >>> parse_dim("max(2*n-1, 0) // 2 + 3")
    max(0,2*n-1)//2+3
    """
    dims = parse_dims(text)
    if len(dims) != 1:
        raise ParseError(f"expected one dimension in {text!r}, found {len(dims)}")
    return dims[0]


@functools.lru_cache(maxsize=4096)
def parse_dims(text: str) -> tuple[Dim, ...]:
    """The dimensions of a list separated by commas; :class:`ParseError` if it is malformed.

    >>> parse_dims("batch, 3, 2*h+1")
    (batch, 3, 2*h+1)
    """
    if len(text) > _LONGEST:
        raise ParseError(f"a list of dimensions is longer than {_LONGEST} characters")
    if not text.strip():
        return ()
    parser = _Parser(text)
    dims = [parser.sum(0)]
    while parser.take(","):
        dims.append(parser.sum(0))
    if parser.token:
        raise parser.error("an operator or the end")
    return tuple(dims)


def _without_remainders(d: Dim) -> Dim:
    """``d`` with each ``x % y`` written as ``x - x // y * y``."""
    if isinstance(d, int):
        return d
    total: Dim = 0
    for monomial, coefficient in d.terms:
        term: Dim = coefficient
        for atom in monomial:
            args = tuple(map(_without_remainders, atom.args))
            term = term * (args[0] - args[0] // args[1] * args[1] if atom.op == "%" else _apply(atom, args))
        total = total + term
    return total


def _apply(atom: Atom, args: tuple[Dim, ...]) -> Dim:
    if atom.op == "symbol":
        return Expr((((atom,), 1),))
    if atom.op == "//":
        return divide(*args)
    if atom.op == "%":
        return remainder(*args)
    return extreme(atom.op, args)


def _substitute_atom(atom: Atom, replacements: Mapping[str, Dim]) -> Dim:
    if atom.op == "symbol" and atom in replacements:
        return replacements[atom]
    return _apply(atom, tuple(substitute(a, replacements) for a in atom.args))


def _evaluate_atom(atom: Atom, env: Mapping[str, int]) -> int:
    if atom.op == "symbol":
        try:
            return env[atom]
        except KeyError:
            raise ShapeError(f"the dimension {atom!s} is not known here", hint=f"known: {', '.join(env)}") from None
    args = [evaluate(a, env) for a in atom.args]
    if atom.op == "max":
        return max(args)
    if atom.op == "min":
        return min(args)
    if args[1] <= 0:
        raise ShapeError(f"in the dimension {atom!s} the divisor is {args[1]}")
    return args[0] // args[1] if atom.op == "//" else args[0] % args[1]


class _Parser:
    """Recursive descent with Python's precedences: a minus binds tighter than a product."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start = self.end = 0
        self.advance()

    def advance(self) -> str:
        """Go to the next token, which is empty at the end; the one that was passed."""
        passed = self.text[self.start : self.end]
        self.start = self.end
        while self.start < len(self.text) and self.text[self.start].isspace():
            self.start += 1
        match = _TOKEN.match(self.text, self.start)
        if match is None and self.start < len(self.text):
            self.token = self.text[self.start]
            raise self.error("a number, a name or an operator")
        self.token = match.group() if match else ""
        self.end = self.start + len(self.token)
        return passed

    def take(self, token: str) -> bool:
        """Whether the next token is ``token``, which is then passed."""
        if self.token != token:
            return False
        self.advance()
        return True

    def error(self, expected: str) -> ParseError:
        found = repr(self.token) if self.token else "the end"
        excerpt = self.text[max(0, self.start - 30) : self.start + 30]
        return ParseError(
            f"in a dimension: expected {expected}, found {found} at column {self.start + 1} of {excerpt!r}"
        )

    def sum(self, depth: int) -> Dim:
        value = self.term(depth)
        while self.token in ("+", "-"):
            value = value + self.term(depth) if self.advance() == "+" else value - self.term(depth)
        return value

    def term(self, depth: int) -> Dim:
        value = self.factor(depth)
        while self.token in ("*", "//", "%"):
            op = self.advance()
            right = self.factor(depth)
            if op != "*" and isinstance(right, int) and right <= 0:
                raise self.error(f"a positive divisor, not {right},")
            value = self.small(value, right) if op == "*" else value // right if op == "//" else value % right
        return value

    def small(self, a: Dim, b: Dim) -> Dim:
        """The product, unless it is so large that text could keep the compiler busy with it."""
        if isinstance(a, Expr) and isinstance(b, Expr) and len(a.terms) * len(b.terms) > _MOST_PRODUCTS:
            raise self.error("smaller factors")
        result = a * b
        coefficients = [result] if isinstance(result, int) else [c for _, c in result.terms]
        if max(map(abs, coefficients)) >= _GREATEST:
            raise self.error("a product below 2**63")
        return result

    def factor(self, depth: int) -> Dim:
        if depth > _DEEPEST:
            raise self.error(f"at most {_DEEPEST} levels of nesting")
        if self.take("-"):
            return -self.factor(depth + 1)
        if self.take("("):
            value = self.sum(depth + 1)
            self.expect(")")
            return value
        if self.token[:1].isdigit():
            if len(self.token) > 19:
                raise self.error("a number of at most 19 digits")
            return int(self.advance())
        if self.token in ("max", "min"):
            return self.extreme(depth + 1)
        if not self.token or not self.token.isidentifier():
            raise self.error("a number, a name or '('")
        return symbol(self.advance())

    def extreme(self, depth: int) -> Dim:
        choose = dim_max if self.advance() == "max" else dim_min
        self.expect("(")
        value = self.sum(depth)
        while self.take(","):
            value = choose(value, self.sum(depth))
        self.expect(")")
        return value

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.error(repr(token))
