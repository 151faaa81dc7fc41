"""Activation functions that take more than one primitive."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import tgc.ops.rules as rules
from tgc.dtypes import bf16, f32, f64
from tgc.ir.graph import Attributes, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, GraphBuilder, OpDef
from tgc.ir.types import TensorType
from tgc.ops.composite import widen
from tgc.ops.rules import map_batch, map_rule

_GELU_CUBIC = 0.044715


def _times(builder: GraphBuilder, x: Value, factor: float) -> Value:
    return builder.mul(x, builder.constant(factor, x.dtype))


def _plus(builder: GraphBuilder, x: Value, term: float) -> Value:
    return builder.add(x, builder.constant(term, x.dtype))


def _gelu_inner(builder: GraphBuilder, x: Value) -> Value:
    """√(2/π)·(x + 0.044715·x³)."""
    cubic = builder.mul(_times(builder, builder.op("square", x), _GELU_CUBIC), x)
    return _times(builder, builder.add(x, cubic), math.sqrt(2 / math.pi))


def _gelu_gate(builder: GraphBuilder, x: Value, approximate: str) -> Value:
    """The factor of x: Φ(x), or its approximation."""
    if approximate == "tanh":
        inner = builder.op("tanh", _gelu_inner(builder, x))
    else:
        inner = builder.op("erf", _times(builder, x, math.sqrt(0.5)))
    return _times(builder, _plus(builder, inner, 1.0), 0.5)


def _gelu(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    return builder.mul(x, _gelu_gate(builder, x, rules.text(attributes, "approximate", ("none", "tanh"))))


def _gelu_slope(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    """Φ(x) + x·φ(x), φ the normal density; its analogue for the approximation: t' = (1 − t²)·inner'(x) / 2."""
    approximate = rules.text(attributes, "approximate", ("none", "tanh"))
    gate = _gelu_gate(builder, x, approximate)
    square = builder.op("square", x)
    if approximate == "tanh":
        t = builder.op("tanh", _gelu_inner(builder, x))
        steepness = builder.sub(builder.full_like(x, 1.0), builder.op("square", t))
        half = 0.5 * math.sqrt(2 / math.pi)
        inner = _plus(builder, _times(builder, square, 3 * _GELU_CUBIC * half), half)
        density = builder.mul(steepness, inner)
    else:
        density = _times(builder, builder.op("exp", _times(builder, square, -0.5)), 1 / math.sqrt(2 * math.pi))
    return builder.add(gate, builder.mul(x, density))


def _silu(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    return builder.mul(x, builder.op("sigmoid", x))


def _silu_slope(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    """s·(1 + x·(1 − s)), s = sigmoid(x)."""
    s = builder.op("sigmoid", x)
    one = builder.full_like(x, 1.0)
    return builder.mul(s, builder.add(builder.mul(x, builder.sub(one, s)), one))


def _softplus(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    decay = builder.op("exp", builder.neg(builder.op("abs", x)))
    return builder.add(builder.op("relu", x), builder.op("log1p", decay))


def _softplus_slope(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    return builder.op("sigmoid", x)


def _positive(builder: GraphBuilder, x: Value) -> Value:
    return builder.op("gt", x, builder.full_like(x, 0.0))


def _alpha(attributes: Attributes, name: str) -> float:
    value = attributes[name]
    return float(value) if isinstance(value, (int, float)) else math.nan


def _elu(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    below = _times(builder, builder.op("expm1", x), _alpha(attributes, "alpha"))
    return builder.select(_positive(builder, x), x, below)


def _elu_slope(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    below = _times(builder, builder.op("exp", x), _alpha(attributes, "alpha"))
    return builder.select(_positive(builder, x), builder.full_like(x, 1.0), below)


def _leaky_relu(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    return builder.select(_positive(builder, x), x, _times(builder, x, _alpha(attributes, "slope")))


def _leaky_relu_slope(builder: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    below = builder.full_like(x, _alpha(attributes, "slope"))
    return builder.select(_positive(builder, x), builder.full_like(x, 1.0), below)


_Formula = Callable[[GraphBuilder, Value, Attributes], Value]


def _activation(
    name: str,
    doc: str,
    value: _Formula,
    slope: _Formula,
    attributes: Mapping[str, AttributeSpec] | None = None,
    variants: Sequence[Attributes] = ({},),
) -> OpDef:
    """A composite map of one float operand, ``slope`` its derivative."""

    def body(builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
        (x,) = operands
        return (builder.cast(value(builder, widen(builder, x), attributes), x.dtype),)

    def derivative(builder: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
        (x,) = node.operands
        if g[0] is None:
            return (None,)
        result = builder.mul(widen(builder, g[0]), slope(builder, widen(builder, x), node.attributes))
        return (builder.cast(result, x.dtype),)

    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.COMPOSITE,
        operands=1,
        infer=map_rule(name, rules.FLOAT),
        attributes=attributes or {},
        body=body,
        vjp=derivative,
        jvp=derivative,
        batch=map_batch(name),
        domain=((-6.0, 6.0),),
        cases=tuple(((TensorType(dtype, (3, 7)),), v) for dtype in (f32, f64, bf16) for v in variants),
    )


OPS_COMPOSITE_ACTIVATION: tuple[OpDef, ...] = (
    _activation(
        "gelu",
        """x·Φ(x), Φ the normal distribution (Hendrycks & Gimpel, arXiv 1606.08415).

        ``approximate`` "none": Φ(x) = (1 + erf(x/√2))/2; "tanh": (1 + tanh(√(2/π)·(x + 0.044715·x³)))/2.""",
        _gelu,
        _gelu_slope,
        {"approximate": AttributeSpec('"none" or "tanh"', required=False, default="none")},
        ({"approximate": "none"}, {"approximate": "tanh"}),
    ),
    _activation("silu", "x·sigmoid(x) (Elfwing et al., arXiv 1702.03118).", _silu, _silu_slope),
    _activation("softplus", "log(1 + exp x), as max(x, 0) + log1p(exp(−|x|)).", _softplus, _softplus_slope),
    _activation(
        "elu",
        "x for x > 0, else ``alpha``·(exp x − 1) (Clevert et al., arXiv 1511.07289).",
        _elu,
        _elu_slope,
        {"alpha": AttributeSpec("the negated limit at −∞", required=False, default=1.0)},
        ({"alpha": 1.0}, {"alpha": 0.5}),
    ),
    _activation(
        "leaky_relu",
        "x for x > 0, else ``slope``·x.",
        _leaky_relu,
        _leaky_relu_slope,
        {"slope": AttributeSpec("the slope below 0", required=False, default=0.01)},
        ({"slope": 0.125},),
    ),
)
