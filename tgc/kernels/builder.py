"""The builder of kernels: one method per instruction.

Every instruction is defined for all operands. Floats are IEEE 754 in round-to-nearest-even without any licence to
reassociate or contract. Integers wrap. bf16 and f16 are only stored: arithmetic converts to f32 first. Elementwise
methods take vectors and scalars together (a scalar goes to every lane) and Python numbers for one of the operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tgc.dtypes import DType, bool_, i64
from tgc.ir.dims import Expr
from tgc.ir.opdef import ScalarBuilder
from tgc.kernels.ir import (
    PREDICATES,
    REDUCTIONS,
    Value,
)
from tgc.kernels.memory import MemoryBuilder
from tgc.kernels.scopes import Operand, fault
from tgc.kernels.vector_math import MATH


class KernelBuilder(MemoryBuilder):
    """Builds one :class:`~tgc.kernels.ir.Kernel`; ``count`` is the number of iterations of its parallel loop.

    >>> from tgc.dtypes import f32
    >>> from tgc.ir.dims import symbol
    >>> n = symbol("n")
    >>> b = KernelBuilder("double", count=n)
    >>> x, y = b.buffer("x", f32, n, "read"), b.buffer("y", f32, n, "write")
    >>> v = b.load(x, b.iteration)
    >>> b.store(y, b.iteration, b.add(v, v))
    >>> b.finish().symbols
    ('n',)
    """

    # -- operands --------------------------------------------------------------------------------------------------

    def dtype(self, x: Value) -> DType:
        """The dtype of a value."""
        return x.dtype

    def _alike(self, *operands: Operand) -> tuple[Value, ...]:
        """Operands as values of one dtype and one number of lanes."""
        model: Value | None = None
        uniform = True
        for x in operands:
            if not isinstance(x, Value):
                uniform = False
            elif model is None:
                model = x
            elif x.dtype is not model.dtype:
                raise fault(f"operands of dtypes {model.dtype} and {x.dtype}")
            elif x.lanes != model.lanes:
                uniform = False
                if x.lanes != 1 and model.lanes != 1:
                    raise fault(f"operands of {model.lanes} and {x.lanes} lanes")
                model = x if model.lanes == 1 else model
        if uniform:
            return operands  # type: ignore[return-value]
        if model is None:
            raise fault("one operand at least must be a value")
        return tuple(self._as(x, model.dtype, model.lanes) for x in operands)

    def _as(self, x: Operand, dtype: DType, lanes: int) -> Value:
        if isinstance(x, Value):
            return x if x.lanes == lanes else self.splat(x, lanes)
        if isinstance(x, Expr):
            if dtype is not i64:
                raise fault(f"the dimension {x} among operands of {dtype}")
            return self._as(self.index(x), i64, lanes)
        return self.constant(x, dtype, lanes)

    def _binary(self, name: str, a: Operand, b: Operand) -> Value:
        left, right = self._alike(a, b)
        return self._pure(name, (left, right), left.dtype, left.lanes)

    def _numeric(self, name: str, a: Operand, b: Operand) -> Value:
        value = self._binary(name, a, b)
        if value.dtype is bool_ or value.dtype.compute is not value.dtype:
            raise fault(f"{name} of {value.dtype}; convert first")
        return value

    # -- arithmetic ------------------------------------------------------------------------------------------------

    def add(self, a: Operand, b: Operand) -> Value:
        """a + b. Constants of indices are gathered, so that offsets stay a base and an immediate."""
        left, right = self._alike(a, b)
        if left.dtype is i64 and left.lanes == 1:
            return self._add_index(left, right)
        return self._numeric("add", left, right)

    def _add_index(self, left: Value, right: Value) -> Value:
        if left.constant is not None:
            left, right = right, left
        constant = right.constant
        if constant is None:
            return self._pure("add", (left, right), i64, 1)
        if constant == 0:
            return left
        if left.constant is not None:
            return self.constant(int(left.constant) + int(constant), i64)
        inner = left.operation
        if inner is not None and inner.name == "add" and inner.operands[1].constant is not None:
            return self._add_index(
                inner.operands[0], self.constant(int(constant) + int(inner.operands[1].constant), i64)
            )
        return self._pure("add", (left, right), i64, 1)

    def sub(self, a: Operand, b: Operand) -> Value:
        """a - b."""
        left, right = self._alike(a, b)
        if left.dtype is i64 and left.lanes == 1 and right.constant is not None:
            return self._add_index(left, self.constant(-int(right.constant), i64))
        return self._numeric("sub", left, right)

    def mul(self, a: Operand, b: Operand) -> Value:
        """a * b."""
        left, right = self._alike(a, b)
        if left.dtype is i64 and left.lanes == 1:
            if left.constant is not None:
                left, right = right, left
            if right.constant is not None and left.constant is not None:
                return self.constant(int(left.constant) * int(right.constant), i64)
            if right.constant == 1:
                return left
            if right.constant == 0:
                return right
        return self._numeric("mul", left, right)

    def div(self, a: Operand, b: Operand) -> Value:
        """a / b; integers truncate towards zero, x / 0 is 0, and the least integer divided by -1 is itself."""
        return self._numeric("div", a, b)

    def rem(self, a: Operand, b: Operand) -> Value:
        """The remainder of :meth:`div` on integers, with the sign of ``a``; 0 where ``b`` is 0."""
        value = self._numeric("rem", a, b)
        if value.dtype.is_float:
            raise fault("rem is for integers")
        return value

    def floor_divide(self, a: Operand, b: Operand) -> Value:
        """a // b as Python rounds, on integers; 0 where ``b`` is 0."""
        return self._integral("floor_divide", a, b)

    def modulo(self, a: Operand, b: Operand) -> Value:
        """a % b with the sign of ``b``, on integers; 0 where ``b`` is 0."""
        return self._integral("modulo", a, b)

    def _integral(self, name: str, a: Operand, b: Operand) -> Value:
        value = self._binary(name, a, b)
        if not value.dtype.is_integer:
            raise fault(f"{name} is for integers, not {value.dtype}")
        return value

    def fma(self, a: Operand, b: Operand, c: Operand) -> Value:
        """a * b + c, rounded once.

        Without hardware for it this takes dozens of instructions, and in f64 it is rounded twice where a factor leaves
        2**±450 or ``c`` leaves 2**±900.
        """
        return self._fused("fma", a, b, c)

    def multiply_add(self, a: Operand, b: Operand, c: Operand) -> Value:
        """:meth:`fma` on targets with hardware for it (``target.fma``), on others a * b + c rounded twice."""
        return self._fused("multiply_add", a, b, c)

    def _fused(self, name: str, a: Operand, b: Operand, c: Operand) -> Value:
        operands = self._alike(a, b, c)
        dtype = operands[0].dtype
        if not dtype.is_float or dtype.compute is not dtype:
            raise fault(f"{name} of {dtype}")
        return self._pure(name, operands, dtype, operands[0].lanes)

    def neg(self, x: Value) -> Value:
        """-x; of a float the sign is flipped."""
        return self._unary("neg", x)

    def abs(self, x: Value) -> Value:
        """The absolute value; the least integer is its own."""
        return self._unary("abs", x)

    def _unary(self, name: str, x: Value, *, kinds: tuple[str, ...] = ("int", "uint", "float")) -> Value:
        if x.dtype.kind not in kinds or x.dtype.compute is not x.dtype:
            raise fault(f"{name} of {x.dtype}")
        return self._pure(name, (x,), x.dtype, x.lanes)

    def sqrt(self, x: Value) -> Value:
        return self._unary("sqrt", x, kinds=("float",))

    def floor(self, x: Value) -> Value:
        return self._unary("floor", x, kinds=("float",))

    def ceil(self, x: Value) -> Value:
        return self._unary("ceil", x, kinds=("float",))

    def trunc(self, x: Value) -> Value:
        return self._unary("trunc", x, kinds=("float",))

    def round_even(self, x: Value) -> Value:
        """To the nearest integer, ties to the even one."""
        return self._unary("round_even", x, kinds=("float",))

    def minimum(self, a: Operand, b: Operand) -> Value:
        """IEEE 754-2019 minimum: NaN if an operand is, -0 below +0."""
        return self._numeric("minimum", a, b)

    def maximum(self, a: Operand, b: Operand) -> Value:
        """IEEE 754-2019 maximum: NaN if an operand is, -0 below +0. Cheapest where ``b`` is a constant."""
        return self._numeric("maximum", a, b)

    def compare(self, predicate: str, a: Operand, b: Operand) -> Value:
        """A bool per lane; ``predicate`` eq ne lt le gt ge. With NaN only ne holds."""
        if predicate not in PREDICATES:
            raise fault(f"there is no predicate {predicate!r}")
        left, right = self._alike(a, b)
        if left.dtype.compute is not left.dtype:
            raise fault(f"compare of {left.dtype}; convert first")
        return self._pure("compare", (left, right), bool_, left.lanes, (predicate,))

    def select(self, condition: Value, a: Operand, b: Operand) -> Value:
        """``a`` where the condition holds, else ``b``; a scalar condition chooses whole vectors."""
        if condition.dtype is not bool_:
            raise fault(f"select on {condition}")
        left, right = self._alike(a, b)
        if condition.lanes != 1 and left.lanes == 1:
            left, right = self.splat(left, condition.lanes), self.splat(right, condition.lanes)
        if condition.lanes not in (1, left.lanes):
            raise fault(f"select of {left.lanes} lanes on {condition.lanes}")
        return self._pure("select", (condition, left, right), left.dtype, left.lanes)

    def rarely(
        self, condition: Value, compute: Callable[[], tuple[Value, ...]], otherwise: tuple[Value, ...]
    ) -> tuple[Value, ...]:
        """``compute()`` where the condition holds, else ``otherwise``; skipped if it holds in no lane."""
        with self.if_(self.reduce("bit_or", condition)) as branch:
            computed = compute()
            chosen = [self.select(condition, a, b) for a, b in zip(computed, otherwise, strict=True)]
            branch.yield_(*chosen)
        with branch.otherwise():
            branch.yield_(*(self._as(v, v.dtype, c.lanes) for v, c in zip(otherwise, chosen, strict=True)))
        return branch.results

    # -- bits ------------------------------------------------------------------------------------------------------

    def _bitwise(self, name: str, a: Operand, b: Operand) -> Value:
        value = self._binary(name, a, b)
        if value.dtype.is_float:
            raise fault(f"{name} of {value.dtype}; bitcast first")
        return value

    def bit_and(self, a: Operand, b: Operand) -> Value:
        return self._bitwise("bit_and", a, b)

    def bit_or(self, a: Operand, b: Operand) -> Value:
        return self._bitwise("bit_or", a, b)

    def bit_xor(self, a: Operand, b: Operand) -> Value:
        return self._bitwise("bit_xor", a, b)

    def bit_not(self, x: Value) -> Value:
        """Every bit flipped; of a bool its negation."""
        return self._unary("bit_not", x, kinds=("bool", "int", "uint"))

    def shift_left(self, a: Operand, b: Operand) -> Value:
        """a << b; 0 where ``b``, taken as unsigned, is not less than the width."""
        return self._integral("shift_left", a, b)

    def shift_right(self, a: Operand, b: Operand) -> Value:
        """a >> b, with the sign of signed integers; beyond the width 0, or the sign."""
        return self._integral("shift_right", a, b)

    def multiply_high(self, a: Operand, b: Operand) -> Value:
        """The upper half of the unsigned product of u32 or u64."""
        value = self._binary("multiply_high", a, b)
        if value.dtype.kind != "uint" or value.dtype.bits < 32:
            raise fault(f"multiply_high of {value.dtype}")
        return value

    def count_leading_zeros(self, x: Value) -> Value:
        """Zero bits above the highest one; the width for 0."""
        return self._unary("count_leading_zeros", x, kinds=("int", "uint"))

    def population_count(self, x: Value) -> Value:
        """How many bits are one."""
        return self._unary("population_count", x, kinds=("int", "uint"))

    def convert(self, x: Value, dtype: DType) -> Value:
        """The number in another dtype: floats round to nearest even, integers wrap, a bool is x != 0.

        A float goes to an integer by truncation, saturating, NaN to 0. Integers go to bf16 and f16 through f32.
        """
        return x if x.dtype is dtype else self._pure("convert", (x,), dtype, x.lanes)

    def bitcast(self, x: Value, dtype: DType) -> Value:
        """The same bits; where the widths differ, the number of lanes changes in proportion (little endian)."""
        if x.dtype is dtype:
            return x
        bits = x.dtype.bits * x.lanes
        if bool_ in (x.dtype, dtype) or bits % dtype.bits:
            raise fault(f"bitcast of {x} to {dtype}")
        return self._pure("bitcast", (x,), dtype, bits // dtype.bits)

    def math(self, name: str, *arguments: Operand) -> Value:
        """A function of :data:`tgc.kernels.vector_math.MATH`, such as exp or tanh, of f32 or f64."""
        function = MATH.get(name)
        if function is None:
            raise fault(f"there is no function {name!r}")
        builder: ScalarBuilder = self
        value = function(builder, *self._alike(*arguments))
        if not isinstance(value, Value):
            raise fault(f"the function {name!r} gives {value!r}")
        return value

    # -- lanes -----------------------------------------------------------------------------------------------------

    def splat(self, x: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        if x.lanes == lanes:
            return x
        if x.lanes != 1:
            raise fault(f"splat of {x}")
        constant = x.constant
        return (
            self._pure("splat", (x,), x.dtype, lanes) if constant is None else self.constant(constant, x.dtype, lanes)
        )

    def extract(self, x: Value, lane: int) -> Value:
        """One lane as a scalar."""
        if not 0 <= lane < x.lanes:
            raise fault(f"lane {lane} of {x}")
        return x if x.lanes == 1 else self._pure("extract", (x,), x.dtype, 1, (lane,))

    def insert(self, x: Value, value: Value, lane: int) -> Value:
        """``x`` with one lane replaced by a scalar."""
        if not 0 <= lane < x.lanes or value.lanes != 1 or value.dtype is not x.dtype:
            raise fault(f"{value} into lane {lane} of {x}")
        return value if x.lanes == 1 else self._pure("insert", (x, value), x.dtype, x.lanes, (lane,))

    def lane_indices(self, lanes: int, dtype: DType = i64) -> Value:
        """0, 1, 2, ... of an integer dtype."""
        if not dtype.is_integer or (lanes - 1).bit_length() > dtype.bits - (dtype.kind == "int"):
            raise fault(f"{lanes} lane indices of {dtype}")
        return self.constant(0, dtype) if lanes == 1 else self._pure("lane_indices", (), dtype, lanes)

    def shuffle(self, a: Value, b: Value, mask: Sequence[int]) -> Value:
        """Lanes of ``a`` followed by ``b``, chosen by constant positions; as many as ``mask`` has."""
        if a.dtype is not b.dtype or a.lanes != b.lanes or not mask or not all(0 <= m < 2 * a.lanes for m in mask):
            raise fault(f"shuffle of {a} and {b} by {tuple(mask)}")
        if a.lanes == 1 or len(mask) == 1:
            lanes = [self.extract(a if m < a.lanes else b, m % a.lanes) for m in mask]
            result = self.splat(lanes[0], len(mask))
            for position, lane in enumerate(lanes[1:], 1):
                result = self.insert(result, lane, position)
            return result
        return self._pure("shuffle", (a, b), a.dtype, len(mask), tuple(mask))

    def reduce(self, op: str, x: Value) -> Value:
        """All lanes by ``op`` (add mul minimum maximum bit_and bit_or bit_xor): upper half onto lower half, to the end.

        The order is fixed; the number of lanes must be a power of two.
        """
        if op not in REDUCTIONS or x.lanes & (x.lanes - 1):
            raise fault(f"reduce by {op} of {x}")
        if (
            x.dtype.compute is not x.dtype
            or (x.dtype is bool_ or x.dtype.is_float)
            and op.startswith("bit_") != (x.dtype is bool_)
        ):
            raise fault(f"reduce by {op} of {x}")
        return x if x.lanes == 1 else self._pure("reduce", (x,), x.dtype, 1, (op,))
