"""Reading across memory: square tiles are loaded along the source's contiguous axis and turned in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgc.dtypes import bool_
from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.kernels.indices import Index
from tgc.kernels.spaces import Axis, Pattern

LARGEST_SIDE = 16
# below this many elements along the other axis a gather is as good
SMALLEST_AXIS = 4


@dataclass(frozen=True, slots=True)
class Transposition:
    """``axis``: the number of the axis that lies side by side in the memory of ``leaves``, unlike the vector axis.

    Each leaf is a parameter and its offset, in terms of the numbers of loops; ``results`` are the numbers of those that
    lie like the leaves.
    """

    axis: int
    side: int
    leaves: tuple[tuple[graph.Value, Index], ...]
    results: tuple[int, ...]

    @staticmethod
    def of(
        axes: Sequence[Axis], accesses: Pattern, lanes: int, results: Sequence[tuple[int, graph.Value, Index]]
    ) -> Transposition | None:
        """The one that a pass over ``axes`` needs, if any. ``results``: number, value and offset of each."""
        side = min(lanes, LARGEST_SIDE)
        if len(axes) < 2 or side < 2 or _short(axes[-1].size):
            return None
        axis: int | None = None
        turned: dict[tuple[int | None, graph.Value, Index], None] = {}
        for i, v, offset in [*[(None, v, offset) for v, offset in accesses.certain], *results]:
            strides = dict(offset.terms)
            if v.dtype is bool_ or strides.get(axes[-1].loops[-1], 0) in (0, 1, -1):
                continue
            for number, candidate in enumerate(axes[:-1]):
                if strides.get(candidate.loops[-1], 0) == 1 and axis in (None, number) and not _short(candidate.size):
                    axis = number
                    turned[(i, v, offset)] = None
        if axis is None:
            return None
        leaves = tuple([(v, offset) for i, v, offset in turned if i is None])
        return Transposition(axis, side, leaves, tuple([i for i, _, _ in turned if i is not None]))


def _short(size: Dim) -> bool:
    return isinstance(size, int) and size < SMALLEST_AXIS
