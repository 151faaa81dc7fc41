"""Normalization: layer_norm, rms_norm, batch_norm and group_norm.

All of them standardize, x̂ = (x − mean x)·r with r = 1/√(var x + ε), over some axes; the variance is the biased one,
taken of the differences from the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import tgc.ops.rules as rules
from tgc.dtypes import DType, bf16, f32, f64
from tgc.errors import ShapeError, UserError
from tgc.ir.dims import Dim, divisible, symbol
from tgc.ir.graph import Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Batch, Body, Case, GraphBuilder, OpDef
from tgc.ir.types import TensorType
from tgc.ops.composite import mean, repeat, size_of, widen

_EPSILON = AttributeSpec("what is added to the variance before the root", required=False, default=1e-5)


def _epsilon(attributes: Attributes) -> float:
    value = attributes["epsilon"]
    if not isinstance(value, (int, float)) or value < 0:
        raise UserError(f"epsilon must be a number >= 0, not {value!r}")
    return float(value)


def _mean_along(builder: GraphBuilder, x: Value, axes: Sequence[int]) -> Value:
    return repeat(builder, mean(builder, x, axes), x.shape, axes)


def _reciprocal_root(builder: GraphBuilder, x: Value, epsilon: float) -> Value:
    return builder.op("rsqrt", builder.add(x, builder.constant(epsilon, x.dtype)))


def _standardize(builder: GraphBuilder, x: Value, axes: Sequence[int], epsilon: float) -> tuple[Value, Value]:
    """x̂, and r repeated over ``axes``."""
    centered = builder.sub(x, _mean_along(builder, x, axes))
    variance = mean(builder, builder.op("square", centered), axes)
    scale = repeat(builder, _reciprocal_root(builder, variance, epsilon), x.shape, axes)
    return builder.mul(centered, scale), scale


def _standardize_vjp(builder: GraphBuilder, g: Value, xhat: Value, scale: Value, axes: Sequence[int]) -> Value:
    """dx = r·(g − mean g − x̂·mean(g·x̂))."""
    projection = builder.mul(xhat, _mean_along(builder, builder.mul(g, xhat), axes))
    return builder.mul(scale, builder.sub(builder.sub(g, _mean_along(builder, g, axes)), projection))


def _check_parameters(name: str, x: TensorType, parameters: Sequence[TensorType], shape: Sequence[Dim]) -> None:
    """Each of ``parameters`` must have ``shape``, taken from the operand's, and the operand's dtype."""
    rules.require_kinds(name, (x, *parameters), rules.FLOAT)
    rules.require_same_dtype(name, (x, *parameters))
    expected = TensorType(x.dtype, shape)
    for parameter in parameters:
        if parameter.rank != len(shape) or any(
            rules.provably_different(a, b) for a, b in zip(parameter.shape, shape, strict=True)
        ):
            raise ShapeError(
                f"{name} of {x} takes parameters of type {expected}, not {parameter}",
                hint=f"make the layer for {rules.listed(shape)} features, or change the input",
            )


# -- over trailing dimensions ------------------------------------------------------------------------------------


def _trailing(rank: int, attributes: Attributes) -> tuple[int, ...]:
    count = rules.integer(attributes, "axes_count")
    if not 1 <= count <= rank:
        raise ShapeError(f"axes_count is {count}, for {rank} dimensions")
    return tuple(range(rank - count, rank))


def _trailing_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    x, *parameters = types
    axes = _trailing(x.rank, attributes)
    _check_parameters("layer_norm" if len(parameters) == 2 else "rms_norm", x, parameters, [x.shape[i] for i in axes])
    _epsilon(attributes)
    return (TensorType(x.dtype, x.shape),)


def _layer_norm(builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    x, weight, bias = (widen(builder, v) for v in operands)
    xhat, _ = _standardize(builder, x, _trailing(len(x.shape), attributes), _epsilon(attributes))
    return (builder.cast(builder.add(builder.mul(xhat, weight), bias), operands[0].dtype),)


def _layer_norm_vjp(builder: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    if g[0] is None:
        return (None, None, None)
    dtype = node.result.dtype
    x, weight, dy = (widen(builder, v) for v in (*node.operands[:2], g[0]))
    axes = _trailing(len(x.shape), node.attributes)
    leading = range(len(x.shape) - len(axes))
    xhat, scale = _standardize(builder, x, axes, _epsilon(node.attributes))
    dx = _standardize_vjp(builder, builder.mul(dy, weight), xhat, scale, axes)
    dweight = builder.sum(builder.mul(dy, xhat), leading)
    return tuple(builder.cast(v, dtype) for v in (dx, dweight, builder.sum(dy, leading)))


def _rms_scale(builder: GraphBuilder, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    square = mean(builder, builder.op("square", x), axes)
    return repeat(builder, _reciprocal_root(builder, square, epsilon), x.shape, axes)


def _rms_norm(builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    x, weight = (widen(builder, v) for v in operands)
    scale = _rms_scale(builder, x, _trailing(len(x.shape), attributes), _epsilon(attributes))
    return (builder.cast(builder.mul(builder.mul(x, scale), weight), operands[0].dtype),)


def _rms_norm_vjp(builder: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    """With x̂ = x·r: dx = r·(gw − x̂·mean(gw·x̂)), dw = Σ g·x̂."""
    if g[0] is None:
        return (None, None)
    x, weight, dy = (widen(builder, v) for v in (*node.operands, g[0]))
    axes = _trailing(len(x.shape), node.attributes)
    scale = _rms_scale(builder, x, axes, _epsilon(node.attributes))
    xhat, weighted = builder.mul(x, scale), builder.mul(dy, weight)
    projection = builder.mul(xhat, _mean_along(builder, builder.mul(weighted, xhat), axes))
    dx = builder.mul(scale, builder.sub(weighted, projection))
    dweight = builder.sum(builder.mul(dy, xhat), range(len(x.shape) - len(axes)))
    return tuple(builder.cast(v, node.result.dtype) for v in (dx, dweight))


# -- per channel -------------------------------------------------------------------------------------------------


def _channel(x: TensorType, name: str, attributes: Attributes) -> tuple[int, tuple[int, ...]]:
    """The channel axis, and all others."""
    axis = rules.checked_axis(name, x, attributes)
    return axis, tuple(i for i in range(x.rank) if i != axis)


def _batch_norm_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    x, *parameters = types
    axis, others = _channel(x, "batch_norm", attributes)
    if not others:
        raise ShapeError(f"batch_norm takes an operand of two dimensions or more, not {x}")
    _check_parameters("batch_norm", x, parameters, (x.shape[axis],))
    _epsilon(attributes)
    statistic = TensorType(x.dtype.compute, (x.shape[axis],))
    return (TensorType(x.dtype, x.shape), statistic, statistic)


def _batch_norm(builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    x, weight, bias = (widen(builder, v) for v in operands)
    _, axes = _channel(x.type, "batch_norm", attributes)
    average = mean(builder, x, axes)
    centered = builder.sub(x, repeat(builder, average, x.shape, axes))
    variance = mean(builder, builder.op("square", centered), axes)
    scale = repeat(builder, _reciprocal_root(builder, variance, _epsilon(attributes)), x.shape, axes)
    weighted = builder.mul(builder.mul(centered, scale), repeat(builder, weight, x.shape, axes))
    y = builder.add(weighted, repeat(builder, bias, x.shape, axes))
    return builder.cast(y, operands[0].dtype), average, variance


def _batch_norm_vjp(builder: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    """That of layer_norm over the other axes; the mean adds ḡ/n, the variance 2·ḡ·(x − mean)/n = 2·ḡ·x̂/(r·n)."""
    dtype = node.operands[0].dtype
    x, weight = (widen(builder, v) for v in node.operands[:2])
    _, axes = _channel(x.type, "batch_norm", node.attributes)
    xhat, scale = _standardize(builder, x, axes, _epsilon(node.attributes))
    count = size_of(builder, x.shape, axes, x.dtype)
    terms: list[Value] = []
    dweight = dbias = None
    if g[0] is not None:
        dy = widen(builder, g[0])
        weighted = builder.mul(dy, repeat(builder, weight, x.shape, axes))
        terms.append(_standardize_vjp(builder, weighted, xhat, scale, axes))
        dweight = builder.cast(builder.sum(builder.mul(dy, xhat), axes), dtype)
        dbias = builder.cast(builder.sum(dy, axes), dtype)
    if g[1] is not None:
        terms.append(repeat(builder, builder.div(g[1], count), x.shape, axes))
    if g[2] is not None:
        centered = builder.sub(x, _mean_along(builder, x, axes))
        twice = builder.mul(builder.div(g[2], count), builder.constant(2.0, x.dtype))
        terms.append(builder.mul(repeat(builder, twice, x.shape, axes), centered))
    if not terms:
        return (None, None, None)
    dx = terms[0]
    for term in terms[1:]:
        dx = builder.add(dx, term)
    return builder.cast(dx, dtype), dweight, dbias


def _batch_norm_inference_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    x, weight, bias, *statistics = types
    axis, _ = _channel(x, "batch_norm_inference", attributes)
    _check_parameters("batch_norm_inference", x, (weight, bias), (x.shape[axis],))
    _check_parameters("batch_norm_inference", TensorType(x.dtype.compute, x.shape), statistics, (x.shape[axis],))
    _epsilon(attributes)
    return (TensorType(x.dtype, x.shape),)


def _batch_norm_inference(
    builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes
) -> tuple[Value, ...]:
    x, weight, bias, average, variance = (widen(builder, v) for v in operands)
    _, axes = _channel(x.type, "batch_norm_inference", attributes)
    scale = builder.mul(_reciprocal_root(builder, variance, _epsilon(attributes)), weight)
    centered = builder.sub(x, repeat(builder, average, x.shape, axes))
    scaled = builder.mul(centered, repeat(builder, scale, x.shape, axes))
    return (builder.cast(builder.add(scaled, repeat(builder, bias, x.shape, axes)), operands[0].dtype),)


def _group_norm_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    x, *parameters = types
    groups = rules.integer(attributes, "groups")
    if x.rank < 2:
        raise ShapeError(f"group_norm takes an operand of two dimensions or more, not {x}")
    if groups < 1 or (isinstance(x.shape[1], int) and not divisible(x.shape[1], groups)):
        raise ShapeError(f"group_norm: the {x.shape[1]} channels of {x} do not form {groups} groups")
    _check_parameters("group_norm", x, parameters, (x.shape[1],))
    _epsilon(attributes)
    return (TensorType(x.dtype, x.shape),)


def _group_norm(builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    x, weight, bias = (widen(builder, v) for v in operands)
    groups = rules.integer(attributes, "groups")
    size, channels, *rest = x.shape
    grouped = builder.reshape(x, (size, groups, channels // groups, *rest))
    xhat, _ = _standardize(builder, grouped, range(2, len(grouped.shape)), _epsilon(attributes))
    others = [i for i in range(len(x.shape)) if i != 1]
    weighted = builder.mul(builder.reshape(xhat, x.shape), repeat(builder, weight, x.shape, others))
    return (builder.cast(builder.add(weighted, repeat(builder, bias, x.shape, others)), operands[0].dtype),)


def _case(dtype: DType, shape: tuple[Dim, ...], parameters: Sequence[tuple[Dim, ...]], attributes: Attributes) -> Case:
    return (tuple(TensorType(dtype, s) for s in (shape, *parameters)), attributes)


def _trailing_batch(body: Body) -> Batch:
    """Batching of a norm over trailing axes: only parameters that differ from sample to sample change it."""

    def batch(
        b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
    ) -> Sequence[Value]:
        x = rules.with_batch(b, operands[0], batched[0], size)
        count = rules.integer(attributes, "axes_count")
        parameters = [
            b.reshape(p, (size, *[1] * (len(x.shape) - count - 1), *p.shape[1:])) if has else p
            for p, has in zip(operands[1:], batched[1:], strict=True)
        ]
        return body(b, [x, *parameters], attributes)

    return batch


_TRAILING = AttributeSpec("how many trailing dimensions are normalized")
_CHANNEL = AttributeSpec("the channel dimension", required=False, default=1)
_CHANNEL_CASES = (
    (f32, (5, 3, 4, 4), 3, {"axis": 1, "epsilon": 1e-5}),
    (f64, (7, 2), 2, {"axis": 1, "epsilon": 1e-3}),
    (bf16, (6, 5, 3), 3, {"axis": 2, "epsilon": 1e-5}),
    (f32, (symbol("n") + 1, 3), 3, {"axis": 1, "epsilon": 1e-5}),
)

OPS_COMPOSITE_NORM: tuple[OpDef, ...] = (
    OpDef(
        name="layer_norm",
        doc="""x̂·weight + bias over the last ``axes_count`` dimensions (Ba et al., arXiv 1607.06450).

        ``weight`` and ``bias`` have the shape of these dimensions.""",
        kind=OpKind.COMPOSITE,
        operands=3,
        infer=_trailing_type,
        attributes={"axes_count": _TRAILING, "epsilon": _EPSILON},
        body=_layer_norm,
        vjp=_layer_norm_vjp,
        batch=_trailing_batch(_layer_norm),
        domain=((-3.0, 3.0),) * 3,
        cases=(
            _case(f32, (4, 9), [(9,), (9,)], {"axes_count": 1, "epsilon": 1e-5}),
            _case(f64, (2, 3, 4), [(3, 4), (3, 4)], {"axes_count": 2, "epsilon": 1e-3}),
            _case(bf16, (3, 8), [(8,), (8,)], {"axes_count": 1, "epsilon": 1e-5}),
        ),
    ),
    OpDef(
        name="rms_norm",
        doc="x / √(mean x² + ε) · weight over the last ``axes_count`` dimensions (Zhang & Sennrich, arXiv 1910.07467).",
        kind=OpKind.COMPOSITE,
        operands=2,
        infer=_trailing_type,
        attributes={"axes_count": _TRAILING, "epsilon": _EPSILON},
        body=_rms_norm,
        vjp=_rms_norm_vjp,
        batch=_trailing_batch(_rms_norm),
        domain=((-3.0, 3.0),) * 2,
        cases=(
            _case(f32, (4, 9), [(9,)], {"axes_count": 1, "epsilon": 1e-5}),
            _case(bf16, (2, 3, 4), [(3, 4)], {"axes_count": 2, "epsilon": 1e-5}),
        ),
    ),
    OpDef(
        name="batch_norm",
        doc="""x̂·weight + bias over all dimensions but ``axis`` (Ioffe & Szegedy, arXiv 1502.03167), as in training.

        Results: the normalized tensor, and the batch's mean and biased variance per channel (in f32 for 16-bit
        floats).""",
        kind=OpKind.COMPOSITE,
        operands=3,
        infer=_batch_norm_type,
        attributes={"axis": _CHANNEL, "epsilon": _EPSILON},
        body=_batch_norm,
        vjp=_batch_norm_vjp,
        domain=((-3.0, 3.0),) * 3,
        cases=tuple(_case(d, shape, [(c,)] * 2, attributes) for d, shape, c, attributes in _CHANNEL_CASES),
    ),
    OpDef(
        name="batch_norm_inference",
        doc="""(x − mean)·(weight/√(variance + ε)) + bias with given statistics per channel (f32 for 16-bit floats).""",
        kind=OpKind.COMPOSITE,
        operands=5,
        infer=_batch_norm_inference_type,
        attributes={"axis": _CHANNEL, "epsilon": _EPSILON},
        body=_batch_norm_inference,
        domain=((-3.0, 3.0),) * 4 + ((0.5, 3.0),),
        cases=tuple(
            (
                (TensorType(d, shape), *[TensorType(d, (c,))] * 2, *[TensorType(d.compute, (c,))] * 2),
                attributes,
            )
            for d, shape, c, attributes in _CHANNEL_CASES
        ),
    ),
    OpDef(
        name="group_norm",
        doc="""x̂·weight + bias per sample and group of channels (Wu & He, arXiv 1803.08494).

        x[N, C, …] with C divided into ``groups``; weight and bias [C].""",
        kind=OpKind.COMPOSITE,
        operands=3,
        infer=_group_norm_type,
        attributes={"groups": AttributeSpec("number of groups"), "epsilon": _EPSILON},
        body=_group_norm,
        domain=((-3.0, 3.0),) * 3,
        cases=(_case(f32, (2, 6, 5), [(6,), (6,)], {"groups": 3, "epsilon": 1e-5}),),
    ),
)
