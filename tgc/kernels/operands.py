"""What a product multiplies: a parameter of the region, read where it lies, or maps of parameters, computed on the way.

A computed operand is planned as if it lay in memory as its type says, so that joining what makes it changes neither
the loops nor the order of the sum. Only how it is read follows what it is computed from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from tgc.dtypes import DType
from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.indices import ZERO, Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.spaces import Pattern, pattern
from tgc.ops import rules


def is_parameter(value: graph.Value) -> bool:
    """Whether a region's value lies in memory."""
    return value.node.op == "parameter"


def parameter_buffer(evaluator: Evaluator, value: graph.Value) -> Buffer:
    """The buffer of a value that is a parameter."""
    return evaluator.parameter(rules.integer(value.node.attributes, "index"))


def accesses(value: graph.Value, table: OpTable) -> Pattern:
    """What is read to compute a value, over the numbers of its dimensions."""
    return pattern([(value, tuple(Index(((d, 1),)) for d in range(len(value.shape))))], table)


def main_strides(found: Pattern, rank: int) -> tuple[Dim, ...]:
    """The distances between neighbours in what most of a value's dimensions are read from."""
    widest = max((dict(offset.terms) for offset in found.offsets), key=len, default={})
    return tuple(widest.get(d, 0) for d in range(rank))


@dataclass(frozen=True)
class Operand:
    """A value of the region, a letter for each of its dimensions, and distances in its buffer along letters.

    ``strides`` has merged letters too; letters of size 1 are missing. ``accesses``: None for a parameter.
    """

    value: graph.Value
    letters: str
    strides: Mapping[str, Dim]
    origin: Dim
    accesses: Pattern | None

    @property
    def dtype(self) -> DType:
        return self.value.dtype

    @property
    def computed(self) -> bool:
        return self.accesses is not None

    def stride(self, letter: str) -> Dim:
        return self.strides.get(letter, 0)

    def reading_stride(self, letter: str) -> Dim:
        """The distance between neighbours in the memory that is read; -1 if there is no such distance."""
        if self.accesses is None or letter not in self.strides:
            return self.stride(letter)
        if not self._nests(letter):
            return -1
        return main_strides(self.accesses, len(self.letters))[self.letters.index(letter[-1])]

    def buffer(self, evaluator: Evaluator) -> Buffer:
        """Where a parameter lies."""
        return parameter_buffer(evaluator, self.value)

    def offset(self, at: Mapping[str, Index]) -> Index:
        """Where an element of a parameter lies, given the index of each letter."""
        total = Index(constant=self.origin)
        for letter, index in at.items():
            total = total.plus(index.scaled(self.stride(letter)))
        return total

    def read(self, evaluator: Evaluator, at: Mapping[str, Index], lanes: int, count: Value | None) -> Value:
        """``lanes`` elements, given the index of each letter; a scalar if they are all the same."""
        point = evaluator.point(lanes, count)
        if self.accesses is None:
            return point.load(self.buffer(evaluator), self.offset(at))
        sizes = dict(zip(self.letters, self.value.shape, strict=True))
        found: dict[str, Index] = {}
        for merged, index in at.items():
            if merged not in self.strides:
                continue
            rest = index
            if not self._nests(merged):
                for letter in reversed(merged[1:]):
                    rest, found[letter] = evaluator.divide(rest, sizes[letter], lanes)
                found[merged[0]] = rest
            else:
                found[merged[-1]] = rest
        return point.value(self.value, tuple(found.get(c, ZERO) for c in self.letters))

    def _nests(self, merged: str) -> bool:
        """Whether the last of the merged letters can count for all of them in everything that is read."""
        if len(merged) == 1 or self.accesses is None:
            return True
        numbers = [self.letters.index(c) for c in merged]
        if self.accesses.pinned.intersection(numbers):
            return False
        shape = self.value.shape
        return all(
            terms.get(outer, 0) == terms.get(inner, 0) * shape[inner]
            for terms in (dict(offset.terms) for offset in self.accesses.offsets)
            for outer, inner in pairwise(numbers)
        )
