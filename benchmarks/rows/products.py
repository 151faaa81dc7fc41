"""Matrix products: square, from networks, transposed, batched, narrow, and in f64."""

from __future__ import annotations

import numpy as np

from benchmarks.workload import Arrays, Workload, f32_bytes, made, uniform

SHAPES = ((126, 128, 784), (3136, 64, 576), (64, 4096, 1024))


def gemm(m: int, n: int, k: int, *, name: str | None = None) -> Workload:
    """a[m, k] @ b[k, n]."""
    return Workload(
        name or f"gemm-{m}x{n}x{k}",
        "matmul",
        made(a=(m, k), b=(k, n)),
        flops=2.0 * m * n * k,
        moved=f32_bytes((m, k), (k, n), (m, n)),
    )


def transposed(which: str) -> Workload:
    """A square product of which some operands are stored transposed."""
    return Workload(
        f"gemm-1024-{which}",
        "matmul",
        made(a=(1024, 1024), b=(1024, 1024)),
        {"transpose_a": which[0] == "t", "transpose_b": which[1] == "t"},
        flops=2.0 * 1024**3,
        moved=f32_bytes((3, 1024, 1024)),
    )


def doubles(rng: np.random.Generator) -> Arrays:
    """Two matrices of f64."""
    return {name: uniform(rng, 1024, 1024).astype(np.float64) for name in "ab"}


def rows() -> list[Workload]:
    """Every product."""
    return [
        *(gemm(n, n, n, name=f"gemm-{n}") for n in (256, 512, 1024, 2048)),
        *(gemm(*shape) for shape in SHAPES),
        *(transposed(which) for which in ("tn", "nt", "tt")),
        gemm(1, 4096, 4096),
        Workload(
            "gemm-batched-96",
            "matmul",
            made(a=(96, 128, 64), b=(96, 64, 128)),
            flops=2.0 * 96 * 128 * 64 * 128,
            moved=f32_bytes((96, 128, 64), (96, 64, 128), (96, 128, 128)),
        ),
        Workload("gemm-f64-1024", "matmul", doubles, flops=2.0 * 1024**3, peak_share=0.5),
    ]


def growth() -> list[Workload]:
    """Square products from small to large."""
    return [gemm(n, n, n, name=f"growth-gemm-{n}") for n in (64, 128, 256, 512, 1024, 2048, 4096)]
