"""What is kept for late uses, and what is computed again."""

from collections import Counter

import pytest

from passes.autodiff import vjp
from passes.instruments import Differential, Verify
from passes.pipeline import Pipeline, parse_pipeline
from passes.rematerialization import Rematerialization
from tgc.dtypes import f32
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Function, Graph, Module, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS

FRONT = "decompose,canonicalize,algebraic,constant-folding,canonicalize,cse,dce"


def again(module: Module) -> Module:
    """The module after the pass, which keeps its promises."""
    pipeline = Pipeline((Rematerialization(),), frozenset({"primitive"}))
    after = pipeline.run(module, instruments=[Verify(), Differential()])
    assert pipeline.run(after) is after
    return after


def gated(batch: Dim, *, gate: str = "silu") -> Module:
    """The gradients of (gate(x w) · (x v)) u, a transformer's gated layer."""
    b = Builder(OPS)
    shapes: tuple[tuple[Dim, ...], ...] = ((batch, 4), (4, 8), (4, 8), (8, 4))
    values = tuple(parameter(i, TensorType(f32, s)) for i, s in enumerate(shapes))
    x, w, v, u = values
    first, second = (b.contract(x, m, "mk,kn->mn") for m in (w, v))
    y = b.contract(b.mul(b.op(gate, first), second), u, "mk,kn->mn")
    loss = b.sum(b.op("square", y), (0, 1))
    gradients = vjp(b, [loss], values, [b.constant(1.0, f32)])
    function = Function("f", Graph(values, (loss, *(g for g in gradients if g is not None))))
    return parse_pipeline(FRONT).run(Module("m", (function,)))


@pytest.mark.parametrize("batch", [16, symbol("n")])
def test_a_gated_layer_keeps_the_two_products(batch: Dim) -> None:
    """The late uses of the first one go through what is computed from it again; those of the second are of itself."""
    after = again(gated(batch))
    nodes = after.functions[0].nodes()
    (barrier,) = [n for n in nodes if n.op == "barrier"]
    assert barrier.operands[0].node.op == "contract"
    counted = Counter(n.op for n in nodes)
    assert counted["sigmoid"] == 2
    (early,) = [n for n in nodes if n.op == "sigmoid" and n.operands[0] == barrier.operands[0]]
    # what was computed early is needed by the gate alone
    assert [n.op for n in nodes if early.result in n.operands] == ["mul"]


def test_what_costs_much_is_kept() -> None:
    """The same with a gate whose value takes fifty instructions."""
    module = gated(16, gate="acosh")
    again_cheap = Pipeline((Rematerialization(instructions_per_byte=1000),), frozenset({"primitive"})).run(module)
    again_dear = Pipeline((Rematerialization(instructions_per_byte=1),), frozenset({"primitive"})).run(module)
    assert Counter(n.op for n in again_cheap.functions[0].nodes())["acosh"] == 2
    assert Counter(n.op for n in again_dear.functions[0].nodes())["acosh"] == 1


def test_nothing_is_late_without_a_later_kernel() -> None:
    b = Builder(OPS)
    x, w = parameter(0, TensorType(f32, (4, 4))), parameter(1, TensorType(f32, (4,)))
    y = b.op("tanh", b.add(b.op("exp", x), w))
    z = b.mul(y, b.contract(y, b.add(x, w), "mk,kn->mn"))
    module = Module("m", (Function("f", Graph((x, w), (b.sum(y, (0,)), b.op("exp", y)))),))
    assert again(module) is module
    # y is read by the contraction and so in memory
    module = Module("m", (Function("f", Graph((x, w), (z,))),))
    assert again(module) is module
