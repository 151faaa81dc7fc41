"""Loops over a vector axis: whole vectors first, then what is left under a count."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Value
from tgc.target import Target

# instructions that wait in a core's schedulers for their operands, and those of a body that compiles in good time
_SCHEDULED = 96
_MOST_INSTRUCTIONS = 640
_MOST_SIDE_BY_SIDE = 4

# (index of the first element, number of real lanes or None for all of them)
Body = Callable[[Value, Value | None], None]


def vector_loop(
    b: KernelBuilder, low: Value | int, high: Value | Dim, lanes: int, body: Body, *, unroll: int = 1
) -> None:
    """Runs ``body`` for low, low + lanes, … < high; ``unroll`` times per round while that many vectors are whole."""
    step = lanes * unroll
    if isinstance(low, int) and isinstance(high, int):
        split = low + max(high - low, 0) // step * step
        if split > low:
            _whole(b, low, split, lanes, unroll, body)
        _rest(b, split, high, lanes, body)
        return
    start, end = b.index(low), b.index(high)
    middle = _last(b, start, end, step) if step > 1 else end
    _whole(b, start, middle, lanes, unroll, body)
    if isinstance(low, int) and not isinstance(high, Value) and (high - low) % step == 0:
        return
    if step > 1:
        _rest(b, middle, end, lanes, body)


def _last(b: KernelBuilder, start: Value, end: Value, step: int) -> Value:
    """Where whole steps end. Truncation leaves nothing before ``end`` where it lies before ``start``."""
    return b.add(start, b.mul(b.div(b.sub(end, start), step), step))


def _whole(b: KernelBuilder, low: Value | int, high: Value | int, lanes: int, unroll: int, body: Body) -> None:
    if isinstance(low, int) and isinstance(high, int) and high - low == lanes * unroll:
        for k in range(unroll):
            body(b.index(low + k * lanes), None)
        return
    with b.loop(low, high, lanes * unroll, name="v") as loop:
        for k in range(unroll):
            body(b.add(loop.index, k * lanes), None)
        loop.yield_()


def _rest(
    b: KernelBuilder, low: Value | int, high: Value | int, lanes: int, body: Body, *, rolled: bool = False
) -> None:
    """Single vectors. ``rolled``: the body is long, so that masks all along cost less than its repetition."""
    if isinstance(low, int) and isinstance(high, int) and (not rolled or high - low <= lanes):
        while low + lanes <= high:
            body(b.index(low), None)
            low += lanes
        if low < high:
            body(b.index(low), b.index(high - low))
        return
    whole = isinstance(low, int) and isinstance(high, int) and (high - low) % lanes == 0
    with b.loop(low, high, lanes, name="v") as loop:
        body(loop.index, None if whole else b.sub(b.index(high), loop.index))
        loop.yield_()


def tile_loop(
    b: KernelBuilder,
    low: Value | int,
    high: Value | Dim,
    lanes: int,
    vectors: int,
    body: Callable[[Value, int, Value | None], None],
) -> None:
    """Runs ``body`` (position, number of vectors, real lanes or None) for tiles of ``vectors`` whole vectors, then for
    single vectors, of which the last may be partial."""

    def tile(position: Value, count: Value | None) -> None:
        body(position, vectors, count)

    def single(position: Value, count: Value | None) -> None:
        body(position, 1, count)

    if vectors == 1:
        vector_loop(b, low, high, lanes, single)
        return
    step = lanes * vectors
    if isinstance(low, int) and isinstance(high, int):
        split = low + max(high - low, 0) // step * step
        if split > low:
            _whole(b, low, split, step, 1, tile)
        _rest(b, split, high, lanes, single, rolled=True)
        return
    start, end = b.index(low), b.index(high)
    middle = _last(b, start, end, step)
    _whole(b, start, middle, step, 1, tile)
    _rest(b, middle, end, lanes, single)


def region_lanes(region: Graph, target: Target, uniform: Collection[graph.Value] = ()) -> int:
    """Elements of one vector: as many as fit of the widest float, or else of the widest type in memory.

    ``uniform``: parameters of which all lanes have the same element.
    """
    moved = [v for v in (*region.parameters, *region.results) if v not in uniform]
    dtypes = {v.dtype for v in moved if any(d != 1 for d in v.shape)}
    dtypes |= {t.dtype for node in region.nodes() for t in node.types if t.dtype.is_float}
    return min((target.lanes(d) for d in dtypes), default=1)


def side_by_side(work: int, size: Dim, lanes: int) -> int:
    """How many vectors go through a body of so many instructions together, instruction by instruction.

    A long chain of dependent instructions fills the schedulers before those of the next vector come into sight. Four
    such chains at a time keep the units busy: 150 instructions of Black and Scholes took 157 cycles, and take 122.

    >>> side_by_side(6, 1 << 20, 16), side_by_side(150, 1 << 20, 16), side_by_side(150, 17, 16)
    (1, 4, 2)
    """
    vectors = -(-size // lanes) if isinstance(size, int) else None
    together = _MOST_SIDE_BY_SIDE
    while together > 1 and (
        together * work > _MOST_INSTRUCTIONS
        or together * _SCHEDULED >= 2 * _MOST_SIDE_BY_SIDE * work
        # partial bodies do all the work
        or vectors is not None
        and -(-vectors // together) * together * 8 > vectors * 9
    ):
        together //= 2
    return together
