"""Every function of vector_math against its meaning in higher precision, over the whole range of its arguments."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tgc.kernels.numpy_scalar import NumpyScalarBuilder
from tgc.kernels.vector_math import MATH

Array = NDArray[np.generic]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


# the meaning in f64, and the promised error in units in the last place
UNARY: dict[str, tuple[Callable[[Array], Array], float]] = {
    "exp": (np.exp, 1.0),
    "exp2": (np.exp2, 1.0),
    "expm1": (np.expm1, 2.0),
    "sinh": (np.sinh, 2.0),
    "cosh": (np.cosh, 2.0),
    "tanh": (np.tanh, 1.5),
    "sigmoid": (_sigmoid, 2.0),
    "log": (np.log, 1.0),
    "log2": (np.log2, 1.5),
    "log10": (np.log10, 1.5),
    "log1p": (np.log1p, 2.0),
    "asinh": (np.arcsinh, 2.0),
    "acosh": (np.arccosh, 2.0),
    "atanh": (np.arctanh, 2.0),
    "erf": (_erf, 1.0),
}


def every_binade(count: int) -> Array:
    """f32 numbers of all exponents and both signs, zeros, infinities and NaN among them."""
    step = 2**32 // count
    random = np.random.default_rng(0).integers(0, step, count, dtype=np.uint64)
    bits = np.arange(0, 2**32, step, dtype=np.uint64) + random
    special = np.array([0.0, -0.0, 1.0, -1.0, 2.0, np.inf, -np.inf, np.nan], np.float32)
    edges = np.float32([-(2.0**-149), 2.0**-149, 2.0**-126, -(2.0**-126), 3.4028235e38, -3.4028235e38])
    near = np.random.default_rng(1).uniform(-20.0, 20.0, count // 4).astype(np.float32)
    return np.concatenate([bits.astype(np.uint32).view(np.float32), special, edges, near])


def error_in_ulp(result: Array, exact: Array) -> Array:
    """Infinite where a special value or the sign of zero is wrong."""
    rounded = exact.astype(result.dtype)
    special = ~np.isfinite(rounded) | ~np.isfinite(result)
    same = (result == rounded) & (np.signbit(result) == np.signbit(rounded)) | np.isnan(result) & np.isnan(rounded)
    unit = np.spacing(np.abs(rounded)).astype(np.float64)
    # the spacing below a power of two counts where the exact value lies below it
    unit = np.where((np.abs(exact) < np.abs(rounded)) & (np.frexp(rounded)[0] == 0.5), unit / 2, unit)
    error = np.abs(result.astype(np.float64) - exact) / np.maximum(unit, 2.0**-149)
    wrong_zero = (result == 0) & (rounded == 0) & (np.signbit(result) != np.signbit(rounded))
    return np.where(special, np.where(same, 0.0, np.inf), np.where(wrong_zero, np.inf, error))


@pytest.mark.parametrize("name", UNARY)
def test_f32_is_within_its_bound_on_all_exponents(name: str) -> None:
    meaning, bound = UNARY[name]
    x = every_binade(1 << 18)
    with np.errstate(all="ignore"):
        errors = error_in_ulp(MATH[name](NumpyScalarBuilder(functions=MATH), x), meaning(x.astype(np.float64)))
    worst = int(np.argmax(errors))
    assert errors[worst] <= bound, f"{name}({x[worst]!r})"
