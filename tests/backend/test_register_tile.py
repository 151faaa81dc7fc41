"""What becomes of a contraction's inner loop: multiply-adds on registers, and nothing else but loads."""

import re

import pytest

from tgc.backend.codegen import assembly
from tgc.backend.emit import emit_module
from tgc.dtypes import f32
from tgc.ir.builder import Builder
from tgc.ir.graph import Graph, parameter
from tgc.ir.types import Layout, TensorType
from tgc.kernels import contraction, convolution
from tgc.kernels.lowering import Lowering
from tgc.ops import OPS
from tgc.target import AVX2, AVX512, NEON, Target


def inner_loop(lowering: Lowering, target: Target) -> list[str]:
    """The instructions of the loop with most multiply-adds in the last stage."""
    text = assembly(emit_module([lowering.stages[-1].kernel], target), target)
    lines = [line.strip() for line in text.splitlines()]
    labels = {line.split(":")[0]: i for i, line in enumerate(lines) if re.match(r"\.LBB\w+:", line)}
    loops = []
    for i, line in enumerate(lines):
        jump = re.match(r"(?:j\w+|b\.\w+)\s+(\.LBB\w+)", line)
        if jump and labels[jump[1]] < i:
            loops.append([x for x in lines[labels[jump[1]] : i + 1] if re.match(r"[a-z]", x)])
    # nested loops contain the inner one: of those with multiply-adds the shortest
    return min((loop for loop in loops if any(re.match("vfmadd|fmla", x) for x in loop)), key=len)


def product_of(target: Target, m: int, k: int, n: int) -> Lowering:
    x, y = parameter(0, TensorType(f32, (m, k))), parameter(1, TensorType(f32, (k, n)))
    graph = Graph((x, y), (Builder(OPS).contract(x, y, "mk,kn->mn"),))
    return contraction.lower(graph, name="k", target=target, table=OPS)


def convolution_of(target: Target, size: int, channels: int) -> Lowering:
    last = Layout((0, 2, 3, 1))
    x = parameter(0, TensorType(f32, (8, channels, size, size), last))
    w = parameter(1, TensorType(f32, (channels, channels, 3, 3)))
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    builder = Builder(OPS)
    y = builder.op("convolution", x, w, attributes=window)
    result = builder.op("relayout", y, attributes={"type": y.type.with_layout(last)})
    return convolution.lower(Graph((x, w), (result,)), name="k", target=target, table=OPS)


CASES = [
    (product_of(AVX512, 1024, 1024, 1024), AVX512, "zmm", 16),
    (product_of(AVX2, 1024, 1024, 1024), AVX2, "ymm", 12),
    (convolution_of(AVX512, 56, 64), AVX512, "zmm", 28),
    (convolution_of(AVX2, 56, 64), AVX2, "ymm", 8),
]


@pytest.mark.parametrize(
    ("lowering", "target", "register", "least"), CASES, ids=["gemm-512", "gemm-256", "conv-512", "conv-256"]
)
def test_the_inner_loop_is_multiply_adds(lowering: Lowering, target: Target, register: str, least: int) -> None:
    loop = inner_loop(lowering, target)
    products = [line for line in loop if re.match(rf"vfmadd\d+ps\s.*%{register}", line)]
    assert len(products) >= least
    assert not any("(%rsp" in line for line in loop), "sums are spilled"
    vectors = target.vector_registers // len(products) + 1
    broadcasts = sum("vbroadcastss" in line for line in loop)
    # a multiply-add each, a load for each vector and factor, and what counts
    assert len(loop) <= len(products) + broadcasts + 4 * vectors + 4


def test_aarch64_multiplies_by_elements_of_registers() -> None:
    loop = inner_loop(product_of(NEON, 1024, 1024, 1024), NEON)
    products = [line for line in loop if re.match(r"fmla\s+v\d+\.4s", line)]
    by_element = [line for line in products if re.search(r"v\d+\.s\[\d\]$", line)]
    assert len(products) == 16
    # the compiler broadcasts a factor or two where an address is incremented too
    assert len(by_element) >= 8
    assert not any("[sp" in line for line in loop), "sums are spilled"
    assert len(loop) <= 2 * len(products)
