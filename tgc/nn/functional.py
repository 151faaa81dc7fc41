"""Layers as functions, by PyTorch's names: weights are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tgc.dtypes import i64
from tgc.errors import DTypeError, ShapeError, UserError
from tgc.frontend.arithmetic import common_dtype
from tgc.frontend.random import Generator, bernoulli
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.frontend.windows import Padding, Sizes, borders, per_dimension
from tgc.ir.dims import Dim
from tgc.ir.graph import Attributes
from tgc.nn.loss import binary_cross_entropy_with_logits, cross_entropy, l1_loss, mse_loss, nll_loss
from tgc.nn.normalisation import batch_norm, group_norm, layer_norm, rms_norm
from tgc.ops.rules import provably_different

__all__ = [
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "group_norm",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "pad",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]

# -- activations -------------------------------------------------------------------------------------------------


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return x.relu()


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x·Φ(x)."""
    return x.gelu(approximate=approximate)


def silu(x: Tensor) -> Tensor:
    """x·σ(x)."""
    return x.silu()


def sigmoid(x: Tensor) -> Tensor:
    """1/(1 + e⁻ˣ)."""
    return x.sigmoid()


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return x.tanh()


def softplus(x: Tensor) -> Tensor:
    """log(1 + eˣ)."""
    return x.softplus()


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha·(eˣ − 1)."""
    return x.floating().apply("elu", attributes={"alpha": float(alpha)})


def leaky_relu(x: Tensor, *, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, else negative_slope·x."""
    return x.floating().apply("leaky_relu", attributes={"slope": float(negative_slope)})


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """eˣ divided by its sum along ``axis``."""
    return x.softmax(axis)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of :func:`softmax`."""
    return x.log_softmax(axis)


# -- products ----------------------------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias: x [*, I], weight [O, I], bias [O]; result [*, O].

    >>> import tgc
    >>> linear(tgc.tensor([1.0, 2.0]), tgc.tensor([[3.0, 4.0]]), tgc.tensor([0.5])).numpy()
    array([11.5], dtype=float32)
    """
    if x.ndim < 1 or weight.ndim != 2 or provably_different(x.shape[-1], weight.shape[1]):
        raise ShapeError(
            f"linear of {x.type} with a weight of {weight.type}",
            hint=f"the last axis of the input must have size {weight.shape[-1]}" if weight.ndim == 2 else None,
            location=here(),
        )
    letters = "abcdefghijklmnopqrstuvwx"[: x.ndim - 1]
    product = x.contract(weight, f"{letters}z,yz->{letters}y")
    return product if bias is None else product + bias


def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """The rows of ``weight`` [count, size] at ``indices``: [*indices, size]. Indices outside give the nearest row."""
    if not indices.dtype.is_integer:
        raise DTypeError(
            f"embedding needs integer indices, not {indices.type}", hint="use .astype(tgc.i64)", location=here()
        )
    return weight.apply("gather", indices, attributes={"axis": 0})


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """1 (i64) at the label and 0 elsewhere, along a new last axis."""
    shape = (*labels.shape, classes)

    def equal(builder: Any, value: Any) -> Any:
        axes = tuple(range(len(shape) - 1))
        ramp = builder.op("iota", attributes={"shape": shape, "axis": len(shape) - 1, "dtype": value.dtype})
        return builder.cast(builder.op("eq", builder.broadcast(value, shape, axes), ramp), i64)

    return labels.emit(equal)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    training: bool = True,
) -> Tensor:
    """softmax(scale·query·keyᵀ + mask)·value (Vaswani et al., arXiv 1706.03762); ``scale`` is 1/√D if not given.

    query [*, L, D], key [*, S, D], value [*, S, E]; ``mask`` broadcasts to [*, L, S]: bool, true where a query may see
    a key, or floats that are added. ``causal``: query i sees keys 0 to i alone.
    """
    if dropout > 0.0 and training:
        raise UserError("dropout of attention weights is not done inside of attention; use Dropout on its result")
    dtype = common_dtype([query, key, value])
    operands = [key.cast_to(dtype), value.cast_to(dtype)]
    if mask is not None:
        operands.append(mask.cast_to(dtype) if mask.dtype.is_float else mask)
    attributes = {"causal": causal, "scale": None if scale is None else float(scale)}
    return query.cast_to(dtype).apply("attention", *operands, attributes=attributes)


# -- convolution -------------------------------------------------------------------------------------------------


def _convolution(
    rank: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Padding,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    if weight.ndim != rank + 2:
        raise ShapeError(f"conv{rank}d with a weight of {weight.type}, not of rank {rank + 2}", location=here())
    batched = x.unsqueeze(0) if x.ndim == rank + 1 else x
    found = batched.convolution(weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if bias is not None:
        found = found + bias.reshape(-1, *[1] * rank)
    return found if batched is x else found.squeeze(0)


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of [N, C, L] with [O, C / groups, K]."""
    return _convolution(1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of [N, C, H, W] with [O, C / groups, KH, KW].

    ``padding``: how many zeros at each border, one number or one per dimension, or a pair (low, high) per dimension, or
    "valid" or "same".
    """
    return _convolution(2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of [N, C, D, H, W] with [O, C / groups, KD, KH, KW]."""
    return _convolution(3, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of :func:`conv2d` with respect to its input: x [N, C, H, W], weight [C, O / groups, KH, KW].

    The result has (size − 1)·stride − padding + dilation·(k − 1) + output_padding + 1 rows (and columns).
    """
    if x.ndim != 4 or weight.ndim != 4 or provably_different(x.shape[1], weight.shape[0]):
        raise ShapeError(f"conv_transpose2d of {x.type} with a weight of {weight.type}", location=here())
    kernel = tuple(int(k) for k in weight.shape[2:])  # type: ignore[arg-type]
    steps, dilations = per_dimension(stride, 2, "stride"), per_dimension(dilation, 2, "dilation")
    more = per_dimension(output_padding, 2, "output_padding")
    edges = borders(padding, kernel, steps, dilations)
    sizes: list[Dim] = [
        (size - 1) * s - low - high + d * (k - 1) + extra + 1
        for size, s, (low, high), d, k, extra in zip(x.shape[2:], steps, edges, dilations, kernel, more, strict=True)
    ]
    attributes: Attributes = {
        "stride": steps,
        "padding": edges,
        "dilation": dilations,
        "groups": groups,
        "input_shape": (x.shape[0], weight.shape[1] * groups, *sizes),
    }
    dtype = common_dtype([x, weight])
    found = x.cast_to(dtype).apply("convolution_input_gradient", weight.cast_to(dtype), attributes=attributes)
    return found if bias is None else found + bias.reshape(-1, 1, 1)


def max_pool1d(x: Tensor, window: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Tensor:
    """The maximum of each window of the last dimension."""
    return x.max_pool1d(window, stride, padding)


def max_pool2d(x: Tensor, window: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Tensor:
    """The maximum of each window of the last two dimensions."""
    return x.max_pool2d(window, stride, padding)


def avg_pool2d(
    x: Tensor, window: Sizes, stride: Sizes | None = None, padding: Padding = 0, *, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window of the last two dimensions."""
    return x.avg_pool2d(window, stride, padding, count_include_pad=count_include_pad)


# -- regularisation ----------------------------------------------------------------------------------------------


def dropout(x: Tensor, p: float = 0.5, *, training: bool = True, generator: Generator | None = None) -> Tensor:
    """Each element 0 with probability ``p``, else divided by 1 − p; ``x`` itself if not ``training``."""
    if not 0.0 <= p <= 1.0:
        raise UserError(f"dropout with probability {p}", location=here())
    if not training or p == 0.0:
        return x
    if p == 1.0:
        return x * 0.0
    kept = bernoulli(1.0 - p, x.shape, generator=generator)
    scaled = x * (1.0 / (1.0 - p))
    return kept.elementwise_select(scaled, scaled.emit(lambda builder, value: builder.full_like(value, 0)))


def pad(x: Tensor, widths: Sequence[int], *, value: float = 0.0) -> Tensor:
    """``value`` around ``x``: (low, high) of the last dimension, then of the one before, as in PyTorch."""
    if len(widths) % 2 or len(widths) > 2 * x.ndim or min(widths, default=0) < 0:
        raise ShapeError(f"padding {tuple(widths)} of {x.type}", location=here())
    low, high = [0] * x.ndim, [0] * x.ndim
    for i in range(len(widths) // 2):
        low[-1 - i], high[-1 - i] = widths[2 * i], widths[2 * i + 1]
    attributes = {"low": tuple(low), "high": tuple(high), "interior": (0,) * x.ndim}
    return x.emit(lambda builder, v: builder.op("pad", v, builder.constant(value, v.dtype), attributes=attributes))
