"""Every function of vector_math against its meaning in higher precision, over the whole range of its arguments."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.backend.host import host_target
from tgc.backend.jit import KernelLibrary
from tgc.dtypes import DType, bool_, f32, f64
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Kernel
from tgc.kernels.numpy_scalar import NumpyScalarBuilder
from tgc.kernels.vector_math import MATH, ULP
from tgc.ops import OPS
from tgc.target import AVX2, NEON, SSE2, WASM, Target

Array = NDArray[Any]

HOST = host_target()
# with fma they give the same bits everywhere
RUNNABLE = [HOST, *([AVX2, SSE2] if HOST.triple.startswith("x86_64") and HOST.vector_bits >= 256 else [])]
FUSED = NumpyScalarBuilder(functions=MATH)
TWICE_ROUNDED = NumpyScalarBuilder(functions=MATH, fused=False)
BINARY = {"pow", "atan2", "hypot", "fmod", "remainder", "floor_divide", "logaddexp", "copysign", "nextafter"}


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


# the meaning in f64, and that of a multiple-precision number
UNARY: dict[str, tuple[Callable[[Array], Array], Callable[[Any], Any]]] = {
    "exp": (np.exp, mpmath.exp),
    "exp2": (np.exp2, lambda x: mpmath.power(2, x)),
    "expm1": (np.expm1, mpmath.expm1),
    "sinh": (np.sinh, mpmath.sinh),
    "cosh": (np.cosh, mpmath.cosh),
    "tanh": (np.tanh, mpmath.tanh),
    "sigmoid": (_sigmoid, lambda x: 1 / (1 + mpmath.exp(-x))),
    "log": (np.log, mpmath.log),
    "log2": (np.log2, lambda x: mpmath.log(x) / mpmath.log(2)),
    "log10": (np.log10, lambda x: mpmath.log(x) / mpmath.log(10)),
    "log1p": (np.log1p, mpmath.log1p),
    "asinh": (np.arcsinh, mpmath.asinh),
    "acosh": (np.arccosh, mpmath.acosh),
    "atanh": (np.arctanh, mpmath.atanh),
    "sin": (np.sin, mpmath.sin),
    "cos": (np.cos, mpmath.cos),
    "tan": (np.tan, mpmath.tan),
    "asin": (np.arcsin, mpmath.asin),
    "acos": (np.arccos, mpmath.acos),
    "atan": (np.arctan, mpmath.atan),
    "erf": (np.vectorize(math.erf, otypes=[np.float64]), mpmath.erf),
    "erfc": (np.vectorize(math.erfc, otypes=[np.float64]), mpmath.erfc),
    "cbrt": (np.cbrt, lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x))),
    "rsqrt": (lambda x: 1.0 / np.sqrt(x), lambda x: 1 / mpmath.sqrt(x)),
}
SPECIAL = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -2.0, 3.0, -3.0, 1e30, -1e30, np.inf, -np.inf, np.nan]
# where an exhaustive search of f32 found the largest error of some function
HARD = [
    *("-0x1.765026p+2", "0x1.69b14cp-1", "-0x1.33a388p-1", "0x1.fda8fep-1", "0x1.8d2666p+0", "-0x1.f9fc6ap+6"),
    *("0x1.0fe5f6p+4", "-0x1.1a0794p+0", "0x1.4c3946p+8", "0x1.e4fb6ep+9", "-0x1.6e25d6p+0", "0x1.22ac94p+2"),
    *("0x1.66203cp+0", "0x1.54ed86p+0", "0x1.c4e6fap-2", "-0x1.2cb9c6p+0", "0x1.080414p+0", "0x1.7f6b9cp-1"),
    *("-0x1.b30c02p+12", "0x1.00234cp-1", "0x1.f0f7fp-2", "-0x1.b525cap-2", "0x1.ffe004p-124", "0x1.019566p-124"),
]


# the values of C99, Annex F.10, and of IEEE 754-2019, 9.2.1 (rsqrt)
INF, NAN = math.inf, math.nan
EXACT: dict[str, tuple[tuple[float, float], ...]] = {
    **dict.fromkeys(("exp", "exp2"), ((0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0))),
    "expm1": ((0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0)),
    **dict.fromkeys(
        ("log", "log2", "log10"), ((1.0, 0.0), (0.0, -INF), (-0.0, -INF), (-1.0, NAN), (INF, INF), (-INF, NAN))
    ),
    "log1p": ((0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (-2.0, NAN), (INF, INF), (-INF, NAN)),
    **dict.fromkeys(("sin", "tan"), ((0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN))),
    "cos": ((0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)),
    "asin": ((0.0, 0.0), (-0.0, -0.0), (1.0, math.pi / 2), (-1.0, -math.pi / 2), (1.5, NAN), (-INF, NAN)),
    "acos": ((1.0, 0.0), (-1.0, math.pi), (0.0, math.pi / 2), (1.5, NAN), (INF, NAN)),
    "atan": ((0.0, 0.0), (-0.0, -0.0), (1.0, math.pi / 4), (INF, math.pi / 2), (-INF, -math.pi / 2)),
    **dict.fromkeys(("sinh", "asinh", "cbrt"), ((0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF))),
    "cosh": ((0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF)),
    **dict.fromkeys(("tanh", "erf"), ((0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0))),
    "acosh": ((1.0, 0.0), (0.5, NAN), (INF, INF), (-INF, NAN)),
    "atanh": ((0.0, 0.0), (-0.0, -0.0), (1.0, INF), (-1.0, -INF), (1.5, NAN), (INF, NAN)),
    "erfc": ((0.0, 1.0), (INF, 0.0), (-INF, 2.0)),
    "rsqrt": ((0.0, INF), (-0.0, -INF), (INF, 0.0), (-1.0, NAN)),
    "sigmoid": ((0.0, 0.5), (INF, 1.0), (-INF, 0.0)),
}


def every_binade(dtype: DType, count: int) -> Array:
    """Numbers of all exponents and both signs, and more of those between -20 and 20, with all special ones."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    step = 2**dtype.bits // count
    random = np.random.default_rng(0)
    bits = np.arange(count, dtype=np.uint64) * np.uint64(step) + random.integers(0, step, count, dtype=np.uint64)
    info = np.finfo(dtype.name.replace("f", "float"))
    tiny, largest, smallest = float(info.tiny), float(info.max), float(info.smallest_subnormal)
    edges = [smallest, -smallest, tiny, -tiny, largest, -largest, 1.0 + float(info.eps), 1.0 - float(info.epsneg)]
    near = random.uniform(-20.0, 20.0, count // 4), random.uniform(-1.5, 1.5, count // 4)
    parts = [bits.astype(unsigned).view(dtype.numpy), np.array(SPECIAL + edges + [*map(float.fromhex, HARD)]), *near]
    return np.concatenate([part.astype(dtype.numpy) for part in parts])


def apply(name: str, *arguments: Array, builder: NumpyScalarBuilder = FUSED) -> Array:
    return np.asarray(MATH[name](builder, *arguments))


def error_in_ulp(result: Array, exact: Array) -> Array:
    """Infinite where a special value or the sign of zero is wrong."""
    rounded = exact.astype(result.dtype)
    special = ~np.isfinite(rounded) | ~np.isfinite(result)
    signs = np.signbit(result) == np.signbit(rounded)
    same = (result == rounded) & signs | np.isnan(result) & np.isnan(rounded)
    unit = np.spacing(np.abs(rounded)).astype(np.float64)
    below = (np.abs(exact) < np.abs(rounded)) & (np.frexp(rounded)[0] == 0.5)
    smallest = float(np.finfo(result.dtype).smallest_subnormal)
    unit = np.maximum(np.where(below, unit / 2, unit), smallest)
    error = np.abs(result.astype(np.float64) - exact) / unit
    return np.where(special, np.where(same, 0.0, np.inf), np.where(signs | (result != 0), error, np.inf))


def check(name: str, result: Array, exact: Array, bound: float, *arguments: Array) -> None:
    with np.errstate(all="ignore"):
        errors = error_in_ulp(result, exact)
    worst = int(np.argmax(errors))
    assert errors[worst] <= bound, (name, *(x[worst] for x in arguments), result[worst], exact[worst])


@pytest.mark.parametrize("name", UNARY)
def test_f32_is_within_its_bound_on_all_exponents(name: str) -> None:
    meaning, _ = UNARY[name]
    x = every_binade(f32, 1 << 18)
    with np.errstate(all="ignore"):
        exact = meaning(x.astype(np.float64))
        check(name, apply(name, x), exact, ULP[name], x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", UNARY)
def test_special_values_are_those_of_the_standards(name: str, dtype: type[np.floating[Any]]) -> None:
    x, y = np.array([(NAN, NAN), *EXACT[name]], dtype).T
    found = apply(name, x)
    np.testing.assert_array_equal(found, y)
    assert np.all(np.isnan(y) | (np.signbit(found) == np.signbit(y)))


@pytest.mark.parametrize("name", UNARY)
def test_without_hardware_for_fma_f32_loses_an_ulp_at_most(name: str) -> None:
    meaning, _ = UNARY[name]
    x = every_binade(f32, 1 << 14)
    with np.errstate(all="ignore"):
        check(name, apply(name, x, builder=TWICE_ROUNDED), meaning(x.astype(np.float64)), ULP[name] + 1.0, x)


@pytest.mark.parametrize("name", UNARY)
def test_f64_is_within_its_bound_of_the_exact_value(name: str) -> None:
    approximate_meaning, meaning = UNARY[name]
    candidates = every_binade(f64, 512)
    with np.errstate(all="ignore"):
        approximate = approximate_meaning(candidates)
    # where the library knows the result to be special, it is an exact value; elsewhere its digits are not trusted
    regular = np.isfinite(approximate) & np.isfinite(candidates) & (np.abs(approximate) > 1e-300)
    x = candidates[regular]
    result = apply(name, x)
    with mpmath.workprec(1200):
        for argument, value in zip(x.tolist(), result.tolist(), strict=True):
            exact = meaning(mpmath.mpf(argument))
            error = abs(exact - value) / math.ulp(float(abs(exact)))
            assert error <= ULP[name], (name, argument, value)
    special = candidates[~regular]
    check(name, apply(name, special), approximate[~regular], ULP[name], special)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_the_argument_closest_to_a_multiple_of_half_pi_keeps_its_digits(name: str) -> None:
    # Kahan's worst case of f64, and one of f32: the results are about 1e-19 and 1e-8 away from their limits
    for argument, dtype in ((6381956970095103.0 * 2.0**797, np.float64), (16367173.0 * 2.0**72, np.float32)):
        with mpmath.workprec(1200):
            exact = UNARY[name][1](mpmath.mpf(argument))
            found = float(apply(name, np.array([argument], dtype))[0])
            unit = float(np.spacing(dtype(abs(float(exact)))))
            assert abs(exact - found) <= ULP[name] * unit


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("pow", np.power),
        ("atan2", np.arctan2),
        ("hypot", np.hypot),
        ("fmod", np.fmod),
        ("remainder", np.remainder),
        ("floor_divide", np.floor_divide),
        ("copysign", np.copysign),
        ("nextafter", np.nextafter),
    ],
)
def test_functions_of_two_numbers(name: str, meaning: Callable[..., Array], dtype: DType) -> None:
    bound = ULP[name]
    random = np.random.default_rng(5)
    special = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1)
    moderate = random.uniform(-30.0, 30.0, (2, 4096))
    x, y = np.concatenate([special, moderate, np.rint(moderate)], axis=1).astype(dtype.numpy)
    binades = every_binade(dtype, 4096)
    x, y = np.concatenate([x, binades]), np.concatenate([y, random.permutation(binades)])
    with np.errstate(all="ignore"):
        wide = dtype is f32 and bound > 0
        exact = meaning(x.astype(np.float64), y.astype(np.float64)) if wide else meaning(x, y)
        # the library's own error, where there is no wider type
        check(name, apply(name, x, y), exact.astype(np.float64), bound + (bound > 0 and not wide), x, y)


def test_power_of_f64_is_within_its_bound_of_the_exact_value() -> None:
    random = np.random.default_rng(6)
    x = np.exp(random.uniform(-200.0, 200.0, 1000))
    y = random.uniform(-3.0, 3.0, 1000)
    with mpmath.workprec(200):
        for a, b, value in zip(x.tolist(), y.tolist(), apply("pow", x, y).tolist(), strict=True):
            exact = mpmath.power(mpmath.mpf(a), mpmath.mpf(b))
            assert abs(exact - value) <= ULP["pow"] * math.ulp(float(exact)), (a, b)


def test_logaddexp_is_accurate_beside_the_larger_term() -> None:
    random = np.random.default_rng(7)
    a, b = random.uniform(-90.0, 90.0, (2, 20000)).astype(np.float32)
    exact = np.logaddexp(a.astype(np.float64), b.astype(np.float64))
    unit = np.spacing(np.maximum(np.maximum(np.abs(a), np.abs(b)), 1.0))
    assert np.all(np.abs(apply("logaddexp", a, b) - exact) <= ULP["logaddexp"] * unit)
    infinite = np.array([[np.inf, -np.inf, np.inf, -np.inf, np.nan], [np.inf, -np.inf, -np.inf, 1.0, np.inf]])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(apply("logaddexp", *infinite), [np.inf, -np.inf, np.inf, 1.0, np.nan])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_results_are_exact(dtype: type[np.floating[Any]]) -> None:
    whole = np.arange(-126, 127).astype(dtype)
    powers = np.ldexp(dtype(1.0), np.arange(-126, 127)).astype(dtype)
    np.testing.assert_array_equal(apply("exp2", whole), powers)
    np.testing.assert_array_equal(apply("log2", powers), whole)
    np.testing.assert_array_equal(apply("pow", np.full_like(whole, 2.0), whole), powers)
    np.testing.assert_array_equal(apply("cbrt", whole**3), whole)
    small = np.arange(1.0, 12.0).astype(dtype)
    np.testing.assert_array_equal(apply("pow", small, np.full_like(small, 3.0)), small**3)
    np.testing.assert_array_equal(apply("hypot", 3.0 * small, 4.0 * small), 5.0 * small)
    for name in ("exp", "cosh", "cos", "erfc"):
        assert apply(name, np.zeros(1, dtype))[0] == 1.0
    np.testing.assert_array_equal(apply("signbit", np.array([-0.0, 0.0, -1.0], dtype)), [True, False, True])


def kernel(name: str, dtype: DType, lanes: int, blocks: int) -> Kernel:
    """One that applies a function to buffers of ``lanes * blocks`` numbers."""
    b = KernelBuilder(f"{name}_{dtype}", count=blocks)
    size = lanes * blocks
    operands = [b.buffer(f"x{i}", dtype, size, "read") for i in range(1 + (name in BINARY))]
    result = b.buffer("y", bool_ if name == "signbit" else dtype, size, "write")
    offset = b.mul(b.iteration, lanes)
    b.store(result, offset, b.math(name, *(b.load(x, offset, lanes) for x in operands)))
    return b.finish()


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.cpu)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_kernels_give_the_bits_of_the_scalar_bodies(dtype: DType, target: Target) -> None:
    names = list(MATH)
    x = every_binade(dtype, 1024)
    x = x[: x.size // 48 * 48]
    y = np.random.default_rng(8).permutation(x)
    for lanes in (target.lanes(dtype), 1):
        kernels = [kernel(n, dtype, lanes, x.size // lanes) for n in names]
        library = KernelLibrary(compile_module(emit_module(kernels, target, False), target), kernels, debug=False)
        for name in names:
            operands = (x, y) if name in BINARY else (x,)
            found = np.zeros(x.size, bool if name == "signbit" else dtype.numpy)
            library.call(f"{name}_{dtype}", [*operands, found])
            expected = apply(name, *operands, builder=NumpyScalarBuilder(functions=MATH, fused=target.fma))
            np.testing.assert_array_equal(found, expected, err_msg=name)
            if name != "signbit":
                signs = np.signbit(found) == np.signbit(expected)
                assert np.all(signs | np.isnan(expected)), name


@pytest.mark.parametrize("target", [NEON, SSE2, WASM], ids=lambda t: t.cpu)
def test_every_target_compiles_them_without_library_calls(target: Target) -> None:
    for dtype in (f32, f64):
        for name in MATH:
            module = [kernel(name, dtype, target.lanes(dtype), 4)]
            assert compile_module(emit_module(module, target, False), target)


def test_every_function_has_the_bound_of_its_operation() -> None:
    assert MATH.keys() == ULP.keys()
    # one more ulp where there is no fma
    inexact = {n: math.ceil(bound) + 1.0 for n, bound in ULP.items() if bound and n in OPS and OPS[n].error is None}
    assert inexact == {n: OPS[n].ulp for n in inexact}
