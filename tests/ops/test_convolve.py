"""Convolution against its definition, written out; its gradients are held against it by the contract of every op."""

import numpy as np
import pytest

from passes.autodiff import vjp
from tgc import reference
from tgc.dtypes import f32, f64
from tgc.errors import ShapeError, UnsupportedError, UserError
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, evaluate, symbol
from tgc.ir.graph import Array, Attributes, Graph, Value, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS


def window(stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1) -> Attributes:
    spread = {"stride": (stride,) * 2, "padding": ((padding, padding),) * 2, "dilation": (dilation,) * 2}
    return {**spread, "groups": groups}


def convolved(x: TensorType, w: TensorType, attributes: Attributes) -> tuple[tuple[Value, Value], Value]:
    operands = (parameter(0, x), parameter(1, w))
    return operands, Builder(OPS).op("convolution", *operands, attributes=attributes)


def written_out(x: Array, w: Array, stride: int, padding: int, dilation: int, groups: int) -> Array:
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows, columns = (
        (size + 2 * padding - dilation * (k - 1) - 1) // stride + 1
        for size, k in zip(x.shape[2:], w.shape[2:], strict=True)
    )
    y = np.zeros((x.shape[0], w.shape[0], rows, columns))
    for n, o, i, j, c, p, q in np.ndindex(*y.shape, *w.shape[1:]):
        channel = o // (w.shape[0] // groups) * w.shape[1] + c
        y[n, o, i, j] += padded[n, channel, i * stride + p * dilation, j * stride + q * dilation] * w[o, c, p, q]
    return y


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1), (3, 0, 1, 4)]
)
def test_is_its_definition(stride: int, padding: int, dilation: int, groups: int, rng: np.random.Generator) -> None:
    x = rng.integers(-5, 5, (2, 4, 7, 6)).astype(np.float64)
    w = rng.integers(-5, 5, (4, 4 // groups, 3, 2)).astype(np.float64)
    attributes = window(stride, padding, dilation, groups)
    operands, y = convolved(TensorType(f64, x.shape), TensorType(f64, w.shape), attributes)
    (found,) = reference.run_graph(Graph(operands, (y,)), [x, w])
    np.testing.assert_array_equal(found, written_out(x, w, stride, padding, dilation, groups))


def test_sizes_stay_symbolic() -> None:
    n, h = symbol("n"), symbol("h")
    _, y = convolved(TensorType(f32, (n, 3, h, 2 * h)), TensorType(f32, (8, 3, 3, 3)), window(2, 1))
    assert y.shape[:2] == (n, 8)
    assert [evaluate(d, {"h": 7}) for d in y.shape[2:]] == [4, 7]


@pytest.mark.parametrize(
    ("x", "w", "attributes", "message"),
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), window(), "channels: 3 against 2"),
        ((1, 4, 5, 5), (3, 2, 3, 3), window(groups=2), "3 output channels do not form 2 groups"),
        ((1, 3, 2, 5), (4, 3, 3, 3), window(), "a window of 3 does not fit"),
        ((1, 3, 5), (4, 3, 3, 3), window(), "must have 4"),
        ((1, 3, 5, 5), (4, 3, symbol("k"), 3), window(), "known spatial sizes"),
        ((1, 3, 5, 5), (4, 3, 3, 3), window(stride=0), "must be 1 or more"),
    ],
)
def test_says_what_does_not_fit(x: tuple[Dim, ...], w: tuple[Dim, ...], attributes: Attributes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        convolved(TensorType(f32, x), TensorType(f32, w), attributes)


def test_padding_is_not_negative() -> None:
    with pytest.raises(UserError, match="pairs of integers >= 0"):
        convolved(TensorType(f32, (1, 1, 5, 5)), TensorType(f32, (1, 1, 3, 3)), window(padding=-1))


def test_second_derivatives_are_convolutions_again() -> None:
    operands, y = convolved(TensorType(f64, (1, 2, 5, 5)), TensorType(f64, (3, 2, 3, 3)), window(2, 1))
    builder = Builder(OPS)
    g = parameter(2, y.type)
    dx, dw = vjp(builder, [y], operands, [g])
    assert dx is not None
    assert dw is not None
    again = [*vjp(builder, [dx], [g, operands[1]], [operands[0]]), *vjp(builder, [dw], [g, operands[0]], [operands[1]])]
    ops = [v.node.op for v in (dx, dw, *(d for d in again if d is not None))]
    assert ops == [
        *("convolution_input_gradient", "convolution_filter_gradient"),
        *("convolution", "convolution_filter_gradient"),
        *("convolution", "convolution_input_gradient"),
    ]


def test_a_filter_per_sample_needs_a_known_batch() -> None:
    batch = OPS["convolution"].batch
    assert batch is not None
    b = symbol("b")
    operands = (parameter(0, TensorType(f32, (b, 1, 2, 5, 5))), parameter(1, TensorType(f32, (b, 3, 2, 3, 3))))
    with pytest.raises(UnsupportedError, match="symbolic size b"):
        batch(Builder(OPS), operands, (True, True), window(), b)
