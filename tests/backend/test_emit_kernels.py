"""Memory, lanes, control flow and bounds checks of emitted kernels, and that all targets compile to vector code."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tgc.backend.codegen import assembly, compile_module
from tgc.backend.emit import emit_module
from tgc.backend.host import host_target
from tgc.backend.jit import KernelLibrary
from tgc.dtypes import DTYPES, DType, bf16, bool_, f16, f32, f64, i8, i32, i64, u8, u32
from tgc.errors import CompilerBug
from tgc.ir.dims import dim_max, symbol
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Kernel
from tgc.kernels.numpy_scalar import NumpyScalarBuilder
from tgc.kernels.verify import verify
from tgc.target import AVX2, AVX512, NEON, RISCV, SSE2, WASM, Target

Array = np.ndarray[Any, Any]
HOST = host_target()
RUNNABLE = [HOST, *([AVX2, SSE2] if HOST.triple.startswith("x86_64") and HOST.vector_bits >= 256 else [])]
TARGETS = [AVX512, AVX2, SSE2, NEON, RISCV, WASM]
runnable = pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.cpu)


def load_kernels(kernels: list[Kernel], target: Target = HOST, *, debug: bool = False) -> KernelLibrary:
    for kernel in kernels:
        verify(kernel)
    return KernelLibrary(compile_module(emit_module(kernels, target, debug), target), kernels, debug=debug)


def sample(dtype: DType, size: int) -> Array:
    rng = np.random.default_rng(size)
    return rng.integers(0, 2, size).astype(bool) if dtype is bool_ else rng.integers(0, 100, size).astype(dtype.numpy)


@runnable
@pytest.mark.parametrize("debug", [False, True])
def test_tails_touch_only_the_valid_lanes(target: Target, debug: bool) -> None:
    lanes, kernels = 16, []
    for dtype in DTYPES.values():
        b = KernelBuilder(f"copy_{dtype}", count=(symbol("n") + lanes - 1) // lanes)
        x, y = b.buffer("x", dtype, symbol("n"), "read"), b.buffer("y", dtype, symbol("n"), "write")
        z = b.buffer("z", dtype, 64, "write")
        offset = b.mul(b.iteration, lanes)
        rest = b.sub(b.index(symbol("n")), offset)
        value = b.load(x, offset, lanes, count=rest)
        b.store(y, offset, value, count=rest)
        b.store(z, 0, value)
        b.store(z, 16, b.load(x, offset, lanes, count=5), count=5)
        b.store(z, 32, b.load(x, offset, 1, count=b.sub(rest, 1)), count=rest)
        kernels.append(b.finish())
    library = load_kernels(kernels, target, debug=debug)
    for dtype in DTYPES.values():
        for n in (5, 15, 16, 27):
            x = sample(dtype, n)
            y, z = np.zeros_like(x), np.ones(64, dtype.numpy)
            library.call(f"copy_{dtype}", [x, y, z], {"n": n})
            np.testing.assert_array_equal(y, x)
            last = (n - 1) // lanes * lanes
            np.testing.assert_array_equal(z[: n - last], x[last:])
            np.testing.assert_array_equal(z[n - last : 16], np.zeros(16 - (n - last), dtype.numpy))


@runnable
@pytest.mark.parametrize("debug", [False, True])
def test_masks_gathers_and_scatters(target: Target, debug: bool) -> None:
    kernels = []
    for dtype in DTYPES.values():
        for offsets in (i32, i64):
            b = KernelBuilder(f"permute_{dtype}_{offsets}", count=1)
            x, p = b.buffer("x", dtype, 8, "read"), b.buffer("p", offsets, 8, "read")
            m, y = b.buffer("m", bool_, 8, "read"), b.buffer("y", dtype, 32, "readwrite")
            where, mask = b.load(p, 0, 8), b.load(m, 0, 8)
            b.store(y, 0, b.gather(x, where))
            b.store(y, 8, b.gather(x, where, mask=mask))
            b.scatter(y, b.add(where, 16), b.load(x, 0, 8), mask=mask)
            b.store(y, 24, b.load(x, 0, 8, mask=mask), mask=b.bit_not(mask))
            kernels.append(b.finish())
    library = load_kernels(kernels, target, debug=debug)
    mask = np.array([1, 0, 0, 1, 1, 0, 1, 1], bool)
    for dtype in DTYPES.values():
        for offsets in (i32, i64):
            x, p = sample(dtype, 8), np.array([3, 1, 7, 0, 2, 6, 5, 4], offsets.numpy)
            y = np.ones(32, dtype.numpy)
            library.call(f"permute_{dtype}_{offsets}", [x, p, mask, y])
            zero = np.zeros(8, dtype.numpy)
            scattered = np.ones(8, dtype.numpy)
            scattered[p[mask]] = x[mask]
            np.testing.assert_array_equal(y[:8], x[p])
            np.testing.assert_array_equal(y[8:16], np.where(mask, x[p], zero))
            np.testing.assert_array_equal(y[16:24], scattered)
            np.testing.assert_array_equal(y[24:], np.where(mask, np.ones(8, dtype.numpy), zero))


@runnable
def test_lanes_are_moved_and_reduced_in_a_fixed_tree(target: Target) -> None:
    b = KernelBuilder("lanes", count=1)
    x, y = b.buffer("x", f32, 8, "read"), b.buffer("y", f32, 16, "write")
    v = b.load(x, 0, 8)
    b.store(y, 0, b.reduce("add", v))
    b.store(y, 1, b.reduce("maximum", v))
    b.store(y, 2, b.extract(v, 3))
    b.store(y, 3, b.convert(b.reduce("bit_or", b.compare("gt", v, 1e8)), f32))
    b.store(y, 4, b.shuffle(v, b.splat(b.constant(-1.0, f32), 8), [7, 8, 0, 5]))
    b.store(y, 8, b.insert(b.convert(b.lane_indices(8), f32), b.constant(9.5, f32), 2))
    library = load_kernels([b.finish()], target)
    x = np.array([1e8, 1, -1e8, 3, 0.25, 5, 6, 7], np.float32)
    out = np.zeros(16, np.float32)
    library.call("lanes", [x, out])
    half = x[:4] + x[4:]
    quarter = half[:2] + half[2:]
    expected = [quarter[0] + quarter[1], 1e8, 3, 0, 7, -1, 1e8, 5, 0, 1, 9.5, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(out, np.array(expected, np.float32))


@runnable
@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d.compute is d], ids=str)
def test_reductions_of_every_dtype(target: Target, dtype: DType) -> None:
    bitwise = {"bit_and": np.bitwise_and, "bit_or": np.bitwise_or, "bit_xor": np.bitwise_xor}
    ordinary = {"add": np.add, "mul": np.multiply, "minimum": np.minimum, "maximum": np.maximum}
    functions = ordinary if dtype.is_float else bitwise if dtype is bool_ else ordinary | bitwise
    kernels = []
    for lanes in (2, 16, 64):
        b = KernelBuilder(f"reduce_{lanes}", count=1)
        x, y = b.buffer("x", dtype, lanes, "read"), b.buffer("y", dtype, len(functions), "write")
        for position, name in enumerate(functions):
            b.store(y, position, b.reduce(name, b.load(x, 0, lanes)))
        kernels.append(b.finish())
    library = load_kernels(kernels, target)
    for lanes in (2, 16, 64):
        x, y = sample(dtype, lanes) + np.ones(lanes, dtype.numpy), np.zeros(len(functions), dtype.numpy)
        if dtype.is_float:
            x = np.exp2(x % 3).astype(dtype.numpy)
        library.call(f"reduce_{lanes}", [x, y])
        expected = np.stack([f.reduce(x, dtype=x.dtype) for f in functions.values()])
        np.testing.assert_array_equal(y, expected.astype(x.dtype))


@runnable
def test_what_is_rarely_needed_is_computed_for_the_lanes_that_need_it(target: Target) -> None:
    b = KernelBuilder("rarely", count=4)
    x = b.buffer("x", f32, 32, "readwrite")
    offset = b.mul(b.iteration, 8)
    value = b.load(x, offset, 8)
    (value,) = b.rarely(b.compare("lt", value, 0.0), lambda: (b.sqrt(b.neg(value)),), (value,))
    b.store(x, offset, value)
    x = np.array([4, -4, 9, -9] * 4 + [1, 2, 3, 4] * 4, np.float32)
    load_kernels([b.finish()], target).call("rarely", [x])
    assert x.tolist() == [4, 2, 9, 3] * 4 + [1, 2, 3, 4] * 4


@runnable
def test_control_flow_nests_and_carries(target: Target) -> None:
    n = symbol("n")
    b = KernelBuilder("collatz", count=n)
    x, steps, total = b.buffer("x", i64, n, "read"), b.buffer("s", i64, n, "write"), b.buffer("t", i64, n, "write")
    with b.while_loop([b.load(x, b.iteration), b.constant(0, i64)]) as loop:
        value, count = loop.carried
        loop.condition(b.compare("gt", value, 1))
        with b.if_(b.compare("eq", b.bit_and(value, 1), 0)) as branch:
            branch.yield_(b.div(value, 2))
        with branch.otherwise():
            branch.yield_(b.add(b.mul(value, 3), 1))
        loop.yield_(branch.results[0], b.add(count, 1))
    b.store(steps, b.iteration, loop.results[1])
    with b.loop(0, b.iteration, 2, carried=[b.constant(0, i64)]) as outer:
        with b.loop(outer.index, 5, carried=[outer.carried[0]], name="j") as inner:
            inner.yield_(b.add(inner.carried[0], inner.index))
        outer.yield_(inner.results[0])
    b.store(total, b.iteration, outer.results[0])
    library = load_kernels([b.finish()], target)
    x = np.array([1, 2, 3, 6, 7, 27], np.int64)
    steps, total = np.zeros_like(x), np.zeros_like(x)
    library.call("collatz", [x, steps, total], {"n": 6})
    assert steps.tolist() == [0, 1, 7, 8, 16, 111]
    assert total.tolist() == [sum(j for k in range(0, i, 2) for j in range(k, 5)) for i in range(6)]


def test_a_branch_without_results_needs_no_alternative() -> None:
    b = KernelBuilder("positive", count=4)
    x = b.buffer("x", f32, 4, "readwrite")
    with b.if_(b.compare("lt", b.load(x, b.iteration), 0.0)):
        b.store(x, b.iteration, b.constant(0.0, f32))
    x = np.array([1, -1, 2, -2], np.float32)
    load_kernels([b.finish()]).call("positive", [x])
    assert x.tolist() == [1, 0, 2, 0]


def test_dimensions_are_computed_as_python_does() -> None:
    n, m = symbol("n"), symbol("m")
    dims = [n // 3 + 1, (n - 7) // 4, (n - 7) % 4, n * m - 5, dim_max(n - 20, m), 2 * n * n, n // m]
    b = KernelBuilder("dims", count=1)
    y = b.buffer("y", i64, len(dims), "write")
    for position, dim in enumerate(dims):
        b.store(y, position, b.index(dim))
    library = load_kernels([b.finish()])
    for values in ({"n": 1, "m": 3}, {"n": 30, "m": 7}):
        out = np.zeros(len(dims), np.int64)
        library.call("dims", [out], values)
        n_, m_ = values["n"], values["m"]
        expected = [n_ // 3 + 1, (n_ - 7) // 4, (n_ - 7) % 4, n_ * m_ - 5, max(n_ - 20, m_), 2 * n_ * n_, n_ // m_]
        assert out.tolist() == expected


def test_scratch_is_aligned_and_separate() -> None:
    n = symbol("n")
    b = KernelBuilder("scratch", count=2)
    y = b.buffer("y", f64, 4 * n, "write")
    first, second = b.scratch("first", u8, n + 3), b.scratch("second", f64, 2 * n)
    with b.loop(0, n) as loop:
        b.store(second, loop.index, b.constant(2.5, f64))
        b.store(first, loop.index, b.constant(255, u8))
    with b.loop(0, n) as loop:
        sum_ = b.add(b.load(second, loop.index), b.convert(b.load(first, loop.index), f64))
        b.store(y, b.add(b.mul(b.iteration, n), loop.index), sum_)
    kernel = b.finish()
    assert str(kernel.scratch_bytes) == str((n + 66) // 64 * 64 + (16 * n + 63) // 64 * 64)
    out = np.zeros(4 * 70)
    load_kernels([kernel], debug=True).call("scratch", [out], {"n": 70})
    assert (out[:140] == 257.5).all()
    assert not out[140:].any()


@pytest.mark.parametrize(
    ("access", "offset"),
    [("load", 10), ("load", -1), ("store", 3), ("gather", 10), ("scatter", -1), ("masked", 7), ("counted", 6)],
)
def test_debug_code_reports_accesses_out_of_bounds(access: str, offset: int) -> None:
    b = KernelBuilder(access, count=1)
    x, at = b.buffer("x", f32, 10, "readwrite"), b.buffer("at", i64, 1, "read")
    o = b.load(at, 0)
    value = b.constant(1.0, f32, 8)
    match access:
        case "load":
            b.store(x, 0, b.load(x, o))
        case "store":
            b.store(x, o, value)
        case "gather":
            b.store(x, 0, b.gather(x, b.splat(o, 8)))
        case "scatter":
            b.scatter(x, b.splat(o, 8), value)
        case "masked":
            b.store(x, o, value, mask=b.compare("lt", b.lane_indices(8), 4))
        case "counted":
            b.store(x, o, value, count=b.add(o, -1))
    library = load_kernels([b.finish()], debug=True)
    x = np.zeros(10, np.float32)
    with pytest.raises(CompilerBug, match=f"kernel {access} accesses x of 10 elements at"):
        library.call(access, [x, np.array([offset])])
    assert not x.any()
    library.call(access, [x, np.array([2])])


def register_tile(rows: int, vectors: int, lanes: int) -> Kernel:
    """C[rows, vectors * lanes] = A B over k, as contractions are built."""
    depth, width = 64, vectors * lanes
    b = KernelBuilder("tile", count=symbol("m"), noalias=True)
    left = b.buffer("a", f32, symbol("m") * rows * depth, "read")
    right = b.buffer("b", f32, depth * width, "read")
    out = b.buffer("c", f32, symbol("m") * rows * width, "write")
    base = b.mul(b.iteration, rows * depth)
    with b.loop(0, depth, carried=[b.constant(0.0, f32, lanes)] * (rows * vectors)) as loop:
        column = b.mul(loop.index, width)
        loaded = [b.load(right, b.add(column, v * lanes), lanes) for v in range(vectors)]
        start, sums = b.add(base, loop.index), list(loop.carried)
        for row in range(rows):
            factor = b.load(left, b.add(start, row * depth))
            for v in range(vectors):
                sums[row * vectors + v] = b.multiply_add(factor, loaded[v], sums[row * vectors + v])
        loop.yield_(*sums)
    base = b.mul(b.iteration, rows * width)
    for row in range(rows):
        for v in range(vectors):
            b.store(out, b.add(base, row * width + v * lanes), loop.results[row * vectors + v])
    return b.finish()


def spills(text: str) -> bool:
    """Whether assembly moves vectors to or from the stack."""
    return re.search(r"\(%rsp\)|\bq\d+, .*\[sp|\bv[sl]\d+r\.v\b", text) is not None


@pytest.mark.parametrize(
    ("target", "rows", "vectors", "instruction"),
    [
        (AVX512, 14, 2, r"vfmadd231ps\s.*zmm"),
        (AVX2, 6, 2, r"vfmadd231ps\s.*ymm"),
        (NEON, 8, 3, r"fmla\s+v\d+\.4s"),
        (RISCV, 14, 2, r"vfmacc\.v"),
        (WASM, 4, 2, r"f32x4\.mul"),
    ],
    ids=["avx512", "avx2", "neon", "riscv", "wasm"],
)
def test_the_register_tile_stays_in_registers(target: Target, rows: int, vectors: int, instruction: str) -> None:
    kernel = register_tile(rows, vectors, target.lanes(f32))
    verify(kernel)
    text = assembly(emit_module([kernel], target), target)
    assert len(re.findall(instruction, text)) == rows * vectors
    assert not spills(text)


@pytest.mark.parametrize(("target", "rows", "vectors"), [(AVX512, 18, 2), (AVX2, 9, 2), (NEON, 12, 3), (RISCV, 20, 2)])
def test_a_tile_that_is_too_large_would_be_seen_to_spill(target: Target, rows: int, vectors: int) -> None:
    kernel = register_tile(rows, vectors, target.lanes(f32))
    assert spills(assembly(emit_module([kernel], target), target))


def test_the_register_tile_computes_a_product() -> None:
    kernel = register_tile(6, 2, 8)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-5, 5, (12, 64)).astype(np.float32), rng.integers(-5, 5, (64, 16)).astype(np.float32)
    c = np.zeros((12, 16), np.float32)
    load_kernels([kernel], debug=True).call("tile", [a, b, c], {"m": 2})
    np.testing.assert_array_equal(c, a @ b)


def representative_kernels(lanes: int) -> list[Kernel]:
    n, kernels = symbol("n"), []
    for dtype in (f32, f16, bf16, i8, u32):
        b = KernelBuilder(f"map_{dtype}", count=(n + lanes - 1) // lanes)
        x, y = b.buffer("x", dtype, n, "read"), b.buffer("y", dtype, n, "readwrite")
        m, offset = b.buffer("m", bool_, n, "read"), b.mul(b.iteration, lanes)
        rest = b.sub(b.index(n), offset)
        value = b.convert(b.load(x, offset, lanes, count=rest), f32)
        value = b.maximum(b.fma(value, value, b.sqrt(b.abs(value))), b.neg(value))
        value = b.select(b.load(m, offset, lanes, count=rest), b.floor(value), b.round_even(value))
        value = b.add(value, b.convert(b.load(y, offset, lanes, count=rest), f32))
        b.store(y, offset, b.convert(value, dtype), count=rest)
        kernels.append(b.finish())
    b = KernelBuilder("rows", count=n)
    x, y = b.buffer("x", f32, n * 64, "read"), b.buffer("y", f32, n, "write")
    i, row = b.buffer("i", i64, lanes, "read"), b.scratch("row", f32, 64)
    with b.loop(0, 64, lanes, carried=[b.constant(float("-inf"), f32, lanes)]) as loop:
        value = b.load(x, b.add(b.mul(b.iteration, 64), loop.index), lanes)
        b.store(row, loop.index, value)
        loop.yield_(b.maximum(loop.carried[0], value))
    spread = b.gather(row, b.load(i, 0, lanes))
    b.scatter(row, b.load(i, 0, lanes), spread, mask=b.compare("lt", spread, 0.0))
    divided = b.div(b.convert(spread, i64), b.add(b.load(i, 0, lanes), 3))
    b.prefetch(x, b.mul(b.iteration, 64))
    b.store(y, b.iteration, b.add(b.reduce("maximum", loop.results[0]), b.convert(b.reduce("add", divided), f32)))
    kernels.append(b.finish())
    return kernels


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.triple.split('-')[0]}-{t.cpu}")
def test_every_target_compiles_without_library_calls(target: Target, debug: bool) -> None:
    kernels = [*representative_kernels(target.lanes(f32)), register_tile(4, 2, target.lanes(f32))]
    assert compile_module(emit_module(kernels, target, debug), target)


def test_results_do_not_depend_on_the_instruction_set() -> None:
    kernels = representative_kernels(16)
    x = np.random.default_rng(5).normal(size=100).astype(np.float32) * 20
    results = []
    for target in RUNNABLE:
        out = np.ones(100, np.float32)
        load_kernels(kernels, target).call("map_f32", [x, out, x > 3], {"n": 100})
        results.append(out.tobytes())
    assert len(set(results)) == 1


def test_a_fused_operation_without_hardware_is_rounded_once() -> None:
    rng = np.random.default_rng(3)
    oracle = NumpyScalarBuilder()
    for dtype in (f32, f64):
        x = (rng.normal(size=(3, 4096)) * 2.0 ** rng.integers(-60, 60, (3, 4096))).astype(dtype.numpy)
        x[2, ::2] = -(x[0, ::2] * x[1, ::2]) * (1 + rng.integers(-2, 3, 2048) * float(np.finfo(dtype.numpy).eps))
        b = KernelBuilder("fused", count=512)
        buffers = [b.buffer(name, dtype, 4096, "read") for name in "abc"]
        out = b.buffer("out", dtype, 4096, "write")
        offset = b.mul(b.iteration, 8)
        b.store(out, offset, b.fma(*[b.load(buffer, offset, 8) for buffer in buffers]))
        for target in RUNNABLE:
            y = np.zeros_like(x[0])
            load_kernels([b.finish()], target).call("fused", [*x, y])
            np.testing.assert_array_equal(y, oracle.fma(*x))


def test_a_block_that_llvm_would_take_minutes_for_is_refused() -> None:
    b = KernelBuilder("long", count=1)
    x = b.buffer("x", f32, 16, "readwrite")
    value = b.load(x, 0, 16)
    for _ in range(1600):
        value = b.add(value, b.load(x, 0, 16))
    b.store(x, 0, value)
    with pytest.raises(CompilerBug, match="more than 1500 vector operations"):
        emit_module([b.finish()], AVX512)
