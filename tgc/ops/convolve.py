"""Convolution and its two gradients: three bilinear ops that are each other's gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from tgc.ops.contract import bilinear_error, bilinear_jvp, common_dim
from tgc.ops.convolve_batch import convolution_batch
from tgc.ops.rules import Floats
from tgc.ops.sliding import Index, pairs, taps, trailing, window_count

_WINDOW = ("stride", "padding", "dilation", "groups")


@dataclass(frozen=True, slots=True)
class Windows:
    """How a filter slides: one entry per spatial dimension."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @staticmethod
    def of(attributes: Attributes) -> Windows:
        """Reads the attributes that the three ops share."""
        found = Windows(
            rules.integers(attributes, "stride"),
            pairs(attributes, "padding"),
            rules.integers(attributes, "dilation"),
            rules.integer(attributes, "groups"),
        )
        rank = len(found.stride)
        if not 1 <= rank <= 3 or len(found.padding) != rank or len(found.dilation) != rank:
            raise ShapeError(
                f"stride {found.stride}, padding {found.padding} and dilation {found.dilation} of a convolution",
                hint="give one entry for each of 1 to 3 spatial dimensions",
            )
        if min(*found.stride, *found.dilation, found.groups) < 1:
            raise ShapeError("stride, dilation and groups of a convolution must be 1 or more")
        return found

    def result(self, x: TensorType, w: TensorType) -> TensorType:
        """The type of the convolution of ``x`` with ``w``; :class:`ShapeError` where they do not fit."""
        rank = len(self.stride)
        for name, operand in (("input", x), ("filter", w)):
            if operand.rank != rank + 2:
                raise ShapeError(
                    f"convolution over {rank} dimensions: the {name} {operand} must have {rank + 2} of them"
                )
        kernel = [size for size in w.shape[2:] if isinstance(size, int) and size >= 1]
        if len(kernel) != rank:
            raise ShapeError(f"convolution: the filter {w} must have known spatial sizes")
        outputs, per_group = w.shape[:2]
        common_dim(
            x.shape[1], per_group * self.groups, f"convolution of {x} with {w}, groups {self.groups}: input channels"
        )
        if isinstance(outputs, int) and outputs % self.groups:
            raise ShapeError(f"convolution: {outputs} output channels do not form {self.groups} groups")
        spatial = [
            window_count(
                x.shape[i + 2],
                kernel[i],
                self.stride[i],
                self.padding[i],
                self.dilation[i],
                f"convolution of {x} with {w}",
            )
            for i in range(rank)
        ]
        return TensorType(x.dtype, (x.shape[0], outputs, *spatial))

    def taps(self, kernel: Sequence[int], output: Sequence[int]) -> Iterator[tuple[Index, Index]]:
        """Each position of the filter and what it meets in the padded input, as indices of the trailing dimensions."""
        return taps(kernel, output, self.stride, self.dilation)


# -- meaning: on [N, groups, channels per group, …] and [groups, outputs per group, inputs per group, …] ---------


def _grouped(x: Array, groups: int) -> Array:
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _grouped_filter(w: Array, groups: int) -> Array:
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])


def _padded(x: Array, windows: Windows) -> Array:
    return np.pad(_grouped(x, windows.groups), ((0, 0),) * 3 + windows.padding)


def _forward(x: Array, w: Array, attributes: Attributes, type_: TensorType) -> Array:
    windows, shape = Windows.of(attributes), rules.concrete(type_)
    padded, w = _padded(x, windows), _grouped_filter(w, windows.groups)
    result = np.zeros((shape[0], windows.groups, w.shape[1], *shape[2:]), x.dtype)
    for position, slices in windows.taps(w.shape[3:], shape[2:]):
        result += np.einsum("ngc...,goc->ngo...", padded[slices], w[position], optimize=True)
    return result.reshape(shape)


def _input_gradient(dy: Array, w: Array, attributes: Attributes, type_: TensorType) -> Array:
    windows, shape = Windows.of(attributes), rules.concrete(type_)
    dy, w = _grouped(dy, windows.groups), _grouped_filter(w, windows.groups)
    spatial = [size + low + high for size, (low, high) in zip(shape[2:], windows.padding, strict=True)]
    padded = np.zeros((shape[0], windows.groups, w.shape[2], *spatial), dy.dtype)
    for position, slices in windows.taps(w.shape[3:], dy.shape[3:]):
        padded[slices] += np.einsum("ngo...,goc->ngc...", dy, w[position], optimize=True)
    inside = [slice(low, low + size) for size, (low, _) in zip(shape[2:], windows.padding, strict=True)]
    return padded[trailing(inside)].reshape(shape)


def _filter_gradient(dy: Array, x: Array, attributes: Attributes, type_: TensorType) -> Array:
    windows, shape = Windows.of(attributes), rules.concrete(type_)
    dy, padded = _grouped(dy, windows.groups), _padded(x, windows)
    result = np.zeros((windows.groups, dy.shape[2], padded.shape[2], *shape[2:]), dy.dtype)
    positions = prod(dy.shape[3:])
    flat = dy.reshape(*dy.shape[:3], positions)
    for position, slices in windows.taps(shape[2:], dy.shape[3:]):
        met = padded[slices].reshape(*padded.shape[:3], positions)
        result[position] = np.einsum("ngos,ngcs->goc", flat, met, optimize=True)
    return result.reshape(shape)


_Product = Callable[[Array, Array, Attributes, TensorType], Array]


def _meaning(product: _Product) -> Meaning:
    def evaluate(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
        return (product(operands[0], operands[1], attributes, types[0]),)

    return evaluate


def _bound(product: _Product, terms: Callable[[Sequence[Array], Attributes], int]) -> ErrorBound:
    def error(
        operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
    ) -> Sequence[Array]:
        type_ = TensorType(f64, results[0].shape)

        def absolute(a: Floats, b: Floats) -> Array:
            return product(a, b, attributes, type_)

        return (bilinear_error(absolute, terms(operands, attributes), operands, errors, results[0]),)

    return error


# -- type rules --------------------------------------------------------------------------------------------------


def _numeric(name: str, types: Sequence[TensorType]) -> None:
    rules.require_kinds(name, types, rules.NUMERIC)
    rules.require_same_dtype(name, types)


def _convolution_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    _numeric("convolution", types)
    return (Windows.of(attributes).result(types[0], types[1]),)


def _gradient_rule(name: str, attribute: str) -> TypeRule:
    """The rule of a gradient whose own shape is an attribute: with it, the convolution must have the type of ``dy``."""

    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        _numeric(name, types)
        dy, other = types
        wanted = TensorType(dy.dtype, rules.shape(attributes, attribute))
        x, w = (wanted, other) if attribute == "input_shape" else (other, wanted)
        expected = Windows.of(attributes).result(x, w)
        rules.common_shape(f"{name} of {dy} for a convolution of {x} with {w}", [dy, expected])
        return (wanted,)

    return infer


def _equalities(name: str) -> Equalities:
    def equalities(types: Sequence[TensorType], attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
        x, w = types
        if name == "convolution_input_gradient":
            x = TensorType(w.dtype, rules.shape(attributes, "input_shape"))
        elif name == "convolution_filter_gradient":
            x, w = w, TensorType(w.dtype, rules.shape(attributes, "filter_shape"))
        windows = Windows.of(attributes)
        result = windows.result(x, w)
        yield x.shape[1], w.shape[1] * windows.groups
        yield from rules.not_negative(result.shape[2:])
        if name != "convolution":
            yield from zip(types[0].shape, result.shape, strict=True)

    return equalities


# -- gradients ---------------------------------------------------------------------------------------------------


def _shared(attributes: Attributes) -> Attributes:
    return {name: attributes[name] for name in _WINDOW}


def _for_input(b: GraphBuilder, dy: Value, w: Value, like: Value, shared: Attributes) -> Value:
    return b.op("convolution_input_gradient", dy, w, attributes={**shared, "input_shape": like.shape})


def _for_filter(b: GraphBuilder, dy: Value, x: Value, like: Value, shared: Attributes) -> Value:
    return b.op("convolution_filter_gradient", dy, x, attributes={**shared, "filter_shape": like.shape})


_Pair = tuple[Value, Value]


def _convolution_vjp(b: GraphBuilder, g: Value, x: Value, w: Value, shared: Attributes) -> _Pair:
    return _for_input(b, g, w, x, shared), _for_filter(b, g, x, w, shared)


def _input_gradient_vjp(b: GraphBuilder, g: Value, dy: Value, w: Value, shared: Attributes) -> _Pair:
    return b.op("convolution", g, w, attributes=shared), _for_filter(b, dy, g, w, shared)


def _filter_gradient_vjp(b: GraphBuilder, g: Value, dy: Value, x: Value, shared: Attributes) -> _Pair:
    return b.op("convolution", x, g, attributes=shared), _for_input(b, dy, g, x, shared)


def _vjp(rule: Callable[[GraphBuilder, Value, Value, Value, Attributes], _Pair]) -> Vjp:
    def vjp(b: GraphBuilder, node: Node, cotangents: Sequence[Value | None]) -> Sequence[Value | None]:
        (g,) = cotangents
        if g is None:
            return (None, None)
        return rule(b, g, node.operands[0], node.operands[1], _shared(node.attributes))

    return vjp


# -- table -------------------------------------------------------------------------------------------------------


def _forward_terms(operands: Sequence[Array], attributes: Attributes) -> int:
    return int(prod(operands[1].shape[1:]))


def _input_terms(operands: Sequence[Array], attributes: Attributes) -> int:
    w = operands[1].shape
    return int(w[0] // rules.integer(attributes, "groups") * prod(w[2:]))


def _filter_terms(operands: Sequence[Array], attributes: Attributes) -> int:
    dy = operands[0].shape
    return int(dy[0] * prod(dy[2:]))


def _window(stride: int, low: int, high: int, dilation: int, groups: int, rank: int) -> Attributes:
    padding = ((low, high),) * rank
    return {"stride": (stride,) * rank, "padding": padding, "dilation": (dilation,) * rank, "groups": groups}


_N = symbol("n")
_UNEVEN: Mapping[str, Attribute] = {"stride": (2, 3), "padding": ((0, 1), (2, 0)), "dilation": (1, 2), "groups": 2}
_EXAMPLES: tuple[tuple[DType, tuple[Dim, ...], tuple[Dim, ...], Attributes], ...] = (
    (f32, (2, 3, 6, 5), (4, 3, 3, 3), _window(1, 1, 1, 1, 1, 2)),
    (f32, (2, 4, 7, 7), (6, 2, 3, 2), _UNEVEN),
    (f64, (3, 2, 9), (4, 1, 4), _window(2, 1, 2, 1, 2, 1)),
    (bf16, (1, 2, 5, 5), (3, 2, 1, 1), _window(1, 0, 0, 1, 1, 2)),
    (f32, (1, 1, 3, 4, 3), (2, 1, 2, 2, 2), _window(1, 0, 1, 1, 1, 3)),
    (i32, (1, 2, 4), (2, 2, 3), _window(1, 0, 0, 1, 1, 1)),
    (f32, (_N, 2, _N + 3, 4), (2, 2, 3, 3), _window(1, 1, 1, 1, 1, 2)),
)


def _cases(name: str) -> Iterator[Case]:
    for dtype, input_shape, filter_shape, attributes in _EXAMPLES:
        x, w = TensorType(dtype, input_shape), TensorType(dtype, filter_shape)
        dy = Windows.of(attributes).result(x, w)
        if name == "convolution":
            yield (x, w), attributes
        elif name == "convolution_input_gradient":
            yield (dy, w), {**attributes, "input_shape": input_shape}
        else:
            yield (dy, x), {**attributes, "filter_shape": filter_shape}


_ATTRIBUTES: Mapping[str, AttributeSpec] = {
    "stride": AttributeSpec("step of the filter along each spatial dimension"),
    "padding": AttributeSpec("zeros (before, after) along each spatial dimension"),
    "dilation": AttributeSpec("distance between the filter's elements along each spatial dimension"),
    "groups": AttributeSpec("number of groups of channels that do not mix"),
}


def _op(
    name: str,
    doc: str,
    infer: TypeRule,
    product: _Product,
    vjp: Callable[[GraphBuilder, Value, Value, Value, Attributes], _Pair],
    terms: Callable[[Sequence[Array], Attributes], int],
    extra: str = "",
) -> OpDef:
    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.CONVOLUTION,
        operands=2,
        infer=infer,
        attributes={**_ATTRIBUTES, **({extra: AttributeSpec("shape of the result")} if extra else {})},
        evaluate=_meaning(product),
        vjp=_vjp(vjp),
        jvp=bilinear_jvp,
        batch=convolution_batch(name),
        error=_bound(product, terms),
        equalities=_equalities(name),
        cases=tuple(_cases(name)),
    )


OPS_CONVOLVE: tuple[OpDef, ...] = (
    _op(
        "convolution",
        """Sums of products of a sliding filter and what it covers, over 1 to 3 spatial dimensions.

        x[N, C, *S], w[O, C/groups, *K] -> y[N, O, *T] with
        y[n, o, t] = Σ_{c, k} x[n, c, t·stride + k·dilation − padding] · w[o, c, k], x being 0 outside (a
        cross-correlation, as everywhere in deep learning). Accumulated as contract does.""",
        _convolution_type,
        _forward,
        _convolution_vjp,
        _forward_terms,
    ),
    _op(
        "convolution_input_gradient",
        """The cotangent of a convolution's input, ``input_shape``, from that of its result and the filter.

        dx[n, c, s] = Σ dy[n, o, t]·w[o, c, k] over s = t·stride + k·dilation − padding: a transposed convolution.""",
        _gradient_rule("convolution_input_gradient", "input_shape"),
        _input_gradient,
        _input_gradient_vjp,
        _input_terms,
        "input_shape",
    ),
    _op(
        "convolution_filter_gradient",
        """The cotangent of a convolution's filter, ``filter_shape``, from that of its result and the input.

        dw[o, c, k] = Σ_{n, t} dy[n, o, t] · x[n, c, t·stride + k·dilation − padding].""",
        _gradient_rule("convolution_filter_gradient", "filter_shape"),
        _filter_gradient,
        _filter_gradient_vjp,
        _filter_terms,
        "filter_shape",
    ),
)
