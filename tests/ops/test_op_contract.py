"""The contract of every op, walked over the table: types, meaning, derivatives, batching and scalar bodies agree."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pytest

from passes.autodiff import jvp, vjp
from tgc import reference
from tgc.dtypes import DTYPES, DType, f32, f64, from_numpy
from tgc.errors import UserError
from tgc.ir import dims
from tgc.ir.builder import Builder
from tgc.ir.graph import Array, Attribute, Attributes, Function, Graph, Value, parameter
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpDef
from tgc.ir.types import TensorType
from tgc.kernels.numpy_scalar import NumpyScalarBuilder
from tgc.kernels.vector_math import MATH
from tgc.ops import OPS
from tgc.ops.cases import Input, cases, edge_values, values
from tgc.reference import Bounded

# What has no meaning by itself: sources are the interpreter's, regions are tested with the passes.
PURE = [d for d in OPS.values() if d.kind is not OpKind.CONTROL and d.name not in ("parameter", "state", "literal")]
MAPS = [d for d in PURE if d.scalar is not None]
SMOOTH = [d for d in PURE if d.differentiable and d.operands != 0]
BATCHED = [d for d in PURE if d.batch is not None]


def named(definitions: Sequence[OpDef]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("definition", definitions, ids=[d.name for d in definitions])


def bounded(
    builder: Builder, parameters: Sequence[Value], results: Sequence[Value], arrays: Sequence[Array]
) -> tuple[Bounded, ...]:
    function = Function("test", Graph(tuple(parameters), tuple(results)))
    return reference.run_with_bounds(function, arrays)[0]


def applied(builder: Builder, definition: OpDef, case: Input) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    operands = tuple(parameter(i, t) for i, t in enumerate(case.types))
    return operands, builder.results(definition.name, *operands, attributes=case.attributes)


def assert_within(actual: Array, expected: Array, error: Array, what: str) -> None:
    """``|actual - expected| <= error``, and nan for nan, infinity for infinity."""
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        fine = (a == e) | (np.isnan(a) & np.isnan(e)) | (np.abs(a - e) <= error)
    where = np.argwhere(~fine)
    assert fine.all(), f"{what}: {a[tuple(where[0])]} for {e[tuple(where[0])]} ± {error[tuple(where[0])]}"


@named(PURE)
def test_has_cases(definition: OpDef) -> None:
    assert definition.cases
    assert definition.doc
    assert (definition.scalar is not None) == (definition.kind in (OpKind.MAP, OpKind.BARRIER))
    assert (definition.body is not None) == (definition.kind is OpKind.COMPOSITE)
    assert definition.body is not None or definition.evaluate is not None


@named([d for d in PURE if d.evaluate is not None])
def test_type_rule_tells_what_evaluate_gives(definition: OpDef) -> None:
    for case in cases(definition):
        types = definition.infer(case.types, complete(definition, case.attributes), ())
        wide = [
            x.astype(np.float64)
            if t.dtype in (f32, DTYPES["f16"], DTYPES["bf16"]) and "as_typed" not in definition.extra
            else x
            for x, t in zip(case.arrays, case.types, strict=True)
        ]
        with np.errstate(all="ignore"):
            results = definition.evaluate(wide, complete(definition, case.attributes), types)
        assert [r.shape for r in results] == [t.shape for t in types]
        for result, type_ in zip(results, types, strict=True):
            assert type_.dtype.is_float or result.dtype == type_.dtype.numpy or definition.name == "iota"


def complete(definition: OpDef, attributes: Attributes) -> Attributes:
    return {**{n: s.default for n, s in definition.attributes.items() if n not in attributes}, **attributes}


@named([d for d in PURE if d.operands != 0])
@pytest.mark.parametrize("everywhere", [False, True], ids=["first", "all"])
def test_type_rule_takes_symbolic_sizes(definition: OpDef, everywhere: bool) -> None:
    """With names for the sizes of the first operand or of all, the rule gives types that come out the same."""
    # the sizes of filters are numbers
    everywhere = everywhere and definition.kind is not OpKind.CONVOLUTION
    for case in cases(definition):
        names = {f"d{size}": size for t in case.types for size in t.shape if size not in (0, 1)}
        symbolic = [
            t.with_shape(dims.symbol(f"d{d}") if f"d{d}" in names else d for d in t.shape)
            if everywhere or i == 0
            else t
            for i, t in enumerate(case.types)
        ]
        attributes = complete(definition, case.attributes)
        expected = definition.infer(case.types, attributes, ())
        found = definition.infer(symbolic, attributes, ())
        assert [t.dtype for t in found] == [t.dtype for t in expected]
        assert [tuple(dims.evaluate(d, names) for d in t.shape) for t in found] == [t.shape for t in expected]


def mutations(definition: OpDef, case: Input) -> Iterator[tuple[tuple[TensorType, ...], Attributes]]:
    for i, type_ in enumerate(case.types):
        for changed in (
            *(type_.with_dtype(d) for d in DTYPES.values()),
            type_.with_shape((*type_.shape, 7)),
            type_.with_shape(type_.shape[1:]),
            type_.with_shape(d + 1 for d in type_.shape),
        ):
            yield (*case.types[:i], changed, *case.types[i + 1 :]), case.attributes
    wrong: tuple[Attribute, ...] = (-7, 99, (), (-1, -1, -1), (99,), "nonsense", None, True, 1.5, f32)
    for name in definition.attributes:
        for value in wrong:
            yield case.types, {**case.attributes, name: value}


@named(PURE)
def test_wrong_operands_and_attributes_are_the_users_error(definition: OpDef) -> None:
    """Whatever is given, the rule accepts it or raises a UserError; never anything else."""
    refused = 0
    for case in list(cases(definition))[:2]:
        for types, attributes in mutations(definition, case):
            try:
                definition.infer(types, complete(definition, attributes), ())
            except UserError:
                refused += 1
    assert refused or definition.kind is OpKind.BARRIER


@named([d for d in PURE if d.body is not None and d.evaluate is not None])
def test_body_means_what_evaluate_says(definition: OpDef) -> None:
    builder = Builder(OPS)
    for case in cases(definition):
        operands, results = applied(builder, definition, case)
        expected = reference.run_graph(Graph(operands, results), case.arrays)
        for e, (value, error) in zip(expected, bounded(builder, operands, results, case.arrays), strict=True):
            assert_within(value, e, 2 * error, definition.name)


# -- derivatives -------------------------------------------------------------------------------------------------


def doubled(value: Attribute) -> Attribute:
    if isinstance(value, TensorType):
        return value.with_dtype(f64)
    return f64 if value is f32 else value


def in_f64(definition: OpDef) -> Iterator[Input]:
    """The cases of f32, in f64: finite differences need the digits."""
    for case in cases(definition):
        if not any(t.dtype is f32 for t in case.types) or any(
            t.dtype.is_float and t.dtype is not f32 for t in case.types
        ):
            continue
        if any(isinstance(v, DType) and v is not f32 for v in case.attributes.values()):
            continue
        types = tuple(t.with_dtype(f64) if t.dtype is f32 else t for t in case.types)
        attributes = {k: doubled(v) for k, v in case.attributes.items()}
        arrays = values(definition, types, np.random.default_rng(len(definition.name)))
        yield Input(types, attributes, arrays)


def difference(a: Array, b: Array) -> Array:
    """``a - b``, 0 for equal infinities: the extreme of nothing does not change."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


@named(SMOOTH)
def test_forward_mode_is_the_slope(definition: OpDef) -> None:
    """jvp against central differences at two steps: their difference bounds what the smaller one leaves out."""
    rng = np.random.default_rng(7)
    checked = 0
    for case in in_f64(definition):
        builder = Builder(OPS)
        operands, results = applied(builder, definition, case)
        moving = [v for v in operands if v.dtype is f64]
        tangents = [parameter(len(operands) + i, v.type) for i, v in enumerate(moving)]
        outputs = [r for r in results if r.dtype is f64]
        slopes = jvp(builder, outputs, moving, tangents)
        directions = [rng.uniform(-1, 1, v.shape) for v in moving]
        given = [r for r, s in zip(outputs, slopes, strict=True) if s is not None]
        found = bounded(
            builder, (*operands, *tangents), [s for s in slopes if s is not None], (*case.arrays, *directions)
        )
        at = {}
        for step in (1e-5, -1e-5, 2e-5, -2e-5):
            queue = iter(directions)
            moved = [
                x + step * next(queue) if t.dtype is f64 else x for x, t in zip(case.arrays, case.types, strict=True)
            ]
            at[step] = bounded(builder, operands, given, moved)
        for i, slope in enumerate(found):
            near, far = (difference(at[h][i].value, at[-h][i].value) / (2 * h) for h in (1e-5, 2e-5))
            noise = (at[1e-5][i].error + at[-1e-5][i].error + at[2e-5][i].error + at[-2e-5][i].error) / 2e-5
            representation = (
                4
                * 2.0**-53
                * np.max([np.abs(x).max(initial=0.0) for x in case.arrays if x.dtype == np.float64], initial=1.0)
                / 1e-5
            )
            tolerance = np.abs(near - far) + noise + slope.error + representation * np.maximum(1.0, np.abs(slope.value))
            assert_within(slope.value, near, tolerance, f"{definition.name} of {case.types} {dict(case.attributes)}")
            checked += slope.value.size
    assert checked


@named(SMOOTH)
def test_reverse_mode_is_the_transpose_of_forward_mode(definition: OpDef) -> None:
    """<w, J v> = <Jᵀ w, v> for random v and w, within the bounds of both sides."""
    rng = np.random.default_rng(11)
    for case in in_f64(definition):
        builder = Builder(OPS)
        operands, results = applied(builder, definition, case)
        moving = [v for v in operands if v.dtype is f64]
        outputs = [r for r in results if r.dtype is f64]
        tangents = [parameter(len(operands) + i, v.type) for i, v in enumerate(moving)]
        cotangents = [parameter(len(operands) + len(moving) + i, v.type) for i, v in enumerate(outputs)]
        forward = jvp(builder, outputs, moving, tangents)
        backward = vjp(builder, outputs, moving, cotangents)
        pairs = [(w, s) for w, s in zip(cotangents, forward, strict=True) if s is not None]
        pairs_back = [(v, c) for v, c in zip(tangents, backward, strict=True) if c is not None]
        for value, derivative in pairs + pairs_back:
            assert dims_of(value) == dims_of(derivative)
        arrays = [*case.arrays, *(rng.uniform(-1, 1, v.shape) for v in (*moving, *outputs))]
        sides = []
        for group in (pairs, pairs_back):
            found = bounded(builder, (*operands, *tangents, *cotangents), [d for _, d in group], arrays)
            weights = [arrays[int(p.node.attributes["index"])] for p, _ in group]
            total = sum(float(np.sum(w * f.value)) for w, f in zip(weights, found, strict=True))
            terms = sum(
                float(np.sum(np.abs(w) * (f.error + f.value.size * 2.0**-52 * np.abs(f.value))))
                for w, f in zip(weights, found, strict=True)
            )
            sides.append((total, terms))
        (a, error_a), (b, error_b) = sides
        assert abs(a - b) <= error_a + error_b, f"{definition.name} of {case.types} {dict(case.attributes)}: {a} {b}"


def dims_of(value: Value) -> tuple[object, ...]:
    return (value.dtype, value.shape)


# -- batching ----------------------------------------------------------------------------------------------------


@named(BATCHED)
def test_batching_is_stacking(definition: OpDef) -> None:
    for index, case in enumerate(cases(definition)):
        count = len(case.types)
        others = values(definition, case.types, np.random.default_rng(index))
        flags = [f for f in product((False, True), repeat=count) if any(f)]
        for batched in flags if count <= 3 else flags[-1:]:
            builder = Builder(OPS)
            types = [t.with_shape((2, *t.shape)) if has else t for t, has in zip(case.types, batched, strict=True)]
            operands = tuple(parameter(i, t) for i, t in enumerate(types))
            results = definition.batch(builder, operands, batched, complete(definition, case.attributes), 2)
            second = [y if has else x for x, y, has in zip(case.arrays, others, batched, strict=True)]
            arrays = [np.stack([x, y]) if has else x for x, y, has in zip(case.arrays, second, batched, strict=True)]
            found = bounded(builder, operands, results, arrays)
            single, outputs = applied(builder, definition, case)
            halves = [bounded(builder, single, outputs, given) for given in (case.arrays, second)]
            for i, (value, error) in enumerate(found):
                expected = np.stack([half[i].value for half in halves])
                assert value.dtype == expected.dtype
                assert value.shape == expected.shape
                allowed = error + np.stack([half[i].error for half in halves])
                assert_within(value, expected, allowed, f"{definition.name} {batched}")


# -- scalar bodies -----------------------------------------------------------------------------------------------


def combinations(types: Sequence[TensorType]) -> tuple[Array, ...]:
    """Every combination of edge values of the operands."""
    grids = np.meshgrid(*(edge_values(t.dtype) for t in types), indexing="ij")
    return tuple(g.ravel() for g in grids)


@named(MAPS)
@pytest.mark.parametrize("fused", [True, False], ids=["fma", "no-fma"])
def test_scalar_body_means_what_evaluate_says(definition: OpDef, fused: bool) -> None:
    s = NumpyScalarBuilder(fused=fused, functions=MATH)
    seen: set[object] = set()
    for case in cases(definition):
        signature = (*(t.dtype for t in case.types), *case.attributes.values())
        if signature in seen:
            continue
        seen.add(signature)
        drawn = values(definition, [t.with_shape((500,)) for t in case.types], np.random.default_rng(3))
        for arrays in (drawn, combinations(case.types)):
            types = tuple(TensorType(t.dtype, a.shape) for t, a in zip(case.types, arrays, strict=True))
            builder = Builder(OPS)
            operands, results = applied(builder, definition, Input(types, case.attributes, arrays))
            ((expected, error),) = bounded(builder, operands, results, arrays)
            result = results[0].dtype
            scalars = [a.astype(from_numpy(a.dtype).compute.numpy) for a in arrays]
            with np.errstate(all="ignore"):
                actual = np.asarray(definition.scalar(s, scalars, case.attributes, result)).astype(result.numpy)
            if definition.foldable:
                same = (
                    (actual == expected) & (np.signbit(actual) == np.signbit(expected))
                    if result.is_float
                    else actual == expected
                )
                if result.is_float:
                    same |= np.isnan(actual.astype(np.float64)) & np.isnan(expected.astype(np.float64))
                bad = np.argwhere(~same)
                assert same.all(), f"{[a[bad[0][0]] for a in arrays]}: {actual[bad[0][0]]}, not {expected[bad[0][0]]}"
            else:
                assert_within(actual, expected, error, definition.name)
