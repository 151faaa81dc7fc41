"""Optimisers against their papers' formulas, step by step in f64."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tgc
from tgc import nn, optim
from tgc.errors import UserError

Array = NDArray[np.float64]
START = np.array([1.0, -2.0, 0.5])
# the gradient of 2·w² − w
SLOPE, OFFSET = 4.0, -1.0


def sgd(steps: int, lr: float, *, momentum: float = 0.0, decay: float = 0.0, nesterov: bool = False) -> Array:
    w, b = START.copy(), np.zeros(3)
    for _ in range(steps):
        g = SLOPE * w + OFFSET + decay * w
        b = momentum * b + g
        w = w - lr * (g + momentum * b if nesterov else b)
    return w


def adam(steps: int, lr: float, *, decay: float = 0.0, decoupled: bool = False) -> Array:
    w, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for t in range(1, steps + 1):
        g = SLOPE * w + OFFSET
        if decoupled:
            w = w * (1 - lr * decay)
        else:
            g = g + decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


CASES: dict[str, tuple[Callable[[Any], optim.Optimizer], Callable[[int], Array]]] = {
    "sgd": (lambda p: optim.SGD(p, lr=0.1), lambda n: sgd(n, 0.1)),
    "momentum": (
        lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
        lambda n: sgd(n, 0.05, momentum=0.9, decay=0.01),
    ),
    "nesterov": (
        lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        lambda n: sgd(n, 0.05, momentum=0.9, nesterov=True),
    ),
    "adam": (lambda p: optim.Adam(p, lr=0.1), lambda n: adam(n, 0.1)),
    "adam-decay": (lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1), lambda n: adam(n, 0.1, decay=0.1)),
    "adamw": (lambda p: optim.AdamW(p, lr=0.1), lambda n: adam(n, 0.1, decay=0.01, decoupled=True)),
}
STEPS = 8


def train(make: Callable[[Any], optim.Optimizer], *, compiled: bool) -> tuple[nn.Parameter, optim.Optimizer]:
    w = nn.Parameter(START.astype(np.float32))
    opt = make([("w", w)])

    def step() -> None:
        opt.zero_grad()
        (w * w * 2 - w).sum().backward()
        opt.step()

    run = tgc.jit(step) if compiled else step
    for _ in range(STEPS):
        run()
    return w, opt


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_steps_follow_the_formula(name: str, compiled: bool) -> None:
    make, formula = CASES[name]
    w, _ = train(make, compiled=compiled)
    # each step rounds some ten times, and the recurrences do not amplify errors more than the gradient's slope
    bound = STEPS * 10 * (1 + SLOPE) * 2.0**-24 * np.abs(START).max()
    assert np.max(np.abs(w.numpy() - formula(STEPS))) <= bound


def test_the_learning_rate_is_state() -> None:
    w = nn.Parameter([1.0])
    opt = optim.SGD([w], lr=0.5)

    @tgc.jit
    def step() -> None:
        opt.zero_grad()
        (w * 2.0).sum().backward()
        opt.step()

    step()
    assert w.tolist() == [0.0]
    opt.lr = 0.25
    step()
    assert w.tolist() == [-0.5]
    assert float(opt.lr) == 0.25
    assert len(step.specialisations) == 1


def test_other_hyperparameters_are_compiled_in_and_looked_at() -> None:
    w = nn.Parameter([1.0])
    opt = optim.SGD([w], lr=0.5, momentum=0.5)

    @tgc.jit
    def step() -> None:
        opt.zero_grad()
        (w * 2.0).sum().backward()
        opt.step()

    step()
    opt.momentum = 0.0
    step()
    assert w.tolist() == [-1.0]
    assert step.specialisations[0][1] == "SGD: momentum changed"


def test_state_is_named_after_the_parameters_and_travels() -> None:
    make, _ = CASES["adam"]
    w, opt = train(make, compiled=True)
    assert sorted(opt.state_dict()) == ["lr", "step", "w.exp_avg", "w.exp_avg_sq"]
    other = make([("w", nn.Parameter(w.numpy()))])
    other.load_state_dict(opt.state_dict())
    assert {k: v.tolist() for k, v in other.state_dict().items()} == {
        k: v.tolist() for k, v in opt.state_dict().items()
    }
    with pytest.raises(UserError, match="does not fit"):
        other.load_state_dict({"lr": 1.0})


def test_a_copy_goes_on_by_itself() -> None:
    w, opt = train(CASES["momentum"][0], compiled=False)
    other_opt, other = copy.deepcopy((opt, w))
    assert other_opt.parameters[0] is other
    other.grad = tgc.tensor([1.0, 1.0, 1.0])
    before = w.tolist()
    other_opt.step()
    assert w.tolist() == before != other.tolist()


def test_a_parameter_without_a_gradient_stays() -> None:
    used, unused = nn.Parameter([1.0]), nn.Parameter([1.0])
    opt = optim.Adam([used, unused], lr=0.1)
    (used * used).sum().backward()
    opt.step()
    assert used.tolist() != [1.0]
    assert unused.tolist() == [1.0]


def test_clipping_scales_all_gradients_together() -> None:
    a, b = nn.Parameter([3.0]), nn.Parameter([[4.0]])
    (a.square().sum() / 2 + b.square().sum() / 2).backward()
    assert float(optim.clip_grad_norm_([a, b], 10.0)) == 5.0
    assert a.grad is not None
    assert a.grad.tolist() == [3.0]
    optim.clip_grad_norm_([a, b], 2.5)
    assert b.grad is not None
    # factor 2.5 / (5 + 1e-6): one rounding each for sum, quotient and product
    assert abs(b.grad.item() - 4 * 2.5 / (5 + 1e-6)) <= 3 * 2.0**-24 * 4


def test_steps_with_gradients_from_outside_are_refused() -> None:
    w = nn.Parameter([1.0])
    opt = optim.SGD([w], lr=0.1)
    (w * w).sum().backward()
    with pytest.raises(UserError, match="gradients from outside"):
        tgc.jit(opt.step)()
    with pytest.raises(UserError, match="needs parameters"):
        optim.SGD([], lr=0.1)
