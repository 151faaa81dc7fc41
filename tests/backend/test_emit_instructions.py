"""Every instruction against NumPy on edge values, scalar and vector, on each instruction set of this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.backend.host import host_target
from tgc.backend.jit import KernelLibrary
from tgc.dtypes import DTYPES, DType, bf16, bool_, f16, f32, f64, u32, u64
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Kernel, Value
from tgc.kernels.numpy_scalar import NumpyScalarBuilder
from tgc.kernels.verify import verify
from tgc.target import AVX2, SSE2, Target

Array = np.ndarray[Any, Any]
LANES = 8
ORACLE = NumpyScalarBuilder()
INTEGERS = [d for d in DTYPES.values() if d.is_integer]
WIDE_FLOATS = [f32, f64]
NUMBERS = [*INTEGERS, *WIDE_FLOATS]
COMPUTED = [bool_, *NUMBERS]


def runnable_targets() -> list[Target]:
    host = host_target()
    if not host.triple.startswith("x86_64"):
        return [host]
    return [host, *(t for t in (AVX2, SSE2) if t.vector_bits < host.vector_bits)]


TARGETS = runnable_targets()


def edge_values(dtype: DType) -> Array:
    """Limits, zeros, special values and a few ordinary numbers."""
    if dtype is bool_:
        return np.array([False, True])
    if dtype.is_integer:
        low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
        numbers = [
            0,
            1,
            2,
            3,
            7,
            31,
            dtype.bits - 1,
            dtype.bits,
            100,
            high // 3,
            high - 1,
            high,
            low,
            low + 1,
            -1,
            -2,
            -7,
        ]
        return np.array(sorted({n for n in numbers if low <= n <= high}), dtype.numpy)
    info = ml_dtypes.finfo(dtype.numpy)
    numbers = [
        0.0,
        0.3,
        0.5,
        1.0,
        1.5,
        2.5,
        3.7,
        127.5,
        255.5,
        2.0**31,
        2.0**32 + 3e3,
        2.0**63,
        2.0**64,
        8388607.5,
        6e4,
        66e3,
    ]
    numbers += [float(info.max), float(info.tiny), float(info.smallest_subnormal), float(info.tiny) * 0.75, np.inf]
    with np.errstate(all="ignore"):
        return np.array([*numbers, *(-x for x in numbers), np.nan], np.float64).astype(dtype.numpy)


class Case:
    """One instruction: ``build`` in a kernel, ``expect`` on arrays; ``arguments`` are its inputs, flat."""

    def __init__(
        self, name: str, build: Callable[..., Value], expect: Callable[..., Array], arguments: tuple[Array, ...]
    ) -> None:
        size = -(-arguments[0].size // LANES) * LANES
        self.name, self.build = name, build
        self.arguments = [np.resize(a, size) for a in arguments]
        with np.errstate(all="ignore"):
            self.expected = np.ascontiguousarray(expect(*self.arguments))

    def kernel(self, lanes: int) -> Kernel:
        b = KernelBuilder(f"{self.name}_{lanes}", count=self.arguments[0].size // lanes)
        offset = b.mul(b.iteration, lanes)
        dtypes = [next(d for d in DTYPES.values() if d.numpy == a.dtype) for a in (*self.arguments, self.expected)]
        loaded = [
            b.load(b.buffer(f"x{n}", d, a.size, "read"), offset, lanes)
            for n, (d, a) in enumerate(zip(dtypes[:-1], self.arguments, strict=True))
        ]
        b.store(b.buffer("out", dtypes[-1], self.expected.size, "write"), offset, self.build(b, *loaded))
        return b.finish()


def pairs(dtype: DType) -> tuple[Array, Array]:
    values = edge_values(dtype)
    a, b = np.meshgrid(values, values, indexing="ij")
    return a.ravel(), b.ravel()


def method(name: str, *extra: Any) -> Callable[..., Value]:
    return lambda b, *values: getattr(b, name)(*extra, *values)


def cases() -> Iterator[Case]:
    for dtype in COMPUTED:
        values, both = edge_values(dtype), pairs(dtype)

        def case(
            name: str, arguments: tuple[Array, ...], expect: Callable[..., Array] | None = None, dtype: DType = dtype
        ) -> Case:
            return Case(f"{name}_{dtype}", method(name), expect or getattr(ORACLE, name), arguments)

        for predicate in ("eq", "ne", "lt", "le", "gt", "ge"):
            yield Case(
                f"{predicate}_{dtype}",
                method("compare", predicate),
                lambda a, b, p=predicate: ORACLE.compare(p, a, b),
                both,
            )
            yield Case(
                f"choose_{predicate}_{dtype}",
                lambda b, x, y, p=predicate: b.select(b.compare(p, x, y), x, y),
                lambda x, y, p=predicate: np.where(ORACLE.compare(p, x, y), x, y),
                both,
            )
        yield case("select", (np.resize([True, False, False], both[0].size), *both))
        if dtype.is_float:
            for name in ("sqrt", "floor", "ceil", "trunc", "round_even"):
                yield case(name, (values,))
            yield case("fma", tuple(np.array(list(itertools.product(values[::2], values, values[::3]))).T))
        else:
            for name in ("bit_and", "bit_or", "bit_xor"):
                yield case(name, both)
            yield case("bit_not", (values,))
        if dtype.is_integer:
            for name in ("rem", "shift_left", "shift_right"):
                yield case(name, both)
            yield case("floor_divide", both, lambda a, b: np.where(b == 0, 0, a // b).astype(a.dtype))
            yield case("modulo", both, lambda a, b: np.where(b == 0, 0, a % b).astype(a.dtype))
            yield case(
                "population_count",
                (values,),
                lambda x: np.bitwise_count(x.view(f"u{x.dtype.itemsize}")).astype(x.dtype),
            )
            yield case("count_leading_zeros", (values,), leading_zeros)
        if dtype in (u32, u64):
            yield case("multiply_high", both)
        if dtype is not bool_:
            for name in ("add", "sub", "mul", "div", "minimum", "maximum"):
                yield case(name, both)
            for name in ("neg", "abs"):
                yield case(name, (values,))
            yield from constant_operands(dtype)


def leading_zeros(x: Array) -> Array:
    bits = 8 * x.dtype.itemsize
    return np.array([bits - (int(v) % 2**bits).bit_length() for v in x], x.dtype)


def constant_operands(dtype: DType) -> Iterator[Case]:
    """Operations with a literal on the right, which are emitted in another way."""
    values = edge_values(dtype)
    constants = (
        [0.0, -0.0, 2.5, np.nan]
        if dtype.is_float
        else [c for c in (0, 1, 3, 8, -1, -8, 31) if c >= 0 or dtype.kind == "int"]
    )
    names = ("minimum", "maximum")
    if dtype.is_integer:
        names += ("div", "rem", "floor_divide", "modulo", "shift_left", "shift_right")  # type: ignore[assignment]
    for name, (number, constant) in itertools.product(names, enumerate(constants)):
        if name in ("floor_divide", "modulo"):
            ufunc = np.floor_divide if name == "floor_divide" else np.mod

            def expect(x: Array, c: Any = constant, ufunc: Any = ufunc) -> Array:
                return np.zeros_like(x) if c == 0 else np.asarray(ufunc(x, x.dtype.type(c)))
        else:

            def expect(x: Array, c: Any = constant, name: str = name) -> Array:
                return np.asarray(getattr(ORACLE, name)(x, np.full_like(x, c)))

        yield Case(
            f"{name}_{dtype}_{number}",
            lambda b, x, c=constant, name=name: getattr(b, name)(x, c),
            expect,
            (values,),
        )


def conversions() -> Iterator[Case]:
    for source, target in itertools.product(DTYPES.values(), DTYPES.values()):
        values = edge_values(source)
        if source in (f32, f64):
            spread = np.random.default_rng(7).normal(size=1000) * 10.0 ** np.random.default_rng(8).integers(-9, 9, 1000)
            ties = np.ldexp(1 + np.arange(64) / 2**11, -13 - np.arange(64) % 16) * (1 + np.arange(64) % 3 * 2.0**-23)
            with np.errstate(all="ignore"):
                values = np.concatenate([values, spread, ties, 1 + np.arange(64) / 512]).astype(source.numpy)
        if source in (bf16, f16):
            values = np.arange(2**16, dtype=np.uint16).view(source.numpy)

        def expect(x: Array, target: DType = target) -> Array:
            if target.is_integer and x.dtype.kind not in "biu":
                return ORACLE.convert(x.astype(np.float64), target)
            if target is bf16 and x.dtype == np.float64:
                return round_once(x)
            return x.astype(target.numpy)

        yield Case(f"convert_{source}_{target}", lambda b, x, t=target: b.convert(x, t), expect, (values,))
    yield Case("bits_f32", lambda b, x: b.bitcast(x, u32), lambda x: x.view(np.uint32), (edge_values(f32),))
    yield Case("bits_u64", lambda b, x: b.bitcast(x, f64), lambda x: x.view(np.float64), (edge_values(u64),))


def round_once(x: Array) -> Array:
    """f64 to bf16 without the step over f32 that ml_dtypes takes: compare with both neighbours."""
    near = x.astype(ml_dtypes.bfloat16)
    bits = near.view(np.uint16)
    with np.errstate(all="ignore"):
        candidates = [(bits + np.uint16(step)).view(ml_dtypes.bfloat16) for step in (0, 1, -1 % 2**16)]
        distance = [np.abs(c.astype(np.float64) - x) for c in candidates]
        best = near
        for candidate, d in zip(candidates[1:], distance[1:], strict=True):
            best = np.where((d < distance[0]) & np.isfinite(near.astype(np.float32)), candidate, best)
    return best


def same_bits(a: Array, b: Array) -> Array:
    """Equal, or both NaN."""
    equal = a.view(f"u{a.dtype.itemsize}") == b.view(f"u{b.dtype.itemsize}")
    if a.dtype.kind in "fV":
        with np.errstate(all="ignore"):
            equal |= np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64))
    return equal


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.cpu}-{t.vector_bits}")
@pytest.mark.parametrize("group", [cases, conversions])
def test_instructions_give_the_bits_of_numpy(group: Callable[[], Iterator[Case]], target: Target) -> None:
    # without hardware a fused multiply-add of f64 is rounded twice near the limits
    made = [c for c in group() if target.fma or not c.name.startswith("fma_f64")]
    kernels = [c.kernel(lanes) for c in made for lanes in (1, LANES)]
    for kernel in kernels:
        verify(kernel)
    library = KernelLibrary(compile_module(emit_module(kernels, target), target), kernels)
    for case, lanes in itertools.product(made, (1, LANES)):
        out = np.zeros_like(case.expected)
        library.call(f"{case.name}_{lanes}", [*case.arguments, out])
        wrong = np.flatnonzero(~same_bits(out, case.expected))
        assert not wrong.size, (
            f"{case.name} x {lanes}: of {[a[wrong[0]] for a in case.arguments]} {out[wrong[0]]}, "
            f"expected {case.expected[wrong[0]]}, {wrong.size} wrong"
        )
