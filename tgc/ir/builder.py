"""Making nodes: type inference, hash-consing and locations in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tgc.dtypes import DType, bool_
from tgc.errors import CompilerBug, DTypeError, ShapeError, UserError
from tgc.ir.dims import Dim, provably_equal
from tgc.ir.graph import EMPTY, Attributes, Constraint, Graph, Node, Place, Value, intern, lookup, node_key
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpDef, OpTable, own_attributes
from tgc.ir.types import TensorType
from tgc.location import Location, Site


def broadcast_shapes(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The common shape by the Array API's rules: trailing dimensions align and only a literal 1 stretches.

    Two symbolic sizes that may differ are taken to be equal (the first is kept); the entry checks it.
    Raises :class:`ShapeError` for sizes that cannot be equal.

    >>> broadcast_shapes((8, 1, 3), (7, 1))
    (8, 7, 3)
    """
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        offset = rank - len(shape)
        for i, size in enumerate(shape):
            have = result[offset + i]
            if isinstance(have, int) and have == 1:
                result[offset + i] = size
            elif isinstance(size, int) and size == 1:
                continue
            elif isinstance(have, int) and isinstance(size, int):
                if have != size:
                    listed = " and ".join("[" + ", ".join(map(str, s)) + "]" for s in shapes)
                    raise ShapeError(
                        f"shapes {listed} do not broadcast: {have} against {size} in dimension {offset + i - rank}",
                        hint="sizes must be equal, or one of them 1",
                    )
            elif isinstance(size, int):
                result[offset + i] = size
    return tuple(result)


class Builder:
    """Makes nodes of the ops in ``table``; implements :class:`tgc.ir.opdef.GraphBuilder`.

    ``place`` is given to every new node as its location; ``locations`` collects them. ``constraints`` collects the
    equalities of symbolic sizes that were taken for granted and that the function's entry must check.
    """

    def __init__(self, table: OpTable, locations: Mapping[Node, tuple[Place, ...]] | None = None) -> None:
        self.table = table
        self.locations: dict[Node, tuple[Place, ...]] = dict(locations or {})
        self.place: Location | Site | tuple[Place, ...] | None = None
        self.constraints: dict[Constraint, None] = {}

    def results(
        self,
        name: str,
        *operands: Value,
        attributes: Attributes = EMPTY,
        regions: tuple[Graph, ...] = (),
    ) -> tuple[Value, ...]:
        """All results of op ``name`` applied to ``operands``."""
        return self.node(name, operands, attributes, regions).results

    def op(
        self,
        name: str,
        *operands: Value,
        attributes: Attributes = EMPTY,
        regions: tuple[Graph, ...] = (),
    ) -> Value:
        """The only result of op ``name`` applied to ``operands``."""
        return Value(self.node(name, operands, attributes, regions), 0)

    def node(
        self,
        name: str,
        operands: tuple[Value, ...],
        attributes: Attributes = EMPTY,
        regions: tuple[Graph, ...] = (),
    ) -> Node:
        key = node_key(name, operands, attributes, regions)
        node = lookup(key)
        if node is None:
            if name not in self.table:
                raise CompilerBug(f"there is no op {name!r}", stage="builder")
            node = self._checked(self.table[name], operands, attributes, regions, key)
        definition = self.table[name]
        if (len(operands) > 1 or definition.equalities is not None) and any(
            type(d) is not int for t in (*node.types, *(v.type for v in operands)) for d in t.shape
        ):
            self._constrain(definition, operands, node.attributes)
        if self.place is not None:
            self.locate(node, self.place)
        return node

    def _checked(
        self,
        definition: OpDef,
        operands: tuple[Value, ...],
        attributes: Attributes,
        regions: tuple[Graph, ...],
        key: object,
    ) -> Node:
        if definition.operands is not None and len(operands) != definition.operands:
            raise CompilerBug(
                f"{definition.name} takes {definition.operands} operands, not {len(operands)}", stage="builder"
            )
        specs = definition.attributes
        missing = [n for n, spec in specs.items() if n not in attributes]
        unknown = own_attributes(definition, attributes) - specs.keys()
        if unknown or any(specs[n].required for n in missing):
            raise CompilerBug(
                f"{definition.name}: attributes {sorted(attributes)} given, {sorted(specs)} known", stage="builder"
            )
        if missing:
            attributes = {**attributes, **{n: specs[n].default for n in missing}}
            key = node_key(definition.name, operands, attributes, regions)
        try:
            types = definition.infer([v.type for v in operands], attributes, regions)
        except (ShapeError, DTypeError) as error:
            self._blame(error)
            raise
        return intern(definition.name, operands, attributes, regions, types, key)

    def _constrain(self, definition: OpDef, operands: Sequence[Value], attributes: Attributes) -> None:
        """Notes which symbolic sizes the type rule took for equal."""
        if definition.kind is OpKind.MAP:
            first = operands[0].shape
            pairs: Iterable[tuple[Dim, Dim]] = (
                pair for v in operands[1:] if v.shape != first for pair in zip(first, v.shape, strict=False)
            )
        elif definition.equalities is not None:
            pairs = definition.equalities([v.type for v in operands], attributes)
        else:
            return
        for left, right in pairs:
            if not provably_equal(left, right):
                self.constraints[Constraint(left, right, f"sizes of the operands of {definition.name}")] = None

    def _blame(self, error: UserError) -> None:
        place = self.place[0] if isinstance(self.place, tuple) and self.place else self.place
        if error.location is None and place is not None and not isinstance(place, tuple):
            error.location = place.resolve() if isinstance(place, Site) else place

    def locate(self, node: Node, place: Place | tuple[Place, ...]) -> None:
        """Adds ``place`` to the locations of ``node``."""
        places = place if isinstance(place, tuple) else (place,)
        have = self.locations.get(node)
        if have is None:
            self.locations[node] = places
        elif have != places:
            self.locations[node] = have + tuple(p for p in places if p not in have)

    def constant(self, value: bool | int | float, dtype: DType) -> Value:
        """A rank-0 constant. ``value`` is converted to the dtype's kind (and rounded, for floats)."""
        return self.op("constant", attributes={"value": _exact(value, dtype), "dtype": dtype})

    def full(self, value: bool | int | float, shape: Sequence[Dim], dtype: DType) -> Value:
        """A tensor of ``shape`` filled with ``value``."""
        return self.broadcast_to(self.constant(value, dtype), shape)

    def full_like(self, x: Value, value: bool | int | float) -> Value:
        return self.full(value, x.shape, x.dtype)

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.dtype is dtype else self.op("cast", x, attributes={"dtype": dtype})

    def broadcast_to(self, x: Value, shape: Sequence[Dim]) -> Value:
        """NumPy's rules: trailing dimensions align, sizes of a literal 1 stretch."""
        offset = len(shape) - len(x.shape)
        return self.broadcast(x, shape, tuple(range(offset, len(shape))))

    def broadcast(self, x: Value, shape: Sequence[Dim], axes: Sequence[int]) -> Value:
        """Operand dimension ``i`` becomes result dimension ``axes[i]``; a literal 1 stretches, the rest is new."""
        shape = tuple(shape)
        if x.shape == shape and tuple(axes) == tuple(range(len(shape))):
            return x
        return self.op("broadcast", x, attributes={"shape": shape, "axes": tuple(axes)})

    def reshape(self, x: Value, shape: Sequence[Dim]) -> Value:
        shape = tuple(shape)
        return x if x.shape == shape else self.op("reshape", x, attributes={"shape": shape})

    def transpose(self, x: Value, permutation: Sequence[int]) -> Value:
        permutation = tuple(permutation)
        if permutation == tuple(range(len(permutation))):
            return x
        return self.op("transpose", x, attributes={"permutation": permutation})

    def sum(self, x: Value, axes: Sequence[int], *, keepdims: bool = False) -> Value:
        """Sum over ``axes`` (non-negative)."""
        axes = tuple(sorted(axes))
        if not axes:
            return x
        total = self.op("sum", x, attributes={"axes": axes})
        if keepdims:
            return self.reshape(total, tuple(1 if i in axes else d for i, d in enumerate(x.shape)))
        return total

    def contract(self, a: Value, b: Value, spec: str) -> Value:
        """Einsum of two operands, e.g. ``"mk,kn->mn"``."""
        return self.op("contract", a, b, attributes={"spec": spec})

    def unify(self, *values: Value) -> tuple[Value, ...]:
        """The values broadcast to their common shape."""
        first = values[0].shape
        if all(v.shape == first for v in values[1:]):
            return values
        try:
            shape = broadcast_shapes(*(v.shape for v in values))
        except ShapeError as error:
            self._blame(error)
            raise
        for value in values:
            for have, want in zip(value.shape, shape[len(shape) - len(value.shape) :], strict=True):
                if have != 1 and not provably_equal(have, want):
                    self.constraints[Constraint(have, want, "sizes of an elementwise operation")] = None
        return tuple(self.broadcast_to(v, shape) for v in values)

    def map(self, name: str, *operands: Value) -> Value:
        """A map whose operands are first broadcast to a common shape."""
        return self.op(name, *self.unify(*operands))

    def add(self, a: Value, b: Value) -> Value:
        return self.map("add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.map("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.map("mul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        return self.map("div", a, b)

    def neg(self, x: Value) -> Value:
        return self.op("neg", x)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self.map("select", condition, a, b)

    def infer(
        self, name: str, operands: Sequence[TensorType], attributes: Attributes = EMPTY
    ) -> tuple[TensorType, ...]:
        """The result types of an op on operands of these types."""
        return self.table[name].infer(operands, attributes, ())


def _exact(value: bool | int | float, dtype: DType) -> bool | int | float:
    if dtype is bool_:
        return bool(value)
    if dtype.is_float:
        if isinstance(value, int) or dtype.bits < 64:
            return float(dtype.numpy.type(value))
        return float(value)
    return int(value)
