"""The Array API's dtypes, symbolic sizes, einsum, and what happens to mistakes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tgc
from tgc.dtypes import DTYPES
from tgc.errors import DTypeError, ShapeError, UnsupportedError, UserError

T = tgc.tensor


# -- data types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool", "f16", "f32", "f64"])
def test_dtypes_widen_as_in_numpy(name: str) -> None:
    array = np.array([[1, 0], [1, 1]], DTYPES[name].numpy)
    for function, formula in [
        (tgc.sum, np.sum),
        (tgc.prod, np.prod),
        (tgc.count_nonzero, np.count_nonzero),
        (tgc.any, np.any),
        (lambda x: tgc.cumulative_sum(x, axis=0), lambda x: np.cumulative_sum(x, axis=0)),
    ]:
        expected = np.asarray(formula(array))
        found = function(T(array)).numpy()
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert tgc.sum(T(array), dtype=tgc.f64).dtype is tgc.f64


@pytest.mark.parametrize("a", ["i8", "i32", "i64", "u8", "u16", "f32", "f64", "bf16"])
@pytest.mark.parametrize("b", ["i8", "i32", "i64", "u8", "u16", "f32", "f64", "bf16"])
def test_operands_promote_alike_everywhere(a: str, b: str) -> None:
    x, y = T([1, 2], dtype=DTYPES[a]), T([2, 1], dtype=DTYPES[b])
    expected = tgc.result_type(x, y)
    assert tgc.add(x, y).dtype is expected
    assert tgc.where(x > 0, x, y).dtype is expected
    assert tgc.concat([x, y]).dtype is expected
    assert tgc.matmul(x, y).dtype is expected
    assert tgc.einsum("i,i->", x, y).dtype is expected
    assert tgc.can_cast(DTYPES[a], expected)
    np.testing.assert_array_equal(tgc.add(x, y).astype(tgc.i64).numpy(), [3, 3])


def test_numbers_take_the_dtype_of_tensors() -> None:
    x = T(np.ones(2, np.float16))
    assert tgc.add(x, 1).dtype is tgc.f16
    assert tgc.add(2.5, x).dtype is tgc.f16
    assert tgc.multiply(T([1], dtype=tgc.i8), 3).dtype is tgc.i8
    assert tgc.multiply(T([1], dtype=tgc.i8), 0.5).dtype is tgc.f32
    assert tgc.divide(T([1]), 2).dtype is tgc.f32
    assert tgc.result_type(1, 2.5) is tgc.f32
    assert tgc.result_type(tgc.f64, 1.5) is tgc.f64


def test_kinds_and_limits_of_dtypes() -> None:
    kinds = {
        "signed integer": "i8 i16 i32 i64",
        "unsigned integer": "u8 u16 u32 u64",
        "real floating": "bf16 f16 f32 f64",
    }
    for kind, names in kinds.items():
        assert [d.name for d in DTYPES.values() if tgc.isdtype(d, kind)] == names.split()
    assert not any(tgc.isdtype(d, "complex floating") for d in DTYPES.values())
    with pytest.raises(UserError, match="there is no kind 'float'"):
        tgc.isdtype(tgc.f32, "float")
    info = tgc.finfo(tgc.bf16)
    assert (info.bits, info.eps, info.smallest_normal) == (16, 2.0**-7, 2.0**-126)
    assert tgc.finfo(T([1.0])).max == float(np.finfo(np.float32).max)
    assert (tgc.iinfo(tgc.u8).max, tgc.iinfo(tgc.i16).min) == (255, -(2**15))
    with pytest.raises(DTypeError):
        tgc.finfo(tgc.i8)
    with pytest.raises(DTypeError):
        tgc.iinfo(tgc.f32)


def test_arrays_of_others_are_copied() -> None:
    array = np.arange(3.0)
    x = tgc.from_dlpack(array)
    array[0] = 7
    np.testing.assert_array_equal(x.numpy(), [0, 1, 2])
    assert tgc.asarray(x) is x
    assert tgc.astype(x, tgc.i32).dtype is tgc.i32
    with pytest.raises(UserError, match="never share memory"):
        tgc.from_dlpack(array, copy=False)


# -- einsum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ijk,ik->j", [(2, 3, 4), (2, 4)]),
        ("ijk->ki", [(2, 3, 4)]),
        ("...i,...i", [(2, 3, 4), (3, 4)]),
        ("...i,...i->...", [(2, 1, 4), (1, 3, 4)]),
        ("i...,i...->...", [(2, 3, 4), (2, 1, 4)]),
        ("ii->i", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("iij,j->ji", [(3, 3, 2), (2,)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("abc,dbc,c->ad", [(2, 3, 4), (5, 3, 4), (4,)]),
        ("i,j,k->kij", [(2,), (3,), (4,)]),
        ("ij,ij,ij->", [(2, 3), (2, 3), (2, 3)]),
        ("ij->", [(0, 3)]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
        (" b i j, b j k -> b i k ", [(1, 2, 3), (1, 3, 1)]),
        ("...,...", [(), ()]),
    ],
)
def test_einsum_is_the_sum_of_products(subscripts: str, shapes: Any, agrees: Any, rng: np.random.Generator) -> None:
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    found = tgc.einsum(subscripts, *map(T, arrays))
    expected = np.einsum(subscripts.replace(" ", ""), *(a.astype(np.float64) for a in arrays))
    assert found.shape == expected.shape
    # at most four factors and 64 terms: γ·Σ|…| of the roundings
    magnitude = np.einsum(subscripts.replace(" ", ""), *(np.abs(a).astype(np.float64) for a in arrays))
    assert np.all(np.abs(found.numpy() - expected) <= 70 * 2.0**-24 * magnitude)


def test_einsum_has_a_gradient(rng: np.random.Generator) -> None:
    a, b, c = (rng.normal(size=s) for s in ((2, 3), (3, 4), (4, 2)))
    gradient = tgc.grad(lambda a, b, c: tgc.einsum("ij,jk,ki->", a, b, c), argnums=(0, 2))
    da, dc = gradient(T(a), T(b), T(c))
    np.testing.assert_allclose(da.numpy(), (b @ c).T, rtol=0, atol=2.0**-40)
    np.testing.assert_allclose(dc.numpy(), (a @ b).T, rtol=0, atol=2.0**-40)


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3)]),
        ("ijk->i", [(2, 3)]),
        ("ij->k", [(2, 3)]),
        ("ij->ii", [(2, 3)]),
        ("i1->i", [(2, 3)]),
        ("...i->i", [(2, 3)]),
        ("i...j...->ij", [(2, 3)]),
    ],
)
def test_einsum_refuses_subscripts_that_do_not_fit(subscripts: str, shapes: Any) -> None:
    with pytest.raises(UserError, match="einsum"):
        tgc.einsum(subscripts, *(T(np.ones(s)) for s in shapes))


# -- symbolic sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        (lambda x: tgc.arange(x.shape[0]), lambda x: np.arange(len(x))),
        (lambda x: tgc.arange(1, x.shape[0], 2), lambda x: np.arange(1, len(x), 2)),
        (lambda x: tgc.arange(x.shape[0], 0, -1), lambda x: np.arange(len(x), 0, -1)),
        (lambda x: tgc.asarray(x.shape[0]) * 2, lambda x: np.asarray(len(x) * 2)),
        (lambda x: tgc.zeros(x.shape), np.zeros_like),
        (lambda x: tgc.eye(x.shape[0], 3, k=1), lambda x: np.eye(len(x), 3, 1, dtype=np.float32)),
        (lambda x: tgc.tril(x @ x.T), lambda x: np.tril(x @ x.T)),
        (lambda x: tgc.roll(x, 5, axis=0), lambda x: np.roll(x, 5, axis=0)),
        (lambda x: tgc.concat([x, x[:1], x]), lambda x: np.concat([x, x[:1], x])),
        (lambda x: tgc.tile(x, (2, 1)), lambda x: np.tile(x, (2, 1))),
        (lambda x: tgc.repeat(x, 3, axis=0), lambda x: np.repeat(x, 3, axis=0)),
        (lambda x: tgc.diff(x, axis=0), lambda x: np.diff(x, axis=0)),
        (lambda x: tgc.flip(x, axis=0), lambda x: np.flip(x, axis=0)),
        (lambda x: tgc.take(x, T([-1, 0]), axis=0), lambda x: np.take(x, [-1, 0], axis=0)),
        (lambda x: tgc.take_along_axis(x, tgc.argsort(x, axis=0), axis=0), lambda x: np.sort(x, axis=0)),
        (lambda x: tgc.cumulative_sum(x, axis=0), lambda x: np.cumulative_sum(x, axis=0)),
        (lambda x: tgc.einsum("ij,kj->ik", x, x), lambda x: x @ x.T),
        (lambda x: tgc.vecdot(x, x), lambda x: np.vecdot(x, x)),
        (lambda x: tgc.stack([x, x], axis=1), lambda x: np.stack([x, x], axis=1)),
    ],
)  # fmt: skip
def test_one_compiled_form_serves_every_size(function: Callable[..., Any], formula: Callable[..., Any]) -> None:
    compiled = tgc.jit(function, "f32[n, 3]")
    for n in (1, 2, 7):
        # small whole numbers: every sum and product is exact
        x = (np.arange(3 * n, dtype=np.float32).reshape(n, 3) * 5) % 11
        found, expected = compiled(T(x)).numpy(), formula(x)
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
    assert len(compiled.specialisations) == 1


def test_how_many_slices_there_are_must_be_known() -> None:
    with pytest.raises(UnsupportedError, match="how many slices there are depends on n"):
        tgc.jit(lambda x: tgc.unstack(x)[0], "f32[n, 3]")(T(np.ones((2, 3), np.float32)))


# -- slices at computed places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 2, -3, 9])
def test_slices_at_computed_places(start: int) -> None:
    x, update = np.arange(15.0).reshape(5, 3), np.array([[-1.0, -2.0]] * 2)
    first = min(max(start, 0), 3)

    def both(x: tgc.Tensor, update: tgc.Tensor, i: tgc.Tensor) -> Any:
        return tgc.dynamic_slice(x, [i, 1], [2, 2]), tgc.dynamic_update_slice(x, update, [i, 1])

    part, whole = tgc.jit(both)(T(x), T(update), T(start))
    np.testing.assert_array_equal(part.numpy(), x[first : first + 2, 1:])
    expected = x.copy()
    expected[first : first + 2, 1:] = update
    np.testing.assert_array_equal(whole.numpy(), expected)
    gradient = tgc.grad(lambda x: (tgc.dynamic_slice(x, [T(start), 1], [2, 2]) * T(update)).sum())(T(x))
    np.testing.assert_array_equal(gradient.numpy(), np.where(expected == x, 0, expected))


# -- derivatives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tgc.roll(x, 1, axis=0),
        lambda x: tgc.sort(x, axis=1),
        lambda x: tgc.take_along_axis(x, tgc.argsort(x, axis=0), axis=0),
        lambda x: tgc.cumulative_sum(x, axis=1),
        lambda x: tgc.cumulative_prod(x, axis=0),
        lambda x: tgc.where(x > 0, x * x, -x),
        lambda x: tgc.concat([x, tgc.flip(x, axis=1)], axis=1),
        lambda x: tgc.tile(x, (2, 2)),
        lambda x: tgc.repeat(x, [1, 0, 2], axis=0),
        lambda x: tgc.std(x, axis=0, correction=1),
        lambda x: tgc.max(x, axis=1),
        lambda x: tgc.tensordot(x, x, axes=([0], [0])),
        lambda x: tgc.diff(x, n=2, axis=0),
        lambda x: tgc.stack(tgc.unstack(x, axis=1), axis=0),
        lambda x: tgc.clip(x, -0.5, 0.5),
        lambda x: tgc.triu(x, k=1),
        lambda x: tgc.prod(x, axis=1),
    ],
)
def test_functions_have_derivatives(function: Callable[..., Any], rng: np.random.Generator) -> None:
    """The gradient in a random direction is the difference quotient, up to its error of order h²."""
    x, v = rng.uniform(-1, 1, (3, 4)), rng.normal(size=(3, 4))
    h = 2.0**-14

    def loss(x: tgc.Tensor) -> tgc.Tensor:
        return (function(x) * 1.5).sin().sum()

    slope = float((tgc.grad(loss)(T(x)) * T(v)).sum())
    quotient = (float(loss(T(x + h * v))) - float(loss(T(x - h * v)))) / (2 * h)
    # the third derivative of these functions is below a thousand in every direction of length at most 10
    assert abs(slope - quotient) <= 1000 * h * h * 10
    assert float(tgc.jvp(loss, (T(x),), (T(v),))[1]) == pytest.approx(slope, rel=2.0**-40, abs=2.0**-40)


def test_nothing_has_a_derivative_too() -> None:
    x = T(np.zeros((0, 3)))
    gradient = tgc.grad(lambda x: (tgc.matrix_transpose(x) * x.T).sum())(x)
    assert gradient.shape == (0, 3)
    assert float((gradient.T * x.T).sum()) == 0


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tgc.add(T([1, 2]), T([1, 2, 3])), ShapeError, "do not broadcast"),
        (lambda: tgc.add(1, 2), UserError, "a int where a tensor is needed"),
        (lambda: tgc.exp(np.ones(2)), UserError, "a NumPy array where a tensor is needed"),
        (lambda: tgc.sum(T([1]), axis=1), ShapeError, "there is no axis 1"),
        (lambda: tgc.concat([T([1]), T([[1]])]), ShapeError, "concat"),
        (lambda: tgc.concat([]), UserError, "at least one"),
        (lambda: tgc.stack([T([1]), T([1, 2])]), ShapeError, "stack of"),
        (lambda: tgc.reshape(T([1, 2, 3]), (2, -1)), ShapeError, "cannot be reshaped"),
        (lambda: tgc.squeeze(T([1, 2]), 0), ShapeError, "has not size 1"),
        (lambda: tgc.moveaxis(T([1, 2]), 0, (0, 0)), ShapeError, "moveaxis"),
        (lambda: tgc.expand_dims(T([1]), axis=(0, 0)), ShapeError, "twice"),
        (lambda: tgc.repeat(T([1, 2]), [1, 2, 3]), ShapeError, "repetitions"),
        (lambda: tgc.repeat(T([1, 2]), T([1, 2])), UnsupportedError, "depends on values"),
        (lambda: tgc.cumulative_sum(T([[1]])), ShapeError, "needs an axis"),
        (lambda: tgc.take(T([[1]]), T([0])), ShapeError, "needs an axis"),
        (lambda: tgc.take_along_axis(T([[1]]), T([0])), ShapeError, "ranks are equal"),
        (lambda: tgc.where(T([1]), 1, 2), DTypeError, "bool condition"),
        (lambda: tgc.matmul(T([1, 2]), T([1, 2, 3])), ShapeError, "matrix product"),
        (lambda: tgc.matrix_transpose(T([1])), ShapeError, "matrices"),
        (lambda: tgc.tensordot(T([[1, 2]]), T([1, 2, 3]), axes=1), ShapeError, "tensordot"),
        (lambda: tgc.vecdot(T([1, 2]), T([1, 2, 3])), ShapeError, "vecdot"),
        (lambda: tgc.zeros((2, -1)), ShapeError, "a dimension of size -1"),
        (lambda: tgc.zeros(2.5), UserError, "no size"),
        (lambda: tgc.arange(0, 5, 0), UserError, "step 0"),
        (lambda: tgc.searchsorted(T([1]), T([1]), side="middle"), UserError, "left"),
        (lambda: tgc.tril(T([1])), ShapeError, "triangle"),
        (lambda: tgc.meshgrid(T([[1]])), ShapeError, "1-D"),
        (lambda: tgc.arange(5)[T(1) : T(3)], UserError, "depends on values"),
        (lambda: tgc.dynamic_slice(T([1, 2]), [0, 0], [1]), ShapeError, "starts"),
        (lambda: tgc.dynamic_slice(T([1, 2]), [T(0.5)], [1]), DTypeError, "cannot begin at"),
        (lambda: tgc.positive(T([True])), DTypeError, "bool"),
        (lambda: tgc.einsum("ij,jk->ik", T([[1, 2]]), T([[1]])), ShapeError, "'j' is 2 and 1"),
        (lambda: tgc.add(T([1], dtype=tgc.u64), T([1])), DTypeError, "no common integer dtype"),
    ],
)
def test_a_mistake_is_named_at_the_users_line(call: Callable[[], Any], error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert caught.value.location is not None
    assert caught.value.location.file == __file__
