"""Polynomials with integer coefficients over symbols, floor divisions, remainders, maxima and minima.

The normal form and the arithmetic behind :mod:`tgc.ir.dims`, which is what others import.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from tgc.errors import ShapeError
from tgc.ir.monomials import common, divide_exactly, order, without

Op = Literal["symbol", "//", "%", "max", "min"]
Interval: TypeAlias = tuple[int | None, int | None]
Ranges: TypeAlias = Mapping[str, tuple[int, int | None]]

_MOST_PRODUCTS = 1 << 14
_RELAXATIONS = 8
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
        return divide(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return divide(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return remainder(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return remainder(other, self)


Dim: TypeAlias = int | Expr


@functools.lru_cache(maxsize=1024)
def symbol(name: str) -> Expr:
    """The dimension that is known by ``name``; :class:`ShapeError` unless it is an ASCII identifier but max and min."""
    if not _NAME.fullmatch(name) or name in ("max", "min"):
        raise ShapeError(f"{name!r} is no name for a dimension", hint="take letters, digits and underscores")
    return Expr((((Atom(name, "symbol"),), 1),))


def _terms(d: Dim) -> Terms:
    if type(d) is Expr:
        return d.terms
    value = int(operator.index(d))  # type: ignore[arg-type]
    return (((), value),) if value else ()


def _from_terms(collected: Mapping[Monomial, int]) -> Dim:
    terms = [term for term in collected.items() if term[1]]
    if not terms:
        return 0
    if len(terms) == 1:
        return Expr((terms[0],)) if terms[0][0] else terms[0][1]
    terms.sort(key=order)
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


def divide(a: Dim, b: Dim) -> Dim:
    """``a // b``; :class:`ShapeError` for a constant ``b`` that is not positive."""
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
        return _from_terms(whole) - divide(_from_terms({m: -c for m, c in rest}) + (b - 1), b)
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
            return divide(inner + k * _from_terms(dict(a.terms[:i] + a.terms[i + 1 :])), k * b)
    low, high = bounds(a, {}) if any(atom.op != "symbol" for m, _ in a.terms for atom in m) else (0, None)
    if low is not None and high is not None and low // b == high // b:
        return low // b
    return _from_atom(f"{_operand(a)}//{b}", "//", (a, b))


def _divide_by_expr(a: Terms, b: Expr) -> Dim:
    exact = divide_exactly(a, b.terms)
    if exact is not None:
        return _from_terms(exact)
    whole, rest = _split(a, b)
    # common factors cancel: they are not 0, or the divisor would be
    shared = functools.reduce(common, (monomial for monomial, _ in rest + b.terms))
    g = math.gcd(*(c for _, c in rest + b.terms))
    divisor = _from_terms({without(monomial, shared): c // g for monomial, c in b.terms})
    numerator = _from_terms({without(monomial, shared): c // g for monomial, c in rest})
    if isinstance(divisor, int):
        return whole + divide(numerator, divisor)
    return whole + _from_atom(f"{_operand(numerator)}//{_operand(divisor, divisor=True)}", "//", (numerator, divisor))


def _split(a: Terms, b: Expr) -> tuple[Dim, Terms]:
    """The multiples of ``b`` in ``a``, divided by ``b``, and what remains; only a ``b`` of one term is looked for."""
    (factor, k), *others = b.terms
    if others or k < 0:
        return 0, a
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, c in a:
        if common(monomial, factor) == factor:
            whole[without(monomial, factor)] = c // k
            c %= k
        rest[monomial] = c
    return _from_terms(whole), tuple(term for term in rest.items() if term[1])


def remainder(a: Dim, b: Dim) -> Dim:
    """``a % b``; :class:`ShapeError` for a constant ``b`` that is not positive."""
    b = _check_divisor(b)
    if isinstance(b, Expr):
        if divide_exactly(_terms(a), b.terms) is not None:
            return 0
        numerator = _from_terms(dict(_split(_terms(a), b)[1]))
        return _from_atom(f"{_operand(numerator)}%{_operand(b, divisor=True)}", "%", (numerator, b))
    total: Dim = 0
    for monomial, c in _terms(a):
        # the residue nearest 0, so that -n%4 stays what it is
        residue = c % b if not monomial or 2 * (c % b) <= b else c % b - b
        inner = monomial[0].args if len(monomial) == 1 and monomial[0].op == "%" else ()
        total = total + (residue * inner[0] if inner and inner[1] % b == 0 else _from_terms({monomial: residue}))
    if isinstance(total, int):
        return total % b
    if total.terms != _terms(a):
        return remainder(total, b)
    # (g x + c) mod (g b) = g ((x + floor(c/g)) mod b) + c mod g
    g = math.gcd(b, *(c for monomial, c in total.terms if monomial))
    offset = next((c for monomial, c in total.terms if not monomial), 0) % g
    reduced, modulus = _from_terms({monomial: c // g for monomial, c in total.terms}), b // g
    low, high = bounds(reduced, {})
    if low is not None and high is not None and low // modulus == high // modulus:
        return g * (reduced - low // modulus * modulus) + offset
    return g * _from_atom(f"{_operand(reduced)}%{modulus}", "%", (reduced, modulus)) + offset


def extreme(op: Literal["max", "min"], candidates: Iterable[Dim]) -> Dim:
    """The largest or smallest of ``candidates``, without those that another one provably dominates."""
    flat: list[Dim] = []
    for d in candidates:
        lone = d.terms[0][0] if isinstance(d, Expr) and len(d.terms) == 1 and d.terms[0][1] == 1 else ()
        flat += lone[0].args if len(lone) == 1 and lone[0].op == op else (d,)
    kept: list[Dim] = []
    flat.sort(key=str)
    for d in flat:
        if any(_dominates(op, other, d) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(op, d, other)] + [d]
    if len(kept) == 1:
        return kept[0]
    return _from_atom(f"{op}({','.join(map(str, kept))})", op, tuple(kept))


def _dominates(op: Literal["max", "min"], a: Dim, b: Dim) -> bool:
    low = _lower(a - b if op == "max" else b - a, {}, _RELAXATIONS)
    return low is not None and low >= 0


def bounds(d: Dim, ranges: Ranges) -> Interval:
    """Least and greatest value that ``d`` can have, None where unbounded or not known.

    Symbols that ``ranges`` does not name are >= 0. The bounds are true, but not always tight.

    >>> n = symbol("n")
    >>> bounds(2 * n + 1, {"n": (1, 8)}), bounds(n - n // 2, {}), bounds(-n % 4, {})
    ((3, 17), (0, None), (0, 3))
    """
    if isinstance(d, int):
        return d, d
    upper = _lower(-d, ranges, _RELAXATIONS)
    return _lower(d, ranges, _RELAXATIONS), None if upper is None else -upper


def _lower(d: Dim, ranges: Ranges, depth: int) -> int | None:
    if isinstance(d, int):
        return d
    best: int | None = 0
    for monomial, c in d.terms:
        interval: Interval = (1, 1)
        for atom in monomial:
            interval = _times(interval, _atom_bounds(atom, ranges))
        end = interval[0] if c > 0 else interval[1]
        best = None if best is None or end is None else best + c * end
    if depth:
        for term in d.terms:
            if len(term[0]) == 1 and term[0][0].op != "symbol" and len(d.terms) > 1:
                better = _relaxed_lower(d, term[0][0], term[1], ranges, depth - 1)
                if better is not None and (best is None or better > best):
                    best = better
                break
    return best


def _relaxed_lower(d: Expr, atom: Atom, c: int, ranges: Ranges, depth: int) -> int | None:
    """A lower bound of ``d`` that sees how ``c * atom`` in it depends on the other terms."""
    rest = d - c * Expr((((atom,), 1),))
    if atom.op in ("max", "min"):
        ends = [_lower(rest + c * a, ranges, depth) for a in atom.args]
        known = [end for end in ends if end is not None]
        if (atom.op == "max") == (c > 0):
            return max(known, default=None)
        return min(known) if len(known) == len(ends) else None
    x, y = atom.args
    if atom.op == "//" and isinstance(y, int):
        # x - y + 1 <= y floor(x/y) <= x
        scaled = _lower(y * rest + c * (x if c < 0 else x - y + 1), ranges, depth)
        return None if scaled is None else -(-scaled // y)
    low = _lower(x, ranges, depth)
    if atom.op == "%" and c < 0 and low is not None and low >= 0:
        return _lower(rest + c * x, ranges, depth)
    return None


def _times(a: Interval, b: Interval) -> Interval:
    if (0, 0) in (a, b):
        return 0, 0
    if a[0] is None or b[0] is None:
        return None, None
    if a[1] is not None and b[1] is not None:
        ends = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
        return min(ends), max(ends)
    return (a[0] * b[0], None) if a[0] >= 0 and b[0] >= 0 else (None, None)


def _atom_bounds(atom: Atom, ranges: Ranges) -> Interval:
    if atom.op == "symbol":
        return ranges.get(atom, (0, None))
    intervals = [bounds(a, ranges) for a in atom.args]
    lows, highs = [i[0] for i in intervals], [i[1] for i in intervals]
    if atom.op == "max":
        known = [low for low in lows if low is not None]
        return max(known, default=None), None if None in highs else max(h for h in highs if h is not None)
    if atom.op == "min":
        known = [high for high in highs if high is not None]
        return None if None in lows else min(low for low in lows if low is not None), min(known, default=None)
    low, high = intervals[0]
    least, most = max(lows[1] or 1, 1), highs[1]
    if atom.op == "%":
        ends = (high if low is not None and low >= 0 else None, None if most is None else most - 1)
        return 0, min((end for end in ends if end is not None), default=None)
    # the quotient is nearest 0 for the greatest divisor
    if low is not None:
        low = low // least if low < 0 else 0 if most is None else low // max(most, 1)
    if high is not None:
        high = high // least if high >= 0 else -1 if most is None else high // max(most, 1)
    return low, high


def _print(terms: Terms) -> str:
    parts: list[str] = []
    for monomial, c in terms:
        factors = [str(abs(c))] if abs(c) != 1 or not monomial else []
        bare = len(monomial) == 1 and c == 1
        factors += [str(atom) if bare or atom.op not in ("//", "%") else f"({atom})" for atom in monomial]
        parts.append(("-" if c < 0 else "+" if parts else "") + "*".join(factors))
    return "".join(parts)


def _operand(d: Dim, *, divisor: bool = False) -> str:
    """The text of ``d`` as an operand of a division, in parentheses where they are needed."""
    if isinstance(d, int):
        return str(d) if d >= 0 else f"({d})"
    (monomial, c), *others = d.terms
    bare = not others and c > 0 and all(atom.op not in ("//", "%") for atom in monomial)
    if divisor:
        bare = bare and c == 1 and len(monomial) == 1
    return str(d) if bare else f"({d})"
