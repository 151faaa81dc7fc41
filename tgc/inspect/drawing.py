"""Where to draw the kernels of a function: layers from top to bottom, with few crossings and short lines.

The way of Sugiyama, Tagawa and Toda (1981): values flow downwards, an edge that skips layers gets a point in each of
them, layers are ordered by the barycenters of their neighbours, and boxes move towards those as far as there is room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

WIDTH: Final = 190
HEIGHT: Final = 54
SMALL: Final = 24  # the height of what is no kernel
_GAP: Final = 26
_POINT: Final = 14  # the room for a point of a long edge
_LAYER: Final = 96
_SWEEPS: Final = 12


@dataclass(frozen=True)
class Box:
    """A box: its left upper corner and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Drawing:
    """Boxes by id, and for each edge the points that its line goes through."""

    boxes: Mapping[str, Box]
    lines: Sequence[Sequence[tuple[float, float]]]


def draw(nodes: Sequence[str], small: frozenset[str], edges: Sequence[tuple[str, str]]) -> Drawing:
    """Places ``nodes``, which come in an order in which edges go forward; ``small`` ones are inputs and outputs.

    >>> drawing = draw(["a", "b", "c"], frozenset(), [("a", "b"), ("a", "c"), ("b", "c")])
    >>> [drawing.boxes[name].y for name in "abc"]
    [0.0, 96.0, 192.0]
    >>> len(drawing.lines[1])
    3
    """
    layer = _layers(nodes, small, edges)
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in nodes:
        rows[layer[node]].append(node)
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    chains: list[list[str]] = []
    for number, (source, target) in enumerate(edges):
        chain = [source]
        for at in range(layer[source] + 1, layer[target]):
            chain.append(f"|{number}|{at}")
            rows[at].append(chain[-1])
        chain.append(target)
        chains.append(chain)
        for a, b in pairwise(chain):
            below.setdefault(a, []).append(b)
            above.setdefault(b, []).append(a)
    _order(rows, above, below)
    known = frozenset(nodes)
    width = {name: WIDTH + _GAP if name in known else _POINT for row in rows for name in row}
    middle = _middles(rows, above, below, width)
    boxes = {}
    for node in nodes:
        height = SMALL if node in small else HEIGHT
        boxes[node] = Box(middle[node] - WIDTH / 2, layer[node] * float(_LAYER) + (HEIGHT - height) / 2, WIDTH, height)

    def point(name: str, *, end: bool) -> tuple[float, float]:
        box = boxes.get(name)
        if box is None:
            return middle[name], int(name.rpartition("|")[2]) * float(_LAYER) + HEIGHT / 2
        return middle[name], box.y if end else box.y + box.height

    lines = [[point(name, end=i > 0) for i, name in enumerate(chain)] for chain in chains]
    return Drawing(boxes, lines)


def _layers(nodes: Sequence[str], small: frozenset[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The layer of each node: below all that it reads and above what reads it, as low as can be if that is more."""
    reads: dict[str, list[str]] = {}
    readers: dict[str, list[str]] = {}
    for source, target in edges:
        reads.setdefault(target, []).append(source)
        readers.setdefault(source, []).append(target)
    layer: dict[str, int] = {}
    for node in nodes:
        layer[node] = max((layer[s] + 1 for s in reads.get(node, ())), default=0)
    for node in reversed(nodes):
        # what more boxes read than it reads moves down to them
        if len(readers.get(node, ())) > sum(source not in small for source in reads.get(node, ())):
            layer[node] = min(layer[target] for target in readers[node]) - 1
    return layer


def _order(rows: list[list[str]], above: Mapping[str, list[str]], below: Mapping[str, list[str]]) -> None:
    """Sorts each layer by where its neighbours in the next one are, downwards and upwards in turn."""
    for sweep in range(_SWEEPS):
        neighbours = below if sweep % 2 else above
        position = {name: i / max(1, len(row) - 1) for row in rows for i, name in enumerate(row)}
        for row in reversed(rows) if sweep % 2 else rows:
            keys = {}
            for name in row:
                near = neighbours.get(name)
                keys[name] = sum(position[n] for n in near) / len(near) if near else position[name]
            row.sort(key=keys.__getitem__)
            position.update({name: i / max(1, len(row) - 1) for i, name in enumerate(row)})


def _middles(
    rows: Sequence[Sequence[str]],
    above: Mapping[str, list[str]],
    below: Mapping[str, list[str]],
    width: Mapping[str, int],
) -> dict[str, float]:
    """The middle of each node: near those of its neighbours, without touching the next node of its layer."""
    middle: dict[str, float] = {}
    for row in rows:
        at = 0.0
        for name in row:
            middle[name] = at + width[name] / 2
            at += width[name]
        for name in row:
            middle[name] -= at / 2
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = []
            for name in row:
                near = [middle[n] for n in (*above.get(name, ()), *below.get(name, ()))]
                wanted.append(sum(near) / len(near) if near else middle[name])
            middle.update(zip(row, _spread(wanted, [width[name] for name in row]), strict=True))
    return middle


def _spread(wanted: Sequence[float], widths: Sequence[int]) -> list[float]:
    """The places nearest to those wanted, by least squares, in the same order and without touching.

    Isotonic regression: what would touch is pooled, and shares its error.

    >>> _spread([0.0, 0.0], [10, 10])
    [-5.0, 5.0]
    """
    distances = [(a + b) / 2 for a, b in pairwise(widths)]
    offsets = list(accumulate(distances, initial=0.0))
    pools: list[tuple[float, int]] = []  # (sum, members) of what is wanted, less the offsets
    for x, offset in zip(wanted, offsets, strict=True):
        total, members = x - offset, 1
        while pools and pools[-1][0] * members > total * pools[-1][1]:
            before, more = pools.pop()
            total, members = total + before, members + more
        pools.append((total, members))
    places = [total / members for total, members in pools for _ in range(members)]
    return [place + offset for place, offset in zip(places, offsets, strict=True)]
