"""Where instructions go: blocks, constants, symbolic dimensions, common subexpressions and control flow."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeAlias

from tgc.dtypes import DType, bool_, i64
from tgc.errors import CompilerBug
from tgc.ir.dims import Dim, Expr, symbols
from tgc.ir.polynomial import Atom
from tgc.kernels.ir import Attribute, Block, Buffer, Kernel, Operation, Value, is_condition, is_index, same_types

Operand: TypeAlias = "Value | Dim | bool | float"
Key: TypeAlias = "tuple[str, tuple[Attribute, ...], DType, int, tuple[int, ...]]"


def fault(message: str) -> CompilerBug:
    """The error of a schedule that builds a kernel wrongly."""
    return CompilerBug(message, stage="kernel builder")


class ScopedBuilder:
    """The part of :class:`tgc.kernels.builder.KernelBuilder` that knows blocks; see there."""

    def __init__(self, name: str, *, count: Dim, noalias: bool = False) -> None:
        self.name = name
        self.count = count
        self.noalias = noalias
        self._buffers: list[Buffer] = []
        self._scratch: list[Buffer] = []
        self._numbers = 1
        self._prelude = Block()
        self._body = Block((Value(i64, 1, 0),))
        self._body.arguments[0].name = "i"
        self._block = self._body
        self._invariants: dict[Key, Value] = {}
        self._scopes: list[dict[Key, Value]] = [{}]
        self._dims: dict[Dim, Value] = {}
        self._constants: dict[tuple[bytes | int, DType, int], Value] = {}

    # -- what a kernel consists of ---------------------------------------------------------------------------------

    @property
    def iteration(self) -> Value:
        """The index of the parallel loop."""
        return self._body.arguments[0]

    def buffer(self, name: str, dtype: DType, size: Dim, access: str) -> Buffer:
        """Declare the next buffer: ``size`` elements, ``access`` 'read', 'write' or 'readwrite'."""
        if access not in ("read", "write", "readwrite"):
            raise fault(f"a buffer is for read, write or readwrite, not {access!r}")
        made = Buffer(name, dtype, size, "read" if access == "read" else "write" if access == "write" else "readwrite")
        self._declare(made, self._buffers)
        return made

    def scratch(self, name: str, dtype: DType, size: Dim) -> Buffer:
        """Declare a buffer of each thread's own, aligned to 64 bytes, of undefined contents in every iteration."""
        made = Buffer(name, dtype, size, "scratch")
        self._declare(made, self._scratch)
        return made

    def _declare(self, buffer: Buffer, where: list[Buffer]) -> None:
        if any(buffer.name == other.name for other in self._buffers + self._scratch):
            raise fault(f"kernel {self.name} has two buffers {buffer.name!r}")
        where.append(buffer)

    def finish(self) -> Kernel:
        """The kernel; nothing may be added afterwards."""
        if self._block is not self._body:
            raise fault(f"kernel {self.name} is finished inside a loop or a branch")
        used = set(symbols(self.count))
        for buffer in self._buffers + self._scratch:
            used |= symbols(buffer.size)
        for d in self._dims:
            used |= symbols(d)
        names = tuple(sorted(used))
        return Kernel(
            self.name,
            tuple(self._buffers),
            tuple(self._scratch),
            names,
            self.count,
            self.noalias,
            self._prelude,
            self._body,
        )

    # -- values ----------------------------------------------------------------------------------------------------

    def _new(self, dtype: DType, lanes: int, operation: Operation | None = None) -> Value:
        # LLVM fails on some operations of other vectors, and they are no faster
        if lanes < 1 or lanes & (lanes - 1):
            raise fault(f"a vector has a power of two of lanes, not {lanes}")
        self._numbers += 1
        return Value(dtype, lanes, self._numbers - 1, operation)

    def _pure(
        self, name: str, operands: tuple[Value, ...], dtype: DType, lanes: int, attributes: tuple[Attribute, ...] = ()
    ) -> Value:
        """The value of a pure operation: an equal one that is in scope, or a new one as far out as it can be."""
        key = (name, attributes, dtype, lanes, tuple([v.number for v in operands]))
        invariant = True
        for v in operands:
            if not v.invariant:
                invariant = False
                break
        if invariant:
            found = self._invariants.get(key)
            if found is None:
                found = self._append(self._prelude, name, operands, dtype, lanes, attributes)
                found.invariant = True
                self._invariants[key] = found
            return found
        for scope in reversed(self._scopes):
            found = scope.get(key)
            if found is not None:
                return found
        made = self._append(self._block, name, operands, dtype, lanes, attributes)
        self._scopes[-1][key] = made
        return made

    def _append(
        self,
        block: Block,
        name: str,
        operands: tuple[Value, ...],
        dtype: DType,
        lanes: int,
        attributes: tuple[Attribute, ...],
    ) -> Value:
        operation = Operation(name, operands, attributes)
        result = self._new(dtype, lanes, operation)
        operation.results = (result,)
        block.operations.append(operation)
        return result

    def _effect(self, name: str, operands: tuple[Value, ...], attributes: tuple[Attribute, ...]) -> None:
        self._block.operations.append(Operation(name, operands, attributes))

    def constant(self, value: bool | int | float, dtype: DType, lanes: int = 1) -> Value:
        """A literal in every lane, rounded to ``dtype``; integers wrap."""
        literal: bool | int | float
        if dtype.kind == "float":
            literal = float(value)
            token: bytes | int = struct.pack("<d", literal)
        elif dtype is bool_:
            token = literal = bool(value)
        else:
            if isinstance(value, float) and not value.is_integer():
                raise fault(f"{value} is no {dtype}")
            token = literal = int(value) & ((1 << dtype.bits) - 1)
            if dtype.kind == "int" and token >> (dtype.bits - 1):
                token = literal = token - (1 << dtype.bits)
        found = self._constants.get((token, dtype, lanes))
        if found is None:
            found = self._append(self._prelude, "constant", (), dtype, lanes, (literal,))
            found.invariant = True
            self._constants[(token, dtype, lanes)] = found
        return found

    def index(self, value: Operand) -> Value:
        """A dimension as a value of i64: computed once per call. A value of i64 is returned as it is."""
        if isinstance(value, Value):
            if not is_index(value):
                raise fault(f"{value} is no index")
            return value
        if isinstance(value, int):
            return self.constant(value, i64)
        if not isinstance(value, Expr):
            raise fault(f"{value!r} is no index")
        found = self._dims.get(value)
        if found is None:
            found = self._dims[value] = self._sum(value)
        return found

    def _sum(self, dim: Expr) -> Value:
        total: Value | None = None
        for monomial, coefficient in dim.terms:
            term = None if monomial and coefficient == 1 else self.constant(coefficient, i64)
            for atom in monomial:
                factor = self._atom(atom)
                term = factor if term is None else self._pure("mul", (factor, term), i64, 1)
            if term is not None:
                total = term if total is None else self._pure("add", (total, term), i64, 1)
        return self.constant(0, i64) if total is None else total

    def _atom(self, atom: Atom) -> Value:
        if atom.op == "symbol":
            return self._pure("symbol", (), i64, 1, (str(atom),))
        name = {"//": "floor_divide", "%": "modulo", "max": "maximum", "min": "minimum"}[atom.op]
        result = self.index(atom.args[0])
        for argument in atom.args[1:]:
            result = self._pure(name, (result, self.index(argument)), i64, 1)
        return result

    # -- control flow ----------------------------------------------------------------------------------------------

    def loop(
        self, low: Operand, high: Operand, step: Operand = 1, carried: Sequence[Value] = (), name: str = "k"
    ) -> Loop:
        """``for`` over ``low, low + step, ... < high`` with ``step > 0``; a context manager.

        >>> b = ScopedBuilder("example", count=1)
        >>> with b.loop(0, 10, 2, carried=[b.constant(1, i64)]) as loop:
        ...     loop.yield_(loop.carried[0])
        >>> [v.type for v in loop.results]
        ['i64']
        """
        bounds = (self.index(low), self.index(high), self.index(step))
        if isinstance(step, int) and step <= 0:
            raise fault(f"a loop steps by {step}")
        return Loop(self, Operation("for", (*bounds, *carried), (name,)), 1)

    def while_loop(self, carried: Sequence[Value]) -> While:
        """``while``: first ``.condition(c)``, then ``.yield_(next values)``; a context manager.

        ``carried`` are the values of this round, ``results`` those for which the condition was false.
        """
        return While(self, Operation("while", tuple(carried)), 0)

    def if_(self, condition: Value) -> If:
        """``with b.if_(c) as branch: branch.yield_(x)`` and then ``with branch.otherwise(): branch.yield_(y)``."""
        if not is_condition(condition):
            raise fault(f"{condition} is no condition")
        return If(self, Operation("if", (condition,)))

    def _enter(self, block: Block) -> Block:
        outer, self._block = self._block, block
        self._scopes.append({})
        return outer

    def _leave(self, outer: Block) -> None:
        self._block = outer
        self._scopes.pop()


class _Region:
    """What ``with`` opens: operations go into its block until it ends."""

    def __init__(self, builder: ScopedBuilder, operation: Operation, block: Block) -> None:
        self._builder = builder
        self._operation = operation
        self._current = block
        self._outer: list[Block] = []
        self._yielded = False
        self.results: tuple[Value, ...] = ()

    def _results_like(self, values: Sequence[Value]) -> None:
        made = tuple(self._builder._new(v.dtype, v.lanes, self._operation) for v in values)
        self._operation.results = self.results = made

    def yield_(self, *values: Value) -> None:
        """End the block: what the next round carries, or what the branch results in."""
        if self._yielded or self._builder._block is not self._current:
            raise fault(f"the block of a {self._operation.name} yields twice, or from inside another block")
        self._yielded = True
        self._current.yields = values


class Loop(_Region):
    """A ``for``: ``index``, ``carried`` inside, ``results`` afterwards."""

    def __init__(self, builder: ScopedBuilder, operation: Operation, indices: int) -> None:
        initial = operation.operands[3 * indices :]
        arguments = tuple(builder._new(v.dtype, v.lanes) for v in (*operation.operands[:indices], *initial))
        super().__init__(builder, operation, Block(arguments))
        operation.blocks = (self._current,)
        self.carried = arguments[indices:]
        self.index = arguments[0] if arguments else builder.iteration
        if indices:
            self.index.name = str(operation.attributes[0])

    def __enter__(self) -> Self:
        self._builder._block.operations.append(self._operation)
        self._outer.append(self._builder._enter(self._current))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._builder._leave(self._outer.pop())
        if error is not None:
            return
        if not same_types(self._current.yields, self.carried):
            raise fault(f"a loop carries {self.carried}, but yields {self._current.yields}")
        self._results_like(self.carried)


class While(Loop):
    """A ``while``: its first block computes the condition, its second the next round."""

    def condition(self, condition: Value) -> None:
        """Go on while this holds."""
        if not is_condition(condition) or self._builder._block is not self._current or self._yielded:
            raise fault(f"{condition} is no condition, or the while loop has one already")
        self._current.yields = (condition,)
        self._current = Block()
        self._operation.blocks = (*self._operation.blocks, self._current)
        self._outer.append(self._builder._enter(self._current))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None and len(self._outer) == 1:
            raise fault("a while loop needs a condition")
        if len(self._outer) == 2:
            self._builder._leave(self._outer.pop())
        super().__exit__(kind, error, _)


class If(_Region):
    """Two branches with the same types of results."""

    def __init__(self, builder: ScopedBuilder, operation: Operation) -> None:
        super().__init__(builder, operation, Block())
        operation.blocks = (self._current, Block())

    def __enter__(self) -> If:
        if self._current is self._operation.blocks[0]:
            self._builder._block.operations.append(self._operation)
        self._outer.append(self._builder._enter(self._current))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._builder._leave(self._outer.pop())
        if error is not None:
            return
        first, second = self._operation.blocks
        if self._current is first:
            self._results_like(first.yields)
        elif not same_types(first.yields, second.yields):
            raise fault(f"a branch yields {first.yields}, the other {second.yields}")

    def otherwise(self) -> If:
        """The other branch: ``with branch.otherwise(): ...``; needed if there are results."""
        self._current = self._operation.blocks[1]
        self._yielded = False
        return self
