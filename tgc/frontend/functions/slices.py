"""Slices at places that are known only when a function runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tgc.dtypes import i64
from tgc.errors import DTypeError, ShapeError
from tgc.frontend.functions.common import filled, given_shape, operand
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Value


def dynamic_slice(x: Tensor, starts: Sequence[int | Tensor], sizes: Sequence[Dim], /) -> Tensor:
    """The part of ``x`` of shape ``sizes`` that begins at ``starts``: an integer or a tensor of rank 0 for each axis.

    Where the part would reach beyond ``x`` it begins earlier (at 0 for negative starts).

    >>> import tgc
    >>> tgc.dynamic_slice(tgc.arange(10), [tgc.tensor(3)], [4]).numpy()
    array([3, 4, 5, 6])
    """
    places, shape = _places(operand(x), starts), given_shape(sizes)

    def make(builder: Builder, value: Value, *at: Value) -> Value:
        return builder.op("dynamic_slice", value, *at, attributes={"sizes": shape})

    return x.emit(make, *places)


def dynamic_update_slice(x: Tensor, update: Tensor, starts: Sequence[int | Tensor], /) -> Tensor:
    """``x`` with the part that begins at ``starts`` replaced by ``update``; places as in :func:`dynamic_slice`.

    >>> import tgc
    >>> tgc.dynamic_update_slice(tgc.zeros(5), tgc.ones(2), [tgc.tensor(1)]).numpy()
    array([0., 1., 1., 0., 0.], dtype=float32)
    """
    places = _places(operand(x), starts)

    def make(builder: Builder, value: Value, new: Value, *at: Value) -> Value:
        return builder.op("dynamic_update_slice", value, new, *at)

    return x.emit(make, operand(update).astype(x.dtype), *places)


def _places(x: Tensor, starts: Sequence[Any]) -> list[Tensor]:
    if isinstance(starts, Tensor) or len(starts) != x.ndim:
        raise ShapeError(
            f"the starts {starts!r} of a slice of {x.type}", hint="pass a list with one for each axis", location=here()
        )
    found = []
    for start in starts:
        place = start if isinstance(start, Tensor) else filled(int(start), (), i64)
        if place.shape != () or not place.dtype.is_integer:
            raise DTypeError(f"a slice cannot begin at {place.type}", hint="integers of rank 0", location=here())
        found.append(place.astype(i64))
    return found
