"""What the functions have in common: their operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tgc.dtypes import DType, bool_, f32, i64
from tgc.errors import ShapeError, UserError
from tgc.frontend.arithmetic import SCALARS
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import current, here
from tgc.ir.dims import Dim, Expr
from tgc.location import user_site


def operand(x: object) -> Tensor:
    """``x``, if it is a tensor. Raises :class:`UserError` for anything else."""
    if isinstance(x, Tensor):
        return x
    what = "a NumPy array" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
    raise UserError(f"{what} where a tensor is needed", hint="wrap it: tgc.asarray(...)", location=here())


def mapped(op: str, x1: Any, x2: Any, *, dtype: DType | None = None) -> Tensor:
    """The map ``op`` of two operands, one of which may be a number."""
    if isinstance(x1, Tensor):
        return x1.elementwise(op, x2, dtype=dtype)
    return operand(x2).elementwise(op, x1, dtype=dtype, reverse=True)


def truth(x: Any) -> Any:
    """Where ``x``, a tensor or a number, is not 0."""
    if isinstance(x, SCALARS):
        return bool(x)
    return x if operand(x).dtype is bool_ else x != 0


def given_shape(shape: Any) -> tuple[Dim, ...]:
    """A shape that was given as a size or as a sequence of sizes. Raises :class:`ShapeError` for negative sizes."""
    sizes: Sequence[Any] = shape if isinstance(shape, (tuple, list)) else (shape,)
    found: list[Dim] = []
    for size in sizes:
        if not isinstance(size, (int, Expr, np.integer)) or isinstance(size, bool):
            raise UserError(f"{size!r} is no size of a dimension", hint="sizes are integers", location=here())
        if not isinstance(size, Expr) and size < 0:
            raise ShapeError(f"a dimension of size {size}", location=here())
        found.append(size if isinstance(size, Expr) else int(size))
    return tuple(found)


def default_dtype(value: bool | int | float | np.generic) -> DType:
    """The dtype of a number that stands alone.

    >>> default_dtype(1), default_dtype(True), default_dtype(1.5)
    (tgc.i64, tgc.bool, tgc.f32)
    """
    if isinstance(value, (bool, np.bool_)):
        return bool_
    return i64 if isinstance(value, (int, np.integer)) else f32


def filled(value: bool | int | float, shape: Sequence[Dim], dtype: DType) -> Tensor:
    """A tensor of one number."""
    trace = current()
    trace.builder.place = user_site()
    return Tensor._recorded(trace, trace.builder.full(value, shape, dtype), False)


def counted(shape: Sequence[Dim], axis: int, dtype: DType) -> Tensor:
    """0, 1, 2, … along ``axis``."""
    trace = current()
    (value,) = trace.record("iota", (), {"shape": tuple(shape), "axis": axis, "dtype": dtype})
    return Tensor._recorded(trace, value, False)
