"""Every case of every op that pointwise, reduction and window schedules take, against the reference and its bounds."""

from collections.abc import Callable

import numpy as np
import pytest

from tgc.dtypes import bool_
from tgc.ir.builder import Builder
from tgc.ir.dims import evaluate, symbols
from tgc.ir.graph import Function, Graph, parameter
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpDef
from tgc.kernels import pointwise, reduction, window
from tgc.kernels.access_conditional import CONDITIONAL
from tgc.ops import OPS
from tgc.reference import run_with_bounds

SCHEDULES = {
    OpKind.MAP: pointwise.lower,
    OpKind.BARRIER: pointwise.lower,
    OpKind.MOVEMENT: pointwise.lower,
    OpKind.CREATE: pointwise.lower,
    OpKind.INDEX: pointwise.lower,
    OpKind.REDUCE: reduction.lower,
    OpKind.WINDOW: window.lower,
}
TAKEN = [
    d for d in OPS.values() if d.kind in SCHEDULES and d.cases and (d.kind is not OpKind.INDEX or d.name in CONDITIONAL)
]


def operand(definition: OpDef, i: int, v: object, n: int, rng: np.random.Generator) -> np.ndarray:
    type_ = v.type  # type: ignore[attr-defined]
    shape = tuple(evaluate(d, dict.fromkeys(symbols(d), n)) for d in type_.shape)
    if type_.dtype is bool_:
        return rng.integers(0, 2, shape).astype(bool)
    low, high = definition.domain[i] if i < len(definition.domain) else (-5.0, 5.0)
    if type_.dtype.kind == "uint":
        low, high = max(low, 0.0), max(high, 1.0)
    if type_.dtype.is_integer:
        return rng.integers(int(np.ceil(low)), int(high) + 1, shape).astype(type_.dtype.numpy)
    return rng.uniform(low, high, shape).astype(type_.dtype.numpy)


@pytest.mark.parametrize("definition", TAKEN, ids=lambda d: d.name)
def test_an_op_is_compiled_as_it_is_defined(definition: OpDef, compiled: Callable, rng: np.random.Generator) -> None:
    for types, attributes in definition.cases:
        parameters = tuple(parameter(i, t) for i, t in enumerate(types))
        result = Builder(OPS).op(definition.name, *parameters, attributes=attributes)
        graph = Graph(parameters, (result,))
        runner = compiled(SCHEDULES[definition.kind], graph)
        symbolic = any(stage.kernel.symbols for stage in runner.lowering.stages)
        if symbolic and not parameters:
            continue  # the reference takes sizes from operands
        for n in (1, 4) if symbolic else (0,):
            inputs = [operand(definition, i, v, n, rng) for i, v in enumerate(parameters)]
            (actual,) = runner(*inputs)
            ((expected, error),), _ = run_with_bounds(Function("f", graph), inputs)
            left, right = actual.astype(np.float64), expected.astype(np.float64)
            with np.errstate(invalid="ignore"):
                close = np.abs(left - right) <= error
            same = close | (left == right) | (np.isnan(left) & np.isnan(right))
            assert same.all(), (types, attributes, left[~same][:3], right[~same][:3])
