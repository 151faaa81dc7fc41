"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tgc.errors import UserError
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.nn.module import Parameter
from tgc.optim.optimizer import Optimizer, Update


class SGD(Optimizer):
    """p ← p − lr·g, with Polyak's or (``nesterov``) Nesterov's momentum b ← momentum·b + g (Sutskever et al., 2013).

    ``weight_decay``·p is added to g. As ``torch.optim.SGD``.

    >>> import tgc
    >>> w = tgc.nn.Parameter([1.0])
    >>> opt = SGD([w], lr=0.5)
    >>> (w * 3.0).sum().backward()
    >>> opt.step()
    >>> w.numpy()
    array([-0.5], dtype=float32)
    """

    def __init__(
        self,
        parameters: Iterable[Parameter | tuple[str, Parameter]],
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        if nesterov and not momentum:
            raise UserError("Nesterov's momentum needs momentum > 0", location=here())
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        if momentum:
            self.slots("momentum")

    def updates(self, gradients: Sequence[Tensor | None]) -> list[Update]:
        """New parameters and momenta."""
        found: list[Update] = []
        for i, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            if gradient is None:
                continue
            step = gradient + parameter * self.weight_decay if self.weight_decay else gradient
            if self.momentum:
                buffer = self.slots("momentum")[i]
                after = buffer * self.momentum + step
                found.append((buffer, after))
                step = step + after * self.momentum if self.nesterov else after
            found.append((parameter, parameter - step * self.lr.astype(parameter.dtype)))
        return found
