"""Attention as one kernel: the bits of its three parts, and the reasons for which they stay apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from passes.base import PassContext
from passes.fusion import Fuser
from passes.pipeline import parse_pipeline
from tgc.backend.describe import describe_target
from tgc.backend.emit import emit_module
from tgc.compiler import Options, compile_function
from tgc.dtypes import DType, bf16, bool_, f32, f64, i32
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Array, Function, Graph, Module, Node, parameter
from tgc.ir.types import TensorType
from tgc.kernels import attention
from tgc.kernels.attention_plan import plan_attention
from tgc.kernels.lowering import Lowering
from tgc.kernels.verify import verify
from tgc.ops import OPS
from tgc.reference import run_with_bounds
from tgc.target import AVX2

Q, K = symbol("q"), symbol("k")


@dataclass(frozen=True)
class Heads:
    """Attention of ``queries`` vectors of ``size`` to ``keys`` ones whose values have ``width`` elements."""

    queries: Dim
    keys: Dim
    size: int
    width: int
    dtype: DType = f32
    causal: bool = False
    mask: DType | None = None
    order: str = "bqe"
    heads: int = 2

    def function(self, *, apart: bool = False) -> Function:
        """``apart``: the weights are a result too, so that the parts cannot be one kernel."""
        b = Builder(OPS)
        dtype, h = self.dtype, self.heads
        shapes = (h, self.queries, self.size), (h, self.keys, self.size), (h, self.keys, self.width)
        parameters = [parameter(i, TensorType(dtype, shape)) for i, shape in enumerate(shapes)]
        q, k, v = (b.cast(x, dtype.compute) for x in parameters)
        scores = b.contract(q, k, "bqd,bkd->bqk")
        scores = b.mul(scores, b.full_like(scores, 0.3))
        low = b.full_like(scores, -1e30)
        if self.mask is not None:
            parameters.append(parameter(3, TensorType(self.mask, (self.queries, self.keys))))
            given = b.broadcast(parameters[3], scores.shape, (1, 2))
            scores = b.select(given, scores, low) if self.mask is bool_ else b.add(scores, given)
        if self.causal:
            row, column = (
                b.op("iota", attributes={"shape": scores.shape, "axis": axis, "dtype": i32}) for axis in (1, 2)
            )
            scores = b.select(b.op("le", column, row), scores, low)
        weights = b.op("softmax", scores, attributes={"axis": 2})
        result = b.cast(b.contract(weights, v, f"bqk,bke->{self.order}"), dtype)
        return Function("f", Graph(tuple(parameters), (result, weights) if apart else (result,)))

    def arrays(self, **sizes: int) -> list[Array]:
        rng = np.random.default_rng(len(sizes))
        shapes = [[sizes.get(str(d), d) for d in v.shape] for v in self.function().parameters]
        found = [rng.normal(size=shape) for shape in shapes]
        dtypes = [v.dtype.numpy for v in self.function().parameters]
        return [(x > 0 if d == np.bool_ else x).astype(d) for x, d in zip(found, dtypes, strict=True)]


def fused(function: Function) -> list[Node]:
    passes = parse_pipeline("decompose,canonicalize,algebraic,cse,dce,layout,fusion")
    after = passes.run(Module("m", (function,)), PassContext(OPS)).functions[0]
    return [n for n in after.nodes() if n.op == "fusion"]


@cache
def program(case: Heads, *, apart: bool) -> Callable[[Sequence[Array]], Sequence[Array]]:
    return compile_function(case.function(apart=apart), options=Options(cached=False)).run


CASES = [
    Heads(64, 64, 32, 32),
    Heads(70, 130, 24, 40, causal=True),
    Heads(33, 100, 7, 5, mask=f32),
    Heads(17, 19, 9, 50, mask=bool_, causal=True),
    Heads(16, 1100, 16, 33),
    Heads(40, 60, 700, 48, heads=1),
    Heads(20, 520, 16, 33, dtype=f64, mask=f64),
    Heads(48, 40, 16, 24, dtype=bf16, causal=True),
    Heads(48, 40, 16, 24, order="qbe"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_kernel_has_the_bits_of_three(case: Heads, compiled: Callable[..., Callable[..., tuple[Array]]]) -> None:
    (kernel,) = fused(case.function())
    assert kernel.attributes["kind"] == "attention"
    arrays = case.arrays()
    run = compiled(attention.lower, kernel.regions[0])
    # the region's parameters are the function's, in some order
    (made,) = run(*(arrays[case.function().parameters.index(v)] for v in kernel.operands))
    assert made.tobytes() == program(case, apart=True)(arrays)[0].tobytes()
    ((expected, error),), _ = run_with_bounds(case.function(), arrays)
    assert (np.abs(made.astype(np.float64) - expected.astype(np.float64)) <= error).all()


@pytest.mark.parametrize("case", [Heads(Q, K, 16, 33, mask=f32), Heads(K, K, 8, 16, causal=True)], ids=str)
@pytest.mark.parametrize(("q", "k"), [(1, 1), (3, 50), (16, 16), (17, 1100), (150, 33), (0, 5)])
def test_lengths_may_be_open(case: Heads, q: int, k: int) -> None:
    sizes = {"q": q, "k": k} if case.queries == Q else {"k": q}
    arrays = case.arrays(**sizes)
    (kernel,) = fused(case.function())
    assert kernel.attributes["kind"] == "attention"
    one, apart = (program(case, apart=apart)(arrays)[0] for apart in (False, True))
    assert one.tobytes() == apart.tobytes()


def test_scores_that_a_causal_mask_hides_are_not_summed() -> None:
    """What they would be cannot be seen, infinities neither; a mask that is added hides nothing."""
    case = Heads(64, 64, 8, 16, causal=True)
    for other, causal in ((case, True), (replace(case, mask=f32), True), (replace(case, causal=False), False)):
        (kernel,) = fused(other.function())
        assert plan_attention(kernel.regions[0], AVX2, OPS).causal is causal
    arrays = case.arrays()
    arrays[1][:, -1] = np.inf
    arrays[0][:, -1] = 0
    one, apart = (program(case, apart=apart)(arrays)[0] for apart in (False, True))
    assert np.isfinite(one[:, :-1]).all()
    assert one.tobytes() == apart.tobytes()


def reasons(function: Function) -> set[str]:
    passes = parse_pipeline("decompose,canonicalize,algebraic,cse,dce,layout")
    module = passes.run(Module("m", (function,)), PassContext(OPS))
    fuser = Fuser(OPS, module.functions[0].outputs, 220)
    fuser.run()
    return {r.reason for r in fuser.refusals if r.consumer.op == "contract"}


@pytest.mark.parametrize(
    ("scores", "spec", "reason"),
    [
        ("bqd,bkd->bqk", "bqk,bqe->bke", "the product does not sum over the rows alone, or its results lie in"),
        ("bqd,bkd->bqk", "bqk,bke->beq", "the product does not sum over the rows alone, or its results lie in"),
        ("bqd,bkd->bqk", "bqk,bke->qe", "the product does not sum over the rows alone, or its results lie in"),
    ],
)
def test_rows_that_one_kernel_could_not_keep_are_refused(scores: str, spec: str, reason: str) -> None:
    b = Builder(OPS)
    q, k, v = parameters = tuple(parameter(i, TensorType(f32, (2, 32, 32))) for i in range(3))
    weights = b.op("softmax", b.contract(q, k, scores), attributes={"axis": 2})
    function = Function("f", Graph(parameters, (b.contract(weights, v, spec),)))
    assert any(found.startswith(reason) for found in reasons(function))


def test_weights_that_others_need_are_written() -> None:
    function = Heads(32, 32, 32, 32).function(apart=True)
    assert reasons(function) == {"scores or rows are needed elsewhere as well"}
    assert [n.attributes["kind"] for n in fused(function)] == ["contraction", "reduction", "contraction"]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Heads(15, 32, 8, 8), "too few scores to fill register tiles"),
        (Heads(32, 1 << 15, 8, 8), "a row of scores is too long to stay in cache"),
        (Heads(32, 32, 8, 1, heads=1), "values of one element do not fill register tiles"),
    ],
    ids=str,
)
def test_sizes_that_make_poor_tiles_are_refused(case: Heads, reason: str) -> None:
    assert reasons(case.function()) == {reason}


def test_scores_that_are_moved_are_written() -> None:
    b = Builder(OPS)
    q, k, v = parameters = tuple(parameter(i, TensorType(f32, (2, 32, 32))) for i in range(3))
    turned = b.op("reverse", b.contract(q, k, "bqd,bkd->bqk"), attributes={"axes": (1,)})
    weights = b.op("softmax", turned, attributes={"axis": 2})
    assert "the scores are read at other indices" in reasons(
        Function("f", Graph(parameters, (b.contract(weights, v, "bqk,bke->bqe"),)))
    )


@pytest.mark.parametrize("machine", ["x86_64", "x86_64 x86-64-v3", "aarch64", "riscv64", "wasm32"])
@pytest.mark.parametrize("case", [CASES[1], replace(CASES[1], queries=Q, keys=K, dtype=bf16)], ids=str)
def test_every_target_has_the_kernel(machine: str, case: Heads) -> None:
    triple, _, cpu = machine.partition(" ")
    target = describe_target(
        f"{triple}-unknown-linux-gnu" if triple != "wasm32" else f"{triple}-unknown-unknown", cpu or None
    )
    (kernel,) = fused(case.function())
    lowering: Lowering = attention.lower(kernel.regions[0], name="k", target=target, table=OPS)
    for stage in lowering.stages:
        verify(stage.kernel)
    assert emit_module([stage.kernel for stage in lowering.stages], target)
