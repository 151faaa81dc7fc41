"""Lazy tensors: evaluated together, compiled once, differentiated whenever, and never growing."""

import gc
import threading

import numpy as np
import pytest

import tgc
from tgc import nn, optim
from tgc.errors import DTypeError, UserError
from tgc.frontend.trace import Epoch, evaluate_pending, lazy_compilations


def test_what_is_live_is_computed_together_and_once() -> None:
    x = tgc.tensor([1.0, 2.0])
    before = lazy_compilations()
    a = x * 3 + 0.125
    b = a.exp()
    assert b.shape == (2,)
    assert lazy_compilations() == before
    b.numpy()
    assert a.is_concrete
    assert lazy_compilations() == before + 1


def test_a_graph_seen_before_is_not_compiled_again() -> None:
    def step(values: list[float]) -> float:
        x = tgc.tensor(values)
        return float(((x - 0.375) * x).sum())

    evaluate_pending()  # what an earlier test left would be one graph with the first step
    assert step([1.0, 2.0]) == 3.875
    before = lazy_compilations()
    assert step([2.0, 4.0]) == 17.75
    assert lazy_compilations() == before


def test_leaves_that_nothing_needs_do_not_make_another_graph() -> None:
    def step(*, distracted: bool) -> list[float]:
        if distracted:
            tgc.tensor([1.0, 2.0, 3.0]) * 2  # recorded, and never looked at
        return (tgc.tensor([1.0, 2.0]) * 0.1875).tolist()

    first = step(distracted=True)
    before = lazy_compilations()
    assert step(distracted=False) == step(distracted=True) == first
    assert lazy_compilations() == before


def training(*, look: bool) -> tuple[nn.Module, list[float]]:
    tgc.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.25), nn.Linear(6, 2))
    opt = optim.Adam(model.parameters(), lr=0.05)
    rng = np.random.default_rng(0)
    x, y = tgc.tensor(rng.normal(size=(8, 4)).astype(np.float32)), tgc.tensor(rng.integers(0, 2, 8))
    losses = []
    compiled = []
    for _ in range(5):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        if look:
            float(loss)
        loss.backward()
        opt.step()
        losses.append(float(loss))
        compiled.append(lazy_compilations())
    assert compiled[1:] == compiled[1:2] * 4
    return model, losses


def test_a_training_loop_compiles_in_its_first_step_only_and_learns() -> None:
    _, losses = training(look=False)
    assert losses[-1] < losses[0]


def test_looking_at_the_loss_before_backward_changes_nothing() -> None:
    (a, losses), (b, same) = training(look=False), training(look=True)
    assert losses == same
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(value, b.state_dict()[name])


def test_gradients_flow_through_values_that_were_looked_at() -> None:
    w = nn.Parameter([2.0, 3.0])
    x = w * w
    x.numpy()
    y = x * w + x.sum()
    y.numpy()
    (y.sum() + x.sum()).backward()
    # Σ w³ + 3·Σ w²
    assert w.grad is not None
    assert w.grad.tolist() == [3 * 4.0 + 6 * 2.0, 3 * 9.0 + 6 * 3.0]


def test_a_chain_of_values_that_were_looked_at_is_walked_once_each() -> None:
    w = nn.Parameter([1.0])
    a = b = w * 1.0
    for _ in range(30):
        a, b = a + b, a - b
        a.numpy()
    (a + b).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [2.0**15 * 2]


def test_gradients_accumulate_until_they_are_forgotten() -> None:
    w = nn.Parameter([1.0])
    (w * 2).sum().backward()
    (w * 3).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [5.0]


def test_backward_twice_must_be_announced() -> None:
    w = nn.Parameter([1.0])
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert w.grad is not None
    assert w.grad.tolist() == [4.0]
    with pytest.raises(UserError, match="second time"):
        loss.backward()


def test_a_changed_parameter_makes_the_old_loss_useless() -> None:
    w = nn.Parameter([1.0])
    loss = (w * w).sum()
    loss.numpy()
    w.assign(w * 2)
    with pytest.raises(UserError, match="changed between"):
        loss.backward()


def test_no_grad_and_detach_cut_the_graph() -> None:
    w = nn.Parameter([1.0])
    with tgc.no_grad():
        y = w * 2
    assert not y.requires_grad
    assert not (w * 2).detach().requires_grad
    (w * (w * 3).detach()).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [3.0]


def test_a_leaf_can_be_any_float_tensor() -> None:
    x = tgc.tensor([1.0, 2.0], requires_grad=True)
    (x[1] * x[0]).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 1.0]


def test_the_gradient_of_f64_matches_central_differences(rng: np.random.Generator) -> None:
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return ((x @ x.T).tanh().softmax(-1) * x.sum(1)).log_softmax(0)[1].sum()

    at = rng.normal(size=(3, 4))
    x = tgc.tensor(at, requires_grad=True)
    f(x).backward()
    step = np.finfo(np.float64).eps ** (1 / 3)
    plain = tgc.jit(f)
    for place in np.ndindex(*at.shape):
        moved = np.zeros_like(at)
        moved[place] = step
        numeric = (float(plain(tgc.tensor(at + moved))) - float(plain(tgc.tensor(at - moved)))) / (2 * step)
        # the difference quotient's own error is a small multiple of step², as third derivatives are moderate
        assert x.grad is not None
        assert abs(numeric - float(x.grad[place])) <= 1e3 * step**2


def test_memory_does_not_grow_over_steps() -> None:
    w = nn.Parameter(np.ones(4, np.float32))
    opt = optim.SGD([w], lr=0.1)

    def step() -> None:
        opt.zero_grad()
        (w * w).sum().backward()
        opt.step()

    for _ in range(3):
        step()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(20):
        step()
    gc.collect()
    assert len(gc.get_objects()) - before < 20


def test_state_that_is_assigned_soon_is_seen_at_once() -> None:
    norm = nn.BatchNorm1d(1, momentum=0.5)
    x = tgc.tensor([[1.0], [3.0]])
    norm(x)
    assert norm.running_mean is not None
    doubled = norm.running_mean * 2
    norm(x)
    assert doubled.tolist() == [2.0]
    assert norm.running_mean.tolist() == [1.5]
    assert norm.state_dict()["num_batches_tracked"] == 2


def test_a_loop_cannot_make_a_graph_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Epoch, "most", 64)
    x = tgc.tensor([1.0])
    for _ in range(300):
        x = x + 1.0
    before = lazy_compilations()
    assert x.tolist() == [301.0]
    # all but the end of it was computed before
    assert lazy_compilations() - before <= 1
    y = tgc.tensor([1.0])
    for _ in range(40):
        y = y * 1.0
    assert not y.is_concrete


def test_integers_have_no_gradients() -> None:
    for wrong in (lambda: nn.Parameter([1, 2]), lambda: tgc.tensor([1], requires_grad=True)):
        with pytest.raises(DTypeError, match="no gradient"):
            wrong()
    w = nn.Parameter([1.5])
    assert not w.astype(tgc.i32).requires_grad
    assert not (w > 1).requires_grad


def test_threads_have_graphs_of_their_own() -> None:
    results: dict[int, list[float]] = {}

    def work(number: int) -> None:
        x = tgc.tensor([float(number)])
        for _ in range(5):
            x = x * 2 + 1
        results[number] = x.tolist()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [n * 32.0 + 31.0] for n in range(4)}


@pytest.mark.parametrize("seed", range(5))
def test_wherever_one_looks_values_and_gradients_are_the_same(seed: int) -> None:
    def run(looks: np.random.Generator | None) -> tuple[float, list[float]]:
        choose = np.random.default_rng(seed)
        w = tgc.tensor(np.linspace(-1, 1, 4), requires_grad=True)
        values = [w, w * 2]
        for _ in range(12):
            a, b = (values[i] for i in choose.integers(0, len(values), 2))
            made = [a + b, a * b, a - b * 0.5, a.tanh(), (a * b).sum() * a][int(choose.integers(5))]
            values.append(made.tanh())
            if looks is not None and looks.random() < 0.4:
                values[int(looks.integers(len(values)))].numpy()
        loss = values[-1].sum() + values[-2].mean()
        if looks is not None:
            loss.numpy()
        loss.backward()
        assert w.grad is not None
        return float(loss), w.grad.tolist()

    value, gradient = run(None)
    for look in range(3):
        other, found = run(np.random.default_rng(look))
        # sums of derivatives may be taken in another order: f64 rounds by 2⁻⁵³ each time
        assert abs(other - value) <= 2.0**-40
        np.testing.assert_allclose(found, gradient, rtol=0, atol=2.0**-40 * max(1.0, *map(abs, gradient)))
