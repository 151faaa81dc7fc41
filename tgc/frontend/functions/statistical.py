"""Reductions and running folds (Array API standard 2024.12, "Statistical Functions" and "Utility Functions").

``axis``: one, several, or (None) all; with ``keepdims`` they stay with size 1. Sums and products of small signed
integers and bools are i64, of small unsigned ones u64, unless ``dtype`` says otherwise.
"""

from __future__ import annotations

from typing import Any

from tgc.dtypes import DType, bool_, i64, u64
from tgc.errors import ShapeError, UserError
from tgc.frontend.functions.common import operand
from tgc.frontend.functions.manipulation import concat
from tgc.frontend.mathematics import normal_axis
from tgc.frontend.reductions import Axes
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.ir.builder import Builder
from tgc.ir.graph import Value


def _summed(x: Tensor, dtype: DType | None) -> Tensor:
    """What a sum or product is taken of."""
    if dtype is None and operand(x).dtype.kind == "uint":
        dtype = u64
    if dtype is None and (x.dtype is bool_ or x.dtype.kind == "int"):
        dtype = i64
    return operand(x) if dtype is None else x.astype(dtype)


def sum(x: Tensor, /, *, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """The sum.

    >>> import tgc
    >>> tgc.sum(tgc.tensor([[1, 2], [3, 4]]), axis=0).numpy()
    array([4, 6])
    """
    return _summed(x, dtype).sum(axis, keepdims=keepdims)


def prod(x: Tensor, /, *, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """The product."""
    return _summed(x, dtype).prod(axis, keepdims=keepdims)


def max(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest element; NaN wins. Of no elements it is −∞, or the smallest integer."""
    return operand(x).max(axis, keepdims=keepdims)


def min(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The smallest element; NaN wins. Of no elements it is ∞, or the largest integer."""
    return operand(x).min(axis, keepdims=keepdims)


def mean(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The mean; of integers and bools in f32."""
    return operand(x).mean(axis, keepdims=keepdims)


def _variance(x: Tensor, axis: Axes, correction: float, keepdims: bool) -> Tensor:
    floats = operand(x).floating()
    if isinstance(correction, int):
        return floats.var(axis, correction=correction, keepdims=keepdims)
    squares = (floats - floats.mean(axis, keepdims=True)).square()
    count = floats.emit(_ones).sum(axis, keepdims=keepdims)
    return squares.sum(axis, keepdims=keepdims) / (count - correction)


def _ones(builder: Builder, x: Value) -> Value:
    return builder.full_like(x, 1)


def var(x: Tensor, /, *, axis: Axes = None, correction: int | float = 0.0, keepdims: bool = False) -> Tensor:
    """The variance: Σ(x − mean)² divided by the number of elements less ``correction``."""
    return _variance(x, axis, int(correction) if correction == int(correction) else correction, keepdims)


def std(x: Tensor, /, *, axis: Axes = None, correction: int | float = 0.0, keepdims: bool = False) -> Tensor:
    """The standard deviation: the root of :func:`var`."""
    return var(x, axis=axis, correction=correction, keepdims=keepdims).sqrt()


def all(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are true (not 0)."""
    return operand(x).all(axis, keepdims=keepdims)


def any(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any element is true (not 0)."""
    return operand(x).any(axis, keepdims=keepdims)


def count_nonzero(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """How many elements are not 0 (i64)."""
    true = x if operand(x).dtype is bool_ else x != 0
    return true.astype(i64).sum(axis, keepdims=keepdims)


def _running(op: str, x: Tensor, axis: int | None, dtype: DType | None, include_initial: bool, initial: int) -> Tensor:
    values = _summed(x, dtype)
    if axis is None and values.ndim != 1:
        raise ShapeError(f"{op} of {x.type} needs an axis", hint="only of 1-D tensors it is known", location=here())
    place = normal_axis(0 if axis is None else axis, values.ndim)
    found = values.apply(op, attributes={"axis": place, "reverse": False})
    if not include_initial:
        return found
    shape = (*x.shape[:place], 1, *x.shape[place + 1 :])
    first = found.emit(lambda builder, value: builder.full(initial, shape, value.dtype))
    return concat([first, found], axis=place)


def cumulative_sum(
    x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> Tensor:
    """The sums of the elements up to each along ``axis``; with ``include_initial``, 0 before them.

    >>> import tgc
    >>> tgc.cumulative_sum(tgc.tensor([1, 2, 3]), include_initial=True).numpy()
    array([0, 1, 3, 6])
    """
    return _running("cumulative_sum", x, axis, dtype, include_initial, 0)


def cumulative_prod(
    x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> Tensor:
    """The products of the elements up to each along ``axis``; with ``include_initial``, 1 before them."""
    return _running("cumulative_prod", x, axis, dtype, include_initial, 1)


def diff(
    x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """The ``n``-th differences of neighbours along ``axis``, after ``prepend`` and ``append`` were put at its ends.

    >>> import tgc
    >>> tgc.diff(tgc.tensor([1, 4, 9])).numpy()
    array([3, 5])
    """
    if n < 0:
        raise UserError(f"the {n}-th difference", location=here())
    place = normal_axis(axis, operand(x).ndim)
    parts = [part for part in (prepend, x, append) if part is not None]
    found = x if len(parts) == 1 else concat(parts, axis=place)
    before: tuple[Any, ...] = (slice(None),) * place
    for _ in range(n):
        later, earlier = found[(*before, slice(1, None))], found[(*before, slice(None, -1))]
        found = later != earlier if found.dtype is bool_ else later - earlier
    return found
