"""What training loops need besides layers: clipping of gradients."""

from __future__ import annotations

from collections.abc import Iterable

from tgc.dtypes import f32
from tgc.errors import UserError
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here, no_grad
from tgc.nn.module import Parameter


def clip_grad_norm_(parameters: Iterable[Parameter], max_norm: float) -> Tensor:
    """Scales all gradients together so that their Euclidean norm is at most ``max_norm``; gives the norm before.

    As ``torch.nn.utils.clip_grad_norm_``: the factor is max_norm / (norm + 1e-6), at most 1. Works in ``jit`` too.

    >>> import tgc
    >>> w = tgc.nn.Parameter([3.0, 4.0])
    >>> (w.square().sum() / 2).backward()
    >>> float(clip_grad_norm_([w], 1.0))
    5.0
    """
    given = [p for p in parameters if p.grad is not None]
    if not given:
        raise UserError("there are no gradients to clip", hint="call backward() first", location=here())
    with no_grad():
        total: Tensor | None = None
        for parameter in given:
            squares = _gradient(parameter).astype(f32).square().sum()
            total = squares if total is None else total + squares
        norm = (total if total is not None else _gradient(given[0])).sqrt()
        factor = (max_norm / (norm + 1e-6)).clip(high=1.0)
        for parameter in given:
            parameter.grad = _gradient(parameter) * factor.astype(parameter.dtype)
    return norm


def _gradient(parameter: Parameter) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        raise UserError("a parameter without a gradient", location=here())
    return gradient
