"""Compiled math functions give, bit for bit, what their formulas give on NumPy arrays."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.backend.host import host_target
from tgc.backend.jit import KernelLibrary
from tgc.dtypes import DType, f32, f64, from_numpy
from tgc.errors import TgcError
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Kernel
from tgc.kernels.numpy_scalar import NumpyScalarBuilder
from tgc.kernels.vector_math import MATH
from tgc.target import AVX2, SSE2, Target

HOST = host_target()
TARGETS = [HOST, *([AVX2, SSE2] if HOST.triple.startswith("x86_64") and HOST.vector_bits >= 256 else [])]
LANES = 8


def inputs(dtype: DType, count: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(11)
    special = [0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan, 1e-40, 1e38, 88.7, -103.0, 709.0, -745.0, 1e5, 30.0]
    spread = rng.normal(size=240) * 10.0 ** rng.integers(-6, 4, 240)
    with np.errstate(all="ignore"):
        values = np.concatenate([special, spread]).astype(dtype.numpy)
    return [np.roll(values, 7 * shift) for shift in range(count)]


def arity(name: str) -> int:
    """How many arguments a function takes, by trying: the table wraps formulas."""
    for count in (1, 2, 3):
        try:
            MATH[name](NumpyScalarBuilder(functions=MATH), *inputs(f32, count))
        except TypeError:
            continue
        return count
    raise AssertionError(f"{name} takes neither one, two nor three arguments: {inspect.signature(MATH[name])}")


def math_kernel(name: str, dtype: DType, count: int, result: DType) -> Kernel:
    size = inputs(dtype, 1)[0].size
    b = KernelBuilder(f"{name}_{dtype}", count=size // LANES)
    offset = b.mul(b.iteration, LANES)
    loaded = [b.load(b.buffer(f"x{n}", dtype, size, "read"), offset, LANES) for n in range(count)]
    b.store(b.buffer("y", result, size, "write"), offset, b.math(name, *loaded))
    return b.finish()


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.cpu)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_math_functions_have_the_bits_of_their_formulas(target: Target, dtype: DType) -> None:
    counts = {name: arity(name) for name in MATH}
    made, kernels = [], []
    for name, count in counts.items():
        try:
            oracle = np.asarray(MATH[name](NumpyScalarBuilder(fused=target.fma, functions=MATH), *inputs(dtype, count)))
        except TgcError:
            continue
        made.append((name, oracle))
        kernels.append(math_kernel(name, dtype, count, from_numpy(oracle.dtype)))
    assert len(made) > 10
    library = KernelLibrary(compile_module(emit_module(kernels, target), target), kernels)
    for name, expected in made:
        arguments = inputs(dtype, counts[name])
        out = np.empty_like(expected)
        library.call(f"{name}_{dtype}", [*arguments, out])
        bits = f"u{expected.itemsize}"
        wrong = np.flatnonzero((out.view(bits) != expected.view(bits)) & ~((out != out) & (expected != expected)))
        assert not wrong.size, (name, [a[wrong[0]] for a in arguments], out[wrong[0]], expected[wrong[0]], wrong.size)
