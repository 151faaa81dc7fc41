"""Pooling: ties, NaN and padding."""

import numpy as np
import pytest

from passes.autodiff import vjp
from tgc import reference
from tgc.dtypes import f64, i32
from tgc.errors import ShapeError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Array, Attributes, Graph, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS

NAN = float("nan")


def along(window: int, stride: int, padding: tuple[int, int] = (0, 0)) -> Attributes:
    return {"window": (window,), "stride": (stride,), "padding": (padding,), "dilation": (1,)}


def run(name: str, attributes: Attributes, *arrays: Array) -> Array:
    types = [TensorType(f64 if a.dtype == np.float64 else i32, a.shape) for a in arrays]
    operands = tuple(parameter(i, t) for i, t in enumerate(types))
    result = Builder(OPS).op(name, *operands, attributes=attributes)
    return reference.run_graph(Graph(operands, (result,)), arrays)[0]


def floats(*values: float) -> Array:
    return np.array(values, np.float64)


def test_overlapping_windows() -> None:
    x = floats(1, 5, 2, 4, 3)
    np.testing.assert_array_equal(run("window_max", along(3, 1), x), [5, 5, 4])
    np.testing.assert_array_equal(run("window_sum", along(3, 2), x), [8, 9])


def test_padding_takes_no_part() -> None:
    x = floats(-1, -2)
    np.testing.assert_array_equal(run("window_max", along(2, 1, (2, 1)), x), [-np.inf, -1, -1, -2])
    np.testing.assert_array_equal(run("window_sum", along(2, 1, (2, 1)), x), [0, -1, -3, -2])
    least = np.iinfo(np.int32).min
    np.testing.assert_array_equal(run("window_max", along(1, 1, (1, 0)), np.array([-7], np.int32)), [least, -7])


def test_nan_wins() -> None:
    np.testing.assert_array_equal(run("window_max", along(2, 1), floats(1, NAN, 9, 2)), [NAN, NAN, 9])


def test_ties_go_to_the_first() -> None:
    x, dy = floats(3, 3, 3), floats(10, 1)
    np.testing.assert_array_equal(run("window_max_gradient", along(2, 1), x, dy), [10, 1, 0])
    x = floats(-np.inf, NAN, NAN)
    np.testing.assert_array_equal(run("window_max_gradient", along(3, 3), x, floats(1)), [0, 1, 0])
    # an element that is no more than padding still is the maximum
    np.testing.assert_array_equal(
        run("window_max_gradient", along(2, 1, (1, 0)), floats(-np.inf, 0), floats(1, 2)), [1, 2]
    )


def test_take_reads_where_the_maximum_is() -> None:
    x, values = floats(1, 5, 2, 4), floats(10, 20, 30, 40)
    np.testing.assert_array_equal(run("window_max_take", along(2, 2), x, values), [20, 40])


def test_the_gradient_is_differentiable() -> None:
    """d/ddy of <window_max_gradient(x, dy), v> is what v has at the maxima."""
    types = (TensorType(f64, (4,)), TensorType(f64, (2,)), TensorType(f64, (4,)))
    x, dy, v = (parameter(i, t) for i, t in enumerate(types))
    builder = Builder(OPS)
    dx = builder.op("window_max_gradient", x, dy, attributes=along(2, 2))
    of_x, of_dy = vjp(builder, [dx], [x, dy], [v])
    assert of_x is None
    assert of_dy is not None
    assert of_dy.node.op == "window_max_take"


def test_sizes_stay_symbolic_and_windows_must_fit() -> None:
    n = symbol("n")
    (result,) = OPS["window_max"].infer([TensorType(f64, (2 * n,))], along(2, 2), ())
    assert result.shape == (n,)
    with pytest.raises(ShapeError, match="a window of 5 does not fit"):
        OPS["window_max"].infer([TensorType(f64, (3,))], along(5, 1), ())
