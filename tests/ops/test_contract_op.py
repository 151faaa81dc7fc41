"""The einsum op beyond what the contract of every op says: its specification, its messages and its bound."""

import numpy as np
import pytest

from tgc import dtypes, reference
from tgc.dtypes import f32, i8
from tgc.errors import DTypeError, ShapeError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Array, Function, Graph, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS


def contracted(spec: str, *types: TensorType) -> Graph:
    operands = tuple(parameter(i, t) for i, t in enumerate(types))
    return Graph(operands, (Builder(OPS).contract(*operands, spec),))


@pytest.mark.parametrize("spec", ["mk,kn->mn", "km,nk->nm", "mk,kn->", "mk,kn->n"])
def test_agrees_with_written_out_sums(spec: str, rng: np.random.Generator) -> None:
    letters = spec.split("->", maxsplit=1)[0].split(",")
    sizes = {"m": 2, "n": 3, "k": 4}
    arrays = [rng.integers(-9, 9, [sizes[c] for c in part]).astype(np.float32) for part in letters]
    graph = contracted(spec, *(TensorType(f32, a.shape) for a in arrays))
    (found,) = reference.run_graph(graph, arrays)
    expected: Array = np.zeros([sizes[c] for c in spec.split("->")[1]])
    for index in np.ndindex(*sizes.values()):
        at = dict(zip(sizes, index, strict=True))
        term = 1.0
        for part, array in zip(letters, arrays, strict=True):
            term *= float(array[tuple(at[c] for c in part)])
        expected[tuple(at[c] for c in spec.split("->")[1])] += term
    np.testing.assert_array_equal(found, expected)


def test_integers_wrap() -> None:
    graph = contracted("i,i->", TensorType(i8, (2,)), TensorType(i8, (2,)))
    (found,) = reference.run_graph(graph, [np.array([100, 100], np.int8), np.array([1, 1], np.int8)])
    assert found == np.int8(-56)


def test_a_known_size_is_kept_where_a_symbol_meets_it() -> None:
    n = symbol("n")
    graph = contracted("bk,bn->bn", TensorType(f32, (n, 4)), TensorType(f32, (8, 2 * n)))
    assert graph.results[0].shape == (8, 2 * n)


@pytest.mark.parametrize(
    ("spec", "shapes", "message"),
    [
        ("mk,kn->mn", ((2, 3), (4, 5)), "index 'k': 3 against 4"),
        ("mk,kn->mn", ((2, 3), (3,)), "right operand has 1 dimensions, not 2"),
        ("mk,kn->mz", ((2, 3), (3, 4)), "index 'z' occurs in no operand"),
        ("mm,mn->mn", ((2, 2), (2, 4)), "not a specification"),
        ("mk", ((2, 2), (2, 4)), "not a specification"),
        ("k,k->", ((symbol("n"),), (symbol("n") + 1,)), r"n against n\+1"),
    ],
)
def test_says_what_does_not_fit(spec: str, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        contracted(spec, *(TensorType(f32, s) for s in shapes))


def test_takes_one_dtype() -> None:
    with pytest.raises(DTypeError, match="one dtype"):
        contracted("i,i->", TensorType(f32, (2,)), TensorType(dtypes.f64, (2,)))


def test_the_bound_holds_for_a_sum_in_the_worst_order(rng: np.random.Generator) -> None:
    """Naive f32 summation stays within the bound, and the bound is not vacuous: it shrinks with the magnitudes."""
    a, b = (rng.uniform(-1, 1, 1000).astype(np.float32) for _ in range(2))
    graph = contracted("i,i->", TensorType(f32, (1000,)), TensorType(f32, (1000,)))
    ((bounded,), _) = reference.run_with_bounds(Function("f", graph), [a, b])
    naive = np.float32(0)
    for x, y in zip(a, b, strict=True):
        naive = np.float32(naive + np.float32(x * y))
    assert abs(float(naive) - float(bounded.value)) <= bounded.error
    assert bounded.error < 1e-3 * np.abs(a * b).sum()
