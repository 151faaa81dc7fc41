"""The Array API standard 2024.12: every function is there, and means what NumPy's function of that name means."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tgc
from tgc.errors import UnsupportedError

Array = NDArray[Any]
# (function on tensors, formula in NumPy, arrays)
Case = tuple[Callable[..., Any], Callable[..., Any], Sequence[Array]]

# the standard's functions, without those of its extensions (linalg, fft) and of devices
STANDARD = """
    abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert bitwise_or
    bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp expm1 floor floor_divide greater
    greater_equal hypot imag isfinite isinf isnan less less_equal log log1p log2 log10 logaddexp logical_and logical_not
    logical_or logical_xor maximum minimum multiply negative nextafter not_equal positive pow real reciprocal remainder
    round sign signbit sin sinh square sqrt subtract tan tanh trunc
    matmul matrix_transpose tensordot vecdot
    broadcast_arrays broadcast_to concat expand_dims flip moveaxis permute_dims repeat reshape roll squeeze stack tile
    unstack
    arange asarray empty empty_like eye from_dlpack full full_like linspace meshgrid ones ones_like tril triu zeros
    zeros_like
    take take_along_axis argmax argmin count_nonzero nonzero searchsorted where argsort sort
    unique_all unique_counts unique_inverse unique_values
    cumulative_prod cumulative_sum max mean min prod std sum var all any diff
    astype can_cast finfo iinfo isdtype result_type
""".split()
REFUSED = ("imag", "nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values")
# what is not compared value by value here: see the tests below and in test_array_api_types.py
ELSEWHERE = ("from_dlpack", "astype", "can_cast", "finfo", "iinfo", "isdtype", "result_type")

_RNG = np.random.default_rng(7)
X = _RNG.uniform(-0.9, 0.9, (2, 3, 4)).astype(np.float32)
Y = _RNG.uniform(-3, 3, (3, 1)).astype(np.float32)
P = np.abs(X) + np.float32(1.25)
I = _RNG.integers(-5, 6, (3, 4))
J = _RNG.integers(1, 6, (4,))
S = _RNG.integers(-100, 100, (2, 5)).astype(np.int8)
U = _RNG.integers(100, 200, (3, 4)).astype(np.uint8)
B = _RNG.integers(0, 2, (3, 4)).astype(bool)
EMPTY = np.zeros((0, 3), np.float32)
ONE = np.full((1, 1), 0.5, np.float32)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.5, 0.5], np.float32)


def named(name: str, *arrays: Array, like: str | None = None, **options: Any) -> Case:
    """The function and NumPy's, with the same options."""
    ours, theirs = getattr(tgc, name), getattr(np, like or name)
    return (lambda *a: ours(*a, **options)), (lambda *a: theirs(*a, **options)), arrays


def unary(name: str, *arrays: Array) -> list[Case]:
    return [named(name, a) for a in (*arrays, EMPTY, ONE)]


def binary(name: str, *pairs: tuple[Array, Array]) -> list[Case]:
    """Broadcasting, numbers on both sides, sizes of 0 and 1."""
    ours, theirs = getattr(tgc, name), getattr(np, name)
    cases = [named(name, a, b) for a, b in pairs]
    first, second = pairs[0]
    kind = {"f": 0.5, "i": 3, "b": True}[first.dtype.kind]
    if first.dtype.kind == "f":
        cases += [named(name, EMPTY, ONE), named(name, ONE, ONE)]
    return [
        *cases,
        (lambda a: ours(a, kind), lambda a: theirs(a, a.dtype.type(kind)), [first]),
        (lambda b: ours(kind, b), lambda b: theirs(b.dtype.type(kind), b), [second]),
    ]


def reduced(name: str, *arrays: Array, empty: bool = True, **options: Any) -> list[Case]:
    cases = [
        named(name, a, axis=axis, keepdims=keepdims, **options)
        for a in (*arrays, ONE)
        for axis in (None, 0, -1, (0, 1))
        for keepdims in (False, True)
    ]
    return cases + ([named(name, EMPTY, axis=0), named(name, EMPTY)] if empty else [])


def each(make: Callable[[Any], Sequence[Any]], formula: Callable[..., Sequence[Any]], *arrays: Array) -> list[Case]:
    """A function with several results: one case for each."""
    count = len(formula(*arrays))
    return [
        ((lambda *a, i=i: make(*a)[i]), (lambda *a, i=i: formula(*a)[i]), arrays)  # type: ignore[misc]
        for i in range(count)
    ]


FLOATS = [(X, Y), (X, X[0]), (Y, np.float32(2.5) * P)]
NUMBERS = [*FLOATS, (I, J), (I, U), (S[:, :4], J)]
BITS = [(I, J), (U, U[0]), (B, B[0])]


def elementwise() -> dict[str, list[Case]]:
    small = "asin asinh atan atanh cos cosh exp expm1 log1p sin sinh tan tanh acos".split()
    cases = {name: unary(name, X) for name in small}
    cases |= {name: unary(name, P) for name in ("acosh", "log", "log2", "log10", "sqrt")}
    cases |= {name: unary(name, X, SPECIAL) for name in ("ceil", "floor", "round", "trunc")}
    cases |= {name: unary(name, X, SPECIAL, I) for name in ("isfinite", "isinf", "isnan", "abs")}
    cases |= {name: unary(name, X, I) for name in ("negative", "positive", "square", "conj", "real")}
    for name in ("ceil", "floor", "round", "trunc"):
        cases[name] += unary(name, I, U)[:2]
    pairs = {"add subtract multiply maximum minimum": NUMBERS, "less less_equal greater greater_equal": NUMBERS}
    pairs |= {"equal not_equal": [*NUMBERS, (B, B[0])], "bitwise_and bitwise_or bitwise_xor": BITS}
    pairs |= {"floor_divide remainder": [(X, P), (I, J)], "divide": FLOATS, "hypot atan2 copysign": FLOATS}
    pairs |= {"logaddexp nextafter": FLOATS, "pow": [(P, Y), (np.abs(I), J)]}
    pairs |= {"logical_and logical_or logical_xor": [(B, B[0]), (I, J)]}
    for names, arrays in pairs.items():
        cases |= {name: binary(name, *arrays) for name in names.split()}
    return cases | {
        "sign": unary("sign", X, I, SPECIAL),
        "signbit": [named("signbit", a) for a in (X, SPECIAL)] + [(tgc.signbit, lambda a: a < 0, [I])],
        "reciprocal": unary("reciprocal", P),
        "logical_not": [named("logical_not", a) for a in (B, I, X)],
        "bitwise_invert": [named("bitwise_invert", a) for a in (B, I, U)],
        "bitwise_left_shift": [named("bitwise_left_shift", I, J)],
        "bitwise_right_shift": [named("bitwise_right_shift", I, J), named("bitwise_right_shift", U, U % 5)],
        "clip": [
            (lambda a, b: tgc.clip(a, -0.5, b), lambda a, b: np.clip(a, a.dtype.type(-0.5), b), [X, P[0]]),
            (lambda a: tgc.clip(a, 1), lambda a: np.clip(a, 1, None), [I]),
            (lambda a: tgc.clip(a, max=0.25), lambda a: np.clip(a, None, a.dtype.type(0.25)), [X]),
        ],
    }


def products() -> dict[str, list[Case]]:
    m, t = X[0], np.ascontiguousarray(X[0].T)
    return {
        "matmul": [named("matmul", *pair) for pair in ((X, t), (m, t), (m[0], t), (m, t[:, 0]), (m[0], m[1]), (I, I.T))]
        + [named("matmul", EMPTY, EMPTY.T), named("matmul", EMPTY.T, EMPTY), named("matmul", ONE, ONE)],
        "matrix_transpose": [named("matrix_transpose", a) for a in (X, EMPTY)],
        "tensordot": [
            named("tensordot", X, X, axes=([0, 2], [0, 2])),
            named("tensordot", Y, ONE, axes=0),
            named("tensordot", X, np.moveaxis(X, 0, 2), axes=2),
            named("tensordot", I, I, axes=([-1], [1])),
        ],
        "vecdot": [named("vecdot", X, m), named("vecdot", X, X[:1], axis=-2), named("vecdot", EMPTY, EMPTY)],
    }


def movement() -> dict[str, list[Case]]:
    return {
        "broadcast_arrays": each(tgc.broadcast_arrays, np.broadcast_arrays, X, Y),
        "broadcast_to": [named("broadcast_to", Y, shape=(2, 3, 4)), named("broadcast_to", ONE, shape=(0, 1))],
        "concat": [
            *(
                (lambda a, b, k=k: tgc.concat([a, b], axis=k), lambda a, b, k=k: np.concat([a, b], axis=k), [X, X])
                for k in (0, -1, None)
            ),
            (lambda a, b: tgc.concat([a, b]), lambda a, b: np.concat([a, b]), [EMPTY, Y.T]),
            (lambda a, b: tgc.concat([a, b], axis=1), lambda a, b: np.concat([a, b], axis=1), [I, S[:1].repeat(3, 0)]),
        ],
        "expand_dims": [named("expand_dims", X, axis=k) for k in (0, 2, -1, (0, -1))],
        "squeeze": [named("squeeze", Y, axis=1), named("squeeze", ONE, axis=(0, 1))],
        "flip": [named("flip", X, axis=k) for k in (None, 1, (0, -1))],
        "moveaxis": [(lambda a: tgc.moveaxis(a, (0, 1), (-1, 0)), lambda a: np.moveaxis(a, (0, 1), (-1, 0)), [X])],
        "permute_dims": [named("permute_dims", X, axes=(2, 0, 1))],
        "reshape": [named("reshape", X, shape=s) for s in ((4, 6), (-1,), (2, -1, 1))]
        + [named("reshape", EMPTY, shape=(3, 0, 2))],
        "repeat": [
            (lambda a, r=r, k=k: tgc.repeat(a, r, axis=k), lambda a, r=r, k=k: np.repeat(a, r, axis=k), [X])
            for r, k in ((2, None), (3, 1), ([1, 0, 2], 1), (0, 0))
        ],
        "roll": [
            named("roll", X, shift=s, axis=k) for s, k in ((1, None), (-2, 1), ((1, 2), (0, 2)), (9, -1), (2, (0, 1)))
        ]
        + [named("roll", EMPTY, shift=1, axis=0)],
        "stack": [
            (lambda a, b, k=k: tgc.stack([a, b], axis=k), lambda a, b, k=k: np.stack([a, b], axis=k), [X, X])
            for k in (0, 1, -1)
        ],
        "tile": [
            (lambda a, r=r: tgc.tile(a, r), lambda a, r=r: np.tile(a, r), [X]) for r in ((2,), (2, 1, 3, 1), (0, 1, 1))
        ],
        "unstack": [
            *each(tgc.unstack, np.unstack, X),
            *each(lambda a: tgc.unstack(a, axis=1), lambda a: np.unstack(a, axis=1), X),
        ],
    }


def creation() -> dict[str, list[Case]]:
    def made(ours: Callable[[], Any], theirs: Callable[[], Any]) -> Case:
        return (lambda _: ours()), (lambda _: theirs()), [ONE]

    ranges = [(5,), (2, 7), (2, 9, 3), (9, 2, -2), (0,), (5, 2), (3, 0, -1)]
    lines = [(0, 1, 5), (0, 1, 1), (3, -2, 7), (0, 1, 0), (1, 1, 3)]
    f64, g = tgc.f64, np.float64
    likes = [(X, {}), (I, {}), (B, {}), (EMPTY, {})]
    return {
        "arange": [made(lambda a=a: tgc.arange(*a), lambda a=a: np.arange(*a)) for a in ranges]
        + [made(lambda: tgc.arange(0.0, 1.0, 0.1, dtype=f64), lambda: np.arange(0.0, 1.0, 0.1))],
        "linspace": [
            made(lambda a=a, e=e: tgc.linspace(*a, endpoint=e, dtype=f64), lambda a=a, e=e: np.linspace(*a, endpoint=e))
            for a in lines
            for e in (True, False)
        ],
        "asarray": [
            made(lambda: tgc.asarray([[1, 2], [3, 4]]), lambda: np.asarray([[1, 2], [3, 4]])),
            made(lambda: tgc.asarray(True), lambda: np.asarray(True)),
            (tgc.asarray, np.asarray, [X]),
        ],
        "empty": [made(lambda: tgc.empty((2, 0), dtype=f64), lambda: np.empty((2, 0)))],
        "eye": [made(lambda k=k: tgc.eye(3, 5, k=k, dtype=f64), lambda k=k: np.eye(3, 5, k=k)) for k in (-1, 0, 2, 9)],
        "full": [
            made(lambda: tgc.full((2, 3), 7), lambda: np.full((2, 3), 7)),
            made(lambda: tgc.full(3, True), lambda: np.full(3, True)),
            made(lambda: tgc.full((), 1.5, dtype=f64), lambda: np.full((), 1.5)),
        ],
        "zeros": [made(lambda: tgc.zeros((2, 1), dtype=f64), lambda: np.zeros((2, 1)))],
        "ones": [made(lambda: tgc.ones(3, dtype=f64), lambda: np.ones(3, g))],
        "zeros_like": [named("zeros_like", a) for a, _ in likes],
        "ones_like": [named("ones_like", a) for a, _ in likes],
        "empty_like": [(tgc.empty_like, np.zeros_like, [a]) for a, _ in likes],
        "full_like": [named("full_like", a, fill_value=1) for a, _ in likes],
        "meshgrid": [
            case
            for indexing in ("xy", "ij")
            for case in each(
                lambda *a, n=indexing: tgc.meshgrid(*a, indexing=n),
                lambda *a, n=indexing: np.meshgrid(*a, indexing=n),
                *(J, J[:3], J[:2]),
            )
        ],
        "tril": [
            (lambda a, k=k: tgc.tril(a, k=k), lambda a, k=k: np.tril(a, k), [a]) for a in (X, I) for k in (-1, 0, 2)
        ],
        "triu": [
            (lambda a, k=k: tgc.triu(a, k=k), lambda a, k=k: np.triu(a, k), [a]) for a in (X, I) for k in (-1, 0, 2)
        ],
    }


def folds() -> dict[str, list[Case]]:
    ties = np.array([[3, 1, 3], [0, 0, 2]])
    running = [(X, 1), (I, 0), (U, -1), (B, 1), (S, 0), (EMPTY, 1), (EMPTY, 0)]
    cases = {
        name: [named(name, a, axis=k, include_initial=i) for a, k in running for i in (False, True)] + [named(name, J)]
        for name in ("cumulative_sum", "cumulative_prod")
    }
    order = np.argsort(X[0, 0])
    return cases | {
        "sum": reduced("sum", X, I, U, S, B),
        "prod": reduced("prod", X, S, B),
        "max": reduced("max", X, I, empty=False),
        "min": reduced("min", X, U, empty=False),
        "mean": reduced("mean", X, empty=False),
        "var": reduced("var", X, empty=False) + [named("var", X, axis=1, correction=c) for c in (1, 0.5)],
        "std": [*reduced("std", X, empty=False), named("std", X, axis=(0, 2), correction=1)],
        "any": reduced("any", B, I, X),
        "all": reduced("all", B, I, X),
        "count_nonzero": reduced("count_nonzero", B, I, X),
        "diff": [named("diff", a) for a in (X, I, B)]
        + [named("diff", X, n=2, axis=1), named("diff", EMPTY, axis=1)]
        + [
            (lambda a, b: tgc.diff(a, prepend=b, append=b), lambda a, b: np.diff(a, prepend=b, append=b), [I, I[:, :1]])
        ],
        "argmax": [
            named("argmax", a, axis=k, keepdims=d) for a in (X, ties) for k in (None, 0, -1) for d in (False, True)
        ],
        "argmin": [
            named("argmin", a, axis=k, keepdims=d) for a in (X, ties) for k in (None, 0, -1) for d in (False, True)
        ],
        "sort": [named("sort", a, axis=k) for a in (X, I, SPECIAL.reshape(2, 4)) for k in (0, -1)]
        + [(lambda a: tgc.sort(a, descending=True), lambda a: -np.sort(-a), [a]) for a in (X, I, EMPTY)],
        "argsort": [named("argsort", a, axis=k, stable=True) for a in (X, ties) for k in (0, -1)],
        "searchsorted": [
            (lambda a, v, s=s: tgc.searchsorted(a, v, side=s), lambda a, v, s=s: np.searchsorted(a, v, side=s), arrays)
            for s in ("left", "right")
            for arrays in ((X[0, 0][order], X), (np.sort(I[0]), I))
        ]
        + [
            (
                lambda a, v, o: tgc.searchsorted(a, v, sorter=o),
                lambda a, v, o: np.searchsorted(a, v, sorter=o),
                [X[0, 0], X, order],
            )
        ],
        "where": [
            named("where", B, I, J),
            (lambda b, x: tgc.where(b, x, 0), lambda b, x: np.where(b, x, x.dtype.type(0)), [B, X]),
            (lambda b: tgc.where(b, 1, 0), lambda b: np.where(b, 1, 0), [B]),
        ],
        "take": [
            (lambda a, i: tgc.take(a, i, axis=1), lambda a, i: np.take(a, i, axis=1), [X, np.array([2, -1, 0])]),
            named("take", J, np.array([0, -1])),
        ],
        "take_along_axis": [
            (lambda a, i: tgc.take_along_axis(a, i, axis=1), lambda a, i: np.take_along_axis(a, i, axis=1), arrays)
            for arrays in ((I, np.array([[0, -1], [2, 1], [3, 3]])), (X, np.argsort(X, axis=1)))
        ],
    }


TABLE = elementwise() | products() | movement() | creation() | folds()


def test_every_function_of_the_standard_is_there() -> None:
    assert [name for name in STANDARD if not callable(getattr(tgc, name, None))] == []
    assert sorted({*TABLE, *REFUSED, *ELSEWHERE}) == sorted(STANDARD)


def close(found: Array, expected: Array, error: Any) -> None:
    """Within ``error`` where both are finite; equal elsewhere."""
    assert found.shape == expected.shape
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    np.testing.assert_array_equal(a[~finite], b[~finite])
    assert np.all(np.abs(a[finite] - b[finite]) <= np.broadcast_to(error, a.shape)[finite])


@pytest.mark.parametrize("name", TABLE)
def test_it_means_what_numpy_means(name: str, evaluate: Any) -> None:
    """The meaning in f64 is NumPy's; native code is as close to the meaning in f32 as the ops promise."""
    for function, formula, arrays in TABLE[name]:
        arrays = [np.ascontiguousarray(a) for a in arrays]
        wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
        with np.errstate(all="ignore"):
            exact, expected = evaluate(function, *wide)[0][0], np.asarray(formula(*wide))
            dtype = np.asarray(formula(*arrays)).dtype
        # a rounding of f64 is 2⁻⁵³: 2⁻⁴⁰ of the largest magnitude tells it from a mistake
        scale = np.max(np.abs(expected[np.isfinite(expected)]), initial=1)
        close(exact, expected, 2.0**-40 * scale if expected.dtype.kind == "f" else 0)
        value, error = evaluate(function, *arrays)[0]
        result = function(*map(tgc.tensor, arrays)).numpy()
        assert result.dtype == value.dtype == dtype
        close(result, value, error)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_with_an_alternative(name: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        getattr(tgc, name)(tgc.tensor([1.0]))
    assert name == "imag" or "help: use tgc." in str(caught.value)


@pytest.mark.parametrize("name", [name for name in TABLE if name != "searchsorted"])
def test_it_can_be_batched(name: str) -> None:
    """vmap gives what a loop over the examples gives, with the last operand batched alone and with all batched."""
    for function, _, arrays in TABLE[name][:3]:
        wide = [np.stack([a, np.flip(a, -1) if a.ndim else a]) for a in arrays]
        for first in {0, len(arrays) - 1}:
            given = [*arrays[:first], *wide[first:]]
            axes = (*(None,) * first, *(0,) * (len(arrays) - first))
            found = tgc.vmap(function, in_axes=axes)(*map(tgc.tensor, given)).numpy()
            for i in range(2):
                each_one = [a if axis is None else a[i] for a, axis in zip(given, axes, strict=True)]
                expected = function(*map(tgc.tensor, each_one)).numpy()
                assert found[i].dtype == expected.dtype
                # sums may be taken in another order: at most 24 terms of at most 4
                close(found[i], expected, 24 * 2.0**-20 if expected.dtype.kind == "f" else 0)
