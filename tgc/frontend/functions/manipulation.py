"""Functions that move elements (Array API standard 2024.12, "Manipulation Functions"). Nothing is a view.

Raise :class:`tgc.errors.ShapeError` for axes that are not there and shapes that do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tgc.dtypes import i64
from tgc.errors import ShapeError, UnsupportedError, UserError
from tgc.frontend.arithmetic import common_dtype
from tgc.frontend.functions.common import given_shape, operand
from tgc.frontend.mathematics import normal_axis
from tgc.frontend.movement import listed
from tgc.frontend.tensor import Tensor, tensor
from tgc.frontend.trace import here
from tgc.ir.builder import broadcast_shapes
from tgc.ir.dims import Dim
from tgc.ir.graph import Value


def broadcast_to(x: Tensor, /, shape: Sequence[Dim]) -> Tensor:
    """Repeated along new leading axes and along axes of size 1."""
    return operand(x).broadcast_to(given_shape(shape))


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """All repeated to their common shape."""
    try:
        shape = broadcast_shapes(*(operand(x).shape for x in arrays))
    except ShapeError as error:
        raise ShapeError(error.message, hint=error.hint, location=here()) from None
    return [x.broadcast_to(shape) for x in arrays]


def _joined(arrays: Sequence[Tensor], what: str) -> list[Tensor]:
    """The tensors, cast to a common dtype."""
    if isinstance(arrays, Tensor) or not arrays:
        raise UserError(f"{what} takes a sequence of tensors, at least one", location=here())
    dtype = common_dtype([operand(x) for x in arrays])
    return [x.astype(dtype) for x in arrays]


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """One after another along ``axis``, or all flattened first if it is None. Dtypes promote.

    >>> import tgc
    >>> tgc.concat([tgc.tensor([1, 2]), tgc.tensor([3.5])]).numpy()
    array([1. , 2. , 3.5], dtype=float32)
    """
    parts = _joined(arrays, "concat")
    if axis is None:
        parts, axis = [x.reshape(-1) if x.ndim != 1 else x for x in parts], 0
    place = normal_axis(axis, parts[0].ndim)
    return parts[0].emit(_concatenation(place), *parts[1:]) if len(parts) > 1 else parts[0]


def _concatenation(axis: int) -> Any:
    def make(builder: Any, *values: Value) -> Value:
        found: Value = builder.op("concatenate", *values, attributes={"axis": axis})
        return found

    return make


def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    parts = _joined(arrays, "stack")
    for x in parts:
        if x.shape != parts[0].shape:
            raise ShapeError(f"stack of {parts[0].type} and {x.type}", hint="shapes must be equal", location=here())
    return concat([x.unsqueeze(axis) for x in parts], axis=normal_axis(axis, parts[0].ndim + 1))


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``axis``, which must have a known size."""
    place = normal_axis(axis, operand(x).ndim)
    size = x.shape[place]
    if not isinstance(size, int):
        raise UnsupportedError(
            f"unstack of {x.type}: how many slices there are depends on {size}",
            hint="use tgc.scan or tgc.vmap along that axis",
            location=here(),
        )
    return tuple(x[(*(slice(None),) * place, i)] for i in range(size))


def expand_dims(x: Tensor, /, *, axis: int | Sequence[int] = 0) -> Tensor:
    """With new axes of size 1 where ``axis`` says, counted in the result."""
    axes = [axis] if isinstance(axis, int) else list(axis)
    rank = operand(x).ndim + len(axes)
    places = {normal_axis(a, rank) for a in axes}
    if len(places) != len(axes):
        raise ShapeError(f"expand_dims names an axis twice: {axes}", location=here())
    sizes = iter(x.shape)
    return x.reshape(tuple(1 if i in places else next(sizes) for i in range(rank)))


def squeeze(x: Tensor, /, axis: int | Sequence[int]) -> Tensor:
    """Without the axes named, which must have size 1."""
    return operand(x).squeeze(axis)


def flip(x: Tensor, /, *, axis: int | Sequence[int] | None = None) -> Tensor:
    """The elements along some axes (or all) in reverse order."""
    return operand(x).flip(axis)


def permute_dims(x: Tensor, /, axes: Sequence[int]) -> Tensor:
    """Axis ``axes[i]`` becomes axis ``i``."""
    return operand(x).permute(*axes)


def moveaxis(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int], /) -> Tensor:
    """The axes ``source`` moved to the places ``destination``; the others keep their order."""
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    rank = operand(x).ndim
    start, end = [normal_axis(a, rank) for a in sources], [normal_axis(a, rank) for a in targets]
    if len(start) != len(end) or len(set(start)) != len(start) or len(set(end)) != len(end):
        raise ShapeError(f"moveaxis from {sources} to {targets} of {x.type}", location=here())
    rest = iter(i for i in range(rank) if i not in start)
    order = {target: axis for axis, target in zip(start, end, strict=True)}
    return x.permute(*(order[i] if i in order else next(rest) for i in range(rank)))


def reshape(x: Tensor, /, shape: Sequence[Dim], *, copy: bool | None = None) -> Tensor:
    """The elements, in row-major order, in another shape; one size may be -1."""
    return operand(x).reshape(tuple(shape))


def roll(x: Tensor, /, shift: int | Sequence[int], *, axis: int | Sequence[int] | None = None) -> Tensor:
    """The elements moved by ``shift`` places; those that leave at one end come in at the other.

    Without an axis the tensor is rolled as if it were flat.

    >>> import tgc
    >>> tgc.roll(tgc.tensor([1, 2, 3]), 1).numpy()
    array([3, 1, 2])
    """
    if axis is None:
        if not isinstance(shift, int):
            raise UserError("roll by several shifts needs as many axes", location=here())
        return roll(operand(x).reshape(-1), shift, axis=0).reshape(x.shape)
    axes = [axis] if isinstance(axis, int) else list(axis)
    shifts = [shift] * len(axes) if isinstance(shift, int) else list(shift)
    if len(shifts) != len(axes):
        raise UserError(f"roll by {len(shifts)} shifts along {len(axes)} axes", location=here())
    found = operand(x)
    for each, amount in zip(axes, shifts, strict=True):
        found = _rolled(found, amount, normal_axis(each, x.ndim))
    return found


def _rolled(x: Tensor, shift: int, axis: int) -> Tensor:
    size = x.shape[axis]
    if isinstance(size, int):
        shift = shift % size if size else 0
    if shift == 0:
        return x
    before = (slice(None),) * axis
    if isinstance(size, int):
        return concat([x[(*before, slice(size - shift, None))], x[(*before, slice(0, size - shift))]], axis=axis)
    # how far it goes around is known only when it runs
    places = x.emit(lambda builder, v: builder.op("iota", attributes={"shape": (size,), "axis": 0, "dtype": i64}))
    return x.apply("gather", (places - shift) % x.extent(axis), attributes={"axis": axis})


def tile(x: Tensor, repetitions: Sequence[int], /) -> Tensor:
    """The whole tensor repeated along each axis; missing axes are added in front.

    >>> import tgc
    >>> tgc.tile(tgc.tensor([1, 2]), (2, 2)).numpy()
    array([[1, 2, 1, 2],
           [1, 2, 1, 2]])
    """
    times = given_shape(repetitions)
    rank = max(len(times), operand(x).ndim)
    times = (1,) * (rank - len(times)) + times
    shape: tuple[Dim, ...] = (1,) * (rank - x.ndim) + x.shape
    split = [d for pair in zip(times, shape, strict=True) for d in pair]
    found = x.emit(lambda builder, v: builder.broadcast(v, split, [2 * (i + rank - x.ndim) + 1 for i in range(x.ndim)]))
    return found.reshape(tuple(n * d for n, d in zip(times, shape, strict=True)))


def repeat(x: Tensor, repeats: int | Sequence[int], /, *, axis: int | None = None) -> Tensor:
    """Each element (or slice along ``axis``) repeated, all equally often or each as ``repeats`` says.

    Raises :class:`UnsupportedError` for a tensor of repetitions: the result's shape would depend on values.

    >>> import tgc
    >>> tgc.repeat(tgc.tensor([1, 2]), 2).numpy(), tgc.repeat(tgc.tensor([1, 2]), [1, 3]).numpy()
    (array([1, 1, 2, 2]), array([1, 2, 2, 2]))
    """
    if isinstance(repeats, Tensor):
        raise UnsupportedError(
            "repeat by a tensor gives a shape that depends on values", hint="pass a list of integers", location=here()
        )
    if axis is None:
        return repeat(operand(x).reshape(-1), repeats, axis=0)
    place = normal_axis(axis, operand(x).ndim)
    shape = x.shape
    if isinstance(repeats, int):
        (times,) = given_shape(repeats)
        wide = (*shape[: place + 1], times, *shape[place + 1 :])
        axes = [i if i <= place else i + 1 for i in range(x.ndim)]
        found = x.emit(lambda builder, v: builder.broadcast(v, wide, axes))
        return found.reshape((*shape[:place], shape[place] * times, *shape[place + 1 :]))
    counts = [int(n) for n in repeats]
    if len(counts) == 1:
        return repeat(x, counts[0], axis=axis)
    if len(counts) != shape[place] or any(n < 0 for n in counts):
        raise ShapeError(f"repetitions {listed(counts)} along axis {place} of {x.type}", location=here())
    indices = tensor(np.repeat(np.arange(len(counts)), counts))
    return x.apply("gather", indices, attributes={"axis": place})
