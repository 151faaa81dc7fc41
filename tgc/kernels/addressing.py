"""Buffers, indices and offsets: the part of the evaluator that knows where things lie."""

from __future__ import annotations

from tgc.dtypes import DType, i64
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.ir.types import TensorType
from tgc.kernels.access_movement import Coordinates
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.indices import Index, inner
from tgc.kernels.ir import Buffer, Value


class Addressing:
    """The buffers of the kernel that is being built for a region, and offsets in them."""

    def __init__(self, builder: KernelBuilder, region: Graph, table: OpTable) -> None:
        self.builder = builder
        self.region = region
        self.table = table
        self._buffers: dict[str, Buffer] = {}
        self._values: dict[int, Value] = {}
        self._ranges: dict[int, tuple[Dim, int]] = {}
        self._within: dict[int, tuple[int, int]] = {}
        self._physical: dict[TensorType, tuple[tuple[Dim, ...], Dim]] = {}

    # -- buffers ---------------------------------------------------------------------------------------------------

    def parameter(self, i: int) -> Buffer:
        """The buffer of the region's i-th parameter, declared when first asked for."""
        type_ = self.region.parameters[i].type
        return self.buffer(f"p{i}", type_.dtype, type_.buffer_size, "read")

    def result(self, i: int) -> Buffer:
        """The buffer of the region's i-th result, perhaps the memory of a parameter that is read at the same index."""
        type_ = self.region.results[i].type
        return self.buffer(f"r{i}", type_.dtype, type_.buffer_size, "write")

    def buffer(self, name: str, dtype: DType, size: Dim, access: str) -> Buffer:
        """A buffer by its name, declared when first asked for."""
        found = self._buffers.get(name)
        if found is None:
            found = self._buffers[name] = self.builder.buffer(name, dtype, size, access)
        return found

    # -- indices ---------------------------------------------------------------------------------------------------

    def index(
        self,
        value: Value | Dim,
        *,
        lane: Dim = 0,
        bound: Dim | None = None,
        step: int = 1,
        within: tuple[int, int] | None = None,
    ) -> Index:
        """An index that is ``value + lane · (number of the lane)``.

        ``bound``: ``value`` lies in 0..bound and is a multiple of ``step``, which resolves the tiles of layouts.
        ``within``: bounds of the index in all lanes that are real, which decide conditions when code is emitted.
        """
        if not isinstance(value, Value):
            return Index(constant=value, lane=lane)
        if value.constant is not None and within is None:
            return Index(constant=int(value.constant), lane=lane)
        self._values[value.number] = value
        if bound is not None:
            self._ranges[value.number] = (bound, step)
            if within is None and isinstance(bound, int):
                within = (0, bound - 1)
        if within is not None:
            self._within[value.number] = within
        return Index(((value.number, 1),), lane=lane)

    def opaque(self, value: Value) -> Index:
        """An index that is data: a scalar, or a vector with one index for each lane."""
        if value.lanes == 1:
            return self.index(value)
        self._values[value.number] = value
        return Index(vectors=((value.number, 1),))

    def limits(self, index: Index) -> tuple[int, int] | None:
        """The least and the largest that an index can be in real lanes, if that is known."""
        if not isinstance(index.constant, int) or index.vectors:
            return None
        low = high = index.constant
        ramps = 0
        for number, coefficient in index.terms:
            known = self._within.get(number)
            if known is None or not isinstance(coefficient, int):
                return None
            ends = (coefficient * known[0], coefficient * known[1])
            low, high = low + min(ends), high + max(ends)
            ramps += coefficient == index.lane
        # what a lane adds is part of the bounds of the value that it is added to
        return (low, high) if index.lane == 0 or ramps == 1 else None

    def scalar(self, index: Index) -> Value:
        """The part of an index that is the same in every lane, as a value."""
        b = self.builder
        total: Value | None = None
        for number, coefficient in index.terms:
            term = b.mul(self._values[number], b.index(coefficient))
            total = term if total is None else b.add(total, term)
        constant = b.index(index.constant)
        return constant if total is None else b.add(total, constant)

    def vector(self, index: Index, lanes: int, dtype: DType = i64) -> Value:
        """An index in every lane, in ``dtype`` (i64, or i32 where it is known to fit)."""
        b = self.builder
        total = b.convert(self.scalar(index), dtype)
        if lanes == 1 or index.uniform:
            return total
        if index.lane != 0:
            ramp = b.lane_indices(lanes, dtype)
            if index.lane != 1:
                ramp = b.mul(ramp, b.convert(b.index(index.lane), dtype))
            total = ramp if total.constant == 0 else b.add(ramp, total)
        for number, coefficient in index.vectors:
            term = b.convert(self._values[number], dtype)
            if coefficient != 1:
                term = b.mul(term, b.convert(b.index(coefficient), dtype))
            total = term if total.constant == 0 else b.add(term, total)
        return total

    def divide(self, index: Index, by: Dim, lanes: int) -> tuple[Index, Index]:
        """Quotient and remainder; linear where that can be proven."""
        if by == 1:
            return index, Index()
        if by == 0:
            # without elements no index is ever computed
            return Index(), Index()
        whole = tuple([(n, c // by) for n, c in index.terms if c % by == 0])
        rest = tuple([(n, c) for n, c in index.terms if c % by != 0])
        even_lane, even_constant = index.lane % by == 0, index.constant % by == 0
        remainder = Index(
            rest,
            0 if even_constant else index.constant,
            0 if even_lane else index.lane,
            index.vectors,
        )
        quotient = Index(whole, index.constant // by if even_constant else 0, index.lane // by if even_lane else 0)
        if self._stays_below(remainder, by, lanes):
            return quotient, remainder
        b = self.builder
        number = self.vector(index, lanes)
        divisor = b.index(by)
        return self.opaque(b.floor_divide(number, divisor)), self.opaque(b.modulo(number, divisor))

    def _stays_below(self, index: Index, limit: Dim, lanes: int) -> bool:
        """Whether an index provably lies in 0..limit."""
        if index.is_constant:
            return isinstance(index.constant, int) and isinstance(limit, int) and 0 <= index.constant < limit
        if index.vectors or index.constant != 0:
            return False
        if not index.terms:
            return index.lane == 1 and isinstance(limit, int) and lanes <= limit
        if len(index.terms) != 1 or index.terms[0][1] != 1:
            return False
        bound, step = self._ranges.get(index.terms[0][0], (None, 1))
        if bound is None or bound != limit:
            return False
        return index.lane == 0 or index.lane == 1 and lanes == step and limit % lanes == 0

    def address(self, type_: TensorType, at: Coordinates, lanes: int) -> Index:
        """The offset, in elements, of a logical index in a buffer of that type."""
        found = self._physical.get(type_)
        if found is None:
            layout = type_.layout
            found = self._physical[type_] = (type_.strides, 0 if layout is None else layout.origin(type_.shape))
        strides, origin = found
        if type_.layout is None or not type_.layout.tiles:
            return inner(at, strides, origin)
        blocks = list(at)
        offset = Index(constant=origin)
        for (dimension, size), stride in zip(type_.layout.tiles, type_.layout.tile_strides(), strict=True):
            margin = type_.layout.margins[dimension][0] if type_.layout.margins else 0
            quotient, remainder = self.divide(blocks[dimension].shifted(margin), size, lanes)
            blocks[dimension] = quotient
            offset = offset.plus(remainder.scaled(stride))
        return offset.plus(inner(blocks, strides))
