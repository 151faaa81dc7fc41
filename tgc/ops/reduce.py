"""Folds of whole dimensions: sum, prod, max, min, any, all, and the index of the largest and smallest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from types import MappingProxyType

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import f32, from_numpy, i64
from tgc.errors import ShapeError
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Case, ErrorBound, GraphBuilder, Jvp, OpDef, TypeRule, Vjp
from tgc.ir.types import TensorType
from tgc.ops.maps import Interval, dtypes_of, where

Fold = Callable[[Array, tuple[int, ...]], Array]

_AXES = MappingProxyType({"axes": AttributeSpec("dimensions to fold, increasing; they are not in the result")})
_AXIS = MappingProxyType({"axis": AttributeSpec("dimension to search; it is not in the result")})


def reduced_shape(shape: Sequence[Dim], axes: Sequence[int]) -> tuple[Dim, ...]:
    """The shape without ``axes``."""
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _kept(x: Value, axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(i for i in range(len(x.shape)) if i not in axes)


def spread(b: GraphBuilder, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """``y``, which has the shape of ``x`` without ``axes``, repeated along them."""
    return b.broadcast(y, x.shape, _kept(x, axes))


def _axes_of(node: Node) -> tuple[int, ...]:
    return rules.integers(node.attributes, "axes")


def _reduce_type(name: str, kinds: frozenset[str]) -> TypeRule:
    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        rules.require_kinds(name, types, kinds)
        axes = rules.checked_axes(name, types[0], attributes)
        return (TensorType(types[0].dtype, reduced_shape(types[0].shape, axes)),)

    return infer


def _cases(kinds: frozenset[str]) -> tuple[Case, ...]:
    shapes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((5,), (0,)),
        ((2, 3, 4), (1,)),
        ((2, 3, 4), (0, 2)),
        ((1, 3), (0, 1)),
        ((3, 0), (0,)),
        ((3, 0), (1,)),
        ((2, 2), ()),
    )
    first, *others = sorted(dtypes_of(kinds), key=lambda d: d is not f32)
    cases: list[Case] = [((TensorType(first, shape),), {"axes": axes}) for shape, axes in shapes]
    cases += [((TensorType(d, (2, 3)),), {"axes": (1,)}) for d in others]
    return tuple(cases)


def _reduction(
    name: str,
    doc: str,
    fold: Fold,
    kinds: frozenset[str],
    *,
    vjp: Vjp | None = None,
    jvp: Jvp | None = None,
    error: ErrorBound,
    domain: Interval = (-10.0, 10.0),
    foldable: bool = True,
) -> OpDef:
    def evaluate(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
        return (np.asarray(fold(operands[0], rules.integers(attributes, "axes"))),)

    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.REDUCE,
        operands=1,
        infer=_reduce_type(name, kinds),
        attributes=_AXES,
        evaluate=evaluate,
        vjp=vjp,
        jvp=jvp,
        batch=rules.shifted_batch(name, rules.shift_axes),
        ulp=0.0 if foldable else 0.5,
        error=error,
        domain=(domain,),
        cases=_cases(kinds),
        differentiable=vjp is not None,
        foldable=foldable,
    )


# -- sum and prod ------------------------------------------------------------------------------------------------


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    # sums begin with +0; without axes nothing is summed, and -0 stays
    return np.asarray(np.sum(x, axis=axes, dtype=x.dtype)) if axes else x


def _sum_vjp(b: GraphBuilder, node: Node, cotangents: Sequence[Value | None]) -> list[Value | None]:
    (t,) = cotangents
    return [None if t is None else spread(b, t, node.operands[0], _axes_of(node))]


def _sum_jvp(b: GraphBuilder, node: Node, tangents: Sequence[Value | None]) -> list[Value | None]:
    (t,) = tangents
    return [None if t is None else b.sum(t, _axes_of(node))]


def folded(x: Array, axes: Sequence[int]) -> int:
    """How many elements go into each result."""
    return prod(x.shape[a] for a in axes)


def _sum_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> tuple[Array, ...]:
    x, axes = operands[0], rules.integers(attributes, "axes")
    size = rules.gamma(x, max(folded(x, axes) - 1, 0)) * np.sum(np.abs(rules.as_floats(x)), axis=axes)
    return (np.asarray(size + np.sum(errors[0], axis=axes)),)


def _prod(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.prod(x, axis=axes, dtype=x.dtype))


def others(b: GraphBuilder, x: Value, axes: Sequence[int]) -> Value:
    """For each element of ``x`` the product of all others that ``prod`` over ``axes`` multiplies it with.

    From exclusive products on both sides, because dividing the whole product by an element fails at zeros.
    """
    kept = _kept(x, axes)
    permutation = (*kept, *axes)
    moved = b.transpose(x, permutation)
    count = product(x.shape[a] for a in axes)
    flat = b.reshape(moved, (*(x.shape[i] for i in kept), count))
    axis = len(kept)

    def exclusive(reverse: bool) -> Value:
        # a one in front, the last element cut off: works for an empty dimension too
        zeros = (0,) * axis
        low, high = ((*zeros, 0), (*zeros, 1)) if reverse else ((*zeros, 1), (*zeros, 0))
        unit = b.constant(1, x.dtype)
        padded = b.op("pad", flat, unit, attributes={"low": low, "high": high, "interior": (0,) * (axis + 1)})
        start = 1 if reverse else 0
        window = {
            "start": (*zeros, start),
            "stop": (*flat.shape[:-1], count + start),
            "step": (1,) * (axis + 1),
        }
        cut = b.op("slice", padded, attributes=window)
        return b.op("cumulative_prod", cut, attributes={"axis": axis, "reverse": reverse})

    both = b.mul(exclusive(False), exclusive(True))
    inverse = tuple(permutation.index(i) for i in range(len(permutation)))
    return b.transpose(b.reshape(both, moved.shape), inverse)


def _prod_vjp(b: GraphBuilder, node: Node, cotangents: Sequence[Value | None]) -> list[Value | None]:
    (t,) = cotangents
    x, axes = node.operands[0], _axes_of(node)
    return [None if t is None else b.mul(spread(b, t, x, axes), others(b, x, axes))]


def _prod_jvp(b: GraphBuilder, node: Node, tangents: Sequence[Value | None]) -> list[Value | None]:
    (t,) = tangents
    x, axes = node.operands[0], _axes_of(node)
    return [None if t is None else b.sum(b.mul(t, others(b, x, axes)), axes)]


def _prod_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> tuple[Array, ...]:
    x, axes = operands[0], rules.integers(attributes, "axes")
    size = np.abs(rules.as_floats(x))
    largest = np.prod(size + errors[0], axis=axes)
    n = max(folded(x, axes) - 1, 0)
    return (np.asarray(largest - np.prod(size, axis=axes) + rules.gamma(x, n) * largest),)


# -- max and min -------------------------------------------------------------------------------------------------


def extreme_fold(x: Array, axes: tuple[int, ...], *, largest: bool) -> Array:
    """IEEE 754-2019 maximum (minimum) over ``axes``: nan propagates, -0 < +0; the least (greatest) value of nothing."""
    dtype = from_numpy(x.dtype)
    if dtype.is_float:
        start: float | int = -np.inf if largest else np.inf
    else:
        start = np.iinfo(x.dtype.name).min if largest else np.iinfo(x.dtype.name).max
    fold = np.max if largest else np.min
    y = np.asarray(fold(x, axis=axes, initial=start))
    if not dtype.is_float:
        return y
    # NumPy does not order zeros by sign
    zero_of_sign = (x == 0) & (np.signbit(x) != largest)
    preferred = np.asarray(0.0 if largest else -0.0, x.dtype)
    other = np.asarray(-0.0 if largest else 0.0, x.dtype)
    return np.where(y == 0, np.where(np.any(zero_of_sign, axis=axes), preferred, other), y)


def _winners(b: GraphBuilder, node: Node) -> Value:
    """The share that each element has in the result: 1 for the only extreme element, equal shares for several."""
    x, axes = node.operands[0], _axes_of(node)
    ones = b.full_like(x, 1.0)
    wins = where(b, "eq", x, spread(b, node.result, x, axes), ones, 0.0)
    return b.div(wins, spread(b, b.sum(wins, axes), x, axes))


def _extreme_vjp(b: GraphBuilder, node: Node, cotangents: Sequence[Value | None]) -> list[Value | None]:
    (t,) = cotangents
    if t is None:
        return [None]
    return [b.mul(spread(b, t, node.operands[0], _axes_of(node)), _winners(b, node))]


def _extreme_jvp(b: GraphBuilder, node: Node, tangents: Sequence[Value | None]) -> list[Value | None]:
    (t,) = tangents
    return [None if t is None else b.sum(b.mul(t, _winners(b, node)), _axes_of(node))]


def _extreme_error(sign: float) -> ErrorBound:
    """How far the extreme of the elements' intervals may lie: what is far from being the extreme does not count."""

    def error(
        operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
    ) -> tuple[Array, ...]:
        axes = rules.integers(attributes, "axes")
        x, e = sign * rules.as_floats(operands[0]), rules.as_floats(errors[0])
        low, y, high = (np.max(v, axis=axes, initial=-np.inf) for v in (x - e, x, x + e))
        return (np.maximum(np.where(low == y, 0.0, y - low), np.where(high == y, 0.0, high - y)),)

    return error


# -- argmax and argmin -------------------------------------------------------------------------------------------


def _search_type(name: str) -> TypeRule:
    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        rules.require_kinds(name, types, rules.NUMERIC)
        axis = rules.checked_axis(name, types[0], attributes)
        if types[0].shape[axis] == 0:
            raise ShapeError(f"{name} along axis {axis} of {types[0]}, which is empty")
        return (TensorType(i64, reduced_shape(types[0].shape, (axis,))),)

    return infer


def _search(name: str, doc: str, find: Callable[..., Array], sign: float) -> OpDef:
    def evaluate(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
        return (np.asarray(find(operands[0], axis=rules.integer(attributes, "axis")), np.int64),)

    def error(
        operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Any index that may win instead: the greatest distance to one whose interval reaches the winner's."""
        axis = rules.integer(attributes, "axis")
        x, e = sign * rules.as_floats(operands[0]), rules.as_floats(errors[0])
        winner = np.expand_dims(results[0], axis)
        bar = np.take_along_axis(x - e, winner, axis)
        position = np.arange(x.shape[axis]).reshape((-1,) + (1,) * (x.ndim - axis - 1))
        uncertain = (e + np.take_along_axis(e, winner, axis) > 0) & ~(x + e < bar)
        return (np.max(np.where(uncertain, np.abs(position - winner), 0).astype(np.float64), axis=axis),)

    shapes: tuple[tuple[tuple[int, ...], int], ...] = (((5,), 0), ((2, 3, 4), 1), ((3, 1), 1), ((0, 3), 1))
    cases: list[Case] = [((TensorType(f32, shape),), {"axis": axis}) for shape, axis in shapes]
    cases += [((TensorType(d, (2, 3)),), {"axis": 1}) for d in dtypes_of(rules.NUMERIC) if d is not f32]
    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.REDUCE,
        operands=1,
        infer=_search_type(name),
        attributes=_AXIS,
        evaluate=evaluate,
        batch=rules.shifted_batch(name, rules.shift_axis),
        error=error,
        domain=((-10.0, 10.0),),
        cases=tuple(cases),
        differentiable=False,
        foldable=True,
    )


OPS_REDUCE: tuple[OpDef, ...] = (
    _reduction(
        "sum",
        "Sum over ``axes``, 0 of nothing. bf16 and f16 are summed in f32; integers wrap.",
        _sum,
        rules.NUMERIC,
        vjp=_sum_vjp,
        jvp=_sum_jvp,
        error=_sum_error,
        foldable=False,
    ),
    _reduction(
        "prod",
        "Product over ``axes``, 1 of nothing. bf16 and f16 are multiplied in f32; integers wrap.",
        _prod,
        rules.NUMERIC,
        vjp=_prod_vjp,
        jvp=_prod_jvp,
        error=_prod_error,
        domain=(-2.0, 2.0),
        foldable=False,
    ),
    _reduction(
        "max",
        "Largest over ``axes``, nan if one is; the least value of nothing. Gradient: equal shares of several.",
        lambda x, axes: extreme_fold(x, axes, largest=True),
        rules.NUMERIC,
        vjp=_extreme_vjp,
        jvp=_extreme_jvp,
        error=_extreme_error(1.0),
    ),
    _reduction(
        "min",
        "Smallest over ``axes``, nan if one is; the greatest value of nothing. Gradient: equal shares of several.",
        lambda x, axes: extreme_fold(x, axes, largest=False),
        rules.NUMERIC,
        vjp=_extreme_vjp,
        jvp=_extreme_jvp,
        error=_extreme_error(-1.0),
    ),
    _reduction(
        "any",
        "Whether one element over ``axes`` is true; false of nothing.",
        lambda x, axes: np.asarray(np.any(x, axis=axes)),
        rules.BOOL,
        error=_extreme_error(1.0),
    ),
    _reduction(
        "all",
        "Whether all elements over ``axes`` are true; true of nothing.",
        lambda x, axes: np.asarray(np.all(x, axis=axes)),
        rules.BOOL,
        error=_extreme_error(-1.0),
    ),
    _search("argmax", "Index of the largest along ``axis``: the first of equals, the first nan.", np.argmax, 1.0),
    _search("argmin", "Index of the smallest along ``axis``: the first of equals, the first nan.", np.argmin, -1.0),
)
