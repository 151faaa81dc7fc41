"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tgc.errors import UserError
from tgc.frontend.tensor import Tensor, Variable
from tgc.frontend.trace import here
from tgc.nn.module import Parameter
from tgc.optim.optimizer import Optimizer, Update


class Adam(Optimizer):
    """Adaptive moments (Kingma & Ba, arXiv 1412.6980). As ``torch.optim.Adam``: ``weight_decay``·p is added to g.

    m ← m + (1 − β₁)(g − m), v ← β₂·v + (1 − β₂)·g², p ← p − lr/(1 − β₁ᵗ) · m/(√v/√(1 − β₂ᵗ) + eps). The corrections
    1 − βᵗ are computed as −expm1(t·log β), which keeps f32's precision in the first steps.
    """

    decoupled = False

    def __init__(
        self,
        parameters: Iterable[Parameter | tuple[str, Parameter]],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        if not all(0.0 < beta < 1.0 for beta in betas):
            raise UserError(f"betas {betas}", hint="both lie between 0 and 1", location=here())
        self.betas, self.eps, self.weight_decay = (float(betas[0]), float(betas[1])), eps, weight_decay
        self._step = Variable(np.zeros((), np.float32))
        self.slots("exp_avg")
        self.slots("exp_avg_sq")

    def scalars(self) -> Mapping[str, Variable]:
        """The learning rate and the number of steps."""
        return {"lr": self._lr, "step": self._step}

    def updates(self, gradients: Sequence[Tensor | None]) -> list[Update]:
        """New parameters, moments and step count."""
        step = self._step + 1.0
        first, second = (-(step * math.log(beta)).expm1() for beta in self.betas)
        size, root, decay = self.lr / first, second.sqrt(), 1.0 - self.lr * self.weight_decay
        found: list[Update] = [(self._step, step)]
        moments = zip(self.slots("exp_avg"), self.slots("exp_avg_sq"), strict=True)
        for parameter, gradient, (mean, square) in zip(self.parameters, gradients, moments, strict=True):
            if gradient is None:
                continue
            old: Tensor = parameter
            dtype = parameter.dtype
            if self.weight_decay and self.decoupled:
                old = parameter * decay.astype(dtype)
            elif self.weight_decay:
                gradient = gradient + parameter * self.weight_decay
            new_mean = mean + (gradient - mean) * (1.0 - self.betas[0])
            new_square = square * self.betas[1] + gradient.square() * (1.0 - self.betas[1])
            distance = new_mean / (new_square.sqrt() / root.astype(dtype) + self.eps)
            found += [(mean, new_mean), (square, new_square), (parameter, old - distance * size.astype(dtype))]
        return found


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101): p ← (1 − lr·weight_decay)·p first."""

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Parameter | tuple[str, Parameter]],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)
