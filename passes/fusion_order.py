"""In which order groups of nodes can run, and which may merge without waiting for each other in a circle.

Every group has a position behind those of the groups that it reads. Merging two of them only concerns what stands
between their positions: as far as the second needs it, it moves in front of what reads the first (after D. J. Pearce,
P. H. J. Kelly: "A dynamic topological sort algorithm for directed acyclic graphs", 2006). Most groups read what was
made shortly before, so that fusing a graph takes time in proportion to its size.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import count

from passes.fusion_groups import Group
from tgc.ir.graph import Node

# groups to look at before giving up: it bounds the time that a pair takes in any graph
_MOST_BETWEEN = 1000


@dataclass(frozen=True)
class Gap:
    """Where two groups may stand as one: between ``low`` and ``high``, behind ``needed``."""

    low: Fraction
    high: Fraction
    needed: tuple[Group, ...]


class GroupOrder:
    """``group_of``: the group of every node that was placed."""

    def __init__(self) -> None:
        self.group_of: dict[Node, Group] = {}
        self._reads: dict[Node, tuple[Node, ...]] = {}
        self._readers: dict[Node, list[Node]] = {}

    def place(self, node: Node, group: Group, reads: Iterable[Node]) -> None:
        """A group of ``node`` alone, behind all others; ``reads`` were placed before."""
        group.position = Fraction(len(self._reads))
        self.group_of[node] = group
        self._reads[node] = tuple(reads)
        for read in self._reads[node]:
            self._readers.setdefault(read, []).append(node)

    def groups(self) -> list[Group]:
        """All of them."""
        return list(dict.fromkeys(self.group_of.values()))

    def reads(self, group: Group) -> dict[Group, None]:
        """The other groups that a group reads."""
        found = {self.group_of[read]: None for node in group.nodes for read in self._reads[node]}
        found.pop(group, None)
        return found

    def readers(self, group: Group) -> dict[Group, None]:
        """The other groups that read a group."""
        found = {self.group_of[reader]: None for node in group.nodes for reader in self._readers.get(node, ())}
        found.pop(group, None)
        return found

    def gap(self, first: Group, second: Group) -> Gap | None:
        """Where both may stand, ``first`` being in front; None if ``second`` needs ``first`` through another group."""
        readers = {g for g in self.readers(first) if g is not second and g.position < second.position}
        if not readers:
            return Gap(second.position, second.position, ())
        needed = self._needed(second, first.position, readers)
        if needed is None:
            return None
        return Gap(first.position, min(g.position for g in readers), needed)

    def _needed(self, group: Group, low: Fraction, without: Collection[Group]) -> tuple[Group, ...] | None:
        """What a group needs behind ``low``, in order; None if that is one of ``without``, or too much.

        The foremost groups are looked at first: a way far back is found where it is shortest.
        """
        ties = count()
        seen: set[Group] = set()
        pending = [(group.position, next(ties), group)]
        while pending:
            _, _, found = heapq.heappop(pending)
            for read in self.reads(found):
                if read in without or len(seen) == _MOST_BETWEEN:
                    return None
                if read.position > low and read not in seen:
                    seen.add(read)
                    heapq.heappush(pending, (read.position, next(ties), read))
        return tuple(sorted(seen, key=lambda g: g.position))

    def merge(self, merged: Group, gap: Gap) -> None:
        """Puts ``merged`` where the groups that it is made of may stand."""
        for node in merged.nodes:
            self.group_of[node] = merged
        step = (gap.high - gap.low) / (len(gap.needed) + 2)
        for i, group in enumerate((*gap.needed, merged), 1):
            group.position = gap.low + i * step
