"""Training in f32 follows training in f64."""

import numpy as np
from sklearn.datasets import load_digits

import tgc
from tests.compiler.models import Array, fresh, widen
from tgc import optim
from tgc.nn import functional

STEPS, BATCH = 100, 16
# A rounding that turns a relu or the maximum of a window moves some weights by a whole step of Adam's: until the first
# such turn both runs agree to 1e-5.
LOSS, PATH = 1e-3, 1e-2


def trained(dtype: type[np.floating]) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """The losses, and the weights before and after, on real digits."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 1, 8, 8).astype(dtype)
    model = fresh("cnn").model
    if dtype is np.float64:
        widen(model)
    before = model.state_dict()
    optimiser = optim.Adam(model.parameters(), lr=1e-3)

    @tgc.jit
    def step(x: tgc.Tensor, y: tgc.Tensor) -> tgc.Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        return loss

    parts = [slice(i * BATCH, (i + 1) * BATCH) for i in range(STEPS)]
    losses = np.array([float(step(images[part], labels[part])) for part in parts])
    return losses, before, model.state_dict()


def test_a_hundred_steps_in_f32_stay_near_those_in_f64() -> None:
    (narrow, _, found), (wide, before, expected) = trained(np.float32), trained(np.float64)
    assert wide[-1] < wide[0] / 2
    np.testing.assert_allclose(narrow, wide, rtol=LOSS)
    away = sum(float(np.sum((found[k] - expected[k]) ** 2)) for k in expected)
    moved = sum(float(np.sum((expected[k] - before[k]) ** 2)) for k in expected)
    assert np.sqrt(away / moved) < PATH
