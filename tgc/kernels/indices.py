"""Indices as linear forms over loop variables, so that the stride of every access is known before code is emitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgc.ir.dims import Dim

Terms = tuple[tuple[int, Dim], ...]


@dataclass(frozen=True, slots=True)
class Index:
    """``constant + Σ coefficient · scalar + lane · (number of the lane) + Σ coefficient · vector``.

    ``terms`` and ``vectors`` hold (number of an i64 value, coefficient) in increasing order of the numbers. An index
    with neither ``lane`` nor ``vectors`` is uniform: the same in every lane.

    >>> i = Index(((7, 4),), constant=1)
    >>> i.scaled(3).plus(Index(((9, 1),), lane=1))
    Index(terms=((7, 12), (9, 1)), constant=3, lane=1, vectors=())
    """

    terms: Terms = ()
    constant: Dim = 0
    lane: Dim = 0
    vectors: Terms = ()

    @property
    def uniform(self) -> bool:
        return not self.vectors and self.lane == 0

    @property
    def is_constant(self) -> bool:
        return not self.terms and self.uniform

    def plus(self, other: Index) -> Index:
        if not other.terms and not other.vectors and other.lane == 0:
            return self.shifted(other.constant)
        return Index(
            _sum(self.terms, other.terms),
            self.constant + other.constant,
            self.lane + other.lane,
            _sum(self.vectors, other.vectors),
        )

    def shifted(self, by: Dim) -> Index:
        return self if by == 0 else Index(self.terms, self.constant + by, self.lane, self.vectors)

    def scaled(self, by: Dim) -> Index:
        if by == 1:
            return self
        if by == 0:
            return ZERO
        return Index(_scaled(self.terms, by), self.constant * by, self.lane * by, _scaled(self.vectors, by))

    def depends_on(self, number: int) -> bool:
        """Whether a value takes part."""
        return any(n == number for n, _ in self.terms) or any(n == number for n, _ in self.vectors)


ZERO = Index()


def _scaled(terms: Terms, by: Dim) -> Terms:
    return tuple([(number, coefficient * by) for number, coefficient in terms])


def _sum(a: Terms, b: Terms) -> Terms:
    if not a or not b:
        return a or b
    total = dict(a)
    for number, coefficient in b:
        total[number] = total.get(number, 0) + coefficient
    return tuple(sorted([(n, c) for n, c in total.items() if c != 0]))


def inner(coordinates: Sequence[Index], strides: Sequence[Dim], origin: Dim = 0) -> Index:
    """``origin + Σ coordinate · stride``."""
    total = Index(constant=origin)
    for coordinate, stride in zip(coordinates, strides, strict=True):
        total = total.plus(coordinate.scaled(stride))
    return total
