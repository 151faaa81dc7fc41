"""How a contraction is divided into loops: what is decided before any code is made.

Letters of the specification become loops. Letters that lie one inside the other wherever they occur are one longer
letter (the batch and the sequence of a dense layer, say). One letter gives the rows of the register tile, one its
columns (a letter of the right operand alone, best the one along which the result is contiguous), one the sum; the
others are loops around.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tgc.dtypes import DType
from tgc.errors import CompilerBug
from tgc.ir.dims import Dim, dim_max, dim_min, product
from tgc.ir.graph import Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels.blocking import Blocking, Problem, choose_blocking, product_tile
from tgc.kernels.grid import ceil_divide
from tgc.kernels.lowering import Temporary
from tgc.kernels.operands import Operand, accesses, is_parameter
from tgc.kernels.tile import TileShape
from tgc.ops import rules
from tgc.ops.contract import Spec
from tgc.target import Target

# what it costs to store one result by itself, in elements of an operand that are packed in that time
_STORED_SINGLY = 10


@dataclass(frozen=True)
class Plan:
    """The loops of a contraction; the letter ``""`` has size 1. ``left`` has the rows, ``right`` the columns.

    ``blocking`` divides the letter ``summed[-1]`` into blocks, rows and columns into tasks.
    """

    anchor: Node
    out: str
    letter_sizes: Mapping[str, Dim]
    left: Operand
    right: Operand
    sizes: Mapping[str, Dim]
    row: str
    column: str
    outer: tuple[str, ...]
    summed: tuple[str, ...]
    dtype: DType
    shape: TileShape
    blocking: Blocking

    @property
    def inner(self) -> Dim:
        """How long the innermost sum is: 0 if any of the sums is empty."""
        rest = product(self.sizes[c] for c in self.summed[:-1])
        return self.sizes[self.summed[-1]] * dim_min(rest, 1) if rest != 1 else self.sizes[self.summed[-1]]

    @property
    def depth(self) -> int:
        """Products of one block of the sum."""
        return self.blocking.depth

    @property
    def blocks(self) -> Dim:
        """Blocks of the sum; there is one at least."""
        count = ceil_divide(self.sizes[self.summed[-1]], self.depth) * product(self.sizes[c] for c in self.summed[:-1])
        return dim_max(count, 1)

    @property
    def rows(self) -> Dim:
        return self.sizes[self.row]

    @property
    def columns(self) -> Dim:
        return self.sizes[self.column]

    @property
    def panels(self) -> Dim:
        return ceil_divide(self.columns, self.shape.width)

    @property
    def panel_size(self) -> Dim:
        """Elements of a panel: all products of a group of columns, in order."""
        return product(self.sizes[c] for c in self.summed[:-1]) * self.padded * self.shape.width

    @property
    def padded(self) -> Dim:
        """Rows of a panel for each combination of the outer sums: whole squares of a transposition."""
        return ceil_divide(self.sizes[self.summed[-1]], 8) * 8

    @property
    def right_bytes(self) -> int | None:
        """Bytes that the right operand takes for one of the loops around; None if that is not known."""
        size = self.columns * product(self.sizes[c] for c in self.summed) * self.right.dtype.itemsize
        return size if isinstance(size, int) else None

    @property
    def right_outer(self) -> tuple[str, ...]:
        """Loops around which the right operand depends on."""
        return tuple(c for c in self.outer if self.right.stride(c) != 0)

    @property
    def chunk(self) -> int:
        """Rows of one task, a multiple of the tile's."""
        return self.blocking.tiles * self.shape.rows

    @property
    def packed(self) -> Temporary:
        """The panels, where a kernel of its own packs them."""
        return Temporary(self.dtype, product(self.sizes[c] for c in self.right_outer) * self.panels * self.panel_size)


def plan_contraction(region: Graph, target: Target, table: OpTable, *, turned: bool = True) -> Plan:
    """Which letter becomes which loop. ``turned``: rows and columns may change places where that is quicker."""
    anchor = next(n for n in region.nodes() if table[n.op].kind is OpKind.CONTRACT)
    spec = Spec.parse(rules.text(anchor.attributes, "spec"))
    all_sizes = spec.sizes(anchor.operands[0].shape, anchor.operands[1].shape)
    sizes = {c: d for c, d in all_sizes.items() if d != 1}
    a, b = (_operand(v, letters, sizes, table) for v, letters in zip(anchor.operands, (spec.a, spec.b), strict=True))
    main = region.results[0]
    order = main.type.order if main.shape == anchor.result.shape else range(len(spec.out))
    memory = [c for d in order if (c := spec.out[d]) in sizes]
    if memory and memory[-1] in a.strides and memory[-1] not in b.strides:
        a, b = b, a
    left_only = [c for c in memory if c in a.strides and c not in b.strides]
    right_only = [c for c in memory if c in b.strides and c not in a.strides]
    single = len(left_only) == len(right_only) == 1
    if turned and single and _better_turned(a, b, sizes, left_only[0], right_only[0], target):
        a, b, left_only, right_only = b, a, right_only, left_only
    column = right_only[-1] if right_only else ""
    merged = _Merging(sizes, a, b)
    rows = merged.groups(left_only)
    row = max(reversed(rows), key=lambda c: _extent(merged.sizes[c]), default="")
    summed = merged.groups([c for c in spec.summed if c in sizes])
    summed.sort(key=lambda c: (c in merged.left and c in merged.right, _extent(merged.sizes[c])))
    outer = [c for c in memory if c not in row and c != column]
    dtype = anchor.result.dtype.compute
    sizes = {**merged.sizes, "": 1}
    left, right = merged.operands()
    summed = summed or [""]
    problem = Problem(
        dtype,
        rows=sizes[row],
        columns=sizes[column],
        inner=sizes[summed[-1]],
        outer_sums=product(sizes[c] for c in summed[:-1]),
        around=product(sizes[c] for c in outer),
        pitch=left.stride(row),
        step=left.stride(summed[-1]),
        right_pitch=right.stride(summed[-1]),
        left_plain=not left.computed and left.dtype is dtype,
        right_plain=not right.computed and right.dtype is dtype and right.stride(column) == 1,
    )
    shape = product_tile(problem, target)
    return Plan(
        anchor,
        spec.out,
        all_sizes,
        left,
        right,
        sizes,
        row,
        column,
        tuple(outer),
        tuple(summed),
        dtype,
        shape,
        choose_blocking(problem, shape, target),
    )


def _operand(value: Value, letters: str, sizes: Mapping[str, Dim], table: OpTable) -> Operand:
    type_ = value.type
    if type_.layout is not None and type_.layout.tiles:
        raise CompilerBug(f"a contraction of {type_}, which lies in tiles", stage="schedule")
    strides = {c: s for c, s in zip(letters, type_.strides, strict=True) if c in sizes}
    origin = 0 if type_.layout is None else type_.layout.origin(type_.shape)
    return Operand(value, letters, strides, origin, None if is_parameter(value) else accesses(value, table))


class _Merging:
    """Letters put together: ``yz`` is one letter if y's neighbours lie z's size apart in both operands."""

    def __init__(self, sizes: Mapping[str, Dim], left: Operand, right: Operand) -> None:
        self.sizes = dict(sizes)
        self.left = dict(left.strides)
        self.right = dict(right.strides)
        self._operands = (left, right)

    def groups(self, letters: Sequence[str]) -> list[str]:
        """The letters in order, neighbours merged."""
        found: list[str] = []
        for c in letters:
            if found and self._nest(found[-1], c):
                found[-1] = self._merge(found[-1], c)
            else:
                found.append(c)
        return found

    def operands(self) -> tuple[Operand, Operand]:
        left, right = self._operands
        return replace(left, strides=self.left), replace(right, strides=self.right)

    def _nest(self, a: str, b: str) -> bool:
        return all(
            (a in strides) == (b in strides) and (a not in strides or strides[a] == strides[b] * self.sizes[b])
            for strides in (self.left, self.right)
        )

    def _merge(self, a: str, b: str) -> str:
        for strides in (self.left, self.right):
            if b in strides:
                strides[a + b] = strides[b]
        self.sizes[a + b] = self.sizes[a] * self.sizes[b]
        return a + b


def _extent(size: Dim) -> int:
    return size if isinstance(size, int) else 1 << 30


def _better_turned(a: Operand, b: Operand, sizes: Mapping[str, Dim], row: str, column: str, target: Target) -> bool:
    """Whether a few rows had better be columns: less to pack, but the results are stored one by one."""
    m, n = sizes[row], sizes[column]
    k = product(sizes[c] for c in sizes if c not in (row, column))
    if not (isinstance(m, int) and isinstance(n, int) and isinstance(k, int) and target.masked):
        return False
    lanes = target.lanes(a.dtype)
    fits = -(-m // lanes) * lanes * 4 <= m * 5
    return fits and m <= 64 and k * (n - m) > _STORED_SINGLY * m * n and b.stride(column) != 1 and a.stride(row) != 1


def unmerged(letters: Iterable[str], sizes: Mapping[str, Dim]) -> list[Dim]:
    """The sizes of the letters that a longer letter was made of."""
    return [sizes[c] for c in letters]
