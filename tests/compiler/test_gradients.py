"""Derivatives of whole models, compiled, against differences of their losses in f64."""

from collections.abc import Sequence

import numpy as np
import pytest

import tgc
from tests.compiler.models import SUBJECTS, Array, fresh, widen
from tgc.frontend.export import module_of
from tgc.nn import functional
from tgc.reference import run_with_bounds

# models with kinks need steps so short that none is crossed; the others are better off with less rounding
STEPS = {"mlp": 2.0**-16, "cnn": 2.0**-16, "lstm": 2.0**-8, "transformer": 2.0**-8}


@pytest.mark.parametrize(("name", "step"), STEPS.items())
def test_gradients_are_the_slopes_of_the_loss(name: str, step: float) -> None:
    """Along random directions. D(h) is a central difference: it errs by c·h² and by the rounding of the loss, so that

    (4·D(h/2) − D(h)) / 3 errs by O(h⁴), far less than D(h) − D(h/2), and by that rounding.
    """
    model = widen(fresh(name).model)
    parameters = model.parameters()

    def loss_of(x: tgc.Tensor, y: tgc.Tensor) -> tgc.Tensor:
        return functional.cross_entropy(model(x), y)

    def gradients(x: tgc.Tensor, y: tgc.Tensor) -> list[tgc.Tensor]:
        model.zero_grad()
        loss_of(x, y).backward()
        return [p.grad for p in parameters]

    x, y = SUBJECTS[name].batch(4)
    inputs = [x.astype(np.float64), y]
    slopes = [g.numpy() for g in tgc.jit(gradients)(*inputs)]
    compiled_loss = tgc.jit(loss_of)
    module = module_of([tgc.export(SUBJECTS[name].spec.replace("f32", "f64"), "i64[batch]")(loss_of)], "net")
    state = {k: s.initial.data for k, s in module.state.items() if s.initial is not None}
    ((_, error),), _ = run_with_bounds(module.functions[0], inputs, state=state, constants=module.constants)
    start = [p.numpy().copy() for p in parameters]
    rng = np.random.default_rng(0)

    def loss_at(direction: Sequence[Array], distance: float) -> float:
        for p, origin, d in zip(parameters, start, direction, strict=True):
            p.replace(origin + distance * d)
        return float(compiled_loss(*inputs))

    def difference(direction: Sequence[Array], h: float) -> float:
        return (loss_at(direction, h) - loss_at(direction, -h)) / (2 * h)

    for _ in range(3):
        direction = [rng.standard_normal(p.shape) / np.sqrt(p.size) for p in start]
        whole, half = difference(direction, step), difference(direction, step / 2)
        slope = sum(float(np.sum(g * d)) for g, d in zip(slopes, direction, strict=True))
        tolerance = abs(whole - half) + 4 * float(error) / step
        assert tolerance < 1e-3 * abs(slope)  # else this would prove nothing
        assert abs(slope - (4 * half - whole) / 3) <= tolerance
