"""The NumPy scalar builder against rational and Python arithmetic."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tgc.dtypes import DTYPES, DType, bool_, f32, f64, i8, i32, i64, u8, u32, u64
from tgc.errors import UserError
from tgc.kernels.numpy_scalar import NumpyScalarBuilder

Array = NDArray[Any]
S = NumpyScalarBuilder()
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]


def numbers(dtype: DType, size: int, seed: int) -> Array:
    """Floats of all exponents, specials among them."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2**dtype.bits, size, dtype=np.uint64).astype(f"u{dtype.itemsize}").view(dtype.numpy)
    near = random.normal(size=size).astype(dtype.numpy)
    special = random.choice(np.array(SPECIAL), size).astype(dtype.numpy)
    return np.where(random.integers(0, 8, size) == 0, special, np.where(random.integers(0, 2, size), bits, near))


def exact_fma(a: float, b: float, c: float, dtype: DType) -> float:
    """In rational arithmetic, rounded once."""
    if not all(map(math.isfinite, (a, b, c))) or 0.0 in (a, b):
        with np.errstate(all="ignore"):
            return float(np.float64(a) * np.float64(b) + np.float64(c))
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return 0.0
    precision, least, limit = (24, -149, 128) if dtype is f32 else (53, -1074, 1024)
    size = abs(exact)
    binade = size.numerator.bit_length() - size.denominator.bit_length()
    binade -= Fraction(2) ** binade > size
    unit = Fraction(2) ** max(binade - precision + 1, least)
    rounded = round(size / unit) * unit
    sign = 1.0 if exact > 0 else -1.0
    return sign * (float(rounded) if rounded < 2**limit else math.inf)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_fma_rounds_once(dtype: DType) -> None:
    a, b, c = (numbers(dtype, 4000, seed) for seed in range(3))
    # sums that cancel down to the error of the product, ties, and subnormal results
    with np.errstate(all="ignore"):
        c = np.where(np.arange(4000) % 3 == 0, -(a * b), c)
        a[1::7], b[1::7] = np.ldexp(a[1::7], -600), np.ldexp(b[1::7], -400)
    found = S.fma(a, b, c)
    for x, y, z, value in zip(a.tolist(), b.tolist(), c.tolist(), found.tolist(), strict=True):
        expected = exact_fma(x, y, z, dtype)
        assert (value == expected and math.copysign(1, value) == math.copysign(1, expected)) or (
            math.isnan(value) and math.isnan(expected)
        ), (x, y, z)


def test_multiply_add_rounds_twice_without_hardware() -> None:
    x = np.float32([1 + 2**-12])
    assert NumpyScalarBuilder(fused=False).multiply_add(x, x, -x * x)[0] == 0.0
    assert S.multiply_add(x, x, -x * x)[0] == 2.0**-24


@pytest.mark.parametrize("dtype", [i8, i32, i64, u8, u32, u64], ids=str)
def test_integers_divide_shift_and_multiply_without_undefined_cases(dtype: DType) -> None:
    random = np.random.default_rng(3)
    a = random.integers(0, 2**64, 500, dtype=np.uint64).astype(dtype.numpy)
    b = np.where(random.integers(0, 2, 500), a[::-1], random.integers(-3 if dtype.kind == "int" else 0, 70, 500))
    b = b.astype(dtype.numpy)
    wrap = 2**dtype.bits
    for x, y, quotient, remainder in zip(
        a.tolist(), b.tolist(), S.div(a, b).tolist(), S.rem(a, b).tolist(), strict=True
    ):
        expected = 0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        assert (quotient - expected) % wrap == 0
        assert remainder == (0 if y == 0 else x - expected * y)
    shift = random.integers(0, min(dtype.bits + 9, 127), 500).astype(dtype.numpy)
    for x, n, left, right in zip(
        a.tolist(), shift.tolist(), S.shift_left(a, shift).tolist(), S.shift_right(a, shift).tolist(), strict=True
    ):
        assert (left - (x << n)) % wrap == 0
        assert right == x >> n
    if dtype in (u32, u64):
        assert S.multiply_high(a, b).tolist() == [
            x * y >> dtype.bits for x, y in zip(a.tolist(), b.tolist(), strict=True)
        ]


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d.is_integer], ids=str)
def test_floats_saturate_when_converted(dtype: DType) -> None:
    least = -(2 ** (dtype.bits - 1)) if dtype.kind == "int" else 0
    most = 2 ** (dtype.bits - (dtype.kind == "int")) - 1
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.9, float(least)])
    assert S.convert(x, dtype).tolist() == [0, most, least, most, least, 2, least]
    assert S.convert(np.array([0.0, -0.0, np.nan, 0.5]), bool_).tolist() == [False, False, True, True]


def test_minimum_and_maximum_order_zeros_and_keep_nan() -> None:
    a, b = np.array([0.0, -0.0, np.nan, 1.0]), np.array([-0.0, 0.0, 1.0, np.nan])
    assert np.signbit(S.minimum(a, b)[:2]).all()
    assert not np.signbit(S.maximum(a, b)[:2]).any()
    assert np.isnan(S.minimum(a, b)[2:]).all()
    assert np.isnan(S.maximum(a, b)[2:]).all()


def test_an_unknown_function_is_said() -> None:
    with pytest.raises(UserError, match="no math function"):
        S.math("exp", np.float32([1.0]))
