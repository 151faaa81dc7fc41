"""Losses as functions, by PyTorch's names."""

from __future__ import annotations

from typing import Any

from tgc.dtypes import i64
from tgc.errors import DTypeError, ShapeError, UserError
from tgc.frontend.arithmetic import common_dtype
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.ops.rules import provably_different


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The ``"mean"`` or ``"sum"`` of losses, or (``"none"``) the losses themselves."""
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise UserError(f"reduction {reduction!r}", hint='it is "mean", "sum" or "none"', location=here())


def _classes_last(x: Tensor) -> Tensor:
    return x if x.ndim < 3 else x.permute(0, *range(2, x.ndim), 1)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """−log softmax(logits)[target]: logits [C], [N, C] or [N, C, …]; target: integer labels without the class
    dimension, or probabilities of the logits' shape.

    Negative labels give 0, and so do those equal to ``ignore_index``, which the mean then does not count. A label that
    is too large for a class gives nan.

    >>> import tgc
    >>> loss = cross_entropy(tgc.tensor([[0.0, 0.0]]), tgc.tensor([1]))
    >>> round(float(loss), 4)
    0.6931
    """
    scores = _classes_last(logits)
    if target.dtype.is_float:
        if target.ndim != logits.ndim:
            raise DTypeError(
                f"cross_entropy of {logits.type} with labels {target.type}",
                hint="labels are integers, target.astype(tgc.i64); probabilities have the logits' shape",
                location=here(),
            )
        return _soft_cross_entropy(scores, _classes_last(target), reduction, label_smoothing)
    counted = None if ignore_index is None else target != ignore_index
    if counted is not None:
        labels = target.cast_to(i64)
        target = counted.elementwise_select(labels, labels.emit(lambda builder, value: builder.full_like(value, -1)))
    losses = scores.apply("cross_entropy", target)
    if label_smoothing:
        even = -scores.log_softmax(-1).mean(-1)
        losses = losses * (1.0 - label_smoothing) + even * label_smoothing
    if counted is None:
        return reduced(losses, reduction)
    counted = counted.cast_to(losses.dtype)
    losses = losses * counted
    return losses.sum() / counted.sum() if reduction == "mean" else reduced(losses, reduction)


def _soft_cross_entropy(scores: Tensor, target: Tensor, reduction: str, smoothing: float) -> Tensor:
    _same_shape("cross_entropy", scores, target)
    if smoothing:
        if not isinstance(scores.shape[-1], int):
            raise UserError("label smoothing needs a known number of classes", location=here())
        target = target * (1.0 - smoothing) + smoothing / scores.shape[-1]
    return reduced(-(target * scores.log_softmax(-1)).sum(-1), reduction)


def nll_loss(log_probabilities: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
    """−log_probabilities[label]: [N, C] (or [N, C, …]) and labels [N] (or [N, …])."""
    scores = _classes_last(log_probabilities)
    if scores.ndim != labels.ndim + 1:
        raise ShapeError(f"nll_loss of {log_probabilities.type} with labels {labels.type}", location=here())
    chosen = scores.apply("take_along_axis", labels.unsqueeze(-1), attributes={"axis": labels.ndim})
    return reduced(-chosen.squeeze(-1), reduction)


def _same_shape(what: str, x: Tensor, target: Tensor) -> None:
    different = x.ndim != target.ndim or any(map(provably_different, x.shape, target.shape))
    if different:
        raise ShapeError(
            f"{what} of {x.type} with a target of {target.type}", hint="both must have one shape", location=here()
        )


def mse_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """(x − target)²; both have one shape."""
    _same_shape("mse_loss", x, target)
    return reduced((x - target).square(), reduction)


def l1_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """|x − target|; both have one shape."""
    _same_shape("l1_loss", x, target)
    return reduced((x - target).abs(), reduction)


def binary_cross_entropy_with_logits(x: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """−target·log σ(x) − (1 − target)·log(1 − σ(x)); both have one shape."""
    _same_shape("binary_cross_entropy_with_logits", x, target)
    dtype = common_dtype([x, target])
    return reduced(x.cast_to(dtype).apply("binary_cross_entropy", target.cast_to(dtype)), reduction)
