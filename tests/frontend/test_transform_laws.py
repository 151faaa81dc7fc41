"""Laws: what leaves a function's meaning alone leaves its derivatives of every order and its batches alone too."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import tgc

Map = Callable[[tgc.Tensor], tgc.Tensor]

W = np.array([[0.5, -1.0, 0.25], [1.5, 0.75, -0.5], [0.125, 2.0, 1.0]])


def base(x: tgc.Tensor) -> tgc.Tensor:
    return (x @ tgc.tensor(W)).tanh() + x.sum() * x


def by_cond(f: Map) -> Map:
    return lambda x: tgc.cond(x.sum() == x.sum(), f, lambda x: x * 0, x)


def by_captured_cond(f: Map) -> Map:
    return lambda x: tgc.cond(x.sum() != x.sum(), lambda: x * 0, lambda: f(x))


def by_scan_carry(f: Map) -> Map:
    return lambda x: tgc.scan(lambda c, _: (f(c), None), x, None, length=1)[0]


def by_scan_output(f: Map) -> Map:
    return lambda x: tgc.scan(lambda c, y: (c, f(y)), 0.0, x[None], reverse=True)[1][0]


def by_scan_capture(f: Map) -> Map:
    return lambda x: tgc.scan(lambda c, i: (c, f(x)), 0, tgc.arange(2))[1][1]


def by_while(f: Map) -> Map:
    return lambda x: tgc.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, f(s[1])), (0, x), max_steps=3)[1]


def by_fori(f: Map) -> Map:
    return lambda x: tgc.fori_loop(0, 1, lambda i, c: f(c) + i, x)


def by_vmap(f: Map) -> Map:
    return lambda x: tgc.vmap(f, in_axes=1, out_axes=1)(tgc.stack([x, x * 2], axis=1))[:, 0]


def by_vjp(f: Map) -> Map:
    return lambda x: tgc.vjp(f, x)[0]


def by_jvp(f: Map) -> Map:
    return lambda x: tgc.jvp(f, (x,), (x,))[0]


def by_linearity(f: Map) -> Map:
    """f(x) as the derivative of t·f(x) at t = 1."""
    return lambda x: tgc.jvp(lambda t: t * f(x), (tgc.tensor(np.float64(1)),), (tgc.tensor(np.float64(1)),))[1]


WRAPPERS: list[Callable[[Map], Map]] = [
    *(tgc.jit, tgc.checkpoint, by_cond, by_captured_cond, by_scan_carry, by_scan_output, by_scan_capture),
    *(by_while, by_fori, by_vmap, by_vjp, by_jvp, by_linearity),
]


def observed(f: Map, x: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """Value, gradient, tangent, product with the Hessian, and gradients of a batch."""

    def loss(x: tgc.Tensor) -> tgc.Tensor:
        return f(x).sin().sum()

    a, b = tgc.tensor(x), tgc.tensor(v)
    return [
        f(a).numpy(),
        tgc.grad(loss)(a).numpy(),
        tgc.jvp(f, (a,), (b,))[1].numpy(),
        tgc.jvp(tgc.grad(loss), (a,), (b,))[1].numpy(),
        tgc.grad(lambda x: (tgc.grad(loss)(x) * b).sum())(a).numpy(),
        tgc.jit(tgc.vmap(tgc.grad(loss)))(tgc.stack([a, b])).numpy(),
    ]


def agree(wrapped: Map, rng: np.random.Generator) -> None:
    x, v = rng.normal(size=3), rng.normal(size=3)
    for found, expected in zip(observed(wrapped, x, v), observed(base, x, v), strict=True):
        assert found.shape == expected.shape
        # some tens of roundings of f64, which sums in another order may add
        assert np.max(np.abs(found - expected)) <= 2.0**-44 * max(1.0, np.max(np.abs(expected)))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapping_changes_nothing(wrapper: Callable[[Map], Map], rng: np.random.Generator) -> None:
    agree(wrapper(base), rng)


@pytest.mark.parametrize("shift", range(1, len(WRAPPERS)))
def test_wrapping_twice_changes_nothing(shift: int, rng: np.random.Generator) -> None:
    """Every wrapper around one other, another one for each shift: all pairs in a dozen tests would take minutes."""
    outer, inner = WRAPPERS[shift], WRAPPERS[(5 * shift + 3) % len(WRAPPERS)]
    agree(outer(inner(base)), rng)


def test_every_wrapper_at_once_changes_nothing(rng: np.random.Generator) -> None:
    wrapped: Map = base
    for wrapper in itertools.chain(WRAPPERS[1:6], WRAPPERS[8:10]):
        wrapped = wrapper(wrapped)
    x = rng.normal(size=3)
    found = tgc.jit(tgc.grad(lambda x: wrapped(x).sin().sum()))(tgc.tensor(x)).numpy()
    expected = tgc.grad(lambda x: base(x).sin().sum())(tgc.tensor(x)).numpy()
    assert np.max(np.abs(found - expected)) <= 2.0**-44 * max(1.0, np.max(np.abs(expected)))
