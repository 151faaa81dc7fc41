"""Which schedule a fusion region gets: one literal table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from tgc.errors import CompilerBug
from tgc.ir.graph import Graph
from tgc.ir.kinds import FusionKind
from tgc.ir.opdef import OpTable
from tgc.kernels import attention, contraction, convolution, cumulative, pointwise, reduction, scatter, sort, window
from tgc.kernels.lowering import Lowering
from tgc.target import Target


class Schedule(Protocol):
    """Makes kernels of a region."""

    def __call__(self, region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering: ...


SCHEDULES: Final[Mapping[FusionKind, Schedule]] = MappingProxyType(
    {
        FusionKind.POINTWISE: pointwise.lower,
        FusionKind.REDUCTION: reduction.lower,
        FusionKind.WINDOW: window.lower,
        FusionKind.CONTRACTION: contraction.lower,
        FusionKind.ATTENTION: attention.lower,
        FusionKind.CONVOLUTION: convolution.lower,
        FusionKind.INDEX: scatter.lower,
        FusionKind.CUMULATIVE: cumulative.lower,
        FusionKind.SORT: sort.lower,
    }
)


def lower(
    kind: FusionKind,
    region: Graph,
    *,
    name: str,
    target: Target,
    table: OpTable,
    kept: frozenset[int] = frozenset(),
) -> Lowering:
    """The kernels of a fusion region; ``name`` begins their names.

    ``kept``: the parameters that are the same in every call, so that a stage which reads nothing else runs once.
    Raises :class:`CompilerBug` for an unknown kind.
    """
    if kind is FusionKind.CONVOLUTION:
        return convolution.lower(region, name=name, target=target, table=table, kept=kept)
    schedule = SCHEDULES.get(kind)
    if schedule is None:
        raise CompilerBug(f"there is no schedule for a region of kind {kind.value}", stage="schedule")
    return schedule(region, name=name, target=target, table=table)
