"""Recurrent layers over whole sequences: lstm and gru.

The product of the inputs with their weights is one contraction before the loop, so that a step has only what depends on
the step before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tgc.ops.rules as rules
from tgc.dtypes import DType, bf16, f32, f64, i64
from tgc.errors import ShapeError
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Attributes, Graph, Value, parameter
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Body, Case, GraphBuilder, OpDef, TypeRule
from tgc.ir.types import TensorType
from tgc.ops.composite import widen

_ITERATION = TensorType(i64, ())


def _rule(name: str, gates: int, states: int, biases: int) -> TypeRule:
    """(x[T, N, I], states [N, H], w_input[gates·H, I], w_hidden[gates·H, H], biases [gates·H]) -> [T, N, H], states."""

    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        rules.require_kinds(name, types, rules.FLOAT)
        dtype = rules.require_same_dtype(name, types)
        rules.flag(attributes, "reverse")
        x, hidden = types[0], types[1]
        if x.rank != 3 or hidden.rank != 2:
            raise ShapeError(f"{name} takes inputs [T, N, I] and states [N, H], not {x} and {hidden}")
        length, batch, inputs = x.shape
        size = hidden.shape[1]
        state = (batch, size)
        expected = [state] * states + [(gates * size, inputs), (gates * size, size)] + [(gates * size,)] * biases
        for given, shape in zip(types[1:], expected, strict=True):
            rules.common_shape(f"{name} of {x} with a state of {hidden}", [given, TensorType(dtype, shape)])
        return (TensorType(dtype, (length, *state)), *[TensorType(dtype, state)] * states)

    return infer


def _gates(b: GraphBuilder, x: Value, count: int) -> list[Value]:
    """The ``count`` equal parts of [N, count·H]."""
    rows, size = x.shape[0], x.shape[1] // count
    return [
        b.op("slice", x, attributes={"start": (0, i * size), "stop": (rows, (i + 1) * size), "step": (1, 1)})
        for i in range(count)
    ]


# (builder, states, projected input of the step, captures) -> new states, the hidden one first
_Step = Callable[[GraphBuilder, Sequence[Value], Value, Sequence[Value]], tuple[Value, ...]]


def _scan(
    b: GraphBuilder,
    states: Sequence[Value],
    projected: Value,
    captures: Sequence[Value],
    step: _Step,
    attributes: Attributes,
) -> tuple[Value, ...]:
    """All hidden states, then the final states."""
    count = len(states)
    types = [v.type for v in states] + [projected.type.with_shape(projected.shape[1:])] + [v.type for v in captures]
    inner = [parameter(i + 1, t) for i, t in enumerate(types)]
    after = step(b, inner[:count], inner[count], inner[count + 1 :])
    region = Graph((parameter(0, _ITERATION), *inner), (*after, after[0]))
    loop: Attributes = {
        "carries": count,
        "sequences": 1,
        "length": projected.shape[0],
        "reverse": rules.flag(attributes, "reverse"),
    }
    *final, hidden = b.results("scan", *states, projected, *captures, attributes=loop, regions=(region,))
    return (hidden, *final)


def _lstm_step(
    b: GraphBuilder, states: Sequence[Value], projected: Value, captures: Sequence[Value]
) -> tuple[Value, ...]:
    hidden, cell = states
    parts = _gates(b, b.add(projected, b.contract(hidden, captures[0], "nh,gh->ng")), 4)
    take, forget, out = (b.op("sigmoid", parts[i]) for i in (0, 1, 3))
    cell = b.add(b.mul(forget, cell), b.mul(take, b.op("tanh", parts[2])))
    return b.mul(out, b.op("tanh", cell)), cell


def _lstm(b: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    x, hidden, cell, w_input, w_hidden, bias = (widen(b, v) for v in operands)
    projected = b.add(b.contract(x, w_input, "tni,gi->tng"), bias)
    results = _scan(b, (hidden, cell), projected, (w_hidden,), _lstm_step, attributes)
    return tuple(b.cast(v, operands[0].dtype) for v in results)


def _gru_step(
    b: GraphBuilder, states: Sequence[Value], projected: Value, captures: Sequence[Value]
) -> tuple[Value, ...]:
    (hidden,) = states
    w_hidden, bias = captures
    given = _gates(b, projected, 3)
    remembered = _gates(b, b.add(b.contract(hidden, w_hidden, "nh,gh->ng"), bias), 3)
    reset, update = (b.op("sigmoid", b.add(given[i], remembered[i])) for i in (0, 1))
    new = b.op("tanh", b.add(given[2], b.mul(reset, remembered[2])))
    # (1 − z)·n + z·h
    return (b.add(new, b.mul(update, b.sub(hidden, new))),)


def _gru(b: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    x, hidden, w_input, w_hidden, input_bias, hidden_bias = (widen(b, v) for v in operands)
    projected = b.add(b.contract(x, w_input, "tni,gi->tng"), input_bias)
    results = _scan(b, (hidden,), projected, (w_hidden, hidden_bias), _gru_step, attributes)
    return tuple(b.cast(v, operands[0].dtype) for v in results)


def _cases(gates: int, states: int, biases: int) -> tuple[Case, ...]:
    def case(dtype: DType, length: Dim, batch: Dim, inputs: int, size: int, reverse: bool) -> Case:
        shapes: list[tuple[Dim, ...]] = [(length, batch, inputs), *[(batch, size)] * states]
        shapes += [(gates * size, inputs), (gates * size, size), *[(gates * size,)] * biases]
        return (tuple(TensorType(dtype, shape) for shape in shapes), {"reverse": reverse})

    return (
        case(f32, 3, 2, 4, 3, False),
        case(f32, 2, 1, 2, 3, True),
        case(bf16, 2, 2, 2, 2, False),
        case(f64, symbol("t"), symbol("n"), 2, 2, False),
    )


def _op(name: str, doc: str, body: Body, gates: int, states: int, biases: int) -> OpDef:
    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.COMPOSITE,
        operands=3 + states + biases,
        infer=_rule(name, gates, states, biases),
        attributes={"reverse": AttributeSpec("whether it starts at the end", required=False, default=False)},
        body=body,
        domain=((-1.0, 1.0),) * (3 + states + biases),
        cases=_cases(gates, states, biases),
    )


OPS_COMPOSITE_RECURRENT: tuple[OpDef, ...] = (
    _op(
        "lstm",
        """(x[T, N, I], h[N, H], c[N, H], w_input[4H, I], w_hidden[4H, H], bias[4H]) -> (all h, last h, last c).

        Gates i, f, g, o of w_input x + w_hidden h + bias, in this order (PyTorch's); with the logistic function on
        i, f, o: c = f·c + i·tanh g, h = o·tanh c (Hochreiter & Schmidhuber, 1997; Gers et al., 2000).""",
        _lstm,
        4,
        2,
        1,
    ),
    _op(
        "gru",
        """(x[T, N, I], h[N, H], w_input[3H, I], w_hidden[3H, H], b_input[3H], b_hidden[3H]) -> (all h, last h).

        Gates r, z, n in this order (PyTorch's): n = tanh(x's part + r·(h's part)), h = (1 − z)·n + z·h
        (Cho et al., arXiv 1406.1078).""",
        _gru,
        3,
        1,
        2,
    ),
)
