"""Contractions against the reference: every shape of einsum, sizes known and not, layouts, dtypes and epilogues."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tgc.dtypes import DType, bf16, f16, f32, f64, i8, i32, u8
from tgc.errors import CompilerBug
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, product, symbol
from tgc.ir.graph import Function, Graph, Value, parameter
from tgc.ir.types import Layout, TensorType
from tgc.kernels.contraction import lower
from tgc.kernels.contraction_plan import plan_contraction
from tgc.kernels.lowering import Lowering
from tgc.ops import OPS
from tgc.reference import run_with_bounds
from tgc.target import AVX2, AVX512, NEON, RISCV, SSE2, WASM, Target

B, S, N = symbol("b"), symbol("s"), symbol("n")
Shape = tuple[Dim, ...]
Epilogue = Callable[[Builder, Value, Value], tuple[Value, ...]]


def plain(_: Builder, c: Value, __: Value) -> tuple[Value, ...]:
    return (c,)


def biased(b: Builder, c: Value, bias: Value) -> tuple[Value, ...]:
    return (b.op("relu", b.add(c, b.broadcast(bias, c.shape, (len(c.shape) - 1,)))),)


def region(
    spec: str,
    shapes: Sequence[Shape],
    epilogue: Epilogue = biased,
    dtype: DType = f32,
    layouts: Sequence[Layout | None] = (None, None),
) -> Graph:
    types = [TensorType(dtype, shape, layout) for shape, layout in zip(shapes, layouts, strict=True)]
    builder = Builder(OPS)
    x, y = (parameter(i, t) for i, t in enumerate(types))
    c = builder.contract(x, y, spec)
    if epilogue is plain:
        return Graph((x, y), (c,))
    bias = parameter(2, TensorType(dtype, c.shape[-1:]))
    return Graph((x, y, bias), epilogue(builder, c, bias))


def arrays(graph: Graph, seed: int = 0, **sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [[d if isinstance(d, int) else sizes[str(d)] for d in v.shape] for v in graph.parameters]
    return [
        (rng.normal(size=s) if v.dtype.is_float else rng.integers(-9 if v.dtype.kind == "int" else 0, 9, s)).astype(
            v.dtype.numpy
        )
        for v, s in zip(graph.parameters, shapes, strict=True)
    ]


def check(actual: Sequence[np.ndarray], graph: Graph, inputs: Sequence[np.ndarray]) -> None:
    """Within the bounds that the ops state."""
    bounds, _ = run_with_bounds(Function("f", graph), inputs)
    for a, (expected, error) in zip(actual, bounds, strict=True):
        assert (a.dtype, a.shape) == (expected.dtype, expected.shape)
        difference = np.abs(a.astype(np.float64) - expected.astype(np.float64))
        assert (difference <= error).all()


@pytest.mark.parametrize(
    ("spec", "a", "b"),
    [
        ("mk,kn->mn", (37, 70), (70, 45)),
        ("mk,nk->mn", (16, 90), (100, 90)),
        ("km,kn->mn", (61, 29), (61, 50)),
        ("km,nk->nm", (40, 29), (50, 40)),
        ("bmk,bkn->bmn", (3, 17, 20), (3, 20, 40)),
        ("bhqd,bhkd->bhqk", (2, 3, 9, 16), (2, 3, 11, 16)),
        ("bhqk,bkhd->bqhd", (2, 3, 9, 11), (2, 11, 3, 16)),
        ("bshd,hdo->bso", (2, 5, 3, 16), (3, 16, 33)),
        ("bsd,dhk->bshk", (2, 5, 32), (32, 3, 20)),
        ("bsi,bso->io", (4, 5, 18), (4, 5, 40)),
        ("abc,cd->ab", (3, 4, 5), (5, 6)),
        ("ab,c->abc", (3, 4), (5,)),
        ("i,j->ij", (10,), (21,)),
        ("bk,bk->b", (10, 30), (10, 30)),
        ("k,k->", (100,), (100,)),
        ("k,k->", (70_000,), (70_000,)),
        ("bhd,bhd->bh", (5, 3, 48), (5, 3, 48)),
        ("bhd,bhd->b", (5, 3, 21), (5, 3, 21)),
        ("mk,nk->mn", (1, 100), (70, 100)),
        ("mk,kn->mn", (1, 100), (100, 300)),
        ("mk,nk->mn", (3, 40), (70, 40)),
        ("mk,nk->mn", (4, 64), (32, 64)),
        ("k,nk->n", (45,), (70, 45)),
        ("bsk,nk->bsn", (1, 2, 48), (21, 48)),
        ("bmk,bnk->bmn", (3, 2, 37), (3, 5, 37)),
        ("mk,kn->mn", (20, 1), (1, 20)),
        ("mk,kn->mn", (3, 600), (600, 333)),
        ("mk,nk->mn", (7, 600), (333, 600)),
        ("bmk,bkn->bmn", (2, 2, 530), (2, 530, 301)),
        ("abk,kn->abn", (2, 3, 50), (50, 3001)),
        ("mk,kn->mn", (64, 600), (600, 300)),
        ("mk,nk->mn", (50, 600), (300, 600)),
        ("bmk,bnk->bnm", (2, 300, 600), (2, 33, 600)),
        ("mij,ijn->mn", (21, 3, 190), (3, 190, 300)),
        ("mk,kn->mn", (300, 1030), (1030, 300)),
    ],
)
def test_products_of_known_sizes(compiled: Callable, spec: str, a: Shape, b: Shape) -> None:
    graph = region(spec, (a, b), plain if spec.endswith(">") else biased)
    inputs = arrays(graph)
    check(compiled(lower, graph)(*inputs), graph, inputs)


@pytest.mark.parametrize(
    ("spec", "a", "b"),
    [
        ("bi,oi->bo", (B, 64), (40, 64)),
        ("bo,bi->oi", (B, 10), (B, 33)),
        ("bo,oi->bi", (B, 10), (10, 33)),
        ("bsi,oi->bso", (2, B, 20), (40, 20)),
        ("bqd,bkd->bqk", (2, B, 16), (2, B, 16)),
        ("qk,qk->q", (5, B), (5, B)),
    ],
)
def test_one_kernel_serves_every_size(compiled: Callable, spec: str, a: Shape, b: Shape) -> None:
    graph = region(spec, (a, b), plain if "q" in spec else biased)
    runner = compiled(lower, graph)
    for size in (0, 1, 7, 33, 257):
        inputs = arrays(graph, size, b=size)
        check(runner(*inputs), graph, inputs)


def test_a_row_meets_a_matrix_of_any_size(compiled: Callable) -> None:
    graph = region("bk,kn->bn", ((1, S), (S, N)))
    runner = compiled(lower, graph)
    for s, n in ((1, 1), (0, 5), (5, 0), (513, 100), (70, 1030)):
        inputs = arrays(graph, s=s, n=n)
        check(runner(*inputs), graph, inputs)


def test_all_sizes_may_be_unknown(compiled: Callable) -> None:
    graph = region("bsi,io->bso", ((B, S, N), (N, N)))
    runner = compiled(lower, graph)
    for sizes in ((1, 1, 1), (2, 3, 33), (3, 20, 17), (1, 2, 520), (2, 0, 5), (2, 3, 0)):
        inputs = arrays(graph, **dict(zip("bsn", sizes, strict=True)))
        check(runner(*inputs), graph, inputs)


@pytest.mark.parametrize("shapes", [((3, 0), (5, 0)), ((0, 4), (5, 4)), ((3, 4), (0, 4))])
def test_nothing_to_sum_gives_the_epilogue_of_zero(compiled: Callable, shapes: Sequence[Shape]) -> None:
    graph = region("mk,nk->mn", shapes)
    inputs = arrays(graph)
    check(compiled(lower, graph)(*inputs), graph, inputs)


@pytest.mark.parametrize("dtype", [f64, f16, bf16, i32, i8, u8])
def test_every_dtype(compiled: Callable, dtype: DType) -> None:
    graph = region("mk,nk->mn", ((20, 30), (37, 30)), biased if dtype.is_float else plain, dtype)
    inputs = arrays(graph)
    check(compiled(lower, graph)(*inputs), graph, inputs)


def test_long_sums_are_made_of_blocks(compiled: Callable) -> None:
    count = 100 * 512
    graph = region("mk,kn->mn", ((2, count), (count, 20)), plain)
    inputs = [np.full(v.shape, 0.1, np.float32) for v in graph.parameters]
    (result,) = compiled(lower, graph)(*inputs)
    exact = count * float(np.float32(0.1)) ** 2
    assert np.abs(result - exact).max() <= exact * (512 + 100) * 2.0**-24


@pytest.mark.parametrize("layouts", [(Layout((0, 2, 1)), None), (None, Layout((2, 0, 1))), (Layout((1, 0, 2)),) * 2])
def test_operands_in_any_order(compiled: Callable, layouts: Sequence[Layout | None]) -> None:
    graph = region("bmk,bkn->bmn", ((3, 17, 20), (3, 20, 40)), layouts=layouts)
    inputs = arrays(graph)
    check(compiled(lower, graph)(*inputs), graph, inputs)


def test_results_in_another_order(compiled: Callable) -> None:
    def turned(b: Builder, c: Value, bias: Value) -> tuple[Value, ...]:
        (value,) = biased(b, c, bias)
        return (b.op("relayout", value, attributes={"type": value.type.with_layout(Layout((0, 2, 1)))}),)

    graph = region("bmk,bkn->bmn", ((3, 17, 20), (3, 20, 40)), turned)
    inputs = arrays(graph)
    (result,) = compiled(lower, graph)(*inputs)
    check((result,), region("bmk,bkn->bmn", ((3, 17, 20), (3, 20, 40))), inputs)


def test_results_in_tiles_are_refused() -> None:
    def tiled(_: Builder, c: Value, __: Value) -> tuple[Value, ...]:
        return (Builder(OPS).op("relayout", c, attributes={"type": c.type.with_layout(Layout((0, 1), ((1, 8),)))}),)

    with pytest.raises(CompilerBug, match="cannot write"):
        lower(region("mk,kn->mn", ((8, 8), (8, 8)), tiled), name="k", target=AVX512, table=OPS)


def test_an_epilogue_may_have_several_results_and_operands(compiled: Callable) -> None:
    def several(b: Builder, c: Value, bias: Value) -> tuple[Value, ...]:
        pre = b.add(c, b.broadcast(bias, c.shape, (1,)))
        zero = b.broadcast(b.constant(0.0, f32), c.shape, ())
        return b.op("tanh", pre), pre, b.op("gt", pre, zero)

    graph = region("bi,oi->bo", ((B, 30), (37, 30)), several)
    inputs = arrays(graph, b=21)
    hidden, pre, mask = compiled(lower, graph)(*inputs)
    check((pre,), Graph(graph.parameters, graph.results[1:2]), inputs)
    np.testing.assert_array_equal(mask, pre > 0)
    np.testing.assert_allclose(hidden, np.tanh(pre.astype(np.float64)), rtol=4e-7)


def test_the_epilogue_sees_the_rounded_product(compiled: Callable) -> None:
    def both(b: Builder, c: Value, bias: Value) -> tuple[Value, ...]:
        return c, b.sub(c, b.broadcast(bias, c.shape, (1,)))

    graph = region("mk,kn->mn", ((20, 30), (30, 40)), both, bf16)
    inputs = arrays(graph)
    c, rest = compiled(lower, graph)(*inputs)
    expected = (c.astype(np.float32) - inputs[2].astype(np.float32)).astype(bf16.numpy)
    assert rest.tobytes() == expected.tobytes()


def stages(lowering: Lowering) -> list[str]:
    return [stage.kernel.name for stage in lowering.stages]


def lowered(spec: str, a: Shape, b: Shape, target: Target = AVX512) -> Lowering:
    return lower(region(spec, (a, b)), name="k", target=target, table=OPS)


def test_letters_that_nest_are_one_loop() -> None:
    plan = plan_contraction(region("bsi,oi->bso", ((8, S, 64), (40, 64))), AVX512, OPS)
    assert (plan.row, plan.outer) == ("bs", ())
    plan = plan_contraction(region("bsi,bso->io", ((8, S, 64), (8, S, 40))), AVX512, OPS)
    assert plan.summed == ("bs",)
    plan = plan_contraction(
        region("bsi,oi->bso", ((8, 5, 64), (40, 64)), layouts=(Layout((1, 0, 2)), None)), AVX512, OPS
    )
    assert (plan.row, plan.outer) == ("b", ("s",))


def test_what_can_be_read_in_place_is_not_packed() -> None:
    assert stages(lowered("mk,nk->mn", (1, 1024), (1000, 1024))) == ["k"]
    assert stages(lowered("bo,oi->bi", (32, 10), (10, 128))) == ["k"]
    assert stages(lowered("bo,bi->oi", (32, 128), (32, 784))) == ["k"]
    assert stages(lowered("mk,kn->mn", (1024, 1024), (1024, 1024))) == ["k_pack", "k"]


def test_a_few_rows_go_through_a_large_matrix_in_whole_rows() -> None:
    assert stages(lowered("mk,kn->mn", (1, 1000), (1000, 1000))) == ["k_parts", "k"]
    assert stages(lowered("mk,kn->mn", (8, 1000), (1000, 1000))) == ["k_parts", "k"]
    assert stages(lowered("mk,kn->mn", (8, 1000), (1000, 1000), AVX2)) == ["k"]
    assert stages(lowered("mk,kn->mn", (1, 100), (100, 100))) == ["k"]


def test_panels_that_one_task_reads_are_packed_by_it() -> None:
    (stage,) = lowered("mk,kn->mn", (64, 1024), (1024, 4096)).stages
    assert "panels" in {buffer.name for buffer in stage.kernel.scratch}


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON, RISCV, SSE2, WASM], ids=lambda t: t.cpu)
@pytest.mark.parametrize(("m", "n"), [(1, 1000), (7, 7), (32, 128), (1024, 1024), (B, 10), (B, N)])
def test_a_tile_fits_into_the_registers(target: Target, m: Dim, n: Dim) -> None:
    shape = plan_contraction(region("mk,kn->mn", ((m, 64), (64, n))), target, OPS).shape
    assert shape.rows * shape.vectors + shape.vectors + 1 < target.vector_registers
    if isinstance(n, int):
        assert (shape.vectors - 1) * shape.lanes < n


def test_iterations_are_many_enough_for_threads_and_large_enough_to_be_worth_one() -> None:
    (_, stage) = lowered("mk,kn->mn", (1024, 1024), (1024, 1024)).stages
    assert 8 <= product([stage.kernel.count]) <= 256
    assert stage.cost >= 100_000
