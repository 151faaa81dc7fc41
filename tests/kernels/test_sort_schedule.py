"""Sorting by ranks and by digits, and where one takes over from the other, bit for bit as the op is defined."""

from collections.abc import Callable

import numpy as np
import pytest

from tgc.dtypes import DTYPES, DType, bool_, f32, i64, u8
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Graph, parameter
from tgc.ir.types import TensorType
from tgc.kernels.sort import longest_ranked, lower
from tgc.ops import OPS
from tgc.reference import run_graph
from tgc.target import AVX2, AVX512, NEON, SSE2, Target

N = symbol("n")
SORTED = [d for d in DTYPES.values() if d is not bool_]
# either side of the longest line that goes by ranks, and of a block of digits
LENGTHS = (0, 1, 2, 63, 128, 129, 300, 1030)


def region(name: str, dtype: DType, shape: tuple[Dim, ...], axis: int, descending: bool) -> Graph:
    x = parameter(0, TensorType(dtype, shape))
    return Graph((x,), (Builder(OPS).op(name, x, attributes={"axis": axis, "descending": descending}),))


def values(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """Many equal ones, and each value that a key must take care of: zeros and NaN of both signs, both extremes."""
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy)
        wide = rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)
        few = np.array([info.min, info.max, 0, 1], dtype.numpy)
        return np.where(rng.random(shape) < 0.5, wide, rng.choice(few, shape))
    special = rng.choice(np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-5, -1e-5]), shape)
    return np.where(rng.random(shape) < 0.5, rng.standard_normal(shape) * 9, special).astype(dtype.numpy)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", ["sort", "argsort"])
@pytest.mark.parametrize("dtype", SORTED, ids=str)
def test_lines_of_any_length_are_sorted(
    dtype: DType, name: str, descending: bool, compiled: Callable, rng: np.random.Generator
) -> None:
    runner = compiled(lower, region(name, dtype, (2, N), 1, descending))
    for n in LENGTHS:
        x = values(rng, dtype, (2, n))
        (expected,) = run_graph(region(name, dtype, (2, n), 1, descending), [x])
        assert runner(x)[0].tobytes() == expected.tobytes(), n


@pytest.mark.parametrize("n", [30, 1100])
@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_elements_may_lie_apart(name: str, n: int, compiled: Callable, rng: np.random.Generator) -> None:
    graph = region(name, f32, (2, n, 3), 1, False)
    x = values(rng, f32, (2, n, 3))
    assert compiled(lower, graph)(x)[0].tobytes() == run_graph(graph, [x])[0].tobytes()


@pytest.mark.parametrize("x", [np.zeros(1500), np.full(1500, np.nan), np.arange(1500.0), np.arange(1500.0)[::-1] % 8])
def test_digits_that_all_elements_share_are_passed_over(x: np.ndarray, compiled: Callable) -> None:
    graph = region("argsort", f32, (1500,), 0, False)
    np.testing.assert_array_equal(compiled(lower, graph)(x.astype(np.float32))[0], np.argsort(x, kind="stable"))


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON, SSE2], ids=lambda t: t.cpu)
def test_more_lanes_rank_longer_lines(target: Target) -> None:
    assert longest_ranked(f32, target) >= longest_ranked(i64, target) > 1
    assert longest_ranked(f32, AVX512) > longest_ranked(f32, SSE2)
    # one digit costs less than four
    assert longest_ranked(u8, target) < longest_ranked(f32, target)
