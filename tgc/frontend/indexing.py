"""Indexing: what ``x[...]`` and ``x.at[...]`` mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np

from tgc.dtypes import bool_, i64
from tgc.errors import DTypeError, ShapeError, UnsupportedError, UserError
from tgc.frontend.base import BaseTensor
from tgc.frontend.products import Products
from tgc.frontend.trace import current, here
from tgc.ir.builder import broadcast_shapes
from tgc.ir.dims import Dim, dim_max, dim_min, product
from tgc.ops.composite import size_of


@dataclass(frozen=True)
class _Basic:
    """An index of ints, slices and new axes: per dimension of the operand its slice, and the shape in the end."""

    reversed: tuple[int, ...]
    start: tuple[Dim, ...]
    stop: tuple[Dim, ...]
    step: tuple[int, ...]
    shape: tuple[Dim, ...]


class Indexing(Products):
    """Reading parts of a tensor; writing them makes another tensor: ``x.at[i].set(v)``."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Self:
        items = expanded(index, self)
        # tensors are indices of the dimensions that are left after the rest of the index was taken
        if not any(isinstance(item, Indexing) for item in items):
            return self._basic(items)
        plain = [slice(None) if isinstance(item, Indexing) else item for item in items]
        places, axis = [], 0
        for item in items:
            if isinstance(item, Indexing):
                places.append(axis)
            if item is None or not isinstance(item, int):
                axis += 1
        tensors = [item for item in items if isinstance(item, Indexing)]
        return self._basic(plain)._taken(places, tensors)  # type: ignore[arg-type]

    def _basic(self, items: Sequence[Any]) -> Self:
        parsed = parse_basic(items, self)
        result = self.flip(parsed.reversed) if parsed.reversed else self
        if parsed.start != (0,) * self.ndim or parsed.stop != self.shape or parsed.step != (1,) * self.ndim:
            attributes = {"start": parsed.start, "stop": parsed.stop, "step": parsed.step}
            result = result.apply("slice", attributes=attributes)
        return result.reshape(parsed.shape)

    def _taken(self, places: Sequence[int], tensors: Sequence[Self]) -> Self:
        """The elements at index tensors (integers) of the axes ``places``, whose shapes broadcast together."""
        for tensor in tensors:
            if tensor.dtype is bool_:
                raise UnsupportedError(
                    "a mask as an index gives a shape that depends on values",
                    hint="use tgc.where(mask, x, other)",
                    location=here(),
                )
            if not tensor.dtype.is_integer:
                raise DTypeError(
                    f"an index needs integers, not {tensor.type}", hint="use .astype(tgc.i64)", location=here()
                )
        wrapped = [self._wrapped(tensor, place) for tensor, place in zip(tensors, places, strict=True)]
        if len(places) == 1:
            return self.apply("gather", wrapped[0], attributes={"axis": places[0]})
        # several are one index into the axes made one
        adjacent = list(places) == list(range(places[0], places[0] + len(places)))
        front = places[0] if adjacent else 0
        others = [i for i in range(self.ndim) if i not in places]
        order = [*others[:front], *places, *others[front:]]
        shape = self.permute(*order).shape
        last = front + len(places)
        joined = self.permute(*order).reshape((*shape[:front], product(shape[front:last]), *shape[last:]))
        flat: Self = wrapped[0]
        for tensor, place in zip(wrapped[1:], places[1:], strict=True):
            flat = flat * self.extent(place) + tensor
        return joined.apply("gather", flat, attributes={"axis": front})

    def _wrapped(self, index: Self, axis: int) -> Self:
        """Negative indices counted from the end; those outside are at the nearest element."""
        index = index.cast_to(i64)
        size = self.extent(axis)
        index = (index < 0).elementwise_select(index + size, index)
        return index.elementwise("clamp", 0, size - 1, dtype=i64)

    def elementwise_select(self, a: Any, b: Any) -> Self:
        """``a`` where this (bool) tensor is true, else ``b``."""
        return self.emit(lambda builder, c, x, y: builder.select(c, x, y), a, b)

    def extent(self, axis: int) -> Any:
        """The size of an axis: a number, or a tensor (i64) if it is symbolic."""
        size = self.shape[axis]
        if isinstance(size, int):
            return size
        trace = current()
        return self._wrap(trace, size_of(trace.builder, self.shape, (axis,), i64), False)

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise UserError(
            "a tensor is a value: its elements cannot be assigned",
            hint="x = x.at[index].set(value) gives another tensor (also .add, .multiply, .max and .min)",
            location=here(),
        )

    @property
    def at(self) -> _At:
        """Another tensor with some elements changed: ``x.at[index].set(value)``.

        >>> import tgc
        >>> tgc.tensor([1.0, 2.0, 3.0]).at[1].set(0.0).numpy()
        array([1., 0., 3.], dtype=float32)
        """
        return _At(self)

    def _positions(self) -> Self:
        """The row-major place of each element, in the tensor's own shape."""
        trace = current()
        flat = trace.record("iota", (), {"shape": (self.size,), "axis": 0, "dtype": i64})[0]
        return self._wrap(trace, flat, False).reshape(self.shape)

    def _updated(self, index: Any, value: Any, mode: str) -> Self:
        values = value if isinstance(value, Indexing) else self._full_like(value)
        places = self._positions()[index]
        shape = broadcast_shapes(places.shape, values.shape)
        if shape != places.shape:
            raise ShapeError(f"values {values.type} do not fit into {places.shape} places", location=here())
        updates = values.cast_to(self.dtype).broadcast_to(shape).reshape(-1)
        flat = self.reshape(-1).apply("scatter", places.reshape(-1), updates, attributes={"axis": 0, "mode": mode})
        return flat.reshape(self.shape)

    def _full_like(self, value: Any) -> Self:
        if isinstance(value, (np.ndarray, BaseTensor)) or not isinstance(value, (bool, int, float, np.generic)):
            raise UserError(
                f"elements cannot be set to a {type(value).__name__}", hint="pass a tensor", location=here()
            )
        number = value.item() if isinstance(value, np.generic) else value
        return self.emit(lambda builder, x: builder.constant(number, x.dtype))


@dataclass(frozen=True)
class _At:
    tensor: Any

    def __getitem__(self, index: Any) -> _Places:
        return _Places(self.tensor, index)


@dataclass(frozen=True)
class _Places:
    """Some elements of a tensor. Where indices meet, ``set`` takes the last value; others combine in order."""

    tensor: Any
    index: Any

    def set(self, value: Any) -> Any:
        return self.tensor._updated(self.index, value, "set")

    def add(self, value: Any) -> Any:
        return self.tensor._updated(self.index, value, "add")

    def max(self, value: Any) -> Any:
        return self.tensor._updated(self.index, value, "max")

    def min(self, value: Any) -> Any:
        return self.tensor._updated(self.index, value, "min")

    def multiply(self, value: Any) -> Any:
        return self.tensor._updated(self.index, self.tensor[self.index] * value, "set")

    def get(self) -> Any:
        return self.tensor[self.index]


def expanded(index: Any, tensor: Indexing) -> list[Any]:
    """The items of an index, one for each dimension and each new axis: the ellipsis is written out."""
    items = [_item(item) for item in (index if isinstance(index, tuple) else (index,))]
    taken = sum(item is not None and item is not Ellipsis for item in items)
    dots = sum(item is Ellipsis for item in items)
    if dots > 1 or taken > tensor.ndim:
        what = "has two ellipses" if dots > 1 else f"has {taken} items"
        raise ShapeError(
            f"the index of {tensor.type} {what}",
            hint=f"give at most one ..., and {tensor.ndim} items or fewer",
            location=here(),
        )
    rest = [slice(None)] * (tensor.ndim - taken)
    if not dots:
        return [*items, *rest]
    place = next(i for i, item in enumerate(items) if item is Ellipsis)
    return [*items[:place], *rest, *items[place + 1 :]]


def _item(item: Any) -> Any:
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, Indexing):
        # a number that is not known is an index tensor of rank 0
        return item
    if isinstance(item, (bool, np.bool_, np.ndarray, list)):
        raise UserError(
            f"a {type(item).__name__} as an index", hint="pass a tensor of integers: tgc.tensor(...)", location=here()
        )
    if isinstance(item, (int, np.integer)):
        return int(item)
    raise UserError(
        f"an index cannot be a {type(item).__name__}",
        hint="use integers, slices, None, ... and tensors of integers",
        location=here(),
    )


def parse_basic(items: Sequence[Any], tensor: Indexing) -> _Basic:
    """What ints, slices and new axes mean for the dimensions of ``tensor``."""
    start: list[Dim] = []
    stop: list[Dim] = []
    shape: list[Dim] = []
    reversals, step = [], []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        size = tensor.shape[axis]
        if isinstance(item, slice):
            low, high, stride, backwards = _bounds(item, size)
            if backwards:
                reversals.append(axis)
            shape.append((high - low + stride - 1) // stride)
        else:
            low, high, stride = _at(item, size, axis, tensor), 0, 1
            high = low + 1
        start.append(low)
        stop.append(high)
        step.append(stride)
        axis += 1
    return _Basic(tuple(reversals), tuple(start), tuple(stop), tuple(step), tuple(shape))


def _at(index: int, size: Dim, axis: int, tensor: Indexing) -> Dim:
    if isinstance(size, int) and not -size <= index < size:
        raise ShapeError(
            f"index {index} of axis {axis} of {tensor.type} is out of range",
            hint=f"indices of this axis go from {-size} to {size - 1}" if size else "the axis is empty",
            location=here(),
        )
    return size + index if index < 0 else index


def _bounds(item: slice, size: Dim) -> tuple[Dim, Dim, int, bool]:
    """(start, stop, step, whether the axis is reversed first) of a slice, clamped to the axis."""
    if any(isinstance(bound, BaseTensor) for bound in (item.start, item.stop, item.step)):
        raise UserError(
            "a slice between tensors has a size that depends on values",
            hint="use tgc.dynamic_slice(x, starts, sizes), or plain integers",
            location=here(),
        )
    step = 1 if item.step is None else int(item.step)
    if step == 0:
        raise UserError("a slice with step 0", location=here())
    if isinstance(size, int):
        first, last, _ = item.indices(size)
        if step < 0:
            first, last = size - 1 - first, size - 1 - last
        return first, max(first, last), abs(step), step < 0
    first_dim, last_dim = _clamped(item.start, size), _clamped(item.stop, size)
    if step < 0:
        low = 0 if first_dim is None else dim_max(size - 1 - first_dim, 0)
        high = size if last_dim is None else dim_max(size - 1 - last_dim, low)
        return low, high, -step, True
    low = 0 if first_dim is None else first_dim
    return (
        low,
        dim_max(low, size if last_dim is None else last_dim) if low != 0 else (size if last_dim is None else last_dim),
        step,
        False,
    )


def _clamped(bound: Any, size: Dim) -> Dim | None:
    """A bound of a slice along a symbolic axis."""
    if bound is None:
        return None
    number = int(bound)
    return dim_max(size + number, 0) if number < 0 else dim_min(size, number) if number else 0
