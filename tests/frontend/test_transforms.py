"""Derivatives, batching and checkpoints of functions: they are right, and they compose."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tgc
from tgc import nn, optim
from tgc.errors import DTypeError, ShapeError, TraceError, UserError


def run_plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


MODES = pytest.mark.parametrize("mode", [run_plain, tgc.jit], ids=["lazy", "jit"])


def same(found: Any, expected: Any, *, ulps: int = 64) -> None:
    """Equal up to the roundings of a chain of some tens of operations."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    if found.dtype.kind == "f":
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=ulps * np.finfo(found.dtype).eps * scale)
    else:
        np.testing.assert_array_equal(found, expected)


def f64(values: Any) -> tgc.Tensor:
    return tgc.tensor(np.asarray(values, np.float64))


# -- reverse mode ------------------------------------------------------------------------------------------------


@MODES
def test_grad_gives_the_derivative(mode: Callable[..., Any], rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4))
    same(mode(tgc.grad(lambda x: (x.sin() * x).sum()))(f64(x)), np.sin(x) + x * np.cos(x))


@MODES
def test_grad_follows_argnums_and_trees(mode: Callable[..., Any]) -> None:
    def loss(p: dict[str, Any], scale: tgc.Tensor, c: float) -> tgc.Tensor:
        return (p["w"] * p["b"][0] * scale * c).sum()

    p = {"w": f64([1, 2]), "b": (f64(3),)}
    gradient = mode(tgc.grad(loss))(p, f64(5), 2.0)
    same(gradient["w"], [30, 30])
    same(gradient["b"][0], 30)
    parts, scale = mode(tgc.grad(loss, argnums=(0, 1)))(p, f64(5), 2.0)
    same(parts["w"], [30, 30])
    same(scale, 18)


def test_value_and_grad_hands_on_what_is_not_differentiated() -> None:
    def loss(x: tgc.Tensor) -> tuple[tgc.Tensor, dict[str, Any]]:
        return (x * x).sum(), {"doubled": x * 2, "name": "loss"}

    (value, aux), gradient = tgc.value_and_grad(loss, has_aux=True)(f64([1, 2]))
    same(value, 5)
    same(aux["doubled"], [2, 4])
    assert aux["name"] == "loss"
    same(gradient, [2, 4])
    gradient, aux = tgc.grad(loss, has_aux=True)(f64([1, 2]))
    same(gradient, [2, 4])
    same(aux["doubled"], [2, 4])


def test_what_is_captured_is_constant() -> None:
    x = f64([1, 2])
    # the body computes the very values that its argument and the captured tensor were computed from
    y = x * 3
    same(tgc.grad(lambda a: (a * y).sum())(x * 3), [3, 6])
    same(tgc.grad(lambda a: ((x * 3) * a).sum())(y), [3, 6])


def test_what_does_not_matter_has_zeros_for_a_gradient() -> None:
    same(tgc.grad(lambda a, b: a.sum(), argnums=1)(f64([1]), f64([1, 2])), [0, 0])


def test_numbers_and_arrays_are_arguments_too() -> None:
    same(tgc.grad(lambda x: x * x)(3.0), np.float32(6))
    same(tgc.grad(lambda x: (x * x).sum())(np.array([1.0, 2.0])), [2, 4])


@MODES
def test_gradients_of_gradients(mode: Callable[..., Any]) -> None:
    third = tgc.grad(tgc.grad(tgc.grad(lambda x: x * x * x * x)))
    same(mode(third)(f64(2)), 48)


def test_inner_and_outer_derivatives_are_not_confused() -> None:
    # d/dx (x · d/dy (x + y)) = 1, the test of Siskind & Pearlmutter (2005)
    same(tgc.grad(lambda x: x * tgc.grad(lambda y: x + y)(f64(1)))(f64(1)), 1)
    same(tgc.jvp(lambda x: x * tgc.jvp(lambda y: x + y, (f64(1),), (f64(1),))[1], (f64(1),), (f64(1),))[1], 1)


def test_gradients_flow_to_parameters_outside() -> None:
    w = nn.Parameter(np.array([2.0, 3.0]))
    (tgc.grad(lambda x: (x * x * w).sum())(f64([1, 5])) * f64([1, 1])).sum().backward()
    assert w.grad is not None
    same(w.grad, [2, 10])


@MODES
def test_vjp_gives_a_pullback(mode: Callable[..., Any], rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 3)), rng.normal(size=(3, 4))

    def both(a: tgc.Tensor, b: tgc.Tensor, c: tgc.Tensor) -> Any:
        (product, total), pullback = tgc.vjp(lambda a, b: (a @ b, {"sum": a.sum()}), a, b)
        return product, total["sum"], pullback((c, {"sum": 2.0}))

    c = rng.normal(size=(2, 4))
    product, total, (da, db) = mode(both)(f64(a), f64(b), f64(c))
    same(product, a @ b)
    same(total, a.sum())
    same(da, c @ b.T + 2)
    same(db, a.T @ c)


def test_a_pullback_can_be_called_later_and_again() -> None:
    x = f64([1, 2]) + 1
    y, pullback = tgc.vjp(lambda x: x * x, x)
    same(y, [4, 9])
    same(pullback(f64([1, 1]))[0], [4, 6])
    same(pullback(f64([10, 1]))[0], [40, 6])
    same(tgc.vmap(pullback)(f64([[1, 0], [0, 1]]))[0], [[4, 0], [0, 6]])


def test_a_pullback_notices_that_state_changed() -> None:
    w = nn.Parameter(np.array([2.0]))
    y, pullback = tgc.vjp(lambda x: (x * w).square(), f64([1]))
    y.numpy()
    w.assign(f64([3]))
    with pytest.raises(UserError, match="state was changed between vjp"):
        pullback(f64([1]))


# -- forward mode ------------------------------------------------------------------------------------------------


@MODES
def test_jvp_gives_the_directional_derivative(mode: Callable[..., Any]) -> None:
    def both(x: tgc.Tensor, v: tgc.Tensor) -> Any:
        return tgc.jvp(lambda p: (p["x"].exp() * p["n"], p["n"]), ({"x": x, "n": 2},), ({"x": v, "n": 0},))

    (y, n), (dy, dn) = mode(both)(f64([0, 1]), f64([1, 10]))
    same(y, 2 * np.exp([0.0, 1.0]))
    same(dy, 2 * np.exp([0.0, 1.0]) * [1, 10])
    assert int(n) == 2
    assert int(dn) == 0


def test_forward_over_reverse_gives_the_hessian() -> None:
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return (x * x * x).sum()

    x = f64([1, 2])
    rows = tgc.vmap(lambda v: tgc.jvp(tgc.grad(f), (x,), (v,))[1])(f64(np.eye(2)))
    same(rows, np.diag([6.0, 12.0]))


# -- batching ----------------------------------------------------------------------------------------------------


@MODES
def test_vmap_takes_axes_and_trees(mode: Callable[..., Any], rng: np.random.Generator) -> None:
    a, b, c = rng.normal(size=(3, 5)), rng.normal(size=(5, 4)), rng.normal(size=(4,))

    def one(p: dict[str, Any], c: tgc.Tensor, scale: float) -> Any:
        return (p["a"].sum() * c * scale, p["b"])

    mapped = tgc.vmap(one, in_axes=({"a": 1, "b": 0}, None, None), out_axes=(1, 0))
    first, second = mode(mapped)({"a": f64(a), "b": f64(b)}, f64(c), 2.0)
    same(first, np.outer(c, a.sum(0)) * 2)
    same(second, b)


def test_vmap_of_grad_gives_gradients_of_each_example(rng: np.random.Generator) -> None:
    w, x = rng.normal(size=4), rng.normal(size=(6, 4))
    each = tgc.vmap(tgc.grad(lambda w, x: (w * x).sum().sin()), in_axes=(None, 0))
    same(each(f64(w), f64(x)), np.cos(x @ w)[:, None] * x)


def test_vmap_nests_and_has_gradients(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    table = tgc.vmap(lambda x: tgc.vmap(lambda y: (x * y).sum())(f64(b)))
    same(table(f64(a)), a @ b.T)
    same(tgc.grad(lambda a: table(a).sum())(f64(a)), np.broadcast_to(b.sum(0), (3, 2)))


def test_vmap_gives_what_all_examples_share_once() -> None:
    shared = f64([1, 2])
    first, second = tgc.vmap(lambda x: (x + 1, shared * 2), out_axes=(0, None))(f64([1, 2, 3]))
    same(first, [2, 3, 4])
    same(second, [2, 4])
    with pytest.raises(TraceError, match="out_axes is None"):
        tgc.vmap(lambda x: x, out_axes=None)(f64([1, 2]))


def test_a_second_batch_size_runs_the_same_code(rng: np.random.Generator) -> None:
    f = tgc.jit(tgc.vmap(tgc.grad(lambda x: (x * x).sum())), "f64[n, 3]")
    for n in (1, 2, 7):
        x = rng.normal(size=(n, 3))
        same(f(f64(x)), 2 * x)
    assert len(f.specialisations) == 1


# -- checkpoints -------------------------------------------------------------------------------------------------


@MODES
def test_checkpoint_keeps_values_and_gradients(mode: Callable[..., Any], rng: np.random.Generator) -> None:
    w = nn.Parameter(rng.normal(size=3))

    def f(x: tgc.Tensor) -> tgc.Tensor:
        return ((x * w).sin().exp() * w).sum()

    x = f64(rng.normal(size=3))
    same(mode(tgc.checkpoint(f))(x), f(x))
    same(mode(tgc.grad(tgc.checkpoint(f)))(x), tgc.grad(f)(x))
    tgc.checkpoint(f)(x).backward()
    found, w.grad = w.grad, None
    f(x).backward()
    assert found is not None
    assert w.grad is not None
    same(found, w.grad)


# -- state, random numbers, detached values ----------------------------------------------------------------------


@MODES
def test_state_may_be_assigned_while_differentiating(mode: Callable[..., Any]) -> None:
    seen = tgc.Variable(np.zeros(2))

    def loss(x: tgc.Tensor) -> tgc.Tensor:
        seen.assign(x * 2)
        return (x * seen).sum()

    same(mode(tgc.grad(loss))(f64([1, 2])), [4, 8])
    same(seen, [2, 4])
    same(mode(tgc.grad(tgc.checkpoint(loss)))(f64([3, 4])), [12, 16])
    same(seen, [6, 8])


def test_state_that_differs_between_examples_is_refused() -> None:
    seen = tgc.Variable(np.zeros(()))

    def one(x: tgc.Tensor) -> tgc.Tensor:
        seen.assign(x)
        return x

    with pytest.raises(TraceError, match="another one for every example"):
        tgc.vmap(one)(f64([1, 2]))


@MODES
def test_random_numbers_inside_go_on_with_the_stream(mode: Callable[..., Any]) -> None:
    def loss(x: tgc.Tensor) -> tgc.Tensor:
        return (x * tgc.random.uniform(4)).sum()

    tgc.manual_seed(3)
    expected = tgc.random.uniform(8).numpy()
    tgc.manual_seed(3)
    gradient = mode(tgc.grad(loss))
    x = tgc.tensor(np.ones(4, np.float32))
    first, second = gradient(x).numpy(), gradient(x).numpy()
    np.testing.assert_array_equal(np.concatenate([first, second]), expected)


def test_detached_values_are_constant() -> None:
    same(tgc.grad(lambda x: (x * x.detach()).sum())(f64([1, 2])), [1, 2])
    w = nn.Parameter(np.array([3.0]))
    (w * w.detach()).sum().backward()
    assert w.grad is not None
    same(w.grad, [3])


@MODES
def test_no_grad_inside_makes_constants_and_outside_does_not(mode: Callable[..., Any]) -> None:
    def loss(x: tgc.Tensor) -> tgc.Tensor:
        with tgc.no_grad():
            y = x * 2
        return (x * y).sum()

    def plain(x: tgc.Tensor) -> tgc.Tensor:
        with tgc.no_grad():
            return tgc.grad(lambda x: (x * x).sum())(x)

    same(mode(tgc.grad(loss))(f64([1, 2])), [2, 4])
    same(mode(plain)(f64([1, 2])), [2, 4])
    w = nn.Parameter(np.array([3.0]))
    with tgc.no_grad():
        y = w * 2
        assert not tgc.grad(lambda x: (x * w).sum())(f64([1])).requires_grad
    (w * y).sum().backward()
    assert w.grad is not None
    same(w.grad, [6])


def test_results_require_gradients_only_if_something_outside_does() -> None:
    assert not tgc.grad(lambda x: (x * x).sum())(f64([1])).requires_grad
    assert tgc.grad(lambda x: (x * x).sum())(tgc.tensor([1.0], requires_grad=True)).requires_grad
    value, pullback = tgc.vjp(lambda x: x * x, f64([1]))
    assert not value.requires_grad
    assert not pullback(f64([1]))[0].requires_grad


@MODES
def test_updated_parameters_are_leaves_of_the_next_step(mode: Callable[..., Any]) -> None:
    w = nn.Parameter(np.array([1.0, 2.0]))
    optimizer = optim.SGD([w], lr=0.125)

    def steps() -> Any:
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = (w * w * w).sum()
            loss.backward()
            optimizer.step()
            losses.append(loss)
        return tgc.stack(losses)

    expected, values = np.array([1.0, 2.0]), []
    for _ in range(3):
        values.append((expected**3).sum())
        expected = expected - 0.125 * 3 * expected**2
    same(mode(steps)(), values)
    same(w, expected)


def test_compiled_functions_can_be_transformed() -> None:
    f = tgc.jit(lambda x: (x * x).sum())
    same(tgc.grad(f)(f64([1, 2])), [2, 4])
    same(tgc.vmap(f)(f64([[1, 2], [3, 4]])), [5, 25])


# -- mistakes ----------------------------------------------------------------------------------------------------


def test_mistakes_are_named() -> None:
    with pytest.raises(ShapeError, match=r"gave f64\[2\], not a tensor of rank 0"):
        tgc.grad(lambda x: x)(f64([1, 2]))
    with pytest.raises(DTypeError, match=r"gradient with respect to i64\[2\]"):
        tgc.grad(lambda x: x.sum())(tgc.tensor([1, 2]))
    with pytest.raises(DTypeError, match="not a float"):
        tgc.grad(lambda x: x.argmax())(f64([1, 2]))
    with pytest.raises(UserError, match="gave a tuple"):
        tgc.grad(lambda x: (x.sum(), x))(f64([1, 2]))
    with pytest.raises(UserError, match="argnums=2"):
        tgc.grad(lambda x: x.sum(), argnums=2)(f64([1]))
    with pytest.raises(ShapeError, match=r"2 examples .* and 3"):
        tgc.vmap(lambda a, b: a + b)(f64([1, 2]), f64([1, 2, 3]))
    with pytest.raises(ShapeError, match="rank 0"):
        tgc.vmap(lambda a: a)(1.0)
    with pytest.raises(ShapeError, match=r"a tangent f64\[1\] for a value f64\[2\]"):
        tgc.jvp(lambda x: x, (f64([1, 2]),), (f64([1]),))
    with pytest.raises(TraceError, match=r"backward\(\) inside"):
        tgc.grad(lambda x: ((x * 2).backward(), x)[1])(tgc.tensor(1.0, requires_grad=True))


def test_values_inside_are_not_known() -> None:
    with pytest.raises(TraceError, match="asked for while its function is being recorded"):
        tgc.grad(lambda x: x * float(x))(f64(1))
    with pytest.raises(TraceError):
        tgc.grad(lambda x: x if x > 0 else -x)(f64(1))
    kept: list[tgc.Tensor] = []
    tgc.grad(lambda x: (kept.append(x * 2), x)[1])(f64(1))
    with pytest.raises(TraceError, match="ended with it"):
        kept[0].numpy()


def test_looking_at_outside_values_inside_is_harmless() -> None:
    outside = f64([1, 2]) * 3

    def loss(x: tgc.Tensor) -> tgc.Tensor:
        y = x * outside
        assert outside.tolist() == [3, 6]
        return (y * outside).sum()

    same(tgc.grad(loss)(f64([1, 1]) + 1), [9, 36])
