"""How a kernel's parallel loop divides an iteration space into pieces of similar size, for any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tgc.ir.dims import Dim, dim_max, product
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Value

# (index of each outer axis, first element of the innermost axis, its end)
Run = Callable[[Sequence[Value], "Value | int", "Value | Dim"], None]


def ceil_divide(a: Dim, b: Dim) -> Dim:
    """⌈a / b⌉"""
    return (a + (b - 1)) // b


@dataclass(frozen=True, slots=True)
class Grid:
    """Axes of ``sizes``, outermost first. An iteration takes ``rows`` of the outer ones, flattened, and one of
    ``parts`` of the innermost one, ``part`` elements long.
    """

    sizes: tuple[Dim, ...]
    rows: Dim
    part: int
    parts: Dim

    @staticmethod
    def over(sizes: Sequence[Dim], chunk: int) -> Grid:
        """About ``chunk`` elements, a power of two, for each iteration.

        >>> Grid.over((64, 1000), 4096).count
        16
        """
        if not sizes:
            return Grid((), 1, 0, 1)
        *outer, last = sizes
        whole = isinstance(last, int) and last <= 2 * chunk
        parts: Dim = 1 if whole else ceil_divide(last, chunk)
        rows, most = dim_max(1, chunk // dim_max(last, 1)), product(outer)
        if isinstance(rows, int) and isinstance(most, int):
            rows = max(1, min(rows, most))
        return Grid(tuple(sizes), rows, chunk, parts)

    @property
    def count(self) -> Dim:
        return ceil_divide(product(self.sizes[:-1]), self.rows) * self.parts

    def cost(self, element: float) -> int:
        """Nanoseconds of an iteration whose elements take ``element`` each."""
        total, count = product(self.sizes), self.count
        if isinstance(total, int) and isinstance(count, int):
            return 20 + int(element * total / max(count, 1))
        return 20 + int(element * self.part)

    def emit(self, b: KernelBuilder, run: Run) -> None:
        """The code of one iteration around what happens in the innermost axis."""
        if not self.sizes:
            run((), 0, 1)
            return
        *outer, last = self.sizes
        block = b.iteration
        low: Value | int = 0
        high: Value | Dim = last
        if self.parts != 1:
            piece = b.modulo(block, b.index(self.parts)) if outer else block
            low = b.mul(piece, self.part)
            high = b.minimum(b.add(low, self.part), b.index(last))
            if outer:
                block = b.floor_divide(block, b.index(self.parts))
        if not outer:
            run((), low, high)
        elif self.rows == 1:
            run(unflattened(b, block, outer), low, high)
        else:
            first = b.mul(block, b.index(self.rows))
            end = b.minimum(b.add(first, b.index(self.rows)), b.index(product(outer)))
            start = unflattened(b, first, outer) if len(outer) > 1 else []
            with b.loop(first, end, carried=start, name="row") as loop:
                run(loop.carried or [loop.index], low, high)
                loop.yield_(*_following(b, loop.carried, outer))


def _following(b: KernelBuilder, indices: Sequence[Value], sizes: Sequence[Dim]) -> list[Value]:
    """The next index in row-major order: cheaper than taking a flattened one apart in every row."""
    following: list[Value] = []
    carry: Value = b.index(1)
    for index, size in zip(reversed(indices), reversed(sizes), strict=False):
        increased = b.add(index, carry)
        wraps = b.compare("eq", increased, b.index(size))
        following.append(b.select(wraps, b.index(0), increased))
        carry = b.select(wraps, b.index(1), b.index(0))
    return list(reversed(following))


def unflattened(b: KernelBuilder, flat: Value, sizes: Sequence[Dim]) -> list[Value]:
    """The index along each axis of a flattened index."""
    indices = []
    for size in reversed(sizes[1:]):
        indices.append(b.modulo(flat, b.index(size)))
        flat = b.floor_divide(flat, b.index(size))
    return [flat, *reversed(indices)]
