"""Sliding windows over the last dimensions of [N, C, …]: convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, TypeAlias

from tgc.errors import ShapeError, UserError
from tgc.frontend.arithmetic import common_dtype
from tgc.frontend.indexing import Indexing
from tgc.frontend.trace import here
from tgc.ir.graph import Attributes

Sizes: TypeAlias = "int | Sequence[int]"
Padding: TypeAlias = "int | str | Sequence[int] | Sequence[tuple[int, int]]"


def per_dimension(given: Sizes, count: int, what: str) -> tuple[int, ...]:
    """One number for each of ``count`` dimensions. Raises :class:`ShapeError`.

    >>> per_dimension(2, 3, "stride")
    (2, 2, 2)
    """
    sizes = (given,) * count if isinstance(given, int) else tuple(int(size) for size in given)
    if len(sizes) != count:
        raise ShapeError(f"{what} {given} for {count} spatial dimensions", location=here())
    return sizes


def borders(
    padding: Padding, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """(low, high) of each dimension. ``"same"`` keeps the size, the odd one going to the high side; it needs stride 1.

    >>> borders("same", (3, 4), (1, 1), (1, 1))
    ((1, 1), (1, 2))
    """
    if isinstance(padding, str):
        if padding not in ("same", "valid") or (padding == "same" and any(step != 1 for step in stride)):
            raise UserError(
                f"padding {padding!r} with stride {tuple(stride)}",
                hint="padding is a number, one per dimension, 'valid', or 'same' with stride 1",
                location=here(),
            )
        if padding == "valid":
            return ((0, 0),) * len(kernel)
        whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in whole)
    if isinstance(padding, int):
        return ((padding, padding),) * len(kernel)
    if len(padding) != len(kernel):
        raise ShapeError(f"padding {padding} for {len(kernel)} spatial dimensions", location=here())
    return tuple((p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in padding)


class Windows(Indexing):
    """Convolution and pooling by PyTorch's names and conventions."""

    __slots__ = ()

    def convolution(
        self,
        weight: Self,
        *,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> Self:
        """The cross-correlation of [N, C, …] with ``weight`` [O, C / groups, …], over as many dimensions as it has.

        Raises :class:`ShapeError` for shapes that do not fit.
        """
        count = weight.ndim - 2
        kernel = weight.shape[2:]
        if count < 1 or self.ndim != weight.ndim or not all(isinstance(k, int) for k in kernel):
            raise ShapeError(
                f"a convolution of {self.type} with {weight.type}",
                hint="the input is [N, C, …] and the weight [O, C / groups, …] of the same rank",
                location=here(),
            )
        steps, dilations = per_dimension(stride, count, "stride"), per_dimension(dilation, count, "dilation")
        attributes: Attributes = {
            "stride": steps,
            "padding": borders(padding, kernel, steps, dilations),  # type: ignore[arg-type]
            "dilation": dilations,
            "groups": groups,
        }
        dtype = common_dtype([self, weight])
        return self.cast_to(dtype).apply("convolution", weight.cast_to(dtype), attributes=attributes)

    def _window(self, window: Sizes, stride: Sizes | None, padding: Padding, count: int) -> Attributes:
        if self.ndim < count:
            raise ShapeError(f"windows of {count} dimensions over {self.type}", location=here())
        sizes = per_dimension(window, count, "window")
        steps = sizes if stride is None else per_dimension(stride, count, "stride")
        rest = self.ndim - count
        ones = (1,) * count
        return {
            "window": (1,) * rest + sizes,
            "stride": (1,) * rest + steps,
            "padding": ((0, 0),) * rest + borders(padding, sizes, steps, ones),
            "dilation": (1,) * self.ndim,
        }

    def _max_pool(self, window: Sizes, stride: Sizes | None, padding: Padding, count: int) -> Self:
        return self.apply("window_max", attributes=self._window(window, stride, padding, count))

    def _average_pool(
        self, window: Sizes, stride: Sizes | None, padding: Padding, count: int, count_padding: bool
    ) -> Self:
        attributes = self._window(window, stride, padding, count)
        total = self.apply("window_sum", attributes=attributes)
        if count_padding or attributes["padding"] == ((0, 0),) * self.ndim:
            return total / math.prod(per_dimension(window, count, "window"))
        covered = self.emit(lambda builder, x: builder.op("window_sum", builder.full_like(x, 1), attributes=attributes))
        return total / covered

    def max_pool1d(self, window: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Self:
        """The maximum of each window of the last dimension; ``stride`` is the window's size if not given."""
        return self._max_pool(window, stride, padding, 1)

    def max_pool2d(self, window: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Self:
        """The maximum of each window of the last two dimensions; ``stride`` is the window's size if not given.

        >>> import tgc
        >>> tgc.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).max_pool2d(2).item()
        4.0
        """
        return self._max_pool(window, stride, padding, 2)

    def max_pool3d(self, window: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Self:
        """The maximum of each window of the last three dimensions; ``stride`` is the window's size if not given."""
        return self._max_pool(window, stride, padding, 3)

    def avg_pool1d(
        self, window: Sizes, stride: Sizes | None = None, padding: Padding = 0, *, count_include_pad: bool = True
    ) -> Self:
        """The mean of each window of the last dimension."""
        return self._average_pool(window, stride, padding, 1, count_include_pad)

    def avg_pool2d(
        self, window: Sizes, stride: Sizes | None = None, padding: Padding = 0, *, count_include_pad: bool = True
    ) -> Self:
        """The mean of each window of the last two dimensions; ``count_include_pad``: padding counts as zeros."""
        return self._average_pool(window, stride, padding, 2, count_include_pad)

    def avg_pool3d(
        self, window: Sizes, stride: Sizes | None = None, padding: Padding = 0, *, count_include_pad: bool = True
    ) -> Self:
        """The mean of each window of the last three dimensions."""
        return self._average_pool(window, stride, padding, 3, count_include_pad)
