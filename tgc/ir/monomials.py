"""Products of indeterminates, and division of polynomials made of them, apart from what the indeterminates mean.

A monomial is a sorted tuple of strings, a factor as often as its power; a polynomial a sequence of pairs (monomial,
coefficient), highest degree first (graded lexicographic order).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

A = TypeVar("A", bound=str)


def order(term: tuple[tuple[A, ...], int]) -> tuple[int, tuple[A, ...]]:
    """The key that sorts terms, the leading one first."""
    return -len(term[0]), term[0]


def common(a: tuple[A, ...], b: tuple[A, ...]) -> tuple[A, ...]:
    """The greatest common divisor.

    >>> common(("n", "n", "w"), ("h", "n", "w"))
    ('n', 'w')
    """
    rest = list(b)
    shared = []
    for factor in a:
        if factor in rest:
            rest.remove(factor)
            shared.append(factor)
    return tuple(shared)


def without(a: tuple[A, ...], b: tuple[A, ...]) -> tuple[A, ...]:
    """``a`` divided by ``b``, which divides it."""
    rest = list(a)
    for factor in b:
        rest.remove(factor)
    return tuple(rest)


def divide_exactly(
    a: Sequence[tuple[tuple[A, ...], int]], b: Sequence[tuple[tuple[A, ...], int]]
) -> dict[tuple[A, ...], int] | None:
    """The polynomial ``q`` with ``q * b == a`` and integer coefficients, or None if there is none.

    >>> n, h = ("n",), ("h",)
    >>> divide_exactly([(("h", "n"), 2), (n, 2)], [(h, 1), ((), 1)])
    {('n',): 2}
    """
    remaining = dict(a)
    quotient: dict[tuple[A, ...], int] = {}
    factor, k = b[0]
    while remaining:
        lead, c = min(remaining.items(), key=order)
        if c % k or common(lead, factor) != factor:
            return None
        monomial = without(lead, factor)
        quotient[monomial] = c // k
        for other, coefficient in b:
            target = tuple(sorted(monomial + other))
            value = remaining.pop(target, 0) - c // k * coefficient
            if value:
                remaining[target] = value
    return quotient
