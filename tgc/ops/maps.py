"""How a map is written down: its meaning, its scalar body and its partial derivatives; the other rules follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

import tgc.ops.rules as rules
from tgc import dtypes
from tgc.dtypes import DType
from tgc.ir.graph import EMPTY, Array, Attributes, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import Case, ErrorBound, GraphBuilder, Jvp, Meaning, OpDef, Scalar, ScalarBody, ScalarBuilder, Vjp
from tgc.ir.types import TensorType

# (builder, t, operands…, result) -> t · ∂result/∂operand, for one operand. A map's Jacobian is diagonal, so that one
# function serves both modes; it is linear in ``t``.
Partial: TypeAlias = Callable[..., Value]
Interval: TypeAlias = tuple[float, float]

ANYWHERE: Interval = (-100.0, 100.0)
_SHAPES: tuple[tuple[int, ...], ...] = ((), (5,), (2, 3), (3, 1, 4), (0, 2))


def map_vjp(partials: Sequence[Partial | None]) -> Vjp:
    """The cotangents of the operands, from the partial derivatives (None: zero everywhere)."""

    def vjp(b: GraphBuilder, node: Node, cotangents: Sequence[Value | None]) -> list[Value | None]:
        (t,) = cotangents
        if t is None:
            return [None] * len(partials)
        return [None if p is None else p(b, t, *node.operands, node.result) for p in partials]

    return vjp


def map_jvp(partials: Sequence[Partial | None]) -> Jvp:
    """The tangent of the result: the sum over the operands that have one."""

    def jvp(b: GraphBuilder, node: Node, tangents: Sequence[Value | None]) -> list[Value | None]:
        total: Value | None = None
        for partial, t in zip(partials, tangents, strict=True):
            if partial is not None and t is not None:
                term = partial(b, t, *node.operands, node.result)
                total = term if total is None else b.add(total, term)
        return [total]

    return jvp


def _meaning(function: Callable[..., Array]) -> Meaning:
    def evaluate(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
        return (np.asarray(function(*operands)),)

    return evaluate


def _body(function: Callable[..., Scalar]) -> ScalarBody:
    def body(s: ScalarBuilder, operands: Sequence[Scalar], attributes: Attributes, dtype: DType) -> Scalar:
        return function(s, *operands)

    return body


def dtypes_of(kinds: frozenset[str]) -> tuple[DType, ...]:
    """The dtypes of those kinds."""
    return tuple(d for d in dtypes.DTYPES.values() if d.kind in kinds)


def map_cases(signatures: Sequence[Sequence[DType]]) -> tuple[Case, ...]:
    """Cases of a map: each signature on one shape, and the first one on every shape."""
    cases = [(signatures[0], shape) for shape in _SHAPES] + [(signature, (2, 3)) for signature in signatures[1:]]
    return tuple((tuple(TensorType(d, shape) for d in signature), EMPTY) for signature, shape in cases)


def map_op(
    name: str,
    doc: str,
    meaning: Callable[..., Array],
    scalar: Callable[..., Scalar],
    *partials: Partial | None,
    takes: frozenset[str] = rules.FLOAT,
    gives: DType | None = None,
    operands: int = 1,
    domain: Interval | tuple[Interval, ...] = ANYWHERE,
    ulp: float = 0.5,
    exact: bool = False,
    commutative: bool = False,
    error: ErrorBound | None = None,
    extra: Mapping[str, object] = EMPTY,
    only: Sequence[DType] = (),
) -> OpDef:
    """A map of operands of one dtype.

    ``meaning`` takes arrays, ``scalar`` a ScalarBuilder and scalars, each of ``partials`` what :data:`Partial` says; no
    partials: not differentiable. ``exact``: the scalar body gives exactly the rounded meaning. ``only``: the dtypes it
    takes, if not all of the kinds ``takes``. ``domain``: one interval for all operands, or one for each. ``error``:
    where evaluating the map at the ends of its operands' intervals is not enough.
    """
    intervals = (domain,) * operands if isinstance(domain[0], (int, float)) else domain
    accepted = tuple(only) or tuple(sorted(dtypes_of(takes), key=lambda d: d is not dtypes.f32))
    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.MAP,
        operands=operands,
        infer=rules.map_rule(name, takes, gives, only=only),
        evaluate=_meaning(meaning),
        scalar=_body(scalar),
        vjp=map_vjp(partials) if partials else None,
        jvp=map_jvp(partials) if partials else None,
        batch=rules.map_batch(name),
        ulp=ulp,
        error=error,
        domain=intervals,
        cases=map_cases([(d,) * operands for d in accepted]),
        commutative=commutative,
        differentiable=bool(partials),
        foldable=exact,
        extra=extra,
    )


# -- what partial derivatives are written with -------------------------------------------------------------------


def scaled(b: GraphBuilder, x: Value, factor: float) -> Value:
    """``factor · x``."""
    return b.mul(x, b.constant(factor, x.dtype))


def shifted(b: GraphBuilder, x: Value, term: float) -> Value:
    """``x + term``."""
    return b.add(x, b.constant(term, x.dtype))


def complement(b: GraphBuilder, x: Value) -> Value:
    """``1 - x``."""
    return b.sub(b.constant(1.0, x.dtype), x)


def squared(b: GraphBuilder, x: Value) -> Value:
    """``x · x``."""
    return b.op("square", x)


def where(b: GraphBuilder, predicate: str, x: Value, y: Value | float, t: Value, otherwise: Value | float) -> Value:
    """``t`` where ``x predicate y``, else ``otherwise``."""
    right = b.full_like(x, y) if isinstance(y, float) else y
    rest = b.full_like(t, otherwise) if isinstance(otherwise, float) else otherwise
    return b.select(b.op(predicate, x, right), t, rest)
