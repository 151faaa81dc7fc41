"""Which element of its operand an op of movement reads, where that is a linear function of the result's index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tgc.ir.dims import Dim
from tgc.ir.graph import Node
from tgc.kernels.indices import ZERO, Index
from tgc.ops import rules

Coordinates = tuple[Index, ...]
Divide = Callable[[Index, Dim], tuple[Index, Index]]


def _broadcast(node: Node, at: Coordinates) -> Coordinates:
    axes = rules.integers(node.attributes, "axes")
    shape = node.operands[0].shape
    return tuple([ZERO if d == 1 else at[a] for a, d in zip(axes, shape, strict=True)])


def _transpose(node: Node, at: Coordinates) -> Coordinates:
    read = [ZERO] * len(at)
    for source, index in zip(rules.integers(node.attributes, "permutation"), at, strict=True):
        read[source] = index
    return tuple(read)


def _slice(node: Node, at: Coordinates) -> Coordinates:
    start, step = rules.dims(node.attributes, "start"), rules.integers(node.attributes, "step")
    return tuple([i.scaled(by).shifted(low) for i, low, by in zip(at, start, step, strict=True)])


def _reverse(node: Node, at: Coordinates) -> Coordinates:
    axes, shape = rules.integers(node.attributes, "axes"), node.types[0].shape
    return tuple([i.scaled(-1).shifted(shape[a] - 1) if a in axes else i for a, i in enumerate(at)])


def _same(node: Node, at: Coordinates) -> Coordinates:
    return at


LINEAR: Final[Mapping[str, Callable[[Node, Coordinates], Coordinates]]] = MappingProxyType(
    {
        "broadcast": _broadcast,
        "transpose": _transpose,
        "slice": _slice,
        "reverse": _reverse,
        "relayout": _same,
    }
)


def reshaped(node: Node, at: Coordinates, divide: Divide) -> Coordinates:
    """The operand's index of a reshape.

    Runs of dimensions of equal size are matched, so that only those that are really taken apart need a division.
    """
    source, target = node.operands[0].shape, node.types[0].shape
    old = [d for d, size in enumerate(source) if size != 1]
    new = [d for d, size in enumerate(target) if size != 1]
    read = [ZERO] * len(source)
    while old or new:
        m, n = _run([source[d] for d in old], [target[d] for d in new])
        flat = ZERO
        for d in new[:n]:
            flat = flat.scaled(target[d]).plus(at[d])
        for d in reversed(old[1:m]):
            flat, read[d] = divide(flat, source[d])
        if m:
            read[old[0]] = flat
        old, new = old[m:], new[n:]
    return tuple(read)


def _run(source: Sequence[Dim], target: Sequence[Dim]) -> tuple[int, int]:
    """How many leading dimensions have the same product on both sides: the fewest for which that can be proven."""
    total: Dim = 1
    for m, size in enumerate(source, 1):
        total = total * size
        other: Dim = 1
        for n, d in enumerate(target, 1):
            other = other * d
            if total == other:
                return m, n
    return len(source), len(target)


def divides_nothing(node: Node) -> bool:
    """Whether a reshape only adds or drops dimensions of size 1, or joins dimensions."""
    old = [d for d in node.operands[0].shape if d != 1]
    new = [d for d in node.types[0].shape if d != 1]
    while old and new:
        m, n = _run(old, new)
        if m > 1:
            return False
        old, new = old[m:], new[n:]
    return not old
