"""Folds over sliding windows (pooling), their gradients, and what the gradients' gradients need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import DType, bf16, f32, f64, i32
from tgc.errors import ShapeError
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Array, Attribute, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Case, Equalities, ErrorBound, GraphBuilder, Meaning, OpDef, TypeRule, Vjp
from tgc.ir.types import TensorType
from tgc.ops.sliding import pairs, taps, trailing, window_count

# Ops whose results are elements of their operands: nothing is rounded.
_CHOOSE = ("window_max", "window_max_take")
_SHARED = ("window", "stride", "padding", "dilation")


def _result_shape(name: str, x: TensorType, attributes: Attributes) -> tuple[Dim, ...]:
    """One element per window of ``x``."""
    window, stride, dilation = (rules.integers(attributes, key) for key in ("window", "stride", "dilation"))
    padding = pairs(attributes, "padding")
    if {len(window), len(stride), len(dilation), len(padding)} != {x.rank}:
        raise ShapeError(f"{name} of {x}: window, stride, padding and dilation need an entry for each dimension")
    if x.rank and min(*window, *stride, *dilation) < 1:
        raise ShapeError(f"{name} of {x}: window, stride and dilation must be 1 or more")
    return tuple(
        window_count(*entry, f"{name} of {x}") for entry in zip(x.shape, window, stride, padding, dilation, strict=True)
    )


# -- meaning -----------------------------------------------------------------------------------------------------


def _met(x: Array, fill: object, attributes: Attributes, output: Sequence[int]) -> Iterator[Array]:
    """For each position in the window, what it meets in ``x`` padded with ``fill``: views, one element per window."""
    padded = np.pad(x, pairs(attributes, "padding"), constant_values=fill) if x.ndim else x  # type: ignore[call-overload]
    window, stride, dilation = (rules.integers(attributes, key) for key in ("window", "stride", "dilation"))
    for _, index in taps(window, output, stride, dilation):
        yield padded[index]


def _spread(parts: Iterator[Array], attributes: Attributes, shape: Sequence[int], like: Array) -> Array:
    """The transpose of :func:`_met`: adds each part where its position meets a tensor of ``shape``."""
    padding = pairs(attributes, "padding")
    padded = np.zeros([n + low + high for n, (low, high) in zip(shape, padding, strict=True)], like.dtype)
    window, stride, dilation = (rules.integers(attributes, key) for key in ("window", "stride", "dilation"))
    for (_, index), part in zip(taps(window, like.shape, stride, dilation), parts, strict=True):
        padded[index] += part
    return np.asarray(padded[trailing([slice(low, low + n) for n, (low, _) in zip(shape, padding, strict=True)])])


def _lowest(x: Array) -> float | int:
    return -np.inf if np.issubdtype(x.dtype, np.floating) else int(np.iinfo(x.dtype).min)


def _winners(x: Array, attributes: Attributes, output: Sequence[int]) -> tuple[Array, Array]:
    """Maximum of each window, and the position in the window that has it: the first, NaN before all; -1 for padding."""
    best = np.full(output, _lowest(x), x.dtype)
    position = np.full(output, -1)
    inside = _met(np.ones(x.shape, bool), False, attributes, output)
    for k, (here, real) in enumerate(zip(_met(x, 0, attributes, output), inside, strict=True)):
        wins = real & ((position < 0) | (here > best) | ((here != here) & (best == best)))
        best, position = np.where(wins, here, best), np.where(wins, k, position)
    return best, position


def _window_max(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    return (_winners(operands[0], attributes, rules.concrete(types[0]))[0],)


def _window_sum(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    total = np.zeros(rules.concrete(types[0]), operands[0].dtype)
    for here in _met(operands[0], 0, attributes, total.shape):
        total += here
    return (total,)


def _window_sum_gradient(
    operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]
) -> tuple[Array, ...]:
    (dy,) = operands
    count = prod(rules.integers(attributes, "window"))
    return (_spread((dy for _ in range(count)), attributes, rules.concrete(types[0]), dy),)


def _window_max_gradient(
    operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]
) -> tuple[Array, ...]:
    x, dy = operands
    _, position = _winners(x, attributes, dy.shape)
    count = prod(rules.integers(attributes, "window"))
    parts = (np.where(position == k, dy, 0) for k in range(count))
    return (_spread(parts, attributes, x.shape, dy),)


def _window_max_take(
    operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]
) -> tuple[Array, ...]:
    x, values = operands
    shape = rules.concrete(types[0])
    _, position = _winners(x, attributes, shape)
    result = np.zeros(shape, values.dtype)
    for k, here in enumerate(_met(values, 0, attributes, shape)):
        result = np.where(position == k, here, result)
    return (result,)


# -- errors ------------------------------------------------------------------------------------------------------


def _maximum_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> Sequence[Array]:
    worst = np.zeros(results[0].shape)
    for here in _met(errors[0], 0.0, attributes, worst.shape):
        worst = np.maximum(worst, here)
    return (worst,)


def _linear_error(meaning: Meaning) -> ErrorBound:
    """γ over the window's size, for sums of at most as many terms."""

    def error(
        operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
    ) -> Sequence[Array]:
        types = [TensorType(f64, results[0].shape)]
        (disturbed,) = meaning([np.abs(rules.as_floats(operands[0])) + errors[0]], attributes, types)
        (incoming,) = meaning([errors[0]], attributes, types)
        return (rules.gamma(results[0], prod(rules.integers(attributes, "window"))) * disturbed + incoming,)

    return error


def _candidates(x: Array, error: Array, attributes: Attributes, output: Sequence[int]) -> Iterator[Array]:
    """For each position in the window, whether it may have the maximum, given the errors of ``x``."""
    x = rules.as_floats(x)
    _, position = _winners(x, attributes, output)
    least, _ = _winners(x - error, attributes, output)
    for k, here in enumerate(_met(x + error, -np.inf, attributes, output)):
        yield (position == k) | (here > least)


def _gradient_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> Sequence[Array]:
    """Where errors of x leave the winner open, the cotangent may go to any candidate."""
    x, dy = rules.as_floats(operands[0]), np.abs(rules.as_floats(operands[1])) + errors[1]
    candidates = list(_candidates(x, errors[0], attributes, dy.shape))
    _, position = _winners(x, attributes, dy.shape)
    contested = np.sum(candidates, axis=0) > 1
    doubt = (np.where(may & contested, dy, np.where(position == k, errors[1], 0.0)) for k, may in enumerate(candidates))
    every = _spread((np.where(may, dy, 0.0) for may in candidates), attributes, x.shape, dy)
    rounding = rules.gamma(results[0], len(candidates))
    return (_spread(doubt, attributes, x.shape, dy) + rounding * every,)


def _take_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> Sequence[Array]:
    values, chosen = rules.as_floats(operands[1]), rules.as_floats(results[0])
    worst = np.zeros(chosen.shape)
    candidates = _candidates(operands[0], errors[0], attributes, chosen.shape)
    theirs = _met(errors[1], 0.0, attributes, chosen.shape)
    for may, here, error in zip(candidates, _met(values, 0.0, attributes, chosen.shape), theirs, strict=True):
        worst = np.where(may, np.maximum(worst, np.abs(here - chosen) + error), worst)
    return (worst,)


def _equalities(name: str) -> Equalities:
    def equalities(types: Sequence[TensorType], attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
        gradient = name == "window_sum_gradient"
        x = TensorType(types[0].dtype, rules.shape(attributes, "input_shape")) if gradient else types[0]
        counts = _result_shape(name, x, attributes)
        yield from rules.not_negative(counts)
        if name == "window_max_take":
            yield from zip(types[0].shape, types[1].shape, strict=True)
        elif name.endswith("gradient"):
            yield from zip(types[-1].shape, counts, strict=True)

    return equalities


# -- type rules --------------------------------------------------------------------------------------------------


def _fold_rule(name: str) -> TypeRule:
    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        rules.require_kinds(name, types, rules.NUMERIC)
        return (TensorType(types[0].dtype, _result_shape(name, types[0], attributes)),)

    return infer


def _window_max_gradient_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    rules.require_kinds("window_max_gradient", types, rules.NUMERIC)
    x, dy = types
    dtype = rules.require_same_dtype("window_max_gradient", types)
    expected = TensorType(dtype, _result_shape("window_max_gradient", x, attributes))
    rules.common_shape(f"window_max_gradient of {x}", [dy, expected])
    return (TensorType(dtype, x.shape),)


def _window_max_take_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    rules.require_kinds("window_max_take", types, rules.NUMERIC)
    dtype = rules.require_same_dtype("window_max_take", types)
    x = TensorType(dtype, rules.common_shape("window_max_take", types))
    return (TensorType(dtype, _result_shape("window_max_take", x, attributes)),)


def _window_sum_gradient_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    rules.require_kinds("window_sum_gradient", types, rules.NUMERIC)
    x = TensorType(types[0].dtype, rules.shape(attributes, "input_shape"))
    expected = TensorType(types[0].dtype, _result_shape("window_sum_gradient", x, attributes))
    rules.common_shape(f"window_sum_gradient for {x}", [types[0], expected])
    return (x,)


# -- gradients ---------------------------------------------------------------------------------------------------


def _shared(attributes: Attributes) -> Attributes:
    return {name: attributes[name] for name in _SHARED}


def _fixed(name: str) -> Vjp:
    """The rule of an op that is linear in its last operand and piecewise constant in the other: ``name`` on both."""

    def rule(b: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
        if g[-1] is None:
            return (None,) * len(node.operands)
        return (*[None] * (len(node.operands) - 1), b.op(name, node.operands[0], g[-1], attributes=node.attributes))

    return rule


def _linear_jvp(b: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    return (None if t[0] is None else b.op(node.op, t[0], attributes=node.attributes),)


def _window_sum_vjp(b: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    if g[0] is None:
        return (None,)
    attributes = {**node.attributes, "input_shape": node.operands[0].shape}
    return (b.op("window_sum_gradient", g[0], attributes=attributes),)


def _window_sum_gradient_vjp(b: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    return (None if g[0] is None else b.op("window_sum", g[0], attributes=_shared(node.attributes)),)


def _window_max_jvp(b: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    return (None if t[0] is None else b.op("window_max_take", node.operands[0], t[0], attributes=node.attributes),)


def _second_jvp(b: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    return (None if t[1] is None else b.op(node.op, node.operands[0], t[1], attributes=node.attributes),)


def _shift(attributes: Attributes, size: Dim) -> Attributes:
    """The attributes with a leading dimension that the windows do not cover."""
    added: dict[str, Attribute] = {"window": 1, "stride": 1, "padding": (0, 0), "dilation": 1, "input_shape": size}
    shifted: dict[str, Attribute] = {}
    for name, value in attributes.items():
        shifted[name] = (added[name], *value) if isinstance(value, tuple) else value
    return shifted


# -- table -------------------------------------------------------------------------------------------------------

_ATTRIBUTES: Mapping[str, AttributeSpec] = {
    "window": AttributeSpec("size of the window along each dimension"),
    "stride": AttributeSpec("step of the window along each dimension"),
    "padding": AttributeSpec("elements (before, after) along each dimension that take no part"),
    "dilation": AttributeSpec("distance between the window's elements along each dimension"),
}


def _attributes(window: tuple[int, ...], stride: tuple[int, ...], padding: tuple[tuple[int, int], ...]) -> Attributes:
    return {"window": window, "stride": stride, "padding": padding, "dilation": (1,) * len(window)}


_N = symbol("n")
_POOL = _attributes((1, 1, 2, 2), (1, 1, 2, 2), ((0, 0),) * 4)
_EXAMPLES: tuple[tuple[DType, tuple[Dim, ...], Attributes], ...] = (
    (f32, (2, 3, 6, 4), _POOL),
    (f32, (3, 7), {**_attributes((2, 3), (1, 2), ((1, 0), (1, 1))), "dilation": (2, 1)}),
    (f64, (9,), _attributes((4,), (1,), ((0, 0),))),
    (bf16, (2, 8), _attributes((1, 2), (1, 2), ((0, 0), (0, 0)))),
    (i32, (5,), _attributes((2,), (1,), ((1, 1),))),
    (f32, (_N, 1, 2 * _N + 2, 4), _POOL),
)


def _cases(name: str) -> Iterator[Case]:
    for dtype, shape, attributes in _EXAMPLES:
        x = TensorType(dtype, shape)
        y = TensorType(dtype, _result_shape(name, x, attributes))
        if name == "window_sum_gradient":
            yield (y,), {**attributes, "input_shape": shape}
        elif name in ("window_max", "window_sum"):
            yield (x,), attributes
        else:
            yield (x, y if name == "window_max_gradient" else x), attributes


def _op(
    name: str,
    doc: str,
    infer: TypeRule,
    evaluate: Meaning,
    vjp: Vjp,
    jvp: Vjp,
    error: ErrorBound,
) -> OpDef:
    extra = {"input_shape": AttributeSpec("shape of the result")} if name == "window_sum_gradient" else {}
    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.WINDOW,
        operands=2 if name in ("window_max_gradient", "window_max_take") else 1,
        infer=infer,
        attributes={**_ATTRIBUTES, **extra},
        evaluate=evaluate,
        vjp=vjp,
        jvp=jvp,
        batch=rules.shifted_batch(name, _shift),
        ulp=0.0 if name in _CHOOSE else 0.5,
        error=error,
        equalities=_equalities(name),
        cases=tuple(_cases(name)),
        foldable=name in _CHOOSE,
    )


OPS_WINDOW: tuple[OpDef, ...] = (
    _op(
        "window_max",
        """The maximum of each window; NaN wins.

        Padding takes no part: a window of padding alone gives −∞, or the least integer.""",
        _fold_rule("window_max"),
        _window_max,
        _fixed("window_max_gradient"),
        _window_max_jvp,
        _maximum_error,
    ),
    _op(
        "window_sum",
        """The sum of each window, padding being 0. Accumulated as contract does.""",
        _fold_rule("window_sum"),
        _window_sum,
        _window_sum_vjp,
        _linear_jvp,
        _linear_error(_window_sum),
    ),
    _op(
        "window_max_gradient",
        """The cotangent of window_max's operand: (x, dy) -> dx, each dy going to the first maximum of its window.

        Gather form: an element of dx sums, in the order of the windows' positions, over the windows that cover it.""",
        _window_max_gradient_type,
        _window_max_gradient,
        _fixed("window_max_take"),
        _second_jvp,
        _gradient_error,
    ),
    _op(
        "window_max_take",
        """(x, values) -> the element of ``values`` where each window of x has its first maximum; 0 for padding alone.

        The tangent of window_max, and the transpose of window_max_gradient.""",
        _window_max_take_type,
        _window_max_take,
        _fixed("window_max_gradient"),
        _second_jvp,
        _take_error,
    ),
    _op(
        "window_sum_gradient",
        """The transpose of window_sum: each element of ``input_shape`` sums dy over the windows that cover it.""",
        _window_sum_gradient_type,
        _window_sum_gradient,
        _window_sum_gradient_vjp,
        _linear_jvp,
        _linear_error(_window_sum_gradient),
    ),
)
