"""What a schedule makes of a fusion region: kernels that run one after the other, and the buffers between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tgc.dtypes import DType
from tgc.ir.dims import Dim
from tgc.kernels.ir import Kernel


@dataclass(frozen=True, slots=True)
class Temporary:
    """A buffer that lives while a lowering's kernels run: ``size`` elements of ``dtype``, 64-byte aligned."""

    dtype: DType
    size: Dim


@dataclass(frozen=True)
class Stage:
    """One kernel of a lowering.

    ``cost``: rough nanoseconds of one of its iterations on one core. Its buffers are named ``p<i>`` for the region's
    i-th parameter, ``r<i>`` for its i-th result, or as a temporary of the lowering.
    """

    kernel: Kernel
    cost: Dim


@dataclass(frozen=True)
class Lowering:
    """The stages in order, and the temporaries that they share, by name (``t0``, ``t1``, …)."""

    stages: tuple[Stage, ...]
    temporaries: Mapping[str, Temporary] = field(default_factory=dict)
