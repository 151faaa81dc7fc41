"""Control flow: what regions must fit, and loops that are bounded so that they can be differentiated."""

import numpy as np
import pytest

from passes.autodiff import vjp
from tgc import reference
from tgc.dtypes import bool_, f32, f64, i64
from tgc.errors import CompilerBug, DTypeError, ShapeError, UserError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Graph, Value, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS
from tgc.ops.control import bounded_while

SCALAR, PREDICATE, ITERATION = TensorType(f64, ()), TensorType(bool_, ()), TensorType(i64, ())


def graph(types: list[TensorType], *results: Value) -> Graph:
    return Graph(tuple(parameter(i, t) for i, t in enumerate(types)), results)


def doubling() -> tuple[Graph, Graph]:
    """while x < limit: x = 2 x."""
    builder = Builder(OPS)
    x, limit = parameter(0, SCALAR), parameter(1, SCALAR)
    return graph([SCALAR, SCALAR], builder.op("lt", x, limit)), graph([SCALAR, SCALAR], builder.add(x, x))


@pytest.mark.parametrize(("limit", "expected"), [(10.0, 12.0), (1.0, 3.0), (1e9, 3.0 * 2**5)])
def test_a_bounded_loop_stops_where_the_condition_or_the_bound_says(limit: float, expected: float) -> None:
    builder = Builder(OPS)
    operands = (parameter(0, SCALAR), parameter(1, SCALAR))
    condition, body = doubling()
    results = bounded_while(builder, operands, condition, body, carries=1, max_steps=5)
    inputs = [np.asarray(3.0), np.asarray(limit)]
    assert reference.run_graph(Graph(operands, results), inputs) == (expected,)
    if limit < 100:
        loop = builder.results("while_loop", *operands, attributes={"carries": 1}, regions=(condition, body))
        assert reference.run_graph(Graph(operands, loop), inputs) == (expected,)


def test_a_bounded_loop_has_a_gradient() -> None:
    builder = Builder(OPS)
    operands = (parameter(0, SCALAR), parameter(1, SCALAR))
    (y,) = bounded_while(builder, operands, *doubling(), carries=1, max_steps=5)
    (slope,) = vjp(builder, [y], [operands[0]], [builder.constant(1.0, f64)])
    assert slope is not None
    (found,) = reference.run_graph(Graph(operands, (slope,)), [np.asarray(3.0), np.asarray(10.0)])
    assert found == 4.0


def test_scan_stacks_outputs_in_their_places() -> None:
    """Running sums from either end, with the place of each."""
    builder = Builder(OPS)
    place, carry, item = (parameter(i, t) for i, t in enumerate((ITERATION, SCALAR, SCALAR)))
    after = builder.add(carry, item)
    region = Graph((place, carry, item), (after, after, place))
    operands = (parameter(0, SCALAR), parameter(1, TensorType(f64, (symbol("n"),))))
    for reverse, expected in ((False, [1, 3, 6]), (True, [6, 5, 3])):
        attributes = {"carries": 1, "sequences": 1, "length": symbol("n"), "reverse": reverse}
        results = builder.results("scan", *operands, attributes=attributes, regions=(region,))
        assert [str(r.type) for r in results] == ["f64[]", "f64[n]", "i64[n]"]
        final, sums, places = reference.run_graph(Graph(operands, results), [np.asarray(0.0), np.array([1.0, 2, 3])])
        assert final == 6
        np.testing.assert_array_equal(sums, expected)
        np.testing.assert_array_equal(places, [0, 1, 2])


def test_cond_takes_branches_that_agree() -> None:
    builder = Builder(OPS)
    predicate, x = parameter(0, PREDICATE), parameter(1, SCALAR)
    same = graph([SCALAR], parameter(0, SCALAR))
    other = graph([SCALAR], builder.cast(parameter(0, SCALAR), f32))
    with pytest.raises(DTypeError, match=r"second branch, as of the first, must be \(f64\[\]\), not \(f32\[\]\)"):
        builder.op("cond", predicate, x, regions=(same, other))
    wide = graph([SCALAR], builder.full(0.0, (2,), f64))
    with pytest.raises(ShapeError, match="second branch"):
        builder.op("cond", predicate, x, regions=(same, wide))
    with pytest.raises(DTypeError, match="the predicate of cond"):
        builder.op("cond", x, x, regions=(same, same))
    with pytest.raises(ShapeError, match="parameters of cond's first branch"):
        builder.op("cond", predicate, regions=(same, same))
    with pytest.raises(CompilerBug, match="takes 2 regions, not 1"):
        builder.op("cond", predicate, x, regions=(same,))


def test_loops_give_carries_of_their_own_types() -> None:
    builder = Builder(OPS)
    x = parameter(0, SCALAR)
    condition = graph([SCALAR], builder.op("lt", x, x))
    body = graph([SCALAR], builder.cast(x, f32))
    with pytest.raises(DTypeError, match="while_loop's body, as its carries"):
        builder.op("while_loop", x, attributes={"carries": 1}, regions=(condition, body))
    with pytest.raises(DTypeError, match="result of while_loop's condition"):
        builder.op("while_loop", x, attributes={"carries": 1}, regions=(graph([SCALAR], x), graph([SCALAR], x)))
    with pytest.raises(UserError, match="carries is 2, for 1 operands"):
        builder.op("while_loop", x, attributes={"carries": 2}, regions=(condition, graph([SCALAR], x)))
    region = graph([ITERATION, SCALAR], parameter(1, SCALAR))
    attributes = {"carries": 0, "sequences": 1, "length": 4, "reverse": False}
    with pytest.raises(ShapeError, match=r"scan of length 4 over f64\[3\]"):
        builder.op("scan", parameter(0, TensorType(f64, (3,))), attributes=attributes, regions=(region,))


def test_a_fusion_group_has_the_type_of_its_region() -> None:
    builder = Builder(OPS)
    x = parameter(0, SCALAR)
    region = graph([SCALAR], builder.add(x, x), builder.op("lt", x, x))
    results = builder.results("fusion", x, attributes={"kind": "pointwise"}, regions=(region,))
    assert [r.type for r in results] == [SCALAR, PREDICATE]
    with pytest.raises(UserError, match="kind"):
        builder.op("fusion", x, attributes={"kind": "magic"}, regions=(region,))
