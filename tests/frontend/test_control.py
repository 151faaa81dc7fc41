"""cond, while_loop, scan and fori_loop: values, derivatives, captures and state."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tgc
from tgc import nn
from tgc.errors import DTypeError, ShapeError, TraceError, UnsupportedError, UserError


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


# -- cond --------------------------------------------------------------------------------------------------------


@MODES
def test_cond_computes_one_of_two(mode: Callable[..., Any]) -> None:
    def f(x: tgc.Tensor, y: tgc.Tensor) -> Any:
        return tgc.cond(
            x.sum() > 0, lambda p: {"a": p["x"] * 2, "b": 0}, lambda p: {"a": -y, "b": p["x"].sum()}, {"x": x}
        )

    found = mode(f)
    first, second = found(f64([1, 2]), f64([5, 6])), found(f64([-1, -2]), f64([5, 6]))
    same(first["a"], [2, 4])
    same(first["b"], 0.0)
    same(second["a"], [-5, -6])
    same(second["b"], -3.0)


@MODES
def test_cond_has_gradients_also_for_what_it_captures(mode: Callable[..., Any]) -> None:
    def loss(x: tgc.Tensor, w: tgc.Tensor) -> tgc.Tensor:
        return tgc.cond(x.sum() > 0, lambda x: (x * w).sum(), lambda x: (x * x * x).sum(), x)

    gradient = mode(tgc.grad(loss, argnums=(0, 1)))
    dx, dw = gradient(f64([1, 2]), f64([3, 4]))
    same(dx, [3, 4])
    same(dw, [1, 2])
    dx, dw = gradient(f64([-1, -2]), f64([3, 4]))
    same(dx, [3, 12])
    same(dw, [0, 0])


def test_a_python_bool_chooses_at_once() -> None:
    assert tgc.cond(True, lambda x: x, lambda x: 1 / 0, "anything") == "anything"


def test_vmap_of_cond_chooses_for_each_example() -> None:
    f = tgc.vmap(lambda x: tgc.cond(x > 0, lambda x: x * 2, lambda x: -x, x))
    same(f(f64([1, -3, 2])), [2, 3, 4])


# -- while_loop --------------------------------------------------------------------------------------------------


@MODES
def test_while_loop_runs_as_often_as_it_must(mode: Callable[..., Any]) -> None:
    def f(x: tgc.Tensor, limit: tgc.Tensor) -> Any:
        return tgc.while_loop(lambda s: s[1].sum() < limit, lambda s: (s[0] + 1, s[1] * x), (0, x))

    steps, value = mode(f)(f64([2, 3]), f64(100))
    assert int(steps) == 4
    same(value, [32, 243])
    steps, value = mode(f)(f64([2, 3]), f64(1))
    assert int(steps) == 0
    same(value, [2, 3])


def test_while_loop_has_a_forward_derivative() -> None:
    def power(x: tgc.Tensor) -> tgc.Tensor:
        return tgc.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x))[1]

    value, slope = tgc.jvp(power, (f64(2),), (f64(1),))
    same(value, 16)
    same(slope, 32)
    with pytest.raises(UnsupportedError, match="while_loop has no reverse-mode derivative"):
        tgc.grad(power)(f64(2))


@MODES
def test_a_bounded_while_loop_has_a_gradient(mode: Callable[..., Any]) -> None:
    def power(x: tgc.Tensor) -> tgc.Tensor:
        return tgc.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x), max_steps=5)[1]

    same(mode(power)(f64(2)), 16)
    same(mode(tgc.grad(power))(f64(2)), 32)
    same(tgc.while_loop(lambda n: n < 100, lambda n: n * 2, 1, max_steps=3), 8)


def test_vmap_of_while_loop_stops_each_example_on_its_own() -> None:
    doubled = tgc.vmap(lambda x: tgc.while_loop(lambda x: x < 10, lambda x: x * 2, x))
    same(doubled(f64([1, 3, 20])), [16, 12, 20])


# -- scan --------------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_stacks_what_each_step_gives(mode: Callable[..., Any], reverse: bool, rng: np.random.Generator) -> None:
    xs, w = rng.normal(size=(5, 3)), rng.normal(size=3)

    def f(xs: tgc.Tensor, w: tgc.Tensor) -> Any:
        def step(carry: dict[str, Any], x: dict[str, Any]) -> Any:
            h = carry["h"] * w + x["x"]
            return {"h": h, "n": carry["n"] + 1}, (h, carry["n"], 1)

        return tgc.scan(step, {"h": f64(np.zeros(3)), "n": 0}, {"x": xs}, reverse=reverse)

    final, (stacked, numbers, ones) = mode(f)(f64(xs), f64(w))
    h, expected = np.zeros(3), []
    for x in xs[::-1] if reverse else xs:
        h = h * w + x
        expected.append(h)
    same(final["h"], h)
    assert int(final["n"]) == 5
    same(stacked, expected[::-1] if reverse else expected)
    same(numbers, np.arange(5)[::-1] if reverse else np.arange(5))
    same(ones, np.ones(5, np.int64))


@MODES
def test_scan_has_gradients(mode: Callable[..., Any], rng: np.random.Generator) -> None:
    xs, w = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))

    def loop(w: tgc.Tensor, xs: tgc.Tensor) -> tgc.Tensor:
        def step(h: tgc.Tensor, x: tgc.Tensor) -> Any:
            h = ((h + x) @ w).tanh()
            return h, h.sum()

        final, sums = tgc.scan(step, f64(np.zeros(3)), xs)
        return final.sum() + sums.sum()

    def unrolled(w: tgc.Tensor, xs: tgc.Tensor) -> tgc.Tensor:
        h, total = f64(np.zeros(3)), f64(0)
        for i in range(4):
            h = ((h + xs[i]) @ w).tanh()
            total = total + h.sum()
        return total + h.sum()

    found = mode(tgc.grad(loop, argnums=(0, 1)))(f64(w), f64(xs))
    for have, want in zip(found, tgc.grad(unrolled, argnums=(0, 1))(f64(w), f64(xs)), strict=True):
        same(have, want.numpy())


def test_scan_trains_parameters_that_it_captures() -> None:
    w = nn.Parameter(np.array([0.5, 2.0]))
    final, _ = tgc.scan(lambda c, x: (c * w + x, None), f64([1, 1]), f64([[1, 1], [2, 2]]))
    final.sum().backward()
    assert w.grad is not None
    same(w.grad, 2 * np.array([0.5, 2.0]) + 1)


def test_scan_counts_without_sequences_and_takes_none() -> None:
    final, nothing = tgc.scan(lambda c, x: (c * 2, x), 1, None, length=10)
    same(final, 1024)
    assert nothing is None
    same(tgc.scan(lambda c, x: (c, x + 1), None, f64([1, 2]))[1], [2, 3])
    empty, ys = tgc.scan(lambda c, x: (c + x, c), 1.0, tgc.tensor(np.zeros(0, np.float32)))
    same(empty, np.float32(1))
    assert ys.shape == (0,)


def test_scan_runs_over_any_length() -> None:
    sums = tgc.jit(lambda xs: tgc.scan(lambda c, x: (c + x, c + x), 0.0, xs)[1], "f32[n]")
    for n in (1, 3, 8):
        same(sums(tgc.tensor(np.ones(n, np.float32))), np.arange(1, n + 1, dtype=np.float32))


def test_control_flow_nests() -> None:
    def step(c: tgc.Tensor, x: tgc.Tensor) -> Any:
        grown = tgc.while_loop(lambda c: c < x, lambda c: c * 2, c)
        return tgc.cond(grown > 5, lambda: grown - x, lambda: grown + c), grown

    final, ys = tgc.scan(step, f64(1), f64([3, 4, 11]))
    same(ys, [4, 5, 20])
    same(final, 9)


def test_vmap_of_scan_and_scan_of_vmap(rng: np.random.Generator) -> None:
    xs = rng.normal(size=(3, 4))
    cumulative = tgc.vmap(lambda row: tgc.scan(lambda c, x: (c + x, c + x), f64(0), row)[1])
    same(cumulative(f64(xs)), xs.cumsum(1))
    steps = tgc.scan(lambda c, row: (tgc.vmap(lambda a, b: a + b)(c, row), c), f64(np.zeros(4)), f64(xs))
    same(steps[0], xs.sum(0))


# -- fori_loop ---------------------------------------------------------------------------------------------------


@MODES
def test_fori_loop_counts(mode: Callable[..., Any]) -> None:
    same(mode(lambda x: tgc.fori_loop(2, 5, lambda i, c: c * x + i, x))(f64(2)), ((2 * 2 + 2) * 2 + 3) * 2 + 4)
    same(mode(lambda n: tgc.fori_loop(0, n, lambda i, c: c + i, 0))(tgc.tensor(5)), 10)
    same(tgc.grad(lambda x: tgc.fori_loop(0, 3, lambda i, c: c * x, x))(f64(2)), 32)


# -- state -------------------------------------------------------------------------------------------------------


@MODES
def test_state_is_carried_through_loops(mode: Callable[..., Any]) -> None:
    count = tgc.Variable(np.zeros((), np.int64))

    def f(xs: tgc.Tensor) -> Any:
        def step(c: tgc.Tensor, x: tgc.Tensor) -> Any:
            count.assign(count + 2)
            return c + x, count * 1

        return tgc.scan(step, f64(0), xs)

    same(mode(f)(f64([1, 2, 3]))[1], [2, 4, 6])
    assert int(count) == 6


@MODES
def test_a_branch_may_assign_state(mode: Callable[..., Any]) -> None:
    state = tgc.Variable(np.ones(2))

    def f(x: tgc.Tensor) -> tgc.Tensor:
        def reset() -> tgc.Tensor:
            state.assign(x)
            return state * 2

        return tgc.cond(x.sum() > 0, reset, lambda: state * 3)

    same(mode(f)(f64([-1, 0])), [3, 3])
    same(state, [1, 1])
    same(mode(f)(f64([2, 3])), [4, 6])
    same(state, [2, 3])


@MODES
def test_random_numbers_differ_between_iterations(mode: Callable[..., Any]) -> None:
    def f(x: tgc.Tensor) -> Any:
        return tgc.scan(lambda c, _: (c, tgc.random.uniform(2)), x, None, length=3)[1]

    tgc.manual_seed(5)
    expected = tgc.random.uniform(6).numpy()
    tgc.manual_seed(5)
    np.testing.assert_array_equal(mode(f)(f64(0)).numpy().reshape(-1), expected)


# -- mistakes ----------------------------------------------------------------------------------------------------


def test_mistakes_are_named() -> None:
    x = f64([1, 2])
    with pytest.raises(
        DTypeError, match=r"result 0 of cond's branches: the first gives f64\[2\], the second bool\[2\]"
    ):
        tgc.cond(x.sum() > 0, lambda x: x, lambda x: x > 0, x)
    with pytest.raises(UserError, match="different structures"):
        tgc.cond(x.sum() > 0, lambda x: x, lambda x: (x, x), x)
    with pytest.raises(ShapeError, match=r"the predicate of cond is bool\[2\], not of rank 0"):
        tgc.cond(x > 0, lambda x: x, lambda x: x, x)
    with pytest.raises(ShapeError, match=r"carry 0 of while_loop: it begins as f64\[2\], the body gives f64\[\]"):
        tgc.while_loop(lambda c: c.sum() < 0, lambda c: c.sum(), x)
    with pytest.raises(DTypeError, match=r"carry 0 of scan: it begins as i64\[\], the body gives f64\[\]"):
        tgc.scan(lambda c, x: (c + x, None), 0, x)
    with pytest.raises(UserError, match="another structure"):
        tgc.scan(lambda c, x: ((c, c), None), 0.0, x)
    with pytest.raises(UserError, match=r"gave a Tensor, not a pair"):
        tgc.scan(lambda c, x: c, 0.0, x)
    with pytest.raises(ShapeError, match=r"scan of length 2 over f64\[3\]"):
        tgc.scan(lambda c, x: (c, None), 0.0, (x, f64([1, 2, 3])))
    with pytest.raises(UserError, match="needs length="):
        tgc.scan(lambda c, x: (c, None), 0.0, None)
    with pytest.raises(UserError, match="a carry of while_loop is a str"):
        tgc.while_loop(lambda c: c, lambda c: c, "text")
    state = tgc.Variable(np.zeros(()))
    with pytest.raises(TraceError, match="the condition of while_loop assigns state"):
        tgc.while_loop(lambda c: (state.assign(c), c < 0)[1], lambda c: c, f64(1))


def test_an_error_shows_the_line_of_the_body() -> None:
    with pytest.raises(ShapeError) as caught:
        tgc.scan(lambda c, x: (c + f64([1, 2, 3]), None), f64([1, 2]), f64([1]))  # the line
    assert "the line" in str(caught.value)
