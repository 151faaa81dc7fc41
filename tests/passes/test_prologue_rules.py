"""Why a producer does not become the prologue of a product."""

import pytest

from passes.fusion import Fuser
from tgc.dtypes import f32
from tgc.ir.builder import Builder
from tgc.ir.graph import Value, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS


def reasons(*outputs: Value) -> list[str]:
    fuser = Fuser(OPS, outputs, 220)
    fuser.run()
    return [refusal.reason for refusal in fuser.refusals]


def matrix(index: int) -> Value:
    return parameter(index, TensorType(f32, (8, 8)))


def test_one_user_is_joined() -> None:
    b = Builder(OPS)
    assert reasons(b.contract(b.op("relu", matrix(0)), b.op("exp", matrix(1)), "ik,kj->ij")) == [
        "too much work for the prologue of a product"
    ]
    assert reasons(b.contract(b.op("relu", matrix(0)), b.op("neg", matrix(1)), "ik,kj->ij")) == []


@pytest.mark.parametrize("other", ["output", "product", "epilogue"])
def test_another_user_keeps_it_apart(other: str) -> None:
    b = Builder(OPS)
    x = b.op("relu", matrix(0))
    y = b.contract(x, matrix(1), "ik,kj->ij")
    outputs = {"output": (y, x), "product": (y, b.contract(matrix(1), x, "ik,kj->ij")), "epilogue": (b.add(y, x),)}
    assert "not only the product reads it" in reasons(*outputs[other])


def test_movement_keeps_it_apart() -> None:
    b = Builder(OPS)
    turned = b.op("reverse", b.op("relu", matrix(0)), attributes={"axes": (0,)})
    assert reasons(b.contract(turned, matrix(1), "ik,kj->ij")) == ["products read moved operands from memory"]


def test_filters_are_read_from_memory() -> None:
    b = Builder(OPS)
    image, filter_ = parameter(0, TensorType(f32, (1, 2, 5, 5))), parameter(1, TensorType(f32, (3, 2, 2, 2)))
    window = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    assert reasons(b.op("convolution", image, b.op("relu", filter_), attributes=window)) == [
        "filters are packed from memory"
    ]
    assert reasons(b.op("convolution", b.op("relu", image), filter_, attributes=window)) == []
