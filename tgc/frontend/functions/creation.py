"""Functions that make tensors (Array API standard 2024.12, "Creation Functions").

Sizes may be symbolic where a function is recorded. Without a dtype floats are f32 and integers i64.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from tgc.dtypes import DType, f32, f64, i64
from tgc.errors import ShapeError, UserError
from tgc.frontend.arithmetic import SCALARS
from tgc.frontend.functions.common import counted, default_dtype, filled, given_shape, operand
from tgc.frontend.tensor import Tensor, tensor
from tgc.frontend.trace import current, here
from tgc.ir.dims import Dim, Expr, dim_max

Number = bool | int | float


def asarray(obj: Any, /, *, dtype: DType | None = None, copy: bool | None = None) -> Tensor:
    """A tensor of a number, nested sequences, an array or a tensor; a symbolic size becomes its value (i64).

    A tensor of the right dtype is given back as it is: tensors never change. What is not a tensor is copied, so that
    ``copy=False`` raises UserError for it.

    >>> import tgc
    >>> tgc.asarray([1, 2.5]).dtype
    tgc.f32
    """
    if isinstance(obj, Tensor):
        return obj if dtype is None else obj.astype(dtype)
    if copy is False:
        raise UserError("asarray(copy=False) of what is no tensor", location=here())
    if isinstance(obj, Expr):
        return _scalar(obj, dtype or i64)
    return tensor(obj, dtype=dtype)


def from_dlpack(x: Any, /, *, copy: bool | None = None) -> Tensor:
    """A tensor with a copy of another library's array. Raises UserError for ``copy=False``."""
    if copy is False:
        raise UserError("tensors never share memory: from_dlpack copies", location=here())
    return x if isinstance(x, Tensor) else tensor(np.from_dlpack(x))


def _scalar(value: Dim | float, dtype: DType) -> Tensor:
    """A number or a symbolic size as a tensor of rank 0."""
    if not isinstance(value, Expr):
        return filled(value, (), dtype)
    trace = current()
    (found,) = trace.record("dimension", (), {"size": value, "dtype": dtype})
    return Tensor._recorded(trace, found, False)


def arange(
    start: Dim | float, /, stop: Dim | float | None = None, step: int | float = 1, *, dtype: DType | None = None
) -> Tensor:
    """``start``, ``start + step``, … below ``stop``; from 0 if only one number is given.

    Floats are computed in f64 and rounded once. Raises UserError for a step of 0.

    >>> import tgc
    >>> tgc.arange(1, 8, 3).numpy()
    array([1, 4, 7])
    """
    first, last = (0, start) if stop is None else (start, stop)
    if step == 0:
        raise UserError("arange with step 0", location=here())
    whole = not any(isinstance(v, float) for v in (first, last, step))
    if dtype is None:
        dtype = i64 if whole else f32
    if isinstance(first, Expr) or isinstance(last, Expr):
        if isinstance(first, float) or isinstance(last, float) or isinstance(step, float):
            raise UserError("arange over a symbolic size needs integers", location=here())
        distance = last - first if step > 0 else first - last
        count: Dim = dim_max((distance + (abs(step) - 1)) // abs(step), 0)
    else:
        count = max(math.ceil((last - first) / step), 0)
    exact = i64 if whole else f64
    found = counted((count,), 0, exact)
    found = found if step == 1 else found * step
    if first != 0:
        found = found + (first if isinstance(first, (int, float)) else _scalar(first, exact))
    return found.astype(dtype)


def linspace(
    start: int | float, stop: int | float, /, num: int, *, dtype: DType | None = None, endpoint: bool = True
) -> Tensor:
    """``num`` numbers of equal distance from ``start`` to ``stop``, which is the last one unless not ``endpoint``.

    Computed in f64 and rounded once; f32 without a dtype.

    >>> import tgc
    >>> tgc.linspace(0, 1, 5).numpy()
    array([0.  , 0.25, 0.5 , 0.75, 1.  ], dtype=float32)
    """
    (count,) = given_shape(num)
    if not isinstance(count, int):
        raise UserError("linspace needs a number of points that is known", location=here())
    parts = count - 1 if endpoint else count
    places = counted((count,), 0, f64)
    found = places * ((stop - start) / parts) + start if parts > 0 else places + start
    if endpoint and count > 1:
        # the product may miss the end by a rounding
        found = (places < count - 1).emit(
            lambda builder, c, x: builder.select(c, x, builder.constant(stop, f64)), found
        )
    return found.astype(dtype or f32)


def full(shape: Any, fill_value: Number, *, dtype: DType | None = None) -> Tensor:
    """A tensor of that shape filled with a number (or a tensor of rank 0).

    >>> import tgc
    >>> tgc.full((2,), 7).numpy()
    array([7, 7])
    """
    sizes = given_shape(shape)
    if isinstance(fill_value, Tensor):
        return asarray(fill_value, dtype=dtype).broadcast_to(sizes)
    if not isinstance(fill_value, SCALARS):
        raise UserError(f"a tensor filled with a {type(fill_value).__name__}", location=here())
    plain = fill_value.item() if isinstance(fill_value, np.generic) else fill_value
    return filled(plain, sizes, dtype or default_dtype(fill_value))


def zeros(shape: Any, *, dtype: DType | None = None) -> Tensor:
    """A tensor of zeros; f32 without a dtype."""
    return filled(0, given_shape(shape), dtype or f32)


def ones(shape: Any, *, dtype: DType | None = None) -> Tensor:
    """A tensor of ones; f32 without a dtype."""
    return filled(1, given_shape(shape), dtype or f32)


def empty(shape: Any, *, dtype: DType | None = None) -> Tensor:
    """As :func:`zeros`: nothing is ever uninitialised."""
    return zeros(shape, dtype=dtype)


def full_like(x: Tensor, /, fill_value: Number, *, dtype: DType | None = None) -> Tensor:
    """A tensor of the shape (and dtype) of ``x`` filled with a number."""
    return full(operand(x).shape, fill_value, dtype=dtype or x.dtype)


def zeros_like(x: Tensor, /, *, dtype: DType | None = None) -> Tensor:
    """Zeros in the shape (and dtype) of ``x``."""
    return filled(0, operand(x).shape, dtype or x.dtype)


def ones_like(x: Tensor, /, *, dtype: DType | None = None) -> Tensor:
    """Ones in the shape (and dtype) of ``x``."""
    return filled(1, operand(x).shape, dtype or x.dtype)


def empty_like(x: Tensor, /, *, dtype: DType | None = None) -> Tensor:
    """As :func:`zeros_like`: nothing is ever uninitialised."""
    return zeros_like(x, dtype=dtype)


def eye(n_rows: Dim, n_cols: Dim | None = None, /, *, k: int = 0, dtype: DType | None = None) -> Tensor:
    """Ones on the ``k``-th diagonal (0 the main one, positive ones above it) of a matrix of zeros.

    >>> import tgc
    >>> tgc.eye(2, 3, k=1).numpy()
    array([[0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    shape = given_shape((n_rows, n_rows if n_cols is None else n_cols))
    return (counted(shape, 0, i64) + k == counted(shape, 1, i64)).astype(dtype or f32)


def _triangle(x: Tensor, lower: bool, k: int) -> Tensor:
    if operand(x).ndim < 2:
        raise ShapeError(f"a triangle of {x.type}", hint="matrices have at least two dimensions", location=here())
    rows, columns = counted(x.shape[-2:], 0, i64), counted(x.shape[-2:], 1, i64)
    kept = columns <= rows + k if lower else columns >= rows + k
    return x.emit(lambda builder, v, c: builder.select(c, v, builder.constant(0, v.dtype)), kept)


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """Matrices with zeros above the ``k``-th diagonal. Raises :class:`ShapeError` for rank below 2."""
    return _triangle(x, True, k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """Matrices with zeros below the ``k``-th diagonal. Raises :class:`ShapeError` for rank below 2."""
    return _triangle(x, False, k)


def meshgrid(*arrays: Tensor, indexing: Literal["xy", "ij"] = "xy") -> list[Tensor]:
    """The coordinates of a grid: each of the 1-D tensors repeated along all the others.

    With "xy" the first two axes are exchanged. Raises :class:`ShapeError` for tensors that are not 1-D.

    >>> import tgc
    >>> [t.shape for t in tgc.meshgrid(tgc.arange(2), tgc.arange(3))]
    [(3, 2), (3, 2)]
    """
    if indexing not in ("xy", "ij"):
        raise UserError(f'indexing is "xy" or "ij", not {indexing!r}', location=here())
    for x in arrays:
        if operand(x).ndim != 1:
            raise ShapeError(f"meshgrid takes 1-D tensors, not {x.type}", location=here())
    if len({x.dtype for x in arrays}) > 1:
        raise UserError("meshgrid takes tensors of one dtype", hint="cast them with .astype", location=here())
    sizes = tuple(x.shape[0] for x in arrays)
    grids = []
    for i, x in enumerate(arrays):
        grid = x.reshape(tuple(d if i == j else 1 for j, d in enumerate(sizes))).broadcast_to(sizes)
        grids.append(grid.swapaxes(0, 1) if indexing == "xy" and len(arrays) > 1 else grid)
    return grids
