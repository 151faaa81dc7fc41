"""Running folds along one dimension: sum, product, maximum, minimum."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import f32, i64
from tgc.ir.graph import Array, Attributes, Graph, Node, Value, parameter
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Case, ErrorBound, GraphBuilder, Jvp, OpDef, TypeRule, Vjp
from tgc.ir.types import TensorType
from tgc.ops.maps import Interval, dtypes_of

Optionals = Sequence[Value | None]

_ATTRIBUTES = MappingProxyType(
    {
        "axis": AttributeSpec("dimension along which it runs"),
        "reverse": AttributeSpec("whether it runs from the last element to the first", required=False, default=False),
    }
)


def accumulated(fold: np.ufunc, x: Array, axis: int, *, reverse: bool) -> Array:
    """``fold`` of each element with all before it, or after it."""
    if reverse:
        return np.flip(accumulated(fold, np.flip(x, axis), axis, reverse=False), axis)
    return np.asarray(fold.accumulate(x, axis=axis, dtype=x.dtype))


def _type(name: str) -> TypeRule:
    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        rules.require_kinds(name, types, rules.NUMERIC)
        rules.checked_axis(name, types[0], attributes)
        rules.flag(attributes, "reverse")
        return (TensorType(types[0].dtype, types[0].shape),)

    return infer


def _run_error(fold: np.ufunc) -> ErrorBound:
    """γ_n times the running fold of the magnitudes (Higham, §4.2: any order of summation), and the incoming errors."""

    def error(
        operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
    ) -> tuple[Array, ...]:
        axis, reverse = rules.integer(attributes, "axis"), rules.flag(attributes, "reverse")
        size = np.abs(rules.as_floats(operands[0]))
        roundings = rules.gamma(operands[0], max(size.shape[axis] - 1, 0))
        largest = accumulated(fold, size + errors[0], axis, reverse=reverse)
        exact = accumulated(fold, size, axis, reverse=reverse)
        return (largest - exact + roundings * largest,)

    return error


def _extreme_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> tuple[Array, ...]:
    axis, reverse = rules.integer(attributes, "axis"), rules.flag(attributes, "reverse")
    return (accumulated(np.maximum, rules.as_floats(errors[0]), axis, reverse=reverse),)


def _cumulative(
    name: str, doc: str, fold: np.ufunc, vjp: Vjp, jvp: Jvp, error: ErrorBound, *, domain: Interval, foldable: bool
) -> OpDef:
    def evaluate(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
        axis, reverse = rules.integer(attributes, "axis"), rules.flag(attributes, "reverse")
        return (accumulated(fold, operands[0], axis, reverse=reverse),)

    shapes: tuple[tuple[tuple[int, ...], int], ...] = (((5,), 0), ((2, 3, 4), 1), ((3, 1), 1), ((0, 3), 0), ((0, 3), 1))
    cases: list[Case] = [((TensorType(f32, s),), {"axis": a, "reverse": r}) for s, a in shapes for r in (False, True)]
    others = [d for d in dtypes_of(rules.NUMERIC) if d is not f32]
    cases += [((TensorType(d, (2, 3)),), {"axis": 1, "reverse": False}) for d in others]
    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.CUMULATIVE,
        operands=1,
        infer=_type(name),
        attributes=_ATTRIBUTES,
        evaluate=evaluate,
        vjp=vjp,
        jvp=jvp,
        batch=rules.shifted_batch(name, rules.shift_axis),
        error=error,
        domain=(domain,),
        cases=tuple(cases),
        foldable=foldable,
    )


# -- derivatives -------------------------------------------------------------------------------------------------


def _opposite(attributes: Attributes) -> Attributes:
    return {**attributes, "reverse": not attributes["reverse"]}


def _sum_vjp(b: GraphBuilder, node: Node, cotangents: Optionals) -> list[Value | None]:
    (t,) = cotangents
    return [None if t is None else b.op("cumulative_sum", t, attributes=_opposite(node.attributes))]


def _sum_jvp(b: GraphBuilder, node: Node, tangents: Optionals) -> list[Value | None]:
    (t,) = tangents
    return [None if t is None else b.op("cumulative_sum", t, attributes=node.attributes)]


def _recurrence(b: GraphBuilder, factors: Value, terms: Value, axis: int, *, reverse: bool) -> Value:
    """r with r_i = factors_i · r_(i∓1) + terms_i along ``axis``, starting from 0."""
    permutation = (axis, *(i for i in range(len(factors.shape)) if i != axis))
    moved = [b.transpose(x, permutation) for x in (factors, terms)]
    row = TensorType(factors.dtype, moved[0].shape[1:])
    iteration = parameter(0, TensorType(i64, ()))
    carry, factor, term = (parameter(i, row) for i in (1, 2, 3))
    following = b.add(b.mul(factor, carry), term)
    region = Graph((iteration, carry, factor, term), (following, following))
    attributes = {"carries": 1, "sequences": 2, "length": factors.shape[axis], "reverse": reverse}
    start = b.full(0.0, row.shape, row.dtype)
    _, stacked = b.results("scan", start, *moved, attributes=attributes, regions=(region,))
    return b.transpose(stacked, tuple(permutation.index(i) for i in range(len(permutation))))


def _before(b: GraphBuilder, x: Value, axis: int, value: float, *, reverse: bool) -> Value:
    """``x`` shifted by one along ``axis``: each element's predecessor (successor if ``reverse``), or ``value``."""
    rank = len(x.shape)
    at = tuple(int(i == axis) for i in range(rank))
    none = (0,) * rank
    low, high = (none, at) if reverse else (at, none)
    padded = b.op("pad", x, b.constant(value, x.dtype), attributes={"low": low, "high": high, "interior": none})
    start = at if reverse else none
    stop = tuple(d + s for d, s in zip(x.shape, start, strict=True))
    return b.op("slice", padded, attributes={"start": start, "stop": stop, "step": (1,) * rank})


def _prod_vjp(b: GraphBuilder, node: Node, cotangents: Optionals) -> list[Value | None]:
    """dx_i = (product before i) · r_i with r_i = t_i + x_(i+1) r_(i+1): no division, so zeros are no exception."""
    (t,) = cotangents
    if t is None:
        return [None]
    axis, reverse = rules.integer(node.attributes, "axis"), rules.flag(node.attributes, "reverse")
    following = _before(b, node.operands[0], axis, 0.0, reverse=not reverse)
    sums = _recurrence(b, following, t, axis, reverse=not reverse)
    return [b.mul(_before(b, node.result, axis, 1.0, reverse=reverse), sums)]


def _prod_jvp(b: GraphBuilder, node: Node, tangents: Optionals) -> list[Value | None]:
    """dy_i = x_i dy_(i-1) + y_(i-1) dx_i."""
    (t,) = tangents
    if t is None:
        return [None]
    axis, reverse = rules.integer(node.attributes, "axis"), rules.flag(node.attributes, "reverse")
    terms = b.mul(_before(b, node.result, axis, 1.0, reverse=reverse), t)
    return [_recurrence(b, node.operands[0], terms, axis, reverse=reverse)]


def _sources(b: GraphBuilder, node: Node) -> Value:
    """Along the axis, the index of the element that each result is: the first of equal ones in running order."""
    x, y = node.operands[0], node.result
    axis, reverse = rules.integer(node.attributes, "axis"), rules.flag(node.attributes, "reverse")
    least = -float("inf") if node.op == "cumulative_max" else float("inf")
    changed = b.op("ne", y, _before(b, y, axis, least, reverse=reverse))
    index = b.op("iota", attributes={"shape": x.shape, "axis": axis, "dtype": i64})
    if reverse:
        # runs down from the last index, which stands for a run that never changes
        last = b.op("max", index, attributes={"axes": tuple(range(len(x.shape)))})
        marked = b.select(changed, index, b.broadcast(last, x.shape, ()))
        return b.op("cumulative_min", marked, attributes=node.attributes)
    marked = b.select(changed, index, b.full_like(index, 0))
    return b.op("cumulative_max", marked, attributes=node.attributes)


def _extreme_vjp(b: GraphBuilder, node: Node, cotangents: Optionals) -> list[Value | None]:
    (t,) = cotangents
    if t is None:
        return [None]
    attributes: Attributes = {"axis": rules.integer(node.attributes, "axis"), "mode": "add"}
    return [b.op("scatter_along_axis", b.full_like(t, 0.0), _sources(b, node), t, attributes=attributes)]


def _extreme_jvp(b: GraphBuilder, node: Node, tangents: Optionals) -> list[Value | None]:
    (t,) = tangents
    if t is None:
        return [None]
    attributes: Attributes = {"axis": rules.integer(node.attributes, "axis")}
    return [b.op("take_along_axis", t, _sources(b, node), attributes=attributes)]


OPS_CUMULATIVE: tuple[OpDef, ...] = (
    _cumulative(
        *("cumulative_sum", "Sum of each element and all before it. bf16 and f16 in f32; integers wrap.", np.add),
        *(_sum_vjp, _sum_jvp, _run_error(np.add)),
        domain=(-10.0, 10.0),
        foldable=False,
    ),
    _cumulative(
        "cumulative_prod",
        "Product of each element and all before it. bf16 and f16 in f32; integers wrap.",
        np.multiply,
        *(_prod_vjp, _prod_jvp, _run_error(np.multiply)),
        domain=(-2.0, 2.0),
        foldable=False,
    ),
    _cumulative(
        *("cumulative_max", "Largest of each element and all before it; nan from the first nan on.", np.maximum),
        *(_extreme_vjp, _extreme_jvp, _extreme_error),
        domain=(-10.0, 10.0),
        foldable=True,
    ),
    _cumulative(
        *("cumulative_min", "Smallest of each element and all before it; nan from the first nan on.", np.minimum),
        *(_extreme_vjp, _extreme_jvp, _extreme_error),
        domain=(-10.0, 10.0),
        foldable=True,
    ),
)
