"""Tensor methods mean what NumPy means."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tgc
from tgc.errors import DTypeError, ShapeError, UserError

X = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)
Function = Callable[[Any], Any]

EXACT: dict[str, tuple[Function, Function]] = {
    "reshape": (lambda x: x.reshape(5, -1, 2), lambda x: x.reshape(5, -1, 2)),
    "flatten": (lambda x: x.flatten(1), lambda x: x.reshape(3, 20)),
    "flatten-part": (lambda x: x.flatten(0, 1), lambda x: x.reshape(12, 5)),
    "T": (lambda x: x.T, lambda x: x.T),
    "mT": (lambda x: x.mT, lambda x: x.swapaxes(1, 2)),
    "transpose": (lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, 2)),
    "permute": (lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    "unsqueeze": (lambda x: x.unsqueeze(-1), lambda x: x[..., None]),
    "squeeze": (lambda x: x[:1].squeeze(), lambda x: x[0]),
    "squeeze-axis": (lambda x: x[:1, :1].squeeze(1), lambda x: x[:1, 0]),
    "expand": (lambda x: x[:1].expand(2, -1, -1), lambda x: np.repeat(x[:1], 2, 0)),
    "flip": (lambda x: x.flip((0, -1)), lambda x: x[::-1, :, ::-1]),
    "max": (lambda x: x.max(1), lambda x: x.max(1)),
    "min-all": (lambda x: x.min(), lambda x: x.min()),
    "argmax": (lambda x: x.argmax(-1), lambda x: x.argmax(-1)),
    "argmin-all": (lambda x: x.argmin(), lambda x: x.argmin()),
    "argmax-kept": (lambda x: x.argmax(0, keepdims=True), lambda x: x.argmax(0, keepdims=True)),
    "any": (lambda x: (x > 2).any((0, 1)), lambda x: (x > 2).any((0, 1))),
    "all": (lambda x: (x > -2).all(), lambda x: (x > -2).all()),
    "sum-of-bools": (lambda x: (x > 0).sum(), lambda x: (x > 0).sum()),
    "relu": (lambda x: x.relu(), lambda x: np.maximum(x, 0)),
    "clip": (lambda x: x.clip(-0.5, 0.5), lambda x: x.clip(-0.5, 0.5)),
    "abs": (abs, np.abs),
    "floor": (lambda x: x.floor(), np.floor),
    "astype": (lambda x: (x * 8).astype(tgc.i32), lambda x: (x * 8).astype(np.int32)),
    "compare": (lambda x: (x < 0) | (x >= 1), lambda x: (x < 0) | (x >= 1)),
    "negate": (lambda x: ~(x < 0), lambda x: ~(x < 0)),
    "int-divide": (lambda x: (x * 9).astype(tgc.i64) // 4, lambda x: (x * 9).astype(np.int64) // 4),
    "remainder": (lambda x: (x * 9).astype(tgc.i64) % -4, lambda x: (x * 9).astype(np.int64) % -4),
}

ROUNDED: dict[str, tuple[Function, Function]] = {
    "sum": (lambda x: x.sum((0, -1), keepdims=True), lambda x: x.sum((0, 2), keepdims=True)),
    "mean": (lambda x: x.mean(), lambda x: x.mean()),
    "mean-axis": (lambda x: x.mean(-1, keepdims=True), lambda x: x.mean(-1, keepdims=True)),
    "var": (lambda x: x.var(1, correction=1), lambda x: x.var(1, ddof=1)),
    "std": (lambda x: x.std(), lambda x: x.std()),
    "cumsum": (lambda x: x.cumsum(1), lambda x: x.cumsum(1)),
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: (x * x + 1).log(), lambda x: np.log(x * x + 1)),
    "tanh": (lambda x: x.tanh(), np.tanh),
    "sigmoid": (lambda x: x.sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    "sqrt": (lambda x: abs(x).sqrt(), lambda x: np.sqrt(np.abs(x))),
    "power": (lambda x: 1 - x**2 / 3, lambda x: 1 - x**2 / 3),
    "softmax": (lambda x: x.softmax(-1), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    "log_softmax": (lambda x: x.log_softmax(1), lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))),
    "gelu": (lambda x: x.gelu(), lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))),
    "silu": (lambda x: x.silu(), lambda x: x / (1 + np.exp(-x))),
}


@pytest.mark.parametrize("name", EXACT)
def test_moves_and_choices_are_exact(name: str, evaluate: Any) -> None:
    function, expected = EXACT[name]
    value = evaluate(function, X)[0][0]
    np.testing.assert_array_equal(value, expected(X), strict=True)


@pytest.mark.parametrize("name", ROUNDED)
def test_arithmetic_is_within_its_bounds(name: str, agrees: Any) -> None:
    function, expected = ROUNDED[name]
    agrees(function, expected, X)


INDICES = {
    "int": np.s_[1],
    "negative": np.s_[..., -1],
    "all-ints": np.s_[0, -1, 2],
    "slices": np.s_[1:, :2, ::2],
    "clamped": np.s_[-9:9, 3:1],
    "backwards": np.s_[::-1, 3:0:-2],
    "new-axes": np.s_[:, None, 1:3, ..., None],
}


@pytest.mark.parametrize("name", INDICES)
def test_basic_indexing_is_numpys(name: str, evaluate: Any) -> None:
    index = INDICES[name]
    np.testing.assert_array_equal(evaluate(lambda x: x[index], X)[0][0], X[index], strict=True)


I, J = np.array([0, -1, 2]), np.array([[1], [0]])
TENSOR_INDICES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "first": lambda x, i, j: x[i],
    "inner": lambda x, i, j: x[:, i],
    "two": lambda x, i, j: x[i, j],
    "apart": lambda x, i, j: x[i, :, j],
    "adjacent": lambda x, i, j: x[:, i, j],
    "with-slices": lambda x, i, j: x[1:, i, ::2],
}


@pytest.mark.parametrize("name", TENSOR_INDICES)
def test_indexing_by_tensors_is_numpys(name: str, evaluate: Any) -> None:
    function = TENSOR_INDICES[name]
    np.testing.assert_array_equal(evaluate(function, X, I, J)[0][0], function(X, I, J), strict=True)


def test_at_gives_changed_copies() -> None:
    x = tgc.tensor(X)
    expected = X.copy()
    expected[1, ::2] = 7
    np.testing.assert_array_equal(x.at[1, ::2].set(7).numpy(), expected)
    np.testing.assert_array_equal(x.numpy(), X)
    counted = tgc.tensor([0.0, 0.0, 0.0]).at[tgc.tensor([0, 2, 0])].add(1.0)
    assert counted.tolist() == [2.0, 0.0, 1.0]
    assert tgc.tensor([1.0, 2.0]).at[1].multiply(3.0).tolist() == [1.0, 6.0]


PRODUCTS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((7, 1, 2, 3), (5, 3, 4)),
    ((3,), (5, 3, 4)),
]


@pytest.mark.parametrize(("a", "b"), PRODUCTS)
def test_matmul_is_numpys(a: tuple[int, ...], b: tuple[int, ...], rng: np.random.Generator, agrees: Any) -> None:
    left, right = rng.normal(size=a).astype(np.float32), rng.normal(size=b).astype(np.float32)
    agrees(lambda x, y: x @ y, lambda x, y: x @ y, left, right)


@pytest.mark.parametrize(
    ("other", "dtype"), [(1, tgc.i8), (1.5, tgc.f32), (True, tgc.i8), (np.float64(2), tgc.f32), (np.int64(2), tgc.i8)]
)
def test_scalars_are_weak(other: Any, dtype: tgc.DType) -> None:
    assert (tgc.tensor(np.ones(2, np.int8)) * other).dtype is dtype


def test_dtypes_promote() -> None:
    assert (tgc.tensor([1]) + tgc.tensor([1.0])).dtype is tgc.f32
    assert (tgc.tensor([1]) / 2).dtype is tgc.f32
    assert tgc.tensor([True]).sum().dtype is tgc.i64


def test_tensors_pass_for_numbers_and_arrays_where_python_asks() -> None:
    x = tgc.tensor(0.125)
    assert f"{x:.2f}" == "0.12"
    assert f"{x}" == "tensor(0.125, dtype=f32)"
    assert round(math.sqrt(tgc.tensor(9.0))) == 3
    assert np.mean([tgc.tensor(1.0), tgc.tensor(2.0)]) == 1.5
    assert [10, 20][tgc.tensor(1)] == 20
    assert [row.tolist() for row in tgc.tensor([[1], [2]])] == [[1], [2]]
    assert len(tgc.tensor([1, 2])) == 2


def test_tensors_never_alias() -> None:
    array = np.zeros(2, np.float32)
    x = tgc.tensor(array)
    array[0] = 1
    x.numpy()[1] = 1
    assert x.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.reshape(7, -1),
        lambda x: x.permute(0, 1),
        lambda x: x.sum(3),
        lambda x: x @ x.T,
        lambda x: x[3],
        lambda x: x[0, 0, 0, 0],
        lambda x: x.squeeze(0),
        lambda x: x + x[:, :2],
        lambda x: x.broadcast_to(4),
    ],
)
def test_shapes_that_do_not_fit_are_named_at_the_users_line(wrong: Function) -> None:
    with pytest.raises(ShapeError) as caught:
        wrong(tgc.tensor(X))
    assert caught.value.location is not None
    assert caught.value.location.file == __file__


def test_numpy_arrays_do_not_mix() -> None:
    x = tgc.tensor(X)
    for mixed in (lambda: x + X, lambda: X * x, lambda: x @ X):
        with pytest.raises(UserError, match="NumPy array"):
            mixed()


def test_an_index_needs_integers() -> None:
    with pytest.raises(DTypeError, match="integers"):
        tgc.tensor(X)[tgc.tensor([0.5])]
