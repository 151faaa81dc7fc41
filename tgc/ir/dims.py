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
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from tgc.errors import ParseError, ShapeError

Op = Literal["symbol", "//", "%", "max", "min"]
Interval: TypeAlias = tuple[int | None, int | None]
Ranges: TypeAlias = Mapping[str, tuple[int, int | None]]

_MOST_PRODUCTS = 1 << 14
_DEEPEST = 64
_LONGEST = 1 << 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*)|([0-9]+)|(//|[-+*%(),]))")


class Atom(str):
    """What a polynomial is built of: a symbol, or an operation that polynomials do not have.

    An atom *is* its canonical text, so that comparing, hashing and ordering monomials costs what strings cost.
    """

    __slots__ = ("args", "op")
    op: Op
    args: tuple[Dim, ...]

    def __new__(cls, text: str, op: Op, args: tuple[Dim, ...] = ()) -> Atom:
        atom = super().__new__(cls, text)
        atom.op = op
        atom.args = args
        return atom

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Atom, (str(self), self.op, self.args))


Monomial: TypeAlias = tuple[Atom, ...]
Terms: TypeAlias = tuple[tuple[Monomial, int], ...]


class Expr:
    """A dimension that is not a constant: a sum of integer multiples of products of atoms, highest degree first.

    >>> str(2 * symbol("h") + 1)
    '2*h+1'
    """

    __slots__ = ("_hash", "_text", "terms")
    __array_ufunc__ = None
    terms: Final[Terms]

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self._text: str | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is Expr and self._hash == other._hash and self.terms == other.terms)

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        if self._text is None:
            self._text = _print(self.terms)
        return self._text

    __repr__ = __str__

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Expr, (self.terms,))

    def __add__(self, other: Dim) -> Dim:
        return _add(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _add(self, other, -1)

    def __rsub__(self, other: Dim) -> Dim:
        return _add(-self, other, 1)

    def __neg__(self) -> Expr:
        return Expr(tuple((monomial, -c) for monomial, c in self.terms))

    def __mul__(self, other: Dim) -> Dim:
        return _multiply(self.terms, _terms(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return _divide(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return _divide(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return _remainder(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return _remainder(other, self)


Dim: TypeAlias = int | Expr


@functools.lru_cache(maxsize=1024)
def symbol(name: str) -> Expr:
    """The dimension that is known by ``name``; :class:`ShapeError` unless it is an ASCII identifier but max and min."""
    if not _NAME.fullmatch(name) or name in ("max", "min"):
        raise ShapeError(f"{name!r} is no name for a dimension", hint="take letters, digits and underscores")
    return Expr((((Atom(name, "symbol"),), 1),))


def product(dims: Iterable[Dim]) -> Dim:
    """The product of ``dims``, 1 if there are none."""
    result: Dim = 1
    for d in dims:
        result = result * d
    return result


def dim_max(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else _extreme("max", (a, b))


def dim_min(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else _extreme("min", (a, b))


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


def bounds(d: Dim, ranges: Ranges) -> Interval:
    """Least and greatest value that ``d`` can have, None where unbounded or not known.

    Symbols that ``ranges`` does not name are >= 0. The bounds are true, but not always tight.

    >>> n = symbol("n")
    >>> bounds(2 * n + 1, {"n": (1, 8)}), bounds(n - n // 2, {}), bounds(-n % 4, {})
    ((3, 17), (0, None), (0, 3))
    """
    if isinstance(d, int):
        return d, d
    upper = _lower(-d, ranges, 8)
    return _lower(d, ranges, 8), None if upper is None else -upper


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


# -- normal form -------------------------------------------------------------------------------------------------


def _terms(d: Dim) -> Terms:
    if type(d) is Expr:
        return d.terms
    value = int(operator.index(d))  # type: ignore[arg-type]
    return (((), value),) if value else ()


def _order(term: tuple[Monomial, int]) -> tuple[int, Monomial]:
    return -len(term[0]), term[0]


def _from_terms(collected: Mapping[Monomial, int]) -> Dim:
    terms = [term for term in collected.items() if term[1]]
    if not terms:
        return 0
    if len(terms) == 1:
        return Expr((terms[0],)) if terms[0][0] else terms[0][1]
    terms.sort(key=_order)
    return Expr(tuple(terms))


def _from_atom(text: str, op: Op, args: tuple[Dim, ...]) -> Expr:
    return Expr((((Atom(text, op, args),), 1),))


def _add(a: Dim, b: Dim, sign: int) -> Dim:
    collected = dict(_terms(a))
    for monomial, c in _terms(b):
        collected[monomial] = collected.get(monomial, 0) + sign * c
    return _from_terms(collected)


def _multiply(a: Terms, b: Terms) -> Dim:
    if len(a) * len(b) > _MOST_PRODUCTS:
        raise ShapeError(f"a product of dimensions with {len(a)} and {len(b)} terms is too large")
    collected: dict[Monomial, int] = {}
    for left, c in a:
        for right, k in b:
            monomial = tuple(sorted(left + right)) if left and right else left or right
            collected[monomial] = collected.get(monomial, 0) + c * k
    return _from_terms(collected)


def _check_divisor(d: Dim) -> Dim:
    if isinstance(d, Expr):
        return d
    value = int(operator.index(d))
    if value <= 0:
        raise ShapeError(f"a dimension is divided by {value}", hint="the divisor must be positive")
    return value


def _divide(a: Dim, b: Dim) -> Dim:
    b = _check_divisor(b)
    terms = _terms(a)
    if isinstance(b, Expr):
        return _divide_by_expr(terms, b)
    whole = {monomial: c // b for monomial, c in terms if c % b == 0}
    rest = [(monomial, c) for monomial, c in terms if c % b]
    if not rest:
        return _from_terms(whole)
    if rest[0][1] < 0 and rest[0][0]:
        # floor(x/b) = -ceil(-x/b), so that -(-n//4) and (n+3)//4 are one
        return _from_terms(whole) - _divide(_from_terms({m: -c for m, c in rest}) + (b - 1), b)
    whole.update((monomial, c // b) for monomial, c in rest)
    rest = [(monomial, c % b) for monomial, c in rest]
    # floor((g x + c) / (g b)) = floor((x + floor(c/g)) / b)
    g = math.gcd(b, *(c for monomial, c in rest if monomial))
    return _from_terms(whole) + _divide_reduced(_from_terms({monomial: c // g for monomial, c in rest}), b // g)


def _divide_reduced(a: Dim, b: int) -> Dim:
    """``a // b``, where the coefficients of ``a`` are less than ``b`` and not negative."""
    if isinstance(a, int) or b == 1:
        return a // b
    for i, (monomial, c) in enumerate(a.terms):
        if c == 1 and len(monomial) == 1 and monomial[0].op == "//" and isinstance(monomial[0].args[1], int):
            # floor((floor(x/k) + y) / b) = floor((x + k y) / (k b))
            inner, k = monomial[0].args[0], monomial[0].args[1]
            return _divide(inner + k * _from_terms(dict(a.terms[:i] + a.terms[i + 1 :])), k * b)
    low, high = bounds(a, {})
    if low is not None and high is not None and low // b == high // b:
        return low // b
    return _from_atom(f"{_operand(a)}//{b}", "//", (a, b))


def _divide_by_expr(a: Terms, b: Expr) -> Dim:
    exact = _divide_exactly(a, b)
    if exact is not None:
        return exact
    whole, rest = _split(a, b)
    # common factors cancel: they are not 0, or the divisor would be
    common = functools.reduce(_common, (monomial for monomial, _ in rest + b.terms))
    g = math.gcd(*(c for _, c in rest + b.terms))
    divisor = _from_terms({_without(monomial, common): c // g for monomial, c in b.terms})
    numerator = _from_terms({_without(monomial, common): c // g for monomial, c in rest})
    if isinstance(divisor, int):
        return whole + _divide(numerator, divisor)
    return whole + _from_atom(f"{_operand(numerator)}//{_operand(divisor, divisor=True)}", "//", (numerator, divisor))


def _split(a: Terms, b: Expr) -> tuple[Dim, Terms]:
    """The multiples of ``b`` in ``a``, divided by ``b``, and what remains; only a ``b`` of one term is looked for."""
    (factor, k), *others = b.terms
    if others or k < 0:
        return 0, a
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, c in a:
        if _common(monomial, factor) == factor:
            whole[_without(monomial, factor)] = c // k
            c %= k
        rest[monomial] = c
    return _from_terms(whole), tuple(term for term in rest.items() if term[1])


def _divide_exactly(a: Terms, b: Expr) -> Dim | None:
    """The polynomial ``q`` with ``q * b == a``, or None if there is none."""
    remaining = dict(a)
    quotient: dict[Monomial, int] = {}
    factor, k = b.terms[0]
    while remaining:
        lead, c = min(remaining.items(), key=_order)
        if c % k or _common(lead, factor) != factor or len(quotient) > len(a):
            return None
        monomial = _without(lead, factor)
        quotient[monomial] = c // k
        for other, coefficient in b.terms:
            target = tuple(sorted(monomial + other))
            value = remaining.pop(target, 0) - c // k * coefficient
            if value:
                remaining[target] = value
    return _from_terms(quotient)


def _common(a: Monomial, b: Monomial) -> Monomial:
    rest = list(b)
    shared = []
    for atom in a:
        if atom in rest:
            rest.remove(atom)
            shared.append(atom)
    return tuple(shared)


def _without(a: Monomial, b: Monomial) -> Monomial:
    rest = list(a)
    for atom in b:
        rest.remove(atom)
    return tuple(rest)


def _remainder(a: Dim, b: Dim) -> Dim:
    b = _check_divisor(b)
    if isinstance(b, Expr):
        if _divide_exactly(_terms(a), b) is not None:
            return 0
        numerator = _from_terms(dict(_split(_terms(a), b)[1]))
        return _from_atom(f"{_operand(numerator)}%{_operand(b, divisor=True)}", "%", (numerator, b))
    total: Dim = 0
    for monomial, c in _terms(a):
        # the residue nearest 0, so that -n%4 stays what it is
        residue = c % b if not monomial or 2 * (c % b) <= b else c % b - b
        inner = monomial[0].args if len(monomial) == 1 and monomial[0].op == "%" else ()
        if inner and divisible(inner[1], b):
            total = total + _remainder(residue * inner[0], b)
        else:
            total = total + _from_terms({monomial: residue})
    if isinstance(total, int):
        return total % b
    if total.terms != _terms(a):
        return _remainder(total, b)
    # (g x + c) mod (g b) = g ((x + floor(c/g)) mod b) + c mod g
    g = math.gcd(b, *(c for monomial, c in total.terms if monomial))
    offset = next((c for monomial, c in total.terms if not monomial), 0) % g
    reduced, modulus = _from_terms({monomial: c // g for monomial, c in total.terms}), b // g
    low, high = bounds(reduced, {})
    if low is not None and high is not None and low // modulus == high // modulus:
        return g * (reduced - low // modulus * modulus) + offset
    return g * _from_atom(f"{_operand(reduced)}%{modulus}", "%", (reduced, modulus)) + offset


def _extreme(op: Literal["max", "min"], candidates: Sequence[Dim]) -> Dim:
    """The largest or smallest of ``candidates``, without those that another one provably dominates."""
    flat: list[Dim] = []
    for d in candidates:
        lone = d.terms[0][0] if isinstance(d, Expr) and len(d.terms) == 1 and d.terms[0][1] == 1 else ()
        flat += lone[0].args if len(lone) == 1 and lone[0].op == op else (d,)
    kept: list[Dim] = []
    for d in flat:
        if any(_dominates(op, other, d) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(op, d, other)] + [d]
    if len(kept) == 1:
        return kept[0]
    kept.sort(key=str)
    return _from_atom(f"{op}({','.join(map(str, kept))})", op, tuple(kept))


def _dominates(op: Literal["max", "min"], a: Dim, b: Dim) -> bool:
    difference = a - b if op == "max" else b - a
    return (difference if isinstance(difference, int) else _lower(difference, {}, 8) or -1) >= 0


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


# -- meaning -----------------------------------------------------------------------------------------------------


def _apply(atom: Atom, args: tuple[Dim, ...]) -> Dim:
    if atom.op == "symbol":
        return Expr((((atom,), 1),))
    if atom.op == "//":
        return _divide(*args)
    if atom.op == "%":
        return _remainder(*args)
    return _extreme(atom.op, args)


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
