"""Which sizes symbolic dimensions have, given the shapes of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tgc.errors import ShapeError
from tgc.ir import dims
from tgc.ir.dims import Dim, Expr
from tgc.ir.types import TensorType


def bind_dimensions(types: Sequence[TensorType], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The values of the symbolic dimensions of ``types`` that give ``shapes``.

    Solves equations that are linear in one unknown until none is left, and checks all the others. Raises
    :class:`ShapeError` if a shape does not fit, or does not determine a symbol.

    >>> from tgc import dtypes
    >>> n = dims.symbol("n")
    >>> bind_dimensions([TensorType(dtypes.f32, (2 * n + 1, n // 2))], [(7, 1)])
    {'n': 3}
    """
    equations: list[tuple[Dim, int, TensorType]] = []
    for type_, shape in zip(types, shapes, strict=True):
        if len(shape) != type_.rank:
            raise ShapeError(f"expected {type_}, got the shape {tuple(shape)}")
        equations += [(d, size, type_) for d, size in zip(type_.shape, shape, strict=True)]
    known: dict[str, int] = {}
    pending = equations
    while pending:
        left = []
        for d, size, type_ in pending:
            rest = dims.substitute(d, known)
            if isinstance(rest, int):
                if rest != size:
                    raise ShapeError(f"expected {type_}, got {size} for the dimension {d}" + _because(d, known))
            elif not _solve(rest, size, known):
                left.append((d, size, type_))
        if len(left) == len(pending):
            unknown = sorted(set().union(*(dims.symbols(d) for d, _, _ in left)) - known.keys())
            raise ShapeError(
                f"the shapes do not determine the dimension {unknown[0]}", hint="pass it as a size of its own"
            )
        pending = left
    return known


def _because(d: Dim, known: Mapping[str, int]) -> str:
    named = [f"{name} = {known[name]}" for name in sorted(dims.symbols(d))]
    return f", which is {dims.evaluate(d, known)} for {', '.join(named)}" if named else ""


def _solve(d: Expr, size: int, known: dict[str, int]) -> bool:
    """Adds the symbol of ``d = size`` to ``known`` if ``d`` is linear in its only symbol."""
    constant, factor, name = 0, 0, ""
    for monomial, coefficient in d.terms:
        if not monomial:
            constant = coefficient
        elif len(monomial) == 1 and monomial[0].op == "symbol" and not name:
            factor, name = coefficient, str(monomial[0])
        else:
            return False
    value, rest = divmod(size - constant, factor)
    if rest or value < 0:
        raise ShapeError(f"no dimension {name} makes {d} equal to {size}")
    known[name] = value
    return True
