"""The schedule of contractions: any einsum of two operands, as register tiles over panels.

Letters of the specification become loops: one letter gives the rows of the tile, one its vectors (the letter along
which the result is contiguous, if an operand alone has it), the summed ones the reduction; what is left are outer
loops. Where the right operand is not contiguous along the vectors, or is large, or must be converted, a first stage
packs it into panels.

The order of the sum: for each combination of the outer summed letters, blocks of at most 512 of the innermost one,
each summed in increasing order, blocks added in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tgc.dtypes import DType
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph, Node
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.epilogue import Columns, finish_tile
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Lowering, Stage, Temporary
from tgc.kernels.packing import pack
from tgc.kernels.tile import LONGEST_CHAIN, TileShape, accumulate, tile_shape, zeros
from tgc.ops import rules
from tgc.ops.contract import Spec
from tgc.target import Target


@dataclass(frozen=True)
class Plan:
    """The loops of a contraction. ``left`` and ``right`` are the region's parameters that hold A (rows) and B
    (vectors).

    ``row`` and ``column`` are letters, or None where there is none; ``outer`` are loops of the result,
    ``right_outer`` those of them that B has; ``summed`` ends with the innermost one.
    """

    anchor: Node
    left: int
    right: int
    letters: tuple[str, str, str]
    sizes: dict[str, Dim]
    row: str | None
    column: str | None
    outer: tuple[str, ...]
    right_outer: tuple[str, ...]
    summed: tuple[str, ...]
    dtype: DType
    shape: TileShape
    packed: bool

    def size(self, letter: str | None) -> Dim:
        return 1 if letter is None else self.sizes[letter]

    @property
    def depth(self) -> Dim:
        """Length of the innermost summed loop."""
        return self.size(self.summed[-1]) if self.summed else 1

    @property
    def outer_depth(self) -> Dim:
        return product(self.sizes[c] for c in self.summed[:-1])

    @property
    def padded_depth(self) -> Dim:
        """Rows of a panel for each combination of the outer summed letters."""
        return ceil_divide(self.depth, self.shape.lanes) * self.shape.lanes

    @property
    def panels(self) -> Dim:
        return ceil_divide(self.size(self.column), self.shape.width)

    @property
    def panel_size(self) -> Dim:
        return self.outer_depth * self.padded_depth * self.shape.width


def plan_contraction(region: Graph, target: Target, table: OpTable) -> Plan:
    """Which letter becomes which loop."""
    anchor = next(n for n in region.nodes() if table[n.op].kind is OpKind.CONTRACT)
    spec = Spec.parse(rules.text(anchor.attributes, "spec"))
    a, b = (rules.integer(v.node.attributes, "index") for v in anchor.operands)
    sizes = spec.sizes(anchor.operands[0].shape, anchor.operands[1].shape)
    order = region.results[0].type.order if region.results[0].shape == anchor.result.shape else range(len(spec.out))
    memory = [spec.out[d] for d in order]
    letters = (spec.a, spec.b, spec.out)
    innermost = next((c for c in reversed(memory) if sizes[c] != 1), None)
    if innermost is not None and innermost in spec.a and innermost not in spec.b:
        a, b, letters = b, a, (spec.b, spec.a, spec.out)
    left, right = letters[:2]
    column = next((c for c in reversed(memory) if c in right and c not in left), None)
    rows = [c for c in memory if c in left and c not in right]
    row = max(reversed(rows), key=lambda c: _extent(sizes[c]), default=None)
    summed = tuple(c for c in spec.summed if sizes[c] != 1)
    inner = [c for c in summed if c in right] or list(summed)
    if inner:
        last = max(inner, key=lambda c: _extent(sizes[c]))
        summed = (*(c for c in summed if c != last), last)
    outer = tuple(c for c in memory if c not in (row, column))
    dtype = anchor.result.dtype.compute
    shape = tile_shape(target, dtype, sizes[row] if row else 1, sizes[column] if column else 1)
    plan = Plan(
        anchor,
        a,
        b,
        letters,
        sizes,
        row,
        column,
        outer,
        tuple(c for c in outer if c in right),
        summed,
        dtype,
        shape,
        False,
    )
    type_ = region.parameters[b].type
    contiguous = column is not None and type_.strides[right.index(column)] == 1 and type_.layout is None
    whole = isinstance(plan.size(column), int) and plan.size(column) % shape.lanes == 0
    small = isinstance(plan.depth, int) and isinstance(plan.size(row), int) and plan.size(row) <= 2 * shape.rows
    direct = contiguous and whole and type_.dtype is dtype and small
    return Plan(**{**plan.__dict__, "packed": not direct})


def _extent(size: Dim) -> int:
    return size if isinstance(size, int) else 1 << 30


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernels of a contraction with its epilogue."""
    plan = plan_contraction(region, target, table)
    temporaries = {}
    stages = []
    if plan.packed:
        temporaries["t0"] = Temporary(
            plan.dtype, product(plan.sizes[c] for c in plan.right_outer) * plan.panels * plan.panel_size
        )
        stages.append(_packing(plan, region, f"{name}_pack", target, table, temporaries["t0"]))
    stages.append(_Product(plan, region, name, target, table).stage())
    return Lowering(tuple(stages), temporaries)


def _packing(plan: Plan, region: Graph, name: str, target: Target, table: OpTable, temporary: Temporary) -> Stage:
    outer = [plan.sizes[c] for c in plan.right_outer]
    builder = KernelBuilder(name, count=product(outer) * plan.panels)
    evaluator = Evaluator(builder, region, table)
    buffer = builder.buffer("t0", plan.dtype, temporary.size, "write")
    *places, panel = unflattened(builder, builder.iteration, [*outer, plan.panels])
    at = {c: evaluator.index(v) for c, v in zip(plan.right_outer, places, strict=True)}
    letters = plan.letters[1]
    start = builder.mul(builder.iteration, builder.index(plan.panel_size))
    pack(
        evaluator,
        plan.right,
        buffer,
        start,
        letters=letters,
        at=at,
        column=plan.column,
        columns=(builder.mul(panel, plan.shape.width), plan.size(plan.column)),
        summed=tuple((c, plan.sizes[c]) for c in plan.summed),
        shape=plan.shape,
        dtype=plan.dtype,
    )
    elements = plan.panel_size
    return Stage(builder.finish(), 20 + elements // 8)


class _Product:
    """The kernel that multiplies: one iteration is a chunk of rows of a group of panels."""

    def __init__(self, plan: Plan, region: Graph, name: str, target: Target, table: OpTable) -> None:
        self.plan = plan
        shape = plan.shape
        rows = plan.size(plan.row)
        few = isinstance(rows, int) and rows <= 8 * shape.rows
        self.chunk: Dim = rows if few else 8 * shape.rows
        self.chunks: Dim = 1 if few else ceil_divide(rows, self.chunk)
        self.group = 4 if not isinstance(plan.panels, int) or plan.panels >= 16 else 1
        self.groups = ceil_divide(plan.panels, self.group)
        self.outer = [plan.sizes[c] for c in plan.outer]
        self.builder = KernelBuilder(name, count=product(self.outer) * self.groups * self.chunks)
        self.evaluator = Evaluator(self.builder, region, table)
        self.region = region
        self.type_a = region.parameters[plan.left].type
        self.type_b = region.parameters[plan.right].type
        self.at: dict[str, Index] = {}
        self.panel_base: Value | None = None
        self._sums: Buffer | None = None

    def stage(self) -> Stage:
        b, plan = self.builder, self.plan
        *places, group, chunk = unflattened(b, b.iteration, [*self.outer, self.groups, self.chunks])
        self.at = {c: self.evaluator.index(v) for c, v in zip(plan.outer, places, strict=True)}
        if plan.packed:
            flat: Value = b.index(0)
            for c in plan.right_outer:
                flat = b.add(b.mul(flat, b.index(plan.sizes[c])), places[plan.outer.index(c)])
            self.panel_base = b.mul(flat, b.index(plan.panels))
        first = b.mul(group, self.group)
        last = b.minimum(b.add(first, self.group), b.index(plan.panels)) if self.group > 1 else b.add(first, 1)
        low = b.mul(chunk, b.index(self.chunk))
        rows = plan.size(plan.row)
        high = b.index(rows) if self.chunks == 1 else b.minimum(b.add(low, b.index(self.chunk)), b.index(rows))
        if self.group == 1:
            self._panel(first, low, high)
        else:
            with b.loop(first, last, name="panel") as loop:
                self._panel(loop.index, low, high)
        flops = 2 * self.chunk * self.group * plan.shape.width * plan.depth * plan.outer_depth
        return Stage(b.finish(), 50 + flops // 60)

    def _panel(self, panel: Value, low: Value, high: Value) -> None:
        """All rows of a chunk against one panel: whole tiles, then the rest."""
        b, rows = self.builder, self.plan.shape.rows
        total = self.plan.size(self.plan.row)
        whole = b.mul(b.floor_divide(b.sub(high, low), rows), rows)
        with b.loop(low, b.add(low, whole), rows, name="row") as loop:
            self._tile(panel, loop.index, rows)
        if isinstance(total, int):
            rest = total % rows
            if rest:
                with b.if_(b.compare("lt", b.add(low, whole), high)):
                    self._tile(panel, b.add(low, whole), rest)
            return
        start = b.add(low, whole)
        quads = b.mul(b.floor_divide(b.sub(high, start), 4), 4)
        with b.loop(start, b.add(start, quads), 4, name="row") as loop:
            self._tile(panel, loop.index, 4)
        with b.loop(b.add(start, quads), high, name="row") as loop:
            self._tile(panel, loop.index, 1)

    def _tile(self, panel: Value, row: Value, rows: int) -> None:
        b, plan = self.builder, self.plan
        shape = TileShape(rows, plan.shape.vectors, plan.shape.lanes)
        column = b.mul(panel, shape.width)
        blocked = not isinstance(plan.depth, int) or plan.depth > LONGEST_CHAIN or plan.outer_depth != 1
        if not blocked:
            sums = self._block(shape, panel, row, column, {}, b.index(0), b.index(0), b.index(plan.depth))
        else:
            sums = self._blocks(shape, panel, row, column)
        at = [self.at.get(c, Index()) for c in plan.letters[2]]
        position = {c: i for i, c in enumerate(plan.letters[2])}
        dimension = None if plan.row is None else position[plan.row]

        def place(r: int | Value) -> tuple[Index, ...]:
            if dimension is not None:
                known = self.evaluator.index(row if isinstance(r, int) else b.add(row, r))
                at[dimension] = known.shifted(r) if isinstance(r, int) else known
            return tuple(at)

        columns = Columns(
            position.get(plan.column or ""), column, plan.size(plan.column), plan.shape.vectors, plan.shape.lanes
        )
        finish_tile(self.evaluator, plan.anchor.result, sums, shape, columns, place, self._scratch)

    def _blocks(self, shape: TileShape, panel: Value, row: Value, column: Value) -> list[Value]:
        """The sum over blocks: each begins at zero, and is added to a tile in scratch."""
        b, plan = self.builder, self.plan
        scratch = self._scratch()
        for i, zero in enumerate(zeros(b, shape, plan.dtype)):
            b.store(scratch, i * shape.lanes, zero)
        with b.loop(0, plan.outer_depth, name="outer") as outer:
            around = plan.summed[:-1]
            places = unflattened(b, outer.index, [plan.sizes[c] for c in around]) if around else []
            at = {c: self.evaluator.index(v) for c, v in zip(around, places, strict=True)}
            with b.loop(0, plan.depth, LONGEST_CHAIN, name="block") as block:
                end = b.minimum(b.add(block.index, LONGEST_CHAIN), b.index(plan.depth))
                sums = self._block(shape, panel, row, column, at, outer.index, block.index, end)
                for i, value in enumerate(sums):
                    have = b.load(scratch, i * shape.lanes, shape.lanes)
                    b.store(scratch, i * shape.lanes, b.add(have, value))
        return [b.load(scratch, i * shape.lanes, shape.lanes) for i in range(shape.rows * shape.vectors)]

    def _scratch(self) -> Buffer:
        shape = self.plan.shape
        if self._sums is None:
            most = max(shape.rows, 4) * shape.width
            self._sums = self.builder.scratch("sums", self.plan.dtype, most)
        return self._sums

    def _block(
        self,
        shape: TileShape,
        panel: Value,
        row: Value,
        column: Value,
        summed: dict[str, Index],
        outer: Value,
        first: Value,
        end: Value,
    ) -> list[Value]:
        b, plan = self.builder, self.plan
        where = {**self.at, **summed}
        inner = plan.summed[-1] if plan.summed else None

        def offset(letters: str, type_: object, k: Value, extra: dict[str, Index]) -> Value:
            known = {**where, **extra}
            if inner is not None:
                known[inner] = self.evaluator.index(k)
            at = tuple(known.get(c, Index()) for c in letters)
            return self.evaluator.scalar(self.evaluator.address(type_, at, 1))  # type: ignore[arg-type]

        def read_row(r: int, k: Value) -> Value:
            extra = {} if plan.row is None else {plan.row: self.evaluator.index(row).shifted(r)}
            at = offset(plan.letters[0], self.type_a, k, extra)
            return b.convert(b.load(self.evaluator.parameter(plan.left), at), plan.dtype)

        def read_vectors(k: Value) -> list[Value]:
            if plan.packed:
                panels = self._panels()
                start = b.mul(b.add(self.panel_base, panel), b.index(plan.panel_size))  # type: ignore[arg-type]
                start = b.add(start, b.mul(outer, b.index(plan.padded_depth * shape.width)))
                start = b.add(start, b.mul(k, shape.width))
                return [b.load(panels, b.add(start, v * shape.lanes), shape.lanes) for v in range(shape.vectors)]
            extra = {} if plan.column is None else {plan.column: self.evaluator.index(column)}
            start = offset(plan.letters[1], self.type_b, k, extra)
            size = plan.size(plan.column)
            full = isinstance(size, int) and size % shape.width == 0
            return [
                b.load(
                    self.evaluator.parameter(plan.right),
                    b.add(start, v * shape.lanes),
                    shape.lanes,
                    count=None if full else b.sub(b.index(size), b.add(column, v * shape.lanes)),
                )
                for v in range(shape.vectors)
            ]

        return list(accumulate(b, shape, end, zeros(b, shape, plan.dtype), read_row, read_vectors, first=first))

    def _panels(self) -> Buffer:
        plan = self.plan
        size = product(plan.sizes[c] for c in plan.right_outer) * plan.panels * plan.panel_size
        return self.evaluator.buffer("t0", plan.dtype, size, "read")
