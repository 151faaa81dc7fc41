"""Normalisation as functions."""

from __future__ import annotations

from collections.abc import Sequence

from tgc.errors import ShapeError
from tgc.frontend.base import assign_soon
from tgc.frontend.tensor import Tensor, Variable
from tgc.frontend.trace import here, no_grad
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Value
from tgc.ops.composite import size_of


def _filled(x: Tensor, shape: Sequence[Dim], number: float) -> Tensor:
    return x.emit(lambda builder, value: builder.full(number, shape, value.dtype))


def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> Tensor:
    """(x − mean)/√(variance + eps)·weight + bias over the last dimensions, which ``shape`` gives (arXiv 1607.06450)."""
    sizes = _trailing("layer_norm", x, shape)
    scale = _filled(x, sizes, 1.0) if weight is None else weight.cast_to(x.dtype)
    shift = _filled(x, sizes, 0.0) if bias is None else bias.cast_to(x.dtype)
    return x.apply("layer_norm", scale, shift, attributes={"axes_count": len(sizes), "epsilon": eps})


def rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """x/√(mean of x² + eps)·weight over the last dimensions, which ``shape`` gives (arXiv 1910.07467)."""
    sizes = _trailing("rms_norm", x, shape)
    scale = _filled(x, sizes, 1.0) if weight is None else weight.cast_to(x.dtype)
    return x.apply("rms_norm", scale, attributes={"axes_count": len(sizes), "epsilon": eps})


def _trailing(what: str, x: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(shape)
    if not sizes or x.shape[x.ndim - len(sizes) :] != sizes:
        raise ShapeError(f"{what} over the last dimensions {list(sizes)} of {x.type}", location=here())
    return sizes


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> Tensor:
    """Normalisation of each sample's groups of channels; x [N, C, …], weight and bias [C] (arXiv 1803.08494)."""
    channels = (x.shape[1],)
    scale = _filled(x, channels, 1.0) if weight is None else weight.cast_to(x.dtype)
    shift = _filled(x, channels, 0.0) if bias is None else bias.cast_to(x.dtype)
    return x.apply("group_norm", scale, shift, attributes={"groups": groups, "epsilon": eps})


def batch_norm(
    x: Tensor,
    running_mean: Variable | None,
    running_var: Variable | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalisation of each channel of [N, C, …] (arXiv 1502.03167).

    In training by the batch's statistics, which then move the running ones by ``momentum`` (the variance towards the
    unbiased one, as in PyTorch); else by the running ones, if there are any.
    """
    if x.ndim < 2:
        raise ShapeError(f"batch_norm takes [N, C, …], not {x.type}", location=here())
    channels = (x.shape[1],)
    scale = _filled(x, channels, 1.0) if weight is None else weight.cast_to(x.dtype)
    shift = _filled(x, channels, 0.0) if bias is None else bias.cast_to(x.dtype)
    attributes = {"axis": 1, "epsilon": float(eps)}
    if not training and running_mean is not None and running_var is not None:
        wide = x.dtype.compute
        statistics = running_mean.cast_to(wide), running_var.cast_to(wide)
        return x.apply("batch_norm_inference", scale, shift, *statistics, attributes=attributes)
    found, mean, variance = x.apply_all("batch_norm", scale, shift, attributes=attributes)
    if not training or running_mean is None or running_var is None:
        return found
    others = [i for i in range(x.ndim) if i != 1]

    def unbiased(builder: Builder, value: Value) -> Value:
        count = size_of(builder, x.shape, others, value.dtype)
        return builder.mul(value, builder.div(count, builder.sub(count, builder.constant(1, value.dtype))))

    with no_grad():
        pairs = ((running_mean, mean), (running_var, variance.emit(unbiased)))
        assign_soon([(state, state * (1 - momentum) + new.cast_to(state.dtype) * momentum) for state, new in pairs])
    return found
