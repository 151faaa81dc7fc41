"""Other shapes for the same elements: reshape, transpose, broadcast and their relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from tgc.errors import ShapeError
from tgc.frontend.mathematics import Mathematics, normal_axis
from tgc.frontend.trace import here
from tgc.ir.dims import Dim, divisible, product


def listed(shape: Sequence[Dim]) -> str:
    """A shape as it is written in types.

    >>> listed((2, 3))
    '[2, 3]'
    """
    return "[" + ", ".join(map(str, shape)) + "]"


def given_dims(sizes: Sequence[Dim | Sequence[Dim]]) -> tuple[Dim, ...]:
    """What was given as ``f(2, 3)`` or as ``f((2, 3))``.

    >>> given_dims((2, 3)), given_dims(((2, 3),))
    ((2, 3), (2, 3))
    """
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        return tuple(sizes[0])
    return tuple(sizes)  # type: ignore[arg-type]


class Movement(Mathematics):
    """Changes of shape. Every result is a value of its own; nothing is a view."""

    __slots__ = ()

    def _shaped(self, shape: Sequence[Dim]) -> Self:
        shape = tuple(shape)
        return self if shape == self.shape else self.apply("reshape", attributes={"shape": shape})

    def reshape(self, *shape: Dim | Sequence[Dim]) -> Self:
        """The elements, in row-major order, in another shape; one size may be -1. Raises :class:`ShapeError`.

        >>> import tgc
        >>> tgc.tensor([[1, 2], [3, 4]]).reshape(-1).numpy()
        array([1, 2, 3, 4])
        """
        sizes = given_dims(shape)
        open_places = [i for i, d in enumerate(sizes) if isinstance(d, int) and d == -1]
        if open_places:
            rest = product(d for i, d in enumerate(sizes) if i != open_places[0])
            whole = self.size
            zero = isinstance(rest, int) and rest == 0
            if len(open_places) > 1 or zero or (isinstance(rest, int) and not divisible(whole, rest)):
                raise ShapeError(
                    f"{self.type} cannot be reshaped to {listed(sizes)}",
                    hint="one size may be -1, and the others must divide the number of elements",
                    location=here(),
                )
            sizes = (*sizes[: open_places[0]], whole // rest, *sizes[open_places[0] + 1 :])
        return self._shaped(sizes)

    view = reshape

    def flatten(self, start: int = 0, end: int = -1) -> Self:
        """Axes ``start`` to ``end`` (inclusive) made one; a tensor of rank 0 becomes one of rank 1.

        >>> import tgc
        >>> tgc.tensor([[[1, 2], [3, 4]]]).flatten(1).shape
        (1, 4)
        """
        if self.ndim == 0:
            return self._shaped((1,))
        first, last = normal_axis(start, self.ndim), normal_axis(end, self.ndim)
        if first > last:
            raise ShapeError(f"flatten from axis {start} to axis {end} of {self.type}", location=here())
        shape = self.shape
        return self._shaped((*shape[:first], product(shape[first : last + 1]), *shape[last + 1 :]))

    def transpose(self, *axes: int | Sequence[int]) -> Self:
        """The axes in another order: two are exchanged, as in PyTorch; else all are given, or none to reverse them."""
        order = given_dims(axes)
        rank = self.ndim
        if not order:
            return self.permute(*reversed(range(rank)))
        if len(order) == 2 and len(axes) == 2:
            return self.swapaxes(int(order[0]), int(order[1]))  # type: ignore[arg-type]
        return self.permute(*order)  # type: ignore[arg-type]

    def permute(self, *axes: int | Sequence[int]) -> Self:
        """Axis ``axes[i]`` becomes axis ``i``. Raises :class:`ShapeError` unless each is named once."""
        rank = self.ndim
        order = tuple(normal_axis(int(axis), rank) for axis in given_dims(axes))  # type: ignore[arg-type]
        if sorted(order) != list(range(rank)):
            raise ShapeError(
                f"{order} is no order of the axes of {self.type}",
                hint=f"name each of the axes 0 to {rank - 1} once" if rank else "a scalar has no axes",
                location=here(),
            )
        if order == tuple(range(rank)):
            return self
        return self.apply("transpose", attributes={"permutation": order})

    def swapaxes(self, a: int, b: int) -> Self:
        """Two axes exchanged."""
        order = list(range(self.ndim))
        a, b = normal_axis(a, self.ndim), normal_axis(b, self.ndim)
        order[a], order[b] = b, a
        return self.permute(*order)

    @property
    def T(self) -> Self:  # noqa: N802
        """The axes in reverse order."""
        return self.permute(*reversed(range(self.ndim)))

    @property
    def mT(self) -> Self:  # noqa: N802
        """The last two axes exchanged."""
        return self.swapaxes(-1, -2)

    def squeeze(self, axis: int | Sequence[int] | None = None) -> Self:
        """Without the axes of size 1: all, or those named, which must have size 1."""
        if axis is None:
            return self._shaped([d for d in self.shape if d != 1])
        dropped = {normal_axis(a, self.ndim) for a in ([axis] if isinstance(axis, int) else axis)}
        if any(self.shape[a] != 1 for a in dropped):
            raise ShapeError(f"axis {axis} of {self.type} has not size 1", location=here())
        return self._shaped([d for i, d in enumerate(self.shape) if i not in dropped])

    def unsqueeze(self, axis: int) -> Self:
        """With a new axis of size 1."""
        place = normal_axis(axis, self.ndim + 1)
        return self._shaped((*self.shape[:place], 1, *self.shape[place:]))

    def broadcast_to(self, *shape: Dim | Sequence[Dim]) -> Self:
        """Repeated along new leading axes and along axes of size 1."""
        sizes = given_dims(shape)
        offset = len(sizes) - self.ndim
        if offset < 0:
            raise ShapeError(f"{self.type} cannot be broadcast to {listed(sizes)}", location=here())
        return self.emit(lambda builder, x: builder.broadcast_to(x, sizes))

    def expand(self, *shape: Dim | Sequence[Dim]) -> Self:
        """As :meth:`broadcast_to`; -1 keeps a size."""
        sizes = given_dims(shape)
        offset = len(sizes) - self.ndim
        kept = [
            self.shape[i - offset] if isinstance(d, int) and d == -1 and i >= offset else d for i, d in enumerate(sizes)
        ]
        return self.broadcast_to(*kept)

    def flip(self, axis: int | Sequence[int] | None = None) -> Self:
        """The elements along some axes (or all) in reverse order."""
        named = range(self.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
        axes = tuple(sorted({normal_axis(a, self.ndim) for a in named}))
        return self.apply("reverse", attributes={"axes": axes}) if axes else self
