"""Composites against their formulas in NumPy, and their own gradients against those of their bodies."""

from math import erf, sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from passes.autodiff import vjp
from tgc import reference
from tgc.dtypes import bf16, f32, f64, from_numpy, i32, i64
from tgc.errors import DTypeError, ShapeError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Array, Attributes, Function, Graph, Value, parameter
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpDef
from tgc.ir.types import TensorType
from tgc.ops import OPS
from tgc.ops.cases import cases
from tgc.reference import Bounded

OWN_GRADIENTS = [d for d in OPS.values() if d.kind is OpKind.COMPOSITE and d.vjp is not None]


# Rounding the constants of a formula to f32 moves it no more than rounding its operations does.
CONSTANTS = 2.0


def operands_of(*arrays: Array) -> tuple[Value, ...]:
    return tuple(parameter(i, TensorType(from_numpy(a.dtype), a.shape)) for i, a in enumerate(arrays))


def narrow(*arrays: Array) -> list[Array]:
    return [a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays]


def single(rng: np.random.Generator, *shape: int, mean: float = 0.0) -> Array:
    """Normal numbers of f32, in f64: NumPy's formulas in f64 are exact beside the bounds of f32."""
    return rng.normal(mean, 1.5, shape).astype(np.float32).astype(np.float64)


def run(name: str, attributes: Attributes, *arrays: Array) -> tuple[Bounded, ...]:
    """The results in f32, with the bounds on their errors."""
    given = narrow(*arrays)
    operands = operands_of(*given)
    results = Builder(OPS).results(name, *operands, attributes=attributes)
    return reference.run_with_bounds(Function(name, Graph(operands, results)), given)[0]


def assert_is(found: Bounded, expected: ArrayLike, *, at: Any = ..., factor: float = 1.0) -> None:
    """``found`` at the index ``at`` is within ``factor`` times its bound of what is expected."""
    value, error = (np.asarray(a[at], np.float64) for a in found)
    assert value.shape == np.shape(expected)
    assert np.all(np.isfinite(error))
    assert np.all(np.abs(value - expected) <= factor * error)


def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize("definition", OWN_GRADIENTS, ids=[d.name for d in OWN_GRADIENTS])
def test_own_gradients_are_those_of_the_body(definition: OpDef) -> None:
    assert definition.body is not None
    for case in cases(definition):
        if any(t.dtype.is_float and t.dtype is not f32 for t in case.types):
            continue
        types = [t.with_dtype(f64) if t.dtype is f32 else t for t in case.types]
        builder = Builder(OPS)
        operands = tuple(parameter(i, t) for i, t in enumerate(types))
        whole = builder.results(definition.name, *operands, attributes=case.attributes)
        parts = definition.body(builder, operands, whole[0].node.attributes)
        seeds = tuple(parameter(len(operands) + i, r.type) for i, r in enumerate(whole))
        inputs = [x.astype(t.dtype.numpy) for x, t in zip(case.arrays, types, strict=True)]
        inputs += [np.random.default_rng(i).normal(size=s.shape) for i, s in enumerate(seeds)]
        sides = []
        for results in (whole, parts):
            found = [d for d in vjp(builder, results, operands, seeds) if d is not None]
            function = Function("gradient", Graph((*operands, *seeds), tuple(found)))
            sides.append(reference.run_with_bounds(function, inputs)[0])
        assert len(sides[0]) == len(sides[1]) > 0
        for own, derived in zip(*sides, strict=True):
            assert np.all(np.abs(own.value - derived.value) <= own.error + derived.error)


def test_softmax_survives_large_numbers() -> None:
    x = np.array([[1e4, 1e4 + 1, -1e4]])
    assert_is(run("softmax", {"axis": 1}, x)[0], softmax(x))
    assert_is(run("log_softmax", {"axis": 1}, x)[0], x - (1e4 + 1 + np.log1p(np.exp(-1))))


def test_softmax_of_bf16_is_computed_in_f32() -> None:
    """One rounding: the sum of many small terms would be far off in bf16."""
    x = np.zeros((1, 1000), bf16.numpy)
    expected = np.asarray(0.001, np.float32).astype(bf16.numpy)
    assert np.all(run("softmax", {"axis": 1}, x)[0].value == expected)


def test_activations(rng: np.random.Generator) -> None:
    x = single(rng, 50)
    phi = np.array([0.5 * (1 + erf(v / sqrt(2))) for v in x])
    cubic = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    expected: dict[str, tuple[Attributes, Array]] = {
        "gelu": ({"approximate": "none"}, x * phi),
        "silu": ({}, x * sigmoid(x)),
        "softplus": ({}, np.logaddexp(x, 0)),
        "elu": ({"alpha": 0.5}, np.where(x > 0, x, 0.5 * np.expm1(x))),
        "leaky_relu": ({"slope": 0.125}, np.where(x > 0, x, 0.125 * x)),
    }
    for name, (attributes, y) in expected.items():
        assert_is(run(name, attributes, x)[0], y, factor=CONSTANTS)
    assert_is(run("gelu", {"approximate": "tanh"}, x)[0], 0.5 * x * (1 + np.tanh(cubic)), factor=CONSTANTS)


def test_layer_norm_has_mean_and_variance_of_its_parameters(rng: np.random.Generator) -> None:
    x, weight, bias = single(rng, 4, 6, 5, mean=3), single(rng, 6, 5), single(rng, 6, 5)
    (y,) = run("layer_norm", {"axes_count": 2, "epsilon": 2.0**-9}, x, weight, bias)
    centered = x - x.mean((1, 2), keepdims=True)
    expected = centered / np.sqrt(x.var((1, 2), keepdims=True) + 2.0**-9) * weight + bias
    assert_is(y, expected)
    (y,) = run("rms_norm", {"axes_count": 1, "epsilon": 0.0}, x, weight[0])
    assert_is(y, x / np.sqrt((x**2).mean(-1, keepdims=True)) * weight[0])


def test_batch_norm_trains_with_the_batch_and_infers_with_what_it_gave(rng: np.random.Generator) -> None:
    x, weight, bias = single(rng, 4, 3, 5, mean=3), single(rng, 3), single(rng, 3)
    attributes: Attributes = {"axis": 1, "epsilon": 2.0**-9}
    y, mean, variance = run("batch_norm", attributes, x, weight, bias)
    assert_is(mean, x.mean((0, 2)))
    assert_is(variance, x.var((0, 2)))
    scale = (weight / np.sqrt(x.var((0, 2)) + 2.0**-9))[:, None]
    expected = (x - x.mean((0, 2))[:, None]) * scale + bias[:, None]
    assert_is(y, expected)
    statistics = [v.value.astype(np.float64) for v in (mean, variance)]
    (again,) = run("batch_norm_inference", attributes, x, weight, bias, *statistics)
    assert np.all(np.abs(again.value - y.value.astype(np.float64)) <= again.error + y.error)


def test_group_norm_with_one_group_is_layer_norm(rng: np.random.Generator) -> None:
    x = single(rng, 2, 4, 3)
    (y,) = run("group_norm", {"groups": 1, "epsilon": 1e-5}, x, np.ones(4), np.zeros(4))
    (whole,) = run("layer_norm", {"axes_count": 2, "epsilon": 1e-5}, x, np.ones((4, 3)), np.zeros((4, 3)))
    np.testing.assert_array_equal(y.value, whole.value)


def test_a_mean_over_a_symbolic_batch_divides_by_its_size(rng: np.random.Generator) -> None:
    x = parameter(0, TensorType(f32, (symbol("n"), 2)))
    ones, zeros = (Builder(OPS).full(v, (2,), f32) for v in (1.0, 0.0))
    _, mean, _ = Builder(OPS).results("batch_norm", x, ones, zeros)
    array = single(rng, 7, 2)
    ((found,), _) = reference.run_with_bounds(Function("mean", Graph((x,), (mean,))), narrow(array))
    assert_is(found, array.mean(0))


def test_cross_entropy_leaves_out_negative_labels_and_shows_those_that_are_too_large(rng: np.random.Generator) -> None:
    logits = single(rng, 5, 3)
    labels = np.array([2, -100, 0, 3, 2**32], np.int64)
    (loss,) = run("cross_entropy", {}, logits, labels)
    p = softmax(logits)
    assert_is(loss, [-np.log(p[0, 2]), 0, -np.log(p[2, 0])], at=slice(3))
    assert np.isnan(loss[0][3:]).all()
    given = narrow(logits, labels)
    operands = operands_of(*given)
    builder = Builder(OPS)
    (y,) = builder.results("cross_entropy", *operands)
    seed = builder.full(2.0, (5,), f32)
    gradient, none = vjp(builder, [y], operands, [seed])
    assert gradient is not None
    assert none is None
    ((found,), _) = reference.run_with_bounds(Function("gradient", Graph(operands, (gradient,))), given)
    expected = np.zeros((3, 3))
    expected[0], expected[2] = 2 * (p[0] - np.eye(3)[2]), 2 * (p[2] - np.eye(3)[0])
    assert_is(found, expected, at=slice(3))
    assert np.isnan(found[0][3:]).all()


def test_binary_cross_entropy(rng: np.random.Generator) -> None:
    x, t = single(rng, 9), rng.integers(0, 9, 9) / 8
    expected = -t * np.log(sigmoid(x)) - (1 - t) * np.log(1 - sigmoid(x))
    assert_is(run("binary_cross_entropy", {}, x, t)[0], expected)


def test_attention(rng: np.random.Generator) -> None:
    q, k, v = single(rng, 2, 3, 4), single(rng, 2, 5, 4), single(rng, 2, 5, 6)
    scores = q @ k.swapaxes(1, 2) / 2
    (y,) = run("attention", {}, q, k, v)
    assert_is(y, softmax(scores) @ v)
    mask = rng.integers(0, 2, (3, 5)).astype(bool)
    mask[:, 0], mask[2] = True, False
    (y,) = run("attention", {"causal": True}, q, k, v, mask)
    seen = np.where(mask & np.tri(3, 5, dtype=bool), scores, -np.inf)[:, :2]
    assert_is(y, softmax(seen) @ v, at=np.s_[:, :2])
    assert_is(y, v.mean(1), at=np.s_[:, 2])
    added = np.where(mask, 0.5, -2.0)
    (y,) = run("attention", {"scale": 0.25}, q, k, v, added)
    assert_is(y, softmax(scores / 2 + added) @ v)


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_is_its_recurrence(reverse: bool, rng: np.random.Generator) -> None:
    x, h, c = single(rng, 4, 2, 3), single(rng, 2, 5), single(rng, 2, 5)
    w, u, bias = single(rng, 20, 3), single(rng, 20, 5), single(rng, 20)
    outputs, last, cell = run("lstm", {"reverse": reverse}, x, h, c, w, u, bias)
    for t in reversed(range(4)) if reverse else range(4):
        i, f, g, o = np.split(x[t] @ w.T + h @ u.T + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        assert_is(outputs, h, at=t)
    assert_is(last, h)
    assert_is(cell, c)


def test_gru_is_its_recurrence(rng: np.random.Generator) -> None:
    x, h = single(rng, 4, 2, 3), single(rng, 2, 5)
    w, u, b, d = single(rng, 15, 3), single(rng, 15, 5), single(rng, 15), single(rng, 15)
    outputs, last = run("gru", {}, x, h, w, u, b, d)
    for t in range(4):
        (xr, xz, xn), (hr, hz, hn) = np.split(x[t] @ w.T + b, 3, axis=1), np.split(h @ u.T + d, 3, axis=1)
        z, n = sigmoid(xz + hz), np.tanh(xn + sigmoid(xr + hr) * hn)
        h = (1 - z) * n + z * h
        assert_is(outputs, h, at=t)
    assert_is(last, h)


def test_the_inputs_product_is_outside_of_the_loop() -> None:
    definition = OPS["lstm"]
    assert definition.body is not None
    operands = tuple(parameter(i, t) for i, t in enumerate(definition.cases[0][0]))
    results = definition.body(Builder(OPS), operands, {"reverse": False})
    scan = results[0].node
    assert scan.op == "scan"
    inside = [n for n in scan.regions[0].nodes() if n.op == "contract"]
    outside = [n for n in Graph(operands, results).nodes() if n.op == "contract"]
    assert len(inside) == len(outside) == 1


@pytest.mark.parametrize(
    ("name", "types", "attributes", "message"),
    [
        ("softmax", [TensorType(f32, (2, 3))], {"axis": 2}, "along axis 2"),
        (
            "layer_norm",
            [TensorType(f32, (2, 3)), *[TensorType(f32, (2,))] * 2],
            {"axes_count": 1},
            r"f32\[3\], not f32\[2\]",
        ),
        ("batch_norm", [TensorType(f32, (2, 3)), *[TensorType(f32, (2,))] * 2], {}, r"f32\[3\], not f32\[2\]"),
        ("group_norm", [TensorType(f32, (2, 3)), *[TensorType(f32, (3,))] * 2], {"groups": 2}, "do not form 2 groups"),
        ("cross_entropy", [TensorType(f32, (4, 3)), TensorType(i64, (5,))], {}, "cross_entropy of logits"),
        ("attention", [TensorType(f32, (4, 3)), *[TensorType(f32, (4, 2))] * 2], {}, "3 against 2"),
        (
            "attention",
            [*[TensorType(f32, (4, 2))] * 3, TensorType(f32, (3, 4))],
            {},
            "does not broadcast to the scores",
        ),
    ],
)
def test_says_what_does_not_fit(name: str, types: list[TensorType], attributes: Attributes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Builder(OPS).op(name, *(parameter(i, t) for i, t in enumerate(types)), attributes=attributes)


def test_labels_are_integers() -> None:
    logits = parameter(0, TensorType(f32, (4, 3)))
    with pytest.raises(DTypeError, match="takes integers"):
        Builder(OPS).op("cross_entropy", logits, parameter(1, TensorType(f32, (4,))))
    assert Builder(OPS).op("cross_entropy", logits, parameter(1, TensorType(i32, (4,)))).shape == (4,)
