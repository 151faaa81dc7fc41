"""Sorting: stability, NaN and direction."""

import numpy as np
import pytest

from tgc import reference
from tgc.dtypes import from_numpy
from tgc.ir.builder import Builder
from tgc.ir.graph import Array, Attributes, Graph, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS

NAN = float("nan")


def run(name: str, attributes: Attributes, *arrays: Array) -> Array:
    operands = tuple(parameter(i, TensorType(from_numpy(a.dtype), a.shape)) for i, a in enumerate(arrays))
    result = Builder(OPS).op(name, *operands, attributes=attributes)
    return reference.run_graph(Graph(operands, (result,)), arrays)[0]


@pytest.mark.parametrize(("descending", "order"), [(False, [1, 3, 0, 4, 2, 5]), (True, [0, 4, 1, 3, 2, 5])])
def test_equal_elements_keep_their_order_and_nan_is_last(descending: bool, order: list[int]) -> None:
    x = np.array([2, 1, NAN, 1, 2, NAN], np.float32)
    attributes: Attributes = {"axis": 0, "descending": descending}
    np.testing.assert_array_equal(run("argsort", attributes, x), order)
    np.testing.assert_array_equal(run("sort", attributes, x), x[order])


def test_zeros_of_both_signs_are_equal() -> None:
    x = np.array([0.0, -0.0, -1.0])
    np.testing.assert_array_equal(run("argsort", {"axis": 0}, x), [2, 0, 1])


def test_unsigned_integers_descend(rng: np.random.Generator) -> None:
    x = rng.integers(0, 255, (3, 20), np.uint8)
    np.testing.assert_array_equal(run("sort", {"axis": 1, "descending": True}, x), -np.sort(-x.astype(int), axis=1))


@pytest.mark.parametrize(("side", "expected"), [("left", [0, 1, 3, 4]), ("right", [0, 3, 3, 4])])
def test_search_goes_to_either_side_of_equal_entries(side: str, expected: list[int]) -> None:
    entries = np.array([1, 2, 2, 4], np.int32)
    values = np.array([0, 2, 3, 9], np.int32)
    np.testing.assert_array_equal(run("searchsorted", {"side": side}, entries, values), expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_searches_knows_nan(side: str) -> None:
    """The batched form counts; it must place NaN where the search does."""
    entries = np.array([[1.0, 2.0, NAN], [0.0, NAN, NAN]])
    values = np.array([NAN, 5.0])
    operands = (
        parameter(0, TensorType(from_numpy(entries.dtype), (2, 3))),
        parameter(1, TensorType(from_numpy(values.dtype), (2,))),
    )
    batch = OPS["searchsorted"].batch
    assert batch is not None
    results = batch(Builder(OPS), operands, (True, False), {"side": side}, 2)
    (found,) = reference.run_graph(Graph(operands, tuple(results)), [entries, values])
    np.testing.assert_array_equal(found, [np.searchsorted(row, values, side=side) for row in entries])  # type: ignore[call-overload]
