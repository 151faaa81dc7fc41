"""Gather and scatter: what happens outside of the dimension, and where updates meet."""

import numpy as np
import pytest

from passes.autodiff import vjp
from tgc import reference
from tgc.dtypes import f64, from_numpy, i32, i64, u64
from tgc.errors import DTypeError, ShapeError, UserError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Array, Attributes, Graph, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS

START = TensorType(i64, ())


def run(name: str, attributes: Attributes, *arrays: Array) -> Array:
    operands = tuple(parameter(i, TensorType(from_numpy(a.dtype), a.shape)) for i, a in enumerate(arrays))
    result = Builder(OPS).op(name, *operands, attributes=attributes)
    return reference.run_graph(Graph(operands, (result,)), arrays)[0]


def gradients(name: str, attributes: Attributes, g: Array, *arrays: Array) -> list[Array | None]:
    """The cotangents of the operands for the cotangent ``g`` of the result."""
    operands = tuple(parameter(i, TensorType(from_numpy(a.dtype), a.shape)) for i, a in enumerate(arrays))
    builder = Builder(OPS)
    result = builder.op(name, *operands, attributes=attributes)
    cotangent = parameter(len(arrays), result.type)
    found = vjp(builder, [result], operands, [cotangent])
    return [
        None if d is None else reference.run_graph(Graph((*operands, cotangent), (d,)), (*arrays, g))[0] for d in found
    ]


def floats(*values: float) -> Array:
    return np.array(values, np.float64)


def integers(*values: int) -> Array:
    return np.array(values, np.int64)


def test_gather_is_take_with_clamped_indices(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 5, 3))
    indices = np.array([[4, 0], [-3, 9]], np.int32)
    expected = np.take(x, [[4, 0], [0, 4]], axis=1)
    np.testing.assert_array_equal(run("gather", {"axis": 1}, x, indices), expected)


def test_the_gradient_of_gather_goes_where_the_clamped_index_points() -> None:
    dx, none = gradients("gather", {"axis": 0}, floats(1, 2, 4, 8), floats(0, 0, 0), integers(-5, 1, 7, 1))
    assert none is None
    np.testing.assert_array_equal(dx, [1, 10, 4])


def test_scatter_drops_what_lies_outside() -> None:
    x, indices, updates = floats(1, 2, 3), integers(-1, 0, 3), floats(10, 20, 30)
    np.testing.assert_array_equal(run("scatter", {"axis": 0, "mode": "add"}, x, indices, updates), [21, 2, 3])
    _, _, kept = gradients("scatter", {"axis": 0, "mode": "add"}, floats(5, 6, 7), x, indices, updates)
    np.testing.assert_array_equal(kept, [0, 5, 0])


@pytest.mark.parametrize(
    ("mode", "expected"), [("set", [8, 2, 3]), ("add", [16, 2, 3]), ("max", [8, 2, 3]), ("min", [1, 2, 3])]
)
def test_where_updates_meet(mode: str, expected: list[float]) -> None:
    result = run("scatter", {"axis": 0, "mode": mode}, floats(1, 2, 3), integers(0, 0), floats(7, 8))
    np.testing.assert_array_equal(result, expected)


def test_only_the_last_of_the_updates_that_are_set_has_a_gradient() -> None:
    dx, _, du = gradients(
        "scatter", {"axis": 0, "mode": "set"}, floats(5, 6, 7), floats(1, 2, 3), integers(0, 0, 2), floats(7, 8, 9)
    )
    np.testing.assert_array_equal(dx, [0, 6, 0])
    np.testing.assert_array_equal(du, [0, 5, 7])


def test_ties_of_a_maximum_share_its_gradient() -> None:
    dx, _, du = gradients(
        "scatter", {"axis": 0, "mode": "max"}, floats(6, 9), floats(4, 1), integers(0, 0, 1), floats(4, 4, 0)
    )
    np.testing.assert_array_equal(dx, [2, 9])
    np.testing.assert_array_equal(du, [2, 2, 0])


def test_along_axis_pairs_rows(rng: np.random.Generator) -> None:
    x, indices = rng.normal(size=(2, 3)), np.array([[2, 0], [1, 1]], np.int64)
    taken = run("take_along_axis", {"axis": 1}, x, indices)
    np.testing.assert_array_equal(taken, np.take_along_axis(x, indices, 1))
    put = run("scatter_along_axis", {"axis": 1, "mode": "add"}, np.zeros((2, 3)), indices, taken)
    np.testing.assert_array_equal(put, [[x[0, 0], 0, x[0, 2]], [0, 2 * x[1, 1], 0]])


def test_dynamic_slices_are_moved_inside() -> None:
    x = floats(0, 1, 2, 3)
    start = np.asarray(9, np.int64)
    np.testing.assert_array_equal(run("dynamic_slice", {"sizes": (2,)}, x, start), [2, 3])
    np.testing.assert_array_equal(run("dynamic_update_slice", {}, x, floats(7, 8), -start), [7, 8, 2, 3])


def test_symbolic_shapes() -> None:
    n, m = symbol("n"), symbol("m")
    (gathered,) = OPS["gather"].infer([TensorType(f64, (4, n)), TensorType(i32, (m, 2))], {"axis": 1}, ())
    assert gathered.shape == (4, m, 2)


def test_says_what_does_not_fit() -> None:
    x, indices = TensorType(f64, (4, 3)), TensorType(i64, (2,))
    with pytest.raises(ShapeError, match="axis 2"):
        OPS["gather"].infer([x, indices], {"axis": 2}, ())
    with pytest.raises(DTypeError, match="u64"):
        OPS["gather"].infer([x, indices.with_dtype(u64)], {"axis": 0}, ())
    with pytest.raises(DTypeError, match="integers"):
        OPS["gather"].infer([x, x], {"axis": 0}, ())
    with pytest.raises(ShapeError, match="one shape"):
        OPS["scatter"].infer([x, indices, TensorType(f64, (3, 3))], {"axis": 0, "mode": "set"}, ())
    with pytest.raises(UserError, match="mode"):
        OPS["scatter"].infer([x, indices, TensorType(f64, (2, 3))], {"axis": 0, "mode": "mul"}, ())
    with pytest.raises(ShapeError, match="does not fit"):
        OPS["dynamic_slice"].infer([x, START, START], {"sizes": (5, 1)}, ())
    with pytest.raises(ShapeError, match="a start of type"):
        OPS["dynamic_slice"].infer([x, START], {"sizes": (1, 1)}, ())


def test_nothing_can_be_taken_from_nothing() -> None:
    with pytest.raises(ShapeError, match="empty"):
        run("gather", {"axis": 0}, np.zeros((0, 2)), integers(0))
