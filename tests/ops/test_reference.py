"""The interpreter: dimensions, state, control flow, rounding, and the bounds that tests take as tolerance."""

import numpy as np
import pytest

from tgc import reference
from tgc.dtypes import bf16, bool_, f16, f32, f64, i64
from tgc.errors import CompilerBug, DTypeError, ShapeError
from tgc.ir.binding import bind_dimensions
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Constant, Constraint, Function, Graph, Value, literal, parameter, state
from tgc.ir.types import TensorType
from tgc.kernels.numpy_scalar import NumpyScalarBuilder
from tgc.kernels.vector_math import MATH
from tgc.ops import OPS
from tgc.ops.rules import gamma

N, M = symbol("n"), symbol("m")


@pytest.fixture
def b() -> Builder:
    return Builder(OPS)


def f32s(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# -- dimensions --------------------------------------------------------------------------------------------------


def test_dimensions_are_solved_in_any_order() -> None:
    types = [TensorType(f32, (N + M, 2 * N)), TensorType(f32, (N // 2,))]
    assert bind_dimensions(types, [(7, 6), (1,)]) == {"n": 3, "m": 4}


@pytest.mark.parametrize(
    ("type_", "shape", "message"),
    [
        (TensorType(f32, (N, N)), (2, 3), "got 3 for the dimension n, which is 2"),
        (TensorType(f32, (2 * N,)), (3,), "no dimension n makes 2\\*n equal to 3"),
        (TensorType(f32, (N + 3,)), (2,), "no dimension n"),
        (TensorType(f32, (N // 2,)), (2,), "do not determine the dimension n"),
        (TensorType(f32, (N,)), (2, 3), "got the shape"),
        (TensorType(f32, (4,)), (5,), "got 5 for the dimension 4"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(type_: TensorType, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        bind_dimensions([type_], [shape])


def test_symbols_in_attributes_take_the_inputs_sizes(b: Builder) -> None:
    x = parameter(0, TensorType(f32, (N,)))
    y = b.add(b.broadcast(x, (N, N), (0,)), b.op("iota", attributes={"shape": (N, N), "axis": 1, "dtype": f32}))
    (found,) = reference.run_graph(Graph((x,), (y,)), [f32s(10, 20)])
    assert found.tolist() == [[10, 11], [20, 21]]


def test_constraints_are_checked(b: Builder) -> None:
    x, y = parameter(0, TensorType(f32, (N,))), parameter(1, TensorType(f32, (M,)))
    function = Function("f", Graph((x, y), (b.add(x, y),)), constraints=tuple(b.constraints))
    assert function.constraints == (Constraint(M, N),)
    with pytest.raises(ShapeError, match="must equal"):
        reference.run(function, [f32s(1), f32s(1, 2)])


def test_inputs_of_another_dtype_are_refused(b: Builder) -> None:
    x = parameter(0, TensorType(f32, (2,)))
    with pytest.raises(DTypeError, match=r"input 0: expected f32\[2\], got an array of float64"):
        reference.run_graph(Graph((x,), (x,)), [np.zeros(2)])


# -- rounding ----------------------------------------------------------------------------------------------------


def test_each_op_rounds_once(b: Builder) -> None:
    x = parameter(0, TensorType(f32, ()))
    one = b.constant(1.0, f32)
    lost = b.sub(b.add(one, x), one)
    (found,) = reference.run_graph(Graph((x,), (lost,)), [np.float32(2.0**-25)])
    assert found == 0


def test_sums_are_exact_before_they_are_rounded(b: Builder) -> None:
    x = parameter(0, TensorType(f32, (3,)))
    (found,) = reference.run_graph(Graph((x,), (b.sum(x, (0,)),)), [f32s(2.0**30, 1.0, -(2.0**30))])
    assert found == 1


@pytest.mark.parametrize("dtype", [bf16, f16])
def test_small_floats_are_rounded_through_f32(b: Builder, dtype: object) -> None:
    x = parameter(0, TensorType(dtype, (4,)))  # type: ignore[arg-type]
    values = np.array([0.1, 3.0, 1e-3, 7.0]).astype(x.dtype.numpy)
    (found,) = reference.run_graph(Graph((x,), (b.op("exp", x),)), [values])
    expected = np.exp(values.astype(np.float64)).astype(np.float32).astype(x.dtype.numpy)
    assert found.dtype == expected.dtype
    assert (found == expected).all()


# -- state and constants -----------------------------------------------------------------------------------------


def test_state_is_read_as_on_entry_and_assigned_at_the_end(b: Builder) -> None:
    w = state("w", TensorType(f32, (N,)))
    x = parameter(0, TensorType(f32, (N,)))
    function = Function("f", Graph((x,), (b.mul(w, x),)), assigns=(("w", b.add(w, x)),))
    given = {"w": f32s(1, 2), "other": f32s(5)}
    (product,), after = reference.run(function, [f32s(3, 4)], state=given)
    assert product.tolist() == [3, 8]
    assert {k: v.tolist() for k, v in after.items()} == {"w": [4, 6], "other": [5]}
    assert given["w"].tolist() == [1, 2]


def test_constants_are_found_by_name(b: Builder) -> None:
    type_ = TensorType(f32, (2,))
    c = literal("c", type_)
    function = Function("f", Graph((), (b.op("neg", c),)))
    (found,), _ = reference.run(function, [], constants={"c": Constant.of(f32s(1, 2), type_)})
    assert found.tolist() == [-1, -2]
    with pytest.raises(CompilerBug, match="constant c"):
        reference.run(function, [])


# -- control -----------------------------------------------------------------------------------------------------


def scalar(index: int) -> Value:
    return parameter(index, TensorType(f32, ()))


def test_cond_runs_the_chosen_region(b: Builder) -> None:
    p, x = parameter(0, TensorType(bool_, ())), parameter(1, TensorType(f32, ()))
    inner = scalar(0)
    regions = (Graph((inner,), (b.op("neg", inner),)), Graph((inner,), (b.op("square", inner),)))
    graph = Graph((p, x), (b.op("cond", p, x, regions=regions),))
    assert reference.run_graph(graph, [True, 3.0])[0] == -3
    assert reference.run_graph(graph, [False, 3.0])[0] == 9


def test_while_loop_runs_until_its_condition_fails(b: Builder) -> None:
    x, limit = scalar(0), scalar(1)
    carry, captured = scalar(0), scalar(1)
    regions = (
        Graph((carry, captured), (b.op("lt", carry, captured),)),
        Graph((carry, captured), (b.add(carry, carry),)),
    )
    graph = Graph((x, limit), (b.op("while_loop", x, limit, attributes={"carries": 1}, regions=regions),))
    assert reference.run_graph(graph, [1.0, 100.0])[0] == 128


@pytest.mark.parametrize(
    ("reverse", "stacked"), [(False, [1.0, 12.0, 123.0]), (True, [321.0, 32.0, 3.0])], ids=["forward", "reverse"]
)
def test_scan_stacks_outputs_where_their_slices_were(b: Builder, reverse: bool, stacked: list[float]) -> None:
    start, xs = scalar(0), parameter(1, TensorType(f32, (N,)))
    i, carry, x = parameter(0, TensorType(i64, ())), scalar(1), scalar(2)
    following = b.add(b.mul(carry, b.constant(10.0, f32)), x)
    region = Graph((i, carry, x), (following, following, i))
    attributes = {"carries": 1, "sequences": 1, "length": N, "reverse": reverse}
    graph = Graph((start, xs), b.results("scan", start, xs, attributes=attributes, regions=(region,)))
    last, outputs, iterations = reference.run_graph(graph, [0.0, f32s(1, 2, 3)])
    assert last == (321 if reverse else 123)
    assert outputs.tolist() == stacked
    assert sorted(iterations.tolist()) == [0, 1, 2]


def test_fusion_means_its_region(b: Builder) -> None:
    x = parameter(0, TensorType(f32, (N,)))
    region = Graph((x,), (b.op("relu", b.op("neg", x)),))
    fused = b.op("fusion", x, attributes={"kind": "pointwise"}, regions=(region,))
    assert reference.run_graph(Graph((x,), (fused,)), [f32s(1, -2)])[0].tolist() == [0, 2]


# -- bounds ------------------------------------------------------------------------------------------------------


def bounds(b: Builder, x: np.ndarray, result: Value) -> reference.Bounded:
    graph = Graph((parameter(0, TensorType(f32, x.shape)),), (result,))
    return reference.run_with_bounds(Function("f", graph), [x])[0][0]


def test_exact_ops_on_exact_operands_have_no_error(b: Builder, rng: np.random.Generator) -> None:
    x = parameter(0, TensorType(f32, (50,)))
    exact = b.op("sqrt", b.op("abs", b.mul(x, b.add(x, x))))
    found = bounds(b, rng.uniform(-9, 9, 50).astype(np.float32), b.op("maximum", exact, b.op("floor", x)))
    assert not found.error.any()


def test_bounds_hold_for_f32_arithmetic_and_are_not_slack(b: Builder, rng: np.random.Generator) -> None:
    """A softmax-like chain, computed op by op in f32 as kernels do."""
    s = NumpyScalarBuilder(functions=MATH)
    values = rng.uniform(-9, 9, 4096).astype(np.float32)
    x = parameter(0, TensorType(f32, values.shape))
    e = b.op("exp", b.op("sin", x))
    total = b.sum(e, (0,))
    found = bounds(b, values, b.op("log", b.div(e, total)))
    single = s.math("exp", s.math("sin", values))
    running = np.float32(0)
    for term in single:
        running += term
    actual = s.math("log", s.div(single, np.full_like(single, running)))
    off = np.abs(actual.astype(np.float64) - found.value)
    assert (off <= found.error).all()
    # γ of 4096 sequential roundings dominates; all the rest is a few units in the last place
    assert found.error.max() <= 2 * gamma(values, values.size) + 64 * 2.0**-24 * np.abs(found.value).max()


def test_a_decision_that_is_uncertain_shows_in_the_bound(b: Builder) -> None:
    x = parameter(0, TensorType(f32, (2,)))
    y = b.op("exp", x)
    (certain, uncertain) = bounds(b, f32s(1, 0), b.op("floor", y)).error
    assert certain == pytest.approx(0, abs=1e-5)
    assert uncertain >= 1
    assert bounds(b, f32s(1, 0), b.op("eq", y, b.full_like(y, 1.0))).error.tolist() == [0, 1]
    chosen = b.select(b.op("ge", y, b.full_like(y, 1.0)), b.full_like(y, 5.0), b.full_like(y, -5.0))
    assert bounds(b, f32s(1, 0), chosen).error[1] >= 10


def test_an_uncertain_argmax_reaches_the_other_winner(b: Builder) -> None:
    x = parameter(0, TensorType(f32, (4,)))
    y = b.op("exp", x)
    found = bounds(b, np.array([1, 3, 0, 3], np.float32), b.op("argmax", y, attributes={"axis": 0}))
    assert (found.value, found.error) == (1, 2)
    assert bounds(b, f32s(1, 2, 0, 3), b.op("argmax", y, attributes={"axis": 0})).error == 0


def test_f64_allows_for_the_reference_itself(b: Builder) -> None:
    x = parameter(0, TensorType(f64, ()))
    ((found,), _) = reference.run_with_bounds(Function("f", Graph((x,), (b.op("exp", x),))), [1.0])
    assert 2.0**-51 <= found.error <= 2.0**-48
