"""Kernel IR: structured loops over explicit vectors, in SSA form.

A :class:`Kernel` runs its body once for each iteration of one top-level parallel loop. A :class:`Block` is a list of
operations; ``for``, ``if`` and ``while`` operations hold blocks. A value is visible in the rest of its block and in the
blocks within. What depends on symbolic dimensions and constants alone is in the prelude, which runs once per call.

Nothing here traps or is undefined: see :class:`tgc.kernels.builder.KernelBuilder` for what each operation means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tgc.dtypes import DType, bool_, i64
from tgc.ir.dims import Dim

Access = Literal["read", "write", "readwrite", "scratch"]
Attribute: TypeAlias = "str | bool | int | float | Buffer | tuple[int, ...] | None"

ARITHMETIC: Final = frozenset(("add", "sub", "mul", "div", "rem", "minimum", "maximum"))
BITWISE: Final = frozenset(("bit_and", "bit_or", "bit_xor"))
SHIFTS: Final = frozenset(("shift_left", "shift_right"))
ROUNDING: Final = frozenset(("sqrt", "floor", "ceil", "trunc", "round_even"))
FUSED: Final = frozenset(("fma", "multiply_add"))
COUNTING: Final = frozenset(("count_leading_zeros", "population_count"))
PREDICATES: Final = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
REDUCTIONS: Final = frozenset(("add", "mul", "minimum", "maximum", "bit_and", "bit_or", "bit_xor"))
EFFECTS: Final = frozenset(("store", "scatter", "prefetch"))
SCRATCH_ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True)
class Buffer:
    """``size`` elements of ``dtype`` in memory; a bool takes one byte, 0 or 1. Scratch belongs to one thread."""

    name: str
    dtype: DType
    size: Dim
    access: Access


class Value:
    """A scalar (``lanes == 1``) or a vector in registers; ``operation`` is None for an argument of a block.

    ``invariant`` values are those of the prelude.
    """

    __slots__ = ("dtype", "invariant", "lanes", "name", "number", "operation")

    def __init__(self, dtype: DType, lanes: int, number: int, operation: Operation | None = None) -> None:
        self.dtype = dtype
        self.lanes = lanes
        self.number = number
        self.operation = operation
        self.invariant = False
        self.name: str | None = None

    @property
    def constant(self) -> bool | int | float | None:
        """The number that every lane holds, if it is a literal."""
        op = self.operation
        if op is not None and op.name == "constant":
            value = op.attributes[0]
            return value if isinstance(value, (bool, int, float)) else None
        return None

    @property
    def type(self) -> str:
        return self.dtype.name if self.lanes == 1 else f"{self.dtype.name}x{self.lanes}"

    def __repr__(self) -> str:
        return f"%{self.number}: {self.type}"


class Operation:
    """One instruction: operands in, results out, and the blocks that it controls."""

    __slots__ = ("attributes", "blocks", "name", "operands", "results")

    def __init__(
        self,
        name: str,
        operands: tuple[Value, ...],
        attributes: tuple[Attribute, ...] = (),
        blocks: tuple[Block, ...] = (),
    ) -> None:
        self.name = name
        self.operands = operands
        self.attributes = attributes
        self.blocks = blocks
        self.results: tuple[Value, ...] = ()

    @property
    def buffer(self) -> Buffer:
        """The buffer that a memory operation accesses."""
        found = self.attributes[0]
        if not isinstance(found, Buffer):
            raise TypeError(f"{self.name} accesses no buffer")
        return found


class Block:
    """Operations in order; ``yields`` are what the block hands to the operation that controls it."""

    __slots__ = ("arguments", "operations", "yields")

    def __init__(self, arguments: tuple[Value, ...] = ()) -> None:
        self.arguments = arguments
        self.operations: list[Operation] = []
        self.yields: tuple[Value, ...] = ()

    def walk(self) -> Iterator[Operation]:
        """Every operation, those of inner blocks after the one that holds them."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.walk()


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """What one call runs, for each ``begin <= i < end`` of ``0 <= i < count``, in any order and on any threads.

    ``symbols``: the symbolic dimensions in the order of the ``dims`` argument. ``noalias``: no two buffers overlap.
    ``prelude`` runs once per call; ``body`` has the iteration as its argument.
    """

    name: str
    buffers: tuple[Buffer, ...]
    scratch: tuple[Buffer, ...]
    symbols: tuple[str, ...]
    count: Dim
    noalias: bool
    prelude: Block
    body: Block

    @property
    def iteration(self) -> Value:
        return self.body.arguments[0]

    @property
    def scratch_bytes(self) -> Dim:
        """Bytes of scratch that each thread needs, in a block aligned to 64 bytes."""
        return self.scratch_offset(None)

    def scratch_offset(self, wanted: Buffer | None) -> Dim:
        """Where a scratch buffer begins in its block, in bytes; for None the size of the block."""
        offset: Dim = 0
        for buffer in self.scratch:
            if buffer is wanted:
                return offset
            size = buffer.size * buffer.dtype.itemsize
            offset = offset + (size + (SCRATCH_ALIGNMENT - 1)) // SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT
        return offset

    def walk(self) -> Iterator[Operation]:
        """Every operation of the prelude and the body."""
        yield from self.prelude.walk()
        yield from self.body.walk()


def is_index(value: Value) -> bool:
    """Whether a value can be an offset, a bound of a loop or a number of lanes."""
    return value.dtype is i64 and value.lanes == 1


def is_condition(value: Value) -> bool:
    """Whether a value can decide a branch."""
    return value.dtype is bool_ and value.lanes == 1


def same_types(left: Iterable[Value], right: Iterable[Value]) -> bool:
    """Whether two lists of values have the same length and types."""
    return [(v.dtype, v.lanes) for v in left] == [(v.dtype, v.lanes) for v in right]
