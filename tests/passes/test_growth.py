"""Compiling takes work in proportion to the graph: twice the nodes, about twice the calls of Python functions."""

import cProfile
from collections.abc import Callable

import pytest

from passes.base import PassContext
from passes.pipeline import parse_pipeline
from tgc.dtypes import f32
from tgc.ir.builder import Builder
from tgc.ir.graph import Function, Graph, Module, Value, parameter
from tgc.ir.types import TensorType
from tgc.kernels.program import Program
from tgc.ops import OPS
from tgc.programs import KernelLibrary, program_of
from tgc.target import AVX2

Family = Callable[[Builder, Value, Value, int], Value]


def chain(b: Builder, x: Value, w: Value, n: int) -> Value:
    """Maps, and a sum over rows now and then."""
    for _ in range(n // 5):
        x = b.op("tanh", b.mul(x, b.constant(0.9, f32)))
        total = b.op("sum", x, attributes={"axes": (1,)})
        x = b.op("sub", x, b.op("broadcast", total, attributes={"shape": x.shape, "axes": (0,)}))
    return x


def there_and_back(b: Builder, x: Value, w: Value, n: int) -> Value:
    """What is made on the way there is read on the way back, the last first, as gradients do."""
    kept = [x]
    for _ in range(n // 5):
        kept.append(b.add(kept[-1], b.op("tanh", b.contract(kept[-1], w, "ij,jk->ik"))))
    back = kept[-1]
    for x in reversed(kept):
        back = b.add(back, b.contract(b.mul(back, x), w, "ij,kj->ik"))
    return back


def nested(b: Builder, x: Value, w: Value, n: int) -> Value:
    """A sum that begins with the term that was made last."""
    terms = [b.contract(b.mul(x, b.constant(float(i), f32)), w, "ij,jk->ik") for i in range(n // 3)]
    total = terms.pop()
    while terms:
        total = b.add(terms.pop(), total)
    return total


def program(family: Family, nodes: int) -> Program:
    b = Builder(OPS)
    x, w = (parameter(i, TensorType(f32, (8, 8))) for i in range(2))
    function = Function("f", Graph((x, w), (family(b, x, w, nodes),)))
    planned = parse_pipeline("O3").run(Module("m", (function,)), PassContext(OPS, AVX2)).functions[0]
    return program_of(planned, KernelLibrary(OPS, AVX2), state={}, constants={}, ranges={})


@pytest.mark.parametrize("family", [chain, there_and_back])
def test_work_grows_in_proportion_to_the_graph(family: Family) -> None:
    def calls(nodes: int) -> int:
        with cProfile.Profile() as profile:
            program(family, nodes)
        return sum(entry.callcount for entry in profile.getstats())

    small, large = calls(400), calls(1600)
    assert large < 5 * small


def test_a_product_takes_in_what_was_made_long_after_it() -> None:
    launched = [step.kernel for step in program(nested, 300).steps]  # type: ignore[union-attr]
    assert len(launched) == 100
