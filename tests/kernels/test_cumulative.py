"""The schedule of running folds: every line, however many go together."""

from collections.abc import Callable

import numpy as np
import pytest

from tgc.dtypes import f32
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Graph, parameter
from tgc.ir.types import TensorType
from tgc.kernels.cumulative import lower
from tgc.ops import OPS

N, M = symbol("n"), symbol("m")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis", "sizes"),
    [
        ((N, 9), 1, [(n, 9) for n in (0, 1, 3, 4, 9)]),
        ((5, N), 1, [(5, n) for n in (0, 1, 7)]),
        ((2, N, M), 1, [(2, n, m) for n in (1, 7) for m in (1, 15, 16, 257, 300)]),
        ((9, 270), 0, [(9, 270)]),
    ],
    ids=str,
)
def test_lines_are_added_in_order(
    shape: tuple[Dim, ...],
    axis: int,
    sizes: list[tuple[int, ...]],
    reverse: bool,
    compiled: Callable,
    rng: np.random.Generator,
) -> None:
    x = parameter(0, TensorType(f32, shape))
    attributes = {"axis": axis, "reverse": reverse}
    runner = compiled(lower, Graph((x,), (Builder(OPS).op("cumulative_sum", x, attributes=attributes),)))
    for size in sizes:
        values = rng.normal(size=size).astype(np.float32)
        given = np.flip(values, axis) if reverse else values
        expected = np.cumsum(given, axis, dtype=np.float32)
        np.testing.assert_array_equal(runner(values)[0], np.flip(expected, axis) if reverse else expected)
