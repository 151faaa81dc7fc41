"""Operators of tensors: promotion, broadcasting, and one method per Python operator."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Self

import numpy as np

from tgc.dtypes import DType, bool_, f32, i64, promote
from tgc.errors import DTypeError, ShapeError, TraceError, UserError
from tgc.frontend.base import BaseTensor
from tgc.frontend.trace import FunctionTrace, Trace, current, here
from tgc.ir.builder import Builder
from tgc.ir.graph import Value
from tgc.location import user_site

SCALARS = (bool, int, float, np.generic)
# what NumPy's scalars call when they are on the left
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "power": operator.pow,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "left_shift": operator.lshift,
    "right_shift": operator.rshift,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}


def scalar_dtype(value: bool | int | float | np.generic, other: DType) -> DType:
    """The dtype of a Python or NumPy scalar beside a tensor of ``other``: weak, it only changes the kind upwards."""
    if isinstance(value, (bool, np.bool_)):
        return other
    if isinstance(value, (int, np.integer)):
        return i64 if other is bool_ else other
    return other if other.is_float else f32


def _numpys_own(function: str) -> UserError:
    return UserError(
        f"NumPy's {function} was called with a tensor",
        hint=f"use tgc's own function or method, or look at the values first: np.{function}(x.numpy())",
        location=here(),
    )


class Arithmetic(BaseTensor):
    """Elementwise operators with the Array API's promotion; a scalar takes the tensor's dtype within its kind."""

    __slots__ = ()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
        if len(inputs) == 2 and np.ndim(inputs[0]) == 0 and ufunc.__name__ in _OPERATORS:
            return _OPERATORS[ufunc.__name__](np.asarray(inputs[0]).item(), self)
        if any(isinstance(value, np.ndarray) for value in inputs):
            raise UserError("a NumPy array beside a tensor", hint="wrap it first: tgc.tensor(array)", location=here())
        raise _numpys_own(ufunc.__name__)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        raise _numpys_own(function.__name__)

    def elementwise(self, op: str, *others: Any, dtype: DType | None = None, reverse: bool = False) -> Self:
        """The map ``op`` on this tensor and ``others`` (tensors, arrays or scalars), promoted and broadcast.

        ``dtype``: what operands are cast to, instead of what they promote to.
        """
        operands = [self, *others]
        if reverse:
            operands.reverse()
        trace = current()
        target = dtype or common_dtype(operands)
        builder = trace.builder
        builder.place = user_site()
        values = [_operand(builder, trace, operand, target) for operand in operands]
        gradient = any(isinstance(o, BaseTensor) and o.requires_grad for o in operands)
        try:
            found = builder.map(op, *values)
        except ShapeError as error:
            raise ShapeError(f"{op}: {error.message}", hint=error.hint, location=error.location) from None
        return self._wrap(trace, found, gradient)

    def _binary(self, op: str, other: Any, *, reverse: bool = False) -> Self:
        if not isinstance(other, (BaseTensor, np.ndarray, *SCALARS)):
            return NotImplemented  # type: ignore[no-any-return]
        return self.elementwise(op, other, reverse=reverse)

    def __add__(self, other: Any) -> Self:
        return self._binary("add", other)

    def __radd__(self, other: Any) -> Self:
        return self._binary("add", other, reverse=True)

    def __sub__(self, other: Any) -> Self:
        return self._binary("sub", other)

    def __rsub__(self, other: Any) -> Self:
        return self._binary("sub", other, reverse=True)

    def __mul__(self, other: Any) -> Self:
        return self._binary("mul", other)

    def __rmul__(self, other: Any) -> Self:
        return self._binary("mul", other, reverse=True)

    def _divide(self, other: Any, reverse: bool) -> Self:
        if not isinstance(other, (BaseTensor, np.ndarray, *SCALARS)):
            return NotImplemented  # type: ignore[no-any-return]
        mine = self if self.dtype.is_float else self.cast_to(f32)
        return mine._binary("div", other, reverse=reverse)

    def __truediv__(self, other: Any) -> Self:
        return self._divide(other, reverse=False)

    def __rtruediv__(self, other: Any) -> Self:
        return self._divide(other, reverse=True)

    def __floordiv__(self, other: Any) -> Self:
        return self._binary("floor_divide", other)

    def __rfloordiv__(self, other: Any) -> Self:
        return self._binary("floor_divide", other, reverse=True)

    def __mod__(self, other: Any) -> Self:
        return self._binary("remainder", other)

    def __rmod__(self, other: Any) -> Self:
        return self._binary("remainder", other, reverse=True)

    def __pow__(self, other: Any) -> Self:
        if isinstance(other, (int, float)):
            if other == 2:
                return self.apply("square")
            if other == 0.5 and self.dtype.is_float:
                return self.apply("sqrt")
        return self._binary("pow", other)

    def __rpow__(self, other: Any) -> Self:
        return self._binary("pow", other, reverse=True)

    def __and__(self, other: Any) -> Self:
        return self._binary("bitwise_and", other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Self:
        return self._binary("bitwise_or", other)

    __ror__ = __or__

    def __xor__(self, other: Any) -> Self:
        return self._binary("bitwise_xor", other)

    __rxor__ = __xor__

    def __lshift__(self, other: Any) -> Self:
        return self._binary("shift_left", other)

    def __rshift__(self, other: Any) -> Self:
        return self._binary("shift_right", other)

    def __invert__(self) -> Self:
        return self.apply("logical_not" if self.dtype is bool_ else "bitwise_not")

    def __neg__(self) -> Self:
        return self.apply("neg")

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return self.apply("abs")

    def __eq__(self, other: object) -> Self:  # type: ignore[override]
        return self._binary("eq", other)

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        return self._binary("ne", other)

    def __lt__(self, other: Any) -> Self:
        return self._binary("lt", other)

    def __le__(self, other: Any) -> Self:
        return self._binary("le", other)

    def __gt__(self, other: Any) -> Self:
        return self._binary("gt", other)

    def __ge__(self, other: Any) -> Self:
        return self._binary("ge", other)

    __hash__ = BaseTensor.__hash__

    def cast_to(self, dtype: DType) -> Self:
        """The tensor in another dtype; itself if it has it already."""
        return self if self.dtype is dtype else self.apply("cast", attributes={"dtype": dtype})

    def _concrete(self, what: str) -> np.generic:
        if self.shape != ():
            raise UserError(
                f"{what} needs a tensor of rank 0, not {self.type}",
                hint="reduce it first, for example with .sum()",
                location=here(),
            )
        return self.array.reshape(1)[0]  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        if not self.is_concrete and isinstance(self._epoch, FunctionTrace) and not self._epoch.closed:
            raise TraceError(
                f"the truth of a traced tensor ({self.type}) is not known while its function is being recorded",
                hint="use tgc.where(condition, a, b), tgc.cond or tgc.while_loop instead of Python's if and while",
                location=here(),
            )
        return bool(self._concrete("bool()"))

    def __float__(self) -> float:
        return float(self._concrete("float()"))

    def __int__(self) -> int:
        return int(self._concrete("int()"))

    def __index__(self) -> int:
        if not self.dtype.is_integer:
            raise DTypeError(f"an index needs an integer, not {self.type}", location=here())
        return int(self)


def common_dtype(operands: list[Any]) -> DType:
    """What the operands of a map promote to."""
    strong: DType | None = None
    for operand in operands:
        if isinstance(operand, BaseTensor):
            strong = operand.dtype if strong is None else _promoted(strong, operand.dtype)
        elif not isinstance(operand, SCALARS):
            raise UserError(
                f"{_described(operand)} beside a tensor",
                hint="wrap it first: tgc.tensor(array)" if isinstance(operand, np.ndarray) else None,
                location=here(),
            )
    if strong is None:
        raise UserError("an elementwise operation needs a tensor", location=here())
    for operand in operands:
        if not isinstance(operand, BaseTensor):
            strong = scalar_dtype(operand, strong)
    return strong


def _promoted(a: DType, b: DType) -> DType:
    try:
        return promote(a, b)
    except DTypeError as error:
        error.location = here()
        raise


def _described(value: object) -> str:
    return "a NumPy array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _operand(builder: Builder, trace: Trace, operand: Any, dtype: DType) -> Value:
    if isinstance(operand, BaseTensor):
        return builder.cast(operand.value_in(trace), dtype)
    return builder.constant(operand.item() if isinstance(operand, np.generic) else operand, dtype)
