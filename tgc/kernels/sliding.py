"""How convolutions slide, one spatial dimension at a time, as a schedule sees it.

A convolution and its input gradient are the same computation: positions of the result, sorted by phase, meet taps of
the filter at affine places of the source. A forward convolution has one phase; the gradient of one with stride s has
s of them, each of which meets every s-th tap or so: gather form, nothing is added to memory twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

from tgc.ir.dims import Dim
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import ceil_divide
from tgc.kernels.ir import Value


@dataclass(frozen=True, slots=True)
class Phase:
    """Taps ``start`` to ``start + count``, in packed order; the first one meets the source ``first`` after its
    place."""

    start: int
    count: int
    first: int


@dataclass(frozen=True, slots=True)
class Sliding:
    """One spatial dimension.

    Position q of phase f is element ``q * out_step + f`` of the result. Its j-th tap, which is tap
    ``order[start + j]`` of the filter, meets element ``q * in_step + first + j * tap_step`` of the source.
    """

    source: Dim
    result: Dim
    in_step: int
    out_step: int
    tap_step: int
    order: tuple[int, ...]
    phases: tuple[Phase, ...]

    @property
    def positions(self) -> Dim:
        """Positions of the phase that has most of them."""
        return ceil_divide(self.result, self.out_step)

    @property
    def low(self) -> int:
        """The least place that a tap meets, from a position's own place on."""
        return min((p.first for p in self.phases if p.count), default=0)

    @property
    def span(self) -> int:
        """How many elements of the source the taps of one position reach over, all phases together."""
        high = max((p.first + (p.count - 1) * self.tap_step for p in self.phases if p.count), default=0)
        return high - self.low + 1

    def extent(self, positions: int) -> int:
        """How many elements of the source that many neighbouring positions reach over."""
        return (positions - 1) * self.in_step + self.span


def forward(source: Dim, result: Dim, taps: int, stride: int, low: int, dilation: int) -> Sliding:
    """The dimension of a convolution with ``low`` zeros before its source.

    >>> forward(28, 28, 3, 1, 1, 1).phases
    (Phase(start=0, count=3, first=-1),)
    """
    return Sliding(source, result, stride, 1, dilation, tuple(range(taps)), (Phase(0, taps, -low),))


def backward(source: Dim, result: Dim, taps: int, stride: int, low: int, dilation: int) -> Sliding:
    """The dimension of the input gradient of that convolution: ``source`` is its result's size, ``result`` its input's.

    >>> backward(14, 28, 3, 2, 1, 1).phases
    (Phase(start=0, count=1, first=0), Phase(start=1, count=2, first=0))
    >>> backward(14, 28, 3, 2, 1, 1).order
    (1, 2, 0)
    """
    order: list[int] = []
    phases = []
    for phase in range(stride):
        met = [k for k in reversed(range(taps)) if (phase + low - k * dilation) % stride == 0]
        first = (phase + low - met[0] * dilation) // stride if met else 0
        phases.append(Phase(len(order), len(met), first))
        order += met
    return Sliding(source, result, 1, stride, dilation // gcd(stride, dilation), tuple(order), tuple(phases))


def looked_up(builder: KernelBuilder, index: Value, table: Sequence[int]) -> Value:
    """Entry ``index`` of a short table of constants."""
    steps = {b - a for a, b in pairwise(table)}
    if len(steps) <= 1:
        return builder.add(builder.mul(index, steps.pop() if steps else 0), table[0])
    found = builder.index(table[-1])
    for i, entry in enumerate(table[:-1]):
        found = builder.select(builder.compare("eq", index, i), builder.index(entry), found)
    return found
