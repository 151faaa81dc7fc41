"""Maps, row-wise functions, reductions, movement, indexing, sorting and attention."""

from __future__ import annotations

import numpy as np

from benchmarks.workload import Arrays, Workload, f32_bytes, made, uniform

MATRIX = (512, 1024)
OPTIONS = 1 << 20


def black_scholes(rng: np.random.Generator) -> Arrays:
    """Prices of the underlying, strikes and times of as many options."""
    ranges = {"spot": (10, 50), "strike": (10, 50), "time": (0.2, 2)}
    return {name: rng.uniform(*bounds, OPTIONS).astype(np.float32) for name, bounds in ranges.items()}


def rowwise() -> list[Workload]:
    """Functions of rows, and fused maps."""
    row = (1024,)
    twice = f32_bytes(MATRIX, MATRIX)
    return [
        Workload("softmax", "softmax", lambda rng: {"x": uniform(rng, *MATRIX) * 4}, moved=twice),
        Workload("layer-norm", "layer_norm", made(x=MATRIX, weight=row, bias=row), moved=twice),
        Workload("rms-norm", "rms_norm", made(x=MATRIX, weight=row), moved=twice),
        Workload("gelu-gate", "gelu_gate", made(x=MATRIX, g=row, b=row), moved=twice),
        Workload("black-scholes", "black_scholes", black_scholes, moved=f32_bytes((5, OPTIONS)), tolerance=1e-4),
    ]


def reductions() -> list[Workload]:
    """Sums, argmax and cumulative sums of a square matrix."""
    square = (2048, 2048)
    once = f32_bytes(square)
    given = made(x=square)
    return [
        Workload("sum-axis0", "sum", given, {"axis": 0}, moved=once),
        Workload("sum-axis1", "sum", given, {"axis": 1}, moved=once),
        Workload("sum-all", "sum", given, {"axis": None}, moved=once, tolerance=1e-3),
        Workload("argmax", "argmax", given, {"axis": 1}, moved=once, tolerance=0.0),
        Workload("cumsum", "cumsum", given, {"axis": 1}, moved=2 * once),
    ]


def movement() -> list[Workload]:
    """Transposes, concatenation, gather, scatter-add and sort."""
    square, image = (2048, 2048), (8, 64, 56, 56)

    def gathered(rng: np.random.Generator) -> Arrays:
        return {"x": uniform(rng, 50_000, 256), "index": rng.integers(0, 50_000, 8192)}

    def scattered(rng: np.random.Generator) -> Arrays:
        return {**gathered(rng), "updates": uniform(rng, 8192, 256)}

    return [
        Workload("transpose-2d", "transpose", made(x=square), {"axes": (1, 0)}, moved=2 * f32_bytes(square)),
        Workload("nchw-to-nhwc", "transpose", made(x=image), {"axes": (0, 2, 3, 1)}, moved=2 * f32_bytes(image)),
        Workload(
            "nhwc-to-nchw", "transpose", made(x=(8, 56, 56, 64)), {"axes": (0, 3, 1, 2)}, moved=2 * f32_bytes(image)
        ),
        Workload("concat", "concat", made(x=square, y=square), {"axis": 1}, moved=4 * f32_bytes(square)),
        Workload("gather-rows", "gather", gathered, moved=2 * f32_bytes((8192, 256))),
        Workload("scatter-add", "scatter_add", scattered, moved=2 * f32_bytes((50_000, 256))),
        Workload("sort", "sort", made(x=(1 << 20,)), moved=2 * f32_bytes((1 << 20,)), tolerance=0.0),
    ]


def attention(length: int, *, name: str = "attention") -> Workload:
    """12 heads of size 64."""
    shape = (1, 12, length, 64)
    return Workload(
        name,
        "attention",
        made(q=shape, k=shape, v=shape),
        flops=4.0 * 12 * length * length * 64,
        moved=4 * f32_bytes(shape),
    )


def rows() -> list[Workload]:
    """Every row of this file."""
    return [*rowwise(), *reductions(), *movement(), attention(512)]


def growth() -> list[Workload]:
    """Attention over longer and longer sequences."""
    return [attention(n, name=f"growth-attention-{n}") for n in (64, 256, 1024, 4096)]
