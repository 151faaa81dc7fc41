"""Functions that look for elements, order them or take them (Array API standard 2024.12).

Functions whose result's shape would depend on values raise :class:`tgc.errors.UnsupportedError`: shapes are known when
a function is compiled.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn

from tgc.dtypes import bool_, i64
from tgc.errors import DTypeError, ShapeError, UnsupportedError, UserError
from tgc.frontend.arithmetic import SCALARS, common_dtype
from tgc.frontend.functions.common import default_dtype, operand
from tgc.frontend.functions.creation import asarray
from tgc.frontend.mathematics import normal_axis
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.ir.builder import broadcast_shapes
from tgc.ir.dims import Dim


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index (i64) of the first largest element, along ``axis`` or of the flattened tensor; NaN wins."""
    return operand(x).argmax(axis, keepdims=keepdims)


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index (i64) of the first smallest element, along ``axis`` or of the flattened tensor; NaN wins."""
    return operand(x).argmin(axis, keepdims=keepdims)


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """``x1`` where ``condition`` (bool) is true, else ``x2``. Shapes broadcast; either may be a number.

    >>> import tgc
    >>> x = tgc.tensor([-1.0, 2.0])
    >>> tgc.where(x > 0, x, 0).numpy()
    array([0., 2.], dtype=float32)
    """
    if operand(condition).dtype is not bool_:
        raise DTypeError(f"where takes a bool condition, not {condition.type}", hint="compare it", location=here())
    if isinstance(x1, SCALARS) and isinstance(x2, SCALARS):
        dtype = common_dtype([asarray(x1, dtype=default_dtype(x1)), x2])
    else:
        dtype = common_dtype([x1, x2])
    a, b = (x.astype(dtype) if isinstance(x, Tensor) else x for x in (x1, x2))
    tensors = [x for x in (a, b) if isinstance(x, Tensor)]

    def make(builder: Any, c: Any, *values: Any) -> Any:
        given = iter(values)
        x, y = (next(given) if isinstance(v, Tensor) else builder.constant(_plain(v), dtype) for v in (a, b))
        return builder.select(c, x, y)

    return condition.emit(make, *tensors)


def _plain(number: Any) -> Any:
    return number if isinstance(number, (bool, int, float)) else number.item()


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """Elements below ``min`` become ``min``, those above ``max`` become ``max``; the dtype stays."""
    return operand(x).clip(min, max)


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Sorted along ``axis``, stably in any case; NaN last, also when ``descending``.

    >>> import tgc
    >>> tgc.sort(tgc.tensor([3, 1, 2]), descending=True).numpy()
    array([3, 2, 1])
    """
    return operand(x).apply("sort", attributes={"axis": normal_axis(axis, x.ndim), "descending": descending})


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices (i64) that sort along ``axis``, stably in any case; NaN last, also when ``descending``."""
    return operand(x).apply("argsort", attributes={"axis": normal_axis(axis, x.ndim), "descending": descending})


def searchsorted(
    x1: Tensor, x2: Any, /, *, side: Literal["left", "right"] = "left", sorter: Tensor | None = None
) -> Tensor:
    """Where to insert each of ``x2`` into ``x1`` (1-D) so that its increasing order is kept.

    ``sorter``: the indices that bring ``x1`` into that order, if it is not. "left" is before equal
    elements, "right" after them. Gives i64 in the shape of ``x2``.

    >>> import tgc
    >>> tgc.searchsorted(tgc.tensor([1, 3, 3, 5]), tgc.tensor([3, 4])).numpy()
    array([1, 3])
    """
    if side not in ("left", "right"):
        raise UserError(f'side is "left" or "right", not {side!r}', location=here())
    entries = x1 if sorter is None else take(x1, sorter)
    dtype = common_dtype([operand(entries), x2])
    return entries.astype(dtype).apply("searchsorted", asarray(x2).astype(dtype), attributes={"side": side})


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The slices at ``indices`` (1-D integers, negative ones from the end) along ``axis``; indices outside are clamped.

    >>> import tgc
    >>> tgc.take(tgc.tensor([10, 20, 30]), tgc.tensor([2, 0])).numpy()
    array([30, 10])
    """
    if axis is None and operand(x).ndim != 1:
        raise ShapeError(f"take from {x.type} needs an axis", location=here())
    place = normal_axis(0 if axis is None else axis, operand(x).ndim)
    return x[(*(slice(None),) * place, operand(indices))]


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """The elements at ``indices`` (integers, negative ones from the end) along ``axis``; the other axes broadcast.

    Raises :class:`ShapeError` for tensors of different rank.
    """
    place = normal_axis(axis, operand(x).ndim)
    if operand(indices).ndim != x.ndim or not indices.dtype.is_integer:
        raise ShapeError(f"take_along_axis from {x.type} at {indices.type}", hint="ranks are equal", location=here())

    def around(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return (*shape[:place], *shape[place + 1 :])

    common = broadcast_shapes(around(x.shape), around(indices.shape))
    source = x.broadcast_to((*common[:place], x.shape[place], *common[place:]))
    wide = indices.broadcast_to((*common[:place], indices.shape[place], *common[place:])).astype(i64)
    wrapped = where(wide < 0, wide + x.extent(place), wide)
    return source.apply("take_along_axis", wrapped, attributes={"axis": place})


# -- shapes that depend on values --------------------------------------------------------------------------------


def _refuse(name: str, hint: str) -> NoReturn:
    raise UnsupportedError(f"the shape of what {name} gives depends on values", hint=hint, location=here())


def nonzero(x: Tensor, /) -> NoReturn:
    """Raises :class:`UnsupportedError`; see :func:`where` and :func:`count_nonzero`."""
    _refuse("nonzero", "use tgc.where(x != 0, …, …), tgc.count_nonzero, or tgc.argsort of the mask")


def unique_all(x: Tensor, /) -> NoReturn:
    """Raises :class:`UnsupportedError`."""
    _refuse("unique_all", "use tgc.sort, and compare neighbours")


def unique_counts(x: Tensor, /) -> NoReturn:
    """Raises :class:`UnsupportedError`."""
    _refuse("unique_counts", "use tgc.sort and tgc.searchsorted, or x.at[indices].add(1) for counts of small integers")


def unique_inverse(x: Tensor, /) -> NoReturn:
    """Raises :class:`UnsupportedError`."""
    _refuse("unique_inverse", "use tgc.sort and tgc.searchsorted")


def unique_values(x: Tensor, /) -> NoReturn:
    """Raises :class:`UnsupportedError`."""
    _refuse("unique_values", "use tgc.sort, and compare neighbours")
